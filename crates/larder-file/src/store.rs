//! The backend: every operation as one step, in a thread where waiting harms nobody.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use larder_core::envelope::{Damage, Envelope, Record, TIMES};
use larder_core::order::{Keys, Order};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Damages, Entry, Error, ErrorKind, Found,
    Key, Marks, Namespace, Outcome, Page, Payload, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Times, Token, Ttl, When,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::client::{Directory, charge, failed};
use crate::config::Builder;
use crate::generation::{Known, Lives};
use crate::locks::{self, Hold, Lock, Stripes};
use crate::naming::Place;
use crate::sweep::{self, Bell};
use crate::time::Time;
use crate::totals::{Sum, Totals};
use crate::{NAME, Usage};

/// Entries in a directory; see the [crate's documentation](crate). A clone is a handle of the same directory.
#[derive(Clone)]
pub struct FileBackend(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) directory: Directory,
    // Who holds a shelf's stripe may write to the shelf. Reading takes no lock: a record is renamed into its place.
    pub(crate) stripes: Stripes,
    // For writing generations. May be waited for by who holds a stripe, and never the other way round.
    pub(crate) generations: Lock,
    pub(crate) known: Known,
    // Its lock comes last.
    pub(crate) totals: Totals,
    pub(crate) limit: Sum,
    pub(crate) bell: Arc<Bell>,
    pub(crate) clock: Clock,
    pub(crate) envelope: Envelope,
    damages: Damages,
    default_ttl: Ttl,
    max_value_bytes: u64,
    // The runtime's threads for waiting are there for others too.
    threads: Arc<Semaphore>,
    order: Order,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.bell.end();
    }
}

impl FileBackend {
    /// Opens the directory of a URL: `file:///var/cache/app`. [`Builder::url`] tells all of it.
    ///
    /// It takes a few system calls, however much the directory holds.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::url`] and [`Builder::build`].
    pub fn open(url: &str) -> Result<Self> {
        Self::builder().url(url)?.build()
    }

    /// Configures one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What the directory holds: of all processes that use it, what expired and was not freed yet included.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) when the directory cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes, whenever the future is dropped.
    pub async fn usage(&self) -> Result<Usage> {
        let sum = self.step(Keys::NONE, Inner::usage).await?;
        Ok(Usage { files: sum.files, bytes: sum.bytes })
    }

    /// Frees now what would be freed in the background little by little: what has expired, what cleared namespaces
    /// left, what was begun by processes that died. It looks at every file.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) when the directory cannot be read or written to.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the sweep goes to its end in the background.
    pub async fn sweep(&self) -> Result<()> {
        self.step(Keys::NONE, Inner::sweep).await
    }

    /// Where a key's record lies until the namespace is cleared, whether there is one or not: for whoever wants to look at
    /// it with tools of their own. What lies there is Larder's envelope; `None` where the namespace was never written to.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) when the directory cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes, whenever the future is dropped.
    pub async fn place(&self, key: &Key) -> Result<Option<PathBuf>> {
        let key = key.clone();
        self.step(Keys::NONE, move |inner| {
            let generation = Lives::new(inner).of(key.namespace())?;
            Ok(generation.map(|generation| inner.directory.path(&Place::of(&key, generation))))
        })
        .await
    }

    pub(crate) fn with(directory: Directory, config: Builder) -> Self {
        let max_value_bytes = config.largest_value();
        let inner = Arc::new(Inner {
            stripes: Stripes::new(&directory),
            generations: Lock::new(&directory, "generations"),
            known: Known::default(),
            totals: Totals::new(&directory),
            directory,
            limit: Sum { bytes: config.max_bytes, files: config.max_files },
            bell: Arc::default(),
            clock: config.clock,
            // Disks tear and rot, so bodies are always checked.
            envelope: Envelope::default().verify_body(true),
            damages: Damages::default(),
            default_ttl: config.default_ttl,
            max_value_bytes,
            threads: Arc::new(Semaphore::new(THREADS)),
            order: Order::default(),
        });
        sweep::start(&inner);
        FileBackend(inner)
    }

