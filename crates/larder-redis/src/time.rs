//! The server's time on this process's clock.

use std::time::Duration;

use larder_core::envelope::TimeBase;
use larder_core::{Clock, Moment};
use parking_lot::RwLock;

/// How the server's time relates to ours: learned when a connection is made and every [`EVERY`] from then on.
///
/// Between two answers it is counted by the monotonic clock, so nobody's wall clock is ever compared with another's.
#[derive(Default)]
pub(crate) struct ServerTime(RwLock<Option<Known>>);

#[derive(Clone, Copy)]
struct Known {
    base: TimeBase,
    // Half the round trip: how far the base may be off.
    error: Duration,
}

/// How often the server is asked.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

// How far two good clocks may drift apart in that time.
const DRIFT: Duration = Duration::from_millis(1);

impl ServerTime {
    /// The base; `None` before the first answer.
    pub(crate) fn base(&self) -> Option<TimeBase> {
        self.0.read().map(|known| known.base)
    }

    /// Takes the answer of a server that was not asked before.
    pub(crate) fn restart(&self, clock: &Clock, asked: Moment, seconds: u64, micros: u64) {
        *self.0.write() = Some(known(clock, asked, seconds, micros));
    }

    /// Takes a later answer of the same server: the more exact of the two stays, unless they contradict each other.
    pub(crate) fn refresh(&self, clock: &Clock, asked: Moment, seconds: u64, micros: u64) {
        let new = known(clock, asked, seconds, micros);
        let mut current = self.0.write();
        *current = Some(match *current {
            Some(old) => better(Known { error: old.error + DRIFT, ..old }, new),
            None => new,
        });
    }
}

fn known(clock: &Clock, asked: Moment, seconds: u64, micros: u64) -> Known {
    let error = clock.now().since(asked) / 2;
    // The base has whole milliseconds: round up, and count from when that one begins.
    let rest = Duration::from_micros(1000 - micros % 1000);
    let millis = seconds.saturating_mul(1000).saturating_add(micros / 1000 + 1);
    Known { base: TimeBase { millis, at: asked + error + rest }, error }
}

fn better(old: Known, new: Known) -> Known {
    let apart = old.base.moment(new.base.millis).millis_since(new.base.at).unsigned_abs();
    let agree = u128::from(apart) <= (old.error + new.error).as_millis() + 1;
    if agree && old.error < new.error { old } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_round_trip_is_the_servers_time() {
        let (clock, hands) = Clock::manual();
        let time = ServerTime::default();
        assert!(time.base().is_none());
        let asked = clock.now();
        hands.advance(Duration::from_millis(20));
        time.restart(&clock, asked, 1000, 500_000);
        let base = time.base().unwrap();
        assert_eq!(base.millis(asked + Duration::from_millis(10)), 1_000_500);
        assert_eq!(base.moment(1_000_510), asked + Duration::from_millis(20));
    }

    #[test]
    fn a_slow_answer_does_not_replace_a_quick_one_that_agrees() {
        let (clock, hands) = Clock::manual();
        let time = ServerTime::default();
        time.restart(&clock, clock.now(), 1000, 0);
        let at = |time: &ServerTime| time.base().unwrap().millis(clock.now());

        let asked = clock.now();
        hands.advance(Duration::from_millis(200));
        time.refresh(&clock, asked, 1000, 10_000); // 90 ms off, and may be by 100
        assert_eq!(at(&time), 1_000_200);

        let asked = clock.now();
        hands.advance(Duration::from_millis(2));
        time.refresh(&clock, asked, 5000, 0); // the server's clock was set
        assert_eq!(at(&time), 5_000_001);
    }
}
