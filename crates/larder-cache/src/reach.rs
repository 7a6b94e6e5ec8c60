//! The backend behind a cache, for what Larder does not wrap.

use std::any::Any;

use larder_core::Backend;

use crate::erased::AnyBackend;
use crate::{Failover, Migrating, Progress, Store, WriteThrough};

impl Store {
    /// The backend of that type behind this store, for what Larder does not wrap: `RedisBackend`, `SqliteBackend` and so
    /// on, each of which tells how its client or its place is reached. In a store that a [URL](crate::Cache::connect)
    /// made of several, the first one of that type; `None` where there is none.
    ///
    /// What is changed past Larder it does not know of: nothing is told to other nodes, no tag falls.
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use larder_memory::MemoryBackend;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::connect("failover:null://|memory://?max_bytes=1MiB").await?;
    /// let memory: &MemoryBackend = cache.store().backend().expect("it is the second one");
    /// assert_eq!(memory.usage().entries, 0);
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    pub fn backend<B: Backend>(&self) -> Option<&B> {
        find(self.erased().as_any())
    }

    /// How far the move of a `migrating:` store is, as far as this process has seen; `None` where nothing moves.
    pub fn progress(&self) -> Option<Progress> {
        self.backend::<Migrating<AnyBackend, AnyBackend>>().map(Migrating::progress)
    }
}

fn find<B: Any>(store: &dyn Any) -> Option<&B> {
    if let Some(found) = store.downcast_ref() {
        return Some(found);
    }
    within(store).into_iter().flatten().find_map(|part| find(part.as_any()))
}

// The stores of which one consists that a URL made.
fn within(store: &dyn Any) -> [Option<&AnyBackend>; 2] {
    if let Some(pair) = store.downcast_ref::<Failover<AnyBackend, AnyBackend>>() {
        return [Some(pair.primary()), Some(pair.standby())];
    }
    if let Some(pair) = store.downcast_ref::<WriteThrough<AnyBackend, AnyBackend>>() {
        return [Some(pair.cache()), Some(pair.durable())];
    }
    if let Some(pair) = store.downcast_ref::<Migrating<AnyBackend, AnyBackend>>() {
        return [Some(pair.new_store()), Some(pair.old_store())];
    }
    #[cfg(feature = "memory")]
    if let Some(tiers) = store.downcast_ref::<crate::Tiered<AnyBackend>>() {
        return [Some(tiers.remote()), None];
    }
    #[cfg(any(feature = "zstd", feature = "lz4", feature = "encryption"))]
    if let Some(packed) = store.downcast_ref::<crate::Packed<AnyBackend>>() {
        return [Some(packed.store()), None];
    }
    [None, None]
}
