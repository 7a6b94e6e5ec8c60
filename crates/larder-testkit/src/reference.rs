//! The contract as the plainest code that keeps it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::{Envelope, Record, TimeBase};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef,
    Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Times, Token, Ttl, When,
};
use parking_lot::Mutex;

/// A backend in memory: one map under one lock, no eviction, nothing clever. The model to compare others with.
///
/// A clone is another client of the same store. Expired entries are freed only when they are written over.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder_core::Result<()> {
/// use larder_core::{Backend, Clock, Entry, Key, Namespace, Payload, Ttl, When};
/// use larder_testkit::reference::Reference;
///
/// let store = Reference::new(Clock::system());
/// let key = Key::new(&Namespace::new("shop")?, ["visits"])?;
/// let _ = store.put(&key, Entry::integer(41), Ttl::Forever, When::Always).await?;
/// assert_eq!(store.add(&key, 1, None).await?, Some(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reference {
    map: Arc<Mutex<BTreeMap<Key, Slot>>>,
    clock: Clock,
    default_ttl: Ttl,
    max_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
enum Slot {
    Entry(Entry),
    Fill { token: Token, expires: Moment },
    Pass { expires: Moment },
    Foreign(Bytes),
}

impl Reference {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        Reference { map: Arc::default(), clock, default_ttl: Ttl::STANDARD, max_bytes: None }
    }

    /// What [`Ttl::Default`] stands for.
    #[must_use]
    pub fn with_default_ttl(mut self, ttl: Ttl) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// Refuses entries whose key, tags, head and body are larger together.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// Puts raw bytes where a key's record is.
    pub fn plant(&self, key: Key, bytes: Bytes) {
        self.map.lock().insert(key, Slot::Foreign(bytes));
    }

    // Every operation is a closure on what is there now, under the lock.
    fn step<T>(&self, step: impl FnOnce(&mut Store<'_>) -> T) -> T {
        let mut map = self.map.lock();
        let now = self.clock.now();
        step(&mut Store { map: &mut map, now, config: self })
    }
}

struct Store<'a> {
    map: &'a mut BTreeMap<Key, Slot>,
    now: Moment,
    config: &'a Reference,
}

