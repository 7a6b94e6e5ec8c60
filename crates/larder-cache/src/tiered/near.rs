//! The near store: what this node has read lately, and what allows it to be read once more.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use larder_core::{
    Backend, Clock, Entry, Key, KeyRef, Mark, Moment, Namespace, Peek, Sequence, Tag,
};
use larder_memory::MemoryBackend;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Entries of another store, each with conditions: that this node trusts what it has, that the entry is not older than
/// the ceiling, that its namespace was not cleared, and that none of its tags was invalidated.
pub(super) struct Near {
    memory: MemoryBackend,
    clock: Clock,
    began: Moment,
    slice: u64,
    // How many slices of time have passed: an entry is good for the one in which it was read and for the next.
    slices: Arc<AtomicI64>,
    // Moved when nothing that is here may be used any more.
    trust: Arc<AtomicI64>,
    // False while messages may be missing: then nothing is read here, and nothing kept.
    hears: AtomicBool,
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
    namespaces: Mutex<Namespaces>,
    clear_delay: Duration,
}

#[derive(Default)]
struct Stripe {
    // Moved by whatever happens to one of its keys or tags: what was read before is not kept afterwards.
    stamp: u64,
    // By the keys of tags' records: the last invalidations that this node knows.
    tags: HashMap<Key, Arc<AtomicI64>>,
    sweep_at: usize,
}

#[derive(Default)]
struct Namespaces {
    cleared: HashMap<Namespace, Cleared>,
    // Any of them may have been cleared, and nobody told: until then a read may show what was there.
    until: Option<Instant>,
}

#[derive(Default)]
struct Cleared {
    generation: Arc<AtomicI64>,
    // A read that began before that may still show what was there.
    until: Option<Instant>,
}

/// What was known before something was read from the store: if it has changed by then, what was read is not kept.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    number: u64,
    taken: Instant,
}

const STRIPES: usize = 256;

impl Near {
    pub(super) fn new(
        memory: MemoryBackend,
        ceiling: Duration,
        clear_delay: Duration,
        hears: bool,
    ) -> Self {
        let clock = memory.clock().clone();
        Near {
            began: clock.now(),
            // With two slices no entry is older than the ceiling, and none is given up before half of it.
            slice: nanos(ceiling / 2).max(1),
            slices: Arc::default(),
            trust: Arc::default(),
            hears: AtomicBool::new(hears),
            hasher: RandomState::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            namespaces: Mutex::default(),
            clear_delay,
            clock,
            memory,
        }
    }

    pub(super) fn usage(&self) -> larder_memory::Usage {
        self.memory.usage()
    }

    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn peek(&self, key: KeyRef<'_>, now: Moment) -> Option<Entry> {
        if !self.hears() {
            return None;
        }
        self.passed(now);
        match self.memory.peek(key, now) {
            Peek::Hit(entry) => Some(entry),
            Peek::Miss | Peek::Ask => None,
        }
    }

    // Time goes on for all entries at once.
    fn passed(&self, now: Moment) -> i64 {
        let slices = nanos(now.since(self.began)) / self.slice;
        let slices = i64::try_from(slices).unwrap_or(i64::MAX - 1);
        if self.slices.load(Ordering::Relaxed) < slices {
            self.slices.fetch_max(slices, Ordering::AcqRel);
        }
        slices
    }

    pub(super) fn stamp(&self, key: &Key) -> Stamp {
        Stamp { taken: Instant::now(), number: self.stripe(key).lock().stamp }
    }

    /// Keeps an entry that was read since the stamp was taken, if it may be kept. Its tags have to be known: those that
    /// are not, the caller is about to ask for, and the next read keeps it.
    pub(super) fn keep(&self, key: &Key, entry: &Entry, stamp: Stamp) {
        if !self.hears() || !is_kept(key) || entry.times().is_none() {
            return;
        }
        let Some(marks) = self.marks(key, entry, stamp) else { return };
        let stripe = self.stripe(key).lock();
        if stripe.stamp == stamp.number {
            self.memory.keep(key, entry.clone().with_marks(marks));
        }
    }