    // One operation. Once its thread has begun it comes to its end, whether anybody waits for it or not.
    async fn step<T: Send + 'static>(
        &self,
        keys: Keys,
        step: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let unavailable = |words| Error::new(ErrorKind::Unavailable, words).with_backend(NAME);
        let runtime = Handle::try_current()
            .map_err(|_| unavailable("files are used from inside a Tokio runtime only"))?;
        let inner = self.0.clone();
        let (waiting, mut running) = self.0.order.begin(keys);
        let ready = async {
            running.turn().await;
            inner.threads.clone().acquire_owned().await
        };
        // Others may be waiting for a lock that somebody does not give back.
        let permit = tokio::time::timeout(locks::LIMIT, ready).await.map_err(|_| {
            let words = "earlier operations on the directory do not come to their end";
            Error::new(ErrorKind::Timeout, words).with_backend(NAME)
        })?;
        let job = runtime.spawn_blocking(move || {
            let _held = (permit, running);
            step(&inner)
        });
        let done = job.await;
        waiting.answered();
        match done {
            Ok(result) => result,
            Err(error) => {
                Err(unavailable("the runtime has ended before it began").with_source(error))
            }
        }
    }
}

impl Backend for FileBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            evicts: true,
            pages: true,
            shared: true,
            durable: true,
            follows_clock: self.0.clock.is_manual(),
            precision: Duration::from_millis(1),
            max_bytes: Some(self.0.max_value_bytes),
            default_ttl: self.0.default_ttl,
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let (key, counters) = (key.clone(), counters.to_vec());
        self.step(Keys::NONE, move |inner| {
            let mut lives = Lives::new(inner);
            let entry = inner.find(&mut lives, &key)?;
            let counters = counters
                .iter()
                .map(|key| Ok(inner.find(&mut lives, key)?.as_ref().and_then(plain)));
            Ok(Found { entry, counters: counters.collect::<Result<_>>()? })
        })
        .await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.step(Keys::NONE, move |inner| {
            let mut lives = Lives::new(inner);
            keys.iter().map(|key| inner.find(&mut lives, key)).collect()
        })
        .await
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let put = Put { key: key.clone(), entry, ttl, when };
        self.step(Keys::one(key), move |inner| inner.put(put)).await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.step(Keys::of(items.iter().map(|put| &put.key)), move |inner| {
            Ok(items.into_iter().map(|put| inner.put(put)).collect())
        })
        .await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let key = key.clone();
        self.step(Keys::one(&key), move |inner| inner.remove(&key, only)).await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let keys = keys.to_vec();
        self.step(Keys::of(&keys), move |inner| {
            keys.iter().try_fold(0, |sum, key| Ok(sum + u64::from(inner.remove(key, None)?)))
        })
        .await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let key = key.clone();
        self.step(Keys::one(&key), move |inner| inner.touch(&key, ttl)).await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let key = key.clone();
        self.step(Keys::one(&key), move |inner| inner.add(&key, delta, create)).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let key = key.clone();
        self.step(Keys::NONE, move |inner| {
            let Some(life) = inner.generation(key.namespace())? else {
                return Ok(Remaining::Absent);
            };
            let time = Time::of(&inner.clock);
            Ok(match inner.look(&Place::of(&key, life), &key, &time)? {
                Look::Entry(entry) => {
                    entry.remaining(time.now).map_or(Remaining::Forever, Remaining::For)
                }
                _ => Remaining::Absent,
            })
        })
        .await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        let key = key.clone();
        self.step(Keys::one(&key), move |inner| inner.begin(&key, hold)).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        let key = key.clone();
        self.step(Keys::one(&key), move |inner| {
            inner.exchange_marker(&key, token, Some((false, hold)))
        })
        .await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        let key = key.clone();
        let marker = pass.filter(|pass| !pass.is_zero()).map(|pass| (true, pass));
        self.step(Keys::one(&key), move |inner| inner.exchange_marker(&key, token, marker)).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let (namespace, tags) = (namespace.clone(), tags.to_vec());
        self.step(Keys::NONE, move |inner| inner.marks(&namespace, &tags)).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let (namespace, tags) = (namespace.clone(), tags.to_vec());
        self.step(Keys::ALL, move |inner| inner.invalidate(&namespace, &tags)).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let namespace = namespace.clone();
        self.step(Keys::ALL, move |inner| inner.clear(namespace.as_str())).await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        let prefix = prefix.clone();
        self.step(Keys::NONE, move |inner| inner.page(&prefix, from, limit)).await
    }
}

