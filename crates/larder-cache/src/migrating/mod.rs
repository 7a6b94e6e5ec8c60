//! From one store to another without losing what is in the first.

mod mover;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_core::order::Order;
use larder_core::{Backend, Error, ErrorKind, Result};

use mover::Mover;

/// Two stores: what is written goes to the new one, and what is still in the old one is moved over when it is asked for.
/// It is a backend like any other:
///
/// ```
/// use larder_cache::{Cache, Migrating};
/// use larder_memory::MemoryBackend;
/// # use larder_memory::MemoryBackend as RedisBackend;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let (redis, old) = (RedisBackend::default(), MemoryBackend::default());
/// Cache::new(old.clone()).set("greeting", "hello".to_owned()).await?;
/// let store = Migrating::new(redis, old)?;
/// let cache = Cache::new(store.clone());
/// assert!(cache.get::<String>("greeting").await?.is_some());
/// assert_eq!(store.progress().moved, 1);
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
///
/// # What a reader may see
///
/// The same as with one store. A key is in one of the two, and whoever changes it moves it first: with its revision, what
/// is left of its lifetime, and its tags, for which it is given a number of the new store's sequence. So conditions,
/// counters, fills and touches hold as they would in the new store alone. Removals, clears and invalidations are done in
/// the old store first and then in the new one, and what is on its way between them meanwhile does not arrive: nothing
/// that was removed, replaced or invalidated comes back.
///
/// * A value is read from the new store in one round trip. What is in neither costs three. The first reading of what is
///   in the old one costs some six, once.
/// * Either store being gone is an error: an old value that cannot be asked for is not the same as none.
/// * What the new store is too small for is gone when it is moved.
/// * Fill markers, locks and pass marks are not moved: let computations that run on the old store end first, or be done
///   twice.
/// * A tag's invalidation from before the move is known to the old store alone. It is checked when a value is moved.
/// * A node that still sees what was cleared in an old store with a [`clear_delay`] may move it meanwhile, and there it
///   stays until it ends. Where a clear must be sure, clear a second time after that delay.
///
/// # How to move
///
/// 1. Let every node use the two. Nodes that still use the old one alone go on: what they write is seen wherever the new
///    store has nothing for the key, and what others have moved or removed they miss. Keep this step short.
/// 2. Wait until hardly anything is found in the old store ([`progress`](Migrating::progress); it is also told in the
///    log, once a minute at most), or for the longest lifetime that you use.
/// 3. Let every node use the new one alone.
///
/// # Cancel safety
///
/// Dropping the future of a removal, a clear, an invalidation or an unconditional put leaves it running, so that it is
/// done in both stores. Anything else happens wholly or not at all; a key may have been moved by it.
///
/// [`clear_delay`]: larder_core::Abilities::clear_delay
pub struct Migrating<N, O>(Arc<Inner<N, O>>);

struct Inner<N, O> {
    new: N,
    old: O,
    mover: Mover,
    writes: Order,
}

/// How far a move is: what readers have found since the start of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Entries that were found in the new store at once.
    pub new: u64,
    /// Entries that were found in the old one.
    pub old: u64,
    /// Keys that were in neither.
    pub neither: u64,
    /// Entries that were moved, by readers and by writers.
    pub moved: u64,
}

#[derive(Default)]
struct Counts {
    new: AtomicU64,
    old: AtomicU64,
    neither: AtomicU64,
    moved: AtomicU64,
}

impl Counts {
    fn progress(&self) -> Progress {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Progress {
            new: read(&self.new),
            old: read(&self.old),
            neither: read(&self.neither),
            moved: read(&self.moved),
        }
    }
}

impl<N, O> Clone for Migrating<N, O> {
    fn clone(&self) -> Self {
        Migrating(self.0.clone())
    }
}

impl<N: Backend, O: Backend> Migrating<N, O> {
    /// Moves from the old store to the new one. Both need the same clock.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when the clocks differ, the new store keeps nothing, or the old one is
    /// read from replicas or from copies: what was removed there, and is still read, would be moved.
    pub fn new(new: N, old: O) -> Result<Self> {
        if !new.clock().is_same(old.clock()) {
            return Err(wrong("the two stores of a move need the same clock"));
        }
        if new.abilities().forgets {
            return Err(wrong("the new store keeps nothing, so what is moved there would be lost"));
        }
        if old.abilities().copies {
            return Err(wrong(
                "what a copy still shows would be moved; name the durable store itself as the old one",
            ));
        }
        if !old.abilities().read_delay.is_zero() {
            return Err(wrong(
                "what a replica is late to forget would be moved; read the old store from its primary (read=primary)",
            ));
        }
        Ok(Migrating(Arc::new(Inner {
            new,
            old,
            mover: Mover::default(),
            writes: Order::default(),
        })))
    }

    /// The store that is moved to.
    pub fn new_store(&self) -> &N {
        &self.0.new
    }

    /// The store that is moved from.
    pub fn old_store(&self) -> &O {
        &self.0.old
    }

    /// How far the move is, as far as this process has seen.
    pub fn progress(&self) -> Progress {
        self.0.mover.counts.progress()
    }
}

impl<N, O> fmt::Debug for Migrating<N, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrating")
            .field("progress", &self.0.mover.counts.progress())
            .finish_non_exhaustive()
    }
}

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend("migrating")
}
