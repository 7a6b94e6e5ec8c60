//! `get_or_compute`: one computation, stored only where nothing was invalidated meanwhile.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use larder_core::{Begin, Entry, Key, Outcome, Peek, Revision, Sequence, Tag, Token, When};
use tracing::Instrument;

use crate::flight::{Joined, Landed, Pilot};
use crate::store::Lookup;
use crate::value::{from_entry, to_entry};
use crate::{Codec, Failure, Options, Store, Value};

type Shared<T> = Result<Arc<T>, Failure>;

/// One call of `get_or_compute`.
pub(crate) struct Computing<'a> {
    pub(crate) store: &'a Store,
    pub(crate) codec: Codec,
    pub(crate) options: Options,
}

// How long a fill marker lives without being renewed.
const HOLD: Duration = Duration::from_secs(6);

// A fill that was voided is tried anew by those who came later; after so many the caller computes for itself.
const ROUNDS: usize = 3;

impl Computing<'_> {
    pub(crate) async fn run<T, E, F, Fut>(self, key: Key, compute: F) -> Shared<T>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let tags = self.options.checked_tags()?;
        let deadline = self.options.deadline;
        let mut compute = Some(compute);
        for _ in 0..ROUNDS {
            let replaced = match self.look::<T>(&key, &tags).await {
                Ok(value) => return Ok(value),
                Err(replaced) => replaced,
            };
            let (passenger, own) = match self.store.join(&key, &key, &tags) {
                Joined::Passenger(passenger) => (passenger, false),
                Joined::Pilot(pilot, passenger) => {
                    let Some(compute) = compute.take() else { break };
                    let fill = Fill {
                        store: self.store.clone(),
                        key: key.clone(),
                        tags: tags.clone(),
                        codec: self.codec,
                        options: self.options.clone(),
                        replaced,
                    };
                    // In a task of its own: whoever goes away harms nobody.
                    let task = async move { fill.run(pilot, compute).await };
                    tokio::spawn(task.in_current_span());
                    (passenger, true)
                }
            };
            let landed = if own {
                passenger.arrive().await
            } else {
                match tokio::time::timeout(self.options.wait, passenger.arrive()).await {
                    Ok(landed) => landed,
                    // Too long: on one's own, and unstored.
                    Err(_) => break,
                }
            };
            match landed {
                Some(landed) if own || landed.shared => return unpack(landed),
                None if own => return Err(Failure::lost()),
                _ => {}
            }
        }
        match compute.take() {
            Some(compute) => settled(deadline, compute).await.map(Arc::new),
            None => Err(Failure::lost()),
        }
    }

    // The value, or the revision of an entry that is there and must not be used.
    async fn look<T: Value>(&self, key: &Key, tags: &[Tag]) -> Result<Arc<T>, Option<Revision>> {
        let entry = match self.store.peek(key.as_ref()) {
            Peek::Hit(entry) => entry,
            Peek::Miss => return Err(None),
            Peek::Ask => match self.store.lookup(key, tags).await {
                Ok(Lookup::Hit(entry)) => entry,
                Ok(Lookup::Invalidated(revision)) => return Err(Some(revision)),
                // A store that fails is a miss: the computation runs all the same.
                Ok(Lookup::Miss) | Err(_) => return Err(None),
            },
        };
        from_entry(&entry).ok_or(Some(entry.revision()))
    }
}

fn unpack<T: Value>(landed: Landed) -> Shared<T> {
    let any = landed.result?;
    // Callers of one key that ask for different types: the other one's value is of no use here.
    any.downcast::<T>().map_err(|_| {
        Failure::computation("another caller computes this key as a value of another type")
    })
}

async fn settled<T, E, F, Fut>(deadline: Duration, compute: F) -> Result<T, Failure>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    // The closure itself may panic too, before there is a future.
    let caught = AssertUnwindSafe(async { compute().await }).catch_unwind();
    match tokio::time::timeout(deadline, caught).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(Failure::computation(error)),
        Ok(Err(_)) => Err(Failure::panicked()),
        Err(_) => Err(Failure::deadline()),
    }
}

struct Fill {
    store: Store,
    key: Key,
    tags: Vec<Tag>,
    codec: Codec,
    options: Options,
    replaced: Option<Revision>,
}

