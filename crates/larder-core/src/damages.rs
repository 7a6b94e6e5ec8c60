//! How often is told of what cannot be read.

use std::time::Duration;

use parking_lot::Mutex;

use crate::Moment;

/// Counts damaged records, so that a backend tells of them at most every ten seconds: hostile or rotten bytes must not
/// fill a log.
///
/// ```
/// use larder_core::{Clock, Damages};
///
/// let (damages, now) = (Damages::default(), Clock::system().now());
/// assert_eq!(damages.seen(now), Some(1));
/// assert_eq!(damages.seen(now), None);
/// ```
#[derive(Debug, Default)]
pub struct Damages(Mutex<(u64, Option<Moment>)>);

impl Damages {
    /// Counts one more. How many there were since it was last told, if it is to be told now.
    pub fn seen(&self, now: Moment) -> Option<u64> {
        let mut state = self.0.lock();
        state.0 += 1;
        if state.1.is_some_and(|told| now.since(told) < QUIET) {
            return None;
        }
        state.1 = Some(now);
        Some(std::mem::take(&mut state.0))
    }
}

const QUIET: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    #[test]
    fn what_was_not_told_is_counted_with_the_next() {
        let (clock, hands) = Clock::manual();
        let damages = Damages::default();
        assert_eq!(damages.seen(clock.now()), Some(1));
        hands.advance(QUIET - Duration::from_millis(1));
        assert_eq!(damages.seen(clock.now()), None);
        hands.advance(Duration::from_millis(1));
        assert_eq!(damages.seen(clock.now()), Some(2));
    }
}
