//! Why something could not be done, in words that say what to do.

use std::io;
use std::sync::Arc;

use larder_core::{Error, ErrorKind};

use crate::NAME;

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(crate) struct Why {
    pub(crate) kind: ErrorKind,
    pub(crate) words: Arc<str>,
}

/// Why a request brought no replies.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) words: Arc<str>,
    /// It was handed to a connection: the server may have carried it out.
    pub(crate) sent: bool,
    /// The time limit is used up.
    pub(crate) late: bool,
}

impl Why {
    fn unavailable(words: impl Into<Arc<str>>) -> Self {
        Why { kind: ErrorKind::Unavailable, words: words.into() }
    }

    pub(crate) fn unreachable(words: &str) -> Self {
        Self::unavailable(format!("the server cannot be used: {words}"))
    }

    pub(crate) fn io(error: &io::Error) -> Self {
        let kind = error.kind();
        Self::unavailable(format!(
            "the server cannot be reached ({kind}); check its address in the URL"
        ))
    }

    pub(crate) fn closed() -> Self {
        Self::unavailable("the connection to the server was closed")
    }

    pub(crate) fn garbled() -> Self {
        Self::unavailable("the server's answer makes no sense; is it Memcached 1.6 or later?")
    }

    pub(crate) fn late() -> Self {
        Why {
            kind: ErrorKind::Timeout,
            words: "the server did not answer within the time limit (response_timeout)".into(),
        }
    }

    pub(crate) fn configuration(words: &str) -> Self {
        Why { kind: ErrorKind::Configuration, words: words.into() }
    }

    pub(crate) fn error(&self) -> Error {
        Error::new(self.kind, &*self.words).with_backend(NAME)
    }
}

impl Failure {
    /// What those are told whose request was not sent. It did not time out, and after the first connection whatever is
    /// wrong with the server is an outage like others.
    pub(crate) fn unsent(why: &Why) -> Self {
        let words = why.words.clone();
        Failure { kind: ErrorKind::Unavailable, words, sent: false, late: false }
    }

    /// What those are told whose request was on its way.
    pub(crate) fn lost(why: &Why) -> Self {
        let late = why.kind == ErrorKind::Timeout;
        let kind = if late { ErrorKind::Timeout } else { ErrorKind::Unavailable };
        Failure { kind, words: why.words.clone(), sent: true, late }
    }

    pub(crate) fn of(kind: ErrorKind, words: &str) -> Self {
        Failure { kind, words: words.into(), sent: false, late: false }
    }

    /// The server answered, and not to what was asked.
    pub(crate) fn garbled() -> Self {
        Self::of(ErrorKind::Unavailable, "the server's answer is none to what was asked")
    }

    /// Others were quicker, time and again.
    pub(crate) fn contended() -> Self {
        let words = "others change the same key all the time, and the time limit (response_timeout) is over";
        Self::of(ErrorKind::Timeout, words)
    }

    /// For a write that cannot be recognised on the server: if it was sent, nobody knows.
    pub(crate) fn in_doubt(self) -> Error {
        if self.sent { ambiguous() } else { self.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::new(failure.kind, &*failure.words).with_backend(NAME)
    }
}

pub(crate) fn ambiguous() -> Error {
    let words =
        "the server did not tell whether it carried out the change; read to see what is there";
    Error::new(ErrorKind::Ambiguous, words).with_backend(NAME)
}
