//! The backend: every operation as commands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::{self, Damage, Envelope, KeyOf, Record, TimeBase};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Generation,
    Key, Marks, Namespace, Outcome, Page, Prefix, Put, Remaining, Result, Revision, Sequence, Tag,
    Times, Token, Ttl, When,
};
use redis::{Value, cmd};
use tokio::time::Instant;

use crate::client::{self, Again, Client, Failure, Request};
use crate::config::Builder;
use crate::generation::{self, Generations, Names, Verdict};
use crate::log::Damages;
use crate::sweep::{self, Sweeper};
use crate::{NAME, scripts};

/// Entries on a Redis or Valkey server.
///
/// A clone is a handle of the same connection. When the last one goes, so does the connection.
#[derive(Clone)]
pub struct RedisBackend(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    generations: Generations,
    sweeper: Arc<Sweeper>,
    damages: Damages,
    clock: Clock,
    envelope: Envelope,
    default_ttl: Ttl,
    response_timeout: Duration,
    mark_ttl: Ttl,
    max_value_bytes: u64,
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
        RedisBackend(Arc::new(Inner {
            client: Arc::new(Client::new(&builder)),
            generations: Generations::new(builder.generation_max_age, builder.clock.clone()),
            sweeper: Arc::default(),
            damages: Damages::default(),
            clock: builder.clock,
            envelope: builder.envelope,
            default_ttl: builder.default_ttl,
            response_timeout: builder.response_timeout,
            mark_ttl: builder.mark_ttl,
            max_value_bytes: builder.max_value_bytes,
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
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let inner = &*self.0;
        let namespaces = std::iter::once(key).chain(counters).map(Key::namespace);
        let (_, replies) = inner
            .run(namespaces, Again::Yes, inner.deadline(), |names, request| {
                let mut get = cmd(if counters.is_empty() { "GET" } else { "MGET" });
                get.arg(names.of(key));
                for counter in counters {
                    get.arg(names.of(counter));
                }
                request.command(get);
            })
            .await?;
        let reply = one(replies)?;
        if counters.is_empty() {
            return Ok(Found { entry: inner.entry(key, reply)?, counters: Vec::new() });
        }
        let mut values = array(reply, 1 + counters.len())?.into_iter();
        let entry = inner.entry(key, values.next().unwrap_or(Value::Nil))?;
        let counter = |value| match value {
            Value::BulkString(text) => envelope::counter(&text),
            _ => None,
        };
        Ok(Found { entry, counters: values.map(counter).collect() })
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let inner = &*self.0;
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            let (_, replies) = inner
                .run(
                    keys.iter().map(Key::namespace),
                    Again::Yes,
                    inner.deadline(),
                    |names, request| {
                        let mut get = cmd("MGET");
                        for key in keys {
                            get.arg(names.of(key));
                        }
                        request.command(get);
                    },
                )
                .await?;
            for (key, value) in keys.iter().zip(array(one(replies)?, keys.len())?) {
                entries.push(inner.entry(key, value)?);
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
        let namespace = [key.namespace()];
        let Some(revision) = only else {
            // One command that also tells what was there: a marker is no entry. The price is that the value comes back.
            let (_, replies) = inner
                .run(namespace, Again::Yes, inner.deadline(), |names, request| {
                    let mut remove = cmd("GETDEL");
                    remove.arg(names.of(key));
                    request.command(remove);
                })
                .await?;
            let reply = one(replies)?;
            if client::wrong_type(&reply) {
                // Nobody's entry, but it was to be removed.
                return self.remove_many(std::slice::from_ref(key)).await.map(|_| false);
            }
            return Ok(inner.entry(key, reply)?.is_some());
        };
        let revision = revision.to_bytes();
        let arguments = || [b"revision".as_slice(), &revision, b"", b"0"];
        let outcome = inner
            .run(namespace, Again::No, inner.deadline(), |names, request| {
                request.script(&scripts::PUT, &[names.of(key)], arguments());
            })
            .await;
        Ok(int(one(outcome.map_err(Failure::in_doubt)?.1)?)? == 1)
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let inner = &*self.0;
        let mut count = 0;
        for keys in keys.chunks(BATCH) {
            let (_, replies) = inner
                .run(
                    keys.iter().map(Key::namespace),
                    Again::Yes,
                    inner.deadline(),
                    |names, request| {
                        let names: Vec<String> = keys.iter().map(|key| names.of(key)).collect();
                        request.script(&scripts::REMOVE_MANY, &names, []);
                    },
                )
                .await?;
            count += int(one(replies)?)?.unsigned_abs();
        }
        Ok(count)
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let inner = &*self.0;
        let deadline = inner.deadline();
        let ttl = ttl.resolve(inner.default_ttl);
        let base = inner.base(deadline).await?;
        let times = Times::starting(inner.clock.now(), ttl, None);
        let block = inner.envelope.times(key.as_ref(), &times, &base);
        let lifetime = lifetime(ttl);
        let (_, replies) = inner
            .run([key.namespace()], Again::Yes, deadline, |names, request| {
                request.script(
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
        let delta = delta.to_string();
        let outcome = inner
            .run([key.namespace()], Again::No, inner.deadline(), |names, request| {
                let arguments = [delta.as_bytes(), first.as_bytes(), lifetime.as_bytes()];
                request.script(&scripts::ADD, &[names.of(key)], arguments);
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
        let (_, replies) = inner
            .run([key.namespace()], Again::Yes, inner.deadline(), |names, request| {
                request.script(&scripts::REMAINING, &[names.of(key)], []);
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
        let deadline = inner.deadline();
        let base = inner.base(deadline).await?;
        let token = Token::random();
        let hold = hold.clamp(SHORTEST, Ttl::MAX);
        let marker = inner.envelope.encode_marker(token, false, inner.clock.now() + hold, &base);
        let hold = lifetime(Some(hold));
        // Bytes that are no record of ours are replaced; somebody may be quicker, and is then looked at in turn.
        for _ in 0..ATTEMPTS {
            let (names, replies) = inner
                .run([key.namespace()], Again::Yes, deadline, |names, request| {
                    let mut set = cmd("SET");
                    set.arg(names.of(key)).arg(&marker[..]);
                    set.arg("NX").arg("PX").arg(&hold).arg("GET");
                    request.command(set);
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
                other if client::wrong_type(&other) => Bytes::new(),
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
        let name = namespace.as_str();
        let new = Generation::random();
        // Until the outcome is known, nobody here may trust the copy: the future may be dropped after the command went.
        let known = inner.generations.doubt(name);
        let connection = inner.client.connections();
        let mut request = Request::new(Again::Yes);
        let mut set = cmd("SET");
        set.arg(generation::place(name)).arg(new.to_string()).arg("GET");
        request.command(set);
        let mut reply = one(inner.client.exchange(&request, inner.deadline()).await?)?;
        let full = client::out_of_memory(&reply);
        if full {
            // A full server still removes; a lost generation comes back as a new one, and sweeping makes room.
            let mut request = Request::new(Again::Yes);
            let mut remove = cmd("GETDEL");
            remove.arg(generation::place(name));
            request.command(remove);
            reply = one(inner.client.exchange(&request, inner.deadline()).await?)?;
        }
        if let Some(refusal) = client::refusal(&reply) {
            return Err(refusal.error());
        }
        match full {
            true => inner.generations.forget(name),
            false => inner.generations.set(name, new, connection),
        }
        // After a repeated command the reply is our own; the copy helps out then.
        for dead in [known, generation::read(&reply)].into_iter().flatten() {
            if dead != new {
                inner.sweeper.add(&inner.client, inner.response_timeout, namespace, dead);
            }
        }
        Ok(())
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        let inner = &*self.0;
        let started = Instant::now();
        let mut cursor = match from {
            None => b"0".to_vec(),
            Some(Cursor(bytes)) if bytes.iter().all(u8::is_ascii_digit) && !bytes.is_empty() => {
                bytes
            }
            Some(_) => {
                let words = "the cursor was made by another backend; begin the paging anew";
                return Err(Error::new(ErrorKind::Other, words).with_backend(NAME));
            }
        };
        let count = limit.clamp(FEWEST_SCANNED, BATCH).to_string();
        let mut keys = Vec::new();
        // A sparse prefix on a large server: look on, but not for long.
        loop {
            let (names, replies) = inner
                .run(
                    [prefix.namespace().as_str()],
                    Again::Yes,
                    inner.deadline(),
                    |names, request| {
                        let start =
                            prefix.wire_start(names.generation(prefix.namespace().as_str()));
                        let mut scan = cmd("SCAN");
                        scan.arg(&cursor[..]).arg("MATCH").arg(format!("{}*", escaped(&start)));
                        scan.arg("COUNT").arg(&count);
                        request.command(scan);
                    },
                )
                .await?;
            let reply = one(replies)?;
            if let Some(refusal) = client::refusal(&reply) {
                return Err(refusal.error());
            }
            let (next, found) = sweep::scanned(reply).ok_or_else(garbled)?;
            let generation = names.generation(prefix.namespace().as_str());
            keys.extend(inner.keys_under(prefix, generation, found).await?);
            cursor = next;
            if cursor == b"0" {
                return Ok(Page { keys, next: None });
            }
            if keys.len() >= limit || started.elapsed() >= inner.response_timeout / 2 {
                return Ok(Page { keys, next: Some(Cursor(cursor)) });
            }
        }
    }
}

impl Inner {
    fn deadline(&self) -> Instant {
        Instant::now() + self.response_timeout
    }

    // The server's time. Known as soon as there was a connection.
    async fn base(&self, deadline: Instant) -> Result<TimeBase> {
        loop {
            if let Some(base) = self.client.time().base() {
                return Ok(base);
            }
            self.client.reached(deadline).await?;
        }
    }

    // Makes a request under the names of these namespaces, again if they turn out to have changed meanwhile. Replies
    // are those to what `build` added.
    async fn run<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a str>,
        again: Again,
        deadline: Instant,
        build: impl Fn(&Names, &mut Request),
    ) -> Result<(Names, Vec<Value>), Failure> {
        let namespaces: Vec<&str> = namespaces.into_iter().collect();
        let mut earlier = Vec::new();
        for _ in 0..ATTEMPTS {
            let names = self.names(&namespaces, deadline).await?.after(earlier);
            let mut request = Request::new(again);
            for ask in names.asks() {
                request.harmless(ask);
            }
            build(&names, &mut request);
            let mut answers = self.client.exchange(&request, deadline).await?;
            let replies = answers.split_off(names.questions().min(answers.len()));
            if let Some(refusal) = answers.iter().find_map(client::refusal) {
                return Err(Failure::before(refusal.error()));
            }
            let answers: Vec<Option<Generation>> = answers.iter().map(generation::read).collect();
            if self.generations.learn(&names, &answers) == Verdict::Right {
                return Ok((names, replies));
            }
            // What was done under the old names is out of everybody's reach.
            earlier = names.into_earlier();
        }
        let words = "the namespace is being cleared again and again; try later";
        Err(Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(NAME)))
    }

    // The generations of these namespaces, made if the server has none.
    async fn names(&self, namespaces: &[&str], deadline: Instant) -> Result<Names, Failure> {
        for _ in 0..ATTEMPTS {
            // Read first: if a newer connection carries the request, the copy is asked for once more than needed.
            let connection = self.client.connections();
            let names = self.generations.names(namespaces.iter().copied(), connection);
            if names.known() {
                return Ok(names);
            }
            let mut request = Request::new(Again::Yes);
            let makes = names.makes();
            for (make, _) in &makes {
                request.command(make.clone());
            }
            // Whatever becomes of this, the caller's own request was not sent.
            let replies = self.client.exchange(&request, deadline).await;
            let replies = replies.map_err(|failure| Failure::before(failure.error))?;
            let mut answers = Vec::with_capacity(makes.len());
            for (((_, made), reply), namespace) in makes.iter().zip(&replies).zip(names.asked()) {
                answers.push(match reply {
                    Value::Nil | Value::Okay => Some(*made),
                    Value::BulkString(_) => match generation::read(reply) {
                        Some(generation) => Some(generation),
                        None => Some(self.overwrite_generation(namespace, deadline).await?),
                    },
                    // A full server refuses the command even where it would write nothing.
                    full if client::out_of_memory(full) => {
                        let answer = self.plain_generation(namespace, deadline).await?;
                        let refused = client::refusal(full).map(|refusal| refusal.error());
                        Some(answer.ok_or_else(|| Failure::before(refused.unwrap_or_else(garbled)))?)
                    }
                    other if client::wrong_type(other) => {
                        Some(self.overwrite_generation(namespace, deadline).await?)
                    }
                    Value::ServerError(error) if error.code() == "ERR" => {
                        let words = "the server does not know SET … NX GET: Larder needs Redis 7 or later, or Valkey";
                        let error = Error::new(ErrorKind::Configuration, words).with_backend(NAME);
                        return Err(Failure::before(error));
                    }
                    other => return Err(Failure::before(unexpected(other))),
                });
            }
            self.generations.learn(&names, &answers);
        }
        let words =
            "the namespace's generation is lost again and again; does somebody flush the server?";
        Err(Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(NAME)))
    }

    // Something that is no generation lies in its place. Of two nodes that do this at once, the later one wins, and the
    // other one learns it when it asks again.
    async fn overwrite_generation(
        &self,
        namespace: &str,
        deadline: Instant,
    ) -> Result<Generation, Failure> {
        let generation = Generation::random();
        let mut request = Request::new(Again::Yes);
        let mut set = cmd("SET");
        set.arg(generation::place(namespace)).arg(generation.to_string());
        request.command(set);
        match one(self.client.exchange(&request, deadline).await?).map_err(Failure::before)? {
            Value::Okay => Ok(generation),
            other => Err(Failure::before(unexpected(&other))),
        }
    }

    async fn plain_generation(
        &self,
        namespace: &str,
        deadline: Instant,
    ) -> Result<Option<Generation>, Failure> {
        let mut request = Request::new(Again::Yes);
        let mut get = cmd("GET");
        get.arg(generation::place(namespace));
        request.command(get);
        let reply =
            one(self.client.exchange(&request, deadline).await?).map_err(Failure::before)?;
        Ok(generation::read(&reply))
    }

    // A reply as the entry of a key. A string of another kind, another type and damage are no entry.
    fn entry(&self, key: &Key, reply: Value) -> Result<Option<Entry>> {
        let bytes = match reply {
            Value::Nil => return Ok(None),
            Value::BulkString(bytes) => bytes,
            other if client::wrong_type(&other) => {
                self.damages.seen(&self.clock, Damage::Foreign);
                return Ok(None);
            }
            other => return Err(unexpected(&other)),
        };
        // There was a connection, so there is a base.
        let base = self.client.time().base().ok_or_else(garbled)?;
        Ok(match self.look(key, bytes.into(), &base) {
            Look::Entry(entry) => Some(entry),
            _ => None,
        })
    }

    fn look(&self, key: &Key, bytes: Bytes, base: &TimeBase) -> Look {
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
                self.damages.seen(&self.clock, damage);
                Look::Nothing
            }
        }
    }

    // Stores a value where there was something that is no record of ours, if it is still the same.
    async fn replace(
        &self,
        key: &Key,
        names: &Names,
        start: &[u8],
        value: &[u8],
        lifetime: &str,
        deadline: Instant,
    ) -> Result<bool> {
        let mut request = Request::new(Again::No);
        request.script(&scripts::REPLACE, &[names.of(key)], [start, value, lifetime.as_bytes()]);
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
        let deadline = self.deadline();
        let base = self.base(deadline).await?;
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
        let (_, replies) = self
            .run([key.namespace()], Again::Yes, deadline, |names, request| {
                let arguments = [b"marker".as_slice(), &old, &new, lifetime.as_bytes()];
                request.script(&scripts::PUT, &[names.of(key)], arguments);
            })
            .await?;
        Ok(int(one(replies)?)? == 1)
    }

    // By what a fill marker is known: everything but its end.
    fn marker_start(&self, token: Token, base: &TimeBase) -> Bytes {
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
        let outcome = self
            .run([namespace.as_str()], Again::Yes, self.deadline(), |names, request| {
                let names: Vec<String> = keys.iter().map(|key| names.of(key)).collect();
                request.script(script, &names, [start.as_bytes(), life.as_bytes()]);
            })
            .await;
        Ok(outcome?.1)
    }

    async fn write(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let deadline = self.deadline();
            let base = self.base(deadline).await?;
            let mut bytes = 0;
            let mut writes = Vec::new();
            while bytes < BATCH_BYTES && writes.len() < BATCH {
                let Some(item) = items.next() else { break };
                let write = self.write_of(item, &base);
                bytes += write.value.len();
                writes.push(write);
            }
            outcomes.extend(self.write_batch(&writes, deadline, &base).await?);
        }
        Ok(outcomes)
    }

    fn write_of(&self, item: Put, base: &TimeBase) -> Write {
        let Put { key, entry, ttl, when } = item;
        let ttl = ttl.resolve(self.default_ttl);
        let compared = match when {
            When::Always | When::Absent | When::Present => Bytes::new(),
            When::Revision(revision) => Bytes::copy_from_slice(&revision.to_bytes()),
            When::Token(token) => self.marker_start(token, base),
        };
        let mut write = Write {
            compared,
            revision: entry.revision(),
            value: Bytes::new(),
            lifetime: lifetime(ttl),
            failed: None,
            key,
            when,
        };
        if write.removes() {
            return write;
        }
        let times = Times::starting(self.clock.now(), ttl, entry.freshness());
        let value = match envelope::plain_counter(&entry) {
            Some(text) => {
                write.revision = Revision::NONE;
                Ok(text)
            }
            None => self.envelope.encode(write.key.as_ref(), &entry.with_times(times), base),
        };
        match value {
            Ok(value) if value.len() as u64 <= self.max_value_bytes => write.value = value,
            Ok(_) => {
                let words = "the value is larger than max_value_bytes; raise it or store less";
                write.fail(Error::new(ErrorKind::TooLarge, words).with_backend(NAME));
            }
            Err(error) => write.fail(error),
        }
        write
    }

    async fn write_batch(
        &self,
        writes: &[Write],
        deadline: Instant,
        base: &TimeBase,
    ) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes: Vec<Option<Result<Outcome>>> = writes.iter().map(Write::early).collect();
        let sent: Vec<usize> =
            (0..writes.len()).filter(|index| outcomes[*index].is_none()).collect();
        if !sent.is_empty() {
            let namespaces = sent.iter().map(|index| writes[*index].key.namespace());
            let done = self
                .run(namespaces, Again::No, deadline, |names, request| {
                    for index in &sent {
                        writes[*index].add_to(request, names);
                    }
                })
                .await;
            let (names, replies) = match done {
                Ok(done) => done,
                Err(failure) if failure.sent => {
                    let lost: Vec<&Write> = sent.iter().map(|index| &writes[*index]).collect();
                    let outcomes_of_lost = self.learn(&lost, failure).await?;
                    for (index, outcome) in sent.iter().zip(outcomes_of_lost) {
                        outcomes[*index] = Some(outcome);
                    }
                    return Ok(outcomes.into_iter().flatten().collect());
                }
                Err(failure) => return Err(failure.error),
            };
            self.drop_strays(&names, sent.iter().map(|index| &writes[*index].key), deadline).await;
            for (index, reply) in sent.iter().zip(replies) {
                let outcome = self.settle(&writes[*index], reply, &names, base, deadline).await;
                outcomes[*index] = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(garbled()))).collect())
    }

    // The outcome of one write from its reply.
    async fn settle(
        &self,
        write: &Write,
        reply: Value,
        names: &Names,
        base: &TimeBase,
        deadline: Instant,
    ) -> Result<Outcome> {
        let outcome = match reply {
            Value::Okay | Value::Int(1) => Outcome::Stored,
            // `UNLINK` counts, scripts say 0 for "the condition does not hold".
            Value::Int(_) if write.when == When::Always => Outcome::Stored,
            Value::Int(0) => Outcome::Refused,
            Value::BulkString(start) => {
                let start = Bytes::from(start);
                if self.is_record(&write.key, &start, base) {
                    return Ok(Outcome::Refused);
                }
                let (value, life) = (&write.value, &write.lifetime);
                match self.replace(&write.key, names, &start, value, life, deadline).await? {
                    true => Outcome::Stored,
                    // Somebody else was quicker.
                    false => Outcome::Refused,
                }
            }
            full if client::out_of_memory(&full) => {
                self.drop_old(write, names, deadline).await;
                return Err(unexpected(&full));
            }
            other => return Err(unexpected(&other)),
        };
        match (&write.failed, outcome) {
            (Some(failed), Outcome::Stored) => Err(copy(failed)),
            (_, outcome) => Ok(outcome),
        }
    }

    // Whether bytes, perhaps only the first ones, are an entry of a key. Damage is absent.
    fn is_record(&self, key: &Key, start: &Bytes, base: &TimeBase) -> bool {
        if start.len() < scripts::EVIDENCE {
            return matches!(self.look(key, start.clone(), base), Look::Entry(_));
        }
        match envelope::key_of(start) {
            Ok(KeyOf::Whole(found)) => found == *key,
            Ok(KeyOf::Needs(_)) => true,
            Err(_) => false,
        }
    }

    // The server had no room for the new value: the old one must not outlive it. Best effort, since it is the caller
    // who learns that the write failed.
    async fn drop_old(&self, write: &Write, names: &Names, deadline: Instant) {
        let mut request = Request::new(Again::Yes);
        let removal = Write {
            key: write.key.clone(),
            when: write.when,
            compared: write.compared.clone(),
            value: Bytes::new(),
            lifetime: "0".into(),
            revision: write.revision,
            failed: None,
        };
        removal.add_to(&mut request, names);
        let _ = self.client.exchange(&request, deadline).await;
    }

    // What was stored under names of the past while the namespace was cleared would stay if it has no lifetime.
    async fn drop_strays<'a>(
        &self,
        names: &Names,
        keys: impl IntoIterator<Item = &'a Key>,
        deadline: Instant,
    ) {
        let strays: Vec<String> = keys.into_iter().flat_map(|key| names.earlier_of(key)).collect();
        if strays.is_empty() {
            return;
        }
        let mut unlink = cmd("UNLINK");
        for stray in strays {
            unlink.arg(stray);
        }
        let mut request = Request::new(Again::Yes);
        request.command(unlink);
        let _ = self.client.exchange(&request, deadline).await;
    }

    // What became of writes whose replies were lost: a revision of ours on the server tells that it was stored.
    async fn learn(&self, lost: &[&Write], failure: Failure) -> Result<Vec<Result<Outcome>>> {
        let conditional = lost.iter().any(|write| write.when != When::Always);
        if failure.late && !conditional {
            return Err(failure.error);
        }
        let found = self
            .run(
                lost.iter().map(|write| write.key.namespace()),
                Again::Yes,
                self.deadline(),
                |names, request| {
                    for write in lost {
                        let mut get = cmd("GETRANGE");
                        get.arg(names.of(&write.key)).arg(0).arg(63);
                        request.command(get);
                    }
                },
            )
            .await;
        let mut found = found.map(|(_, replies)| replies).unwrap_or_default();
        found.resize(lost.len(), Value::Nil);
        let outcome = |(write, value): (&&Write, &Value)| {
            let revision = match value {
                Value::BulkString(start) if start.starts_with(envelope::MAGIC) => start.get(48..64),
                _ => None,
            };
            let mine = !write.removes() && write.revision != Revision::NONE;
            if mine && revision == Some(&write.revision.to_bytes()) {
                return Ok(Outcome::Stored);
            }
            if write.when == When::Always {
                return Err(copy(&failure.error));
            }
            Err(ambiguous())
        };
        Ok(lost.iter().zip(&found).map(outcome).collect())
    }

    // The keys that records under these names repeat, as far as they are the prefix's and lie where they belong.
    async fn keys_under(
        &self,
        prefix: &Prefix,
        generation: Generation,
        names: Vec<Vec<u8>>,
    ) -> Result<Vec<Key>> {
        let mut keys = Vec::with_capacity(names.len());
        let mut open: Vec<(Vec<u8>, usize)> =
            names.into_iter().map(|name| (name, KEY_GUESS)).collect();
        // A second round for keys that are longer than most.
        for _ in 0..3 {
            if open.is_empty() {
                break;
            }
            let mut request = Request::new(Again::Yes);
            for (name, bytes) in &open {
                let mut get = cmd("GETRANGE");
                get.arg(&name[..]).arg(0).arg(bytes - 1);
                request.command(get);
            }
            let replies = self.client.exchange(&request, self.deadline()).await?;
            let mut longer = Vec::new();
            for ((name, _), reply) in open.into_iter().zip(replies) {
                let start = match reply {
                    Value::BulkString(start) => start,
                    Value::Nil => continue,
                    other if client::wrong_type(&other) => continue,
                    other => return Err(unexpected(&other)),
                };
                match envelope::key_of(&start) {
                    Ok(KeyOf::Whole(key)) => {
                        let here = key.as_ref().wire_name(generation).as_bytes() == name;
                        if here && prefix.matches(key.as_ref()) {
                            keys.push(key);
                        }
                    }
                    Ok(KeyOf::Needs(bytes)) if bytes > start.len() => longer.push((name, bytes)),
                    _ => {}
                }
            }
            open = longer;
        }
        Ok(keys)
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
enum Look {
    Entry(Entry),
    Fill(Token),
    Pass,
    // Expired, damaged or foreign.
    Nothing,
}

// One put, ready to be sent.
struct Write {
    key: Key,
    when: When,
    // What the condition compares with what is there.
    compared: Bytes,
    value: Bytes,
    // For the commands and scripts: milliseconds, nothing for ever, `0` to remove.
    lifetime: String,
    // `NONE` when it cannot be recognised by it.
    revision: Revision,
    // What the caller is told when the write, which is a removal then, took place.
    failed: Option<Error>,
}

impl Write {
    fn removes(&self) -> bool {
        self.lifetime == "0"
    }

    // A value that is too large removes what was there; one that cannot be encoded changes nothing.
    fn fail(&mut self, error: Error) {
        if error.kind() == ErrorKind::TooLarge {
            self.lifetime = "0".into();
        }
        self.failed = Some(error);
    }

    fn early(&self) -> Option<Result<Outcome>> {
        let failed = self.failed.as_ref().filter(|_| !self.removes())?;
        Some(Err(copy(failed)))
    }

    fn add_to(&self, request: &mut Request, names: &Names) {
        let name = names.of(&self.key);
        let condition = match self.when {
            When::Always => {
                let mut command = cmd(if self.removes() { "UNLINK" } else { "SET" });
                command.arg(name);
                if !self.removes() {
                    command.arg(&self.value[..]);
                    if !self.lifetime.is_empty() {
                        command.arg("PX").arg(&self.lifetime);
                    }
                }
                return request.command(command);
            }
            When::Absent => "absent",
            When::Present => "present",
            When::Revision(_) => "revision",
            When::Token(_) => "marker",
        };
        let with = &self.compared[..];
        let arguments = [condition.as_bytes(), with, &self.value, self.lifetime.as_bytes()];
        request.script(&scripts::PUT, &[name], arguments);
    }
}

impl Failure {
    fn before(error: Error) -> Self {
        Failure { error, sent: false, late: false }
    }

    // For what cannot be asked again: it was sent, and nobody knows.
    fn in_doubt(self) -> Error {
        if self.sent { ambiguous() } else { self.error }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

fn copy(error: &Error) -> Error {
    let text = error.to_string();
    let words = text.strip_prefix(NAME).and_then(|text| text.strip_prefix(": ")).unwrap_or(&text);
    Error::new(error.kind(), words).with_backend(NAME)
}

fn ambiguous() -> Error {
    let words =
        "the server did not tell whether it carried out the change; read to see what is there";
    Error::new(ErrorKind::Ambiguous, words).with_backend(NAME)
}

fn garbled() -> Error {
    let words = "the server's answer is none to what was asked";
    Error::new(ErrorKind::Unavailable, words).with_backend(NAME)
}

fn unexpected(value: &Value) -> Error {
    client::refusal(value).map_or_else(garbled, |refusal| refusal.error())
}

fn one(replies: Vec<Value>) -> Result<Value> {
    replies.into_iter().next().ok_or_else(garbled)
}

fn int(value: Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

fn array(value: Value, length: usize) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) if values.len() == length => Ok(values),
        other => Err(unexpected(&other)),
    }
}

fn sequence(value: Value) -> Result<Sequence> {
    match value {
        Value::BulkString(text) => {
            envelope::counter(&text).and_then(Sequence::from_i64).ok_or_else(garbled)
        }
        other => Err(unexpected(&other)),
    }
}

// Milliseconds, rounded up, for ever as nothing and zero as `0`.
fn lifetime(ttl: Option<Duration>) -> String {
    ttl.map(|ttl| ttl.as_nanos().div_ceil(1_000_000).to_string()).unwrap_or_default()
}

// Nothing in a wire name has a meaning in a pattern; this keeps it so.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

// Keys, or names, in one command.
const BATCH: usize = 1000;

// Values in one batch of writes, about.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

const ATTEMPTS: usize = 4;

const SHORTEST: Duration = Duration::from_millis(1);

const FEWEST_SCANNED: usize = 100;

// How much of a record is read to learn its key.
const KEY_GUESS: usize = 384;

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
    fn patterns_are_literal() {
        assert_eq!(escaped("shop:00ff:d:a_b.c-1"), "shop:00ff:d:a_b.c-1");
        assert_eq!(escaped(r"*?[^]\"), r"\*\?\[\^\]\\");
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
