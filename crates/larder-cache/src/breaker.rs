//! Stops asking a store that does not answer.

use larder_core::{Clock, Error, ErrorKind, Moment};
use parking_lot::Mutex;
use std::time::Duration;

/// After so many failures in a row the breaker opens: operations fail at once, so an outage costs no waiting. After a
/// pause one operation is let through as a probe; its success closes the breaker, its failure starts another pause.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    pause: Duration,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Moment },
    // One probe is under way; if it is dropped unanswered, another may start when this moment has come.
    Probing { until: Moment },
}

impl Breaker {
    pub(crate) fn new(threshold: u32, pause: Duration, clock: Clock) -> Self {
        Breaker { threshold, pause, clock, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether an operation may be sent.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until } | State::Probing { until } => {
                let now = self.clock.now();
                if now < until {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "not asked: it failed several times in a row and is given a pause",
                    ));
                }
                *state = State::Probing { until: now + self.pause };
                Ok(())
            }
        }
    }

    /// Takes note of how an operation ended. Only outages count; a refused value says nothing about the store.
    pub(crate) fn report(&self, failed: bool, backend: &'static str) {
        let mut state = self.state.lock();
        let next = match (*state, failed) {
            (State::Closed { failures: 0 }, false) => return,
            (State::Closed { failures }, true) if failures + 1 < self.threshold => {
                State::Closed { failures: failures + 1 }
            }
            // A straggler from before the breaker opened: the probe decides.
            (State::Open { .. }, _) => return,
            (_, true) => State::Open { until: self.clock.now() + self.pause },
            (_, false) => State::Closed { failures: 0 },
        };
        match (*state, next) {
            (State::Closed { .. }, State::Open { .. }) => {
                tracing::warn!(backend, "the store does not answer; it is given a pause");
            }
            (State::Probing { .. }, State::Closed { .. }) => {
                tracing::info!(backend, "the store answers again");
            }
            _ => {}
        }
        *state = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_the_threshold_and_closes_after_one_good_probe() {
        let (clock, hands) = Clock::manual();
        let breaker = Breaker::new(3, Duration::from_secs(1), clock);
        for _ in 0..2 {
            breaker.report(true, "test");
        }
        breaker.report(false, "test"); // not in a row
        for _ in 0..3 {
            assert!(breaker.admit().is_ok());
            breaker.report(true, "test");
        }
        assert_eq!(breaker.admit().unwrap_err().kind(), ErrorKind::Unavailable);

        hands.advance(Duration::from_secs(1));
        assert!(breaker.admit().is_ok(), "one probe");
        assert!(breaker.admit().is_err(), "and only one");
        breaker.report(true, "test");
        assert!(breaker.admit().is_err(), "a failed probe starts another pause");

        hands.advance(Duration::from_secs(1));
        assert!(breaker.admit().is_ok());
        breaker.report(false, "test");
        assert!(breaker.admit().is_ok() && breaker.admit().is_ok());
    }

    #[test]
    fn a_probe_that_was_dropped_is_followed_by_another() {
        let (clock, hands) = Clock::manual();
        let breaker = Breaker::new(1, Duration::from_secs(1), clock);
        breaker.report(true, "test");
        hands.advance(Duration::from_secs(1));
        assert!(breaker.admit().is_ok());
        hands.advance(Duration::from_secs(1));
        assert!(breaker.admit().is_ok());
    }
}
