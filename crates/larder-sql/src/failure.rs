//! Why a statement brought no answer, in words that say what to do.

use larder_core::{Error, ErrorKind};

use crate::database::Dialect;

/// Why a statement brought no answer.
#[derive(Debug)]
pub struct Failure {
    pub(crate) error: Error,
    /// It was handed to the database, which may have carried it out.
    pub(crate) sent: bool,
    /// The same statement may be tried again at once.
    pub(crate) again: bool,
    /// The connection is of no more use, and its neighbours are probably not either.
    pub(crate) broken: bool,
}

/// What an error of the database means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    #[doc(hidden)]
    Login,
    #[doc(hidden)]
    NoDatabase,
    #[doc(hidden)]
    NoTable,
    #[doc(hidden)]
    OtherTable,
    #[doc(hidden)]
    Forbidden,
    #[doc(hidden)]
    Busy,
    #[doc(hidden)]
    Conflict,
    #[doc(hidden)]
    Late,
    #[doc(hidden)]
    Full,
    #[doc(hidden)]
    Leaving,
    #[doc(hidden)]
    Lost,
    #[doc(hidden)]
    ReadOnly,
    #[doc(hidden)]
    Damaged,
    #[doc(hidden)]
    Unknown,
}

impl Failure {
    /// For what was not sent.
    pub(crate) fn before(error: Error) -> Self {
        Failure { error, sent: false, again: false, broken: false }
    }

    /// What a statement that was sent met.
    pub(crate) fn of<D: Dialect>(error: &sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            let words = match error {
                sqlx::Error::Tls(_) => {
                    "TLS failed; check sslmode and sslrootcert in the URL, and that the server speaks TLS"
                }
                sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
                    "the connection to the database was lost"
                }
                _ => "the database's answer makes no sense",
            };
            let error = Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME);
            return Failure { error, sent: true, again: false, broken: true };
        };
        let code = database.code().unwrap_or_default();
        let cause = D::cause(&code, database.message());
        let (leaving, lost) = (cause == Cause::Leaving, cause == Cause::Lost);
        Failure {
            error: error_of::<D>(cause, &code),
            // Else the database says that it did not.
            sent: lost,
            again: cause == Cause::Conflict || leaving,
            broken: leaving || lost,
        }
    }

    /// What connecting met.
    pub(crate) fn connecting<D: Dialect>(error: &sqlx::Error) -> Self {
        let failure = Failure::of::<D>(error);
        let error = match error {
            sqlx::Error::Io(io) => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the database cannot be reached ({}); check host and port in the URL",
                    io.kind()
                ),
            )
            .with_backend(D::NAME),
            _ => failure.error,
        };
        Failure { error, sent: false, ..failure }
    }

    /// For a connection that does not come about.
    pub(crate) fn unreachable<D: Dialect>() -> Self {
        let words =
            "no connection within the time limit (connect_timeout); check host and port in the URL";
        Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME))
    }

    /// For a connection that was closed from the other side.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(crate) fn lost<D: Dialect>() -> Self {
        Failure::of::<D>(&sqlx::Error::WorkerCrashed)
    }

    pub(crate) fn late<D: Dialect>(sent: bool) -> Self {
        let words =
            "the database did not answer within the time limit (response_timeout or busy_timeout)";
        let error = Error::new(ErrorKind::Timeout, words).with_backend(D::NAME);
        Failure { error, sent, again: false, broken: true }
    }

    /// For what cannot be asked again: it was sent, and nobody knows.
    pub(crate) fn in_doubt(self) -> Error {
        if self.sent { ambiguous(self.error.backend()) } else { self.error }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

pub(crate) fn ambiguous(backend: Option<&'static str>) -> Error {
    let words =
        "the answer to a conditional write was lost, and what became of it could not be learned";
    Error::new(ErrorKind::Ambiguous, words).with_backend(backend.unwrap_or("sql"))
}

fn error_of<D: Dialect>(cause: Cause, code: &str) -> Error {
    let (kind, words) = match cause {
        Cause::Login => (
            ErrorKind::Configuration,
            "the server refuses the user or the password; check both in the URL".to_owned(),
        ),
        Cause::NoDatabase => (
            ErrorKind::Configuration,
            "there is no such database; check the URL's path".to_owned(),
        ),
        Cause::NoTable => (
            ErrorKind::Configuration,
            "the table is missing; add create=true to the URL, or run what Builder::schema prints".to_owned(),
        ),
        Cause::OtherTable => (
            ErrorKind::Configuration,
            "the table is there and has other columns; name another one with table=… in the URL".to_owned(),
        ),
        Cause::Forbidden => (
            ErrorKind::Configuration,
            "the user may not do that; it needs SELECT, INSERT, UPDATE and DELETE on the table, and CREATE for create=true"
                .to_owned(),
        ),
        Cause::Busy => (
            ErrorKind::Timeout,
            "the database was busy for longer than the time limit (busy_timeout)".to_owned(),
        ),
        Cause::Conflict => (
            ErrorKind::Unavailable,
            "the statement got into others' way again and again; try later".to_owned(),
        ),
        Cause::Late => (
            ErrorKind::Timeout,
            "the database gave the statement up within the time limit (response_timeout)".to_owned(),
        ),
        Cause::Full => (ErrorKind::Unavailable, "the database has no room".to_owned()),
        Cause::Leaving => (
            ErrorKind::Unavailable,
            "the database starts, stops or takes no more connections".to_owned(),
        ),
        Cause::Lost => (
            ErrorKind::Unavailable,
            "the connection to the database was lost behind what stands in between".to_owned(),
        ),
        Cause::ReadOnly => (
            ErrorKind::Unavailable,
            "the database cannot be written to; give the address of the primary, or a file that may be written".to_owned(),
        ),
        Cause::Damaged => (
            ErrorKind::Configuration,
            "the file is no database, is damaged, or its directory is not there; check the path in the URL".to_owned(),
        ),
        Cause::Unknown => (ErrorKind::Other, format!("the database answers with its error {code}")),
    };
    Error::new(kind, words).with_backend(D::NAME)
}
