//! What is logged: once for a burst, never with a key or a path.

use std::time::Duration;

use larder_core::envelope::Damage;
use larder_core::{Clock, Moment};
use parking_lot::Mutex;

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
        tracing::warn!(target: "larder::file", count, last = ?damage, "records that cannot be used were taken for absent");
    }
}

const QUIET: Duration = Duration::from_secs(10);
