//! A store that keeps nothing.

use std::time::Duration;

use larder_core::envelope::{Envelope, TimeBase, plain_counter};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef,
    Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Times, Token, Ttl, When,
};

/// Keeps nothing and checks everything: for development, where each change shall be seen at once, and for tests of how
/// a service behaves without its cache. `null://` names it.
///
/// ```
/// use larder_cache::Cache;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::connect("null://").await?;
/// cache.set("greeting", "hello".to_owned()).await?;
/// assert!(!cache.contains("greeting").await?);
/// // What a server would refuse is refused here too.
/// assert!(cache.set("large", "x".repeat(2 << 20)).await.is_err());
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
///
/// It is a store whose every entry is gone when the write that stored it has returned, and
/// [`Abilities::forgets`] says so:
///
/// * Unconditional writes and those of what is absent succeed; all that depends on something being there is refused: a
///   revision, a marker, a touch, a removal.
/// * A value that does not serialize is an error, and so is an entry that is larger than
///   [`max_entry_bytes`](NullBuilder::max_entry_bytes) or has too many tags, as on a server.
/// * A counter starts anew with each addition. Its overflow is an error.
/// * Everybody who asks for a lock or begins a fill is given it: markers are gone at once too, so nobody waits. The
///   renewal then finds that the lock is lost.
/// * Sessions refuse to live here.
///
/// # Cancel safety
///
/// Nothing waits, so nothing is interrupted.
#[derive(Clone, Debug)]
pub struct NullBackend {
    max_entry_bytes: u64,
    default_ttl: Ttl,
    clock: Clock,
}

impl Default for NullBackend {
    fn default() -> Self {
        NullBackend::builder().build()
    }
}

impl NullBackend {
    /// Configures one.
    pub fn builder() -> NullBuilder {
        NullBuilder(NullBackend {
            max_entry_bytes: 1024 * 1024,
            default_ttl: Ttl::STANDARD,
            clock: Clock::system(),
        })
    }

    // Whether a server would take it. Its bytes are made and dropped.
    fn check(&self, key: &Key, entry: Entry, ttl: Ttl) -> Result<()> {
        let ttl = ttl.resolve(self.default_ttl);
        if ttl == Some(Duration::ZERO) || plain_counter(&entry).is_some() {
            return Ok(());
        }
        let now = self.clock.now();
        let entry = entry.clone().with_times(Times::starting(now, ttl, entry.freshness()));
        let base = TimeBase { millis: 0, at: now };
        let record = Envelope::default()
            .encode(key.as_ref(), &entry, &base)
            .map_err(|error| error.with_backend(NAME))?;
        if record.len() as u64 <= self.max_entry_bytes {
            return Ok(());
        }
        let words = "the entry is larger than max_entry_bytes; keep it smaller, or raise the limit where the real store has a larger one";
        Err(Error::new(ErrorKind::TooLarge, words).with_backend(NAME))
    }
}

const NAME: &str = "null";

/// Configures a [`NullBackend`].
#[derive(Clone, Debug)]
#[must_use]
pub struct NullBuilder(NullBackend);

impl NullBuilder {
    /// The bytes that one entry's record may have, key and tags included. 1 MiB unless set: what Memcached takes, which
    /// is the least of all servers.
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.0.max_entry_bytes = bytes;
        self
    }

    /// What [`Ttl::Default`] stands for. 300 s unless set. Nothing lives that long here; what is shown to clients may
    /// depend on it.
    pub fn default_ttl(mut self, ttl: Ttl) -> Self {
        self.0.default_ttl = ttl;
        self
    }

    /// The clock, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.0.clock = clock;
        self
    }

    /// Makes the backend.
    pub fn build(self) -> NullBackend {
        self.0
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for NullBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            local: true,
            pages: true,
            follows_clock: self.clock.is_manual(),
            max_bytes: Some(self.max_entry_bytes),
            forgets: true,
            default_ttl: self.default_ttl,
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    fn peek(&self, _: KeyRef<'_>, _: Moment) -> Peek {
        Peek::Miss
    }

    async fn get(&self, _: &Key, counters: &[Key]) -> Result<Found> {
        Ok(Found { entry: None, counters: vec![None; counters.len()] })
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(vec![None; keys.len()])
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        if !matches!(when, When::Always | When::Absent) {
            return Ok(Outcome::Refused);
        }
        self.check(key, entry, ttl).map(|()| Outcome::Stored)
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes = Vec::with_capacity(items.len());
        for Put { key, entry, ttl, when } in items {
            outcomes.push(self.put(&key, entry, ttl, when).await);
        }
        Ok(outcomes)
    }

    async fn remove(&self, _: &Key, _: Option<Revision>) -> Result<bool> {
        Ok(false)
    }

    async fn remove_many(&self, _: &[Key]) -> Result<u64> {
        Ok(0)
    }

    async fn touch(&self, _: &Key, _: Ttl) -> Result<bool> {
        Ok(false)
    }

    async fn add(&self, _: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let Some(Counter { initial, .. }) = create else { return Ok(None) };
        initial.checked_add(delta).map(Some).ok_or_else(|| {
            Error::new(ErrorKind::NotAnInteger, "the sum does not fit").with_backend(NAME)
        })
    }

    async fn remaining(&self, _: &Key) -> Result<Remaining> {
        Ok(Remaining::Absent)
    }

    async fn begin(&self, _: &Key, _: Duration) -> Result<Begin> {
        Ok(Begin::Token(Token::random()))
    }

    async fn renew(&self, _: &Key, _: Token, _: Duration) -> Result<bool> {
        Ok(false)
    }

    async fn release(&self, _: &Key, _: Token, _: Option<Duration>) -> Result<bool> {
        Ok(false)
    }

    // A sequence that is lost begins under another epoch, and this one is lost each time.
    async fn marks(&self, _: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let sequence = Sequence::start();
        Ok(Marks { sequence, tags: vec![sequence; tags.len()] })
    }

    async fn invalidate(&self, _: &Namespace, _: &[Tag]) -> Result<Sequence> {
        Ok(Sequence::start())
    }

    async fn clear(&self, _: &Namespace) -> Result<()> {
        Ok(())
    }

    async fn page(&self, _: &Prefix, _: Option<Cursor>, _: usize) -> Result<Page> {
        Ok(Page::default())
    }
}
