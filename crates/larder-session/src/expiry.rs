//! Lifetimes of sessions.

use std::time::Duration;

use larder_core::Ttl;

/// How long a session lives.
///
/// Both ends are kept on the server and checked when the session is read, whatever the store does with its own
/// lifetimes. Durations count in whole milliseconds and are clamped to [`Ttl::MAX`]; zero ends the session with the
/// response.
///
/// ```
/// use larder_session::Expiry;
/// use std::time::Duration;
///
/// let hours = |n: u64| Duration::from_secs(n * 3600);
/// // Ends 30 minutes after it was last kept alive, 12 hours after it began, or with the browser.
/// let strict = Expiry::idle(hours(1) / 2).at_most(hours(12)).until_browser_closes();
/// // Ends a day after it began.
/// let daily = Expiry::fixed(hours(24));
/// # let _ = (strict, daily);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Expiry {
    pub(crate) idle: Option<Duration>,
    pub(crate) absolute: Option<Duration>,
    pub(crate) browser: bool,
}

impl Expiry {
    /// Ends so long after it was last kept alive: changed, or used where [`Refresh`] says so.
    pub fn idle(duration: Duration) -> Self {
        Expiry { idle: Some(whole(duration)), absolute: None, browser: false }
    }

    /// Ends so long after it began, whatever happens.
    pub fn fixed(duration: Duration) -> Self {
        Expiry { idle: None, absolute: Some(whole(duration)), browser: false }
    }

    /// And at the latest so long after it began.
    pub fn at_most(mut self, duration: Duration) -> Self {
        self.absolute = Some(whole(duration));
        self
    }

    /// The cookie ends with the browser; the server's ends hold all the same.
    pub fn until_browser_closes(mut self) -> Self {
        self.browser = true;
        self
    }

    /// What is left after a change at that age.
    pub(crate) fn left(&self, age: Duration) -> Duration {
        let absolute = self.absolute.map(|absolute| absolute.saturating_sub(age));
        [self.idle, absolute].into_iter().flatten().min().unwrap_or(Ttl::MAX)
    }
}

// As it comes back from a record.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis(duration.min(Ttl::MAX).as_millis() as u64)
}

/// Idle for two weeks, at most 90 days.
impl Default for Expiry {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 60 * 60);
        Expiry::idle(days(14)).at_most(days(90))
    }
}

/// What keeps a session alive: when its idle time begins anew.
///
/// Keeping alive never writes data, and is done only in exchanges that use the session.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Refresh {
    /// Changes do; reading does not.
    #[default]
    OnChange,
    /// Every use does: one more command for each response, and a cookie with it.
    Always,
    /// Any use does, once this fraction of the idle time has passed: `0.1` for two weeks is once in 34 hours.
    AfterFraction(f32),
}

impl Refresh {
    /// Whether a use so long after the last refresh is one.
    pub(crate) fn is_due(self, elapsed: Duration, idle: Duration) -> bool {
        match self {
            Refresh::OnChange => false,
            Refresh::Always => true,
            Refresh::AfterFraction(fraction) => {
                // What is no fraction is the nearest one.
                let fraction = if fraction.is_nan() { 1.0 } else { fraction.clamp(0.0, 1.0) };
                elapsed >= idle.mul_f32(fraction)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s18_no_duration_overflows() {
        let all = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(i64::MAX as u64),
            Duration::from_secs(u64::MAX),
            Duration::MAX,
        ];
        for one in all {
            for other in all {
                let expiry = Expiry::idle(one).at_most(other);
                for age in all {
                    assert!(expiry.left(age) <= Ttl::MAX);
                }
                for fraction in [0.0, 0.5, 1.0, -1.0, 7.0, f32::NAN, f32::INFINITY] {
                    let _ = Refresh::AfterFraction(fraction).is_due(one, expiry.idle.unwrap());
                }
            }
        }
    }
}
