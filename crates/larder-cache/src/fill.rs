//! A fill: one computation, stored only where nothing was invalidated meanwhile.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use larder_core::envelope::MAX_TAGS;
use larder_core::{
    Begin, Entry, Key, Moment, Outcome, Result as StoreResult, Revision, Sequence, Tag, Token, Ttl,
    When,
};

use tokio::time::Instant;

use crate::compute::{Previous, nothing_to_keep, settled};
use crate::flight::{Landed, Pilot};
use crate::nested;
use crate::value::{from_entry, to_kept_entry};
use crate::{Codec, Computed, Failure, Options, Store, Value};

// How long a fill marker lives without being renewed.
pub(crate) const HOLD: Duration = Duration::from_secs(6);

pub(crate) struct Fill<T> {
    pub(crate) store: Store,
    pub(crate) key: Key,
    pub(crate) tags: Vec<Tag>,
    pub(crate) codec: Codec,
    pub(crate) options: Options,
    pub(crate) previous: Option<Previous<T>>,
    pub(crate) replaced: Option<Revision>,
}

/// What allows a computed value to be stored.
#[derive(Clone, Copy)]
pub(crate) enum Permit {
    /// This condition on what is there.
    When(When),
    /// Nothing: it is filled elsewhere, or was changed meanwhile. Late callers look again.
    Never,
    /// Nothing: the store cannot be asked. Everybody gets the value.
    Outage,
}

/// What was so when a computation began.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) built_at: Sequence,
    pub(crate) permit: Permit,
    pub(crate) at: Instant,
}

impl<T: Value> Fill<T> {
    pub(crate) async fn run<E, F, Fut>(self, pilot: Pilot, compute: F)
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Option<Arc<T>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Computed<T>, E>> + Send + 'static,
    {
        // Numbers first, then the marker, then the source: what is invalidated from here on voids what is stored.
        let start = match self.start(&pilot, self.options.wait).await {
            Ok(start) => start,
            Err(landed) => return pilot.land(|| landed),
        };
        let previous = self.previous.as_ref().map(|previous| previous.value.clone());
        let computing = settled(self.options.deadline, compute, previous);
        let computing = nested::collect(&self.store, computing);
        let held: Vec<_> = self.held(start.permit).into_iter().collect();
        let (computed, read) = self.store.holding(&held, HOLD, computing).await;
        let landed = self.landing(&pilot, computed, read, start).await;
        pilot.land(|| landed);
    }

    /// The marker that is to be kept alive while it is computed.
    pub(crate) fn held(&self, permit: Permit) -> Option<(Key, Token)> {
        match permit {
            Permit::When(When::Token(token)) => Some((self.key.clone(), token)),
            _ => None,
        }
    }

    /// Stores what was computed, if it may, and tells how it ended. `read` are the tags of what was read for it.
    pub(crate) async fn landing(
        &self,
        pilot: &Pilot,
        computed: Result<Computed<T>, Failure>,
        read: Vec<Tag>,
        start: Start,
    ) -> Landed {
        let computed = match computed {
            Ok(computed) => computed,
            Err(failure) => return self.bridge(pilot, failure, start.permit).await,
        };
        match self.all_tags(&computed, read) {
            Ok(tags) => {
                let landed = self.store(pilot, computed, &tags, start).await;
                Landed { tags: tags.into(), ..landed }
            }
            Err(error) => {
                self.give_up(start.permit).await;
                Landed::new(Err(error.into()), true)
            }
        }
    }

    // The options' tags, the computation's own, and those of what it read.
    fn all_tags(&self, computed: &Computed<T>, read: Vec<Tag>) -> StoreResult<Vec<Tag>> {
        let own = computed.tags.iter().map(|tag| Tag::new(tag)).collect::<StoreResult<Vec<_>>>()?;
        let mut tags = self.tags.clone();
        tags.extend(own);
        tags.extend(read);
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > MAX_TAGS {
            tracing::warn!(
                tags = tags.len(),
                "a computed value carries more than 512 tags, those of what it read included, and is not stored"
            );
        }
        Ok(tags)
    }

