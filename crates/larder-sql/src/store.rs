//! The backend: every operation as statements.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use larder_core::envelope::Envelope;
use larder_core::order::{Keys, Order};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Damages, Entry, Error, ErrorKind, Found,
    Key, Marks, Namespace, Outcome, Page, Prefix, Put, Remaining, Result, Revision, Sequence, Tag,
    Token, Ttl, When,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::client::{Answer, Lease, Pool, wall};
use crate::config::Builder;
use crate::database::{Argument, Cell, Database, Row};
use crate::failure::Failure;
use crate::naming::Place;
use crate::reading::{Look, counter};
use crate::statements::{Statement, Statements, condition, kind, schema};
use crate::sweep::{self, Room};

/// Entries in a table of a SQL database; see the [crate's documentation](crate).
///
/// A clone is a handle of the same connections. When the last one goes, so do they.
pub struct SqlBackend<D: Database>(pub(crate) Arc<Inner<D>>);

impl<D: Database> Clone for SqlBackend<D> {
    fn clone(&self) -> Self {
        SqlBackend(self.0.clone())
    }
}

pub(crate) struct Inner<D: Database> {
    pub(crate) reader: Arc<Pool<D>>,
    // SQLite has one writer at a time, and who waits here waits in turn. PostgreSQL's is the reader's pool.
    pub(crate) writer: Arc<Pool<D>>,
    // Counting and sweeping may take longer than an operation.
    pub(crate) sweeper: Arc<Pool<D>>,
    pub(crate) statements: Statements,
    pub(crate) table: String,
    pub(crate) room: Room,
    pub(crate) envelope: Envelope,
    pub(crate) clock: Clock,
    pub(crate) limit: Duration,
    pub(crate) default_ttl: Ttl,
    pub(crate) max_value_bytes: u64,
    pub(crate) damages: Damages,
    order: Order,
    // Noting that something was used is never waited for, and never queues.
    pub(crate) noting: Arc<Semaphore>,
}

