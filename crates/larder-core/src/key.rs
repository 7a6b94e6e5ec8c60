//! Names of stored things: namespaces, keys, prefixes, tags.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// Separates one application, environment or use of a store from another.
///
/// One to 32 characters of `a`-`z`, `0`-`9`, `_` and `-`. It is part of every key; `clear` empties exactly one.
///
/// ```
/// use larder_core::Namespace;
///
/// assert_eq!(Namespace::new("shop-eu_1")?.as_str(), "shop-eu_1");
/// assert!(Namespace::new("").is_err());
/// assert!(Namespace::new("shop:eu").is_err());
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks and makes a namespace.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) when it is empty, longer than 32 or holds another character.
    pub fn new(name: &str) -> Result<Self> {
        let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(ok) {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                "a namespace has 1 to 32 characters of a-z, 0-9, '_' and '-'",
            ));
        }
        Ok(Namespace(name.into()))
    }

    /// The namespace as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A checked key: a namespace and framed parts.
///
/// Every part is written with its length in front, so different lists of parts are different keys, and an absent part,
/// an empty part and any literal text differ from each other. Keys compare by these bytes, without hashing them
/// cryptographically; a wire name is made only when a key leaves the process ([`KeyRef::wire_name`]).
///
/// A clone shares the bytes.
///
/// ```
/// use larder_core::{Key, KeyBuf, Namespace};
///
/// let shop = Namespace::new("shop")?;
/// let key = Key::new(&shop, ["product", "42"])?;
/// let same = KeyBuf::new(&shop).part("product").part("42").key()?;
/// assert_eq!(key, same);
///
/// let absent = KeyBuf::new(&shop).optional(None::<&str>).key()?;
/// let empty = KeyBuf::new(&shop).optional(Some("")).key()?;
/// assert_ne!(absent, empty);
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The longest key in framed bytes: 64 KiB.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// A key of these parts.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) when it is longer than [`Key::MAX_BYTES`] framed.
    pub fn new<P: AsRef<[u8]>>(
        namespace: &Namespace,
        parts: impl IntoIterator<Item = P>,
    ) -> Result<Self> {
        parts.into_iter().fold(KeyBuf::new(namespace), |buf, part| buf.part(part)).key()
    }

    /// Where a namespace keeps its invalidation sequence.
    pub fn sequence(namespace: &Namespace) -> Self {
        KeyBuf::new(namespace).part("q").into_short_key()
    }

    /// Where a tag's last invalidation is kept.
    pub fn tag(namespace: &Namespace, tag: &Tag) -> Self {
        KeyBuf::new(namespace).part("t").part(tag.as_str()).into_short_key()
    }

    /// The key, borrowed.
    #[allow(clippy::should_implement_trait)]
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef(&self.0)
    }

    /// The namespace's text.
    pub fn namespace(&self) -> &str {
        self.as_ref().namespace()
    }

    // The bytes must be well framed.
    pub(crate) fn copied(framed: &[u8]) -> Self {
        Key(framed.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

// Equal to the hash of the bytes, so that maps of keys can be asked with a `KeyRef`'s bytes.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0).hash(state);
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A borrowed [`Key`]: what a hit is looked up with, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef<'a>(&'a [u8]);

impl<'a> KeyRef<'a> {
    /// The framed bytes. Equal bytes, equal keys.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The owned key; copies the bytes.
    pub fn to_key(self) -> Key {
        Key(self.0.into())
    }

    /// The namespace's text.
    pub fn namespace(self) -> &'a str {
        std::str::from_utf8(self.namespace_bytes()).unwrap_or_default()
    }

    pub(crate) fn namespace_bytes(self) -> &'a [u8] {
        let (length, rest) = self.0.split_first().map_or((0, &[][..]), |(l, r)| (*l as usize, r));
        rest.get(..length).unwrap_or_default()
    }

    /// The parts in order; `None` stands for an absent one.
    pub fn parts(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let start = self.0.first().map_or(0, |length| 1 + *length as usize);
        Parts(self.0.get(start..).unwrap_or_default())
    }
}

impl fmt::Debug for KeyRef<'_> {
    // Keys hold people's data; what is shown is enough to tell two apart in a test.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = blake3::hash(self.0);
        write!(f, "Key({}:{}…)", self.namespace(), &digest.to_hex()[..12])
    }
}

struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.0.split_first()?;
        if *kind == ABSENT {
            self.0 = rest;
            return Some(None);
        }
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some(Some(part))
    }
}

/// Builds a key; up to 256 bytes on the stack.
///
/// ```
/// use larder_core::{KeyBuf, Namespace};
///
/// let shop = Namespace::new("shop")?;
/// let buf = KeyBuf::new(&shop).part("GET").part("/products").optional(Some("page=2"));
/// assert_eq!(buf.as_ref()?.parts().count(), 3);
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone)]
pub struct KeyBuf {
    bytes: Short,
    too_long: bool,
}

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

