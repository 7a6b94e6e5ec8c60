//! The reference backend once more, with a switch for each way to get it wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::{Damage, Envelope, KeyOf, Record, TimeBase, key_of};
use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Encoded, Entry, Error, ErrorKind, Found,
    Key, KeyRef, Marks, Moment, Namespace, Outcome, Page, Payload, Peek, Prefix, Put, Remaining,
    Result, Revision, Sequence, Tag, Times, Token, Ttl, When,
};
use parking_lot::Mutex;

use crate::table::Defect;
use Defect as D;

pub(crate) struct Wrong {
    state: Arc<Mutex<State>>,
    pub(crate) trips: Arc<AtomicU64>,
    writes: AtomicUsize,
    clock: Clock,
    defect: Option<Defect>,
    room: Option<usize>,
    shared: bool,
}

#[derive(Default)]
struct State {
    map: BTreeMap<Vec<u8>, (Key, Slot)>,
    // Tokens that should be void and are not.
    ghosts: HashMap<Key, Token>,
    passes: HashMap<Key, ()>,
    cleared: HashMap<String, Moment>,
    clears: usize,
    replies: VecDeque<Found>,
    reply: Option<Found>,
}

#[derive(Clone)]
enum Slot {
    Entry(Entry),
    Fill { token: Token, expires: Moment },
    Pass { token: Token, expires: Moment },
    Foreign(Bytes),
}

pub(crate) const MAX_BYTES: u64 = 2 << 20;

impl Wrong {
    pub(crate) fn new(clock: Clock, defect: Option<Defect>) -> Self {
        Wrong {
            state: Arc::default(),
            trips: Arc::default(),
            writes: AtomicUsize::new(0),
            clock,
            defect,
            room: None,
            shared: true,
        }
    }

    /// Surely the same store.
    pub(crate) fn same(&self) -> Self {
        Wrong { state: self.state.clone(), ..Wrong::new(self.clock.clone(), self.defect) }
    }

    /// Another client of the same store.
    pub(crate) fn second(&self) -> Self {
        let state = if self.is(D::SecondIsAnother) { Arc::default() } else { self.state.clone() };
        Wrong { state, ..Wrong::new(self.clock.clone(), self.defect) }
    }

    pub(crate) fn small(&self, room: usize) -> Self {
        let room = (!self.is(D::NoBound)).then_some(room);
        Wrong { room, ..Wrong::new(self.clock.clone(), self.defect) }
    }

    pub(crate) fn plant(&self, key: Key, bytes: Bytes) {
        let name = self.named(&key);
        self.state.lock().map.insert(name, (key, Slot::Foreign(bytes)));
    }

