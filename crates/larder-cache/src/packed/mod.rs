//! Values that are compressed, signed or encrypted where they leave the process.

#[cfg(feature = "encryption")]
mod keys;
mod packing;
#[cfg(any(feature = "zstd", feature = "lz4"))]
mod squeeze;
mod store;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_core::{Backend, Damages, Error, ErrorKind, Result};

#[cfg(feature = "encryption")]
pub use keys::Keys;
pub use packing::Packing;
#[cfg(any(feature = "zstd", feature = "lz4"))]
pub use squeeze::Compression;

use wire::Unreadable;

/// A store whose values are compressed, signed or encrypted on their way in, and back again on their way out: typed
/// values, fragments, responses and sessions alike. It is a backend like any other:
///
/// ```
/// # #[cfg(all(feature = "zstd", feature = "encryption", feature = "memory"))]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use larder_cache::{Cache, Compression, Keys, Packed, Packing};
/// # use larder_memory::MemoryBackend as RedisBackend;
///
/// # let (redis, key) = (RedisBackend::default(), "7c11".repeat(16));
/// let packing = Packing::new().compress(Compression::Zstd).encrypt(Keys::from_hex(&key)?);
/// let cache = Cache::builder(Packed::new(redis, packing)?).namespace("shop")?.build();
/// cache.set("letter", "dear reader ".repeat(1000)).await?;
/// assert_eq!(cache.get::<String>("letter").await?.unwrap().len(), 12_000);
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
///
/// In URLs: `compress=zstd` or `compress=lz4`, `compress_above=1KiB`, `max_unpacked=64MiB`, and `encrypt_env=NAME` or
/// `sign_env=NAME`, where `NAME` is that of an environment variable with the [keys](Keys::from_hex). A URL itself holds
/// no key: it is shown by too many programs.
///
/// It stands before the store that the bytes go to, and behind memory (`tiered:memory://|redis://…&compress=zstd`): what
/// is near is kept as readers use it, and is neither expanded nor decrypted again. What can be compressed costs its
/// reader a copy; all else is neither copied nor looked at.
///
/// # What is protected
///
/// Signed or encrypted, a value is bound to its key, its revision, its tags and the number it was built at. Who can
/// write to the store can put none of it under another key and change no byte of it: such a record is a miss. So is one
/// that is not sealed as this store demands, or by a key that is not in the ring. What remains possible there: to delete, to
/// bring back an earlier value of the same key, or to let one live longer. Where a backend can sign whole records itself
/// (Redis and Memcached: `sealed`), that covers the lifetime too.
///
/// Plain integers stay plain, since the server adds to them: they are neither hidden nor protected. Neither are keys,
/// tags, sizes and times hidden.
///
/// # What cannot be read
///
/// It is a miss, is counted ([`unreadable`](Packed::unreadable)) and told at most every ten seconds. It stays where it
/// is until somebody fills or writes its key: nodes with another configuration may read it. Until then `touch`,
/// `remaining` and a removal see an entry there. What becomes larger than [`max_unpacked`](Packing::max_unpacked) or more
/// than [`max_ratio`](Packing::max_ratio) times what was read is not expanded further.
///
/// # Cancel safety
///
/// As the store's own.
pub struct Packed<B>(Arc<Inner<B>>);

struct Inner<B> {
    store: B,
    packing: Packing,
    unreadable: AtomicU64,
    damages: Damages,
}

impl<B> Clone for Packed<B> {
    fn clone(&self) -> Self {
        Packed(self.0.clone())
    }
}

impl<B: Backend> Packed<B> {
    /// Packs what goes to that store.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is nothing to do, or a limit is zero.
    pub fn new(store: B, packing: Packing) -> Result<Self> {
        packing.check()?;
        let (unreadable, damages) = (AtomicU64::new(0), Damages::default());
        Ok(Packed(Arc::new(Inner { store, packing, unreadable, damages })))
    }

    /// The store itself.
    pub fn store(&self) -> &B {
        &self.0.store
    }

    /// How many records were read that this configuration cannot open.
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable.load(Ordering::Relaxed)
    }
}

impl<B: Backend> Inner<B> {
    fn note(&self, why: Unreadable) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = self.damages.seen(self.store.clock().now()) {
            let backend = self.store.name();
            tracing::warn!(
                backend,
                count,
                why = why.as_str(),
                "stored values cannot be unpacked; they are misses"
            );
        }
    }
}

impl<B> fmt::Debug for Packed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("packing", &self.0.packing).finish_non_exhaustive()
    }
}

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words)
}
