//! The `Backend` implementation.

use std::time::Duration;

use larder_core::order::Keys;
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef,
    Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Token, Ttl, When,
};

use super::Migrating;
use super::mover::{Mover, Settled, stays};
use crate::owned::{after, owned};

// Which of the two stores a page is of: its last byte.
const OLD: u8 = b'1';
const NEW: u8 = b'2';

fn marked(Cursor(mut bytes): Cursor, mark: u8) -> Cursor {
    bytes.push(mark);
    Cursor(bytes)
}

#[deny(clippy::missing_trait_methods)]
impl<N: Backend, O: Backend> Backend for Migrating<N, O> {
    fn name(&self) -> &'static str {
        self.0.new.name()
    }

    fn abilities(&self) -> Abilities {
        let (new, old) = (self.0.new.abilities(), self.0.old.abilities());
        Abilities {
            local: false,
            evicts: new.evicts || old.evicts,
            pages: new.pages && old.pages,
            shared: new.shared && old.shared,
            durable: new.durable && old.durable,
            follows_clock: new.follows_clock && old.follows_clock,
            precision: new.precision.max(old.precision),
            clear_delay: new.clear_delay.max(old.clear_delay),
            splits: new.splits || old.splits,
            ..new
        }
    }

    fn clock(&self) -> &Clock {
        self.0.new.clock()
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        match self.0.new.peek(key, now) {
            // It may be in the old one.
            Peek::Miss => Peek::Ask,
            peek => peek,
        }
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let inner = &self.0;
        let found = inner.new.get(key, counters).await?;
        let counts = &inner.mover.counts;
        if found.entry.is_some() {
            Mover::count(&counts.new, 1);
            return Ok(found);
        }
        if stays(key) {
            return Ok(found);
        }
        let settled = inner.settle(key).await?;
        if let Settled::Busy(entry) = settled {
            // What has tags has numbers of the old store, which mean nothing beside the new one's.
            let entry = Some(entry).filter(|entry| entry.tags().is_empty());
            Mover::count(if entry.is_some() { &counts.old } else { &counts.neither }, 1);
            return Ok(Found { entry, ..found });
        }
        // It may have been moved since the new store was asked: by this, or by somebody else.
        let again = inner.new.get(key, counters).await?;
        let count = match (&again.entry, settled) {
            (None, _) => &counts.neither,
            (Some(_), Settled::Moved) => &counts.old,
            (Some(_), _) => &counts.new,
        };
        Mover::count(count, 1);
        inner.mover.tell(inner.new.clock().now(), inner.old.name(), inner.new.name());
        Ok(again)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let inner = &self.0;
        let mut entries = inner.new.get_many(keys).await?;
        let counts = &inner.mover.counts;
        let missing: Vec<usize> =
            (0..keys.len()).filter(|at| entries[*at].is_none() && !stays(&keys[*at])).collect();
        Mover::count(&counts.new, keys.len() - missing.len());
        if missing.is_empty() {
            return Ok(entries);
        }
        let asked: Vec<Key> = missing.iter().map(|at| keys[*at].clone()).collect();
        let mut again = Vec::new();
        for (at, entry) in missing.into_iter().zip(inner.old.get_many(&asked).await?) {
            match entry {
                // A batch is not moved for being read: that would be some round trips for each.
                Some(entry) if entry.tags().is_empty() => {
                    Mover::count(&counts.old, 1);
                    entries[at] = Some(entry);
                }
                Some(_) => {
                    if matches!(inner.settle(&keys[at]).await?, Settled::Moved) {
                        Mover::count(&counts.old, 1);
                    }
                    again.push(at);
                }
                None => again.push(at),
            }
        }
        if !again.is_empty() {
            let asked: Vec<Key> = again.iter().map(|at| keys[*at].clone()).collect();
            for (at, entry) in again.into_iter().zip(inner.new.get_many(&asked).await?) {
                Mover::count(&counts.neither, usize::from(entry.is_none()));
                entries[at] = entry;
            }
        }
        inner.mover.tell(inner.new.clock().now(), inner.old.name(), inner.new.name());
        Ok(entries)
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let inner = &self.0;
        if when != When::Always {
            after(&inner.writes, Keys::one(key)).await;
        }
        match when {
            // Nothing was in the old store when the marker was given.
            When::Token(_) => inner.new.put(key, entry, ttl, when).await,
            When::Always => {
                let (inner, key) = (inner.clone(), key.clone());
                owned(&self.0.writes, Keys::one(&key), async move {
                    let settled = inner.settle(&key).await?;
                    let outcome = inner.new.put(&key, entry, ttl, when).await;
                    if let Settled::Busy(_) = settled {
                        // Whoever was moving the old value has lost the marker by this.
                        inner.old.remove(&key, None).await?;
                    }
                    outcome
                })
                .await
            }
            When::Absent | When::Present | When::Revision(_) => {
                inner.ready(key).await?;
                inner.new.put(key, entry, ttl, when).await
            }
        }
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let inner = &self.0;
        after(&inner.writes, Keys::of(items.iter().map(|item| &item.key))).await;
        let fills = |item: &&Put| matches!(item.when, When::Token(_));
        let keys: Vec<Key> =
            items.iter().filter(|item| !fills(item)).map(|item| item.key.clone()).collect();
        if !keys.is_empty() {
            let found = inner.old.get_many(&keys).await?;
            for (key, _) in keys.iter().zip(found).filter(|(_, entry)| entry.is_some()) {
                inner.ready(key).await?;
            }
        }
        inner.new.put_many(items).await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            if only.is_some() {
                inner.ready(&key).await?;
                return inner.new.remove(&key, only).await;
            }
            // The old one first: what is read there afterwards is nothing, and what was read before loses its marker.
            let old = inner.old.remove(&key, None).await;
            let new = inner.new.remove(&key, None).await?;
            Ok(old? || new)
        })
        .await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let (inner, keys) = (self.0.clone(), keys.to_vec());
        owned(&self.0.writes, Keys::of(&keys), async move {
            let old = inner.old.remove_many(&keys).await;
            let new = inner.new.remove_many(&keys).await?;
            Ok(old? + new)
        })
        .await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        after(&self.0.writes, Keys::one(key)).await;
        self.0.ready(key).await?;
        self.0.new.touch(key, ttl).await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        after(&self.0.writes, Keys::one(key)).await;
        self.0.ready(key).await?;
        self.0.new.add(key, delta, create).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let inner = &self.0;
        if let left @ (Remaining::Forever | Remaining::For(_)) = inner.new.remaining(key).await? {
            return Ok(left);
        }
        if !stays(key)
            && let left @ (Remaining::Forever | Remaining::For(_)) =
                inner.old.remaining(key).await?
        {
            return Ok(left);
        }
        // It may have been moved in between.
        inner.new.remaining(key).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        // Somebody who moves it holds the marker: that is busy, and told by the new store.
        let _ = self.0.settle(key).await?;
        self.0.new.begin(key, hold).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.0.new.renew(key, token, hold).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.0.new.release(key, token, pass).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        self.0.new.marks(namespace, tags).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let (inner, namespace, tags) = (self.0.clone(), namespace.clone(), tags.to_vec());
        owned(&self.0.writes, Keys::ALL, async move {
            let old = inner.old.invalidate(&namespace, &tags).await;
            let number = inner.new.invalidate(&namespace, &tags).await?;
            old.map(|_| number)
        })
        .await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let (inner, namespace) = (self.0.clone(), namespace.clone());
        owned(&self.0.writes, Keys::ALL, async move {
            let old = inner.old.clear(&namespace).await;
            inner.new.clear(&namespace).await.and(old)
        })
        .await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        let inner = &self.0;
        if !self.abilities().pages {
            // At once, and not when one of the two has given all that it has.
            let words = "one of the two stores of a move cannot list its keys";
            return Err(Error::new(ErrorKind::Unsupported, words).with_backend(self.name()));
        }
        // The old one first: what is moved meanwhile is found in the new one.
        let (mark, from) = match from {
            None => (OLD, None),
            Some(Cursor(mut bytes)) => match bytes.pop() {
                Some(mark @ (OLD | NEW)) => (mark, Some(Cursor(bytes)).filter(|c| !c.0.is_empty())),
                _ => {
                    let words = "this cursor was made by another store";
                    return Err(Error::new(ErrorKind::Unsupported, words));
                }
            },
        };
        if mark == NEW {
            let page = inner.new.page(prefix, from, limit).await?;
            return Ok(Page { next: page.next.map(|next| marked(next, NEW)), ..page });
        }
        let page = inner.old.page(prefix, from, limit).await?;
        let next = page.next.map_or_else(|| Cursor(vec![NEW]), |next| marked(next, OLD));
        Ok(Page { keys: page.keys, next: Some(next) })
    }
}
