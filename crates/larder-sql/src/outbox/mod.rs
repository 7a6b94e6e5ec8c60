//! The database notes what was changed in its tables, and tells whoever follows.
//!
//! Triggers append the tags of each changed row to a table, the *outbox*, in the transaction that changes the row: so
//! what is rolled back is not noted, and what is committed is, whoever did it, with whatever program, while caches were
//! running or not. A cache follows the outbox (`cache.follow(outbox)` of the engine), invalidates the tags, and keeps
//! in its own store up to where it has come. That is all it takes:
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn f() -> larder_core::Result<()> {
//! use larder_sql::{PostgresOutbox, Watch};
//!
//! let outbox = PostgresOutbox::at("postgres://app@db.internal/shop")?
//!     .watch(Watch::table("product")?.tag("products")?.tag_of("product:", "id")?)?
//!     .watch(Watch::table("category")?.tag("products")?)?;
//! outbox.create().await?; // or run what `outbox.schema()` prints, with your own migrations
//! # Ok(()) }
//! ```
//!
//! Whoever wants to do something else with the news reads them here:
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder_core::Tag;
//! use larder_sql::outbox::Changed;
//! use larder_sql::{SqliteOutbox, Watch};
//! # use sqlx::{Connection, sqlite::{SqliteConnectOptions, SqliteConnection}};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("shop.db");
//! # let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
//! # let mut database = SqliteConnection::connect_with(&options).await?;
//! sqlx::raw_sql("CREATE TABLE product (id INTEGER PRIMARY KEY)").execute(&mut database).await?;
//! let outbox = SqliteOutbox::at(&format!("sqlite://{}", path.display()))?;
//! let outbox = outbox.watch(Watch::table("product")?.tag_of("product:", "id")?)?;
//! outbox.create().await?;
//!
//! let mut listening = outbox.listen().await?;
//! let beginning = listening.read(None).await?;
//! assert_eq!(beginning.changed, Changed::Everything);
//! sqlx::raw_sql("INSERT INTO product VALUES (7)").execute(&mut database).await?;
//! listening.wait(std::time::Duration::from_secs(60)).await?;
//! let news = listening.read(Some(&beginning.position)).await?;
//! assert_eq!(news.changed, Changed::Tags(vec![Tag::new("product:7")?]));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # What is noted
//!
//! | statement | noted |
//! | --- | --- |
//! | `INSERT`, `UPDATE`, `DELETE`, `COPY`, `MERGE`, cascades | the tags of every row, as it was and as it is |
//! | an `UPDATE` that changes nothing | the same |
//! | a statement that meets no row; whatever is rolled back, to a savepoint too | nothing |
//! | `TRUNCATE` (PostgreSQL) | the table's tags, if all its rows have the same; *everything* otherwise |
//!
//! *Everything* has the follower clear its cache's namespace, since nobody can list the tags of rows that are gone.
//! 10,000 tags at once are everything, too.
//!
//! In PostgreSQL a tag is noted once for each transaction. The triggers' functions run with the rights of whoever made
//! them, so those who change rows need no rights on the outbox.
//!
//! # Nothing is skipped
//!
//! Numbers from a sequence become visible in another order than they were given: the transaction that took 7 may commit
//! after the one that took 8 was read, and who goes on from 8 never sees 7. So a position in PostgreSQL is no number
//! but a *snapshot*: the list of the transactions that were over when the outbox was read. Every row has its
//! transaction's id, and what is read next is what is visible now and was not in that snapshot: exactly the
//! transactions that were committed in between, in whatever order they began. A transaction that stays open delays
//! nobody. SQLite has one writer at a time, and numbers do there.
//!
//! A position is used once the server's disk has what was read, so a server that crashes and forgets the last moments
//! (`synchronous_commit=off`) takes nothing back that a follower goes on from. (With `fsync=off` anything can happen.)
//! That costs the server a small transaction for each reading that found something.
//!
//! A position belongs to one outbox: to this server (and its timeline, which is another one after a failover or a
//! restore), database and table, or to this file and the very row that was last. Where a position does not fit, or is
//! lost, everything is dropped.
//!
//! # Pruning
//!
//! Followers remove rows that are older than [`Outbox::keep`] (a day) or more than [`Outbox::keep_at_most`] (a
//! million), about once a minute, whoever has read them. A mark stays behind: a follower whose position is from before
//! it drops everything. So the outbox is bounded, and no follower that is gone for good holds it up.
//!
//! # What it costs
//!
//! A changed row takes a row for each of its tags; in PostgreSQL a transaction takes one for each of its tags, and while a
//! transaction that writes stays open, each reading goes over what was noted since it began. PostgreSQL lets one transaction that notifies commit at a time, in
//! the whole server; a database with thousands of writing transactions a second feels that. `PREPARE TRANSACTION`
//! cannot be used with tables that are watched, since it cannot be used with `NOTIFY`.
//!
//! # What is not noted
//!
//! * In PostgreSQL: what writes without triggers (logical replication's appliers, `session_replication_role=replica`,
//!   disabled triggers); `TRUNCATE` of a single partition; changes of the table itself (`ALTER TABLE`). The outbox is not
//!   to be replicated logically: its numbers mean nothing on another server.
//! * In SQLite: rows that `REPLACE` removes for another unique column's sake, unless `recursive_triggers` is on.
//! * Views, and tables of other servers. Watch what they are made of.

mod listening;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod watch;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::config::{Builder, wrong};
use crate::database::{Argument, Database, Dialect};
use crate::failure::{Cause, Failure};
use crate::log;

pub use listening::{Changed, Listening, News, Position};
use watch::Name;
pub use watch::Watch;

/// What has changed in a database's tables, for caches to follow; see the [module](self).
///
/// A clone is another one like it.
#[derive(Clone)]
#[must_use]
pub struct Outbox<D: Database> {
    options: D::Options,
    connect_timeout: Duration,
    limit: Duration,
    name: Name,
    watches: Vec<Watch>,
    keep: Duration,
    keep_at_most: u64,
}

impl<D: Database> Outbox<D> {
    /// The outbox `larder_outbox` in the database of a URL, as [`Builder::url`] takes it; what that says of a cache's
    /// table does not matter here.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::url`].
    pub fn at(url: &str) -> Result<Self> {
        Ok(Self::with(Builder::default().url(url)?))
    }

    /// The same, with how to connect from a builder: credentials, limits.
    pub fn with(builder: Builder<D>) -> Self {
        // Noting what a whole table was takes longer than reading an entry.
        let limit = builder.limit.max(PATIENT);
        let mut options = builder.options;
        D::limited(&mut options, limit);
        Outbox {
            options,
            connect_timeout: builder.connect_timeout,
            limit,
            name: Name { schema: None, name: NAME.to_owned() },
            watches: Vec::new(),
            keep: Duration::from_secs(24 * 60 * 60),
            keep_at_most: 1_000_000,
        }
    }

    /// The outbox's table: `larder_outbox`, or in PostgreSQL `schema.name`, in `public` unless set. The triggers and their
    /// functions are named after it, and it is the channel of its notifications. At most 48 bytes.
    ///
    /// # Errors
    ///
    /// What cannot be such a name.
    pub fn named(mut self, name: &str) -> Result<Self> {
        self.name = Name::parse(name)?;
        if self.name.name.len() > LONGEST_NAME {
            return Err(wrong(
                "an outbox's name has at most 48 bytes, since triggers are named after it",
            ));
        }
        D::check_name(&self.name)?;
        Ok(self)
    }

    /// Has changes of that table noted.
    ///
    /// # Errors
    ///
    /// A table without tags, or one that is watched already; names that would be too long together.
    pub fn watch(mut self, watch: Watch) -> Result<Self> {
        D::check_name(&watch.table)?;
        if watch.tags.is_empty() {
            return Err(wrong(
                "a table is watched for the sake of tags; add one with tag or tag_of",
            ));
        }
        if self.watches.iter().any(|one| one.table == watch.table) {
            return Err(wrong("the table is watched already; add the tags there"));
        }
        if self.name.name.len() + watch.table.name.len() > 54 {
            return Err(wrong(
                "the names of the outbox and of a watched table have more than 54 bytes together; give the outbox a shorter one with named",
            ));
        }
        self.watches.push(watch);
        Ok(self)
    }

    /// How long what was noted is kept. A day unless set; at least a minute.
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep.max(Duration::from_secs(60));
        self
    }

    /// How many rows are kept at most, but for what was added since somebody pruned. A million unless set; at least one.
    pub fn keep_at_most(mut self, rows: u64) -> Self {
        self.keep_at_most = rows.max(1);
        self
    }

    /// The statements that make the outbox, functions and triggers, for those who run their own migrations. They can be
    /// run again: triggers that are there are made anew.
    pub fn schema(&self) -> String {
        script(&D::create_statements(&self.name, &self.watches))
    }

    /// The statements that take away what [`schema`](Outbox::schema) made.
    pub fn drop_schema(&self) -> String {
        script(&D::drop_statements(&self.name, &self.watches))
    }

    /// Makes the outbox, functions and triggers, in one transaction. Each of the tables is locked for a moment. The user
    /// must own the tables, or have the right `TRIGGER` on them and `CREATE` on their schemas.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a table or column is missing or the user may not; those of the
    /// database.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, all of it has happened or nothing.
    pub async fn create(&self) -> Result<()> {
        self.run(D::create_statements(&self.name, &self.watches)).await
    }

    /// Removes the triggers and functions of the tables that this outbox watches, and the outbox.
    ///
    /// # Errors
    ///
    /// As [`create`](Outbox::create).
    ///
    /// # Cancel safety
    ///
    /// As [`create`](Outbox::create).
    pub async fn remove(&self) -> Result<()> {
        self.run(D::drop_statements(&self.name, &self.watches)).await
    }

    async fn run(&self, statements: Vec<String>) -> Result<()> {
        let opening =
            timeout(self.connect_timeout, D::connect(&self.options, self.connect_timeout));
        let mut connection = match opening.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(Failure::connecting::<D>(&error).error),
            Err(_) => return Err(Failure::unreachable::<D>().error),
        };
        match timeout(self.limit, D::run(&mut connection, &self.name, script(&statements))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(told::<D>(&error)),
            Err(_) => Err(Failure::late::<D>(true).error),
        }
    }

    /// Connects, and from now on notices every change. Whoever follows reads first, and then each time that
    /// [`wait`](Listening::wait) returns.
    ///
    /// # Errors
    ///
    /// Those of the database.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing stays.
    pub async fn listen(&self) -> Result<Listening<D>> {
        let opening = D::listen(&self.options, self.connect_timeout, &self.name);
        let ear = match timeout(self.connect_timeout, opening).await {
            Ok(opened) => opened.map_err(|failure| failure.error)?,
            Err(_) => return Err(Failure::unreachable::<D>().error),
        };
        Listening::new(ear, self.clone()).await
    }
}

