//! How a key gets from the one store to the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{
    Backend, Begin, Entry, Error, ErrorKind, Key, Moment, Namespace, Outcome, Payload, Remaining,
    Result, Sequence, Tag, Token, Ttl, When,
};
use parking_lot::Mutex;

use super::{Counts, Inner};

#[derive(Default)]
pub(super) struct Mover {
    pub(super) counts: Counts,
    told: Mutex<Option<Moment>>,
}

/// Where a key is after somebody tried to move it.
pub(super) enum Settled {
    /// Not in the old store.
    Nothing,
    /// In the new one, where it was brought from the old one, and in no other.
    Moved,
    /// In the old one; in the new one somebody is about to store something else, or to move this.
    Busy(Entry),
}

// How long a key is held while it is moved: some round trips. Who dies meanwhile holds it up for so long.
const HOLD: Duration = Duration::from_secs(2);

// How often a writer asks for a key that somebody else is moving, and how long it waits in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

const QUIET: Duration = Duration::from_secs(60);

/// A tag's record or a sequence: each store has its own, and they are not moved.
pub(super) fn stays(key: &Key) -> bool {
    matches!(key.as_ref().parts().next(), Some(Some(b"t" | b"q")))
}

impl Mover {
    pub(super) fn count(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Tells how far it is, once in a while.
    pub(super) fn tell(&self, now: Moment, old: &'static str, new: &'static str) {
        let mut told = self.told.lock();
        if told.is_some_and(|told| now.since(told) < QUIET) {
            return;
        }
        *told = Some(now);
        drop(told);
        let progress = self.counts.progress();
        tracing::info!(
            from = old,
            to = new,
            hits_in_new = progress.new,
            hits_in_old = progress.old,
            misses = progress.neither,
            moved = progress.moved,
            "a cache is being moved from one store to another"
        );
    }
}

impl<N: Backend, O: Backend> Inner<N, O> {
    /// Brings a key to where whoever changes it finds all of it: the new store.
    pub(super) async fn ready(&self, key: &Key) -> Result<()> {
        for _ in 0..TRIES {
            match self.settle(key).await? {
                Settled::Busy(_) => tokio::time::sleep(PAUSE).await,
                Settled::Nothing | Settled::Moved => return Ok(()),
            }
        }
        let words = "the key is being moved from one store to the other; try again";
        Err(Error::new(ErrorKind::Unavailable, words).with_backend(self.new.name()))
    }

    /// Moves a key if it is in the old store.
    pub(super) async fn settle(&self, key: &Key) -> Result<Settled> {
        if stays(key) {
            return Ok(Settled::Nothing);
        }
        let Some(entry) = self.old.get(key, &[]).await?.entry else { return Ok(Settled::Nothing) };
        // The marker first: whoever changes the key from now on voids it, and what is read below does not arrive.
        let token = match self.new.begin(key, HOLD).await? {
            Begin::Token(token) => token,
            // The new store's is the younger one: a move that was cut short has left the other behind.
            Begin::Found(_) => {
                self.old.remove(key, None).await?;
                return Ok(Settled::Moved);
            }
            Begin::Busy | Begin::Pass => return Ok(Settled::Busy(entry)),
        };
        let settled = self.carry(key, entry, token).await;
        if !matches!(settled, Ok(Settled::Moved)) {
            // If this fails the marker ends by itself.
            let _ = self.new.release(key, token, None).await;
        }
        settled
    }

    async fn carry(&self, key: &Key, seen: Entry, token: Token) -> Result<Settled> {
        // Numbers of the one store mean nothing in the other. The new store's is asked for before the old store's tags
        // are: an invalidation, which takes the same way, is then seen in the old store, or has a larger number in the
        // new one.
        let tags = Tag::with_lasting(seen.tags());
        let (mut built_at, namespace) = (seen.built_at(), Namespace::new(key.namespace())?);
        if !tags.is_empty() {
            built_at = self.new.marks(&namespace, &tags).await?.sequence;
        }
        let records: Vec<Key> = tags.iter().map(|tag| Key::tag(&namespace, tag)).collect();
        let found = self.old.get(key, &records).await?;
        let Some(entry) = found.entry else { return Ok(Settled::Nothing) };
        if entry.tags() != seen.tags() {
            return Ok(Settled::Busy(entry));
        }
        let known: Vec<Option<Sequence>> =
            found.counters.into_iter().map(|mark| mark.and_then(Sequence::from_i64)).collect();
        if !self.is_valid(&entry, &tags, &known) {
            self.old.remove(key, None).await?;
            return Ok(Settled::Nothing);
        }
        let ttl = match entry.times() {
            Some(_) => entry.remaining(self.old.clock().now()).map_or(Ttl::Forever, Ttl::For),
            // A plain counter brings no times.
            None => match self.old.remaining(key).await? {
                Remaining::Absent => return Ok(Settled::Nothing),
                Remaining::Forever => Ttl::Forever,
                Remaining::For(left) => Ttl::For(left),
            },
        };
        if ttl == Ttl::For(Duration::ZERO) {
            return Ok(Settled::Nothing);
        }
        let moved = self.readdressed(entry.clone(), built_at);
        match self.new.put(key, moved, ttl, When::Token(token)).await {
            Ok(Outcome::Stored) => {}
            // Somebody has changed the key meanwhile.
            Ok(Outcome::Refused) => return Ok(Settled::Busy(entry)),
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                self.old.remove(key, None).await?;
                return Ok(Settled::Nothing);
            }
            Err(error) => return Err(error),
        }
        self.old.remove(key, None).await?;
        Mover::count(&self.mover.counts.moved, 1);
        Ok(Settled::Moved)
    }

    // Whether no tag was invalidated in the old store, nor expired: it would be stale there, and fresh here.
    fn is_valid(&self, entry: &Entry, tags: &[Tag], known: &[Option<Sequence>]) -> bool {
        if entry.has_marks() {
            return entry.marks_hold() && entry.is_fresh(self.old.clock().now());
        }
        let covers = |tag: &Tag| {
            let at = tags.iter().position(|known| known == tag);
            at.and_then(|at| known.get(at)).is_some_and(|mark| entry.built_at().covers(*mark))
        };
        entry.tags().iter().all(|tag| covers(tag) && tag.expiring().is_none_or(|tag| covers(&tag)))
    }

    // As the new store is given it: what the old one knows of it in this process stays behind.
    fn readdressed(&self, entry: Entry, built_at: Sequence) -> Entry {
        let fresh_until = entry.times().and_then(|times| times.fresh_until);
        let is_integer = matches!(entry.payload(), Payload::Integer(_));
        let is_counter = entry.as_counter().is_some();
        let entry = entry.with_marks([]).with_fresh_marks([]).with_built_at(built_at);
        match fresh_until {
            Some(until) => entry.fresh_for(until.since(self.old.clock().now())),
            // What was kept in an envelope stays in one: it is no counter.
            None if is_integer && !is_counter => entry.fresh_for(Ttl::MAX),
            None => entry.fresh_throughout(),
        }
    }
}
