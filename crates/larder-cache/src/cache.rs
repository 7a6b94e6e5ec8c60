//! The handle that users hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Backend, Entry, Error, ErrorKind, Key, KeyBuf, KeyRef, Namespace, Outcome, Peek, Remaining,
    Result, Tag, Ttl, When,
};

use crate::builder::Builder;
use crate::key::{self, CacheKey};
use crate::nested;
use crate::store::{Lookup, Store};
use crate::value::{from_entry, to_kept_entry};
use crate::{Codec, Options, Value};

/// A cache: typed values in one namespace of a store. A clone is one reference count and the same cache.
///
/// # When the store fails
///
/// A cache that is down must not take its service along, and must not lie either:
///
/// | operation | when the store cannot be asked |
/// | --- | --- |
/// | [`get`](Cache::get), [`get_many`](Cache::get_many), [`contains`](Cache::contains) | a miss |
/// | [`get_or_compute`](Cache::get_or_compute) | computes, and gives the value |
/// | [`set`](Cache::set), [`set_many`](Cache::set_many) | the new value is lost (`set_many` tells which), and the old one is not read any more |
/// | everything whose answer would be a guess: `add`, `incr`, `touch`, `ttl` | the error |
/// | everything that must not be believed done: `delete`, `invalidate_tag`, `clear` | the error |
///
/// A key whose old value could be neither removed nor replaced reads as empty on this node, and its removal is tried
/// again once a second until the store confirms it or a new value is stored.
///
/// [`strict`](Cache::strict) gives a handle that tells every error. One time budget covers an operation, and a store
/// that keeps failing is given a pause in which nothing waits for it.
///
/// # Cancel safety
///
/// Every future may be dropped. A write that was sent happens wholly or not at all; a computation that was begun goes
/// on in a task of its own.
///
/// # Examples
///
/// ```
/// use larder_cache::{Cache, Options};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::memory();
/// cache.set("greeting", "hello".to_owned()).await?;
/// assert_eq!(*cache.get::<String>("greeting").await?.unwrap(), "hello");
/// assert!(cache.get::<String>("unknown").await?.is_none());
///
/// // One computation, however many callers; stored for a minute under a tag.
/// let options = Options::ttl(Duration::from_secs(60)).tag("products");
/// let names = cache
///     .get_or_compute("names", options, || async { Ok::<_, std::io::Error>(vec!["Teapot".to_owned()]) })
///     .await?;
/// assert_eq!(names.len(), 1);
///
/// cache.invalidate_tag("products").await?;
/// assert!(cache.get::<Vec<String>>("names").await?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) codec: Codec,
    pub(crate) strict: bool,
    // Its digits, as they stand in keys.
    pub(crate) version: Option<Box<str>>,
}

impl From<Inner> for Cache {
    fn from(inner: Inner) -> Self {
        Cache(Arc::new(inner))
    }
}

/// What [`Cache::lookup`] found.
#[derive(Debug)]
pub enum Found<T> {
    /// A value that is fresh.
    Fresh(Arc<T>),
    /// A value beyond its lifetime, kept by [`Options::stale_for`].
    Stale(Arc<T>),
    /// Something that was invalidated by a tag, or does not decode as `T`.
    Unusable,
    /// Nothing.
    Missing,
}

impl Cache {
    /// A cache in this process's memory: 64 MiB, 300 s unless told otherwise.
    #[cfg(feature = "memory")]
    pub fn memory() -> Self {
        Cache::builder(larder_memory::MemoryBackend::default()).build()
    }

    /// A cache over a backend, with the defaults of [`Builder`].
    pub fn new(backend: impl Backend) -> Self {
        Cache::builder(backend).build()
    }

    /// Configures a cache over a backend.
    pub fn builder(backend: impl Backend) -> Builder {
        Builder::new(backend)
    }

    /// The same store in a namespace of its own, named after this one: `shop` and `users` make `shop-users`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) when the two together are no namespace.
    pub fn namespace(&self, name: &str) -> Result<Cache> {
        let name = format!("{}-{name}", self.0.store.namespace().as_str());
        let store = self.0.store.in_namespace(Namespace::new(&name)?);
        Ok(Cache(Arc::new(Inner { store, ..(*self.0).clone() })))
    }

    /// The same cache, telling every error instead of treating an outage as a miss.
    #[must_use]
    pub fn strict(&self) -> Cache {
        Cache(Arc::new(Inner { strict: true, ..(*self.0).clone() }))
    }

