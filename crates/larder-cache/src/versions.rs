//! Versions: the same names, apart.

use larder_core::{Entry, Remaining, Result, Revision, Ttl, When};

use crate::cache::Inner;
use crate::store::Lookup;
use crate::{Cache, CacheKey};

impl Cache {
    /// The same cache with names of its own: what is stored under one version is absent under every other, and under
    /// none. Raise the number when the form of the values changes, and old and new nodes can share a store.
    ///
    /// ```
    /// use larder_cache::Cache;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// cache.version(1).set("greeting", "hello".to_owned()).await?;
    /// assert!(cache.version(2).get::<String>("greeting").await?.is_none());
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn version(&self, version: u32) -> Cache {
        let version = Some(version.to_string().into());
        Cache::from(Inner { version, ..self.inner().clone() })
    }

    /// Moves a value to another version with what is left of its lifetime, tags included. False when there is none, or
    /// when it was changed while it was moved; what the other version had under this key is replaced.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked. The value may then be there under both versions.
    pub async fn move_to_version(&self, key: impl CacheKey, version: u32) -> Result<bool> {
        let (from, to) = (self.key(&key)?, self.version(version).key(&key)?);
        let store = self.store();
        let Lookup::Hit(entry) = store.lookup(&from, &[]).await? else { return Ok(false) };
        let ttl = match store.remaining(&from).await? {
            Remaining::Absent => return Ok(false),
            Remaining::Forever => Ttl::Forever,
            Remaining::For(left) => Ttl::For(left),
        };
        if from == to {
            return Ok(true);
        }
        let now = store.clock().now();
        let copy = entry.clone().with_revision(Revision::random());
        let fresh_until = entry.times().and_then(|times| times.fresh_until);
        let copy =
            fresh_until.into_iter().fold(copy, |copy, until| copy.fresh_for(until.since(now)));
        let revision = |entry: &Entry| entry.as_counter().is_none().then(|| entry.revision());
        let (old, new) = (revision(&entry), revision(&copy));
        store.detach(&to);
        let _ = store.put(&to, copy, ttl, When::Always).await?;
        store.detach(&to);
        let moved = store.remove(&from, old).await?;
        store.detach(&from);
        if !moved {
            // What somebody deletes must not come back under another version.
            store.remove(&to, new).await?;
        }
        Ok(moved)
    }
}
