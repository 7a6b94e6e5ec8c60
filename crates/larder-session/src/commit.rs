//! Saving: what is destroyed, written, rotated or kept alive once the handler has returned.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Entry, Key, Outcome, Revision, Ttl, When};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::expiry::Expiry;
use crate::id::{Id, name, named};
use crate::layer::Shared;
use crate::record::{Alive, Record};
use crate::state::{Base, Effect, Found, State, look_again};

// On one node savers take turns, so each try is lost to another node at most.
const TRIES: u32 = 100;
// Somebody's random bits repeat; going on would be worse than failing.
const NEW_IDS: usize = 3;

/// Saves everything that was changed. What was saved is settled in the state, whatever becomes of the rest.
pub(crate) async fn save(shared: &Shared, state: &mut State) -> Result<()> {
    let saved = try_save(shared, state).await;
    if let Err(error) = &saved {
        tracing::warn!(?error, "a session was not saved");
        shared.config.hook.tell(Event::Failed);
    }
    saved
}

async fn try_save(shared: &Shared, state: &mut State) -> Result<()> {
    while let Some((key, known)) = state.kills.last() {
        kill(shared, key.clone(), *known).await?;
        state.kills.pop();
    }
    if !state.is_changed() {
        state.settle_as_it_is();
        return Ok(());
    }
    if state.base.is_some() {
        save_existing(shared, state).await
    } else {
        let expiry = state.expiry.flatten();
        let alive = Alive { began: shared.wall_millis(), expiry, values: state.values().clone() };
        let base = create(shared, Arc::new(alive)).await?;
        state.effect = announce(shared, &base);
        state.settle(Some(base));
        shared.config.hook.tell(Event::Began);
        Ok(())
    }
}

/// Whether having used the session keeps it alive now. What was just saved needs no more.
pub(crate) fn is_refresh_due(shared: &Shared, state: &State) -> bool {
    let Some(base) = state.base.as_ref().filter(|_| !state.saved) else { return false };
    let idle = base.alive.expiry.unwrap_or(shared.config.expiry).idle;
    let now = shared.config.store.clock().now();
    let elapsed = base.written.map_or(Duration::MAX, |written| now.since(written));
    idle.is_some_and(|idle| shared.config.refresh.is_due(elapsed, idle))
}

