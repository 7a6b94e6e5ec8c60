//! The map itself: everything that touches quick_cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use larder_core::{Entry, Key, KeyRef};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

// What the map and the allocator need for an entry beside what the entry weighs: measured, rounded up.
const OVERHEAD: u64 = 336;

// What an entry weighs at a guess. Only the memory of what was evicted lately and the shards' number depend on it.
const USUAL: u64 = 2048;

// The part of the room that is for entries that are used often; newcomers have to prove themselves in the rest.
const HOT: f64 = 0.97;

// Readers of one shard share a lock; more shards than this no longer pay.
const MOST_SHARDS: u64 = 64;

/// What a memory backend holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Entries, expired ones that were not freed yet included.
    pub entries: u64,
    /// Bytes that they occupy.
    pub bytes: u64,
    /// Entries that were dropped before their time, since the start, to keep within the limit.
    pub evictions: u64,
}

/// A bounded concurrent map from keys to entries.
pub(crate) struct Map {
    cache: Cache<Key, Entry, Weight, RandomState, Evicting>,
    evictions: Arc<AtomicU64>,
    heaviest: u64,
}

impl Map {
    pub(crate) fn new(max_bytes: u64, max_entry_bytes: u64) -> Self {
        let evicting = Evicting::default();
        let evictions = evicting.0.clone();
        let shards = shards(max_bytes, max_entry_bytes);
        let items = (max_bytes / USUAL).max(32 * shards);
        let options = OptionsBuilder::new()
            .weight_capacity(max_bytes)
            .estimated_items_capacity(usize::try_from(items).unwrap_or(usize::MAX))
            .shards(usize::try_from(shards).unwrap_or(1))
            .hot_allocation(HOT)
            .build()
            // Both capacities are set.
            .unwrap_or_else(|_| unreachable!());
        let cache = Cache::with_options(options, Weight, RandomState::default(), evicting);
        // A shard keeps nothing that is heavier than its part for what is used often.
        let heaviest = (cache.shard_capacity() as f64 * HOT) as u64;
        Map { cache, evictions, heaviest }
    }

    /// Whether the map would keep it at all.
    pub(crate) fn fits(&self, key: &Key, entry: &Entry) -> bool {
        Weight.weight(key, entry) <= self.heaviest
    }

    #[inline]
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<Entry> {
        self.cache.get(key.as_bytes())
    }

    pub(crate) fn insert(&self, key: &Key, entry: Entry) {
        self.cache.insert(key.clone(), entry);
    }

    pub(crate) fn remove(&self, key: KeyRef<'_>) {
        self.cache.remove(key.as_bytes());
    }

    pub(crate) fn remove_if(&self, key: KeyRef<'_>, condition: impl FnOnce(&Entry) -> bool) {
        self.cache.remove_if(key.as_bytes(), condition);
    }

    pub(crate) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    /// All entries, one after the other: no lock is held between two.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Entry)> {
        self.cache.iter()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            entries: self.len(),
            bytes: self.cache.weight(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

/// As many shards as leave room in each for the heaviest entry: a shard that is too small for an entry never keeps it.
fn shards(max_bytes: u64, max_entry_bytes: u64) -> u64 {
    // Wire bytes weigh double, and a tenth of a shard is for newcomers.
    let heaviest = max_entry_bytes.saturating_mul(2) + 4096;
    let fit = (max_bytes - max_bytes / 10) / heaviest;
    let power = fit.max(1).ilog2();
    (1 << power).min(MOST_SHARDS)
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Entry> for Weight {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        (key.as_ref().as_bytes().len() + entry.weight()) as u64 + OVERHEAD
    }
}

/// Counts evictions, and keeps what leaves the map until its lock is free: dropping a value may run anybody's code.
#[derive(Clone, Default)]
struct Evicting(Arc<AtomicU64>);

impl Lifecycle<Key, Entry> for Evicting {
    type RequestState = Vec<(Key, Entry)>;

    // Not called for what is replaced.
    fn before_evict(&self, _: &mut Self::RequestState, _: &Key, _: &mut Entry) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn on_evict(&self, gone: &mut Self::RequestState, key: Key, entry: Entry) {
        gone.push((key, entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_room_for_the_heaviest_entry() {
        for max_bytes in (12..40).map(|n| 3 << n) {
            for part in [1, 2, 4, 16, 100, 1000] {
                let max_entry = max_bytes / part;
                let map = Map::new(max_bytes, max_entry);
                let shards = shards(max_bytes, max_entry);
                assert_eq!(map.cache.num_shards() as u64, shards);
                assert!(
                    shards == 1 || map.heaviest >= 2 * max_entry + OVERHEAD,
                    "{max_bytes}/{part}"
                );
            }
        }
        assert_eq!(shards(64 << 20, 4 << 20), 4);
        assert_eq!(shards(1 << 30, 4 << 20), 64);
    }
}
