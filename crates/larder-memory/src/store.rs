//! The `Backend` implementation.

use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use larder_core::envelope::MAX_TAGS;
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef,
    Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Times, Token, Ttl, When,
};
use parking_lot::{Mutex, MutexGuard};

use crate::client::{Map, Usage};
use crate::config::Builder;
use crate::sweep::{Sweeps, sweep};
use crate::tags::{Conditions, Numbers};

/// Keeps entries in this process's memory; see the [crate's documentation](crate). A clone is the same store.
#[derive(Clone)]
pub struct MemoryBackend(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) map: Map,
    numbers: Numbers,
    // Every write of a key happens under its stripe's lock, which also holds the key's fill marker. Hits take no lock.
    stripes: Box<[Mutex<Fills>]>,
    hasher: RandomState,
    pub(crate) clock: Clock,
    default_ttl: Ttl,
    max_entry_bytes: u64,
    pub(crate) sweeps: Sweeps,
}

#[derive(Default)]
pub(crate) struct Fills {
    open: HashMap<Key, Marker>,
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Marker {
    token: Token,
    pass: bool,
    until: Moment,
    // Voids the marker when the namespace is cleared.
    generation: i64,
}

const STRIPES: usize = 64;

impl Default for MemoryBackend {
    fn default() -> Self {
        MemoryBackend::with(Builder::default())
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("usage", &self.usage()).finish()
    }
}

impl MemoryBackend {
    /// Configures one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What it holds now.
    pub fn usage(&self) -> Usage {
        self.0.map.usage()
    }

    /// Keeps an entry as it is, its times and conditions included: for those who use this store in front of another and
    /// decide by themselves what may be read. False when it is too large.
    ///
    /// No tag is looked at and no lifetime begun; the entry must have [times](Entry::times), on this store's clock.
    pub fn keep(&self, key: &Key, entry: Entry) -> bool {
        if self.0.sweeps.due() {
            sweep(&self.0);
        }
        self.0.insert_settled(key, entry).is_ok()
    }

    /// Forgets what was [kept](MemoryBackend::keep) under a key.
    pub fn forget(&self, key: KeyRef<'_>) {
        self.0.map.remove(key);
    }

    pub(crate) fn with(config: Builder) -> Self {
        let max_entry_bytes =
            config.max_entry_bytes.unwrap_or((config.max_bytes / 16).min(4 << 20));
        MemoryBackend(Arc::new(Inner {
            map: Map::new(config.max_bytes, max_entry_bytes),
            numbers: Numbers::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            clock: config.clock,
            default_ttl: config.default_ttl,
            sweeps: Sweeps::default(),
            max_entry_bytes,
        }))
    }
}

impl Inner {
    pub(crate) fn lock(&self, key: &Key) -> MutexGuard<'_, Fills> {
        let stripe = self.hasher.hash_one(key) as usize % STRIPES;
        self.stripes[stripe].lock()
    }

    fn live(&self, key: KeyRef<'_>) -> Option<Entry> {
        self.live_at(key, self.clock.now())
    }

    #[inline]
    fn live_at(&self, key: KeyRef<'_>, now: Moment) -> Option<Entry> {
        self.map.get(key).filter(|entry| Inner::readable(entry, now))
    }

    #[inline]
    pub(crate) fn readable(entry: &Entry, now: Moment) -> bool {
        !entry.times().is_some_and(|times| times.expired(now)) && entry.marks_hold()
    }

    fn marker(&self, fills: &mut Fills, key: &Key) -> Option<Marker> {
        let marker = *fills.open.get(key)?;
        if marker.until <= self.clock.now()
            || marker.generation != self.numbers.generation(key.namespace())
        {
            fills.open.remove(key);
            return None;
        }
        Some(marker)
    }

    // The generation is that of the moment when the write's condition was looked at: a `clear` since then voids it.
    fn insert(
        &self,
        key: &Key,
        generation: i64,
        entry: Entry,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let times = Times::starting(self.clock.now(), ttl, entry.freshness());
        let Conditions { generation, tags, fresh } =
            self.numbers.conditions(key, generation, entry.built_at(), entry.tags());
        let entry = entry.with_times(times).with_marks(once(generation).chain(tags));
        // Hardly any has conditions on being fresh, and each change of an entry costs a little.
        let entry = if fresh.is_empty() { entry } else { entry.with_fresh_marks(fresh) };
        self.insert_settled(key, entry)
    }

