//! Everything that is dropped together.

use larder_core::{Cursor, Error, ErrorKind, Prefix, Result, Sequence, Tag};

use crate::{Cache, CacheKey, KeyName};

// So many keys are removed in one round trip.
const PAGE: usize = 500;

impl Cache {
    /// Empties this cache's namespace, and nothing else on the server. Other nodes see it within a second.
    ///
    /// # Errors
    ///
    /// When it was not confirmed.
    pub async fn clear(&self) -> Result<()> {
        self.store().clear().await
    }

    /// Invalidates every value, fragment and response that carries the tag, on every node, at the same cost for one
    /// and for a million.
    ///
    /// # Errors
    ///
    /// When it was not confirmed, or the tag cannot be used.
    pub async fn invalidate_tag(&self, tag: &str) -> Result<()> {
        self.invalidate_tags([tag]).await.map(drop)
    }

    /// Invalidates several tags in one step; its number in the namespace's sequence.
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Cache::invalidate_tag).
    pub async fn invalidate_tags<T: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<Sequence> {
        self.store().invalidate(&checked(tags)?).await
    }

    /// Has every value, fragment and response that carries the tag expire, on every node: what is kept for a time as a
    /// [stale](crate::Options::stale_for) one is stale from now on, and bridges a computation that fails or is slow; all else is
    /// invalidated. For a source that is slow or down at times, and changes that need not be seen at any price.
    ///
    /// ```
    /// use larder_cache::{Cache, Options};
    /// use std::time::Duration;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// let options = || Options::new().tag("prices").stale_for(Duration::from_secs(3600));
    /// cache.get_or_compute("price", options(), || async { Ok::<_, std::io::Error>(1999_i64) }).await?;
    /// cache.expire_tag("prices").await?;
    /// assert!(!cache.contains("price").await?);
    /// let down = || async { Err::<i64, _>(std::io::Error::other("the source is down")) };
    /// assert_eq!(*cache.get_or_compute("price", options(), down).await?, 1999);
    /// cache.invalidate_tag("prices").await?;
    /// assert!(cache.get_or_compute("price", options(), down).await.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Cache::invalidate_tag).
    pub async fn expire_tag(&self, tag: &str) -> Result<()> {
        self.expire_tags([tag]).await.map(drop)
    }

    /// Has several tags expire in one step; its number in the namespace's sequence.
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Cache::invalidate_tag).
    pub async fn expire_tags<T: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<Sequence> {
        self.store().expire(&checked(tags)?).await
    }

    /// Invalidates one value, whether or not there is one: a computation that is running for it is not stored.
    ///
    /// # Errors
    ///
    /// As [`delete`](Cache::delete).
    pub async fn invalidate_key(&self, key: impl CacheKey) -> Result<()> {
        self.delete(key).await.map(drop)
    }

    /// The prefix of all keys of this handle: narrow it with [`Prefix::part`] and [`Prefix::starting_with`], for
    /// [`keys`](Cache::keys) and [`delete_prefix`](Cache::delete_prefix).
    ///
    /// Every character means itself; there are no patterns.
    pub fn prefix(&self) -> Prefix {
        let prefix = Prefix::new(self.store().namespace());
        self.room().into_iter().fold(prefix, |prefix, part| prefix.part(part))
    }

    /// Pages through the keys that begin like that, about `limit` at a time. What is there the whole time is seen, what
    /// comes or goes meanwhile may be; on a server, [counters](Cache::incr) are not seen, since they repeat no key.
    ///
    /// ```
    /// use larder_cache::Cache;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// cache.set(("product", 7), "Teapot".to_owned()).await?;
    /// let page = cache.keys(&cache.prefix().part("product"), None, 100).await?;
    /// assert_eq!(page.keys[0].to_string(), "product/7");
    /// assert_eq!(*cache.get::<String>(&page.keys[0]).await?.unwrap(), "Teapot");
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unsupported`](larder_core::ErrorKind::Unsupported) where the store cannot page, a prefix that another handle
    /// gave, and when the store cannot be asked.
    pub async fn keys(
        &self,
        prefix: &Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<KeyPage> {
        self.check(prefix)?;
        let page = self.store().page(prefix, from, limit).await?;
        let names = page.keys.iter().map(|key| KeyName::of(key, self.room().len()));
        Ok(KeyPage { keys: names.collect(), next: page.next })
    }

    /// Removes every value whose key begins like that, page by page; how many there were. Computations that run for
    /// such keys on this node are not stored.
    ///
    /// It takes as long as there are keys, and a value that is stored meanwhile may stay: what has to go at once, and
    /// surely, needs a [tag](Cache::invalidate_tag).
    ///
    /// ```
    /// use larder_cache::Cache;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// cache.set(("cart", 7), 1_i64).await?;
    /// cache.set("cart:7", 1_i64).await?;
    /// assert_eq!(cache.delete_prefix(&cache.prefix().part("cart")).await?, 1);
    /// assert_eq!(cache.delete_prefix(&cache.prefix().starting_with("cart:")).await?, 1);
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`keys`](Cache::keys), and as [`delete`](Cache::delete). What was removed until then is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the rest where it is.
    pub async fn delete_prefix(&self, prefix: &Prefix) -> Result<u64> {
        self.check(prefix)?;
        let store = self.store();
        store.detach_prefix(prefix).await;
        let (mut removed, mut from) = (0, None);
        loop {
            let page = store.page(prefix, from, PAGE).await?;
            removed += store.remove_many(&page.keys).await?;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        store.detach_prefix(prefix).await;
        Ok(removed)
    }

    // A prefix of another handle would reach into other rooms: into responses, or another version.
    fn check(&self, prefix: &Prefix) -> Result<()> {
        if prefix.is_within(&self.prefix()) {
            return Ok(());
        }
        let words = "the prefix is not one of this cache: begin it with Cache::prefix";
        Err(Error::new(ErrorKind::InvalidKey, words))
    }
}

fn checked<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Result<Vec<Tag>> {
    tags.into_iter().map(|tag| Tag::new(tag.as_ref())).collect()
}

/// Some keys of a [prefix](Cache::keys).
#[derive(Clone, Debug)]
pub struct KeyPage {
    /// The keys; a page may be empty and not the last one.
    pub keys: Vec<KeyName>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}