impl<D: Database> SqlBackend<D> {
    /// Connects to the database of a URL. [`Builder::url`] tells all of it.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::url`] and [`Builder::connect`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the attempt ends; tables that were made stay.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder().url(url)?.connect().await
    }

    /// Configures one.
    pub fn builder() -> Builder<D> {
        Builder::default()
    }

    pub(crate) fn with(builder: Builder<D>) -> Self {
        let pool = |connections, limit| {
            let mut options = builder.options.clone();
            D::limited(&mut options, limit);
            let clock = builder.clock.clone();
            Arc::new(Pool::new(options, connections, builder.connect_timeout, clock))
        };
        let reader = pool(builder.max_connections, builder.limit);
        let writer = if D::SERVERS_TIME { reader.clone() } else { pool(1, builder.limit) };
        let inner = Arc::new(Inner {
            reader,
            writer,
            sweeper: pool(1, builder.limit.max(PATIENT)),
            statements: Statements::new(D::words(), &builder.table),
            room: Room::new(builder.max_entries, builder.max_bytes),
            // Disks tear and rot, so bodies are always checked.
            envelope: Envelope::default().verify_body(true),
            clock: builder.clock,
            limit: builder.limit,
            default_ttl: builder.default_ttl,
            max_value_bytes: builder.max_value_bytes,
            damages: Damages::default(),
            order: Order::default(),
            noting: Arc::new(Semaphore::new(4)),
            table: builder.table,
        });
        sweep::start(&inner, builder.sweep_every);
        SqlBackend(inner)
    }

    // Makes the table, or sees whether it is there.
    pub(crate) async fn prepare(&self, create: bool) -> Result<()> {
        self.step(Keys::ALL, async move |inner: Arc<Inner<D>>| {
            let deadline = inner.patient();
            if create {
                for text in schema(D::words(), &inner.table) {
                    inner
                        .sweeper
                        .fetch(&Statement(text.into()), Vec::new(), true, deadline)
                        .await?;
                }
            }
            inner.writer.fetch(&inner.statements.probe, vec![text("")], true, deadline).await?;
            Ok(())
        })
        .await
    }

    /// A connection of this backend's, for statements of one's own. It is closed when it is dropped, so nothing of what
    /// was done with it reaches anybody else, open transactions least of all.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) when there is none to be had.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing stays.
    pub async fn acquire(&self) -> Result<SqlConnection<D>> {
        Ok(SqlConnection(self.0.reader.lease(self.0.deadline()).await?))
    }

    /// Invalidates tags inside a transaction of the application's: on its connection, which must be one to the database
    /// and the schema where the table lies. `&mut *transaction` of sqlx is one.
    ///
    /// What is promised:
    ///
    /// * With the commit, everything that carries one of the tags and was made of what was there before is invalid, for
    ///   everybody and at once: also what was begun while the transaction was open, and is stored only after it.
    /// * With a rollback, nothing has happened.
    /// * Until the commit, readers go on with what is cached, as they do with what lies in the database.
    ///
    /// It holds because the namespace's sequence has moved when the transaction commits, and not before: what is made
    /// meanwhile notes the number from before. The row of the sequence is locked until then, so other invalidations in
    /// the namespace wait for the transaction, and so does the first use of a tag that nobody has used before; reading
    /// and storing do not. So call it late and commit soon. (In SQLite a transaction that writes keeps every other
    /// writer waiting, with or without this.) What other nodes keep [near](https://docs.rs/larder) in their memory is
    /// not told by this; it ends within its ceiling.
    ///
    /// # Errors
    ///
    /// Those of the database. PostgreSQL's transaction can only be rolled back then.
    ///
    /// # Cancel safety
    ///
    /// As of every statement in the transaction: roll it back when you do not know what became of it.
    pub async fn invalidate_in(
        &self,
        connection: &mut D::Connection,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> Result<Sequence> {
        let mut arguments = self.0.invalidation(namespace, &Tag::with_lasting(tags));
        if !D::SERVERS_TIME {
            arguments.push(Argument::Integer(Some(wall(&self.0.clock))));
        }
        let statement = self.0.statements.invalidate.0.clone();
        let rows = D::fetch(connection, statement, &arguments).await;
        crate::marks::number(&rows.map_err(|error| Failure::of::<D>(&error))?)
    }

    /// Frees now what would be freed in the background: what has expired, what cleared namespaces left, tags that nobody
    /// asked for in 30 days, and what is too much.
    ///
    /// # Errors
    ///
    /// Those of the database.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the sweep goes to its end in the background.
    pub async fn sweep(&self) -> Result<()> {
        self.step(Keys::NONE, async move |inner: Arc<Inner<D>>| inner.sweep().await).await
    }

    // One operation, in a task of its own: a caller that goes away interrupts no statement, so connections are always
    // given back whole.
    pub(crate) async fn step<T, F>(
        &self,
        keys: Keys,
        step: impl FnOnce(Arc<Inner<D>>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let unavailable = |words| Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME);
        let runtime = Handle::try_current()
            .map_err(|_| unavailable("databases are used from inside a Tokio runtime only"))?;
        let (waiting, mut running) = self.0.order.begin(keys);
        let step = step(self.0.clone());
        let task = runtime.spawn(async move {
            running.turn().await;
            step.await
        });
        let done = task.await;
        waiting.answered();
        match done {
            Ok(result) => result,
            Err(error) => {
                Err(unavailable("the runtime has ended before it was done").with_source(error))
            }
        }
    }
}

/// See [`SqlBackend::acquire`].
pub struct SqlConnection<D: Database>(Lease<D>);

impl<D: Database> Deref for SqlConnection<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.0
    }
}

impl<D: Database> DerefMut for SqlConnection<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.0
    }
}

impl<D: Database> fmt::Debug for SqlConnection<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SqlConnection")
    }
}

