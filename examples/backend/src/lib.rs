//! A store of one's own: the whole contract on a map under a lock. `docs/writing-a-backend.md` goes through it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use larder_core::*;
use parking_lot::Mutex;

/// A store. A clone is another client of the same one.
#[derive(Clone, Debug)]
pub struct Shelf(Arc<Mutex<HashMap<Key, Slot>>>, Clock);

/// What is under a key: an entry, a fill marker (it has a token), or a pass marker (it has neither).
#[derive(Clone, Debug)]
struct Slot(Option<Entry>, Option<Token>, Option<Moment>);

fn slot(new: Entry, now: Moment, ttl: Option<Duration>, fresh: Option<Duration>) -> Option<Slot> {
    let times = Times::starting(now, ttl, fresh);
    Some(Slot(Some(new.with_times(times)), None, times.expires))
}

fn entry(slot: &Option<Slot>) -> Option<&Entry> {
    slot.as_ref()?.0.as_ref()
}

impl Shelf {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        Shelf(Arc::default(), clock)
    }

    // One atomic step: what is there now, and what is there afterwards. What has ended is not there.
    fn at<T>(&self, key: &Key, step: impl FnOnce(&mut Option<Slot>, Moment) -> T) -> T {
        let (mut map, now) = (self.0.lock(), self.1.now());
        let mut slot = map.remove(key).filter(|slot| slot.2.is_none_or(|end| now < end));
        let answer = step(&mut slot, now);
        map.extend(slot.map(|slot| (key.clone(), slot)));
        answer
    }

    // Something else in the place of that very marker.
    fn swap(&self, key: &Key, token: Token, after: Option<Slot>) -> bool {
        self.at(key, |old, _| {
            old.take_if(|old| old.1 == Some(token)).map(|_| *old = after).is_some()
        })
    }

    // The record of a tag or of the sequence; `next` says what becomes of it.
    fn record(&self, key: &Key, next: impl Fn(Option<Sequence>) -> Sequence) -> Sequence {
        self.at(key, |old, now| {
            let next = next(entry(old).and_then(Entry::as_counter).and_then(Sequence::from_i64));
            *old = slot(Entry::integer(next.get()), now, None, None);
            next
        })
    }
}

impl Backend for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }
    fn abilities(&self) -> Abilities {
        Abilities { follows_clock: self.1.is_manual(), ..Abilities::default() }
    }
    fn clock(&self) -> &Clock {
        &self.1
    }
    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let sums =
            counters.iter().map(|key| self.at(key, |old, _| entry(old)?.as_counter())).collect();
        Ok(Found { entry: self.at(key, |old, _| entry(old).cloned()), counters: sums })
    }
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(keys.iter().map(|key| self.at(key, |slot, _| entry(slot).cloned())).collect())
    }
    async fn put(&self, key: &Key, new: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        new.encoded()?;
        Ok(self.at(key, |old, now| {
            let holds = match when {
                When::Always => true,
                When::Absent => entry(old).is_none(),
                When::Present => entry(old).is_some(),
                When::Revision(its) => entry(old).is_some_and(|old| old.revision() == its),
                When::Token(token) => old.as_ref().is_some_and(|old| old.1 == Some(token)),
            };
            let (left, fresh) = (ttl.resolve(Ttl::STANDARD), new.freshness());
            *old = if holds { slot(new, now, left, fresh) } else { old.take() };
            if holds { Outcome::Stored } else { Outcome::Refused }
        }))
    }
    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes = Vec::new();
        for Put { key, entry, ttl, when } in items {
            outcomes.push(self.put(&key, entry, ttl, when).await);
        }
        Ok(outcomes)
    }
    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let fits = |old: &mut Slot| only.is_none() || old.0.as_ref().map(Entry::revision) == only;
        Ok(self.at(key, |old, _| entry(&old.take_if(fits)).is_some()))
    }
    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let gone = |key: &&Key| self.at(key, |slot, _| entry(&slot.take()).is_some());
        Ok(keys.iter().filter(gone).count() as u64)
    }
    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let left = ttl.resolve(Ttl::STANDARD);
        let new = |old: &Option<Slot>, now| slot(entry(old)?.clone(), now, left, None);
        Ok(self.at(key, |old, now| new(old, now).map(|new| *old = Some(new)).is_some()))
    }
    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let refused = || Error::new(ErrorKind::NotAnInteger, "no integer, or the sum does not fit");
        let created = create.map(|new| (Some(new.initial), new.ttl.resolve(Ttl::STANDARD)));
        self.at(key, |old, now| {
            let found = entry(old).map(|old| (old.as_counter(), old.remaining(now)));
            let Some((value, left)) = found.or(created) else { return Ok(None) };
            let sum = value.and_then(|value| value.checked_add(delta)).ok_or_else(refused)?;
            *old = slot(Entry::integer(sum).with_revision(Revision::NONE), now, left, None);
            Ok(Some(sum))
        })
    }
    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let left = self.at(key, |slot, now| entry(slot).map(|entry| entry.remaining(now)));
        Ok(left.map_or(Remaining::Absent, |left| left.map_or(Remaining::Forever, Remaining::For)))
    }
    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        Ok(self.at(key, |slot, now| match slot {
            Some(Slot(Some(entry), ..)) => Begin::Found(entry.clone()),
            Some(Slot(_, Some(_), _)) => Begin::Busy,
            Some(_) => Begin::Pass,
            None => {
                let token = Token::random();
                *slot = Some(Slot(None, Some(token), Some(now + hold.min(Ttl::MAX))));
                Begin::Token(token)
            }
        }))
    }
    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        let end = self.1.now() + hold.min(Ttl::MAX);
        Ok(self.swap(key, token, Some(Slot(None, Some(token), Some(end)))))
    }
    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        let end = |pass: Duration| self.1.now() + pass.min(Ttl::MAX);
        Ok(self.swap(key, token, pass.map(|pass| Slot(None, None, Some(end(pass))))))
    }
    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let now = self.record(&Key::sequence(namespace), |old| old.unwrap_or_else(Sequence::start));
        let mark = |old: Option<Sequence>| old.filter(|old| old.same_epoch(now)).unwrap_or(now);
        let marks = tags.iter().map(|tag| self.record(&Key::tag(namespace, tag), mark));
        Ok(Marks { sequence: now, tags: marks.collect() })
    }
    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let next = |old: Option<Sequence>| old.unwrap_or_else(Sequence::start).next();
        let next = self.record(&Key::sequence(namespace), next);
        // The larger one wins, where two invalidate at once.
        let mark = |old: Option<Sequence>| old.filter(|old| old.same_epoch(next)).max(Some(next));
        for tag in tags {
            self.record(&Key::tag(namespace, tag), |old| mark(old).unwrap_or(next));
        }
        Ok(next)
    }
    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.0.lock().retain(|key, _| key.namespace() != namespace.as_str());
        Ok(())
    }
    async fn page(&self, _: &Prefix, _: Option<Cursor>, _: usize) -> Result<Page> {
        Err(Error::new(ErrorKind::Unsupported, "this store cannot list its keys"))
    }
}
