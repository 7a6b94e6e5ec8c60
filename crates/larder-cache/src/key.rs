//! What users name cached values with.

use std::fmt;

use larder_core::{Key, KeyBuf};

/// A name for a cached value: text, bytes, a number, a truth value, one of them that may be absent, or a tuple of them.
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
    note = "use text, bytes, an integer, a bool, an `Option` of one, or a tuple of up to four of them"
)]
pub trait CacheKey {
    /// Adds this name's parts.
    fn write(&self, buf: &mut KeyBuf);
}

// The first part of a key says which room of the namespace it is in; see ARCHITECTURE.md.
pub(crate) const DATA: &str = "d";
pub(crate) const VERSIONS: &str = "dv";
pub(crate) const FRAGMENTS: &str = "f";
pub(crate) const LOCKS: &str = "l";
#[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(dead_code))]
pub(crate) const ENGINE: &str = "c";

/// A key that the store told, part by part; see [`Cache::keys`](crate::Cache::keys). It can be used like any other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(Vec<Vec<u8>>);

impl KeyName {
    // Without the parts that say which room it is in.
    pub(crate) fn of(key: &Key, room: usize) -> Self {
        let parts = key.as_ref().parts().skip(room);
        KeyName(parts.map(|part| part.unwrap_or_default().to_vec()).collect())
    }

    /// The parts, as they were given: numbers in decimal digits.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

impl CacheKey for KeyName {
    fn write(&self, buf: &mut KeyBuf) {
        self.0.iter().for_each(|part| buf.push(part));
    }
}

impl fmt::Display for KeyName {
    /// The parts with `/` between them; what is not text is replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            write!(f, "{slash}{}", String::from_utf8_lossy(part))?;
        }
        Ok(())
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({self})")
    }
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

impl CacheKey for [u8] {
    fn write(&self, buf: &mut KeyBuf) {
        buf.push(self);
    }
}

impl CacheKey for bool {
    fn write(&self, buf: &mut KeyBuf) {
        buf.push(if *self { "true" } else { "false" });
    }
}

/// Nothing is another key than the empty text.
impl<K: CacheKey> CacheKey for Option<K> {
    fn write(&self, buf: &mut KeyBuf) {
        match self {
            Some(key) => key.write(buf),
            None => buf.push_optional(None::<&[u8]>),
        }
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
