//! The strict handle: entries, one time budget an operation, a breaker, and every error told.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::Instant;

use larder_core::{
    Abilities, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef, Marks,
    Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision, Sequence,
    Tag, Token, Ttl, When,
};

use crate::barred::Barred;
use crate::breaker::Breaker;
use crate::erased::Erased;
use crate::flight::{Flights, Joined};
use crate::signals::Signals;

/// Entries of one namespace of a store, without the engine's comforts.
///
/// This is what layers and sessions stand on: [`Cache::store`](crate::Cache::store) gives it. Every error is told, tags
/// are checked, each operation has one time budget however many round trips it takes, and a store that keeps failing is
/// given a pause. A clone is one reference count.
///
/// # Cancel safety
///
/// Dropping a future gives the answer up; what was asked happens wholly or not at all.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
    namespace: Namespace,
}

pub(crate) struct Core {
    pub(crate) backend: Box<dyn Erased>,
    pub(crate) abilities: Abilities,
    pub(crate) clock: Clock,
    pub(crate) flights: Flights,
    pub(crate) barred: Barred,
    pub(crate) signals: Signals,
    breaker: Breaker,
    read_budget: Duration,
    write_budget: Duration,
}

/// What a look-up found, besides an entry that may be used.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// An entry that its tags allow to be used. It may be stale: see its [times](Entry::times).
    Hit(Entry),
    /// An entry is there and one of its tags was invalidated since. Its revision tells a fill what to replace.
    Invalidated(Revision),
    /// There is nothing.
    Miss,
}

impl Core {
    pub(crate) fn new(
        backend: Box<dyn Erased>,
        read_budget: Duration,
        write_budget: Duration,
    ) -> Self {
        let clock = backend.clock_erased().clone();
        Core {
            abilities: backend.abilities_erased(),
            flights: Flights::default(),
            barred: Barred::default(),
            signals: Signals::default(),
            breaker: Breaker::new(5, Duration::from_secs(1), clock.clone()),
            clock,
            backend,
            read_budget,
            write_budget,
        }
    }

    /// Runs one operation, which may take several steps, within a budget and past the breaker.
    pub(crate) async fn guard<T>(
        &self,
        budget: Duration,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if self.abilities.local {
            return operation.await;
        }
        let backend = self.backend.name_erased();
        self.breaker.admit().map_err(|error| error.with_backend(backend))?;
        let result = tokio::time::timeout(budget, operation).await.unwrap_or_else(|_| {
            let words = "no answer within the operation's time budget";
            Err(Error::new(ErrorKind::Timeout, words).with_backend(backend))
        });
        self.breaker.report(result.as_ref().is_err_and(Error::is_outage), backend);
        result
    }

    pub(crate) async fn read<T>(&self, op: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.guard(self.read_budget, op).await
    }

    pub(crate) async fn write<T>(&self, op: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.guard(self.write_budget, op).await
    }

    // Tags whose invalidations rode along with the entry are in `known`; the rest cost one more round trip.
    async fn judge(
        &self,
        namespace: &Namespace,
        entry: Entry,
        known: &[(Tag, Option<i64>)],
    ) -> Result<Lookup> {
        // In-process conditions were checked by the backend.
        if entry.tags().is_empty() || entry.has_marks() {
            return Ok(Lookup::Hit(entry));
        }
        let built_at = entry.built_at();
        // Whether it may be used, and whether it is fresh as far as its tags tell.
        let (mut holds, mut fresh) = (true, true);
        let mut unknown = Vec::new();
        let expiring = entry.tags().iter().filter_map(Tag::expiring).map(|tag| (tag, true));
        for (tag, expires) in entry.tags().iter().map(|tag| (tag.clone(), false)).chain(expiring) {
            match known.iter().find(|(known, _)| *known == tag) {
                Some((_, mark)) => {
                    let covers = built_at.covers(mark.and_then(Sequence::from_i64));
                    *(if expires { &mut fresh } else { &mut holds }) &= covers;
                }
                None => unknown.push((tag, expires)),
            }
        }
        if holds && !unknown.is_empty() {
            let tags = unknown.iter().map(|(tag, _)| tag.clone()).collect();
            // Boxed, since every read's future would else have room for it.
            let covered = Box::pin(self.cover(namespace, tags, built_at)).await?;
            for ((_, expires), covers) in unknown.into_iter().zip(covered) {
                *(if expires { &mut fresh } else { &mut holds }) &= covers;
            }
        }
        Ok(match (holds, fresh) {
            (false, _) => Lookup::Invalidated(entry.revision()),
            (true, false) => Lookup::Hit(entry.staled()),
            (true, true) => Lookup::Hit(entry),
        })
    }