    // The right to store; or a value that somebody else stored in the meantime. Another node's fill is waited for so long.
    pub(crate) async fn start(&self, pilot: &Pilot, wait: Duration) -> Result<Start, Landed> {
        let start = |built_at, permit| Start { built_at, permit, at: Instant::now() };
        // Also where no tag is known: the computation may read what carries some.
        let Ok(marks) = self.store.marks(&self.options.watched(&self.tags)).await else {
            return Ok(start(Sequence::NONE, Permit::Outage));
        };
        let built_at = marks.sequence;
        let begun = self.store.begin_or_wait(&self.key, HOLD, wait).await;
        let permit = match begun {
            Ok(Begin::Token(token)) if pilot.holds(token) => Permit::When(When::Token(token)),
            Ok(Begin::Token(token)) => {
                self.release(token).await;
                Permit::Never
            }
            // What was seen before: it is replaced, if nobody replaces it first.
            Ok(Begin::Found(entry)) if Some(entry.revision()) == self.replaced => {
                Permit::When(When::Revision(entry.revision()))
            }
            Ok(Begin::Found(entry)) => match self.usable(&entry).await {
                Some(value) => {
                    let tags = entry.tags().into();
                    return Err(Landed { tags, ..Landed::new(Ok(value), true) });
                }
                None => Permit::When(When::Revision(entry.revision())),
            },
            Ok(Begin::Busy | Begin::Pass) => Permit::Never,
            Err(_) => Permit::Outage,
        };
        Ok(start(built_at, permit))
    }

