//! The time limits of all requests on a connection, watched by one timer.
//!
//! A timer for each costs about as much as sending a command. One is enough: the first limit that passes ends the
//! connection, since whatever was asked later is behind it. It is set anew when it has rung, not for every request.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Default)]
pub(crate) struct Limits {
    open: Mutex<Open>,
    // A limit was set that is earlier than the timer.
    earlier: Notify,
}

#[derive(Default)]
struct Open {
    // In the order in which they were set; `None` for requests that have ended since.
    limits: VecDeque<Option<Instant>>,
    // How many were set before the first of these.
    before: u64,
    // When the timer will ring; `None` when it is not set.
    rings: Option<Instant>,
}

/// A request that is under way, as long as this lives.
pub(crate) struct Limited<'a> {
    limits: &'a Limits,
    number: u64,
}

impl Limits {
    /// Sets a request's limit.
    pub(crate) fn set(&self, limit: Instant) -> Limited<'_> {
        let (number, earlier) = {
            let mut open = self.open.lock();
            let number = open.before + open.limits.len() as u64;
            open.limits.push_back(Some(limit));
            let earlier = open.rings.is_none_or(|rings| limit < rings);
            if earlier {
                open.rings = Some(limit);
            }
            (number, earlier)
        };
        if earlier {
            self.earlier.notify_one();
        }
        Limited { limits: self, number }
    }

    /// Waits until a request has passed its limit.
    pub(crate) async fn passed(&self) {
        loop {
            let rings = self.open.lock().rings;
            let Some(rings) = rings else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(rings) => {}
                () = self.earlier.notified() => continue,
            }
            let mut open = self.open.lock();
            let next = open.limits.iter().flatten().min().copied();
            if next.is_some_and(|next| next <= Instant::now()) {
                return;
            }
            open.rings = next;
        }
    }
}

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        let at = (self.number - open.before) as usize;
        if let Some(limit) = open.limits.get_mut(at) {
            *limit = None;
        }
        while let Some(None) = open.limits.front() {
            open.limits.pop_front();
            open.before += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn passes(limits: &Limits) -> bool {
        timeout(SECOND / 100, limits.passed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_that_is_under_way_decides() {
        let limits = Limits::default();
        let begin = Instant::now();
        let late = limits.set(begin + 3 * SECOND);
        let early = limits.set(begin + SECOND);
        assert!(!passes(&limits).await);
        drop(early);
        advance(2 * SECOND).await;
        assert!(!passes(&limits).await, "it has ended in time");
        advance(SECOND).await;
        assert!(passes(&limits).await);
        drop(late);
        assert!(!passes(&limits).await);
        let next = limits.set(Instant::now());
        assert!(passes(&limits).await, "the timer is set again");
        drop(next);
        let open = limits.open.lock();
        assert_eq!((open.limits.len(), open.before), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_limit_sets_the_timer_back() {
        let limits = Limits::default();
        let begin = Instant::now();
        let _late = limits.set(begin + 100 * SECOND);
        let set = async {
            tokio::task::yield_now().await;
            limits.set(begin + SECOND)
        };
        let (_early, ()) = tokio::join!(set, limits.passed());
        assert_eq!(begin.elapsed(), SECOND);
    }
}
