//! The server's time on this process's clock, finer than the server tells it.
//!
//! Memcached counts whole seconds, and all that can be asked is what it has counted. But when the next second comes,
//! it comes for every node at once: a node that asks often enough around that moment knows the server's time as exactly
//! as a round trip is short. Between two such moments it is counted by the monotonic clock, so nobody's wall clock is
//! ever compared with another's.
//!
//! The seconds are asked for by way of an item that ends at a fixed time: what is left of its life tells the time in a
//! reply of a dozen bytes.

use std::time::Duration;

use larder_core::envelope::TimeBase;
use larder_core::{Clock, Moment};
use parking_lot::RwLock;

/// The item whose end is [`END`]. Wire names have a generation after the first colon, so none is equal to it.
pub(crate) const ITEM: &str = "larder:clock";

/// The last second that Memcached can be told: 2038-01-19T03:14:07Z.
pub(crate) const END: u32 = i32::MAX as u32;

/// How often the server is asked again.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// How long to wait between two questions while a second's beginning is looked for.
pub(crate) const STEP: Duration = Duration::from_millis(3);

/// How the server's time relates to ours.
pub(crate) struct ServerTime {
    base: RwLock<Option<TimeBase>>,
    // Bases are counted from here, so that two of them compare.
    origin: Moment,
}

impl ServerTime {
    pub(crate) fn new(clock: &Clock) -> Self {
        ServerTime { base: RwLock::new(None), origin: clock.now() }
    }

    /// The base; `None` before the first answer.
    pub(crate) fn base(&self) -> Option<TimeBase> {
        *self.base.read()
    }

    /// Takes an answer: the server had counted `second` seconds at some moment between these two. The base stays
    /// unless the answer contradicts it; then it moves no farther than it must. How far, in milliseconds.
    pub(crate) fn sample(&self, asked: Moment, answered: Moment, second: u64) -> u64 {
        let millis = i64::try_from(second).unwrap_or(i64::MAX / 2000).saturating_mul(1000);
        // What the time was at the origin, at the least and at the most.
        let least = millis.saturating_sub(answered.millis_since(self.origin));
        let most = millis.saturating_add(999).saturating_sub(asked.millis_since(self.origin));
        let mut base = self.base.write();
        let known = base.map(|base| base.millis.cast_signed());
        let new = match known {
            Some(known) => known.clamp(least, most.max(least)),
            None => least + (most - least) / 2,
        };
        *base = Some(TimeBase { millis: new.max(0).cast_unsigned(), at: self.origin });
        known.map_or(u64::MAX, |known| known.abs_diff(new))
    }

    /// How long it is from now to the next second's beginning, as far as is known.
    pub(crate) fn to_next_second(&self, now: Moment) -> Duration {
        let millis = self.base().map_or(0, |base| base.millis(now));
        Duration::from_millis(1000 - millis % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A server whose seconds begin at this many milliseconds past those of our clock.
    fn ask(time: &ServerTime, clock: &Clock, ahead: u64) {
        let now = clock.now();
        let server = 5_000_000 + now.millis_since(time.origin).cast_unsigned() + ahead;
        time.sample(now, now, server / 1000);
    }

    #[test]
    fn seconds_that_begin_tell_the_time_to_the_millisecond() {
        for ahead in [0, 1, 250, 500, 999] {
            let (clock, hands) = Clock::manual();
            let time = ServerTime::new(&clock);
            for _ in 0..=(1000 / 3 + 1) {
                ask(&time, &clock, ahead);
                hands.advance(STEP);
            }
            let base = time.base().unwrap();
            let error = base.millis(time.origin).abs_diff(5_000_000 + ahead);
            assert!(error <= 3, "{ahead}: off by {error}");
        }
    }

    #[test]
    fn an_answer_that_agrees_changes_nothing() {
        let (clock, hands) = Clock::manual();
        let time = ServerTime::new(&clock);
        let asked = clock.now();
        hands.advance(Duration::from_millis(200));
        time.sample(asked, clock.now(), 1000);
        let first = time.base().unwrap().millis;
        hands.advance(Duration::from_millis(100));
        assert_eq!(time.sample(asked, clock.now(), 1000), 0, "a slow answer says little");
        assert_eq!(time.base().unwrap().millis, first);
    }

    #[test]
    fn a_server_whose_clock_was_set_is_followed() {
        let (clock, _) = Clock::manual();
        let time = ServerTime::new(&clock);
        time.sample(clock.now(), clock.now(), 1000);
        assert!(time.sample(clock.now(), clock.now(), 5000) > 3_000_000);
        let base = time.base().unwrap();
        assert_eq!(base.millis(clock.now()) / 1000, 5000);
        assert!(time.to_next_second(clock.now()) <= Duration::from_secs(1));
    }
}
