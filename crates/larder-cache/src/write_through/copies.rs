//! The copies in the cache, and when one may be read.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use larder_core::{
    Backend, Begin, Entry, Error, ErrorKind, Key, KeyRef, Moment, Namespace, Peek, Result, Token,
    Ttl, When,
};
use parking_lot::Mutex;

use crate::breaker::Breaker;

/// The cache, asked with little patience.
pub(super) struct Copies<C> {
    store: C,
    // How old a copy may be.
    age: Duration,
    // How long a read may take until its copy is not kept any more: what the cache does late is not younger than that.
    hold: Duration,
    patience: Duration,
    breaker: Breaker,
    doubts: Mutex<Doubts>,
}

/// What of the cache this node must not read, since it could not drop it there.
#[derive(Default)]
struct Doubts {
    keys: HashMap<Key, Moment>,
    // Nothing at all until then.
    all: Option<Moment>,
    // When the last doubt ends.
    last: Option<Moment>,
}

/// What the cache says about a key that is to be read.
pub(super) enum Copy {
    /// It may be used.
    Good(Entry),
    /// It is to be asked for, and kept with this token if there is one: if nothing has happened to the key since.
    Ask(Option<Token>),
}

// So many keys are remembered: some 10 MiB of usual ones.
const MOST: usize = 65_536;

const LONGEST_HOLD: Duration = Duration::from_secs(2);

impl<C: Backend> Copies<C> {
    pub(super) fn new(store: C, ceiling: Duration, patience: Duration) -> Self {
        let breaker = Breaker::new(5, Duration::from_secs(1), store.clock().clone());
        let hold = LONGEST_HOLD.min(ceiling / 2);
        Copies { age: ceiling - hold, hold, store, patience, breaker, doubts: Mutex::default() }
    }

    pub(super) fn store(&self) -> &C {
        &self.store
    }

    async fn patiently<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let backend = self.store.name();
        self.breaker.admit().map_err(|error| error.with_backend(backend))?;
        let result = tokio::time::timeout(self.patience, operation).await.unwrap_or_else(|_| {
            let words = "no answer within the patience of its write-through";
            Err(Error::new(ErrorKind::Timeout, words).with_backend(backend))
        });
        self.breaker.report(result.as_ref().is_err_and(Error::is_outage), backend);
        result
    }

    fn is_young(&self, entry: &Entry, now: Moment) -> bool {
        entry.times().is_some_and(|times| now.since(times.written) < self.age)
    }

    // Whether this node has changed what is under that key, and the cache may not know.
    fn is_doubtful(&self, key: KeyRef<'_>, now: Moment) -> bool {
        let mut doubts = self.doubts.lock();
        let Some(last) = doubts.last else { return false };
        if last <= now {
            *doubts = Doubts::default();
            return false;
        }
        let lasts = |until: &Moment| *until > now;
        doubts.all.as_ref().is_some_and(lasts) || doubts.keys.get(&key.to_key()).is_some_and(lasts)
    }

    #[inline]
    pub(super) fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        match self.store.peek(key, now) {
            Peek::Hit(entry) if self.is_young(&entry, now) && !self.is_doubtful(key, now) => {
                Peek::Hit(entry)
            }
            _ => Peek::Ask,
        }
    }

    /// Reads a copy, or prepares for one.
    pub(super) async fn read(&self, key: &Key) -> Copy {
        let now = self.store.clock().now();
        if self.is_doubtful(key.as_ref(), now) {
            return Copy::Ask(None);
        }
        let begun = match self.patiently(self.store.begin(key, self.hold)).await {
            Ok(Begin::Found(entry)) if self.is_young(&entry, self.store.clock().now()) => {
                return Copy::Good(entry);
            }
            // An old one goes first: a token ends by itself, and a condition on what is there would hold for ever.
            Ok(Begin::Found(old)) => {
                let gone = self.patiently(self.store.remove(key, Some(old.revision()))).await;
                match gone {
                    Ok(_) => self.patiently(self.store.begin(key, self.hold)).await,
                    Err(error) => Err(error),
                }
            }
            begun => begun,
        };
        match begun {
            Ok(Begin::Token(token)) => Copy::Ask(Some(token)),
            _ => Copy::Ask(None),
        }
    }

    /// Reads those copies that there are.
    pub(super) async fn read_many(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let found = self.patiently(self.store.get_many(keys)).await;
        let mut found = found.unwrap_or_else(|_| vec![None; keys.len()]);
        let now = self.store.clock().now();
        for (key, slot) in keys.iter().zip(&mut found) {
            slot.take_if(|entry| !self.is_young(entry, now) || self.is_doubtful(key.as_ref(), now));
        }
        found
    }

    /// Keeps what the durable store has, if nothing has happened to the key since the token was given. That it fails costs
    /// the next reader a round trip.
    pub(super) async fn keep(&self, key: &Key, found: Option<&Entry>, token: Token) {
        let now = self.store.clock().now();
        // A tag's last invalidation is the durable store's to tell, and what is counted has no revision.
        let kept = found.filter(|entry| {
            entry.tags().is_empty() && entry.as_counter().is_none() && entry.times().is_some()
        });
        let Some(entry) = kept else {
            let _ = self.patiently(self.store.release(key, token, None)).await;
            return;
        };
        let ttl = entry.remaining(now).map_or(Ttl::Forever, Ttl::For);
        let fresh_until = entry.times().and_then(|times| times.fresh_until);
        let copy = match fresh_until {
            Some(until) => entry.clone().fresh_for(until.since(now)),
            None => entry.clone().fresh_throughout(),
        };
        let _ = self.patiently(self.store.put(key, copy, ttl, When::Token(token))).await;
    }

    /// Drops copies: the durable store has changed them, or may have.
    pub(super) async fn drop(&self, keys: &[Key]) -> Result<()> {
        let dropped = self.patiently(self.store.remove_many(keys)).await;
        if let Err(error) = dropped {
            self.doubt(keys);
            return Err(error);
        }
        Ok(())
    }

    /// Drops all copies of a namespace.
    pub(super) async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let cleared = self.patiently(self.store.clear(namespace)).await;
        if cleared.is_err() {
            let until = self.doubted();
            let mut doubts = self.doubts.lock();
            doubts.all = Some(until);
            doubts.last = Some(until);
        }
        cleared
    }

    // Until every copy that is there now is too old to be used.
    fn doubted(&self) -> Moment {
        self.store.clock().now() + self.age + self.hold
    }

    fn doubt(&self, keys: &[Key]) {
        let until = self.doubted();
        let mut doubts = self.doubts.lock();
        doubts.last = Some(until);
        if doubts.keys.len() + keys.len() > MOST {
            doubts.keys.clear();
            doubts.all = Some(until);
        } else {
            doubts.keys.extend(keys.iter().map(|key| (key.clone(), until)));
        }
    }
}