    // Whether an entry that was built then is valid for each of these tags, as the store has them. Reading their records is
    // cheap; `marks`, which also makes those that are missing or of a lost epoch, is only for the first time.
    async fn cover(
        &self,
        namespace: &Namespace,
        tags: Vec<Tag>,
        built_at: Sequence,
    ) -> Result<Vec<bool>> {
        let sequence = Key::sequence(namespace);
        let records = std::iter::once(sequence.clone())
            .chain(tags.iter().map(|tag| Key::tag(namespace, tag)))
            .collect::<Vec<_>>();
        let found = self.backend.get_erased(&sequence, &records).await?.counters;
        let mut numbers = found.into_iter().map(|record| {
            record.and_then(Sequence::from_i64).filter(|number| number.same_epoch(built_at))
        });
        let known = numbers.next().flatten().is_some();
        let (mut covers, mut missing) = (Vec::with_capacity(tags.len()), Vec::new());
        for (at, (tag, number)) in tags.into_iter().zip(numbers).enumerate() {
            let number = number.filter(|_| known);
            covers.push(built_at.covers(number));
            if number.is_none() {
                missing.push((at, tag));
            }
        }
        if !missing.is_empty() {
            let (places, tags): (Vec<usize>, Vec<Tag>) = missing.into_iter().unzip();
            let marks = self.backend.marks_erased(namespace, &tags).await?;
            for (at, mark) in places.into_iter().zip(marks.tags) {
                covers[at] = built_at.covers(Some(mark));
            }
        }
        Ok(covers)
    }
}

impl Store {
    pub(crate) fn new(core: Arc<Core>, namespace: Namespace) -> Self {
        Store { core, namespace }
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.core.signals
    }

    pub(crate) fn erased(&self) -> &dyn Erased {
        &*self.core.backend
    }

    pub(crate) fn longest_budget(&self) -> Duration {
        self.core.read_budget.max(self.core.write_budget)
    }

    // Whether tags mean the same here and there.
    pub(crate) fn is_same(&self, other: &Store) -> bool {
        Arc::ptr_eq(&self.core, &other.core) && self.namespace == other.namespace
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The same store, another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: Namespace) -> Store {
        Store { core: self.core.clone(), namespace }
    }

    /// The clock on whose line the entries' times lie.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// What the backend can do.
    pub fn abilities(&self) -> &Abilities {
        &self.core.abilities
    }