impl Inner {
    fn find(&self, lives: &mut Lives<'_>, key: &Key) -> Result<Option<Entry>> {
        let Some(life) = lives.of(key.namespace())? else { return Ok(None) };
        match self.look(&Place::of(key, life), key, &Time::of(&self.clock))? {
            Look::Entry(entry) => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    /// What lies at a place, read without a lock.
    pub(crate) fn look(&self, place: &Place, key: &Key, time: &Time) -> Result<Look> {
        match self.read(place, key, time)? {
            Ok(look) => return Ok(look),
            // A touch writes the times in their place, and may have been under way. Nobody writes under the lock.
            Err(Damage::Checksum) => {}
            Err(damage) => {
                crate::log::damaged(&self.damages, &self.clock, damage);
                return Ok(Look::Nothing);
            }
        }
        let hold = self.stripes.hold(place.shelf)?;
        self.look_held(&hold, place, key, time)
    }

    // The same while the place's shelf is held.
    pub(crate) fn look_held(
        &self,
        _: &Hold<'_>,
        place: &Place,
        key: &Key,
        time: &Time,
    ) -> Result<Look> {
        Ok(self.read(place, key, time)?.unwrap_or_else(|damage| {
            crate::log::damaged(&self.damages, &self.clock, damage);
            Look::Nothing
        }))
    }

    fn read(&self, place: &Place, key: &Key, time: &Time) -> Result<Result<Look, Damage>> {
        let bytes = self.directory.read(place, self.max_value_bytes).map_err(failed)?;
        let Some(bytes) = bytes else { return Ok(Ok(Look::Nothing)) };
        let marker_end = bytes.get(24..32).and_then(|end| end.try_into().ok());
        let marker_over = marker_end.is_none_or(|end| time.over(u64::from_be_bytes(end)));
        Ok(self.envelope.decode(bytes, key.as_ref(), &time.base).map(|record| match record {
            Record::Entry(entry) => {
                let expired = entry.times().is_none_or(|times| times.expired(time.now));
                if expired { Look::Nothing } else { Look::Entry(entry) }
            }
            Record::Fill(_) | Record::Pass(_) if marker_over => Look::Nothing,
            Record::Fill(token) => Look::Fill(token),
            Record::Pass(_) => Look::Pass,
        }))
    }

    /// Writes a record to a shelf that is held.
    pub(crate) fn write(&self, hold: &Hold<'_>, place: &Place, bytes: &[u8]) -> Result<()> {
        let new = charge(bytes.len() as u64);
        self.reserve(hold, place.shelf, new)?;
        // Looked at only now: it may have made way for its own replacement.
        let written = self.directory.charged(place).and_then(|old| {
            self.directory.write(place, bytes)?;
            Ok(old)
        });
        // Too much is counted when this fails, until the next sweep.
        let _ = match &written {
            Ok(None) => Ok(()),
            Ok(Some(old)) => self.totals.release(place.shelf, Sum::one(*old)),
            // Whether it came to be renamed is not known.
            Err(_) => self.count(place.shelf).map(drop),
        };
        written.map(drop).map_err(failed)
    }

    fn put(&self, put: Put) -> Result<Outcome> {
        let Put { key, entry, ttl, when } = put;
        let (hold, place) = self.hold(&key)?;
        let time = Time::of(&self.clock);
        let holds = match when {
            When::Always => true,
            _ => {
                let there = self.look_held(&hold, &place, &key, &time)?;
                match (when, there) {
                    (When::Absent, there) => !matches!(there, Look::Entry(_)),
                    (When::Present, Look::Entry(_)) => true,
                    (When::Revision(revision), Look::Entry(there)) => is_of(&there, revision),
                    (When::Token(token), Look::Fill(there)) => there == token,
                    _ => false,
                }
            }
        };
        if !holds {
            return Ok(Outcome::Refused);
        }
        let ttl = ttl.resolve(self.default_ttl);
        if ttl == Some(Duration::ZERO) {
            self.remove_counted(place.shelf, &place.file)?;
            return Ok(Outcome::Stored);
        }
        let times = Times::starting(time.now, ttl, entry.freshness());
        let stored = self.store(&hold, &place, &key, entry.with_times(times), &time);
        if stored.as_ref().is_err_and(|error| error.kind() != ErrorKind::Other) {
            // Too large, or no room: an old value must not outlive the one that was to replace it.
            let _ = self.remove_counted(place.shelf, &place.file);
        }
        stored.map(|()| Outcome::Stored)
    }

    fn store(
        &self,
        hold: &Hold<'_>,
        place: &Place,
        key: &Key,
        entry: Entry,
        time: &Time,
    ) -> Result<()> {
        // A plain integer has no revision, so that a counter is the same whether it was put or added to.
        let entry = match entry.as_counter() {
            Some(_) => entry.with_revision(Revision::NONE).with_built_at(Sequence::NONE),
            None if entry.revision() == Revision::NONE
                && matches!(entry.payload(), Payload::Integer(_)) =>
            {
                entry.with_revision(Revision::random())
            }
            None => entry,
        };
        let bytes = self.envelope.encode(key.as_ref(), &entry, &time.base);
        let bytes = bytes.map_err(|error| error.with_backend(NAME))?;
        if bytes.len() as u64 > self.max_value_bytes {
            let words = "the value is larger than max_value_bytes; raise it or store less";
            return Err(Error::new(ErrorKind::TooLarge, words).with_backend(NAME));
        }
        self.write(hold, place, &bytes)
    }

    fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let Some(life) = self.generation(key.namespace())? else { return Ok(false) };
        let place = Place::of(key, life);
        let hold = self.stripes.hold(place.shelf)?;
        let there = match self.look_held(&hold, &place, key, &Time::of(&self.clock))? {
            Look::Entry(entry) => Some(entry),
            _ => None,
        };
        if let Some(revision) = only
            && there.as_ref().is_none_or(|entry| !is_of(entry, revision))
        {
            return Ok(false);
        }
        self.remove_counted(place.shelf, &place.file)?;
        Ok(there.is_some())
    }

    fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let Some(life) = self.generation(key.namespace())? else { return Ok(false) };
        let place = Place::of(key, life);
        let hold = self.stripes.hold(place.shelf)?;
        let time = Time::of(&self.clock);
        let Look::Entry(_) = self.look_held(&hold, &place, key, &time)? else { return Ok(false) };
        let ttl = ttl.resolve(self.default_ttl);
        if ttl == Some(Duration::ZERO) {
            self.remove_counted(place.shelf, &place.file)?;
            return Ok(true);
        }
        // In place: the rest of the record may be large.
        let times = Times::starting(time.now, ttl, None);
        let block = self.envelope.times(key.as_ref(), &times, &time.base);
        self.directory.write_at(&place, &block, TIMES.start as u64).map_err(failed)
    }

    fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let refuse = |words| Err(Error::new(ErrorKind::NotAnInteger, words).with_backend(NAME));
        if create.is_none() && self.generation(key.namespace())?.is_none() {
            return Ok(None);
        }
        let (hold, place) = self.hold(key)?;
        let time = Time::of(&self.clock);
        let (value, times) = match (self.look_held(&hold, &place, key, &time)?, create) {
            (Look::Entry(entry), _) => match (plain(&entry), entry.times()) {
                (Some(value), Some(times)) => (value, *times),
                _ => return refuse("the value is not a plain integer; it is unchanged"),
            },
            (_, Some(Counter { initial, ttl })) => {
                (initial, Times::starting(time.now, ttl.resolve(self.default_ttl), None))
            }
            (_, None) => return Ok(None),
        };
        let Some(sum) = value.checked_add(delta) else {
            return refuse("the sum does not fit 64 bits; the value is unchanged");
        };
        if times.expired(time.now) {
            // Asked to live for no time.
            self.remove_counted(place.shelf, &place.file)?;
        } else {
            self.store(&hold, &place, key, Entry::integer(sum).with_times(times), &time)?;
        }
        Ok(Some(sum))
    }

    fn begin(&self, key: &Key, life: Duration) -> Result<Begin> {
        let begun = |look| match look {
            Look::Entry(entry) => Some(Begin::Found(entry)),
            Look::Fill(_) => Some(Begin::Busy),
            Look::Pass => Some(Begin::Pass),
            Look::Nothing => None,
        };
        // Where nothing is to be written, no lock is needed.
        if let Some(life) = self.generation(key.namespace())? {
            let look = self.look(&Place::of(key, life), key, &Time::of(&self.clock))?;
            if let Some(begin) = begun(look) {
                return Ok(begin);
            }
        }
        let (hold, place) = self.hold(key)?;
        let time = Time::of(&self.clock);
        if let Some(begin) = begun(self.look_held(&hold, &place, key, &time)?) {
            return Ok(begin);
        }
        let token = Token::random();
        self.plant(&hold, &place, token, (false, life), &time)?;
        Ok(Begin::Token(token))
    }

    // Puts another marker, or none, in the place of the fill marker with that token.
    fn exchange_marker(
        &self,
        key: &Key,
        token: Token,
        marker: Option<(bool, Duration)>,
    ) -> Result<bool> {
        let Some(life) = self.generation(key.namespace())? else { return Ok(false) };
        let place = Place::of(key, life);
        let hold = self.stripes.hold(place.shelf)?;
        let time = Time::of(&self.clock);
        match self.look_held(&hold, &place, key, &time)? {
            Look::Fill(there) if there == token => {}
            _ => return Ok(false),
        }
        match marker {
            Some(marker) => self.plant(&hold, &place, token, marker, &time)?,
            None => drop(self.remove_counted(place.shelf, &place.file)?),
        }
        Ok(true)
    }

    fn plant(
        &self,
        hold: &Hold<'_>,
        place: &Place,
        token: Token,
        (pass, life): (bool, Duration),
        time: &Time,
    ) -> Result<()> {
        let end = time.now + life.min(Ttl::MAX);
        let bytes = self.envelope.encode_marker(token, pass, end, &time.base);
        self.write(hold, place, &bytes)
    }

    // The right to write under a key, and where that is.
    fn hold(&self, key: &Key) -> Result<(Hold<'_>, Place)> {
        let place = Place::of(key, self.generation_or_new(key.namespace())?);
        Ok((self.stripes.hold(place.shelf)?, place))
    }
}