    pub(crate) fn restart(&self) {
        if self.is(D::RestartForgets) {
            self.state.lock().map.clear();
        }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    // Where an operation that is one step becomes two.
    async fn pause(&self, defect: Defect) {
        if self.is(defect) {
            tokio::task::yield_now().await;
        }
    }

    async fn trip(&self) {
        self.trips.fetch_add(1, Ordering::SeqCst);
        self.pause(D::YieldsFirst).await;
    }

    fn named(&self, key: &Key) -> Vec<u8> {
        let framed = key.as_ref().as_bytes();
        let space = framed[0] as usize + 1;
        match self.defect {
            Some(D::KeysIgnoreNamespace) => framed[space..].to_vec(),
            Some(D::NamesAreCut) => [&framed[1..space.min(21)], &framed[space..]].concat(),
            Some(D::PartsAreJoined) => {
                let parts = key.as_ref().parts().map(Option::unwrap_or_default);
                let parts = parts.collect::<Vec<_>>().join(&b':');
                [&framed[..space], &parts].concat()
            }
            Some(D::KeysAreCut) => framed[..framed.len().min(1000)].to_vec(),
            Some(D::KeysAreText) => String::from_utf8_lossy(framed).into_owned().into_bytes(),
            Some(D::KeysAreCleaned) => {
                let clean = |b: &u8| if b" \r\n\0*/".contains(b) { b'_' } else { *b };
                let parts = key.as_ref().parts().map(Option::unwrap_or_default);
                let parts = parts.map(|part| part.iter().map(clean).collect::<Vec<_>>());
                [&framed[..space], &parts.collect::<Vec<_>>().join(&0xff)].concat()
            }
            Some(D::KeysIgnoreCase) => framed.to_ascii_lowercase(),
            _ => framed.to_vec(),
        }
    }

    fn step<T>(&self, step: impl FnOnce(&mut Store<'_>) -> T) -> T {
        let mut state = self.state.lock();
        let now = self.clock.now();
        step(&mut Store { state: &mut state, now, wrong: self })
    }

    fn resolve(&self, ttl: Ttl) -> Option<Duration> {
        match (self.defect, ttl) {
            (Some(D::DefaultIsForever), Ttl::Default) => None,
            (Some(D::ForeverIsAYear), Ttl::Forever) => Some(Duration::from_secs(365 * 86400)),
            (Some(D::LongIsForever), Ttl::For(ttl)) if ttl > Ttl::MAX => None,
            (Some(D::ShortIsForever), Ttl::For(ttl)) if !ttl.is_zero() && ttl.as_millis() == 0 => {
                None
            }
            (Some(D::WholeSeconds), Ttl::For(ttl)) if ttl.subsec_nanos() > 0 => {
                Some(Duration::from_secs(ttl.as_secs().min(Ttl::MAX.as_secs() - 1) + 1))
            }
            (Some(D::ThirtyDaysIsADate), Ttl::For(ttl)) if ttl.as_secs() > 30 * 86400 => {
                Some(Duration::from_nanos(1))
            }
            (_, ttl) => ttl.resolve(Ttl::STANDARD),
        }
    }

    // What a put makes of the entry before it stores it.
    fn spoil(&self, entry: Entry, old: Option<&Entry>) -> Result<Entry> {
        let rebuilt = |encoded: Encoded| {
            let times = entry.freshness();
            let new = Entry::wire(encoded)
                .with_tags(entry.tags().iter().cloned())
                .with_built_at(entry.built_at())
                .with_revision(entry.revision());
            match times {
                Some(fresh) => new.fresh_for(fresh),
                None => new,
            }
        };
        let integer = matches!(entry.payload(), Payload::Integer(_));
        let encoded = || entry.encoded();
        Ok(match self.defect {
            Some(D::CodecLost) if !integer => rebuilt(Encoded { codec: 9, ..encoded()? }),
            Some(D::HeadAndBodyJoined) if !integer => {
                let Encoded { codec, head, body } = encoded()?;
                let body = [head, body].concat().into();
                rebuilt(Encoded { codec, head: Bytes::new(), body })
            }
            Some(D::BytesAreText) if !integer => {
                let encoded = encoded()?;
                let body = String::from_utf8_lossy(&encoded.body).into_owned().into();
                rebuilt(Encoded { body, ..encoded })
            }
            Some(D::LargeIsCut) if !integer => {
                let encoded = encoded()?;
                let body = encoded.body.slice(..encoded.body.len().min(65536));
                rebuilt(Encoded { body, ..encoded })
            }
            Some(D::BodyIsCopied) if !integer => {
                let encoded = encoded()?;
                let body = Bytes::copy_from_slice(&encoded.body);
                rebuilt(Encoded { body, ..encoded })
            }
            Some(D::LiveIsEncoded) if matches!(entry.payload(), Payload::Live(_)) => {
                rebuilt(encoded()?)
            }
            Some(D::UnencodableIsEmpty) => match encoded() {
                Ok(_) => entry,
                Err(_) => rebuilt(Encoded::default()),
            },
            Some(D::IntegersAreBytes) if entry.as_counter().is_some() => {
                let body = entry.as_counter().unwrap_or_default().to_string().into();
                rebuilt(Encoded { body, ..Encoded::default() })
            }
            Some(D::EnvelopedIntegersAreBytes) if integer && entry.as_counter().is_none() => {
                rebuilt(encoded()?)
            }
            Some(D::KindStays) => match old.map(Entry::payload) {
                Some(Payload::Integer(value)) if !integer => Entry::integer(*value),
                _ => entry,
            },
            Some(D::TagsLost) => entry.with_tags([]),
            Some(D::TagsJoined) => {
                let text: Vec<_> = entry.tags().iter().map(Tag::as_str).collect();
                let text = text.join(",");
                let tags = text.split(',').filter_map(|tag| Tag::new(tag).ok());
                let tags: Vec<Tag> = tags.collect();
                entry.with_tags(tags)
            }
            Some(D::PutKeepsOldTags) if entry.tags().is_empty() => {
                let old = old.map(|old| old.tags().to_vec()).unwrap_or_default();
                entry.with_tags(old)
            }
            Some(D::BuiltAtLost) => entry.with_built_at(Sequence::NONE),
            Some(D::RevisionReplaced) => entry.with_revision(Revision::random()),
            _ => entry,
        })
    }
}

struct Store<'a> {
    state: &'a mut State,
    now: Moment,
    wrong: &'a Wrong,
}

impl Store<'_> {
    fn is(&self, defect: Defect) -> bool {
        self.wrong.is(defect)
    }

    fn insert(&mut self, key: &Key, slot: Slot) {
        let name = self.wrong.named(key);
        if let Some(room) = self.wrong.room {
            while self.state.map.len() >= room && !self.state.map.contains_key(&name) {
                self.state.map.pop_first();
            }
        }
        self.state.map.insert(name, (key.clone(), slot));
    }

    fn delete(&mut self, key: &Key) {
        let name = self.wrong.named(key);
        self.state.map.remove(&name);
    }

    fn raw(&self, key: &Key) -> Option<Slot> {
        self.state.map.get(&self.wrong.named(key)).map(|(_, slot)| slot.clone())
    }

    fn slot(&self, key: &Key) -> Option<Slot> {
        self.seen(key, self.raw(key)?)
    }

