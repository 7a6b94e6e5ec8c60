//! Lifetimes.

use std::time::Duration;

/// How long something is kept.
///
/// Sub-second lifetimes are kept on every backend. Zero stores nothing and removes what was there. Everything is
/// clamped to [`Ttl::MAX`], so no sum of a time and a lifetime can overflow.
///
/// ```
/// use larder_core::Ttl;
/// use std::time::Duration;
///
/// let ttl: Ttl = Duration::from_millis(1500).into();
/// assert_eq!(ttl.resolve(Ttl::Forever), Some(Duration::from_millis(1500)));
/// assert_eq!(Ttl::Default.resolve(Ttl::Forever), None);
/// assert_eq!(Ttl::For(Duration::MAX).resolve(Ttl::Forever), Some(Ttl::MAX));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// What the backend or the cache was configured with (300 s unless set).
    #[default]
    Default,
    /// Until it is removed or evicted.
    Forever,
    /// That long, counted from the moment of storing.
    For(Duration),
}

impl Ttl {
    /// The longest lifetime: one hundred years of 365 days.
    pub const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// The lifetime that backends use unless they are configured otherwise: 300 seconds.
    pub const STANDARD: Ttl = Ttl::For(Duration::from_secs(300));

    /// The duration meant, `None` for ever. `default` stands in for [`Ttl::Default`]; a default of `Default` is
    /// [`Ttl::STANDARD`].
    pub fn resolve(self, default: Ttl) -> Option<Duration> {
        match self {
            Ttl::Forever => None,
            Ttl::For(duration) => Some(duration.min(Ttl::MAX)),
            Ttl::Default if default == Ttl::Default => Ttl::STANDARD.resolve(Ttl::Forever),
            Ttl::Default => default.resolve(Ttl::Forever),
        }
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Ttl::For(duration)
    }
}
