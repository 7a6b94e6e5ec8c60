//! The backend: every operation as commands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder_core::envelope::{self, Envelope, TimeBase};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Damages, Entry, Error, ErrorKind, Found,
    Generation, Key, Marks, Moment, Namespace, Outcome, Page, Prefix, Put, Remaining, Result,
    Revision, Sequence, Tag, Times, Token, Ttl, When,
};
use tokio::time::Instant;

use crate::NAME;
use crate::config::Builder;
use crate::counting::Turns;
use crate::generation;
use crate::outage::Failure;
use crate::protocol::{Item, Only, Refusal, Reply, Request, Want};
use crate::record::{Counter as Number, Look, kind};
use crate::ring::Ring;
use crate::server::Server;

/// Entries on a Memcached server, or on a ring of them.
///
/// A clone is a handle of the same connections. When the last one goes, so do they.
#[derive(Clone)]
pub struct MemcachedBackend(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) servers: Vec<Server>,
    pub(crate) ring: Ring,
    pub(crate) turns: Turns,
    pub(crate) clock: Clock,
    pub(crate) envelope: Envelope,
    pub(crate) default_ttl: Ttl,
    pub(crate) mark_ttl: Ttl,
    clear_delay: Duration,
    damages: Damages,
    response_timeout: Duration,
    max_value_bytes: Option<u64>,
}

impl MemcachedBackend {
    /// Connects to the servers of a URL: `memcached://host1:11211,host2:11211`. [`Builder::url`] tells all of it.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::url`] and [`Builder::connect`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the attempt ends and nothing stays.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder().url(url)?.connect().await
    }

    /// Configures one: the server at 127.0.0.1:11211 unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The servers, as they are called when keys are given to them: for whoever wants to look at them with a client of
    /// their own.
    pub fn servers(&self) -> Vec<String> {
        self.0.servers.iter().map(|server| server.target.address.to_string()).collect()
    }

    /// Where a key lies: its server, as in [`servers`](MemcachedBackend::servers), and its name there until the
    /// namespace is cleared. What lies there is Larder's envelope, or the text of a counter.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) when that server cannot be reached, or does not answer in time.
    pub async fn place(&self, key: &Key) -> Result<(String, String)> {
        let name = std::sync::Mutex::new(String::new());
        let note = |known: &str, request: &mut Request| {
            request.get(known, Want::Left);
            known.clone_into(&mut name.lock().unwrap_or_else(|lock| lock.into_inner()));
        };
        self.0.one(key, true, self.0.deadline(), note).await?;
        let name = name.into_inner().unwrap_or_else(|lock| lock.into_inner());
        Ok((self.0.server(key).target.address.to_string(), name))
    }

    pub(crate) fn with(builder: Builder) -> Self {
        let servers: Vec<Server> = builder
            .servers
            .iter()
            .enumerate()
            .map(|(number, address)| Server::new(number, address, &builder))
            .collect();
        MemcachedBackend(Arc::new(Inner {
            ring: Ring::new(builder.servers.iter().map(ToString::to_string)),
            servers,
            turns: Turns::default(),
            damages: Damages::default(),
            clock: builder.clock,
            envelope: builder.envelope,
            default_ttl: builder.default_ttl,
            mark_ttl: builder.mark_ttl,
            clear_delay: builder.generation_max_age,
            response_timeout: builder.response_timeout,
            max_value_bytes: builder.max_value_bytes,
        }))
    }

    // One server that is there is enough, unless another one is wrongly configured.
    pub(crate) async fn connected(&self) -> Result<()> {
        let tries = join_all(self.0.servers.iter().map(Server::connected)).await;
        let some = tries.iter().any(|tried| tried.is_ok());
        let failures = || tries.iter().filter_map(|tried| tried.as_ref().err());
        let wrong = failures().find(|why| why.kind == ErrorKind::Configuration);
        match wrong.or_else(|| failures().next().filter(|_| !some)) {
            Some(why) => Err(why.error()),
            None => Ok(()),
        }
    }
}