    fn marks(&self, key: &Key, entry: &Entry, stamp: Stamp) -> Option<Vec<Mark>> {
        let slices = self.passed(self.clock.now());
        let trust = self.trust.load(Ordering::Acquire);
        let mut marks = Vec::with_capacity(3 + entry.tags().len());
        marks.push(Mark::new(self.trust.clone(), trust));
        marks.push(Mark::new(self.slices.clone(), slices + 1));
        let namespace = Namespace::new(key.namespace()).ok()?;
        {
            let mut namespaces = self.namespaces.lock();
            let any = namespaces.until;
            let cleared = namespaces.cleared.entry(namespace.clone()).or_default();
            if [any, cleared.until].into_iter().flatten().any(|until| stamp.taken < until) {
                return None;
            }
            let generation = cleared.generation.load(Ordering::Acquire);
            marks.push(Mark::new(cleared.generation.clone(), generation));
        }
        // What is near is fresh: once one of its tags has expired, the store is asked.
        let expiring = entry.tags().iter().filter_map(Tag::expiring);
        for tag in entry.tags().iter().cloned().chain(expiring) {
            let record = Key::tag(&namespace, &tag);
            let last = self.stripe(&record).lock().tags.get(&record)?.clone();
            let known = Sequence::from_i64(last.load(Ordering::Acquire));
            if !entry.built_at().covers(known) {
                return None;
            }
            marks.push(Mark::new(last, entry.built_at().get()));
        }
        Some(marks)
    }

    /// Notes a tag's last invalidation as the store told it, if nothing has happened to the tag since the stamp was
    /// taken.
    pub(super) fn learn(&self, record: &Key, number: Sequence, stamp: Stamp) {
        let mut stripe = self.stripe(record).lock();
        if stripe.stamp == stamp.number && self.hears() {
            stripe.set(record, number);
        }
    }

    /// A key was written or removed, or is about to be.
    pub(super) fn forget(&self, key: &Key) {
        let mut stripe = self.stripe(key).lock();
        stripe.stamp += 1;
        self.memory.forget(key.as_ref());
    }

    /// Tags were invalidated; without a number, nobody knows how far.
    pub(super) fn invalidate(&self, namespace: &Namespace, tags: &[Tag], number: Option<Sequence>) {
        for tag in tags {
            let record = Key::tag(namespace, tag);
            let mut stripe = self.stripe(&record).lock();
            stripe.stamp += 1;
            match number {
                Some(number) => stripe.set(&record, number),
                None => stripe.unknow(&record),
            }
        }
    }

