//! What layers that know nothing of each other tell through extensions.

use std::fmt;
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
#[derive(Clone)]
pub struct SessionMark(Arc<dyn AsRef<AtomicBool> + Send + Sync>);

struct Own(AtomicBool);

impl AsRef<AtomicBool> for Own {
    fn as_ref(&self) -> &AtomicBool {
        &self.0
    }
}

impl SessionMark {
    /// A mark that is not touched yet.
    pub fn new() -> Self {
        SessionMark(Arc::new(Own(AtomicBool::new(false))))
    }

    /// A flag inside of something that is shared already, so that the mark takes no room of its own.
    ///
    /// ```
    /// use larder_http_rules::SessionMark;
    /// use std::sync::Arc;
    /// use std::sync::atomic::AtomicBool;
    ///
    /// struct Session {
    ///     used: AtomicBool,
    /// }
    ///
    /// impl AsRef<AtomicBool> for Session {
    ///     fn as_ref(&self) -> &AtomicBool {
    ///         &self.used
    ///     }
    /// }
    ///
    /// let session = Arc::new(Session { used: AtomicBool::new(false) });
    /// let mark = SessionMark::part_of(session);
    /// mark.touch();
    /// assert!(mark.is_touched());
    /// ```
    pub fn part_of(whole: Arc<impl AsRef<AtomicBool> + Send + Sync + 'static>) -> Self {
        SessionMark(whole)
    }

    /// The session was used: read, written, asked for its length, anything.
    pub fn touch(&self) {
        (*self.0).as_ref().store(true, Ordering::Release);
    }

    /// Whether the session was used.
    pub fn is_touched(&self) -> bool {
        (*self.0).as_ref().load(Ordering::Acquire)
    }
}

impl Default for SessionMark {
    fn default() -> Self {
        SessionMark::new()
    }
}

impl fmt::Debug for SessionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionMark").field(&self.is_touched()).finish()
    }
}