impl Backend for MemcachedBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            evicts: true,
            shared: true,
            // What two nodes may be apart in what they take for a server's time.
            precision: Duration::from_millis(10),
            max_bytes: Some(self.0.max_value()),
            default_ttl: self.0.default_ttl,
            clear_delay: self.0.clear_delay,
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let inner = &*self.0;
        let deadline = inner.deadline();
        if counters.is_empty() {
            let read = |name: &str, request: &mut Request| request.get(name, Want::Value);
            let reply = inner.one(key, true, deadline, read).await?;
            return Ok(Found { entry: inner.entry(key, reply)?, counters: Vec::new() });
        }
        let keys: Vec<&Key> = std::iter::once(key).chain(counters).collect();
        let mut replies = inner.read(&keys, deadline).await.into_iter();
        let entry = replies.next().ok_or_else(Failure::garbled)?;
        let entry = inner.entry(key, entry?)?;
        let number = |(key, reply): (&Key, Result<Reply, Failure>)| {
            let look = inner.look_at(key, &item(reply?)?.unwrap_or_default());
            Ok(match look {
                Look::Counter(counter) => Some(counter.value),
                _ => None,
            })
        };
        let counters = counters.iter().zip(replies).map(number).collect::<Result<_, Failure>>()?;
        Ok(Found { entry, counters })
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let inner = &*self.0;
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            let refs: Vec<&Key> = keys.iter().collect();
            let replies = inner.read(&refs, inner.deadline()).await;
            // A server that is down costs its share of the hits, as long as there are others.
            let none = replies.iter().all(Result::is_err);
            for (key, reply) in keys.iter().zip(replies) {
                entries.push(match reply {
                    Ok(reply) => inner.entry(key, reply)?,
                    Err(failure) if none => return Err(failure.into()),
                    Err(_) => None,
                });
            }
        }
        Ok(entries)
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        self.0.put(Put { key: key.clone(), entry, ttl, when }).await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        Ok(self.0.put_many(items).await)
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let inner = &*self.0;
        let deadline = inner.deadline();
        match only {
            None => Ok(inner.remove(key, deadline).await?),
            Some(revision) => inner.remove_only(key, revision, deadline).await,
        }
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let mut count = 0;
        for keys in keys.chunks(BATCH) {
            count += self.0.remove_many(keys).await?;
        }
        Ok(count)
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let inner = &*self.0;
        let deadline = inner.deadline();
        let ttl = ttl.resolve(inner.default_ttl);
        let server = inner.server(key);
        let base = server.base(deadline).await?;
        while inner.in_time(deadline) {
            let seen = inner.look(key, deadline).await?;
            let now = inner.clock.now();
            let data = match &seen.look {
                Look::Entry(_) => {
                    let times = Times::starting(now, ttl, None);
                    let mut data = seen.data.to_vec();
                    let block = inner.envelope.times(key.as_ref(), &times, &base);
                    data[envelope::TIMES].copy_from_slice(&block);
                    Bytes::from(data)
                }
                Look::Counter(counter) => {
                    let end = ttl.map(|ttl| base.millis(now + ttl));
                    Number { end, ..*counter }.text()
                }
                _ => return Ok(false),
            };
            let life = server.life(ttl, &inner.clock);
            let zero = ttl.is_some_and(|ttl| ttl.is_zero());
            let change =
                if zero { Change::Remove } else { Change::Store(kind::ENTRY, &data, life) };
            match inner.swap(key, seen.cas, change, deadline).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // Touching twice is touching once.
                Err(failure) if failure.sent && !failure.late => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(Failure::contended().into())
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        self.0.add(key, delta, create).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let inner = &*self.0;
        let seen = inner.look(key, inner.deadline()).await?;
        let base = inner.server(key).present_base(&inner.clock);
        let now = inner.clock.now();
        let end = match &seen.look {
            Look::Entry(entry) => entry.times().and_then(|times| times.expires),
            Look::Counter(counter) if counter.sequence => {
                return Ok(match seen.left {
                    Some(left) => Remaining::For(Duration::from_secs(left)),
                    None => Remaining::Forever,
                });
            }
            Look::Counter(counter) => counter.end.map(|end| base.moment(end)),
            _ => return Ok(Remaining::Absent),
        };
        Ok(end.map_or(Remaining::Forever, |end| Remaining::For(end.since(now))))
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        Ok(self.0.begin(key, hold).await?)
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        Ok(self.0.exchange_marker(key, token, Some((false, hold))).await?)
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        let released = self.0.exchange_marker(key, token, pass.map(|pass| (true, pass))).await;
        released.map_err(Failure::in_doubt)
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        Ok(self.0.marks(namespace, tags).await?)
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        Ok(self.0.invalidate(namespace, tags).await?)
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let inner = &*self.0;
        let (name, deadline) = (namespace.as_str(), inner.deadline());
        let place = generation::place(name);
        let clear = async |server: &Server| {
            // Until the outcome is known, nobody here may trust the copy: the future may be dropped after it was sent.
            server.generations.doubt(name);
            let (new, connection) = (Generation::random(), server.connections());
            let mut request = Request::new();
            request.set(&place, 0, new.to_string().as_bytes(), 0, Only::Always);
            let replies = server.exchange(&request, true, deadline).await?;
            match replies.first() {
                Some(Reply::Item(_)) => server.generations.set(name, new, connection),
                // The old one is gone all the same, and who needs one makes one.
                Some(Reply::Refused(Refusal::Full)) => {}
                Some(Reply::Refused(refusal)) => return Err(refusal.failure()),
                _ => return Err(Failure::garbled()),
            }
            Ok(())
        };
        let cleared = join_all(inner.servers.iter().map(clear)).await;
        Ok(cleared.into_iter().collect::<Result<(), Failure>>()?)
    }

    async fn page(&self, _: &Prefix, _: Option<Cursor>, _: usize) -> Result<Page> {
        let words = "Memcached cannot list its keys; keep a list of your own, or use another store";
        Err(Error::new(ErrorKind::Unsupported, words).with_backend(NAME))
    }
}