impl KeyBuf {
    /// Starts a key in that namespace.
    #[inline]
    pub fn new(namespace: &Namespace) -> Self {
        // Made where it is returned: it is too large to move for nothing.
        let mut buf = KeyBuf { bytes: Short::default(), too_long: false };
        let name = namespace.as_str().as_bytes();
        // At most 32 by construction.
        buf.bytes.extend_from_slice(&[name.len() as u8]);
        buf.bytes.extend_from_slice(name);
        buf
    }

    /// Adds a part.
    #[inline]
    #[must_use]
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        self.push(part);
        self
    }

    /// Adds a part that may be absent.
    #[must_use]
    pub fn optional(mut self, part: Option<impl AsRef<[u8]>>) -> Self {
        self.push_optional(part);
        self
    }

    /// Adds a part in place.
    #[inline]
    pub fn push(&mut self, part: impl AsRef<[u8]>) {
        self.push_pieces(&[part.as_ref()]);
    }

    /// Adds a part that may be absent, in place.
    #[inline]
    pub fn push_optional(&mut self, part: Option<impl AsRef<[u8]>>) {
        match part {
            Some(part) => self.push(part),
            None => self.bytes.extend_from_slice(&[ABSENT]),
        }
    }

    /// Adds one part made of several pieces.
    #[inline]
    pub fn push_pieces(&mut self, pieces: &[&[u8]]) {
        let length = pieces.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.len()));
        if self.bytes.len().saturating_add(length) > Key::MAX_BYTES {
            self.too_long = true;
            return;
        }
        let [a, b, c, d] = (length as u32).to_be_bytes();
        self.bytes.extend_from_slice(&[PRESENT, a, b, c, d]);
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// Adds one part that `write` makes piece by piece, so that nothing is gathered first.
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut PartWriter<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[PRESENT, 0, 0, 0, 0]);
        write(&mut PartWriter(self));
        let length = (self.bytes.len() - start - 5) as u32;
        self.bytes.as_mut_slice()[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    }

    /// The key, borrowed.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) when it is longer than [`Key::MAX_BYTES`].
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn as_ref(&self) -> Result<KeyRef<'_>> {
        if self.too_long || self.bytes.len() > Key::MAX_BYTES {
            return Err(Error::new(ErrorKind::InvalidKey, "the key is longer than 64 KiB"));
        }
        Ok(KeyRef(self.bytes.as_slice()))
    }

    /// The key, owned.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) when it is longer than [`Key::MAX_BYTES`].
    pub fn key(&self) -> Result<Key> {
        Ok(self.as_ref()?.to_key())
    }

    // Only for parts whose length was checked before.
    fn into_short_key(self) -> Key {
        Key(self.bytes.as_slice().into())
    }
}

impl From<KeyRef<'_>> for KeyBuf {
    /// A longer key: that key's parts, then those that are added.
    #[inline]
    fn from(key: KeyRef<'_>) -> Self {
        let mut buf = KeyBuf { bytes: Short::default(), too_long: false };
        buf.bytes.extend_from_slice(key.0);
        buf
    }
}

/// Writes one part of a [`KeyBuf`]; see [`KeyBuf::push_with`].
#[derive(Debug)]
pub struct PartWriter<'a>(&'a mut KeyBuf);

impl PartWriter<'_> {
    /// Adds bytes to the part.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        if self.0.bytes.len().saturating_add(bytes.len()) > Key::MAX_BYTES {
            self.0.too_long = true;
        } else {
            self.0.bytes.extend_from_slice(bytes);
        }
    }
}

impl fmt::Debug for KeyBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        KeyRef(self.bytes.as_slice()).fmt(f)
    }
}

/// Bytes on the stack, and on the heap when they become more.
///
/// Every hit in memory makes its key here from a dozen small pieces: `SmallVec`, which could insert them anywhere, takes
/// three times as many instructions to add one.
#[derive(Clone)]
struct Short {
    length: usize,
    stack: [u8; 256],
    // All the bytes, once there are more of them than the stack has room for.
    heap: Vec<u8>,
}

impl Default for Short {
    #[inline]
    fn default() -> Self {
        Short { length: 0, stack: [0; 256], heap: Vec::new() }
    }
}

impl Short {
    #[inline]
    fn len(&self) -> usize {
        self.length
    }