    fn seen(&self, key: &Key, slot: Slot) -> Option<Slot> {
        let over =
            |end: Moment| if self.is(D::EndIsLate) { end < self.now } else { end <= self.now };
        match &slot {
            Slot::Foreign(bytes) => self.foreign(key, bytes.clone()).map(Slot::Entry),
            Slot::Entry(entry) => {
                let times = entry.times()?;
                let cleared = self.state.cleared.get(key.namespace());
                let hidden = cleared.is_some_and(|at| times.written <= *at);
                (!times.expires.is_some_and(over) && !hidden).then_some(slot)
            }
            Slot::Fill { expires, .. } if over(*expires) => None,
            Slot::Pass { expires, .. } if over(*expires) => None,
            _ => Some(slot),
        }
    }

    fn foreign(&self, key: &Key, bytes: Bytes) -> Option<Entry> {
        let base = TimeBase { millis: 0, at: self.now };
        let served = || {
            let encoded = Encoded { body: bytes.clone(), ..Encoded::default() };
            Entry::wire(encoded).with_times(Times::starting(self.now, None, None))
        };
        match Envelope::default().decode(bytes.clone(), key.as_ref(), &base) {
            Ok(Record::Entry(entry)) => Some(entry),
            Ok(_) => None,
            Err(Damage::WrongKey) if self.is(D::KeyIsNotChecked) => {
                let Ok(KeyOf::Whole(own)) = key_of(&bytes) else { return None };
                match Envelope::default().decode(bytes, own.as_ref(), &base) {
                    Ok(Record::Entry(entry)) => Some(entry),
                    _ => None,
                }
            }
            Err(Damage::Version(_)) if self.is(D::VersionsAreIgnored) => Some(served()),
            Err(Damage::Length) if self.is(D::LengthsAreBelieved) => Some(served()),
            Err(Damage::Checksum) if self.is(D::ChecksumsAreIgnored) => Some(served()),
            Err(Damage::Foreign) if self.is(D::ForeignIsServed) => Some(served()),
            Err(_) => None,
        }
    }

    fn entry(&self, key: &Key) -> Option<Entry> {
        let entry = match self.slot(key) {
            Some(Slot::Entry(entry)) => entry,
            Some(Slot::Fill { .. }) if self.is(D::MarkerVisible) => {
                Entry::wire(Encoded::default()).with_times(Times::starting(self.now, None, None))
            }
            None if self.is(D::MissingIsEmpty) => {
                Entry::wire(Encoded::default()).with_times(Times::starting(self.now, None, None))
            }
            _ => return None,
        };
        let empty = |e: &Entry| e.encoded().is_ok_and(|e| e.head.is_empty() && e.body.is_empty());
        if self.is(D::EmptyIsMissing) && empty(&entry) {
            return None;
        }
        if self.is(D::EntryTellsMore)
            && let Some(times) = entry.times().copied()
        {
            let expires = times.expires.map(|end| end + end.since(times.written) / 10);
            return Some(entry.with_times(Times { expires, ..times }));
        }
        Some(entry)
    }

    // What conditions look at.
    fn present(&self, key: &Key) -> Option<Entry> {
        match self.raw(key) {
            Some(Slot::Entry(entry)) if self.is(D::ExpiredIsPresent) => Some(entry),
            Some(Slot::Fill { .. }) if self.is(D::MarkerIsPresent) => Some(Entry::integer(0)),
            _ => self.entry(key),
        }
    }

    fn counter(&self, key: &Key) -> Option<i64> {
        self.entry(key)?.as_counter()
    }

    fn token(&self, key: &Key) -> Option<Token> {
        match self.slot(key) {
            Some(Slot::Fill { token, .. }) => Some(token),
            Some(Slot::Pass { token, .. }) if self.is(D::PassIsAFill) => Some(token),
            _ => match self.raw(key) {
                Some(Slot::Fill { token, .. }) if self.is(D::TokenOutlivesItsEnd) => Some(token),
                _ => self.state.ghosts.get(key).copied(),
            },
        }
    }

    // Voids the marker, unless this is what goes wrong.
    fn void(&mut self, key: &Key, unless: Defect) {
        if let Some(Slot::Fill { token, .. }) = self.raw(key) {
            if self.is(unless) {
                self.state.ghosts.insert(key.clone(), token);
            }
        } else if !self.is(unless) {
            self.state.ghosts.remove(key);
        }
    }

    fn holds(&self, key: &Key, entry: &Entry, when: When) -> bool {
        let present = self.present(key);
        if self.is(D::IntegersIgnoreConditions) && entry.as_counter().is_some() {
            return true;
        }
        match when {
            When::Always => !(self.is(D::AlwaysIsAbsent) && present.is_some()),
            When::Absent => present.is_none() || self.is(D::AbsentIgnored),
            When::Present => present.is_some() || self.is(D::PresentIgnored),
            When::Revision(_) if self.is(D::RevisionRefused) => false,
            When::Revision(revision) => present
                .is_some_and(|entry| entry.revision() == revision || self.is(D::RevisionIgnored)),
            When::Token(_) if self.is(D::TokenRefused) => false,
            When::Token(token) => {
                let found = self.token(key);
                found == Some(token) || (self.is(D::AnyTokenWill) && found.is_some())
            }
        }
    }

