//! `get_or_compute`: a fresh value, or one computation for all who ask, or the stale value that bridges its failure.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use larder_core::{Entry, Key, Peek, Revision, Tag};
use tokio::time::Instant;
use tracing::Instrument;

use crate::fill::Fill;
use crate::flight::{Joined, Landed, Passenger};
use crate::nested;
use crate::store::Lookup;
use crate::value::{cost_of, from_entry};
use crate::{Codec, Computed, Failure, Options, Store, Value};

/// One call of `get_or_compute`.
pub(crate) struct Computing<'a> {
    pub(crate) store: &'a Store,
    pub(crate) codec: Codec,
    pub(crate) options: Options,
    /// Whether what is there is to be computed anew, however fresh. Chance has a part in it, so it is asked once.
    pub(crate) due: bool,
}

/// What is stored for a key.
pub(crate) enum Seen<T> {
    Fresh(Previous<T>),
    /// Usable if nothing better can be had.
    Stale(Previous<T>),
    /// Nothing, or an entry of that revision that must not be used.
    Unusable(Option<Revision>),
}

/// A value that is there already.
pub(crate) struct Previous<T> {
    pub(crate) entry: Entry,
    pub(crate) value: Arc<T>,
}

// A derived one would ask for `T: Clone`.
impl<T> Clone for Previous<T> {
    fn clone(&self) -> Self {
        Previous { entry: self.entry.clone(), value: self.value.clone() }
    }
}

/// What a caller does when it has waited long enough.
pub(crate) enum Otherwise {
    /// Takes the stale value.
    Stale,
    /// Gives up.
    Fail,
    /// Computes for itself.
    Alone,
}

// A fill that was voided is tried anew by those who came later; after so many the caller computes for itself.
const ROUNDS: usize = 3;