    /// A namespace was cleared.
    pub(super) fn clear(&self, namespace: &Namespace) {
        // What is being read is not kept. First, so that whoever reads later is measured by the new generation.
        for stripe in &self.stripes {
            stripe.lock().stamp += 1;
        }
        let mut namespaces = self.namespaces.lock();
        let cleared = namespaces.cleared.entry(namespace.clone()).or_default();
        cleared.until = Some(Instant::now() + self.clear_delay);
        cleared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Nothing that is here may be used any more; what is read from now on may be kept, once the store no longer shows what
    /// may have been cleared.
    pub(super) fn distrust(&self) {
        self.namespaces.lock().until = Some(Instant::now() + self.clear_delay);
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            stripe.stamp += 1;
            // An invalidation may be among what was missed.
            stripe.tags.clear();
        }
        // Last: whoever sees it moved has seen the tags go.
        self.trust.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether messages arrive. While they do not, nothing is read here and nothing kept.
    pub(super) fn set_hears(&self, hears: bool) {
        if hears {
            // What is being read now may have been changed before anybody could tell us.
            self.distrust();
        }
        self.hears.store(hears, Ordering::Release);
        if !hears {
            self.distrust();
        }
    }

    fn stripe(&self, key: &Key) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

impl Stripe {
    // Numbers of one epoch only grow. Those of different ones cannot be compared: then nothing that depends on the old
    // one holds.
    fn set(&mut self, record: &Key, number: Sequence) {
        if let Some(last) = self.tags.get(record) {
            let known = Sequence::from_i64(last.load(Ordering::Acquire));
            if known.is_some_and(|known| known.same_epoch(number)) {
                last.fetch_max(number.get(), Ordering::AcqRel);
                return;
            }
            self.unknow(record);
        }
        if self.tags.len() >= self.sweep_at {
            self.tags.retain(|_, last| Arc::strong_count(last) > 1);
            self.sweep_at = (self.tags.len() * 2).max(64);
        }
        self.tags.insert(record.clone(), Arc::new(AtomicI64::new(number.get())));
    }

    fn unknow(&mut self, record: &Key) {
        if let Some(last) = self.tags.remove(record) {
            last.store(i64::MAX, Ordering::Release);
        }
    }
}

// 584 years are enough, and half as wide a number divides several times as fast.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// Sessions are read where they are written; sequences, records of tags and locks are no values.
fn is_kept(key: &Key) -> bool {
    let room = key.as_ref().parts().next().flatten();
    !matches!(room, Some(b"x" | b"q" | b"t" | b"l") | None)
}

#[cfg(test)]
mod tests {
    use larder_core::{Encoded, Times};

    use super::*;

    fn near() -> Near {
        near_with(Duration::ZERO)
    }

    fn near_with(clear_delay: Duration) -> Near {
        let (clock, _) = Clock::manual();
        let memory = MemoryBackend::builder().clock(clock).build().unwrap();
        Near::new(memory, Duration::from_secs(30), clear_delay, true)
    }

    fn shop() -> Namespace {
        Namespace::new("shop").unwrap()
    }

    fn key() -> Key {
        Key::new(&shop(), ["d", "a"]).unwrap()
    }

    fn tag() -> Tag {
        Tag::new("t").unwrap()
    }

    fn entry(near: &Near, built_at: Sequence) -> Entry {
        let entry = Entry::wire(Encoded { body: "x".into(), ..Encoded::default() });
        let times = Times::starting(near.clock.now(), None, None);
        entry.with_times(times).with_tags([tag()]).with_built_at(built_at)
    }

    // Reads it as a node does that knows the tag's record.
    fn is_kept_after(near: &Near, built_at: Sequence) -> bool {
        near.keep(&key(), &entry(near, built_at), near.stamp(&key()));
        near.peek(key().as_ref(), near.clock.now()).is_some()
    }

    #[test]
    fn a_record_that_was_read_before_an_invalidation_of_unknown_number_is_not_learnt_after_it() {
        let near = near();
        let record = Key::tag(&shop(), &tag());
        let (number, before) = (Sequence::start(), near.stamp(&record));
        near.invalidate(&shop(), &[tag()], None);
        near.learn(&record, number, before);
        assert!(!is_kept_after(&near, number), "the invalidation may have a larger number");
        near.learn(&record, number, near.stamp(&record));
        assert!(is_kept_after(&near, number));
        near.invalidate(&shop(), &[tag()], None);
        assert!(near.peek(key().as_ref(), near.clock.now()).is_none());
    }

    #[test]
    fn what_was_read_before_trust_was_lost_is_neither_learnt_nor_kept_after_it() {
        for lose in [Near::distrust as fn(&Near), |near| near.set_hears(true)] {
            let near = near();
            let record = Key::tag(&shop(), &tag());
            let number = Sequence::start();
            let (tag_read, key_read) = (near.stamp(&record), near.stamp(&key()));
            lose(&near);
            near.learn(&record, number, tag_read);
            near.keep(&key(), &entry(&near, number), key_read);
            assert!(!is_kept_after(&near, number), "its tag is not known");
            near.learn(&record, number, near.stamp(&record));
            near.keep(&key(), &entry(&near, number), key_read);
            assert!(near.peek(key().as_ref(), near.clock.now()).is_none());
            assert!(is_kept_after(&near, number));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_cleared_is_kept_when_the_store_no_longer_shows_it() {
        let delay = Duration::from_secs(1);
        for lose in [
            Near::distrust as fn(&Near),
            |near| near.set_hears(true),
            |near| {
                near.clear(&shop());
            },
        ] {
            let (near, number) = (near_with(delay), Sequence::start());
            lose(&near);
            let record = Key::tag(&shop(), &tag());
            near.learn(&record, number, near.stamp(&record));
            assert!(!is_kept_after(&near, number));
            tokio::time::advance(delay).await;
            assert!(is_kept_after(&near, number));
        }
    }

    #[test]
    fn records_that_nothing_near_depends_on_do_not_add_up() {
        let near = near();
        let number = Sequence::start();
        for n in 0..100_000 {
            let record = Key::tag(&shop(), &Tag::new(&format!("tag {n}")).unwrap());
            near.learn(&record, number, near.stamp(&record));
        }
        let known: usize = near.stripes.iter().map(|stripe| stripe.lock().tags.len()).sum();
        assert!(known <= STRIPES * 64, "{known}");
    }
}
