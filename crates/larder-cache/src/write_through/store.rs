//! The `Backend` implementation.

use std::time::Duration;

use larder_core::order::Keys;
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Found, Key, KeyRef, Marks, Moment,
    Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision, Sequence, Tag, Token,
    Ttl, When,
};

use super::WriteThrough;
use super::copies::Copy;
use crate::owned::owned;

impl<C: Backend, D: Backend> Backend for WriteThrough<C, D> {
    fn name(&self) -> &'static str {
        self.0.durable.name()
    }

    fn abilities(&self) -> Abilities {
        let cache = self.0.copies.store().abilities();
        let durable = self.0.durable.abilities();
        Abilities {
            local: false,
            copies: true,
            follows_clock: durable.follows_clock && cache.follows_clock,
            precision: durable.precision.max(cache.precision),
            clear_delay: durable.clear_delay.max(cache.clear_delay),
            read_delay: durable.read_delay.max(cache.read_delay),
            ..durable
        }
    }

    fn clock(&self) -> &Clock {
        self.0.durable.clock()
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        self.0.copies.peek(key, now)
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        // Counters are the durable store's, and the entry rides along.
        if !counters.is_empty() {
            return self.0.durable.get(key, counters).await;
        }
        let place = match self.0.copies.read(key).await {
            Copy::Good(entry) => return Ok(Found { entry: Some(entry), counters: Vec::new() }),
            Copy::Ask(place) => place,
        };
        let found = self.0.durable.get(key, &[]).await?;
        if let Some(token) = place {
            self.0.copies.keep(key, found.entry.as_ref(), token).await;
        }
        Ok(found)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = self.0.copies.read_many(keys).await;
        let missing: Vec<usize> = (0..keys.len()).filter(|at| entries[*at].is_none()).collect();
        if !missing.is_empty() {
            let asked: Vec<Key> = missing.iter().map(|at| keys[*at].clone()).collect();
            for (at, entry) in missing.into_iter().zip(self.0.durable.get_many(&asked).await?) {
                entries[at] = entry;
            }
        }
        Ok(entries)
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let outcome = inner.durable.put(&key, entry, ttl, when).await;
            // Whoever names a revision that is not there has read an old copy, and would read it again.
            let stale = matches!(when, When::Revision(_));
            if stale || !matches!(outcome, Ok(Outcome::Refused)) {
                // Where that fails, this node reads no copy, and others none that is older than the ceiling.
                let _ = inner.copies.drop(std::slice::from_ref(&key)).await;
            }
            outcome
        })
        .await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let inner = self.0.clone();
        owned(&self.0.writes, Keys::of(items.iter().map(|item| &item.key)), async move {
            let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
            let outcomes = inner.durable.put_many(items).await;
            if !keys.is_empty() {
                let _ = inner.copies.drop(&keys).await;
            }
            outcomes
        })
        .await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let removed = inner.durable.remove(&key, only).await;
            // What the durable store does not have, an older copy may still show.
            inner.copies.drop(std::slice::from_ref(&key)).await.and(removed)
        })
        .await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let (inner, keys) = (self.0.clone(), keys.to_vec());
        owned(&self.0.writes, Keys::of(&keys), async move {
            let removed = inner.durable.remove_many(&keys).await;
            inner.copies.drop(&keys).await.and(removed)
        })
        .await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let touched = inner.durable.touch(&key, ttl).await;
            let _ = inner.copies.drop(std::slice::from_ref(&key)).await;
            touched
        })
        .await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let sum = inner.durable.add(&key, delta, create).await;
            // A counter is not copied, but it may have come in the place of something that was.
            let _ = inner.copies.drop(std::slice::from_ref(&key)).await;
            sum
        })
        .await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        self.0.durable.remaining(key).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        self.0.durable.begin(key, hold).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.0.durable.renew(key, token, hold).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.0.durable.release(key, token, pass).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        self.0.durable.marks(namespace, tags).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        self.0.durable.invalidate(namespace, tags).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let (inner, namespace) = (self.0.clone(), namespace.clone());
        owned(&self.0.writes, Keys::ALL, async move {
            let cleared = inner.durable.clear(&namespace).await;
            inner.copies.clear(&namespace).await.and(cleared)
        })
        .await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.0.durable.page(prefix, from, limit).await
    }
}