impl Computing<'_> {
    pub(crate) async fn run<T, E, F, Fut>(self, key: Key, compute: F) -> Result<Arc<T>, Failure>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Option<Arc<T>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Computed<T>, E>> + Send + 'static,
    {
        let tags = self.options.checked_tags()?;
        let started = Instant::now();
        let mut compute = Some(compute);
        let mut stale = None;
        for _ in 0..ROUNDS {
            let seen = self.look::<T>(&key, &tags).await;
            if let Seen::Fresh(fresh) = &seen
                && !self.due
                && !self.refreshes::<T>(&fresh.entry)
            {
                nested::note(self.store, fresh.entry.tags());
                return Ok(fresh.value.clone());
            }
            let (passenger, own) = match self.store.join(&key, &key, &tags) {
                Joined::Passenger(passenger) => (passenger, false),
                Joined::Pilot(pilot, passenger) => {
                    let Some(compute) = compute.take() else { break };
                    let fill = self.fill(&key, &tags, &seen);
                    // In a task of its own: whoever goes away harms nobody.
                    let task = async move { fill.run(pilot, compute).await };
                    tokio::spawn(task.in_current_span());
                    (passenger, true)
                }
            };
            stale = match seen {
                // Computed anew in the background.
                Seen::Fresh(fresh) => {
                    nested::note(self.store, fresh.entry.tags());
                    return Ok(fresh.value);
                }
                Seen::Stale(previous) => Some(previous),
                Seen::Unusable(_) => None,
            };
            match self.wait(passenger, own, stale.is_some(), started, Instant::now()).await {
                Ok(Some(landed)) if own || landed.shared => {
                    nested::note(self.store, &landed.tags);
                    return unpack(landed);
                }
                Ok(None) if own => return self.stale(stale, Failure::lost()),
                Ok(_) => {}
                Err(Otherwise::Stale) => return self.stale(stale, Failure::timeout()),
                Err(Otherwise::Fail) => return Err(Failure::timeout()),
                Err(Otherwise::Alone) => break,
            }
        }
        let Some(compute) = compute else { return self.stale(stale, Failure::lost()) };
        // On one's own, and unstored.
        let previous = stale.as_ref().map(|stale: &Previous<T>| stale.value.clone());
        let computing = settled(self.options.deadline, compute, previous);
        let computed = match self.left(started) {
            None => computing.await,
            Some(left) => {
                tokio::time::timeout(left, computing).await.unwrap_or(Err(Failure::timeout()))
            }
        };
        match computed {
            Ok(computed) => match self.unstored(computed, &tags)? {
                Some(value) => Ok(value),
                None => self.stale(stale, nothing_to_keep()),
            },
            Err(failure) => self.stale(stale, failure),
        }
    }

    /// What was computed on one's own, and is not stored; `None` where that is the previous value.
    pub(crate) fn unstored<T>(
        &self,
        computed: Computed<T>,
        tags: &[Tag],
    ) -> Result<Option<Arc<T>>, Failure> {
        let Some(value) = computed.value else { return Ok(None) };
        let own = computed.tags.iter().map(|tag| Tag::new(tag)).collect::<Result<Vec<_>, _>>()?;
        nested::note(self.store, tags);
        nested::note(self.store, &own);
        Ok(Some(value))
    }

    /// The fill that is to replace what was seen.
    pub(crate) fn fill<T: Value>(&self, key: &Key, tags: &[Tag], seen: &Seen<T>) -> Fill<T> {
        let (previous, replaced) = seen.parts();
        Fill {
            store: self.store.clone(),
            key: key.clone(),
            tags: tags.to_vec(),
            codec: self.codec,
            options: self.options.clone(),
            previous,
            replaced,
        }
    }

    /// The stale value, or else the failure.
    pub(crate) fn stale<T>(
        &self,
        stale: Option<Previous<T>>,
        failure: Failure,
    ) -> Result<Arc<T>, Failure> {
        let stale = stale.ok_or(failure)?;
        nested::note(self.store, stale.entry.tags());
        Ok(stale.value)
    }

    pub(crate) async fn look<T: Value>(&self, key: &Key, tags: &[Tag]) -> Seen<T> {
        let entry = match self.store.peek(key.as_ref()) {
            Peek::Hit(entry) => entry,
            Peek::Miss => return Seen::Unusable(None),
            Peek::Ask => match self.store.lookup(key, &self.options.watched(tags)).await {
                Ok(Lookup::Hit(entry)) => entry,
                Ok(Lookup::Invalidated(revision)) => return Seen::Unusable(Some(revision)),
                // A store that fails is a miss: the computation runs all the same.
                Ok(Lookup::Miss) | Err(_) => return Seen::Unusable(None),
            },
        };
        self.seen(entry)
    }

    /// What an entry is worth whose tags hold.
    pub(crate) fn seen<T: Value>(&self, entry: Entry) -> Seen<T> {
        let Some(value) = from_entry(&entry) else {
            return Seen::Unusable(Some(entry.revision()));
        };
        let now = self.store.clock().now();
        match entry.is_fresh(now) {
            true => Seen::Fresh(Previous { entry, value }),
            false if self.options.stale_for.is_zero() => Seen::Unusable(Some(entry.revision())),
            false => Seen::Stale(Previous { entry, value }),
        }
    }

    pub(crate) fn refreshes<T: Value>(&self, entry: &Entry) -> bool {
        let now = self.store.clock().now();
        self.options.refreshes(entry.times(), now, || cost_of::<T>(entry))
    }

    // What is left of the caller's patience.
    fn left(&self, started: Instant) -> Option<Duration> {
        let hard = self.options.hard_timeout?;
        Some(hard.saturating_sub(started.elapsed()))
    }

    /// Waits for a landing as long as the options say. `started` is when the call began, `boarded` when it began to
    /// wait.
    pub(crate) async fn wait(
        &self,
        passenger: Passenger,
        own: bool,
        has_stale: bool,
        started: Instant,
        boarded: Instant,
    ) -> Result<Option<Landed>, Otherwise> {
        let waited = boarded.elapsed();
        let soft = self.options.soft_timeout.filter(|_| has_stale);
        let soft = soft.map(|limit| limit.saturating_sub(waited));
        let hard = self.left(started);
        let patience = Some(self.options.wait.saturating_sub(waited)).filter(|_| !own);
        let otherwise = if has_stale { Otherwise::Stale } else { Otherwise::Fail };
        let limits = [(soft, Otherwise::Stale), (hard, otherwise), (patience, Otherwise::Alone)];
        let first = limits
            .into_iter()
            .filter_map(|(limit, otherwise)| Some((limit?, otherwise)))
            .min_by_key(|(limit, _)| *limit);
        match first {
            None => Ok(passenger.arrive().await),
            Some((limit, otherwise)) => {
                tokio::time::timeout(limit, passenger.arrive()).await.map_err(|_| otherwise)
            }
        }
    }
}

impl<T> Seen<T> {
    pub(crate) fn parts(&self) -> (Option<Previous<T>>, Option<Revision>) {
        match self {
            Seen::Fresh(previous) | Seen::Stale(previous) => {
                (Some(previous.clone()), Some(previous.entry.revision()))
            }
            Seen::Unusable(revision) => (None, *revision),
        }
    }
}

pub(crate) fn unpack<T: Value>(landed: Landed) -> Result<Arc<T>, Failure> {
    let any = landed.result?;
    // Callers of one key that ask for different types: the other one's value is of no use here.
    any.downcast::<T>().map_err(|_| {
        Failure::computation("another caller computes this key as a value of another type")
    })
}

pub(crate) fn nothing_to_keep() -> Failure {
    Failure::computation("the computation said \"unchanged\", and there was no previous value")
}

/// A computation's result, its panic caught and its time limited.
pub(crate) async fn settled<T, E, F, Fut>(
    deadline: Duration,
    compute: F,
    previous: Option<Arc<T>>,
) -> Result<Computed<T>, Failure>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce(Option<Arc<T>>) -> Fut,
    Fut: Future<Output = Result<Computed<T>, E>>,
{
    // The closure itself may panic too, before there is a future.
    let caught = AssertUnwindSafe(async { compute(previous).await }).catch_unwind();
    match tokio::time::timeout(deadline, caught).await {
        Ok(Ok(Ok(computed))) => Ok(computed),
        Ok(Ok(Err(error))) => Err(Failure::computation(error)),
        Ok(Err(_)) => Err(Failure::panicked()),
        Err(_) => Err(Failure::deadline()),
    }
}
