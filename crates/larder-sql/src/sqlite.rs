//! SQLite: a file of this host.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::Builder;
use crate::config::{decoded, wrong};
use crate::database::{Argument, Cell, Database, Defaults, Dialect, Row, cells};
use crate::failure::Cause;
use crate::statements::Words;

/// SQLite, which is built in.
#[derive(Clone, Debug)]
pub struct Sqlite(());

impl Database for Sqlite {}

/// What only SQLite is asked.
#[derive(Clone)]
pub struct SqliteOptions {
    path: Option<PathBuf>,
    synchronous: SqliteSynchronous,
    busy_timeout: Duration,
}

impl std::fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteOptions").field("path", &self.path.is_some()).finish_non_exhaustive()
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            path: None,
            synchronous: SqliteSynchronous::Normal,
            busy_timeout: Sqlite::DEFAULTS.limit,
        }
    }
}

impl SqliteOptions {
    /// To a file that is there, and stays as it is.
    pub(crate) fn connect(&self) -> SqliteConnectOptions {
        let path = self.path.as_deref().unwrap_or_else(|| std::path::Path::new(""));
        SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(self.busy_timeout)
            .disable_statement_logging()
    }
}

impl Builder<Sqlite> {
    /// The file. It is made if it is missing, its directory is not. Beside it lie `…-wal` and `…-shm`.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.path = Some(path.into());
        self
    }

    /// How long an operation waits while others write, in this process and in others. 5 s unless set.
    pub fn busy_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What the disk is waited for: `Off`, `Normal` (the default: what was acknowledged survives every process's death,
    /// and a power failure may undo the last moments), or `Full` (each write waits for the disk).
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.options.synchronous = synchronous.into();
        self
    }
}

/// See [`Builder::synchronous`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// The disk is never waited for.
    Off,
    /// The disk is waited for now and then.
    Normal,
    /// Each write waits for the disk.
    Full,
}

impl From<Synchronous> for SqliteSynchronous {
    fn from(synchronous: Synchronous) -> Self {
        match synchronous {
            Synchronous::Off => SqliteSynchronous::Off,
            Synchronous::Normal => SqliteSynchronous::Normal,
            Synchronous::Full => SqliteSynchronous::Full,
        }
    }
}

static WORDS: Words = Words {
    now: |free| format!("${free}"),
    magic: "X'4C5244520101'",
    items: "(SELECT key AS ord, json_extract(value, '$[0]') AS namespace, json_extract(value, '$[1]') AS mark, \
            json_extract(value, '$[2]') AS name FROM json_each($1))",
    names: "(SELECT key AS ord, value AS name FROM json_each($2))",
    row: "CROSS JOIN {table} l WHERE {at}",
    share: "",
    lock: "",
    skip: "",
    text: "TEXT",
    bytes: "BLOB",
    integer: "INTEGER",
    table_options: " STRICT",
    // The sequence is one of the names: one statement raises them all to the number after the one that it stands at.
    invalidate: "INSERT INTO {table} AS l ({columns}) \
        SELECT $1, 0, n.name, 4, COALESCE((SELECT q.number + 1 FROM {table} q \
        WHERE q.namespace = $1 AND q.generation = 0 AND q.name = 'sequence'), $3), \
        NULL, NULL, {now}, NULL, NULL, {now}, $4 \
        FROM (SELECT 'sequence' AS name UNION ALL SELECT name FROM {names} o) n WHERE true \
        ON CONFLICT {key} DO UPDATE SET number = excluded.number, used = excluded.used RETURNING number",
    put_many: "",
    put_all: "INSERT INTO {table} AS l ({columns}) SELECT $1, {life}, i.column1, i.column2, i.column3, i.column4, \
        i.column5, {now}, {now} + i.column6, {now} + i.column7, {now}, i.column8 FROM (VALUES {rows}) i WHERE true \
        ON CONFLICT {key} DO UPDATE SET {take over}",
    // A commit costs as much as several rows, and there are few statements to prepare.
    rows: &[64, 32, 16, 8, 4, 2],
};

impl Dialect for Sqlite {
    type Connection = SqliteConnection;
    type Options = SqliteOptions;

    const NAME: &'static str = "sqlite";
    const DEFAULTS: Defaults =
        Defaults { create: true, connections: 4, limit: Duration::from_secs(5) };
    const SERVERS_TIME: bool = false;
    const PARAMETERS: &'static str = "busy_timeout and synchronous";

    fn words() -> &'static Words {
        &WORDS
    }

    async fn open(options: &SqliteOptions, _: Duration) -> Result<SqliteConnection, sqlx::Error> {
        let connect = options
            .connect()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(options.synchronous)
            .foreign_keys(false);
        SqliteConnection::connect_with(&connect).await
    }

    async fn ping(_: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // Nobody else closes it.
        Ok(())
    }

    async fn fetch(
        connection: &mut SqliteConnection,
        statement: Arc<str>,
        arguments: &[Argument],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for argument in arguments {
            query = match argument {
                Argument::Text(text) => query.bind(text),
                Argument::Integer(number) => query.bind(number),
                Argument::Blob(bytes) => query.bind(bytes.as_deref()),
                Argument::Texts(_) | Argument::Integers(_) | Argument::Blobs(_) => {
                    return Err(sqlx::Error::Protocol("SQLite has no arrays".into()));
                }
            };
        }
        let rows = query.fetch_all(connection).await?;
        rows.iter().map(|row| Ok(cells!(row))).collect()
    }

    fn cause(code: &str, words: &str) -> Cause {
        // The primary code is the lowest byte.
        match code.parse::<i32>().unwrap_or(0) & 0xff {
            1 if words.starts_with("no such table") => Cause::NoTable,
            1 if words.contains("column") => Cause::OtherTable,
            3 | 23 => Cause::Forbidden,
            5 | 6 => Cause::Busy,
            8 => Cause::ReadOnly,
            11 | 14 | 26 => Cause::Damaged,
            13 => Cause::Full,
            _ => Cause::Unknown,
        }
    }

    fn parameter(options: &mut SqliteOptions, name: &str, value: &str) -> Result<bool> {
        match name {
            "synchronous" => {
                options.synchronous = match value {
                    "off" => SqliteSynchronous::Off,
                    "normal" => SqliteSynchronous::Normal,
                    "full" => SqliteSynchronous::Full,
                    _ => return Err(wrong("synchronous is off, normal or full")),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn address(options: &mut SqliteOptions, url: &str) -> Result<()> {
        let Some(path) = url.strip_prefix("sqlite://") else {
            return Err(wrong(
                "the URL cannot be read; write sqlite://cache.db, or sqlite:///var/cache/shop.db with a path from the root",
            ));
        };
        if path.is_empty() || path == ":memory:" {
            return Err(wrong(
                "the URL names no file; write sqlite://cache.db (what is to lie in memory lies in memory:// better)",
            ));
        }
        options.path = Some(decoded(path)?.into());
        Ok(())
    }

    fn limited(options: &mut SqliteOptions, limit: Duration) {
        options.busy_timeout = limit;
    }

    fn check(options: &SqliteOptions) -> Result<()> {
        match &options.path {
            Some(path) if !path.as_os_str().is_empty() => Ok(()),
            _ => Err(wrong("there is no file; give one by path(\"cache.db\") or a URL")),
        }
    }
}