    fn insert_settled(&self, key: &Key, entry: Entry) -> Result<()> {
        let size = key.as_ref().as_bytes().len() + entry.size();
        let too_large = size as u64 > self.max_entry_bytes || !self.map.fits(key, &entry);
        if too_large || entry.tags().len() > MAX_TAGS {
            // An old value must not outlive the one that was to replace it.
            self.map.remove(key.as_ref());
            return Err(Error::new(
                ErrorKind::TooLarge,
                "the entry is larger than max_entry_bytes allows, or has more than 512 tags",
            )
            .with_backend("memory"));
        }
        self.map.insert(key, entry);
        Ok(())
    }

    fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let mut fills = self.lock(key);
        let generation = self.numbers.generation(key.namespace());
        let holds = match when {
            When::Always => true,
            When::Absent => self.live(key.as_ref()).is_none(),
            When::Present => self.live(key.as_ref()).is_some(),
            When::Revision(revision) => {
                self.live(key.as_ref()).is_some_and(|entry| entry.revision() == revision)
            }
            When::Token(token) => self
                .marker(&mut fills, key)
                .is_some_and(|marker| !marker.pass && marker.token == token),
        };
        if !holds {
            return Ok(Outcome::Refused);
        }
        fills.open.remove(key);
        match ttl.resolve(self.default_ttl) {
            Some(Duration::ZERO) => {
                self.map.remove(key.as_ref());
            }
            ttl => self.insert(key, generation, entry, ttl)?,
        }
        Ok(Outcome::Stored)
    }

    fn remove(&self, key: &Key, only: Option<Revision>) -> bool {
        let mut fills = self.lock(key);
        let live = self.live(key.as_ref());
        if let Some(revision) = only
            && live.as_ref().is_none_or(|entry| entry.revision() != revision)
        {
            return false;
        }
        fills.open.remove(key);
        self.map.remove(key.as_ref());
        live.is_some()
    }

    fn touch(&self, key: &Key, ttl: Ttl) -> bool {
        let _fills = self.lock(key);
        let Some(entry) = self.live(key.as_ref()) else { return false };
        match ttl.resolve(self.default_ttl) {
            Some(Duration::ZERO) => {
                self.map.remove(key.as_ref());
            }
            ttl => {
                let times = Times::starting(self.clock.now(), ttl, None);
                self.map.insert(key, entry.with_times(times));
            }
        }
        true
    }

    fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let refuse = |words| Err(Error::new(ErrorKind::NotAnInteger, words).with_backend("memory"));
        let mut fills = self.lock(key);
        let generation = self.numbers.generation(key.namespace());
        let (value, entry) = match (self.live(key.as_ref()), create) {
            (Some(entry), _) => match entry.as_counter() {
                Some(value) => (value, Some(entry)),
                None => return refuse("the value is not a plain integer"),
            },
            (None, Some(counter)) => (counter.initial, None),
            (None, None) => return Ok(None),
        };
        let Some(sum) = value.checked_add(delta) else {
            return refuse("the sum does not fit 64 bits");
        };
        match (entry, create) {
            (Some(entry), _) => {
                let times = entry.times().copied();
                let conditions = self.numbers.conditions(key, generation, Sequence::NONE, &[]);
                let entry = Entry::integer(sum).with_marks([conditions.generation]);
                let entry = match times {
                    Some(times) => entry.with_times(times),
                    None => entry,
                };
                self.insert_settled(key, entry)?;
            }
            (None, Some(counter)) => {
                fills.open.remove(key);
                match counter.ttl.resolve(self.default_ttl) {
                    Some(Duration::ZERO) => {}
                    ttl => self.insert(key, generation, Entry::integer(sum), ttl)?,
                }
            }
            (None, None) => {}
        }
        Ok(Some(sum))
    }

    fn begin(&self, key: &Key, hold: Duration) -> Begin {
        let mut fills = self.lock(key);
        if let Some(entry) = self.live(key.as_ref()) {
            return Begin::Found(entry);
        }
        if let Some(marker) = self.marker(&mut fills, key) {
            return if marker.pass { Begin::Pass } else { Begin::Busy };
        }
        let token = Token::random();
        fills.plant(key, self.marker_for(key, token, false, hold), self.clock.now());
        Begin::Token(token)
    }

    fn marker_for(&self, key: &Key, token: Token, pass: bool, hold: Duration) -> Marker {
        let until = self.clock.now() + hold.min(Ttl::MAX);
        Marker { token, pass, until, generation: self.numbers.generation(key.namespace()) }
    }

    // Replaces the marker of that token by what `change` says, if it is still there.
    fn replace_marker(
        &self,
        key: &Key,
        token: Token,
        change: impl FnOnce() -> Option<Marker>,
    ) -> bool {
        let mut fills = self.lock(key);
        let there = self
            .marker(&mut fills, key)
            .is_some_and(|marker| !marker.pass && marker.token == token);
        if there {
            match change() {
                Some(marker) => fills.plant(key, marker, self.clock.now()),
                None => drop(fills.open.remove(key)),
            }
        }
        there
    }
}

