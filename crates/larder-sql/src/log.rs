//! What is logged: once for a burst, never with a key, an address or a credential.

use std::time::Duration;

use larder_core::envelope::Damage;
use larder_core::{Clock, Error, Moment};
use parking_lot::Mutex;

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

/// Counts damaged records and tells of them at most every ten seconds.
#[derive(Default)]
pub(crate) struct Damages(Mutex<(u64, Option<Moment>)>);

impl Damages {
    pub(crate) fn seen(&self, clock: &Clock, damage: Damage) {
        let now = clock.now();
        let mut state = self.0.lock();
        state.0 += 1;
        if state.1.is_some_and(|told| now.since(told) < QUIET) {
            return;
        }
        let count = std::mem::take(&mut state.0);
        state.1 = Some(now);
        drop(state);
        tracing::warn!(target: TARGET, count, last = ?damage, "records that cannot be used were taken for absent");
    }
}

const TARGET: &str = "larder::sql";

const QUIET: Duration = Duration::from_secs(10);