    async fn usable(&self, entry: &Entry) -> Option<Arc<T>> {
        let now = self.store.clock().now();
        // What was removed or replaced, and could not be, is replaced by what is computed.
        if !entry.is_fresh(now) || self.store.bars(&self.key) {
            return None;
        }
        if !entry.tags().is_empty() && !entry.has_marks() {
            let expiring = entry.tags().iter().filter_map(Tag::expiring);
            let tags: Vec<Tag> = entry.tags().iter().cloned().chain(expiring).collect();
            let marks = self.store.marks(&tags).await.ok()?;
            if !marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark))) {
                return None;
            }
        }
        from_entry(entry)
    }

    async fn store(
        &self,
        pilot: &Pilot,
        computed: Computed<T>,
        tags: &[Tag],
        start: Start,
    ) -> Landed {
        let permit = start.permit;
        let kept = || self.previous.as_ref().map(|previous| previous.value.clone());
        let Some(value) = computed.value.clone().or_else(kept) else {
            return self.bridge(pilot, nothing_to_keep(), permit).await;
        };
        let result: Result<Arc<dyn Any + Send + Sync>, Failure> = Ok(value.clone());
        let closed = pilot.close();
        let may_share = async |when, otherwise| {
            let (key, built_at) = (&self.key, start.built_at);
            closed.may_share(&self.store, key, when, tags, built_at, otherwise).await
        };
        let may_share_outage = || closed.may_share_outage(&self.store, &self.key);
        if !computed.stored {
            let shared = match permit {
                Permit::When(when) => may_share(when, true).await,
                Permit::Never => may_share(When::Always, true).await,
                Permit::Outage => may_share_outage().await,
            };
            self.give_up(permit).await;
            return Landed::new(result, shared);
        }
        let when = match permit {
            Permit::When(when) => when,
            Permit::Never => return Landed::new(result, false),
            Permit::Outage => return Landed::new(result, may_share_outage().await),
        };
        let (entry, ttl) = match self.entry(value, &computed, tags, start) {
            Ok(ready) => ready,
            Err(error) => {
                self.give_up(permit).await;
                return Landed::new(Err(error.into()), true);
            }
        };
        let shared = match self.store.put(&self.key, entry, ttl, when).await {
            Ok(Outcome::Stored) => may_share(When::Always, false).await,
            Ok(Outcome::Refused) => false,
            // Too large, or an outage: the value is good, and it is lost to nobody.
            Err(error) => {
                tracing::debug!(kind = error.kind().as_str(), "a computed value was not stored");
                may_share(When::Always, true).await
            }
        };
        Landed::new(result, shared)
    }

    fn entry(
        &self,
        value: Arc<T>,
        computed: &Computed<T>,
        tags: &[Tag],
        start: Start,
    ) -> StoreResult<(Entry, Ttl)> {
        let abilities = self.store.abilities();
        let ttl = computed.ttl.unwrap_or(self.options.ttl);
        let cost = start.at.elapsed();
        let ttl = self.options.jittered(ttl, abilities.default_ttl);
        let (entry, ttl) = to_kept_entry(value, self.codec, abilities, &self.options, ttl, cost)?;
        Ok((entry.with_tags(self.options.carried(tags)).with_built_at(start.built_at), ttl))
    }

    // A computation failed. The stale value is good for another while, on every node, and no longer than it was.
    async fn bridge(&self, pilot: &Pilot, failure: Failure, permit: Permit) -> Landed {
        let now = self.store.clock().now();
        let is_stale = |previous: &&Previous<T>| {
            let expired = previous.entry.times().is_none_or(|times| times.expired(now));
            !previous.entry.is_fresh(now) && !expired
        };
        let failed = |failure| Landed::new(Err(failure), true);
        let Some(previous) = self.previous.as_ref().filter(is_stale) else {
            self.give_up(permit).await;
            return failed(failure);
        };
        let (closed, tags) = (pilot.close(), previous.entry.tags());
        let shared = match permit {
            Permit::When(When::Revision(revision)) if revision == previous.entry.revision() => {
                match self.throttle(previous, now, revision).await {
                    Ok(Some(built_at)) => {
                        let (store, key) = (&self.store, &self.key);
                        closed.may_share(store, key, When::Always, tags, built_at, true).await
                    }
                    Ok(None) => false,
                    Err(_) => closed.may_share_outage(&self.store, &self.key).await,
                }
            }
            // It was removed meanwhile.
            Permit::When(When::Token(token)) => {
                self.release(token).await;
                return failed(failure);
            }
            Permit::When(_) | Permit::Never => false,
            Permit::Outage => closed.may_share_outage(&self.store, &self.key).await,
        };
        tracing::warn!("a computation failed, and a stale value stands in for it");
        Landed { tags: tags.into(), ..Landed::new(Ok(previous.value.clone()), shared) }
    }

    // Makes the stale value fresh for the throttle's time. The number that it is good since, if it was neither changed nor
    // invalidated meanwhile; an error when the store cannot be asked for that.
    async fn throttle(
        &self,
        previous: &Previous<T>,
        now: Moment,
        revision: Revision,
    ) -> StoreResult<Option<Sequence>> {
        let left = previous.entry.remaining(now).map_or(Ttl::Forever, Ttl::For);
        let mut entry = previous.entry.clone().with_revision(Revision::random());
        if !entry.tags().is_empty() {
            // One of its tags may have expired: it is as good as built now, if none was invalidated until now.
            let marks = self.store.marks(entry.tags()).await?;
            if !marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark))) {
                return Ok(None);
            }
            entry = entry.with_built_at(marks.sequence);
        }
        let built_at = entry.built_at();
        let entry = entry.fresh_for(self.options.throttle);
        let put = self.store.put(&self.key, entry, left, When::Revision(revision)).await;
        Ok((!matches!(put, Ok(Outcome::Refused))).then_some(built_at))
    }

    pub(crate) async fn give_up(&self, permit: Permit) {
        if let Permit::When(When::Token(token)) = permit {
            self.release(token).await;
        }
    }

    async fn release(&self, token: Token) {
        // If this fails the marker ends by itself.
        let _ = self.store.release(&self.key, token, None).await;
    }
}
