//! What users name cached values with.

use larder_core::{Key, KeyBuf, Namespace, Result};

/// A name for a cached value: text, a number, or a tuple of them.
///
/// The parts of a tuple are framed: `("ab", "c")` and `("a", "bc")` are different keys.
///
/// ```
/// use larder_cache::Cache;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::memory();
/// cache.set(("product", 42), "Teapot".to_owned()).await?;
/// assert_eq!(*cache.get::<String>(("product", 42)).await?.unwrap(), "Teapot");
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a cached value",
    note = "use text, an integer, or a tuple of up to four of them"
)]
pub trait CacheKey {
    /// Adds this name's parts.
    fn write(&self, buf: &mut KeyBuf);
}

// The first part of a key says which room of the namespace it is in; see ARCHITECTURE.md.
const DATA: &str = "d";

pub(crate) fn buf<K: CacheKey + ?Sized>(namespace: &Namespace, key: &K) -> KeyBuf {
    let mut buf = KeyBuf::new(namespace).part(DATA);
    key.write(&mut buf);
    buf
}

pub(crate) fn key<K: CacheKey + ?Sized>(namespace: &Namespace, key: &K) -> Result<Key> {
    buf(namespace, key).key()
}

impl CacheKey for str {
    fn write(&self, buf: &mut KeyBuf) {
        buf.push(self);
    }
}

impl CacheKey for String {
    fn write(&self, buf: &mut KeyBuf) {
        buf.push(self);
    }
}

impl<K: CacheKey + ?Sized> CacheKey for &K {
    fn write(&self, buf: &mut KeyBuf) {
        (**self).write(buf);
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl CacheKey for $integer {
            fn write(&self, buf: &mut KeyBuf) {
                buf.push(self.to_string());
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

impl<A: CacheKey, B: CacheKey> CacheKey for (A, B) {
    fn write(&self, buf: &mut KeyBuf) {
        self.0.write(buf);
        self.1.write(buf);
    }
}

impl<A: CacheKey, B: CacheKey, C: CacheKey> CacheKey for (A, B, C) {
    fn write(&self, buf: &mut KeyBuf) {
        self.0.write(buf);
        self.1.write(buf);
        self.2.write(buf);
    }
}

impl<A: CacheKey, B: CacheKey, C: CacheKey, D: CacheKey> CacheKey for (A, B, C, D) {
    fn write(&self, buf: &mut KeyBuf) {
        self.0.write(buf);
        self.1.write(buf);
        self.2.write(buf);
        self.3.write(buf);
    }
}
