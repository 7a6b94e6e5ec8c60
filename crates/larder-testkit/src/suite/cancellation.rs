//! Futures that are dropped before they are ready.

use std::sync::Arc;

use larder_core::{
    Backend, Begin, Counter, Entry, Key, Namespace, Payload, Prefix, Revision, Sequence, Token,
    Ttl, When,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::steps::{LONG, body, item, tag, text};
use crate::Harness;
use crate::cancel::drop_later;

const KEYS: usize = 16;
const TASKS: usize = 8;

/// Every verb is dropped at random polls, many times over; no reply ever reaches another caller, and everything goes
/// on working.
pub async fn dropped_futures_harm_nobody<B: Backend>(h: &Harness<B>) {
    let seed = std::env::var("LARDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    let drops = h.sizes().drops / TASKS;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let work = Work::new(h, task, seed);
            tokio::spawn(work.run(drops))
        })
        .collect();
    for task in tasks {
        if let Err(error) = task.await {
            panic!("with LARDER_SEED={seed}: {error}");
        }
    }

    for n in 0..KEYS {
        let (key, counter) = (h.key(format!("drop {n}")), h.key(format!("count {n}")));
        h.store(&key, text(format!("own {n} at last")), LONG).await;
        h.expect_body(&key, &format!("own {n} at last"), "the backend works as before").await;
        h.store(&counter, Entry::integer(7), LONG).await;
        let added = h.backend().add(&counter, 1, None).await.expect("add");
        assert_eq!(added, Some(8), "the backend counts as before");
        h.remove(&key).await;
        let token = h.token(&key, LONG).await;
        let filled = h.fill(&key, text("filled"), token).await;
        assert_eq!(filled, larder_core::Outcome::Stored, "the backend fills as before");
    }
    let before = h.backend().marks(h.namespace(), &[tag("a")]).await.expect("marks");
    let next = h.backend().invalidate(h.namespace(), &[tag("a")]).await.expect("invalidate");
    assert!(next > before.sequence, "the backend invalidates as before");
    h.backend().clear(h.namespace()).await.expect("clear");
    h.expect_absent(&h.key("drop 0"), "the backend clears as before").await;
}

/// A write that was dropped has happened wholly or not at all.
pub async fn dropped_writes_are_whole<B: Backend>(h: &Harness<B>) {
    let mut random = StdRng::seed_from_u64(7);
    let key = h.key("whole");
    let value = |round: usize| format!("value {round}");
    h.store(&key, text(value(0)), LONG).await;
    for round in 1..=(h.sizes().drops / 20).max(20) {
        let put = h.backend().put(&key, text(value(round)), LONG.into(), When::Always);
        let (polls, turns) = (random.random_range(0..4), random.random_range(0..4));
        let done = drop_later(polls, turns, put).await;
        // What was asked may still be under way, so a later write settles it.
        let found = h.body(&key).await.expect("it was always there");
        let number: Option<usize> = found.strip_prefix("value ").and_then(|n| n.parse().ok());
        let number = number.unwrap_or_else(|| panic!("{found:?} was never written"));
        assert!(number <= round, "{found:?} was not written yet");
        assert!(done.is_none() || number == round, "a write that was answered has happened");
        h.store(&key, text(value(round)), LONG).await;
    }
}

/// A write that was dropped does not come after a later one of the same handle that was answered.
pub async fn dropped_writes_overtake_nothing<B: Backend>(h: &Harness<B>) {
    let mut random = StdRng::seed_from_u64(8);
    // What takes long is the more easily overtaken.
    let most = h.backend().abilities().max_bytes.map_or(LARGE, |most| most as usize / 2);
    let large = "x".repeat(most.min(LARGE));
    let keys: Vec<Key> = (0..64).map(|n| h.key(format!("order {n}"))).collect();
    for key in &keys {
        let put = h.backend().put(key, text(large.clone()), LONG.into(), When::Always);
        drop_later(random.random_range(1..4), random.random_range(0..4), put).await;
        h.store(key, text("later"), LONG).await;
    }
    // However long this is, it fails nobody who is right.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    for key in &keys {
        let found = h.body(key).await;
        assert!(found.as_deref() == Some("later"), "what was dropped came after what was answered");
    }
}

const LARGE: usize = 200 * 1024;

struct Work<B> {
    backend: Arc<B>,
    namespace: Namespace,
    keys: Vec<Key>,
    counters: Vec<Key>,
    random: StdRng,
}

impl<B: Backend> Work<B> {
    fn new(h: &Harness<B>, task: usize, seed: u64) -> Self {
        Work {
            backend: h.shared(),
            namespace: h.namespace().clone(),
            keys: (0..KEYS).map(|n| h.key(format!("drop {n}"))).collect(),
            counters: (0..KEYS).map(|n| h.key(format!("count {n}"))).collect(),
            random: StdRng::seed_from_u64(seed.wrapping_add(task as u64)),
        }
    }

