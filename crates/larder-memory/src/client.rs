//! The map itself: everything that touches moka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use larder_core::{Clock, Entry, Key, KeyRef};
use moka::Expiry;
use moka::notification::RemovalCause;

// What moka and the allocator need for an entry beside what the entry weighs: measured, rounded up.
const OVERHEAD: usize = 480;

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
    cache: moka::sync::Cache<Key, Entry, RandomState>,
    evictions: Arc<AtomicU64>,
}

impl Map {
    pub(crate) fn new(max_bytes: u64, clock: &Clock) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = evictions.clone();
        let cache = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, entry: &Entry| weight(key, entry))
            .expire_after(Freeing { clock: clock.clone() })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(RandomState::default());
        Map { cache, evictions }
    }

    #[inline]
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<Entry> {
        self.cache.get(key.as_bytes())
    }

    pub(crate) fn insert(&self, key: &Key, entry: Entry) {
        self.cache.insert(key.clone(), entry);
    }

    pub(crate) fn remove(&self, key: KeyRef<'_>) -> Option<Entry> {
        self.cache.remove(key.as_bytes())
    }

    pub(crate) fn len(&self) -> u64 {
        self.cache.entry_count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Arc<Key>, Entry)> {
        self.cache.iter()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.cache.run_pending_tasks();
        Usage {
            entries: self.cache.entry_count(),
            bytes: self.cache.weighted_size(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

fn weight(key: &Key, entry: &Entry) -> u32 {
    let bytes = key.as_ref().as_bytes().len() + entry.weight() + OVERHEAD;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Lets moka free entries at their end. Whether an entry may still be read is never decided here.
struct Freeing {
    clock: Clock,
}

impl Freeing {
    fn left(&self, entry: &Entry) -> Option<Duration> {
        // moka counts real time, a manual clock does not.
        if self.clock.is_manual() { None } else { entry.remaining(self.clock.now()) }
    }
}

impl Expiry<Key, Entry> for Freeing {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: Instant) -> Option<Duration> {
        self.left(entry)
    }

    // Without this, an overwritten entry would keep the old one's end.
    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.left(entry)
    }
}
