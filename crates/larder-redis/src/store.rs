//! The backend: every operation as commands.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::{self, Damage, Envelope, Record, TimeBase};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Damages, Entry, Error, ErrorKind, Found,
    Generation, Key, Marks, Namespace, Outcome, Page, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Times, Token, Ttl, When,
};
use redis::{Cmd, Value, cmd};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::client::Client;
use crate::config::Builder;
use crate::generation::{self, Generations, Names};
use crate::layout::Home;
use crate::reply::{
    array, garbled, int, one, out_of_memory, refusal, sequence, unexpected, wrong_type,
};
use crate::request::{Again, Failure, Replies, Reply, Request};
use crate::sweep::Sweeper;
use crate::{NAME, scripts};

/// Entries on a Redis or Valkey server.
///
/// A clone is a handle of the same connection. When the last one goes, so does the connection.
#[derive(Clone)]
pub struct RedisBackend(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) client: Arc<Client>,
    pub(crate) generations: Generations,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) damages: Damages,
    pub(crate) clock: Clock,
    pub(crate) envelope: Envelope,
    pub(crate) default_ttl: Ttl,
    pub(crate) response_timeout: Duration,
    pub(crate) mark_ttl: Ttl,
    pub(crate) max_value_bytes: u64,
    read_delay: Duration,
}

impl RedisBackend {
    /// Connects to the server of a URL: `redis://user:password@host:6379/0`. [`Builder::url`] tells all of it.
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

    /// Configures one: the server at 127.0.0.1:6379 unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn with(builder: Builder) -> Self {
        let client = Arc::new(Client::new(&builder));
        RedisBackend(Arc::new(Inner {
            generations: Generations::new(
                client.layout(),
                builder.generation_max_age,
                builder.clock.clone(),
            ),
            client,
            sweeper: Arc::default(),
            damages: Damages::default(),
            clock: builder.clock,
            envelope: builder.envelope,
            default_ttl: builder.default_ttl,
            response_timeout: builder.response_timeout,
            mark_ttl: builder.mark_ttl,
            max_value_bytes: builder.max_value_bytes,
            read_delay: builder.replica_lag.unwrap_or_default(),
        }))
    }

    pub(crate) async fn connected(&self) -> Result<()> {
        self.0.client.connected().await
    }
}

