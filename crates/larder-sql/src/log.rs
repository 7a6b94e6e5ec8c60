//! What is logged: once for a burst, never with a key, an address or a credential.

use larder_core::envelope::Damage;
use larder_core::{Clock, Damages, Error};

pub(crate) fn lost(database: &str, why: &Error) {
    tracing::debug!(target: TARGET, database, %why, "a connection is given up");
}

pub(crate) fn outage(database: &str, first: bool, why: &Error) {
    if first {
        tracing::warn!(target: TARGET, database, %why, "the database is not available");
    } else {
        tracing::debug!(target: TARGET, database, %why, "the database is still not available");
    }
}

pub(crate) fn sweep(database: &str, why: &Error) {
    tracing::debug!(target: TARGET, database, %why, "a sweep was given up; the next one goes on");
}

/// Tells of damaged records now and then.
pub(crate) fn damaged(damages: &Damages, clock: &Clock, damage: Damage) {
    if let Some(count) = damages.seen(clock.now()) {
        tracing::warn!(target: TARGET, count, last = ?damage, "records that cannot be used were taken for absent");
    }
}

const TARGET: &str = "larder::sql";
