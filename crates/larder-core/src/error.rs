//! One opaque error for every backend.

use std::error::Error as StdError;
use std::fmt;

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the few words that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached, or refuses to work now. Trying later may help.
    Unavailable,
    /// The store did not answer within the time limit. What was asked may or may not have happened.
    Timeout,
    /// The value is larger than the store or the configuration allows. The previous value is gone.
    TooLarge,
    /// Bytes were found that are not ours or are damaged, where a miss could not be answered.
    Corrupt,
    /// A key, namespace or tag that cannot be used.
    InvalidKey,
    /// A conditional write, or an addition to a counter, was sent and its outcome could not be learned.
    Ambiguous,
    /// The value is there and is not an integer, or the sum does not fit one.
    NotAnInteger,
    /// This backend cannot do that; see its [`Abilities`](crate::Abilities).
    Unsupported,
    /// The configuration is wrong. Found while connecting or building.
    Configuration,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// The kind as a short, stable word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::TooLarge => "too-large",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::InvalidKey => "invalid-key",
            ErrorKind::Ambiguous => "ambiguous",
            ErrorKind::NotAnInteger => "not-an-integer",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Configuration => "configuration",
            ErrorKind::Other => "other",
        }
    }
}

/// Why an operation failed.
///
/// The text says what happened and what to do about it. It never holds a key, a value, a URL or a credential, and
/// neither does the text of its [`source`](StdError::source) where a Larder backend made it: errors end in logs.
///
/// ```
/// use larder_core::{ErrorKind, Namespace};
///
/// let error = Namespace::new("Not A Namespace").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidKey);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    backend: Option<&'static str>,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of that kind with a sentence for people. No key, value, URL or credential belongs in it.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, backend: None, message: message.into(), source: None }))
    }

    /// Names the backend that failed.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.0.backend = Some(backend);
        self
    }

    /// Keeps the error underneath. Its text must be free of secrets too.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The name of the backend that failed, if one did.
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// True when the store could not be reached or did not answer in time: a later try may succeed.
    pub fn is_outage(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = self.0.backend {
            write!(f, "{backend}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("backend", &self.0.backend)
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