impl Store<'_> {
    // What is there now; what has expired or is not ours is not.
    fn slot(&self, key: &Key) -> Option<Slot> {
        match self.map.get(key)? {
            Slot::Foreign(bytes) => {
                let base = TimeBase { millis: 0, at: self.now };
                match Envelope::default().decode(bytes.clone(), key.as_ref(), &base) {
                    Ok(Record::Entry(entry)) => Some(Slot::Entry(entry)),
                    _ => None,
                }
            }
            Slot::Entry(entry) if entry.times()?.expired(self.now) => None,
            Slot::Fill { expires, .. } | Slot::Pass { expires } if *expires <= self.now => None,
            slot => Some(slot.clone()),
        }
    }

    fn entry(&self, key: &Key) -> Option<Entry> {
        match self.slot(key)? {
            Slot::Entry(entry) => Some(entry),
            _ => None,
        }
    }

    fn counter(&self, key: &Key) -> Option<i64> {
        self.entry(key)?.as_counter()
    }

    fn token(&self, key: &Key) -> Option<Token> {
        match self.slot(key)? {
            Slot::Fill { token, .. } => Some(token),
            _ => None,
        }
    }

    fn put(&mut self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let present = self.entry(key);
        let holds = match when {
            When::Always => true,
            When::Absent => present.is_none(),
            When::Present => present.is_some(),
            When::Revision(revision) => present.is_some_and(|entry| entry.revision() == revision),
            When::Token(token) => self.token(key) == Some(token),
        };
        if !holds {
            return Ok(Outcome::Refused);
        }
        self.map.remove(key);
        let ttl = ttl.resolve(self.config.default_ttl);
        if ttl == Some(Duration::ZERO) {
            return Ok(Outcome::Stored);
        }
        if let Some(max_bytes) = self.config.max_bytes {
            let encoded = entry.encoded()?;
            let tags: usize = entry.tags().iter().map(|tag| tag.as_str().len()).sum();
            let parts =
                [key.as_ref().as_bytes().len(), tags, encoded.head.len(), encoded.body.len()];
            if parts.iter().sum::<usize>() as u64 > max_bytes {
                return Err(Error::new(ErrorKind::TooLarge, "the entry is larger than the limit"));
            }
        }
        let times = Times::starting(self.now, ttl, entry.freshness());
        let entry = entry.with_times(times).with_marks([]);
        self.map.insert(key.clone(), Slot::Entry(entry));
        Ok(Outcome::Stored)
    }

    // Whatever was there is gone; true when it was an entry.
    fn remove(&mut self, key: &Key, only: Option<Revision>) -> bool {
        let present = self.entry(key);
        if only.is_some() && present.as_ref().map(Entry::revision) != only {
            return false;
        }
        self.map.remove(key);
        present.is_some()
    }

    // The number of a record that `marks` reads, if it is of that epoch.
    fn mark(&self, key: &Key, sequence: Sequence) -> Option<Sequence> {
        self.counter(key).and_then(Sequence::from_i64).filter(|mark| mark.same_epoch(sequence))
    }

    fn sequence(&mut self, namespace: &Namespace) -> Sequence {
        let key = Key::sequence(namespace);
        let found = self.counter(&key).and_then(Sequence::from_i64);
        found.unwrap_or_else(|| self.record(&key, Sequence::start()))
    }

    fn record(&mut self, key: &Key, number: Sequence) -> Sequence {
        let entry = Entry::integer(number.get()).with_times(Times::starting(self.now, None, None));
        self.map.insert(key.clone(), Slot::Entry(entry));
        number
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            local: true,
            pages: true,
            follows_clock: self.clock.is_manual(),
            precision: Duration::from_nanos(1),
            max_bytes: self.max_bytes,
            default_ttl: self.default_ttl,
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn peek(&self, key: KeyRef<'_>, _: Moment) -> Peek {
        self.step(|store| store.entry(&key.to_key())).map_or(Peek::Miss, Peek::Hit)
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        Ok(self.step(|store| Found {
            entry: store.entry(key),
            counters: counters.iter().map(|key| store.counter(key)).collect(),
        }))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(self.step(|store| keys.iter().map(|key| store.entry(key)).collect()))
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        self.step(|store| store.put(key, entry, ttl, when))
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        Ok(self.step(|store| {
            let put = |put: Put| store.put(&put.key, put.entry, put.ttl, put.when);
            items.into_iter().map(put).collect()
        }))
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        Ok(self.step(|store| store.remove(key, only)))
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        Ok(self.step(|store| keys.iter().map(|key| u64::from(store.remove(key, None))).sum()))
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        Ok(self.step(|store| {
            let Some(entry) = store.entry(key) else { return false };
            store.map.remove(key);
            let ttl = ttl.resolve(self.default_ttl);
            if ttl != Some(Duration::ZERO) {
                let entry = entry.with_times(Times::starting(store.now, ttl, None));
                store.map.insert(key.clone(), Slot::Entry(entry));
            }
            true
        }))
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let refused = || Error::new(ErrorKind::NotAnInteger, "no integer, or the sum does not fit");
        self.step(|store| match store.entry(key) {
            Some(entry) => {
                let value = entry.as_counter().ok_or_else(refused)?;
                let sum = value.checked_add(delta).ok_or_else(refused)?;
                let times = entry.times().copied().ok_or_else(refused)?;
                let entry = Entry::integer(sum).with_revision(Revision::NONE).with_times(times);
                store.map.insert(key.clone(), Slot::Entry(entry));
                Ok(Some(sum))
            }
            None => {
                let Some(Counter { initial, ttl }) = create else { return Ok(None) };
                let sum = initial.checked_add(delta).ok_or_else(refused)?;
                let _ = store.put(key, Entry::integer(sum), ttl, When::Always)?;
                Ok(Some(sum))
            }
        })
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        Ok(self.step(|store| match store.entry(key) {
            None => Remaining::Absent,
            Some(entry) => entry.remaining(store.now).map_or(Remaining::Forever, Remaining::For),
        }))
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        Ok(self.step(|store| match store.slot(key) {
            Some(Slot::Entry(entry)) => Begin::Found(entry),
            Some(Slot::Fill { .. }) => Begin::Busy,
            Some(Slot::Pass { .. }) => Begin::Pass,
            Some(Slot::Foreign(_)) | None => {
                let (token, expires) = (Token::random(), store.now + hold.min(Ttl::MAX));
                store.map.insert(key.clone(), Slot::Fill { token, expires });
                Begin::Token(token)
            }
        }))
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        Ok(self.step(|store| {
            let mine = store.token(key) == Some(token);
            if mine {
                let expires = store.now + hold.min(Ttl::MAX);
                store.map.insert(key.clone(), Slot::Fill { token, expires });
            }
            mine
        }))
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        Ok(self.step(|store| {
            let mine = store.token(key) == Some(token);
            if mine {
                store.map.remove(key);
                if let Some(pass) = pass {
                    let expires = store.now + pass.min(Ttl::MAX);
                    store.map.insert(key.clone(), Slot::Pass { expires });
                }
            }
            mine
        }))
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        Ok(self.step(|store| {
            let sequence = store.sequence(namespace);
            let tags = tags.iter().map(|tag| {
                let key = Key::tag(namespace, tag);
                store.mark(&key, sequence).unwrap_or_else(|| store.record(&key, sequence))
            });
            Marks { sequence, tags: tags.collect() }
        }))
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        Ok(self.step(|store| {
            let next = store.sequence(namespace).next();
            store.record(&Key::sequence(namespace), next);
            for tag in tags {
                store.record(&Key::tag(namespace, tag), next);
            }
            next
        }))
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.step(|store| store.map.retain(|key, _| key.namespace() != namespace.as_str()));
        Ok(())
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        Ok(self.step(|store| {
            let start = from.as_ref().map_or(Bound::Unbounded, |c| Bound::Excluded(&c.0[..]));
            let keys = store.map.range::<[u8], _>((start, Bound::Unbounded)).map(|(key, _)| key);
            let is_entry = |key: &&Key| prefix.matches(key.as_ref()) && store.entry(key).is_some();
            let keys: Vec<Key> = keys.filter(is_entry).take(limit.max(1)).cloned().collect();
            let full = keys.len() == limit.max(1);
            let next =
                keys.last().filter(|_| full).map(|key| Cursor(key.as_ref().as_bytes().into()));
            Page { keys, next }
        }))
    }
}
