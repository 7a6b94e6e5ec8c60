//! The trait that every store implements.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::{
    Abilities, Clock, Entry, Key, KeyRef, Moment, Namespace, Prefix, Result, Revision, Sequence,
    Tag, Ttl,
};

/// A place where entries are kept.
///
/// Users never see this trait: they hold a `Cache`, which erases it once. Authors of backends implement it with
/// `async fn` and prove themselves with the suite in `larder-testkit`.
///
/// # Contract
///
/// * **Every operation is one atomic step of the store**, not a read followed by a write. Two conditional writes never
///   both succeed; nobody sees half of one.
/// * **Expired is absent**, for every operation, from the very moment. So are entries of another key that hash to the
///   same name, damaged or foreign bytes, and entries that carry marks which no longer hold.
/// * **Batches take one round trip** where the server can do it, and none when they are empty.
/// * **A refusal is an outcome, not an error**: [`Outcome::Refused`], `false`, `None`.
/// * **Unsupported is said**: what [`Abilities`] declares missing answers
///   [`Unsupported`](crate::ErrorKind::Unsupported). Silent success is a defect.
/// * **Fill markers are absent to every other verb**: a `get` misses, an `Absent` put stores, a `Present` put refuses, a
///   counter starts. `put`, `remove`, `clear` and the marker's end void its token; a marker that was lost or evicted
///   refuses the fill, never allows it.
/// * **Time limits** are the backend's duty: no operation of a remote backend waits without one.
///
/// # Cancel safety
///
/// Every future may be dropped at any poll. What was asked then happens wholly or not at all, at once or a little
/// later; nothing else changes, and a reply that nobody waits for never reaches another caller. A later write under the
/// same key through the same handle comes after it: [`order`](crate::order) is for backends that do several things at once.
///
/// # Wrappers
///
/// A wrapper is a backend too: it implements every method, and runs the same suite.
pub trait Backend: Send + Sync + 'static {
    /// A short, fixed name for errors and metrics.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// The clock on whose line the times of its entries lie.
    fn clock(&self) -> &Clock;

    /// Looks without waiting and without allocating. The only default method, since `Ask` cannot be wrong.
    ///
    /// `now` is what [`clock`](Backend::clock) says; the caller has read it, so that a whole hit, which also needs the
    /// entry's age, reads the time once.
    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        let _ = (key, now);
        Peek::Ask
    }

    /// Reads an entry and, in the same round trip, some plain counters (tags, sequences).
    fn get(&self, key: &Key, counters: &[Key]) -> impl Future<Output = Result<Found>> + Send;

    /// Reads many entries; the answer has the keys' order.
    fn get_many(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<Entry>>>> + Send;

    /// Stores an entry if the condition holds. Plain integers have no revision, so [`When::Revision`] never holds for
    /// one. A lifetime of zero removes instead and counts as stored.
    ///
    /// When it fails with [`TooLarge`](crate::ErrorKind::TooLarge), what was there is gone: an old value must not
    /// outlive its replacement.
    fn put(
        &self,
        key: &Key,
        entry: Entry,
        ttl: Ttl,
        when: When,
    ) -> impl Future<Output = Result<Outcome>> + Send;

    /// Stores many entries, each for itself; the answer has the items' order.
    fn put_many(
        &self,
        items: Vec<Put>,
    ) -> impl Future<Output = Result<Vec<Result<Outcome>>>> + Send;

    /// Removes an entry, or only that revision of it. True when something was removed.
    fn remove(
        &self,
        key: &Key,
        only: Option<Revision>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Removes many entries; how many there were.
    fn remove_many(&self, keys: &[Key]) -> impl Future<Output = Result<u64>> + Send;

    /// Gives a present entry a new lifetime, counted from now, and leaves data and revision alone. It is fresh to its
    /// new end. False when there is none; zero removes it and is true.
    fn touch(&self, key: &Key, ttl: Ttl) -> impl Future<Output = Result<bool>> + Send;

    /// Adds to a counter without changing its lifetime. An absent one starts as `create` says, or the answer is `None`.
    ///
    /// # Errors
    ///
    /// [`NotAnInteger`](crate::ErrorKind::NotAnInteger) when the value is none, is enveloped, or would overflow; it is
    /// unchanged then.
    fn add(
        &self,
        key: &Key,
        delta: i64,
        create: Option<Counter>,
    ) -> impl Future<Output = Result<Option<i64>>> + Send;

    /// What is left of an entry's lifetime.
    fn remaining(&self, key: &Key) -> impl Future<Output = Result<Remaining>> + Send;

    /// Begins to fill an absent key: plants a marker that lives for `hold`, or tells why not.
    fn begin(&self, key: &Key, hold: Duration) -> impl Future<Output = Result<Begin>> + Send;

    /// Lets a marker live for another `hold` from now. False when it is no longer there.
    fn renew(
        &self,
        key: &Key,
        token: Token,
        hold: Duration,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Takes a marker away, or turns it into a *pass* mark that lives so long: "filling this key is of no use".
    /// False when the marker is no longer there.
    fn release(
        &self,
        key: &Key,
        token: Token,
        pass: Option<Duration>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Reads a namespace's sequence and the last invalidations of these tags, in one round trip. Records that are
    /// missing, or of another epoch than the sequence, are made with the sequence's present number. Records that nobody
    /// asks for may end after some days: what depends on them is a miss then, never valid.
    fn marks(
        &self,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> impl Future<Output = Result<Marks>> + Send;

    /// Takes the sequence's next number and records it as these tags' last invalidation, where theirs is smaller.
    /// When it returns, every one is recorded.
    fn invalidate(
        &self,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> impl Future<Output = Result<Sequence>> + Send;

    /// Empties one namespace, and touches nothing else on the server.
    fn clear(&self, namespace: &Namespace) -> impl Future<Output = Result<()>> + Send;

    /// Pages through the keys of a prefix, about `limit` at a time. Entries that stay in place the whole time are
    /// reported at least once; others may be reported or not. Plain counters may be left out: on a server they repeat
    /// no key.
    fn page(
        &self,
        prefix: &Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Page>> + Send;
}

/// The answer of [`Backend::peek`].
#[derive(Clone, Debug)]
pub enum Peek {
    /// It is here.
    Hit(Entry),
    /// It is not here, and this backend would know.
    Miss,
    /// Only [`Backend::get`] can tell.
    Ask,
}

/// The answer of [`Backend::get`].
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The entry.
    pub entry: Option<Entry>,
    /// The counters, in the order in which they were asked for.
    pub counters: Vec<Option<i64>>,
}

/// A condition on what is there when a [`Backend::put`] happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever is there.
    Always,
    /// Only if there is no entry. A marker is no entry.
    Absent,
    /// Only if there is an entry.
    Present,
    /// Only if there is an entry of that revision.
    Revision(Revision),
    /// Only if the very marker is there that [`Backend::begin`] planted.
    Token(Token),
}

/// One item of [`Backend::put_many`].
#[derive(Clone, Debug)]
pub struct Put {
    /// Where.
    pub key: Key,
    /// What.
    pub entry: Entry,
    /// For how long.
    pub ttl: Ttl,
    /// On what condition.
    pub when: When,
}

/// Whether a conditional write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It did.
    Stored,
    /// The condition did not hold; nothing changed.
    Refused,
}

/// How an absent counter starts: `initial`, to which the delta is then added.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// The value before the first addition.
    pub initial: i64,
    /// How long the counter lives.
    pub ttl: Ttl,
}

/// The answer of [`Backend::remaining`]: three distinct things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// There is no entry.
    Absent,
    /// There is one without an end.
    Forever,
    /// There is one for so long.
    For(Duration),
}

/// The answer of [`Backend::begin`].
#[derive(Clone, Debug)]
pub enum Begin {
    /// There is an entry after all.
    Found(Entry),
    /// The marker is planted; store the value with [`When::Token`].
    Token(Token),
    /// Somebody else fills it.
    Busy,
    /// Filling it is of no use for a while: its values are not stored.
    Pass,
}

/// Names one marker: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 16]);

impl Token {
    /// A new token.
    pub fn random() -> Self {
        Token(rand::random::<u128>().max(1).to_be_bytes())
    }

    /// The bits.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From the bits.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Token(bytes)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The answer of [`Backend::marks`].
#[derive(Clone, Debug)]
pub struct Marks {
    /// The sequence's present number: what a value that begins to be made now is built at.
    pub sequence: Sequence,
    /// The tags' last invalidations, in the order in which they were asked for.
    pub tags: Vec<Sequence>,
}

/// Where a paging goes on; only the backend that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// Some keys of a prefix.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The keys; a page may be empty and not the last one.
    pub keys: Vec<Key>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}
