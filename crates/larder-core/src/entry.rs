//! What is stored.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{Moment, Result, Sequence, Tag};

/// A value in the form that readers share: parsed, ready, never changed.
///
/// A memory backend keeps this form and nothing else, so that a hit neither decodes nor copies. It is encoded when the
/// entry leaves the process.
pub trait Live: Any + Send + Sync {
    /// The value as bytes.
    ///
    /// # Errors
    ///
    /// When the value cannot be represented; nothing is stored then.
    fn encode(&self) -> Result<Encoded>;

    /// The bytes that this form occupies in memory, so that stores bounded in bytes are honest.
    fn weight(&self) -> usize;
}

/// A value as bytes: a small head, a body that is never copied, and which codec made them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// Who can read it; the numbers belong to the crates that write entries.
    pub codec: u8,
    /// The framed head: metadata, or empty.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded(codec {}, {} + {} bytes)", self.codec, self.head.len(), self.body.len())
    }
}

/// The value of an [`Entry`].
#[derive(Clone)]
pub enum Payload {
    /// A plain integer, which the server can add to.
    Integer(i64),
    /// Bytes, as they came from a server or go to it.
    Wire(Encoded),
    /// The readers' form.
    Live(Arc<dyn Live>),
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Integer(_) => f.write_str("Integer"),
            Payload::Wire(encoded) => encoded.fmt(f),
            Payload::Live(live) => write!(f, "Live({} bytes)", live.weight()),
        }
    }
}

/// 128 random bits that name one writing of one entry.
///
/// The writer chooses them, so a conditional write whose reply was lost can be recognised by reading back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision([u8; 16]);

impl Revision {
    /// What entries have that carry none: plain integers.
    pub const NONE: Revision = Revision([0; 16]);

    /// A new revision.
    pub fn random() -> Self {
        Revision(rand::random::<u128>().max(1).to_be_bytes())
    }

    /// The bits.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From the bits.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Revision(bytes)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({:032x})", u128::from_be_bytes(self.0))
    }
}

/// When an entry was written and until when it may be used, on this process's [`Clock`](crate::Clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was stored, or its lifetime last touched.
    pub written: Moment,
    /// Until when it is fresh; from then to `expires` it is stale, and its user decides. `None`: fresh to the end.
    pub fresh_until: Option<Moment>,
    /// When it is gone. `None`: never.
    pub expires: Option<Moment>,
}

impl Times {
    /// Times for something stored now.
    pub fn starting(now: Moment, ttl: Option<Duration>, fresh_for: Option<Duration>) -> Self {
        Times {
            written: now,
            fresh_until: fresh_for.map(|duration| now + duration),
            expires: ttl.map(|duration| now + duration),
        }
    }

    /// Whether it is gone at that moment.
    pub fn expired(&self, now: Moment) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether it may be used without a second thought at that moment.
    pub fn fresh(&self, now: Moment) -> bool {
        self.fresh_until.is_none_or(|until| now < until) && !self.expired(now)
    }
}

/// A condition on an in-process number that only grows: the entry is valid while it is at most `limit`.
///
/// Memory backends give one for each tag and one for the namespace's generation, so that checking is one atomic load.
#[derive(Clone, Debug)]
pub struct Mark {
    cell: Arc<AtomicI64>,
    limit: i64,
}

impl Mark {
    /// Valid while `cell` is at most `limit`.
    pub fn new(cell: Arc<AtomicI64>, limit: i64) -> Self {
        Mark { cell, limit }
    }

    /// Whether it still holds.
    #[inline]
    pub fn holds(&self) -> bool {
        // Acquire: whoever sees an invalidation also sees what was written before it.
        self.cell.load(Ordering::Acquire) <= self.limit
    }
}

/// A stored value with its times, tags and revision. A clone is one reference count.
///
/// ```
/// use larder_core::{Encoded, Entry, Tag};
/// use std::time::Duration;
///
/// let entry = Entry::wire(Encoded { codec: 7, body: "hello".into(), ..Encoded::default() })
///     .with_tags([Tag::new("greeting")?])
///     .fresh_for(Duration::from_secs(60));
/// assert_eq!(entry.tags().len(), 1);
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Entry(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    payload: Payload,
    // The readers' form of wire bytes, made by the first reader.
    live: OnceLock<Arc<dyn Live>>,
    tags: Arc<[Tag]>,
    built_at: Sequence,
    revision: Revision,
    fresh_for: Option<Duration>,
    times: Option<Times>,
    // The namespace's generation is one for each.
    marks: SmallVec<[Mark; 1]>,
    fresh_marks: SmallVec<[Mark; 1]>,
}