impl Backend for RedisBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            // Whether it does is the server's setting, which can change under us.
            evicts: true,
            pages: true,
            shared: true,
            precision: Duration::from_millis(1),
            max_bytes: Some(self.0.max_value_bytes),
            default_ttl: self.0.default_ttl,
            read_delay: self.0.read_delay,
            clear_delay: self.0.generations.max_age(),
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let inner = &*self.0;
        let keys: SmallVec<[&Key; 4]> = std::iter::once(key).chain(counters).collect();
        // Without counters a replica may answer; numbers that say what is valid are the primary's.
        let again = if counters.is_empty() { Again::Read } else { Again::Yes };
        let mut values = inner.values(&keys, again, inner.deadline()).await?.into_iter();
        let entry = inner.entry(key, values.next().unwrap_or_else(|| Err(lost()))?)?;
        let counter = |value| {
            Ok(match value? {
                Value::BulkString(text) => envelope::counter(&text),
                other => refusal(&other).map_or(Ok(None), |refusal| Err(refusal.error()))?,
            })
        };
        Ok(Found { entry, counters: values.map(counter).collect::<Result<_>>()? })
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let inner = &*self.0;
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            let refs: Vec<&Key> = keys.iter().collect();
            let values = inner.values(&refs, Again::Read, inner.deadline()).await?;
            // A node that is down costs its share of the hits, as long as there are others.
            let none = values.iter().all(Result::is_err);
            for (key, value) in keys.iter().zip(values) {
                entries.push(match value {
                    Ok(value) => inner.entry(key, value)?,
                    Err(failure) if none => return Err(failure.into()),
                    Err(_) => None,
                });
            }
        }
        Ok(entries)
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let put = Put { key: key.clone(), entry, ttl, when };
        let mut outcomes = self.0.write(vec![put]).await?;
        outcomes.pop().unwrap_or_else(|| Err(garbled()))
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        self.0.write(items).await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let inner = &*self.0;
        let home = inner.home(key);
        let Some(revision) = only else {
            // One command that also tells what was there: a marker is no entry. The price is that the value comes back.
            let (_, replies) = inner
                .run([home], Again::Yes, inner.deadline(), |names, request| {
                    let mut remove = cmd("GETDEL");
                    remove.arg(names.of(key));
                    request.command(home.slot, remove);
                })
                .await?;
            let reply = one(replies)?;
            if wrong_type(&reply) {
                // Nobody's entry, but it was to be removed.
                return self.remove_many(std::slice::from_ref(key)).await.map(|_| false);
            }
            return Ok(inner.entry(key, reply)?.is_some());
        };
        let revision = revision.to_bytes();
        let arguments = || [b"revision".as_slice(), &revision, b"", b"0"];
        let outcome = inner
            .run([home], Again::No, inner.deadline(), |names, request| {
                request.script(home.slot, &scripts::PUT, &[names.of(key)], arguments());
            })
            .await;
        Ok(int(one(outcome.map_err(Failure::in_doubt)?.1)?)? == 1)
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let inner = &*self.0;
        let mut count = 0;
        for keys in keys.chunks(BATCH) {
            let homes: Vec<Home<'_>> = keys.iter().map(|key| inner.home(key)).collect();
            let (_, replies) = inner
                .run(homes.iter().copied(), Again::Yes, inner.deadline(), |names, request| {
                    for (slot, keys) in together(&homes, keys) {
                        let names: Vec<String> = keys.iter().map(|key| names.of(key)).collect();
                        request.script(slot, &scripts::REMOVE_MANY, &names, []);
                    }
                })
                .await?;
            for reply in replies {
                count += int(reply)?.unsigned_abs();
            }
        }
        Ok(count)
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let inner = &*self.0;
        let (home, deadline) = (inner.home(key), inner.deadline());
        let ttl = ttl.resolve(inner.default_ttl);
        let base = inner.base(home, deadline).await?;
        let times = Times::starting(inner.clock.now(), ttl, None);
        let block = inner.envelope.times(key.as_ref(), &times, &base);
        let lifetime = lifetime(ttl);
        let (_, replies) = inner
            .run([home], Again::Yes, deadline, |names, request| {
                request.script(
                    home.slot,
                    &scripts::TOUCH,
                    &[names.of(key)],
                    [&block[..], lifetime.as_bytes()],
                );
            })
            .await?;
        Ok(int(one(replies)?)? == 1)
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let inner = &*self.0;
        let (first, lifetime) = match create {
            None => (String::new(), String::new()),
            Some(Counter { initial, ttl }) => (
                initial.checked_add(delta).map_or_else(|| "overflow".into(), |sum| sum.to_string()),
                lifetime(ttl.resolve(inner.default_ttl)),
            ),
        };
        let (home, delta) = (inner.home(key), delta.to_string());
        let outcome = inner
            .run([home], Again::No, inner.deadline(), |names, request| {
                let arguments = [delta.as_bytes(), first.as_bytes(), lifetime.as_bytes()];
                request.script(home.slot, &scripts::ADD, &[names.of(key)], arguments);
            })
            .await;
        let (names, replies) = outcome.map_err(Failure::in_doubt)?;
        inner.drop_strays(&names, [key], inner.deadline()).await;
        match one(replies)? {
            Value::Nil => Ok(None),
            Value::BulkString(sum) => envelope::counter(&sum).map(Some).ok_or_else(garbled),
            Value::Int(_) => Err(Error::new(
                ErrorKind::NotAnInteger,
                "the value is no plain integer, or the sum does not fit one; it is unchanged",
            )
            .with_backend(NAME)),
            other => Err(unexpected(&other)),
        }
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let inner = &*self.0;
        let home = inner.home(key);
        let (_, replies) = inner
            .run([home], Again::Yes, inner.deadline(), |names, request| {
                request.script(home.slot, &scripts::REMAINING, &[names.of(key)], []);
            })
            .await?;
        Ok(match int(one(replies)?)? {
            -1 => Remaining::Forever,
            millis => match u64::try_from(millis) {
                Ok(millis) => Remaining::For(Duration::from_millis(millis)),
                Err(_) => Remaining::Absent,
            },
        })
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        let inner = &*self.0;
        let (home, deadline) = (inner.home(key), inner.deadline());
        let base = inner.base(home, deadline).await?;
        let token = Token::random();
        let hold = hold.clamp(SHORTEST, Ttl::MAX);
        let marker = inner.envelope.encode_marker(token, false, inner.clock.now() + hold, &base);
        let hold = lifetime(Some(hold));
        // Bytes that are no record of ours are replaced; somebody may be quicker, and is then looked at in turn.
        for _ in 0..ATTEMPTS {
            let (names, replies) = inner
                .run([home], Again::Yes, deadline, |names, request| {
                    let mut set = cmd("SET");
                    set.arg(names.of(key)).arg(&marker[..]);
                    set.arg("NX").arg("PX").arg(&hold).arg("GET");
                    request.command(home.slot, set);
                })
                .await?;
            let start = match one(replies)? {
                Value::Nil | Value::Okay => return Ok(Begin::Token(token)),
                Value::BulkString(bytes) => {
                    let bytes = Bytes::from(bytes);
                    let start = bytes.slice(..bytes.len().min(scripts::EVIDENCE));
                    match inner.look(key, bytes, &base) {
                        Look::Entry(entry) => return Ok(Begin::Found(entry)),
                        // Planted by a first try whose reply was lost.
                        Look::Fill(planted) if planted == token => return Ok(Begin::Token(token)),
                        Look::Fill(_) => return Ok(Begin::Busy),
                        Look::Pass => return Ok(Begin::Pass),
                        Look::Nothing => start,
                    }
                }
                other if wrong_type(&other) => Bytes::new(),
                other => return Err(unexpected(&other)),
            };
            if inner.replace(key, &names, &start, &marker, &hold, deadline).await? {
                return Ok(Begin::Token(token));
            }
        }
        Ok(Begin::Busy)
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.0.exchange_marker(key, token, Some((false, hold))).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.0.exchange_marker(key, token, pass.map(|pass| (true, pass))).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let inner = &*self.0;
        let replies = inner.sequenced(&scripts::MARKS, namespace, tags).await?;
        let numbers: Vec<Sequence> = array(one(replies)?, 1 + tags.len())?
            .into_iter()
            .map(sequence)
            .collect::<Result<_>>()?;
        Ok(Marks { sequence: numbers[0], tags: numbers[1..].to_vec() })
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let inner = &*self.0;
        sequence(one(inner.sequenced(&scripts::INVALIDATE, namespace, tags).await?)?)
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let inner = &*self.0;
        let (name, layout) = (namespace.as_str(), inner.client.layout());
        let new = Generation::random();
        // Until the outcome is known, nobody here may trust a copy: the future may be dropped after the commands went.
        let known = inner.generations.doubt(name);
        let mut connections = Vec::with_capacity(layout.buckets());
        let mut request = Request::new(Again::Yes);
        for home in layout.homes(name) {
            let (place, slot) = layout.place(name, home.bucket());
            connections.push(inner.client.connection(slot));
            let mut set = cmd("SET");
            set.arg(place).arg(new.to_string()).arg("GET");
            request.command(slot, set);
        }
        let replies = inner.client.exchange_each(&request, inner.deadline()).await;
        // After a repeated command the reply is our own; the copies help out then.
        let mut dead: HashSet<Generation> = known.into_iter().collect();
        let mut failed = None;
        for ((home, connection), reply) in layout.homes(name).zip(connections).zip(replies) {
            match inner.cleared(home, new, connection, reply).await {
                Ok(old) => dead.extend(old),
                Err(error) => failed = Some(error),
            }
        }
        dead.remove(&new);
        for dead in dead {
            inner.sweeper.add(&inner.client, inner.response_timeout, namespace, dead);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.0.page(prefix, from, limit).await
    }
}

