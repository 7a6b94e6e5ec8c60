//! What layers that know nothing of each other tell through extensions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says that an exchange used a session, so that its response is one visitor's own and is never stored.
///
/// A session layer puts a clone into the request's extensions (when it is outside `CacheLayer`) and into the response's
/// (when it is inside); any use of the session touches it.
///
/// ```
/// use larder_http_rules::SessionMark;
///
/// let mark = SessionMark::new();
/// let elsewhere = mark.clone();
/// elsewhere.touch();
/// assert!(mark.is_touched());
/// ```
#[derive(Clone, Debug, Default)]
pub struct SessionMark(Arc<AtomicBool>);

impl SessionMark {
    /// A mark that is not touched yet.
    pub fn new() -> Self {
        SessionMark::default()
    }

    /// The session was used: read, written, asked for its length, anything.
    pub fn touch(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the session was used.
    pub fn is_touched(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
