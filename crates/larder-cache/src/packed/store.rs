//! The `Backend` implementation.

use std::time::Duration;

use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef,
    Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Token, Ttl, When,
};

use super::{Inner, Packed};

impl<B: Backend> Inner<B> {
    fn unpacked(&self, key: &Key, entry: Entry) -> Option<Entry> {
        self.packing.unpack(key, entry).map_err(|why| self.note(why)).ok()
    }

    // What was there must not outlive what was to take its place: it goes where the condition holds.
    async fn not_replaced(&self, key: &Key, when: When, error: Error) -> Error {
        if error.kind() != ErrorKind::TooLarge {
            return error;
        }
        let nothing = self.store.put(key, Entry::integer(0), Ttl::For(Duration::ZERO), when);
        nothing.await.err().unwrap_or(error)
    }

    // Takes away what cannot be read, so that the key can be filled. Whoever put something else there keeps it.
    async fn cleared(&self, key: &Key) -> Result<bool> {
        let Some(entry) = self.store.get(key, &[]).await?.entry else { return Ok(false) };
        let revision = entry.revision();
        match self.packing.unpack(key, entry) {
            Ok(_) => Ok(false),
            Err(_) => self.store.remove(key, Some(revision)).await,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Packed<B> {
    fn name(&self) -> &'static str {
        self.0.store.name()
    }

    fn abilities(&self) -> Abilities {
        let store = self.0.store.abilities();
        // How much fits depends on the value where it is compressed. What is stored here has bytes, whoever keeps them.
        let max_bytes = store.max_bytes.filter(|_| !self.0.packing.compresses());
        Abilities { local: false, max_bytes, ..store }
    }

    fn clock(&self) -> &Clock {
        self.0.store.clock()
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        match self.0.store.peek(key, now) {
            // Unpacking allocates.
            Peek::Hit(_) => Peek::Ask,
            peek => peek,
        }
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let Found { entry, counters } = self.0.store.get(key, counters).await?;
        let entry = entry.and_then(|entry| self.0.unpacked(key, entry));
        Ok(Found { entry, counters })
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let entries = self.0.store.get_many(keys).await?;
        let unpacked = |(key, entry): (&Key, Option<Entry>)| self.0.unpacked(key, entry?);
        Ok(keys.iter().zip(entries).map(unpacked).collect())
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let packed = match self.0.packing.pack(key, entry) {
            Ok(packed) => packed,
            Err(error) => {
                return Err(self.0.not_replaced(key, when, error).await);
            }
        };
        let outcome = self.0.store.put(key, packed.clone(), ttl, when).await?;
        if outcome == Outcome::Refused && when == When::Absent && self.0.cleared(key).await? {
            return self.0.store.put(key, packed, ttl, when).await;
        }
        Ok(outcome)
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let (mut refused, mut packed) = (Vec::new(), Vec::with_capacity(items.len()));
        for (at, Put { key, entry, ttl, when }) in items.into_iter().enumerate() {
            match self.0.packing.pack(&key, entry) {
                Ok(entry) => packed.push(Put { key, entry, ttl, when }),
                Err(error) => refused.push((at, key, when, error)),
            }
        }
        let mut outcomes = self.0.store.put_many(packed).await?;
        // In the order of their places, so that each finds its own.
        for (at, key, when, error) in refused {
            outcomes.insert(at, Err(self.0.not_replaced(&key, when, error).await));
        }
        Ok(outcomes)
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        self.0.store.remove(key, only).await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        self.0.store.remove_many(keys).await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        self.0.store.touch(key, ttl).await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        self.0.store.add(key, delta, create).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        self.0.store.remaining(key).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        // Once more when what was there could not be read; who is quicker then is asked again by those who wait.
        for _ in 0..2 {
            let entry = match self.0.store.begin(key, hold).await? {
                Begin::Found(entry) => entry,
                begun => return Ok(begun),
            };
            let revision = entry.revision();
            if let Some(entry) = self.0.unpacked(key, entry) {
                return Ok(Begin::Found(entry));
            }
            self.0.store.remove(key, Some(revision)).await?;
        }
        Ok(Begin::Busy)
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.0.store.renew(key, token, hold).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.0.store.release(key, token, pass).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        self.0.store.marks(namespace, tags).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        self.0.store.invalidate(namespace, tags).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.0.store.clear(namespace).await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.0.store.page(prefix, from, limit).await
    }
}
