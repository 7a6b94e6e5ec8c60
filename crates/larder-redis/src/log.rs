//! What is logged: once for a burst, never with a key, an address or a credential.

use larder_core::envelope::Damage;
use larder_core::{Clock, Damages};

pub(crate) fn lost(why: &str) {
    tracing::debug!(target: TARGET, why, "the connection is given up");
}

pub(crate) fn outage(first: bool, why: &str) {
    if first {
        tracing::warn!(target: TARGET, why, "the server is not available; trying again in the background");
    } else {
        tracing::debug!(target: TARGET, why, "the server is still not available");
    }
}

/// Tells of damaged records now and then.
pub(crate) fn damaged(damages: &Damages, clock: &Clock, damage: Damage) {
    if let Some(count) = damages.seen(clock.now()) {
        tracing::warn!(target: TARGET, count, last = ?damage, "records that cannot be used were taken for absent");
    }
}

const TARGET: &str = "larder::redis";
