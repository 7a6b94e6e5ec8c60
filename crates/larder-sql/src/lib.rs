//! The backends of Larder that keep their entries in a SQL database: a SQLite file, shared by the processes of one host,
//! or PostgreSQL, shared by all nodes.
//!
//! Everything lies in one table. Every operation is one statement: nothing that is cancelled, killed or cut off ever
//! leaves a transaction open or half of a change behind. What has expired is never read, and is removed in batches.
//!
//! # Defaults
//!
//! | | [`SqliteBackend`] | [`PostgresBackend`] |
//! | --- | --- | --- |
//! | table | `larder`, made while connecting | `larder`, made with `create=true` |
//! | connections | one that writes, 4 that read, one that sweeps | 8, and one that sweeps |
//! | longest wait | `busy_timeout`: 5 s | `response_timeout`: 1 s; `connect_timeout`: 2 s |
//! | room | 1 GiB and a million entries | the same |
//! | one value | 64 MiB | the same |
//! | entries without a lifetime of their own | 300 s | the same |
//! | the disk | waited for now and then (`synchronous=normal`) | waited for by each write (`synchronous_commit=true`) |
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder_core::{Backend, Encoded, Entry, Key, Namespace, Ttl, When};
//! use larder_sql::SqliteBackend;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("cache.db");
//! let sqlite = SqliteBackend::builder().path(&path).connect().await?;
//! let key = Key::new(&Namespace::new("shop")?, ["greeting"])?;
//! let hello = Entry::wire(Encoded { body: "hello".into(), ..Encoded::default() });
//! let _ = sqlite.put(&key, hello, Ttl::Default, When::Always).await?;
//!
//! // Another handle, in this process or another one.
//! let again = SqliteBackend::builder().path(&path).connect().await?;
//! assert!(again.get(&key, &[]).await?.entry.is_some());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # Configured
//!
//! In the URL, with the builder, or both; [`Builder::url`] tells what a URL can say.
//!
//! ```
//! # #[cfg(feature = "postgres")] {
//! use larder_sql::PostgresBackend;
//! use std::time::Duration;
//!
//! let builder = PostgresBackend::builder()
//!     .url("postgres://app@db.internal/shop?namespace=shop&table=app.cache")?
//!     .credentials("app", "from a file")
//!     .response_timeout(Duration::from_millis(500));
//! // For those who run migrations of their own.
//! assert!(builder.schema().starts_with("CREATE TABLE IF NOT EXISTS app.cache"));
//! # }
//! # Ok::<(), larder_core::Error>(())
//! ```
//!
//! # Invalidating with a transaction
//!
//! [`SqlBackend::invalidate_in`] invalidates tags on the application's own connection, inside its own transaction: what
//! is cached falls with the commit, and a rollback leaves it. It says what is promised.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder_core::{Namespace, Tag};
//! use larder_sql::SqliteBackend;
//! use sqlx::{Connection, sqlite::{SqliteConnectOptions, SqliteConnection}};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("app.db");
//! // The cache lies in a table of the application's file.
//! let cache = SqliteBackend::builder().path(&path).connect().await?;
//! let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await?;
//! # sqlx::query("CREATE TABLE product (id INTEGER, price INTEGER)").execute(&mut database).await?;
//!
//! let mut transaction = database.begin().await?;
//! sqlx::query("UPDATE product SET price = 3 WHERE id = 7").execute(&mut *transaction).await?;
//! cache.invalidate_in(&mut transaction, &Namespace::new("shop")?, &[Tag::new("product:7")?]).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! [`SqlBackend::acquire`] gives a connection of the backend's own, for whatever else is to be asked.
//!
//! # Changes that nobody announces
//!
//! An [`Outbox`] has the database itself note what was changed in its tables, by whomever, `psql` included; a cache
//! [follows](outbox) it and invalidates the tags, what it missed while no node was running included.
//!
//! # Messages between nodes
//!
//! `PostgresBackend::bus` carries what nodes with a near store tell each other, by `LISTEN` and `NOTIFY`, so
//! `tiered:memory://|postgres://…` needs nothing else. SQLite carries none: a near store before it lives by its ceiling.
//!
//! # What lies in the table
//!
//! | column | what |
//! | --- | --- |
//! | `namespace`, `generation`, `name` | the primary key: which life of which namespace, and the key's first letters and hash |
//! | `kind` | 0 an entry, 1 a counter, 2 a fill marker, 3 a pass, 4 a sequence, a tag or a namespace's generation |
//! | `number` | of counters and of kind 4 |
//! | `revision` | which writing of the entry it is, or whose marker |
//! | `value` | the entry in Larder's wire format; it repeats its key and carries checksums, which every read verifies |
//! | `written`, `fresh`, `expires` | milliseconds since 1970; none: for ever |
//! | `used` | when it was used, to the minute |
//! | `size` | the value's bytes and 400 for the rest |
//!
//! Rows are what they claim or a miss: bytes of another format, of another key, damaged or foreign harm nobody. Whoever
//! may write to the table can forge entries, though.
//!
//! # Time
//!
//! PostgreSQL's rows live by the server's clock, and each answer brings its time along: nodes agree whatever their own
//! clocks say. SQLite's rows live by the host's wall clock; who sets it back prolongs them.
//!
//! # Bounds
//!
//! [`max_bytes`](Builder::max_bytes) and [`max_entries`](Builder::max_entries) hold for all entries, counters and markers
//! of the table: what expired or was cleared and was not swept yet counts too. When a thirty-second part of the room has
//! been written by a process, it counts what is there, and removes what was not used for longest until a sixteenth is
//! free; who writes faster than that waits. With several processes each may write a sixteenth until it looks again, so
//! the table may grow beyond the bound by so much for each. What was used is noted once a minute, in the background.
//! Sequences and generations are not counted (a row each for a namespace); neither are tags, whose rows end when nobody
//! asked for them in 30 days. Databases keep the space that is freed for later rows; SQLite's file does not shrink.
//!
//! Every [`sweep_every`](Builder::sweep_every), and after a [`clear`], each process removes what has expired, what cleared
//! namespaces left, and tags that ended, 500 rows in one statement. In PostgreSQL sweeps skip what others hold.
//!
//! # What it costs
//!
//! A read is one look-up by the primary key and one for the namespace's generation, in one statement. Batches are one
//! statement on PostgreSQL (in parts of 1,000 keys or 8 MiB); for SQLite, where statements need no round trip, reads are
//! one, unconditional writes one for up to 64 of them, and others one each. The first statement of a kind on a
//! connection is prepared, which takes a second round trip. [`clear`] changes one row, and every node sees it at once.
//!
//! # When something fails
//!
//! | what happens | what callers see |
//! | --- | --- |
//! | a connection is lost | reads, removals and the like are sent again over a new one, within the same limit |
//! | an answer does not come in time | [`Timeout`], and the connection is closed: no late answer is ever read; PostgreSQL gives the statement up as well |
//! | the answer to a conditional write is lost | it is looked up: the outcome, or [`Ambiguous`] |
//! | the server cannot be reached | [`Unavailable`], and at once while it is not tried again, which is after a pause of up to a second |
//! | two statements get into each other's way | they are tried again |
//! | others write to the SQLite file | the writer waits its turn, up to `busy_timeout` |
//! | the table is missing, or the user may not | [`Configuration`], in words that say what to do |
//!
//! # What it does not do
//!
//! * PostgreSQL 12 or later is needed. Behind a pooler that keeps no session (pgbouncer's `transaction` mode) prepared
//!   statements and session settings do not work.
//! * SQLite files lie on a local disk: on NFS, locks do not keep what is promised here.
//!
//! # Cancel safety
//!
//! Every future may be dropped at any time. Operations run in tasks of their own, so what has begun comes to its end,
//! and its connection goes back whole.
//!
//! [`clear`]: larder_core::Backend::clear
//! [`Timeout`]: larder_core::ErrorKind::Timeout
//! [`Ambiguous`]: larder_core::ErrorKind::Ambiguous
//! [`Unavailable`]: larder_core::ErrorKind::Unavailable
//! [`Configuration`]: larder_core::ErrorKind::Configuration

