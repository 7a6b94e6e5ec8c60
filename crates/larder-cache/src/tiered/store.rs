//! The `Backend` implementation.

use std::time::Duration;

use larder_core::order::Keys;
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Found, Key, KeyRef, Marks, Moment,
    Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision, Sequence, Tag, Token,
    Ttl, When,
};

use super::near::Stamp;
use super::node::Node;
use super::{Inner, Tiered};
use crate::owned::owned;

impl<B> Inner<B> {
    // After the store has done it, or may have.
    fn changed(&self, keys: Vec<Key>) {
        keys.iter().for_each(|key| self.near.forget(key));
        if let Some(node) = &self.node {
            node.tell_keys(keys);
        }
    }

    fn tell(&self, tell: impl FnOnce(&Node)) {
        if let Some(node) = &self.node {
            tell(node);
        }
    }

    // Tags' records among counters, and what was known of them before they are read.
    fn records<'a>(&self, counters: &'a [Key]) -> Vec<(usize, &'a Key, Stamp)> {
        let is_record = |key: &Key| key.as_ref().parts().next().flatten() == Some(b"t");
        let records = counters.iter().enumerate().filter(|(_, key)| is_record(key));
        records.map(|(at, key)| (at, key, self.near.stamp(key))).collect()
    }
}

// Whether a conditional write may have changed something.
fn stored(outcome: &Result<Outcome>) -> bool {
    !matches!(outcome, Ok(Outcome::Refused))
}

impl<B: Backend> Backend for Tiered<B> {
    fn name(&self) -> &'static str {
        self.0.remote.name()
    }

    fn abilities(&self) -> Abilities {
        self.0.remote.abilities()
    }

    fn clock(&self) -> &Clock {
        self.0.remote.clock()
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        match self.0.near.peek(key, now) {
            // A stale one may have been replaced in the store.
            Some(entry) if entry.is_fresh(now) => Peek::Hit(entry),
            _ => Peek::Ask,
        }
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let Inner { remote, near, .. } = &*self.0;
        let (stamp, records) = (near.stamp(key), self.0.records(counters));
        let found = remote.get(key, counters).await?;
        for (at, record, stamp) in records {
            let number = found.counters.get(at).copied().flatten();
            if let Some(number) = number.and_then(Sequence::from_i64) {
                near.learn(record, number, stamp);
            }
        }
        if let Some(entry) = &found.entry {
            near.keep(key, entry, stamp);
        }
        Ok(found)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let Inner { remote, near, .. } = &*self.0;
        let now = remote.clock().now();
        let fresh = |entry: &Entry| entry.is_fresh(now);
        let mut entries: Vec<Option<Entry>> =
            keys.iter().map(|key| near.peek(key.as_ref(), now).filter(fresh)).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|at| entries[*at].is_none()).collect();
        if missing.is_empty() {
            return Ok(entries);
        }
        let asked: Vec<Key> = missing.iter().map(|at| keys[*at].clone()).collect();
        let stamps: Vec<Stamp> = asked.iter().map(|key| near.stamp(key)).collect();
        let found = remote.get_many(&asked).await?;
        for (((at, key), stamp), entry) in missing.into_iter().zip(&asked).zip(stamps).zip(found) {
            if let Some(entry) = &entry {
                near.keep(key, entry, stamp);
            }
            entries[at] = entry;
        }
        Ok(entries)
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let outcome = inner.remote.put(&key, entry, ttl, when).await;
            match when {
                // Of a key that was absent nobody has anything near.
                When::Token(_) => inner.near.forget(&key),
                _ if stored(&outcome) => inner.changed(vec![key]),
                _ => {}
            }
            outcome
        })
        .await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let inner = self.0.clone();
        owned(&self.0.writes, Keys::of(items.iter().map(|item| &item.key)), async move {
            let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
            let outcomes = inner.remote.put_many(items).await;
            let changed = match &outcomes {
                Ok(outcomes) => {
                    let changed = keys.into_iter().zip(outcomes).filter(|(_, one)| stored(one));
                    changed.map(|(key, _)| key).collect()
                }
                Err(_) => keys,
            };
            inner.changed(changed);
            outcomes
        })
        .await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let removed = inner.remote.remove(&key, only).await;
            // What the store has evicted may still be near.
            if only.is_none() || !matches!(removed, Ok(false)) {
                inner.changed(vec![key]);
            }
            removed
        })
        .await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let (inner, keys) = (self.0.clone(), keys.to_vec());
        owned(&self.0.writes, Keys::of(&keys), async move {
            let removed = inner.remote.remove_many(&keys).await;
            inner.changed(keys);
            removed
        })
        .await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let touched = inner.remote.touch(&key, ttl).await;
            inner.changed(vec![key]);
            touched
        })
        .await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let (inner, key) = (self.0.clone(), key.clone());
        owned(&self.0.writes, Keys::one(&key), async move {
            let sum = inner.remote.add(&key, delta, create).await;
            if !matches!(sum, Ok(None)) {
                inner.changed(vec![key]);
            }
            sum
        })
        .await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        self.0.remote.remaining(key).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        self.0.remote.begin(key, hold).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.0.remote.renew(key, token, hold).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.0.remote.release(key, token, pass).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let records: Vec<Key> = tags.iter().map(|tag| Key::tag(namespace, tag)).collect();
        let known = self.0.records(&records);
        let marks = self.0.remote.marks(namespace, tags).await?;
        for (at, record, stamp) in known {
            if let Some(number) = marks.tags.get(at) {
                self.0.near.learn(record, *number, stamp);
            }
        }
        Ok(marks)
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let (inner, namespace, tags) = (self.0.clone(), namespace.clone(), tags.to_vec());
        owned(&self.0.writes, Keys::ALL, async move {
            let number = inner.remote.invalidate(&namespace, &tags).await;
            let known = number.as_ref().ok().copied();
            inner.near.invalidate(&namespace, &tags, known);
            inner.tell(|node| node.tell_tags(namespace, tags, known));
            number
        })
        .await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let (inner, namespace) = (self.0.clone(), namespace.clone());
        owned(&self.0.writes, Keys::ALL, async move {
            let cleared = inner.remote.clear(&namespace).await;
            inner.near.clear(&namespace);
            inner.tell(|node| node.tell_cleared(namespace));
            cleared
        })
        .await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.0.remote.page(prefix, from, limit).await
    }
}