impl<D: Database> Backend for SqlBackend<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            evicts: true,
            pages: true,
            shared: true,
            durable: true,
            follows_clock: !D::SERVERS_TIME && self.0.clock.is_manual(),
            precision: Duration::from_millis(1),
            max_bytes: Some(self.0.max_value_bytes),
            default_ttl: self.0.default_ttl,
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let (key, counters) = (key.clone(), counters.to_vec());
        self.step(Keys::NONE, async move |inner: Arc<Inner<D>>| {
            if counters.is_empty() {
                let entry = match inner.look(&key).await? {
                    Look::Entry(entry) => Some(entry),
                    _ => None,
                };
                return Ok(Found { entry, counters: Vec::new() });
            }
            let places = std::iter::once(Place::of(&key));
            let places: Vec<Place> = places.chain(counters.iter().map(Place::of_counter)).collect();
            let (rows, asked) = inner.read_many(&places).await?;
            let entry = rows[0].as_ref().and_then(|row| inner.entry(&key, row, asked));
            let counter = |row: &Option<Row>| row.as_ref().and_then(counter);
            Ok(Found { entry, counters: rows[1..].iter().map(counter).collect() })
        })
        .await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.step(Keys::NONE, async move |inner: Arc<Inner<D>>| {
            let mut entries = Vec::with_capacity(keys.len());
            for keys in keys.chunks(BATCH) {
                let places: Vec<Place> = keys.iter().map(Place::of).collect();
                let (rows, asked) = inner.read_many(&places).await?;
                entries.extend(
                    keys.iter().zip(&rows).map(|(key, row)| {
                        row.as_ref().and_then(|row| inner.entry(key, row, asked))
                    }),
                );
            }
            Ok(entries)
        })
        .await
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let put = Put { key: key.clone(), entry, ttl, when };
        self.step(Keys::one(&put.key), async move |inner: Arc<Inner<D>>| inner.put(put).await).await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.step(Keys::of(items.iter().map(|put| &put.key)), async move |inner: Arc<Inner<D>>| {
            inner.put_many(items).await
        })
        .await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let key = key.clone();
        self.step(Keys::one(&key), async move |inner: Arc<Inner<D>>| {
            let when = only.map_or(When::Always, When::Revision);
            let removed = inner.remove(&key, when, inner.deadline()).await;
            let removed = match only {
                // Once more is as good as once, so the caller may ask again.
                None => removed?,
                Some(_) => removed.map_err(Failure::in_doubt)?,
            };
            Ok(removed == Some(true))
        })
        .await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let keys = keys.to_vec();
        self.step(Keys::of(&keys), async move |inner: Arc<Inner<D>>| {
            let mut count = 0;
            for keys in keys.chunks(BATCH) {
                let places: Vec<Place> = keys.iter().map(Place::of).collect();
                let arguments = vec![text(json(&places))];
                let answer = inner.write(&inner.statements.remove_many, arguments, true).await?;
                count += answer.rows.iter().filter(|row| row[0] == Cell::Integer(1)).count() as u64;
            }
            Ok(count)
        })
        .await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let key = key.clone();
        self.step(Keys::one(&key), async move |inner: Arc<Inner<D>>| {
            let ttl = ttl.resolve(inner.default_ttl);
            if ttl == Some(Duration::ZERO) {
                let removed = inner.remove(&key, When::Present, inner.deadline()).await;
                return Ok(removed.map_err(Failure::in_doubt)? == Some(true));
            }
            let mut arguments = here(&Place::of(&key));
            arguments.push(Argument::Integer(ttl.map(millis)));
            let answer = inner.write(&inner.statements.touch, arguments, true).await?;
            Ok(!answer.rows.is_empty())
        })
        .await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let key = key.clone();
        self.step(Keys::one(&key), async move |inner: Arc<Inner<D>>| {
            inner.add(&key, delta, create).await
        })
        .await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let place = Place::of(key);
        self.step(Keys::NONE, async move |inner: Arc<Inner<D>>| {
            let statement = &inner.statements.remaining;
            let deadline = inner.deadline();
            let answer = inner.reader.fetch(statement, here(&place), true, deadline).await?;
            Ok(match answer.rows.first() {
                None => Remaining::Absent,
                Some(row) => match (row[0].integer(), row[1].integer()) {
                    (Some(expires), Some(now)) => Remaining::For(Duration::from_millis(
                        u64::try_from(expires - now).unwrap_or_default(),
                    )),
                    _ => Remaining::Forever,
                },
            })
        })
        .await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        let key = key.clone();
        self.step(Keys::one(&key), async move |inner: Arc<Inner<D>>| inner.begin(&key, hold).await)
            .await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        let place = Place::of(key);
        self.step(Keys::one(key), async move |inner: Arc<Inner<D>>| {
            inner.exchange(&place, token, kind::FILL, hold).await
        })
        .await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        let key = key.clone();
        self.step(Keys::one(&key), async move |inner: Arc<Inner<D>>| {
            match pass.filter(|pass| !pass.is_zero()) {
                Some(pass) => inner.exchange(&Place::of(&key), token, kind::PASS, pass).await,
                None => {
                    let removed = inner.remove(&key, When::Token(token), inner.deadline()).await;
                    Ok(removed.map_err(Failure::in_doubt)?.is_some())
                }
            }
        })
        .await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let (namespace, tags) = (namespace.clone(), tags.to_vec());
        self.step(Keys::NONE, async move |inner: Arc<Inner<D>>| {
            inner.marks(&namespace, &tags).await
        })
        .await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let (namespace, tags) = (namespace.clone(), tags.to_vec());
        self.step(Keys::ALL, async move |inner: Arc<Inner<D>>| {
            let arguments = inner.invalidation(&namespace, &tags);
            // Twice is as good as once.
            let answer = inner.write(&inner.statements.invalidate, arguments, true).await?;
            crate::marks::number(&answer.rows)
        })
        .await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let namespace = namespace.as_str().to_owned();
        self.step(Keys::ALL, async move |inner: Arc<Inner<D>>| {
            let arguments = vec![text(namespace), Argument::Integer(Some(OVERHEAD))];
            inner.write(&inner.statements.clear, arguments, true).await?;
            inner.room.ring();
            Ok(())
        })
        .await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        let prefix = prefix.clone();
        self.step(Keys::NONE, async move |inner: Arc<Inner<D>>| {
            inner.page(&prefix, from, limit).await
        })
        .await
    }
}