impl Entry {
    /// An entry in the readers' form.
    pub fn live(live: Arc<dyn Live>) -> Self {
        Self::new(Payload::Live(live), Revision::random())
    }

    /// An entry of bytes.
    pub fn wire(encoded: Encoded) -> Self {
        Self::new(Payload::Wire(encoded), Revision::random())
    }

    /// A plain integer. With tags or a [freshness](Entry::fresh_for) it is enveloped, and counters refuse it.
    pub fn integer(value: i64) -> Self {
        Self::new(Payload::Integer(value), Revision::random())
    }

    /// As its record says: all at once, since every hit on a server makes one.
    pub(crate) fn stored(
        payload: Payload,
        tags: Arc<[Tag]>,
        built_at: Sequence,
        revision: Revision,
        times: Times,
    ) -> Self {
        Entry(Arc::new(Inner {
            payload,
            live: OnceLock::new(),
            tags,
            built_at,
            revision,
            fresh_for: None,
            times: Some(times),
            marks: SmallVec::new(),
            fresh_marks: SmallVec::new(),
        }))
    }

    fn new(payload: Payload, revision: Revision) -> Self {
        Entry(Arc::new(Inner {
            payload,
            live: OnceLock::new(),
            tags: Arc::default(),
            built_at: Sequence::NONE,
            revision,
            fresh_for: None,
            times: None,
            marks: SmallVec::new(),
            fresh_marks: SmallVec::new(),
        }))
    }

    // Copies the small parts only when the entry is shared; payload bytes are never copied.
    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// With these tags.
    #[must_use]
    pub fn with_tags(self, tags: impl IntoIterator<Item = Tag>) -> Self {
        let mut tags = tags.into_iter().peekable();
        // None is the usual number, and that slice is there already.
        let tags = if tags.peek().is_none() { Arc::default() } else { tags.collect() };
        self.change(|inner| inner.tags = tags)
    }

    /// With the number that the namespace's sequence had before the value began to be made.
    #[must_use]
    pub fn with_built_at(self, built_at: Sequence) -> Self {
        self.change(|inner| inner.built_at = built_at)
    }

    /// With that revision.
    #[must_use]
    pub fn with_revision(self, revision: Revision) -> Self {
        self.change(|inner| inner.revision = revision)
    }

    /// With another value in the place of this one and all else as it is: what a wrapper does that changes how values
    /// are written.
    #[must_use]
    pub fn with_payload(self, payload: Payload) -> Self {
        self.change(|inner| {
            inner.payload = payload;
            inner.live = OnceLock::new();
        })
    }

    /// Fresh for so long after it is stored, stale from then to the end of its lifetime.
    #[must_use]
    pub fn fresh_for(self, duration: Duration) -> Self {
        self.change(|inner| inner.fresh_for = Some(duration))
    }

    /// Fresh to the end of its lifetime, whatever was asked for before.
    #[must_use]
    pub fn fresh_throughout(self) -> Self {
        self.change(|inner| inner.fresh_for = None)
    }

    /// With times: what a backend does when it stores or reads an entry.
    #[must_use]
    pub fn with_times(self, times: Times) -> Self {
        self.change(|inner| inner.times = Some(times))
    }

    /// With conditions in this process: what a memory backend does when it stores an entry.
    #[must_use]
    pub fn with_marks(self, marks: impl IntoIterator<Item = Mark>) -> Self {
        self.change(|inner| inner.marks = marks.into_iter().collect())
    }

    /// With conditions on its being fresh: what a memory backend adds when it stores an entry with [lasting] tags.
    ///
    /// [lasting]: Tag::lasting
    #[must_use]
    pub fn with_fresh_marks(self, marks: impl IntoIterator<Item = Mark>) -> Self {
        self.change(|inner| inner.fresh_marks = marks.into_iter().collect())
    }

    /// Stale since it was written: what a reader makes of an entry of which it learns that one of its tags expired.
    #[must_use]
    pub fn staled(self) -> Self {
        self.change(|inner| {
            if let Some(times) = &mut inner.times {
                times.fresh_until = Some(times.written);
            }
        })
    }

    /// The value.
    pub fn payload(&self) -> &Payload {
        &self.0.payload
    }

    /// The tags.
    pub fn tags(&self) -> &[Tag] {
        &self.0.tags
    }

    /// The sequence's number before the value began to be made.
    pub fn built_at(&self) -> Sequence {
        self.0.built_at
    }

    /// The revision.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// How long it is to be fresh; a request to the backend that stores it.
    pub fn freshness(&self) -> Option<Duration> {
        self.0.fresh_for
    }