impl Fills {
    fn plant(&mut self, key: &Key, marker: Marker, now: Moment) {
        if self.open.len() >= self.sweep_at {
            self.open.retain(|_, marker| now < marker.until);
            self.sweep_at = (self.open.len() * 2).max(64);
        }
        self.open.insert(key.clone(), marker);
    }
}

impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            local: true,
            evicts: true,
            pages: true,
            follows_clock: true,
            precision: Duration::from_nanos(1),
            max_bytes: Some(self.0.max_entry_bytes),
            default_ttl: self.0.default_ttl,
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        match self.0.live_at(key, now) {
            Some(entry) => Peek::Hit(entry),
            None => Peek::Miss,
        }
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let counters = counters.iter().map(|key| {
            let entry = || self.0.live(key.as_ref())?.as_counter();
            self.0.numbers.counter(key).or_else(entry)
        });
        Ok(Found { entry: self.0.live(key.as_ref()), counters: counters.collect() })
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(keys.iter().map(|key| self.0.live(key.as_ref())).collect())
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        if self.0.sweeps.due() {
            sweep(&self.0);
        }
        self.0.put(key, entry, ttl, when)
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            outcomes.push(self.put(&item.key, item.entry, item.ttl, item.when).await);
        }
        Ok(outcomes)
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        Ok(self.0.remove(key, only))
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        Ok(keys.iter().filter(|key| self.0.remove(key, None)).count() as u64)
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        Ok(self.0.touch(key, ttl))
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        self.0.add(key, delta, create)
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        Ok(match self.0.live(key.as_ref()) {
            None => Remaining::Absent,
            Some(entry) => match entry.remaining(self.0.clock.now()) {
                None => Remaining::Forever,
                Some(left) => Remaining::For(left),
            },
        })
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        Ok(self.0.begin(key, hold))
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        Ok(self.0.replace_marker(key, token, || Some(self.0.marker_for(key, token, false, hold))))
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        Ok(self.0.replace_marker(key, token, || {
            pass.map(|hold| self.0.marker_for(key, token, true, hold))
        }))
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let (sequence, tags) = self.0.numbers.read(namespace, tags);
        Ok(Marks { sequence, tags })
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        Ok(self.0.numbers.invalidate(namespace, tags))
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.0.numbers.clear(namespace);
        sweep(&self.0);
        Ok(())
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        // The map has no order to go on from, so a page is the smallest keys behind the last one: every page passes
        // over the whole map, and none holds more than was asked for.
        let limit = limit.max(1);
        let now = self.0.clock.now();
        let mut keys = BinaryHeap::new();
        for (key, entry) in self.0.map.iter() {
            let bytes = key.as_ref().as_bytes();
            let passed = from.as_ref().is_some_and(|Cursor(last)| bytes <= &**last);
            let matches = prefix.matches(key.as_ref());
            if passed || !matches || !Inner::readable(&entry, now) {
                continue;
            }
            keys.push(key);
            if keys.len() > limit {
                keys.pop();
            }
        }
        let full = keys.len() == limit;
        let keys = keys.into_sorted_vec();
        let next = keys.last().filter(|_| full).map(|key| Cursor(key.as_ref().as_bytes().into()));
        Ok(Page { keys, next })
    }
}