    fn put(&mut self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let zero = self.wrong.resolve(ttl) == Some(Duration::ZERO);
        let careless = self.is(D::ZeroIgnoresCondition) && zero;
        if !careless && !self.holds(key, &entry, when) {
            if self.is(D::RefusalTouches)
                && let Some(entry) = self.entry(key)
            {
                let times = Times::starting(self.now, self.wrong.resolve(ttl), None);
                self.insert(key, Slot::Entry(entry.with_times(times)));
            }
            return Ok(Outcome::Refused);
        }
        self.write(key, entry, ttl)
    }

    fn write(&mut self, key: &Key, entry: Entry, ttl: Ttl) -> Result<Outcome> {
        self.wrong.writes.fetch_add(1, Ordering::SeqCst);
        let old = self.entry(key);
        let ttl = self.wrong.resolve(ttl);
        let limit = if self.is(D::LimitIsHalf) { MAX_BYTES / 2 } else { MAX_BYTES };
        let large = entry.encoded().is_ok_and(|e| (e.head.len() + e.body.len()) as u64 > limit);
        if large {
            if !self.is(D::TooLargeKeepsOld) {
                self.delete(key);
            }
            return Err(Error::new(ErrorKind::TooLarge, "the entry is larger than the limit"));
        }
        self.void(key, D::TokenNotVoidedByPut);
        if ttl == Some(Duration::ZERO) && self.is(D::ZeroKeepsMarker) && old.is_none() {
            return Ok(Outcome::Stored);
        }
        if ttl == Some(Duration::ZERO) && self.is(D::ZeroIsIgnored) {
            return Ok(Outcome::Stored);
        }
        if self.is(D::PassOutlivesPut) && matches!(self.slot(key), Some(Slot::Pass { .. })) {
            self.state.passes.insert(key.clone(), ());
        }
        self.delete(key);
        if ttl == Some(Duration::ZERO) {
            return Ok(Outcome::Stored);
        }
        if self.is(D::ClearedIsClosed) && self.state.clears > 0 {
            return Ok(Outcome::Stored);
        }
        let fresh = entry.freshness().filter(|_| !self.is(D::FreshnessLost));
        let mut times = Times::starting(self.now, ttl, fresh);
        if self.is(D::OverwriteKeepsLifetime)
            && let Some(old) = old.as_ref().and_then(Entry::times)
        {
            times = *old;
        }
        let entry = self.wrong.spoil(entry, old.as_ref())?;
        self.insert(key, Slot::Entry(entry.with_times(times).with_marks([])));
        Ok(Outcome::Stored)
    }

    fn remove(&mut self, key: &Key, only: Option<Revision>) -> bool {
        let present = match self.raw(key) {
            Some(Slot::Entry(entry)) if self.is(D::RemoveSeesExpired) => Some(entry),
            _ => self.entry(key),
        };
        let other = only.is_some() && present.as_ref().map(Entry::revision) != only;
        if other && !(self.is(D::RemoveIgnoresRevision) && present.is_some()) {
            return false;
        }
        self.void(key, D::TokenNotVoidedByRemove);
        self.delete(key);
        present.is_some() || self.is(D::RemoveIsAlwaysTrue)
    }

    fn sequence_key(&self, namespace: &Namespace) -> Key {
        if self.is(D::SequenceIsGlobal) {
            return Key::sequence(&Namespace::new("global").unwrap());
        }
        if self.is(D::MarksElsewhere) {
            return Key::new(namespace, ["elsewhere"]).unwrap();
        }
        Key::sequence(namespace)
    }

    fn tag_key(&self, namespace: &Namespace, tag: &Tag) -> Key {
        if self.is(D::TagsIgnoreCase) {
            return Key::tag(namespace, &Tag::written(&tag.as_str().to_lowercase()).unwrap());
        }
        if self.is(D::TwinsAreOne) {
            return Key::tag(namespace, &tag.expiring().unwrap_or_else(|| tag.clone()));
        }
        if self.is(D::MarksElsewhere) {
            return Key::new(namespace, ["elsewhere", tag.as_str()]).unwrap();
        }
        Key::tag(namespace, tag)
    }

    fn mark(&self, key: &Key, sequence: Sequence) -> Option<Sequence> {
        self.counter(key).and_then(Sequence::from_i64).filter(|mark| mark.same_epoch(sequence))
    }

    fn sequence(&mut self, namespace: &Namespace) -> Sequence {
        let key = self.sequence_key(namespace);
        let found = self.counter(&key).and_then(Sequence::from_i64);
        let start = if self.is(D::OneEpoch) {
            Sequence::from_i64(500_000_000 * Sequence::EPOCH + 1).unwrap()
        } else {
            Sequence::start()
        };
        found.unwrap_or_else(|| self.record(&key, start))
    }

