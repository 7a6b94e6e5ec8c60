//! Time, injected.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// A point on a [`Clock`]'s monotonic line, in nanoseconds from the clock's origin; it may lie before the origin.
///
/// Sums saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// The time from `earlier` to `self`, zero if `earlier` is the later one.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// `self` moved by that many milliseconds, backwards when negative.
    #[must_use]
    pub fn shifted_millis(self, millis: i64) -> Moment {
        Moment(self.0.saturating_add(millis.saturating_mul(1_000_000)))
    }

    /// Whole milliseconds from `earlier` to `self`, negative if `earlier` is the later one.
    pub fn millis_since(self, earlier: Moment) -> i64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Moment(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Moment(self.0.saturating_sub(nanos))
    }
}

/// Where every part of Larder reads the time.
///
/// [`Clock::system`] is the machine's; [`Clock::manual`] stands still until a test moves it. Ages are always taken
/// from the monotonic line ([`Clock::now`]); wall time ([`Clock::wall`]) is for what has to be told to others, such
/// as HTTP's `Date`.
///
/// ```
/// use larder_core::Clock;
/// use std::time::Duration;
///
/// let (clock, hands) = Clock::manual();
/// let start = clock.now();
/// hands.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().since(start), Duration::from_secs(3600));
/// ```
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Hands>),
}

struct Hands {
    now: AtomicI64,
    // Moves on its own too, so that a test can set the wall clock back while the monotonic line goes on.
    wall_skew: AtomicI64,
}

// 2026-01-01T00:00:00Z: manual clocks start at a fixed wall time, so that tests print the same dates every day.
const MANUAL_EPOCH: Duration = Duration::from_secs(1_767_225_600);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands still, and the hands that move it. For tests.
    pub fn manual() -> (Self, ManualClock) {
        let hands = Arc::new(Hands { now: AtomicI64::new(0), wall_skew: AtomicI64::new(0) });
        (Clock(Source::Manual(hands.clone())), ManualClock(hands))
    }

    /// Now, on the monotonic line.
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System => Moment(nanos(origin().elapsed())),
            Source::Manual(hands) => Moment(hands.now.load(Ordering::Relaxed)),
        }
    }

    /// Now, as people and other machines tell it.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            Source::Manual(hands) => {
                let nanos = hands
                    .now
                    .load(Ordering::Relaxed)
                    .saturating_add(hands.wall_skew.load(Ordering::Relaxed));
                let base = SystemTime::UNIX_EPOCH + MANUAL_EPOCH;
                let shift = Duration::from_nanos(nanos.unsigned_abs());
                if nanos >= 0 { base + shift } else { base.checked_sub(shift).unwrap_or(base) }
            }
        }
    }

    /// Whether the two tell the same time: moments of the one are moments of the other.
    pub fn is_same(&self, other: &Clock) -> bool {
        match (&self.0, &other.0) {
            (Source::System, Source::System) => true,
            (Source::Manual(one), Source::Manual(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// True for a [`Clock::manual`]. A store that also frees memory by the machine's time must not do so then.
    pub fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_manual() { "Clock(manual)" } else { "Clock(system)" })
    }
}

/// Moves a [`Clock::manual`].
#[derive(Clone)]
pub struct ManualClock(Arc<Hands>);

impl ManualClock {
    /// Moves the clock forward, monotonic line and wall time alike.
    pub fn advance(&self, by: Duration) {
        let add = |now: i64| Some(now.saturating_add(nanos(by)));
        let _ = self.0.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Moves only the wall time, backwards when `back` is true: what a person or NTP does to a machine.
    pub fn skew_wall(&self, by: Duration, back: bool) {
        let by = if back { -nanos(by) } else { nanos(by) };
        self.0.wall_skew.fetch_add(by, Ordering::Relaxed);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManualClock")
    }
}

#[inline]
fn nanos(duration: Duration) -> i64 {
    // In 64 bits; `as_nanos` has 128.
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(duration.subsec_nanos()))
}

// One origin for the whole process, so that moments of two system clocks compare.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate() {
        let (clock, _) = Clock::manual();
        let far = clock.now() + Duration::MAX;
        assert_eq!(far + Duration::MAX, far);
        assert_eq!(clock.now().since(far), Duration::ZERO);
    }

    #[test]
    fn the_wall_can_go_back_while_ages_grow() {
        let (clock, hands) = Clock::manual();
        let (start, wall) = (clock.now(), clock.wall());
        hands.advance(Duration::from_secs(10));
        hands.skew_wall(Duration::from_secs(3600), true);
        assert!(clock.wall() < wall);
        assert_eq!(clock.now().since(start), Duration::from_secs(10));
    }

    #[test]
    fn system_clocks_share_one_line() {
        let first = Clock::system().now();
        assert!(Clock::system().now() >= first);
    }
}
