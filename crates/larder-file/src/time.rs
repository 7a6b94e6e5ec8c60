//! The host's time on this process's clock.

use std::time::{Duration, SystemTime};

use larder_core::envelope::TimeBase;
use larder_core::{Clock, Moment};

/// The instant at which an operation happens.
///
/// Records carry the host's wall time, which is the same for every process that uses the directory. An operation takes
/// it once, so that everything that it compares is compared at one instant.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    pub(crate) now: Moment,
    pub(crate) base: TimeBase,
}

impl Time {
    pub(crate) fn of(clock: &Clock) -> Self {
        let now = clock.now();
        let wall = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The base has whole milliseconds: it is the next one, at the moment when that begins.
        let rest = Duration::from_nanos(u64::from(1_000_000 - wall.subsec_nanos() % 1_000_000));
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX - 2) + 1;
        Time { now, base: TimeBase { millis, at: now + rest } }
    }

    /// Whether something that ends at that time of the host has ended.
    pub(crate) fn over(&self, millis: u64) -> bool {
        self.base.moment(millis) <= self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_milliseconds_are_exact() {
        let (clock, hands) = Clock::manual();
        let written = Time::of(&clock);
        let end = written.base.millis(written.now + Duration::from_millis(20));
        hands.advance(Duration::from_millis(19));
        assert!(!Time::of(&clock).over(end));
        hands.advance(Duration::from_millis(1));
        assert!(Time::of(&clock).over(end));
    }

    #[test]
    fn parts_of_a_millisecond_never_prolong_a_lifetime() {
        let (clock, hands) = Clock::manual();
        for micros in [1, 250, 500, 999] {
            hands.advance(Duration::from_micros(micros));
            let written = Time::of(&clock);
            let end = written.base.millis(written.now + Duration::from_millis(5));
            assert!(!written.over(end));
            hands.advance(Duration::from_millis(5));
            assert!(Time::of(&clock).over(end));
        }
    }
}