/// Keeps the session alive. Writes no data; if it fails, the session lives as long as it would have.
pub(crate) async fn refresh(shared: &Shared, state: &mut State) {
    let Some(base) = &state.base else { return };
    let left = left(shared, &base.alive);
    if left.is_zero() {
        return;
    }
    match shared.config.store.touch(&base.key, Ttl::For(left)).await {
        Ok(true) => {
            if let Effect::Keep = state.effect {
                state.effect = renew(shared, base);
            }
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(?error, "a session could not be kept alive"),
    }
}

async fn save_existing(shared: &Shared, state: &mut State) -> Result<()> {
    let Some(first) = state.base.clone() else { return Ok(()) };
    let _turn = shared.turn(&first.key).await;
    for attempt in 0..TRIES {
        let Some(base) = state.base.clone() else { break };
        let old = &base.alive;
        let alive = Alive {
            began: old.began,
            expiry: state.expiry.unwrap_or(old.expiry),
            values: state.values().clone(),
        };
        let alive = Arc::new(alive);
        let saved = match state.rotate {
            true => rotate(shared, &base, alive).await?,
            false => replace(shared, &base, alive).await?,
        };
        if let Some(saved) = saved {
            let same = !state.rotate && state.expiry.is_none();
            state.effect = match &state.effect {
                Effect::Keep if same => renew(shared, &saved),
                _ => announce(shared, &saved),
            };
            state.settle(Some(saved));
            return Ok(());
        }
        if attempt > 2 {
            // Another node is quicker; a random pause lets one of the two win.
            let pause = rand::random_range(0..=1_u64 << attempt.min(5));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        match look_again(shared, &base).await? {
            Found::Alive(newer) => state.rebase(shared, newer)?,
            Found::Rotated | Found::Not(_) => return Err(Error::new(ErrorKind::Gone)),
        }
        if !state.is_changed() {
            // The other request did the same.
            state.settle_as_it_is();
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Conflict))
}

// `None` when the record is no longer the one that was read.
async fn replace(shared: &Shared, base: &Base, alive: Arc<Alive>) -> Result<Option<Base>> {
    let when = When::Revision(base.revision);
    put(shared, base.id.clone(), base.key.clone(), alive, when).await
}

// First the new record, which nobody can find yet, then the stone over the old one, which decides. Whoever dies between
// the two leaves the old session as it was.
async fn rotate(shared: &Shared, base: &Base, alive: Arc<Alive>) -> Result<Option<Base>> {
    let new = create(shared, alive).await?;
    let stone = Record::Rotated(name(&new.key));
    let buried = bury(shared, &base.key, stone, When::Revision(base.revision)).await;
    if let Ok(Outcome::Stored) = buried {
        return Ok(Some(new));
    }
    // What stays behind if this fails ends by itself, and nobody has its id.
    let _ = shared.config.store.remove(&new.key, Some(new.revision)).await;
    buried.map(|_| None)
}

/// Destroys a session, and where it was rotated meanwhile, that which it became: who signs out is out, also if another
/// request of theirs was just signing in.
async fn kill(shared: &Shared, mut key: Key, mut known: Option<Revision>) -> Result<()> {
    let store = &shared.config.store;
    for _ in 0..TRIES {
        let _turn = shared.turn(&key).await;
        let revision = match known.take() {
            Some(revision) => revision,
            None => {
                let Some(entry) = store.get(&key, &[]).await?.entry else { return Ok(()) };
                match entry.downcast_or(Record::decode).as_deref() {
                    Some(Record::Destroyed) => return Ok(()),
                    Some(Record::Rotated(name)) => {
                        key = named(store.namespace(), name)?;
                        continue;
                    }
                    Some(Record::Alive(_)) | None => entry.revision(),
                }
            }
        };
        let when = When::Revision(revision);
        if let Outcome::Stored = bury(shared, &key, Record::Destroyed, when).await? {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Conflict))
}

/// Stores a record under an id that nobody has.
async fn create(shared: &Shared, alive: Arc<Alive>) -> Result<Base> {
    let config = &shared.config;
    for _ in 0..NEW_IDS {
        let id = config.entropy.id()?;
        let key = shared.key(&id)?;
        if let Some(base) = put(shared, id, key, alive.clone(), When::Absent).await? {
            return Ok(base);
        }
    }
    Err(Error::saying(ErrorKind::Entropy, "new session ids are the ids of sessions that exist"))
}

async fn put(
    shared: &Shared,
    id: Id,
    key: Key,
    alive: Arc<Alive>,
    when: When,
) -> Result<Option<Base>> {
    let store = &shared.config.store;
    let ttl = Ttl::For(left(shared, &alive));
    let entry = Entry::live(Arc::new(Record::Alive(alive.clone())));
    let revision = entry.revision();
    let base = Base { id, key, alive, revision, written: Some(store.clock().now()) };
    Ok(match store.put(&base.key, entry, ttl, when).await? {
        Outcome::Stored => Some(base),
        Outcome::Refused => None,
    })
}

async fn bury(shared: &Shared, key: &Key, stone: Record, when: When) -> Result<Outcome> {
    let ttl = Ttl::For(shared.config.tombstone);
    Ok(shared.config.store.put(key, Entry::live(Arc::new(stone)), ttl, when).await?)
}

fn expiry(shared: &Shared, alive: &Alive) -> Expiry {
    alive.expiry.unwrap_or(shared.config.expiry)
}

fn left(shared: &Shared, alive: &Alive) -> Duration {
    expiry(shared, alive).left(shared.age(alive.began))
}

// The cookie of a new id.
fn announce(shared: &Shared, base: &Base) -> Effect {
    let alive = &base.alive;
    let lifetime = (!expiry(shared, alive).browser).then(|| left(shared, alive));
    Effect::Set(base.id.clone(), lifetime)
}

// The cookie of an id that the client has: to be sent again only if the browser counts its lifetime.
fn renew(shared: &Shared, base: &Base) -> Effect {
    match announce(shared, base) {
        Effect::Set(_, None) => Effect::Keep,
        effect => effect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::Lines;
    use crate::id::Entropy;
    use crate::layer::SessionLayer;
    use crate::state::Change;
    use larder_cache::Cache;
    use std::sync::atomic::{AtomicU8, Ordering};

    async fn begin(shared: &Shared, value: &'static str) -> Result<State> {
        let mut state = State::new(Lines::new());
        state.load(shared).await?;
        state.change(shared, Change::Set("k".to_owned(), Some(value.into())))?;
        save(shared, &mut state).await?;
        Ok(state)
    }

    async fn stored(shared: &Shared, state: &State) -> Option<Vec<u8>> {
        let base = state.base.as_ref()?;
        match look_again(shared, base).await.ok()? {
            Found::Alive(base) => base.alive.values.get("k").map(|value| value.to_vec()),
            _ => None,
        }
    }

    #[tokio::test]
    async fn s03_an_id_that_repeats_never_overwrites_a_session() {
        static CALLS: AtomicU8 = AtomicU8::new(0);
        // The same id four times, then others.
        let repeating = Entropy(|bytes| {
            let call = CALLS.fetch_add(1, Ordering::SeqCst);
            bytes.fill(call.saturating_sub(4));
            Ok(())
        });
        let layer = SessionLayer::new(&Cache::memory()).entropy(repeating);
        let shared = layer.shared();
        let first = begin(&shared, "first").await.unwrap();
        // Three tries, and then an error.
        let failed = begin(&shared, "second").await;
        assert_eq!(failed.err().map(|error| error.kind()), Some(ErrorKind::Entropy));
        assert_eq!(CALLS.load(Ordering::SeqCst), 4);
        assert_eq!(stored(&shared, &first).await.as_deref(), Some(&b"first"[..]));

        let mut third = begin(&shared, "third").await.unwrap();
        assert_eq!(stored(&shared, &first).await.as_deref(), Some(&b"first"[..]));
        // A rotation onto an id that is taken moves on, too.
        CALLS.store(0, Ordering::SeqCst);
        third.rotate = true;
        assert_eq!(save(&shared, &mut third).await.unwrap_err().kind(), ErrorKind::Entropy);
        assert_eq!(stored(&shared, &third).await.as_deref(), Some(&b"third"[..]));
        assert_eq!(stored(&shared, &first).await.as_deref(), Some(&b"first"[..]));
        CALLS.store(6, Ordering::SeqCst);
        save(&shared, &mut third).await.unwrap();
        assert_eq!(stored(&shared, &third).await.as_deref(), Some(&b"third"[..]));
    }

    #[tokio::test]
    async fn s10_without_random_bits_there_is_no_session() {
        let broken = Entropy(|_| Err(Error::new(ErrorKind::Entropy)));
        let layer = SessionLayer::new(&Cache::memory()).entropy(broken);
        let failed = begin(&layer.shared(), "value").await;
        assert_eq!(failed.err().map(|error| error.kind()), Some(ErrorKind::Entropy));
    }
}