/// What lies under a name, and which writing of it.
pub(crate) struct Seen {
    pub(crate) look: Look,
    pub(crate) data: Bytes,
    /// `None` when there is nothing at all.
    pub(crate) cas: Option<u64>,
    pub(crate) left: Option<u64>,
}

/// What shall be there instead.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    /// A value of that kind, for so long.
    Store(u32, &'a [u8], u32),
    Remove,
}

impl Inner {
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.response_timeout
    }

    /// Whether there is time to try once more.
    pub(crate) fn in_time(&self, deadline: Instant) -> bool {
        Instant::now() < deadline
    }

    /// The largest value that is tried.
    pub(crate) fn max_value(&self) -> u64 {
        let servers = self.servers.iter().map(Server::max_value).min().unwrap_or(0);
        self.max_value_bytes.map_or(servers, |limit| limit.min(servers))
    }

    async fn read(&self, keys: &[&Key], deadline: Instant) -> Vec<Result<Reply, Failure>> {
        self.each(keys, true, deadline, |_, _, name, request| request.get(name, Want::Value)).await
    }

    // A reply as the entry of a key.
    fn entry(&self, key: &Key, reply: Reply) -> Result<Option<Entry>, Failure> {
        let Some(item) = item(reply)? else { return Ok(None) };
        let (base, now) = (self.server(key).present_base(&self.clock), self.clock.now());
        Ok(self.look_then(key, &item, &base, now).entry(now, &base))
    }

    pub(crate) fn look_at(&self, key: &Key, item: &Item) -> Look {
        let base = self.server(key).present_base(&self.clock);
        self.look_then(key, item, &base, self.clock.now())
    }

    fn look_then(&self, key: &Key, item: &Item, base: &TimeBase, now: Moment) -> Look {
        let look = Look::at(item, key, &self.envelope, base, now);
        look.unwrap_or_else(|damage| {
            crate::log::damaged(&self.damages, &self.clock, damage);
            Look::Nothing
        })
    }

    /// Looks at what lies under a key.
    pub(crate) async fn look(&self, key: &Key, deadline: Instant) -> Result<Seen, Failure> {
        let read = |name: &str, request: &mut Request| request.get(name, Want::Whole);
        self.seen(key, self.one(key, true, deadline, read).await?)
    }

    /// A reply to `Want::Whole` as what lies under a key.
    pub(crate) fn seen(&self, key: &Key, reply: Reply) -> Result<Seen, Failure> {
        let Some(item) = item(reply)? else {
            let data = Bytes::new();
            return Ok(Seen { look: Look::Nothing, data, cas: None, left: None });
        };
        let look = self.look_at(key, &item);
        Ok(Seen { look, cas: Some(item.cas), left: item.left, data: item.data })
    }

    /// Changes what was seen, if it is still the same. Not repeated: whoever calls knows whether it may be.
    pub(crate) async fn swap(
        &self,
        key: &Key,
        cas: Option<u64>,
        change: Change<'_>,
        deadline: Instant,
    ) -> Result<bool, Failure> {
        let reply = self.one(key, false, deadline, |name, request| match (change, cas) {
            (Change::Store(kind, data, life), Some(cas)) => {
                request.set(name, kind, data, life, Only::Cas(cas));
            }
            (Change::Store(kind, data, life), None) => {
                request.set(name, kind, data, life, Only::Absent);
            }
            (Change::Remove, Some(cas)) => request.delete(name, Some(cas)),
            // What is not there is read again instead: the answer tells whether that is still so.
            (Change::Remove, None) => request.get(name, Want::Left),
        });
        match (reply.await?, cas, change) {
            (Reply::Missing, None, Change::Remove) => Ok(true),
            (Reply::Item(_), None, Change::Remove) => Ok(false),
            (Reply::Item(_), ..) => Ok(true),
            (Reply::Missing | Reply::NotStored | Reply::Changed, ..) => Ok(false),
            (Reply::Refused(refusal), ..) => Err(refusal.failure()),
        }
    }
}

/// The item of a reply to a read.
pub(crate) fn item(reply: Reply) -> Result<Option<Item>, Failure> {
    match reply {
        Reply::Item(item) => Ok(Some(item)),
        Reply::Missing => Ok(None),
        Reply::Refused(refusal) => Err(refusal.failure()),
        Reply::NotStored | Reply::Changed => Err(Failure::garbled()),
    }
}

impl Refusal {
    /// What callers are told.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Refusal::TooLarge => {
                let words = "the value is larger than the server takes (-I); store less";
                Failure::of(ErrorKind::TooLarge, words)
            }
            Refusal::Full => Failure::of(
                ErrorKind::Unavailable,
                "the server has no memory for it; give it more (-m), or let it evict (no -M)",
            ),
            Refusal::NotNumeric | Refusal::Other => {
                Failure::of(ErrorKind::Other, "the server answered with an error")
            }
        }
    }
}

impl fmt::Debug for MemcachedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedBackend")
            .field("servers", &self.0.servers.len())
            .field("default_ttl", &self.0.default_ttl)
            .field("response_timeout", &self.0.response_timeout)
            .finish_non_exhaustive()
    }
}

// Keys in one request.
pub(crate) const BATCH: usize = 1000;