    fn record(&mut self, key: &Key, number: Sequence) -> Sequence {
        let ttl = self.is(D::MarksExpire).then(|| Duration::from_secs(86400));
        let entry = Entry::integer(number.get()).with_times(Times::starting(self.now, ttl, None));
        self.insert(key, Slot::Entry(entry));
        number
    }

    fn advance(&mut self, namespace: &Namespace, tags: &[Tag], next: Sequence) {
        if self.is(D::InvalidateForgets) {
            return;
        }
        let sequence = self.sequence_key(namespace);
        self.record(&sequence, next);
        for tag in tags {
            let key = self.tag_key(namespace, tag);
            if !(self.is(D::InvalidateSkipsUnknown) && self.counter(&key).is_none()) {
                self.record(&key, next);
            }
        }
        if self.is(D::InvalidateRaisesAll) {
            let all: Vec<Key> = self.state.map.values().map(|(key, _)| key.clone()).collect();
            for key in all {
                if self.mark(&key, next).is_some() {
                    self.record(&key, next);
                }
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn abilities(&self) -> Abilities {
        let changed = self.is(D::AbilitiesChange) && self.writes.load(Ordering::SeqCst) > 0;
        Abilities {
            local: true,
            pages: !self.is(D::PagesInSecret),
            shared: self.shared,
            durable: true,
            follows_clock: self.clock.is_manual(),
            precision: Duration::from_nanos(1 + u64::from(changed)),
            max_bytes: Some(MAX_BYTES),
            ..Abilities::default()
        }
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn peek(&self, key: KeyRef<'_>, _: Moment) -> Peek {
        if self.is(D::PeekMisses) {
            return Peek::Miss;
        }
        self.step(|store| store.entry(&key.to_key())).map_or(Peek::Miss, Peek::Hit)
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        self.trip().await;
        let found = self.step(|store| {
            if store.is(D::ForeignIsAnError)
                && matches!(store.raw(key), Some(Slot::Foreign(_)))
                && store.entry(key).is_none()
            {
                return Err(Error::new(ErrorKind::Corrupt, "the bytes are not ours"));
            }
            if store.is(D::ReadingProlongs)
                && let Some(entry) = store.entry(key)
                && let Some(times) = entry.times().copied()
            {
                let ttl = times.expires.map(|end| end.since(times.written));
                let entry = entry.with_times(Times::starting(store.now, ttl, None));
                store.insert(key, Slot::Entry(entry));
            }
            let mut counters: Vec<_> = counters.iter().map(|key| store.counter(key)).collect();
            if store.is(D::CountersOutOfOrder) {
                counters.reverse();
            }
            Ok(Found { entry: store.entry(key), counters })
        })?;
        if self.is(D::RepliesAreQueued) {
            self.state.lock().replies.push_back(found);
            tokio::task::yield_now().await;
            return Ok(self.state.lock().replies.pop_front().unwrap_or_default());
        }
        if self.is(D::RepliesAreShared) {
            self.state.lock().reply = Some(found);
            tokio::task::yield_now().await;
            return Ok(self.state.lock().reply.clone().unwrap_or_default());
        }
        Ok(found)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        if !keys.is_empty() {
            self.trip().await;
        }
        if keys.is_empty() && self.is(D::EmptyBatchFails) {
            return Err(Error::new(ErrorKind::Other, "wrong number of arguments"));
        }
        if self.is(D::OneByOne) {
            self.trips.fetch_add(keys.len() as u64, Ordering::SeqCst);
        }
        Ok(self.step(|store| {
            let mut found: Vec<_> = keys.iter().map(|key| store.entry(key)).collect();
            if store.is(D::GetManySkipsMissing) {
                found.retain(Option::is_some);
            }
            if store.is(D::BatchesAreCut) {
                found.truncate(500);
            }
            if store.is(D::BatchUsesFirstNamespace)
                && let Some(first) = keys.first()
            {
                for (key, entry) in keys.iter().zip(&mut found) {
                    if key.namespace() != first.namespace() {
                        *entry = None;
                    }
                }
            }
            found
        }))
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        self.trip().await;
        if self.is(D::ConditionIsLookedAtFirst) {
            if !self.step(|store| store.holds(key, &entry, when)) {
                return Ok(Outcome::Refused);
            }
            tokio::task::yield_now().await;
            return self.step(|store| store.write(key, entry, ttl));
        }
        if self.is(D::HeadAndBodyApart) && matches!(when, When::Always) && !ttl_is_zero(ttl) {
            let old = self.step(|store| store.entry(key));
            if let Some(old) = old {
                let head = Entry::wire(Encoded { head: entry.encoded()?.head, ..old.encoded()? });
                let head = head.with_revision(entry.revision());
                let _ = self.step(|store| store.write(key, head, ttl))?;
                tokio::task::yield_now().await;
            }
            return self.step(|store| store.write(key, entry, ttl));
        }
        if self.is(D::LargeIsLate) && entry.encoded()?.body.len() > 100_000 {
            // On a connection of its own, which goes on when nobody waits any more.
            let (same, key) = (self.same(), key.clone());
            let sent = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                same.step(|store| store.put(&key, entry, ttl, when))
            });
            return sent.await.expect("a put does not panic");
        }
        if self.is(D::PutIsTwoSteps) && matches!(when, When::Always) && !ttl_is_zero(ttl) {
            let encoded = entry.encoded()?;
            let half = encoded.body.slice(..encoded.body.len() / 2);
            let half = Entry::wire(Encoded { body: half, ..encoded });
            let _ = self.step(|store| store.write(key, half, ttl))?;
            tokio::task::yield_now().await;
            return self.step(|store| store.write(key, entry, ttl));
        }
        self.step(|store| store.put(key, entry, ttl, when))
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        if items.is_empty() && self.is(D::EmptyBatchAsks) {
            self.trips.fetch_add(1, Ordering::SeqCst);
        }
        if !items.is_empty() {
            self.trip().await;
        }
        self.step(|store| {
            let put = |mut put: Put| {
                if store.is(D::PutManyIgnoresConditions) {
                    put.when = When::Always;
                }
                store.put(&put.key, put.entry, put.ttl, put.when)
            };
            let outcomes: Vec<_> = items.into_iter().map(put).collect();
            if store.is(D::TooLargeFailsBatch) && outcomes.iter().any(Result::is_err) {
                return Err(Error::new(ErrorKind::TooLarge, "an entry is larger than the limit"));
            }
            Ok(outcomes)
        })
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        self.trip().await;
        if self.is(D::RemoveIsTwoSteps) {
            let present = self.step(|store| store.entry(key).is_some());
            tokio::task::yield_now().await;
            self.step(|store| store.remove(key, only));
            return Ok(present);
        }
        Ok(self.step(|store| store.remove(key, only)))
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        if !keys.is_empty() {
            self.trip().await;
        }
        Ok(self.step(|store| {
            let removed: u64 = keys.iter().map(|key| u64::from(store.remove(key, None))).sum();
            if store.is(D::RemoveManyCountsKeys) { keys.len() as u64 } else { removed }
        }))
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        self.trip().await;
        let found = self.step(|store| match store.raw(key) {
            Some(Slot::Entry(entry)) if store.is(D::TouchRevivesExpired) => Some(entry),
            _ => store.entry(key),
        });
        self.pause(D::TouchIsTwoSteps).await;
        Ok(self.step(|store| {
            let found = if store.is(D::TouchIsTwoSteps) || store.is(D::TouchRevivesExpired) {
                found
            } else {
                store.entry(key)
            };
            let Some(mut entry) = found else { return false };
            if store.is(D::TouchIgnoresTtl) {
                return true;
            }
            let mut ttl = match ttl {
                Ttl::Forever if store.is(D::TouchForeverIsDefault) => self.resolve(Ttl::Default),
                ttl => self.resolve(ttl),
            };
            if ttl == Some(Duration::ZERO) && store.is(D::TouchZeroIgnored) {
                return true;
            }
            if store.is(D::TouchAddsToTheEnd) {
                let left = entry.remaining(store.now);
                ttl = ttl.map(|ttl| ttl + left.unwrap_or_default());
            }
            store.delete(key);
            if ttl == Some(Duration::ZERO) {
                return true;
            }
            let mut times = Times::starting(store.now, ttl, None);
            if store.is(D::TouchKeepsStale) {
                times.fresh_until = entry.times().and_then(|times| times.fresh_until);
            }
            if store.is(D::TouchChangesRevision) {
                entry = entry.with_revision(Revision::random());
            }
            if store.is(D::TouchUnwraps)
                && let Payload::Integer(value) = entry.payload()
            {
                entry = Entry::integer(*value);
            }
            store.insert(key, Slot::Entry(entry.with_times(times)));
            true
        }))
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        self.trip().await;
        let refused = || Error::new(ErrorKind::NotAnInteger, "no integer, or the sum does not fit");
        let found = self.step(|store| store.entry(key));
        self.pause(D::AddIsTwoSteps).await;
        self.step(|store| {
            let entry = if store.is(D::AddIsTwoSteps) { found } else { store.entry(key) };
            if store.is(D::AddMovesSequence) {
                let namespace = Namespace::new(key.namespace()).unwrap();
                let next = store.sequence(&namespace).next();
                store.record(&Key::sequence(&namespace), next);
            }
            let delta = if store.is(D::DeltaIsAbsolute) { delta.saturating_abs() } else { delta };
            let forgotten = matches!(store.raw(key), Some(Slot::Entry(_)));
            match entry {
                Some(entry) => {
                    let text = || match entry.payload() {
                        Payload::Wire(wire) if self.is(D::TextCounts) => {
                            std::str::from_utf8(&wire.body).ok()?.parse().ok()
                        }
                        Payload::Integer(value) if self.is(D::EnvelopedCounts) => Some(*value),
                        _ => None,
                    };
                    let value = entry.as_counter().or_else(text).ok_or_else(refused)?;
                    let sum = if store.is(D::AddWraps) {
                        value.wrapping_add(delta)
                    } else {
                        value.checked_add(delta).ok_or_else(refused)?
                    };
                    let mut times = entry.times().copied().ok_or_else(refused)?;
                    if store.is(D::AddResetsTtl) {
                        times =
                            Times::starting(store.now, Ttl::STANDARD.resolve(Ttl::Forever), None);
                    }
                    if store.is(D::AddPersists) {
                        times.expires = None;
                    }
                    let mut entry = Entry::integer(sum).with_revision(Revision::NONE);
                    if store.is(D::AddMakesBytes) {
                        let body = sum.to_string().into();
                        entry = Entry::wire(Encoded { body, ..Encoded::default() });
                    }
                    store.insert(key, Slot::Entry(entry.with_times(times)));
                    Ok(Some(sum))
                }
                None => {
                    if forgotten && store.is(D::AddAfterTheEndIsForever) {
                        let _ = store.write(key, Entry::integer(delta), Ttl::Forever)?;
                        return Ok(Some(delta));
                    }
                    let fallback = Counter { initial: 0, ttl: Ttl::Forever };
                    let create =
                        create.or_else(|| self.is(D::AddCreatesAlways).then_some(fallback));
                    let Some(Counter { initial, mut ttl }) = create else { return Ok(None) };
                    if store.is(D::CreateIsForever) {
                        ttl = Ttl::Forever;
                    }
                    let sum = initial.checked_add(delta).ok_or_else(refused)?;
                    let filling = store.token(key);
                    store.delete(key);
                    let _ = store.write(key, Entry::integer(sum), ttl)?;
                    if let (Some(token), true) = (filling, store.is(D::TokenNotVoidedByCounter)) {
                        store.state.ghosts.insert(key.clone(), token);
                    }
                    Ok(Some(sum))
                }
            }
        })
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        self.trip().await;
        Ok(self.step(|store| match store.entry(key) {
            None => Remaining::Absent,
            Some(entry) => match entry.remaining(store.now) {
                None if store.is(D::ForeverRemainsAbsent) => Remaining::Absent,
                None => Remaining::Forever,
                Some(left) => Remaining::For(left),
            },
        }))
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        self.trip().await;
        let found = self.step(|store| store.slot(key));
        self.pause(D::BeginIsTwoSteps).await;
        Ok(self.step(|store| {
            let found = if store.is(D::BeginIsTwoSteps) { found } else { store.slot(key) };
            let found = match store.raw(key) {
                Some(Slot::Entry(entry)) if store.is(D::BeginFindsExpired) => {
                    Some(Slot::Entry(entry))
                }
                Some(Slot::Foreign(bytes))
                    if store.is(D::DamagedMarkersHold) && bytes.get(5) == Some(&2) =>
                {
                    return Begin::Busy;
                }
                _ => found,
            };
            if store.state.passes.contains_key(key) {
                return Begin::Pass;
            }
            match found {
                Some(Slot::Entry(entry)) if !store.is(D::BeginIgnoresEntry) => Begin::Found(entry),
                Some(Slot::Fill { .. }) if !store.is(D::NeverBusy) => Begin::Busy,
                Some(Slot::Pass { .. }) => Begin::Pass,
                _ => {
                    let (token, expires) = (Token::random(), store.now + hold.min(Ttl::MAX));
                    store.insert(key, Slot::Fill { token, expires });
                    Begin::Token(token)
                }
            }
        }))
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.trip().await;
        Ok(self.step(|store| {
            let mine = store.token(key) == Some(token);
            if mine && !store.is(D::RenewDoesNothing) {
                let mut expires = store.now + hold.min(Ttl::MAX);
                if store.is(D::RenewOnlyProlongs)
                    && let Some(Slot::Fill { expires: old, .. }) = store.slot(key)
                {
                    expires = expires.max(old);
                }
                store.insert(key, Slot::Fill { token, expires });
            }
            mine
        }))
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.trip().await;
        Ok(self.step(|store| {
            let found = match store.raw(key) {
                Some(Slot::Fill { token, .. }) if store.is(D::ReleaseSeesExpired) => Some(token),
                _ => store.token(key),
            };
            let mine = found == Some(token) || (store.is(D::AnyoneReleases) && found.is_some());
            if mine {
                store.void(key, D::TokenNotVoidedByRelease);
                store.delete(key);
                if let Some(pass) = pass.filter(|_| !store.is(D::PassIsNothing)) {
                    let expires = store.now + pass.min(Ttl::MAX);
                    store.insert(key, Slot::Pass { token, expires });
                }
            }
            mine
        }))
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        self.trip().await;
        Ok(self.step(|store| {
            let sequence = store.sequence(namespace);
            let made = if store.is(D::UnknownTagsAreNew) { sequence.next() } else { sequence };
            let tags = tags.iter().map(|tag| {
                let key = store.tag_key(namespace, tag);
                store.mark(&key, sequence).unwrap_or_else(|| store.record(&key, made))
            });
            Marks { sequence, tags: tags.collect() }
        }))
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        self.trip().await;
        if tags.is_empty() && self.is(D::NoTagsNoMove) {
            return Ok(self.step(|store| store.sequence(namespace)));
        }
        let early = self.step(|store| store.sequence(namespace).next());
        self.pause(D::InvalidateIsTwoSteps).await;
        Ok(self.step(|store| {
            let mut next = store.sequence(namespace).next();
            if store.is(D::InvalidateIsTwoSteps) {
                next = early;
            }
            store.advance(namespace, tags, next);
            next
        }))
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.trip().await;
        self.step(|store| {
            store.state.clears += 1;
            let (clears, all) = (store.state.clears, store.is(D::ClearTouchesOthers));
            if store.is(D::ClearDoesNothing) || (store.is(D::ClearWorksOnce) && clears > 1) {
                return;
            }
            if store.is(D::ClearByInstant) {
                store.state.cleared.insert(namespace.as_str().to_owned(), store.now);
                return;
            }
            let gone = |key: &Key| match self.defect {
                Some(D::ClearByPrefix) => key.namespace().starts_with(namespace.as_str()),
                Some(D::NamesAreCut) => key.namespace()[..20] == namespace.as_str()[..20],
                _ => all || key.namespace() == namespace.as_str(),
            };
            let mut ghosts = Vec::new();
            let keep_tokens = store.is(D::TokenNotVoidedByClear);
            store.state.map.retain(|_, (key, slot)| {
                if let (Slot::Fill { token, .. }, true) = (slot, keep_tokens) {
                    ghosts.push((key.clone(), *token));
                }
                !gone(key)
            });
            store.state.ghosts.extend(ghosts);
        });
        Ok(())
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.trip().await;
        if self.is(D::PageIsMissing) {
            return Err(Error::new(ErrorKind::Unsupported, "no paging"));
        }
        if self.is(D::ForeignCursorPanics)
            && let Some(cursor) = &from
        {
            assert!(cursor.0.starts_with(b" kit-") || cursor.0.len() > 20, "a foreign cursor");
        }
        Ok(self.step(|store| {
            let limit = limit.max(1);
            let start = from.as_ref().map_or(Bound::Unbounded, |c| Bound::Excluded(c.0.clone()));
            let skip = usize::from(from.is_some() && store.is(D::PageSkips));
            let offset = from.as_ref().map_or(0, |c| {
                c.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes) as usize)
            });
            let reported = |key: &Key| {
                let there = store.entry(key).is_some()
                    || (store.is(D::PageReportsAbsent) && store.raw(key).is_some());
                there && self.begins(prefix, key)
            };
            if store.is(D::PageByOffset) {
                let all = store.state.map.values().map(|(key, _)| key);
                let keys: Vec<Key> =
                    all.filter(|key| reported(key)).skip(offset).take(limit).cloned().collect();
                let end = (offset + keys.len()) as u64;
                let next = (keys.len() == limit).then(|| Cursor(end.to_be_bytes().into()));
                return Page { keys, next };
            }
            let keys = store.state.map.range::<Vec<u8>, _>((start, Bound::Unbounded));
            let keys = keys.map(|(_, (key, _))| key).filter(|key| reported(key));
            let keys: Vec<Key> = keys.skip(skip).take(limit).cloned().collect();
            let full = keys.len() == limit;
            let next = keys.last().filter(|_| full).map(|key| Cursor(self.named(key)));
            Page { keys, next }
        }))
    }
}

