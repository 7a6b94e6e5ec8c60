//! What the two databases have to say for themselves.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Error, Result};

use crate::failure::Cause;
use crate::outbox::Source;
use crate::statements::Words;

/// A database that a [`SqlBackend`](crate::SqlBackend) can lie in: [`Sqlite`](crate::Sqlite) or
/// [`Postgres`](crate::Postgres). Nobody else implements it.
pub trait Database: Dialect + Source {}

/// The part of it that only this crate knows.
pub trait Dialect: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// The client's connection.
    type Connection: Send + 'static;
    /// How to connect.
    type Options: Clone + Default + Send + Sync + 'static;

    #[doc(hidden)]
    const NAME: &'static str;
    #[doc(hidden)]
    const DEFAULTS: Defaults;

    #[doc(hidden)]
    fn words() -> &'static Words;
    /// Whether the time comes from the server. Otherwise it is given to each statement.
    #[doc(hidden)]
    const SERVERS_TIME: bool;

    #[doc(hidden)]
    fn open(
        options: &Self::Options,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    #[doc(hidden)]
    fn ping(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    #[doc(hidden)]
    fn fetch(
        connection: &mut Self::Connection,
        statement: Arc<str>,
        arguments: &[Argument],
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// What an error of the database itself means, by its code, and by its words where the code does not tell.
    #[doc(hidden)]
    fn cause(code: &str, words: &str) -> Cause;

    /// A parameter of the URL that only this database knows; false when it does not.
    #[doc(hidden)]
    fn parameter(options: &mut Self::Options, name: &str, value: &str) -> Result<bool>;
    #[doc(hidden)]
    const PARAMETERS: &'static str;

    /// What the URL says before its parameters.
    #[doc(hidden)]
    fn address(options: &mut Self::Options, url: &str) -> Result<()>;

    /// Whether this could work at all.
    #[doc(hidden)]
    fn check(options: &Self::Options) -> Result<(), Error>;

    /// Tells how long an operation may take.
    #[doc(hidden)]
    fn limited(options: &mut Self::Options, limit: Duration);
}

/// What is configured unless something else is.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    pub(crate) create: bool,
    pub(crate) connections: usize,
    pub(crate) limit: Duration,
}

/// What is bound to a statement.
#[derive(Clone, Debug)]
pub enum Argument {
    #[doc(hidden)]
    Text(String),
    #[doc(hidden)]
    Integer(Option<i64>),
    #[doc(hidden)]
    Blob(Option<Bytes>),
    #[doc(hidden)]
    Texts(Vec<String>),
    #[doc(hidden)]
    Integers(Vec<Option<i64>>),
    #[doc(hidden)]
    Blobs(Vec<Option<Bytes>>),
}

/// What a statement answers with.
pub(crate) type Row = Vec<Cell>;

/// One column of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    #[doc(hidden)]
    Null,
    #[doc(hidden)]
    Integer(i64),
    #[doc(hidden)]
    Text(String),
    #[doc(hidden)]
    Blob(Bytes),
}

impl Cell {
    pub(crate) fn integer(&self) -> Option<i64> {
        if let Cell::Integer(number) = self { Some(*number) } else { None }
    }

    pub(crate) fn blob(&self) -> Option<Bytes> {
        if let Cell::Blob(bytes) = self { Some(bytes.clone()) } else { None }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Cell::Text(text) = self { Some(text) } else { None }
    }
}

/// Decodes the columns of a row of the client; anything but these types is taken for nothing.
macro_rules! cells {
    ($row:expr) => {{
        use sqlx::{Column, Row as _, TypeInfo, ValueRef};
        let row = $row;
        let mut cells = Vec::with_capacity(row.len());
        for index in 0..row.len() {
            let value = row.try_get_raw(index)?;
            let cell = if value.is_null() {
                Cell::Null
            } else {
                // An expression has the type of its value, where the database decides so.
                let info = value.type_info();
                let name = match info.name() {
                    "NULL" => row.column(index).type_info().name(),
                    name => name,
                };
                // The type has just been looked at.
                match name {
                    "INT8" | "INTEGER" | "BIGINT" => Cell::Integer(row.try_get_unchecked(index)?),
                    "INT4" => Cell::Integer(i64::from(row.try_get_unchecked::<i32, _>(index)?)),
                    "TEXT" | "VARCHAR" => Cell::Text(row.try_get_unchecked(index)?),
                    "BYTEA" | "BLOB" => {
                        Cell::Blob(Bytes::from(row.try_get_unchecked::<Vec<u8>, _>(index)?))
                    }
                    _ => Cell::Null,
                }
            };
            cells.push(cell);
        }
        cells
    }};
}
pub(crate) use cells;