/// What allows a computed value to be stored.
enum Permit {
    /// This condition on what is there.
    When(When),
    /// Nothing: it is filled elsewhere, or was changed meanwhile. Late callers look again.
    Never,
    /// Nothing: the store cannot be asked. Everybody gets the value.
    Outage,
}

impl Fill {
    async fn run<T, E, F, Fut>(self, pilot: Pilot, compute: F)
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        // Numbers first, then the marker, then the source: what is invalidated from here on voids what is stored.
        let (built_at, permit) = match self.permit::<T>(&pilot).await {
            Ok(permit) => permit,
            Err(value) => return pilot.land(Landed { result: Ok(value), shared: true }),
        };
        let computing = settled(self.options.deadline, compute);
        let computed = match permit {
            Permit::When(When::Token(token)) => {
                self.store.holding(&self.key, token, HOLD, computing).await
            }
            _ => computing.await,
        };
        let landed = match computed {
            Ok(value) => self.store(Arc::new(value), built_at, permit).await,
            Err(failure) => {
                if let Permit::When(When::Token(token)) = permit {
                    self.release(token).await;
                }
                Landed { result: Err(failure), shared: true }
            }
        };
        pilot.land(landed);
    }

    // The right to store; or a value that somebody else stored in the meantime.
    async fn permit<T: Value>(
        &self,
        pilot: &Pilot,
    ) -> Result<(Sequence, Permit), Arc<dyn Any + Send + Sync>> {
        let mut built_at = Sequence::NONE;
        if !self.tags.is_empty() {
            match self.store.marks(&self.tags).await {
                Ok(marks) => built_at = marks.sequence,
                Err(_) => return Ok((built_at, Permit::Outage)),
            }
        }
        let begun = self.store.begin_or_wait(&self.key, HOLD, self.options.wait).await;
        let permit = match begun {
            Ok(Begin::Token(token)) if pilot.holds(token) => Permit::When(When::Token(token)),
            Ok(Begin::Token(token)) => {
                self.release(token).await;
                Permit::Never
            }
            // The unusable entry that was seen before: it is replaced, if nobody replaces it first.
            Ok(Begin::Found(entry)) if Some(entry.revision()) == self.replaced => {
                Permit::When(When::Revision(entry.revision()))
            }
            Ok(Begin::Found(entry)) => match self.usable::<T>(&entry).await {
                Some(value) => return Err(value),
                None => Permit::When(When::Revision(entry.revision())),
            },
            Ok(Begin::Busy | Begin::Pass) => Permit::Never,
            Err(_) => Permit::Outage,
        };
        Ok((built_at, permit))
    }

    async fn usable<T: Value>(&self, entry: &Entry) -> Option<Arc<T>> {
        if !entry.tags().is_empty() && !entry.has_marks() {
            let marks = self.store.marks(entry.tags()).await.ok()?;
            if !marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark))) {
                return None;
            }
        }
        from_entry(entry)
    }

    async fn store<T: Value>(&self, value: Arc<T>, built_at: Sequence, permit: Permit) -> Landed {
        let result: Result<Arc<dyn Any + Send + Sync>, Failure> = Ok(value.clone());
        let when = match permit {
            Permit::When(when) => when,
            Permit::Never => return Landed { result, shared: false },
            Permit::Outage => return Landed { result, shared: true },
        };
        let entry = match to_entry(value, self.codec, self.store.abilities().local) {
            Ok(entry) => entry.with_tags(self.tags.iter().cloned()).with_built_at(built_at),
            Err(error) => {
                if let When::Token(token) = when {
                    self.release(token).await;
                }
                return Landed { result: Err(error.into()), shared: true };
            }
        };
        let shared = match self.store.put(&self.key, entry, self.options.ttl, when).await {
            Ok(Outcome::Stored) => true,
            Ok(Outcome::Refused) => false,
            // Too large, or an outage: the value is good, and it is lost to nobody.
            Err(error) => {
                tracing::debug!(kind = error.kind().as_str(), "a computed value was not stored");
                true
            }
        };
        Landed { result, shared }
    }

    async fn release(&self, token: Token) {
        // If this fails the marker ends by itself.
        let _ = self.store.release(&self.key, token, None).await;
    }
}