    #[inline]
    fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.stack.get_mut(self.length..end) {
            Some(room) => room.copy_from_slice(bytes),
            None => self.extend_heap(bytes),
        }
        self.length = end;
    }

    #[cold]
    fn extend_heap(&mut self, bytes: &[u8]) {
        if self.heap.is_empty() {
            self.heap.extend_from_slice(&self.stack[..self.length]);
        }
        self.heap.extend_from_slice(bytes);
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        self.stack.get(..self.length).unwrap_or(&self.heap)
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.stack.get_mut(..self.length).unwrap_or(&mut self.heap)
    }
}

/// The keys of a namespace that begin in a certain way: some whole parts, then a part that starts with given bytes.
///
/// The bytes are literal; nothing in them is a wildcard.
///
/// ```
/// use larder_core::{Key, Namespace, Prefix};
///
/// let shop = Namespace::new("shop")?;
/// let prefix = Prefix::new(&shop).part("data").starting_with("user:4");
/// assert!(prefix.matches(Key::new(&shop, ["data", "user:42"])?.as_ref()));
/// assert!(!prefix.matches(Key::new(&shop, ["data", "user:5"])?.as_ref()));
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prefix {
    namespace: Namespace,
    parts: Vec<Bytes>,
    start: Bytes,
}

impl Prefix {
    /// Every key of the namespace that has at least one part.
    pub fn new(namespace: &Namespace) -> Self {
        Prefix { namespace: namespace.clone(), parts: Vec::new(), start: Bytes::new() }
    }

    /// Adds a whole leading part.
    #[must_use]
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        self.parts.push(Bytes::copy_from_slice(part.as_ref()));
        self
    }

    /// The next part starts with these bytes.
    #[must_use]
    pub fn starting_with(mut self, start: impl AsRef<[u8]>) -> Self {
        self.start = Bytes::copy_from_slice(start.as_ref());
        self
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether a key begins like that.
    pub fn matches(&self, key: KeyRef<'_>) -> bool {
        if key.namespace() != self.namespace.as_str() {
            return false;
        }
        let mut parts = key.parts();
        self.parts.iter().all(|whole| parts.next() == Some(Some(whole)))
            && parts.next().is_some_and(|part| part.unwrap_or_default().starts_with(&self.start))
    }

    /// Whether every key that begins like this one also begins like `wider`.
    pub fn is_within(&self, wider: &Prefix) -> bool {
        let whole = wider.parts.len();
        let next = self.parts.get(whole).unwrap_or(&self.start);
        self.namespace == wider.namespace
            && self.parts.starts_with(&wider.parts)
            && next.starts_with(&wider.start)
    }

    pub(crate) fn pieces(&self) -> (&[Bytes], &[u8]) {
        (&self.parts, &self.start)
    }
}

/// A label that many entries may carry, so that one call invalidates them all.
///
/// One to 256 bytes of any text. A clone shares it.
///
/// Each tag has a *lasting* twin. An invalidation reaches both; an expiry only the tag itself. So an entry that outlasts
/// being expired, as a stale one, carries the twins of its tags, and it is fresh while the tags themselves say so too.
///
/// ```
/// use larder_core::Tag;
///
/// assert_eq!(Tag::new("product:42")?.as_str(), "product:42");
/// assert!(Tag::new("").is_err());
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Checks and makes a tag.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) when it is empty, longer than 256 bytes, or begins with U+0001.
    pub fn new(tag: &str) -> Result<Self> {
        if tag.is_empty() || tag.len() > 256 {
            return Err(Error::new(ErrorKind::InvalidKey, "a tag has 1 to 256 bytes"));
        }
        if tag.starts_with(LASTING) {
            return Err(Error::new(ErrorKind::InvalidKey, "a tag does not begin with U+0001"));
        }
        Ok(Tag(tag.into()))
    }

    /// The tag or the lasting twin that was written as that text: what a store reads back.
    ///
    /// # Errors
    ///
    /// As [`new`](Tag::new).
    pub fn written(text: &str) -> Result<Self> {
        match text.strip_prefix(LASTING) {
            Some(tag) => Ok(Tag::new(tag)?.lasting()),
            None => Tag::new(text),
        }
    }

    /// The lasting twin; its own, if it is one.
    #[must_use]
    pub fn lasting(&self) -> Tag {
        if self.0.starts_with(LASTING) {
            return self.clone();
        }
        Tag(format!("{LASTING}{}", self.0).into())
    }

    /// The tag of which this is the lasting twin; `None` when it is none.
    pub fn expiring(&self) -> Option<Tag> {
        self.0.strip_prefix(LASTING).map(|tag| Tag(tag.into()))
    }

    /// These tags and their lasting twins: what an invalidation is recorded for.
    pub fn with_lasting(tags: &[Tag]) -> Vec<Tag> {
        tags.iter().cloned().chain(tags.iter().map(Tag::lasting)).collect()
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const LASTING: char = '\u{1}';

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:?})", self.as_str())
    }
}