impl Inner {
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.response_timeout
    }

    // The server's time where a key lies. Known as soon as there was a connection.
    pub(crate) async fn base(&self, home: Home<'_>, deadline: Instant) -> Result<TimeBase> {
        loop {
            if let Some(base) = self.client.base(home.slot) {
                return Ok(base);
            }
            self.client.reached(home.slot, deadline).await?;
        }
    }

    // What lies under the names of keys: one command for those that lie together.
    async fn values(&self, keys: &[&Key], again: Again, deadline: Instant) -> Result<Replies> {
        let homes: SmallVec<[Home<'_>; 4]> = keys.iter().map(|key| self.home(key)).collect();
        let single = keys.len() == 1;
        let (_, replies) = self
            .run_each(homes.iter().copied(), again, deadline, |names, request| {
                for (slot, keys) in together(&homes, keys) {
                    let mut get = Cmd::with_capacity(1 + keys.len(), 16 + NAME_SIZE * keys.len());
                    get.arg(if single { "GET" } else { "MGET" });
                    for key in keys {
                        get.arg(names.of(key));
                    }
                    request.command(slot, get);
                }
            })
            .await?;
        if single {
            return Ok(replies);
        }
        let mut values = Replies::with_capacity(keys.len());
        for ((_, keys), reply) in together(&homes, keys).zip(replies) {
            match reply.and_then(|reply| array(reply, keys.len()).map_err(Failure::before)) {
                Ok(found) => values.extend(found.into_iter().map(Ok)),
                Err(failure) => values.extend(keys.iter().map(|_| Err(failure.clone()))),
            }
        }
        Ok(values)
    }

    // Takes the reply to a new generation: what was there before.
    async fn cleared(
        &self,
        home: Home<'_>,
        new: Generation,
        connection: u64,
        reply: Reply,
    ) -> Result<Option<Generation>> {
        let mut reply = reply?;
        let full = out_of_memory(&reply);
        if full {
            // A full server still removes; a lost generation comes back as a new one, and sweeping makes room.
            let (place, slot) = self.client.layout().place(home.namespace, home.bucket());
            let mut request = Request::new(Again::Yes);
            let mut remove = cmd("GETDEL");
            remove.arg(place);
            request.command(slot, remove);
            reply = one(self.client.exchange(&request, self.deadline()).await?)?;
        }
        if let Some(refusal) = refusal(&reply) {
            return Err(refusal.error());
        }
        match full {
            true => self.generations.forget(home.namespace, home.bucket()),
            false => self.generations.set(home.namespace, home.bucket(), new, connection),
        }
        Ok(generation::read(&reply))
    }

    // A reply as the entry of a key. A string of another kind, another type and damage are no entry.
    pub(crate) fn entry(&self, key: &Key, reply: Value) -> Result<Option<Entry>> {
        let bytes = match reply {
            Value::Nil => return Ok(None),
            Value::BulkString(bytes) => bytes,
            other if wrong_type(&other) => {
                crate::log::damaged(&self.damages, &self.clock, Damage::Foreign);
                return Ok(None);
            }
            other => return Err(unexpected(&other)),
        };
        // There was a connection, so there is a base.
        let base = self.client.base(self.client.layout().slot_of(key)).ok_or_else(garbled)?;
        Ok(match self.look(key, bytes.into(), &base) {
            Look::Entry(entry) => Some(entry),
            _ => None,
        })
    }

    pub(crate) fn look(&self, key: &Key, bytes: Bytes, base: &TimeBase) -> Look {
        if let Some(number) = envelope::counter(&bytes) {
            // Its end is known to the server only; whoever needs it asks `remaining`.
            return Look::Entry(Entry::integer(number).with_revision(Revision::NONE));
        }
        match self.envelope.decode(bytes, key.as_ref(), base) {
            Ok(Record::Entry(entry)) => {
                let expired = entry.times().is_none_or(|times| times.expired(self.clock.now()));
                if expired { Look::Nothing } else { Look::Entry(entry) }
            }
            Ok(Record::Fill(token)) => Look::Fill(token),
            Ok(Record::Pass(_)) => Look::Pass,
            Err(damage) => {
                crate::log::damaged(&self.damages, &self.clock, damage);
                Look::Nothing
            }
        }
    }

    // Stores a value where there was something that is no record of ours, if it is still the same.
    pub(crate) async fn replace(
        &self,
        key: &Key,
        names: &Names,
        start: &[u8],
        value: &[u8],
        lifetime: &str,
        deadline: Instant,
    ) -> Result<bool> {
        let mut request = Request::new(Again::No);
        let (slot, arguments) = (names.slot(key), [start, value, lifetime.as_bytes()]);
        request.script(slot, &scripts::REPLACE, &[names.of(key)], arguments);
        let replies = self.client.exchange(&request, deadline).await.map_err(Failure::in_doubt)?;
        Ok(int(one(replies)?)? == 1)
    }

    // Puts another marker, or none, in the place of the fill marker with that token.
    async fn exchange_marker(
        &self,
        key: &Key,
        token: Token,
        marker: Option<(bool, Duration)>,
    ) -> Result<bool> {
        let (home, deadline) = (self.home(key), self.deadline());
        let base = self.base(home, deadline).await?;
        let now = self.clock.now();
        let old = self.marker_start(token, &base);
        let (new, lifetime) = match marker {
            Some((pass, life)) if !life.is_zero() => {
                let life = life.min(Ttl::MAX);
                let marker = self.envelope.encode_marker(token, pass, now + life, &base);
                (marker, lifetime(Some(life)))
            }
            _ => (Bytes::new(), "0".into()),
        };
        let exchange = async |again| -> Result<bool, Failure> {
            let run = self.run([home], again, deadline, |names, request| {
                let arguments = [b"marker".as_slice(), &old, &new, lifetime.as_bytes()];
                request.script(home.slot, &scripts::PUT, &[names.of(key)], arguments);
            });
            let (_, replies) = run.await?;
            one(replies).and_then(int).map(|done| done == 1).map_err(Failure::before)
        };
        if marker.is_some_and(|(pass, life)| !pass && !life.is_zero()) {
            return Ok(exchange(Again::Yes).await?);
        }
        match exchange(Again::No).await {
            // Once more, for those who wait for the marker's end; that it is gone then does not tell who took it away.
            Err(failure) if failure.sent && !failure.late => match exchange(Again::No).await {
                Ok(true) => Ok(true),
                _ => Err(failure.in_doubt()),
            },
            released => Ok(released?),
        }
    }

    // By what a fill marker is known: everything but its end.
    pub(crate) fn marker_start(&self, token: Token, base: &TimeBase) -> Bytes {
        self.envelope.encode_marker(token, false, self.clock.now(), base).slice(..TOKEN_END)
    }

    async fn sequenced(
        &self,
        script: &'static scripts::Script,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> Result<Vec<Value>> {
        let keys: Vec<Key> = std::iter::once(Key::sequence(namespace))
            .chain(tags.iter().map(|tag| Key::tag(namespace, tag)))
            .collect();
        let start = Sequence::start().get().to_string();
        let life = lifetime(self.mark_ttl.resolve(Ttl::STANDARD));
        let home = self.client.layout().home_of(namespace);
        let outcome = self
            .run([home], Again::Yes, self.deadline(), |names, request| {
                let names: Vec<String> = keys.iter().map(|key| names.of(key)).collect();
                request.script(home.slot, script, &names, [start.as_bytes(), life.as_bytes()]);
            })
            .await;
        Ok(outcome?.1)
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("default_ttl", &self.0.default_ttl)
            .field("response_timeout", &self.0.response_timeout)
            .finish_non_exhaustive()
    }
}