    /// The strict handle on entries, for layers and sessions.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn codec(&self) -> Codec {
        self.0.codec
    }

    // The leading parts of all its keys.
    pub(crate) fn room(&self) -> Vec<&str> {
        match &self.0.version {
            None => vec![key::DATA],
            Some(version) => vec![key::VERSIONS, version],
        }
    }

    fn buf<K: CacheKey + ?Sized>(&self, key: &K) -> KeyBuf {
        let mut buf = KeyBuf::new(self.0.store.namespace());
        match &self.0.version {
            None => buf.push(key::DATA),
            Some(version) => {
                buf.push(key::VERSIONS);
                buf.push(&**version);
            }
        }
        key.write(&mut buf);
        buf
    }

    pub(crate) fn key<K: CacheKey + ?Sized>(&self, key: &K) -> Result<Key> {
        self.buf(key).key()
    }

    // An outage is `fallback`, unless the handle is strict. What is wrong with the call itself is always told.
    pub(crate) fn open<T>(&self, result: Result<T>, fallback: impl FnOnce() -> T) -> Result<T> {
        match result {
            Err(error) if !self.0.strict && !is_callers(&error) => {
                tracing::debug!(
                    backend = error.backend(),
                    kind = error.kind().as_str(),
                    "the cache failed open"
                );
                Ok(fallback())
            }
            result => result,
        }
    }

    /// Reads a value. On a memory hit nothing is decoded or copied: every reader shares the one value.
    ///
    /// A value that does not decode as `T` is a miss.
    ///
    /// # Errors
    ///
    /// When the key cannot be used; see also [the table](Cache#when-the-store-fails).
    pub async fn get<T: Value>(&self, key: impl CacheKey) -> Result<Option<Arc<T>>> {
        let buf = self.buf(&key);
        self.get_at(buf.as_ref()?).await
    }

    pub(crate) async fn get_at<T: Value>(&self, borrowed: KeyRef<'_>) -> Result<Option<Arc<T>>> {
        let now = self.0.store.clock().now();
        let entry = match self.0.store.peek_at(borrowed, now) {
            Peek::Hit(entry) => entry,
            Peek::Miss => return Ok(None),
            Peek::Ask => {
                let key = borrowed.to_key();
                match self.open(self.0.store.lookup(&key, &[]).await, || Lookup::Miss)? {
                    Lookup::Hit(entry) => entry,
                    Lookup::Invalidated(_) | Lookup::Miss => return Ok(None),
                }
            }
        };
        // Stale values are for computing alone.
        Ok(entry.is_fresh(now).then(|| self.read(&entry)).flatten())
    }

    /// Reads a value, stale or not, and tells what it is: for those who want to know why there is none.
    ///
    /// ```
    /// use larder_cache::{Cache, Found};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// assert!(matches!(cache.lookup::<String>("greeting").await?, Found::Missing));
    /// cache.set("greeting", "hello".to_owned()).await?;
    /// assert!(matches!(cache.lookup::<String>("greeting").await?, Found::Fresh(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// When the key cannot be used; see also [the table](Cache#when-the-store-fails).
    pub async fn lookup<T: Value>(&self, key: impl CacheKey) -> Result<Found<T>> {
        let key = self.key(&key)?;
        let entry = match self.open(self.0.store.lookup(&key, &[]).await, || Lookup::Miss)? {
            Lookup::Hit(entry) => entry,
            Lookup::Invalidated(_) => return Ok(Found::Unusable),
            Lookup::Miss => return Ok(Found::Missing),
        };
        let fresh = entry.is_fresh(self.0.store.clock().now());
        Ok(match self.read(&entry) {
            Some(value) if fresh => Found::Fresh(value),
            Some(value) => Found::Stale(value),
            None => Found::Unusable,
        })
    }

    pub(crate) fn read<T: Value>(&self, entry: &Entry) -> Option<Arc<T>> {
        let value = from_entry(entry);
        match value {
            Some(_) => nested::note(self.store(), entry.tags()),
            None => tracing::warn!("a cached value does not decode as the type it is read as"),
        }
        value
    }

    /// Reads a value together with the records of the tags that it is known to carry: one round trip where
    /// [`get`](Cache::get) takes two for a tagged value on a remote store.
    ///
    /// # Errors
    ///
    /// When the key or a tag cannot be used; see also [the table](Cache#when-the-store-fails).
    pub async fn get_tagged<T: Value>(
        &self,
        key: impl CacheKey,
        tags: &[&str],
    ) -> Result<Option<Arc<T>>> {
        let key = self.key(&key)?;
        let entry = match self.0.store.peek(key.as_ref()) {
            Peek::Hit(entry) => entry,
            Peek::Miss => return Ok(None),
            Peek::Ask => {
                let tags = tags.iter().map(|tag| Tag::new(tag)).collect::<Result<Vec<_>>>()?;
                match self.open(self.0.store.lookup(&key, &tags).await, || Lookup::Miss)? {
                    Lookup::Hit(entry) => entry,
                    Lookup::Invalidated(_) | Lookup::Miss => return Ok(None),
                }
            }
        };
        let fresh = entry.is_fresh(self.0.store.clock().now());
        Ok(fresh.then(|| self.read(&entry)).flatten())
    }

    /// Stores a value for the default lifetime.
    ///
    /// # Errors
    ///
    /// When the key cannot be used, the value cannot be serialized or is too large for the store (what was there is
    /// gone then); see also [the table](Cache#when-the-store-fails).
    pub async fn set<T: Value>(&self, key: impl CacheKey, value: T) -> Result<()> {
        self.set_with(key, value, Options::default()).await
    }

    /// Stores a value with these options.
    ///
    /// # Errors
    ///
    /// As [`set`](Cache::set).
    pub async fn set_with<T: Value>(
        &self,
        key: impl CacheKey,
        value: T,
        options: Options,
    ) -> Result<()> {
        let key = self.key(&key)?;
        let result = self.write(&key, Arc::new(value), &options, When::Always).await;
        self.open(result.map(|_| ()), || ())
    }

    /// Stores a value only if there is none. True when it was stored. With a lifetime of zero it says true and leaves
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`set`](Cache::set), and when the store cannot be asked.
    pub async fn add<T: Value>(
        &self,
        key: impl CacheKey,
        value: T,
        options: Options,
    ) -> Result<bool> {
        let key = self.key(&key)?;
        let outcome = self.write(&key, Arc::new(value), &options, When::Absent).await?;
        Ok(outcome == Outcome::Stored)
    }

    // An entry for a value, and for how long it is kept.
    pub(crate) fn entry<T: Value>(&self, value: Arc<T>, options: &Options) -> Result<(Entry, Ttl)> {
        let abilities = self.0.store.abilities();
        to_kept_entry(value, self.0.codec, abilities, options, options.ttl, Duration::ZERO)
    }

    async fn write<T: Value>(
        &self,
        key: &Key,
        value: Arc<T>,
        options: &Options,
        when: When,
    ) -> Result<Outcome> {
        let store = &self.0.store;
        let (mut entry, ttl) = self.entry(value, options)?;
        let tags = options.checked_tags()?;
        let stored = async {
            if !tags.is_empty() {
                let marks = store.marks(&options.watched(&tags)).await?;
                entry = entry.with_tags(options.carried(&tags)).with_built_at(marks.sequence);
            }
            store.detach(key);
            let outcome = store.put(key, entry, ttl, when).await;
            store.detach(key);
            outcome
        };
        let outcome = stored.await;
        if let (When::Always, Err(error)) = (when, &outcome) {
            self.not_replaced(std::slice::from_ref(key), error);
        }
        outcome
    }

    // New values that could not be stored: what the store may still have is known to be old. Not after a mistake in the
    // call, which has changed nothing that anybody knows of.
    pub(crate) fn not_replaced(&self, keys: &[Key], error: &Error) {
        if !is_callers(error) {
            self.0.store.not_replaced(keys);
        }
    }

    /// Removes a value. True when there was one.
    ///
    /// # Errors
    ///
    /// When the removal was not confirmed. The key then reads as empty on this node until it is.
    pub async fn delete(&self, key: impl CacheKey) -> Result<bool> {
        self.delete_at(&self.key(&key)?).await
    }

    pub(crate) async fn delete_at(&self, key: &Key) -> Result<bool> {
        let store = &self.0.store;
        store.detach(key);
        let removed = store.remove(key, None).await;
        store.detach(key);
        removed
    }

    /// Gives a value a new lifetime, counted from now. False when there is none, expired ones included.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked.
    pub async fn touch(&self, key: impl CacheKey, ttl: impl Into<Ttl>) -> Result<bool> {
        self.0.store.touch(&self.key(&key)?, ttl.into()).await
    }

    /// Whether there is a value that may be used.
    ///
    /// # Errors
    ///
    /// When the key cannot be used; see also [the table](Cache#when-the-store-fails).
    pub async fn contains(&self, key: impl CacheKey) -> Result<bool> {
        let key = self.key(&key)?;
        let now = self.0.store.clock().now();
        match self.0.store.peek_at(key.as_ref(), now) {
            Peek::Hit(entry) => Ok(entry.is_fresh(now)),
            Peek::Miss => Ok(false),
            Peek::Ask => {
                let found = self.open(self.0.store.lookup(&key, &[]).await, || Lookup::Miss)?;
                Ok(matches!(found, Lookup::Hit(entry) if entry.is_fresh(now)))
            }
        }
    }

    /// What is left until a value is gone: absent, for ever, or so long, the time included for which it is kept as a
    /// [stale](Options::stale_for) one. Tags are not looked at.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked.
    pub async fn ttl(&self, key: impl CacheKey) -> Result<Remaining> {
        self.0.store.remaining(&self.key(&key)?).await
    }
}

// Wrong with the call rather than with the store.
fn is_callers(error: &Error) -> bool {
    !(error.is_outage() || matches!(error.kind(), ErrorKind::Ambiguous))
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("store", &self.0.store)
            .field("strict", &self.0.strict)
            .finish()
    }
}