impl<D: Database> Inner<D> {
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// For what nobody waits for.
    pub(crate) fn patient(&self) -> Instant {
        Instant::now() + self.limit.max(PATIENT)
    }

    pub(crate) async fn write(
        &self,
        statement: &Statement,
        arguments: Vec<Argument>,
        again: bool,
    ) -> Result<Answer, Failure> {
        self.writer.fetch(statement, arguments, again, self.deadline()).await
    }
}

impl<D: Database> fmt::Debug for SqlBackend<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlBackend")
            .field("database", &D::NAME)
            .field("table", &self.0.table)
            .field("default_ttl", &self.0.default_ttl)
            .finish_non_exhaustive()
    }
}

pub(crate) fn text(text: impl Into<String>) -> Argument {
    Argument::Text(text.into())
}

pub(crate) fn here(place: &Place) -> Vec<Argument> {
    vec![text(&*place.namespace), text(&*place.name)]
}

/// Milliseconds; what is less than one is one.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).max(1)
}

/// A condition, and what it compares with what is there.
pub(crate) fn condition_of(when: When) -> (i64, Option<[u8; 16]>) {
    match when {
        When::Always => (condition::ALWAYS, None),
        When::Absent => (condition::ABSENT, None),
        When::Present => (condition::PRESENT, None),
        When::Revision(revision) => (condition::REVISION, Some(revision.to_bytes())),
        When::Token(token) => (condition::TOKEN, Some(token.to_bytes())),
    }
}

// Places as JSON; nothing in a name means anything there.
pub(crate) fn json(places: &[Place]) -> String {
    let one = |place: &Place| {
        format!("[\"{}\",{},\"{}\"]", place.namespace, i32::from(place.mark), place.name)
    };
    format!("[{}]", places.iter().map(one).collect::<Vec<_>>().join(","))
}

/// Names as JSON; nothing in one means anything there.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut list = String::from("[");
    for name in names {
        list.extend([if list.len() > 1 { ",\"" } else { "\"" }, name, "\""]);
    }
    list + "]"
}

/// What a row takes beside its value, about: columns, name, indexes.
pub(crate) const OVERHEAD: i64 = 400;

// Keys in one statement.
pub(crate) const BATCH: usize = 1000;

const PATIENT: Duration = Duration::from_secs(60);