// With neither database there is nothing to call it all.
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(dead_code, unused_imports, unused_macros)
)]

#[cfg(feature = "postgres")]
mod bus;
mod client;
mod config;
mod counting;
mod database;
mod failure;
mod filling;
#[cfg(feature = "postgres")]
mod listen;
mod log;
mod marks;
mod naming;
pub mod outbox;
mod paging;
#[cfg(feature = "postgres")]
mod postgres;
mod reading;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
mod store;
mod sweep;
mod writing;

#[cfg(feature = "postgres")]
pub use bus::PostgresBus;
pub use config::Builder;
pub use database::Database;
pub use outbox::{Outbox, Watch};
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use sqlite::{Sqlite, Synchronous};
pub use store::{SqlBackend, SqlConnection};

/// Entries in a SQLite file.
#[cfg(feature = "sqlite")]
pub type SqliteBackend = SqlBackend<Sqlite>;

/// Entries on a PostgreSQL server.
#[cfg(feature = "postgres")]
pub type PostgresBackend = SqlBackend<Postgres>;

/// What changed in a SQLite file.
#[cfg(feature = "sqlite")]
pub type SqliteOutbox = Outbox<Sqlite>;

/// What changed in a PostgreSQL database.
#[cfg(feature = "postgres")]
pub type PostgresOutbox = Outbox<Postgres>;