impl Wrong {
    fn begins(&self, prefix: &Prefix, key: &Key) -> bool {
        let namespace = prefix.namespace().as_str();
        match self.defect {
            Some(D::PageReportsOthers) => {
                let own = Namespace::new(namespace).unwrap();
                let moved = Key::from_framed(
                    &[
                        &[own.as_str().len() as u8],
                        own.as_str().as_bytes(),
                        &key.as_ref().as_bytes()[1 + key.namespace().len()..],
                    ]
                    .concat(),
                );
                moved.is_some_and(|key| prefix.matches(key.as_ref()))
            }
            Some(D::PrefixIsAPattern | D::PrefixIgnoresCase | D::PrefixIsCut) => {
                if prefix.matches(key.as_ref()) && self.defect != Some(D::PrefixIsCut) {
                    return true;
                }
                let start = format!("{prefix:?}").to_lowercase();
                let pattern = self.is(D::PrefixIsAPattern) && start.contains("start: b\"*\"");
                let case = self.is(D::PrefixIgnoresCase) && start.contains("start: b\"a\"");
                let parts: Vec<_> = key.as_ref().parts().flatten().collect();
                let in_part = key.namespace() == namespace
                    && start.contains("literal")
                    && parts.first() == Some(&&b"literal"[..]);
                if self.is(D::PrefixIsCut) {
                    return prefix.matches(key.as_ref())
                        && parts.iter().all(|part| part.len() < 100);
                }
                in_part
                    && (pattern
                        || (case
                            && parts.get(1).is_some_and(|p| {
                                p.first().is_some_and(|b| b.eq_ignore_ascii_case(&b'a'))
                            })))
            }
            _ => prefix.matches(key.as_ref()),
        }
    }
}

fn ttl_is_zero(ttl: Ttl) -> bool {
    ttl == Ttl::For(Duration::ZERO)
}
