//! Why there is no connection, in words that say what to do.

use std::io;
use std::sync::Arc;

use larder_core::{Error, ErrorKind};
use redis::RedisError;

use crate::NAME;

/// Why there is no connection.
#[derive(Clone)]
pub(crate) struct Why {
    pub(crate) kind: ErrorKind,
    pub(crate) words: Arc<str>,
}

impl Why {
    // What an operation is told. One that was not sent did not time out, and after the first connection a wrong password
    // is an outage like others: somebody is changing it.
    pub(crate) fn error(&self, sent: bool) -> Error {
        let late = sent && self.kind == ErrorKind::Timeout;
        let kind = if late { ErrorKind::Timeout } else { ErrorKind::Unavailable };
        Error::new(kind, &*self.words).with_backend(NAME)
    }

    pub(crate) fn unavailable(words: &str) -> Self {
        Why { kind: ErrorKind::Unavailable, words: words.into() }
    }

    pub(crate) fn unreachable(words: &str) -> Self {
        Self::unavailable(&format!("the server cannot be used: {words}"))
    }

    pub(crate) fn configuration(words: &str) -> Self {
        Why { kind: ErrorKind::Configuration, words: words.into() }
    }

    pub(crate) fn late() -> Self {
        Why {
            kind: ErrorKind::Timeout,
            words: "the server did not answer within the time limit (response_timeout)".into(),
        }
    }

    pub(crate) fn closed() -> Self {
        Self::unavailable("the connection to the server was closed")
    }

    pub(crate) fn garbled() -> Self {
        Self::unavailable("the server's answer makes no sense; is it a Redis server?")
    }

    pub(crate) fn io(error: &io::Error) -> Self {
        let kind = error.kind();
        Self::unavailable(&format!(
            "the server cannot be reached ({kind}); check its address in the URL"
        ))
    }

    pub(crate) fn tls(error: &io::Error) -> Self {
        match error.kind() {
            // What rustls makes of a certificate that it does not trust, or of a server that speaks no TLS.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Self::unreachable(
                    "TLS failed; check that it speaks TLS there, that root_certificate (unless set, Mozilla's list) trusts its certificate, and that this is for the host in the URL",
                )
            }
            _ => Self::io(error),
        }
    }

    pub(crate) fn broken(error: &RedisError) -> Self {
        match error.kind() {
            redis::ErrorKind::Io => Self::closed(),
            redis::ErrorKind::Parse => Self::garbled(),
            _ => Self::unavailable("the exchange with the server failed"),
        }
    }

    // An error while logging in: a server's error, whose words may repeat the user's name.
    pub(crate) fn login(error: &RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        match (error.kind(), code) {
            (redis::ErrorKind::Io | redis::ErrorKind::Parse, _) => Self::broken(error),
            (_, "LOADING") => Self::unreachable("it is still loading its data"),
            (redis::ErrorKind::AuthenticationFailed, _)
            | (_, "NOAUTH" | "WRONGPASS" | "NOPERM") => Self::configuration(
                "the server refuses the user or the password; check both in the URL",
            ),
            (_, "ERR") | (redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError), _) => {
                Self::configuration(
                    "the server refuses to log in; check user, password and the database's number in the URL",
                )
            }
            _ => Self::unreachable("it refuses the connection"),
        }
    }
}