/// What lies at a place.
pub(crate) enum Look {
    Entry(Entry),
    Fill(Token),
    Pass,
    /// Expired, damaged or foreign.
    Nothing,
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend")
            .field("max_bytes", &self.0.limit.bytes)
            .field("max_files", &self.0.limit.files)
            .field("default_ttl", &self.0.default_ttl)
            .finish_non_exhaustive()
    }
}

/// The value of a plain counter. It was stored without a revision: an integer that had a freshness when it was stored,
/// and lost it by a touch, is none.
pub(crate) fn plain(entry: &Entry) -> Option<i64> {
    entry.as_counter().filter(|_| entry.revision() == Revision::NONE)
}

// Plain integers have none.
fn is_of(entry: &Entry, revision: Revision) -> bool {
    plain(entry).is_none() && entry.revision() == revision
}

// Operations at the same time, of one handle.
const THREADS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_may_be_sent_between_threads() {
        fn send<T: Send>(_: &T) {}
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<FileBackend>();
        let directory = tempfile::tempdir().unwrap();
        let backend = FileBackend::builder().path(directory.path()).build().unwrap();
        let key = Key::new(&Namespace::new("shop").unwrap(), ["k"]).unwrap();
        send(&backend.get(&key, &[]));
        send(&backend.put_many(Vec::new()));
        send(&backend.sweep());
    }
}
