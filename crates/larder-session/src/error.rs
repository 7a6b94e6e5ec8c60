//! What can go wrong with a session.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the few words that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be asked. Whoever it is, they are not anonymous: nobody knows. 503.
    Store,
    /// The session ended while it was used: another request destroyed or rotated it, or its lifetime was over. 409.
    Gone,
    /// Another request changed the same key since this one read it. Trying again may help. 409.
    Conflict,
    /// Another site's page sent the request, or it has no token of this session. 403.
    CrossSite,
    /// The session would be larger, or have more keys, than the layer allows. Nothing was changed. 500.
    TooLarge,
    /// The response's head is already on its way: cookie and caching headers can no longer be set. 500.
    Late,
    /// A value cannot be written, or is not of the type it is read as. 500.
    Value,
    /// The operating system gives no random bits, or gives the same ones again. 500.
    Entropy,
    /// There is no `SessionLayer` around this handler. 500.
    NoLayer,
    /// The configuration is wrong. Found while configuring. 500.
    Configuration,
}

/// Why a session could not be used, changed or saved. A clone is one reference count.
///
/// Its text says what happened and what to do about it, and holds neither ids nor values.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: &'static str,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    #[cold]
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Error::saying(kind, words(kind))
    }

    #[cold]
    pub(crate) fn saying(kind: ErrorKind, message: &'static str) -> Self {
        Error(Arc::new(Inner { kind, message, source: None }))
    }

    #[must_use]
    pub(crate) fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let Inner { kind, message, .. } = *self.0;
        Error(Arc::new(Inner { kind, message, source: Some(source.into()) }))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status of a response that tells of it.
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            ErrorKind::Store => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Gone | ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::CrossSite => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Store => "the session store cannot be asked",
        ErrorKind::Gone => "the session ended while it was used; nothing was saved",
        ErrorKind::Conflict => {
            "another request changed the same part of the session; nothing was saved, try again or use `update`"
        }
        ErrorKind::CrossSite => {
            "the request does not come from a page that this visitor was given: load the page again"
        }
        ErrorKind::TooLarge => {
            "the session would be larger than its limit; keep less in it, or raise SessionLayer::max_bytes"
        }
        ErrorKind::Late => {
            "the response's head was already sent; use the session before the handler returns"
        }
        ErrorKind::Value => {
            "a session value cannot be written, or is not of the type it is read as"
        }
        ErrorKind::Entropy => "no new session id can be made",
        ErrorKind::NoLayer => "there is no session here; put a SessionLayer around the handler",
        ErrorKind::Configuration => "the session layer is configured wrongly",
    }
}

impl From<larder_core::Error> for Error {
    fn from(error: larder_core::Error) -> Self {
        Error::new(ErrorKind::Store).with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