// What lies under a name.
pub(crate) enum Look {
    Entry(Entry),
    Fill(Token),
    Pass,
    // Expired, damaged or foreign.
    Nothing,
}

// Milliseconds, rounded up, for ever as nothing and zero as `0`.
pub(crate) fn lifetime(ttl: Option<Duration>) -> String {
    ttl.map(|ttl| ttl.as_nanos().div_ceil(1_000_000).to_string()).unwrap_or_default()
}

// Keys that follow each other and lie in one slot, and that slot: what one command can name. On one server, all of them.
fn together<'a, K>(
    homes: &'a [Home<'_>],
    keys: &'a [K],
) -> impl Iterator<Item = (u16, &'a [K])> + use<'a, K> {
    let mut rest = keys;
    homes.chunk_by(|one, other| one.slot == other.slot).map(move |homes| {
        let (keys, others) = rest.split_at(homes.len());
        rest = others;
        (homes[0].slot, keys)
    })
}

fn lost() -> Failure {
    Failure::before(garbled())
}

// What names are shorter than: room to make in a command.
pub(crate) const NAME_SIZE: usize = 200;

// Keys, or names, in one command.
pub(crate) const BATCH: usize = 1000;

pub(crate) const ATTEMPTS: usize = 4;

const SHORTEST: Duration = Duration::from_millis(1);

// A marker is known by its start: magic, kind and token.
const TOKEN_END: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_whole_milliseconds_rounded_up() {
        assert_eq!(lifetime(None), "");
        assert_eq!(lifetime(Some(Duration::ZERO)), "0");
        assert_eq!(lifetime(Some(Duration::from_nanos(1))), "1");
        assert_eq!(lifetime(Some(Duration::from_micros(1001))), "2");
        assert_eq!(lifetime(Some(Ttl::MAX)), "3153600000000");
    }

    #[test]
    fn everything_may_be_sent_between_threads() {
        fn send<T: Send>(_: &T) {}
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<RedisBackend>();
        let backend = RedisBackend::builder().connect_later().unwrap();
        let key = Key::new(&Namespace::new("shop").unwrap(), ["k"]).unwrap();
        send(&backend.get(&key, &[]));
        send(&backend.put_many(Vec::new()));
        send(&RedisBackend::connect("redis://localhost"));
    }
}