    async fn run(mut self, drops: usize) {
        let mut dropped = 0;
        // A local backend's futures are ready at once unless they are never polled.
        for _ in 0..drops * 4 {
            dropped += usize::from(self.one().await);
            if dropped == drops {
                break;
            }
        }
    }

    // One verb, perhaps to its end. True when it was dropped.
    async fn one(&mut self) -> bool {
        let n = self.random.random_range(0..KEYS);
        let (polls, turns) = (self.random.random_range(0..5), self.random.random_range(0..4));
        let (b, key, counter) = (self.backend.clone(), &self.keys[n], &self.counters[n]);
        let own = |entry: &Entry, n: usize| {
            let value = body(entry);
            assert!(value.starts_with(&format!("own {n} ")), "key {n} reads {value:?}");
        };
        let ours = |sum: Option<i64>| {
            let owner = sum.map(|sum| sum.div_euclid(1_000_000));
            assert!(owner.is_none_or(|owner| owner == n as i64), "counter {n} answers {sum:?}");
        };
        macro_rules! drop_it {
            ($future:expr) => {
                match drop_later(polls, turns, $future).await {
                    Some(answer) => answer.expect("no verb fails because others were dropped"),
                    None => return true,
                }
            };
        }
        let entry = text(format!("own {n} round {}", self.random.random::<u32>()));
        let create = Some(Counter { initial: n as i64 * 1_000_000, ttl: LONG.into() });
        let tags = [tag("a"), tag("b")];
        match self.random.random_range(0..18) {
            0 | 1 => {
                let found = drop_it!(b.get(key, std::slice::from_ref(counter)));
                found.entry.iter().for_each(|entry| own(entry, n));
                ours(found.counters[0]);
            }
            2 => {
                let found = drop_it!(b.get_many(&self.keys));
                assert_eq!(found.len(), KEYS, "there is an answer for every key");
                for (n, entry) in found.iter().enumerate() {
                    entry.iter().for_each(|entry| own(entry, n));
                }
            }
            3 | 4 => {
                let whens = [When::Always, When::Absent, When::Present];
                let when = whens[self.random.random_range(0..3)];
                let _ = drop_it!(b.put(key, entry, LONG.into(), when));
            }
            5 => {
                let items = (0..KEYS).map(|n| {
                    item(&self.keys[n], text(format!("own {n} many")), LONG, When::Always)
                });
                let outcomes = drop_it!(b.put_many(items.collect()));
                assert_eq!(outcomes.len(), KEYS, "there is an answer for every item");
            }
            6 => drop(drop_it!(b.remove(key, None))),
            7 => {
                let removed = drop_it!(b.remove(key, Some(Revision::random())));
                assert!(!removed, "nobody wrote that revision");
            }
            8 => {
                let removed = drop_it!(b.remove_many(&self.keys));
                assert!(removed <= KEYS as u64, "{removed} of {KEYS} cannot be");
            }
            9 => drop(drop_it!(b.touch(key, Ttl::Forever))),
            10 => ours(drop_it!(b.add(counter, 1, create))),
            11 => drop(drop_it!(b.remaining(key))),
            12 => {
                let begun = drop_it!(b.begin(key, LONG));
                match begun {
                    Begin::Found(entry) => own(&entry, n),
                    Begin::Token(token) => {
                        let when = When::Token(token);
                        let _ = drop_it!(b.put(key, entry, LONG.into(), when));
                    }
                    Begin::Busy | Begin::Pass => {}
                }
            }
            13 => {
                let renewed = drop_it!(b.renew(key, Token::random(), LONG));
                assert!(!renewed, "nobody gave that token");
            }
            14 => {
                let released = drop_it!(b.release(key, Token::random(), None));
                assert!(!released, "nobody gave that token");
            }
            15 => {
                let marks = drop_it!(b.marks(&self.namespace, &tags));
                assert_eq!(marks.tags.len(), 2, "there is an answer for every tag");
                let valid = Sequence::from_i64(marks.sequence.get()).is_some();
                assert!(valid, "{:?} is no number of a sequence", marks.sequence);
            }
            16 => {
                let next = drop_it!(b.invalidate(&self.namespace, &tags));
                let valid = Sequence::from_i64(next.get()).is_some();
                assert!(valid, "{next:?} is no number of a sequence");
            }
            _ if !b.abilities().pages => {
                let found = drop_it!(b.get(counter, &[]));
                if let Some(entry) = found.entry {
                    assert!(matches!(entry.payload(), Payload::Integer(_)), "a counter is one");
                }
            }
            _ => {
                let prefix = Prefix::new(&self.namespace).part("kit").starting_with("drop");
                let page = drop_it!(b.page(&prefix, None, 5));
                let own = page.keys.iter().all(|key| self.keys.contains(key));
                assert!(own, "a page has another caller's keys");
            }
        }
        false
    }
}
