//! Values that are computed where they are missing.

use std::future::Future;
use std::sync::Arc;

use larder_core::{Key, Peek};

use crate::compute::Computing;
use crate::nested;
use crate::value::{cost_of, from_entry};
use crate::{Cache, CacheKey, Computed, Failure, Options, Value};

impl Cache {
    /// Reads a value, or computes and stores it.
    ///
    /// Callers of one key on one node share one computation. It runs in a task of its own: a caller that goes away
    /// harms nobody, and when all have left it still completes and is stored. What is set, deleted or invalidated
    /// while it runs is never overwritten or brought back by it: its callers get the value, and it is not stored. An
    /// error is given to every caller and nothing is stored; so is a panic, as a [`Failure`].
    ///
    /// The tags of what the computation reads from this cache, in its own task, are handed up: the value carries them
    /// too, so that what drops a part drops the whole. [`untracked`](crate::untracked) reads hand nothing up. A value with
    /// more than 512 tags is not stored.
    ///
    /// A caller waits at most [`Options::wait`] for somebody else's computation, then it computes for itself. With
    /// [`Options::stale_for`] the last good value stands in for a computation that fails, and with the timeouts for one
    /// that is slow; with [`Options::refresh_after`] a new value is made before the old one ends.
    ///
    /// # Errors
    ///
    /// The computation's own error, its panic or its [deadline](Options::deadline); a key or tag that cannot be used;
    /// a value that cannot be serialized. Never an outage of the store.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the computation running.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn get_or_compute<T, E, F, Fut>(
        &self,
        key: impl CacheKey,
        options: Options,
        compute: F,
    ) -> Result<Arc<T>, Failure>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.compute_at(self.key(&key)?, options, move |_| {
            let computing = compute();
            async move { computing.await.map(Computed::new) }
        })
        .await
    }

    /// Reads a value, or computes it, and lets the computation decide: its lifetime, its tags, whether it is stored at
    /// all, and whether the previous value still holds.
    ///
    /// The computation is given the value that is there already, if it is only stale or is being refreshed, to ask the
    /// source on a condition. Otherwise this is [`get_or_compute`](Cache::get_or_compute).
    ///
    /// ```
    /// use larder_cache::{Cache, Computed, Options};
    /// use std::time::Duration;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// let load = |_previous| async {
    ///     let product = "Teapot".to_owned(); // with the id 7, which only the source knows
    ///     Ok::<_, std::io::Error>(Computed::new(product).ttl(Duration::from_secs(60)).tag("product:7"))
    /// };
    /// let newest = cache.get_or_compute_with("newest", Options::new(), load).await?;
    /// assert_eq!(*newest, "Teapot");
    /// cache.invalidate_tag("product:7").await?;
    /// assert!(!cache.contains("newest").await?);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get_or_compute`](Cache::get_or_compute), and when the computation says [`Computed::unchanged`] where there
    /// was nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the computation running.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn get_or_compute_with<T, E, F, Fut>(
        &self,
        key: impl CacheKey,
        options: Options,
        compute: F,
    ) -> Result<Arc<T>, Failure>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Option<Arc<T>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Computed<T>, E>> + Send + 'static,
    {
        self.compute_at(self.key(&key)?, options, compute).await
    }

    pub(crate) async fn compute_at<T, E, F, Fut>(
        &self,
        key: Key,
        options: Options,
        compute: F,
    ) -> Result<Arc<T>, Failure>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Option<Arc<T>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Computed<T>, E>> + Send + 'static,
    {
        let store = self.store();
        // The usual case: a hit in memory, for which no computing needs to be set up.
        let now = store.clock().now();
        let mut due = false;
        if let Peek::Hit(entry) = store.peek_at(key.as_ref(), now)
            && entry.is_fresh(now)
            && let Some(value) = from_entry(&entry)
        {
            due = options.refreshes(entry.times(), now, || cost_of::<T>(&entry));
            if !due {
                nested::note(store, entry.tags());
                return Ok(value);
            }
        }
        // Boxed, since a hit's future would else have room for all of it.
        Box::pin(Computing { store, codec: self.codec(), options, due }.run(key, compute)).await
    }
}