    /// The times; `None` before a backend has stored it, and for a plain counter that a server keeps.
    pub fn times(&self) -> Option<&Times> {
        self.0.times.as_ref()
    }

    /// Whether it may be used without a second thought at that moment, as far as its times and the conditions in this
    /// process tell: true where it has none.
    #[inline]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.0.times.is_none_or(|times| times.fresh(now))
            && self.0.fresh_marks.iter().all(Mark::holds)
    }

    /// What is left of its lifetime: `None` for ever.
    pub fn remaining(&self, now: Moment) -> Option<Duration> {
        self.0.times.and_then(|times| times.expires).map(|expires| expires.since(now))
    }

    /// True when this process holds conditions for it, so that [`marks_hold`](Entry::marks_hold) decides its tags.
    pub fn has_marks(&self) -> bool {
        !self.0.marks.is_empty()
    }

    /// Whether every in-process condition still holds. True where there are none.
    #[inline]
    pub fn marks_hold(&self) -> bool {
        self.0.marks.iter().all(Mark::holds)
    }

    /// Whether it is plain on a server that counts: an integer with nothing but a lifetime.
    pub fn as_counter(&self) -> Option<i64> {
        match self.0.payload {
            Payload::Integer(value) => {
                let fresh_until = self.0.times.and_then(|times| times.fresh_until);
                let plain =
                    self.0.tags.is_empty() && self.0.fresh_for.is_none() && fresh_until.is_none();
                plain.then_some(value)
            }
            _ => None,
        }
    }

    /// The readers' form if there is one of that type.
    #[inline]
    pub fn downcast<T: Live>(&self) -> Option<&T> {
        let live = match &self.0.payload {
            Payload::Live(live) => live,
            _ => self.0.live.get()?,
        };
        let any: &dyn Any = live.as_ref();
        any.downcast_ref()
    }

    /// The readers' form of that type, shared, if there is one.
    pub fn downcast_arc<T: Live>(&self) -> Option<Arc<T>> {
        let live = match &self.0.payload {
            Payload::Live(live) => live,
            _ => self.0.live.get()?,
        };
        let any: Arc<dyn Any + Send + Sync> = live.clone();
        any.downcast().ok()
    }

    /// The readers' form of that type; `decode` makes it from the bytes, once for all who share this entry. A reader
    /// of another type than the first one decodes for itself. `None` when the bytes do not decode.
    pub fn downcast_or<T: Live>(
        &self,
        decode: impl FnOnce(&Encoded) -> Option<T>,
    ) -> Option<Arc<T>> {
        if let Some(live) = self.downcast_arc() {
            return Some(live);
        }
        let made = match &self.0.payload {
            Payload::Wire(encoded) => Arc::new(decode(encoded)?),
            Payload::Live(live) => Arc::new(decode(&live.encode().ok()?)?),
            Payload::Integer(_) => return None,
        };
        if matches!(self.0.payload, Payload::Wire(_)) {
            let _ = self.0.live.set(made.clone());
        }
        Some(made)
    }

    /// The value as bytes.
    ///
    /// # Errors
    ///
    /// When the live form does not encode.
    pub fn encoded(&self) -> Result<Encoded> {
        match &self.0.payload {
            Payload::Wire(encoded) => Ok(encoded.clone()),
            Payload::Live(live) => live.encode(),
            Payload::Integer(value) => Ok(Encoded {
                codec: crate::envelope::INTEGER,
                head: Bytes::new(),
                body: Bytes::copy_from_slice(&value.to_be_bytes()),
            }),
        }
    }

    /// The bytes of the value itself, as it is kept.
    pub fn size(&self) -> usize {
        match &self.0.payload {
            Payload::Integer(_) => 0,
            Payload::Wire(encoded) => encoded.head.len() + encoded.body.len(),
            Payload::Live(live) => live.weight(),
        }
    }

    /// The bytes that it occupies in memory, its own bookkeeping included, and as much again as its wire bytes for the
    /// readers' form that may be made of them.
    pub fn weight(&self) -> usize {
        let payload = match &self.0.payload {
            Payload::Wire(_) => 2 * self.size(),
            _ => self.size(),
        };
        let tags: usize = self.0.tags.iter().map(|tag| tag.as_str().len() + 48).sum();
        size_of::<Inner>() + payload + tags
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("payload", &self.0.payload)
            .field("tags", &self.0.tags.len())
            .field("built_at", &self.0.built_at)
            .field("revision", &self.0.revision)
            .field("times", &self.0.times)
            .finish_non_exhaustive()
    }
}