    /// The backend's name.
    pub fn backend_name(&self) -> &'static str {
        self.core.backend.name_erased()
    }

    /// Looks without waiting and without allocating. A hit's tags hold.
    #[inline]
    pub fn peek(&self, key: KeyRef<'_>) -> Peek {
        self.peek_at(key, self.clock().now())
    }

    /// The same, for those who have read the [clock](Store::clock) already.
    #[inline]
    pub fn peek_at(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        match self.core.backend.peek_erased(key, now) {
            // A backend that has it at hand and keeps no conditions for its tags: they have to be asked for.
            Peek::Hit(entry) if !entry.tags().is_empty() && !entry.has_marks() => Peek::Ask,
            Peek::Hit(_) if self.core.barred.any() => Peek::Ask,
            peek => peek,
        }
    }

    /// Reads an entry and checks its tags. `tags` are those that the caller expects: their records ride along, so that
    /// the usual case takes one round trip.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn lookup(&self, key: &Key, tags: &[Tag]) -> Result<Lookup> {
        if self.core.barred.bars(key) {
            return Ok(Lookup::Miss);
        }
        self.core
            .read(async {
                let riders: Vec<Key> =
                    tags.iter().map(|tag| Key::tag(&self.namespace, tag)).collect();
                let found = self.core.backend.get_erased(key, &riders).await?;
                let Some(entry) = found.entry else { return Ok(Lookup::Miss) };
                let known: Vec<_> = tags.iter().cloned().zip(found.counters).collect();
                self.core.judge(&self.namespace, entry, &known).await
            })
            .await
    }

    /// Reads many entries and checks their tags; what may not be used is `None`. One round trip, and one more when
    /// there are tags.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn lookup_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.core
            .read(async {
                let mut entries = self.core.backend.get_many_erased(keys).await?;
                let mut tags: Vec<Tag> = entries
                    .iter()
                    .flatten()
                    .filter(|entry| !entry.has_marks())
                    .flat_map(|entry| entry.tags().iter().cloned())
                    .collect();
                let expiring: Vec<Tag> = tags.iter().filter_map(Tag::expiring).collect();
                tags.extend(expiring);
                tags.sort_unstable();
                tags.dedup();
                let mut known = Vec::new();
                if !tags.is_empty() {
                    let marks = self.core.backend.marks_erased(&self.namespace, &tags).await?;
                    known =
                        tags.into_iter().zip(marks.tags.iter().map(|m| Some(m.get()))).collect();
                }
                for (key, slot) in keys.iter().zip(&mut entries) {
                    if let Some(entry) = slot.take_if(|_| !self.core.barred.bars(key))
                        && let Lookup::Hit(entry) =
                            self.core.judge(&self.namespace, entry, &known).await?
                    {
                        *slot = Some(entry);
                    } else {
                        *slot = None;
                    }
                }
                Ok(entries)
            })
            .await
    }

    /// Reads an entry as it is, with plain counters: no tag is checked.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        self.core.read(self.core.backend.get_erased(key, counters)).await
    }

    /// Stores an entry if the condition holds.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked, refuses the entry's size, or does not answer in time.
    pub async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let failures = self.core.barred.failures();
        let outcome = self.core.write(self.core.backend.put_erased(key, entry, ttl, when)).await?;
        if outcome == Outcome::Stored && replaces(when) {
            self.core.barred.lift(key, failures);
        }
        Ok(outcome)
    }

    /// Stores many entries, each for itself.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let failures = self.core.barred.failures();
        let keys: Vec<_> = items.iter().map(|item| (item.key.clone(), item.when)).collect();
        let outcomes = self.core.write(self.core.backend.put_many_erased(items)).await?;
        for ((key, when), outcome) in keys.iter().zip(&outcomes) {
            if matches!(outcome, Ok(Outcome::Stored)) && replaces(*when) {
                self.core.barred.lift(key, failures);
            }
        }
        Ok(outcomes)
    }

    /// Removes an entry, or only that revision of it. If an unconditional removal fails, the key stays barred on this
    /// node, as if it were empty, until the removal is confirmed.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let failures = self.core.barred.failures();
        let result = self.core.write(self.core.backend.remove_erased(key, only)).await;
        if only.is_none() {
            self.after_removal(std::slice::from_ref(key), result.is_ok(), failures);
        }
        result
    }

    /// Removes many entries. If that fails, their keys stay barred as with [`remove`](Store::remove).
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let failures = self.core.barred.failures();
        let result = self.core.write(self.core.backend.remove_many_erased(keys)).await;
        self.after_removal(keys, result.is_ok(), failures);
        result
    }

    /// A new value for these keys could not be stored: what the store may still have of them is older than what the
    /// caller knows, and is removed as soon as the store lets itself be asked.
    pub(crate) fn not_replaced(&self, keys: &[Key]) {
        self.core.barred.bar(&self.core, keys);
    }

    /// Whether what the store may have under a key is known to be old.
    pub(crate) fn bars(&self, key: &Key) -> bool {
        self.core.barred.bars(key)
    }

    // It began when there had been so many failures.
    fn after_removal(&self, keys: &[Key], confirmed: bool, failures: u64) {
        if confirmed {
            keys.iter().for_each(|key| self.core.barred.lift(key, failures));
        } else {
            self.core.barred.bar(&self.core, keys);
        }
    }

    /// Gives a present entry a new lifetime. False when there is none.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        if self.bars(key) {
            return Ok(false);
        }
        self.core.write(self.core.backend.touch_erased(key, ttl)).await
    }

    /// Adds to a counter without changing its lifetime.
    ///
    /// # Errors
    ///
    /// [`NotAnInteger`](ErrorKind::NotAnInteger), or when the store cannot be asked or does not answer in time.
    pub async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        if self.bars(key) {
            // Nothing is added to what was to be gone.
            self.remove(key, None).await?;
        }
        self.core.write(self.core.backend.add_erased(key, delta, create)).await
    }

    /// What is left of an entry's lifetime.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn remaining(&self, key: &Key) -> Result<Remaining> {
        if self.core.barred.bars(key) {
            return Ok(Remaining::Absent);
        }
        self.core.read(self.core.backend.remaining_erased(key)).await
    }

    /// Begins to fill an absent key.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        self.core.write(self.core.backend.begin_erased(key, hold)).await
    }

    /// Begins to fill an absent key; while somebody else fills it, waits up to `wait` for what they store.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn begin_or_wait(&self, key: &Key, hold: Duration, wait: Duration) -> Result<Begin> {
        self.begin_since(key, hold, wait).await.map(|(begun, _)| begun)
    }

    // The same, and when the attempt began that was answered.
    pub(crate) async fn begin_since(
        &self,
        key: &Key,
        hold: Duration,
        wait: Duration,
    ) -> Result<(Begin, Instant)> {
        let deadline = Instant::now() + wait.min(Ttl::MAX);
        let mut pause = Duration::from_millis(5);
        loop {
            let asked = Instant::now();
            let begun = self.begin(key, hold).await?;
            let next = Instant::now() + pause;
            if !matches!(begun, Begin::Busy) || next > deadline {
                return Ok((begun, asked));
            }
            tokio::time::sleep_until(next).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Works while fill markers are kept alive, so that they end soon after a process that died with them.
    pub async fn holding<T>(
        &self,
        held: &[(Key, Token)],
        hold: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        if held.is_empty() {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(hold / 3, &mut work).await {
                Ok(done) => return done,
                // A marker that is gone is found out when the value is stored.
                Err(_) => {
                    let renewals = held.iter().map(|(key, token)| self.renew(key, *token, hold));
                    let renewals = std::pin::pin!(futures_util::future::join_all(renewals));
                    // A store that hangs holds up the renewals, and not the work.
                    if let Either::Left((done, _)) = select(&mut work, renewals).await {
                        return done;
                    }
                }
            }
        }
    }

    /// Lets a fill marker live longer. False when it is no longer there.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.core.write(self.core.backend.renew_erased(key, token, hold)).await
    }

    /// Whether what is being made for the key would be valid if it were stored at this moment: its marker, or the record
    /// that it is to replace, is there, and none of its tags was invalidated since its making began. For those who
    /// came later and want to use it before it is stored. Two round trips. With [`When::Always`] only the tags are asked
    /// for, if there are any.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn would_hold(
        &self,
        key: &Key,
        when: When,
        hold: Duration,
        tags: &[Tag],
        built_at: Sequence,
    ) -> Result<bool> {
        let there = match when {
            When::Token(token) => self.renew(key, token, hold).await?,
            When::Revision(revision) => {
                let entry = self.get(key, &[]).await?.entry;
                entry.is_some_and(|entry| entry.revision() == revision)
            }
            When::Present => self.get(key, &[]).await?.entry.is_some(),
            When::Absent | When::Always => true,
        };
        if !there || tags.is_empty() {
            return Ok(there);
        }
        let tags = tags.iter().cloned().chain(tags.iter().filter_map(Tag::expiring)).collect();
        let covered = self.core.read(self.core.cover(&self.namespace, tags, built_at)).await?;
        Ok(covered.into_iter().all(|covers| covers))
    }

    /// Takes a fill marker away, or turns it into a pass mark.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.core.write(self.core.backend.release_erased(key, token, pass)).await
    }

    /// The namespace's invalidation sequence and the tags' last invalidations.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn marks(&self, tags: &[Tag]) -> Result<Marks> {
        self.core.write(self.core.backend.marks_erased(&self.namespace, tags)).await
    }

    /// Invalidates everything that carries one of these tags, however much it is, and detaches the computations that
    /// run for them on this node.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time: then it may or may not have happened.
    pub async fn invalidate(&self, tags: &[Tag]) -> Result<Sequence> {
        self.drop_tags(tags, &Tag::with_lasting(tags)).await
    }

    /// The same, but what is kept for a time as a stale one is stale from now on, and not gone.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Store::invalidate).
    pub async fn expire(&self, tags: &[Tag]) -> Result<Sequence> {
        self.drop_tags(tags, tags).await
    }

    async fn drop_tags(&self, tags: &[Tag], records: &[Tag]) -> Result<Sequence> {
        // Detached before and after: a flight that starts between the two may have read the old number.
        let mut held = self.core.flights.detach_tags(&self.namespace, tags);
        let result =
            self.core.write(self.core.backend.invalidate_erased(&self.namespace, records)).await;
        held.extend(self.core.flights.detach_tags(&self.namespace, tags));
        for (key, token) in held {
            // If this fails the marker ends by itself.
            let _ = self.release(&key, token, None).await;
        }
        result
    }

    /// Empties the namespace and detaches the computations that run in it on this node.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked or does not answer in time.
    pub async fn clear(&self) -> Result<()> {
        self.core.flights.detach_namespace(&self.namespace);
        let result = self.core.write(self.core.backend.clear_erased(&self.namespace)).await;
        self.core.flights.detach_namespace(&self.namespace);
        result
    }

    /// Joins the running work for that key on this node, or starts it. Invalidating the `group` key or one of the tags
    /// detaches it, so that later callers start anew.
    pub fn join(&self, key: &Key, group: &Key, tags: &[Tag]) -> Joined {
        self.core.flights.join(key, group, tags)
    }

    /// Detaches the running work of a group on this node.
    pub fn detach(&self, group: &Key) {
        self.core.flights.detach(group);
    }

    /// Detaches the running work of all groups that begin like that on this node.
    pub async fn detach_prefix(&self, prefix: &Prefix) {
        for (key, token) in self.core.flights.detach_prefix(prefix) {
            // If this fails the marker ends by itself.
            let _ = self.release(&key, token, None).await;
        }
    }

    /// How much work is running on this node.
    pub fn flights(&self) -> usize {
        self.core.flights.len()
    }

    /// Pages through the keys of a prefix.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported), or when the store cannot be asked or does not answer in time.
    pub async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.core.read(self.core.backend.page_erased(prefix, from, limit)).await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("backend", &self.backend_name())
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

// Whether a put under that condition is newer than any removal that failed before. What was begun under a fill marker or a
// revision may be older: its key stays barred until the removal is confirmed.
fn replaces(when: When) -> bool {
    !matches!(when, When::Token(_) | When::Revision(_))
}