impl<D: Database> fmt::Debug for Outbox<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("database", &D::NAME)
            .field("name", &self.name.name)
            .field("watches", &self.watches)
            .finish_non_exhaustive()
    }
}

/// What an outbox is in a database.
pub trait Source: Dialect {
    /// A connection that notices changes.
    #[doc(hidden)]
    type Ear: Send;

    /// To the application's database, of which nothing is changed.
    #[doc(hidden)]
    fn connect(
        options: &Self::Options,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    #[doc(hidden)]
    fn listen(
        options: &Self::Options,
        limit: Duration,
        outbox: &Name,
    ) -> impl Future<Output = Result<Self::Ear, Failure>> + Send;

    #[doc(hidden)]
    fn connection(
        ear: &mut Self::Ear,
    ) -> impl Future<Output = Result<&mut Self::Connection, sqlx::Error>> + Send;

    /// Comes when something may have been noted. Nothing is lost when it is dropped.
    #[doc(hidden)]
    fn wake(ear: &mut Self::Ear) -> impl Future<Output = Result<(), Failure>> + Send;

    #[doc(hidden)]
    fn check_name(name: &Name) -> Result<()>;
    #[doc(hidden)]
    fn create_statements(outbox: &Name, watches: &[Watch]) -> Vec<String>;
    #[doc(hidden)]
    fn drop_statements(outbox: &Name, watches: &[Watch]) -> Vec<String>;

    /// All of a script or nothing.
    #[doc(hidden)]
    fn run(
        connection: &mut Self::Connection,
        outbox: &Name,
        script: String,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Rows of a number and a text: 0 home, 1 the new position, 2 a tag, or "" for everything, 3 that the position is
    /// none of this outbox.
    #[doc(hidden)]
    fn read_statement(outbox: &Name, most: usize) -> String;
    /// A position as its arguments, if it is one.
    #[doc(hidden)]
    fn arguments(at: &str) -> Option<Vec<Argument>>;
    /// Those of no position, with which no tag is read.
    #[doc(hidden)]
    fn nowhere() -> Vec<Argument>;
    /// Has the disk have what is visible, if that is not sure.
    #[doc(hidden)]
    const SETTLE: Option<&'static str>;
    /// Its arguments are seconds and rows.
    #[doc(hidden)]
    fn prune_statement(outbox: &Name) -> String;
}

fn script(statements: &[String]) -> String {
    statements.join(";\n") + ";\n"
}

fn told<D: Dialect>(error: &sqlx::Error) -> Error {
    let cause = error
        .as_database_error()
        .map(|error| D::cause(&error.code().unwrap_or_default(), error.message()));
    let words = match cause {
        Some(Cause::NoTable) => {
            "the outbox or a watched table is missing; call Outbox::create, or run what Outbox::schema prints"
        }
        Some(Cause::OtherTable) => {
            "a watched table lacks a column that a tag is made of, or the outbox's name is another table's"
        }
        Some(Cause::Forbidden) => {
            "the user may not do that; following needs SELECT, INSERT and DELETE on the outbox, creating it the ownership of the tables"
        }
        _ => {
            let failure = Failure::of::<D>(error);
            log::lost(D::NAME, &failure.error);
            return failure.error;
        }
    };
    Error::new(ErrorKind::Configuration, words).with_backend(D::NAME)
}

const NAME: &str = "larder_outbox";

// `_truncate` must fit behind it.
const LONGEST_NAME: usize = 48;

const PATIENT: Duration = Duration::from_secs(10);
