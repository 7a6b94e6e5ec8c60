//! Why a computed value could not be had.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use larder_core::Error;

/// Why [`get_or_compute`](crate::Cache::get_or_compute) has no value. Shared by every caller of one computation.
#[derive(Clone)]
pub struct Failure(Kind);

#[derive(Clone)]
enum Kind {
    Computation(Arc<dyn StdError + Send + Sync>),
    Panicked,
    Deadline,
    Timeout,
    Lost,
    Cache(Arc<Error>),
}

impl Failure {
    pub(crate) fn computation(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure(Kind::Computation(Arc::from(error.into())))
    }

    pub(crate) fn panicked() -> Self {
        Failure(Kind::Panicked)
    }

    pub(crate) fn lost() -> Self {
        Failure(Kind::Lost)
    }

    pub(crate) fn deadline() -> Self {
        Failure(Kind::Deadline)
    }

    pub(crate) fn timeout() -> Self {
        Failure(Kind::Timeout)
    }

    /// The computation's own error, if it returned one of that type.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match &self.0 {
            Kind::Computation(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// True when the computation panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panicked)
    }

    /// True when the computation was given up at its [deadline](crate::Options::deadline).
    pub fn is_deadline(&self) -> bool {
        matches!(self.0, Kind::Deadline)
    }

    /// True when the caller's [hard timeout](crate::Options::hard_timeout) came first. The computation goes on.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Kind::Timeout)
    }

    /// The cache's own error: a key or a tag that cannot be used, or a value that cannot be serialized.
    pub fn as_cache_error(&self) -> Option<&Error> {
        match &self.0 {
            Kind::Cache(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure(Kind::Cache(Arc::new(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Computation(_) => f.write_str("the computation failed"),
            Kind::Panicked => f.write_str("the computation panicked"),
            Kind::Deadline => f.write_str("the computation did not end before its deadline"),
            Kind::Timeout => f.write_str("the computation takes longer than its caller waits"),
            Kind::Lost => f.write_str("the computation was given up: its runtime is shutting down"),
            Kind::Cache(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Computation(error) => f.debug_tuple("Computation").field(error).finish(),
            Kind::Panicked => f.write_str("Panicked"),
            Kind::Deadline => f.write_str("Deadline"),
            Kind::Timeout => f.write_str("Timeout"),
            Kind::Lost => f.write_str("Lost"),
            Kind::Cache(error) => error.fmt(f),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Kind::Computation(error) => Some(&**error),
            Kind::Cache(error) => error.source(),
            _ => None,
        }
    }
}
