//! Saving: what is destroyed, written, rotated or kept alive once the handler has returned.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Entry, Key, Outcome, Revision, Ttl, When};

use crate::carrier::Way;
use crate::cookie::MAX_PAIR;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::expiry::Expiry;
use crate::id::{Id, Ticket, name, named};
use crate::layer::Shared;
use crate::look::look_again;
use crate::moving::{self, Moved};
use crate::record::{Alive, Record};
use crate::seal::Seal;
use crate::state::{Base, Effect, Found, Kill, SignIn, State};
use crate::users::{self, Listed};

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
    let seal = &shared.config.seal;
    while let Some(Kill { key, known }) = state.kills.last() {
        match (seal, known) {
            (None, _) => kill(shared, key.clone(), known.clone()).await?,
            // Without its list, a cookie that somebody has copied would stay what it is.
            (Some(_), Some((_, Some(user)))) if shared.config.store.is_some() => {
                users::remove(shared, shared.config.names.slot(user), name(key)).await?;
            }
            (Some(_), _) => {}
        }
        state.kills.pop();
    }
    if !state.is_changed() {
        state.settle_as_it_is();
        return Ok(());
    }
    if let Some(seal) = seal {
        return save_in_cookie(shared, seal, state).await;
    }
    if state.base.is_some() {
        save_existing(shared, state).await
    } else {
        let alive = changed(shared, state, None);
        let base = create(shared, state.next.clone(), alive).await?;
        if let Err(error) = list(shared, state.signs_in.as_ref(), &base, None).await {
            withdraw(shared, &base).await;
            return Err(error);
        }
        state.effect = announce(shared, state.way(), &base);
        state.settle(Some(base));
        shared.config.hook.tell(Event::Began);
        Ok(())
    }
}

// What is to be stored now.
fn changed(shared: &Shared, state: &State, old: Option<&Alive>) -> Arc<Alive> {
    let user = state.signs_in.as_ref().map(|(user, _)| user.clone());
    Arc::new(Alive {
        began: old.map_or_else(|| shared.wall_millis(), |old| old.began),
        expiry: state.expiry.unwrap_or_else(|| old.and_then(|old| old.expiry)),
        user: user.or_else(|| old.and_then(|old| old.user.clone())),
        values: state.shared_values(),
    })
}

/// Puts a session that is new, or has a new name, into its user's list. `before` is what it was.
pub(crate) async fn list(
    shared: &Shared,
    signs_in: Option<&SignIn>,
    new: &Base,
    before: Option<&Base>,
) -> Result<()> {
    let (Some(user), true) = (&new.alive.user, shared.config.store.is_some()) else {
        return Ok(());
    };
    let (before, label) = match signs_in {
        Some((_, label)) => (None, label.clone()),
        None => (
            before.map(|before| (shared.names(before.era).slot(user), name(&before.key))),
            String::new(),
        ),
    };
    let listed = Listed { name: name(&new.key), since: shared.wall_millis(), label };
    users::add(shared, shared.names(new.era).slot(user), listed, before).await
}

async fn save_in_cookie(shared: &Shared, seal: &Seal, state: &mut State) -> Result<()> {
    let before = state.base.clone();
    let alive = changed(shared, state, before.as_ref().map(|base| &*base.alive));
    let id = match (&before, &state.next) {
        (Some(base), _) if !state.rotate => base.id.clone(),
        (_, Some(next)) => next.clone(),
        _ => shared.config.entropy.id()?,
    };
    let key = shared.key(&id)?;
    let written = Some(shared.config.clock.now());
    let new = Base { id, era: 0, key, alive, revision: Revision::NONE, written, copy: false };
    // What does not fit is told before anything has happened.
    let effect = sealed(shared, state.way(), seal, &new)?;
    if before.is_none() || state.rotate {
        list(shared, state.signs_in.as_ref(), &new, before.as_ref()).await?;
        forget(shared, before.as_ref()).await;
    }
    state.effect = effect;
    if before.is_none() {
        shared.config.hook.tell(Event::Began);
    }
    state.settle(Some(new));
    state.reseal = false;
    Ok(())
}

// The cookie that a session is.
fn sealed(shared: &Shared, way: Way, seal: &Seal, base: &Base) -> Result<Effect> {
    let (left, now) = (left(shared, &base.alive), shared.wall_millis());
    let millis = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
    let value = seal.close(&base.id, &base.alive, now, now.saturating_add(millis))?;
    if shared.config.jar.name.len() + value.len() > MAX_PAIR {
        let words = "the session does not fit into a cookie, of which browsers keep 4096 bytes: keep less in it, or keep sessions in a store";
        return Err(Error::saying(ErrorKind::TooLarge, words));
    }
    let browser = expiry(shared, &base.alive).browser;
    Ok(Effect::Set(shared.config.give(way, &value, (!browser).then_some(left))))
}

/// A session that goes on under another name, or ended, needs no place in its user's list any more.
pub(crate) async fn forget(shared: &Shared, before: Option<&Base>) {
    if let Some(base) = before
        && let Some(user) = &base.alive.user
    {
        users::forget(shared, shared.names(base.era).slot(user), name(&base.key)).await;
    }
}

/// What stays behind if this fails ends by itself, and nobody has its id, or it is a copy that does not count.
pub(crate) async fn withdraw(shared: &Shared, new: &Base) {
    // First off the list: once the record is gone, somebody else may be moving the session there and put it in again.
    forget(shared, Some(new)).await;
    if let Some(store) = &shared.config.store {
        let _ = store.remove(&new.key, Some(new.revision)).await;
    }
}

/// Whether having used the session keeps it alive now, or moves it. What was just saved needs no more.
pub(crate) fn is_refresh_due(shared: &Shared, state: &State) -> bool {
    let Some(base) = state.base.as_ref().filter(|_| !state.saved) else { return false };
    if state.reseal || base.era > 0 || base.copy {
        return true;
    }
    let idle = base.alive.expiry.unwrap_or(shared.config.expiry).idle;
    let now = shared.config.clock.now();
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
    if base.era > 0 {
        match moving::carry(shared, base, base.alive.clone()).await {
            Ok(Moved::There(there)) => {
                state.effect = announce(shared, state.way(), &there);
                state.base = Some(there);
            }
            Ok(Moved::Busy | Moved::Changed) => {}
            Err(error) => tracing::warn!(?error, "a session could not be moved to another name"),
        }
        return;
    }
    if base.copy {
        let mut base = base.clone();
        moving::settle(shared, &mut base).await;
        state.base = Some(base);
        return;
    }
    let touched = match (&shared.config.seal, &shared.config.store) {
        (Some(seal), _) => match sealed(shared, state.way(), seal, base) {
            Ok(effect) => {
                state.effect = effect;
                return;
            }
            Err(error) => Err(error),
        },
        (None, Some(store)) => store.touch(&base.key, Ttl::For(left)).await.map_err(Error::from),
        (None, None) => return,
    };
    match touched {
        Ok(true) => {
            if let Effect::Keep = state.effect {
                state.effect = renew(shared, state.way(), base);
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
        let alive = changed(shared, state, Some(&base.alive));
        let saved = match () {
            () if state.rotate => {
                let (next, signs_in) = (state.next.clone(), state.signs_in.as_ref());
                rotate(shared, next, signs_in, &base, alive).await?
            }
            // What is written is moved with the same writes.
            () if base.era > 0 => match moving::carry(shared, &base, alive.clone()).await? {
                Moved::There(there) => Some(there),
                Moved::Busy => replace(shared, &base, alive).await?,
                Moved::Changed => None,
            },
            () => replace(shared, &base, alive).await?,
        };
        if let Some(saved) = saved {
            let same = !state.rotate && state.expiry.is_none() && saved.era == base.era;
            state.effect = match &state.effect {
                Effect::Keep if same => renew(shared, state.way(), &saved),
                _ => announce(shared, state.way(), &saved),
            };
            state.settle(Some(saved));
            return Ok(());
        }
        pause(attempt).await;
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
    let put = put(shared, base.id.clone(), base.key.clone(), alive, when).await?;
    Ok(put.map(|put| Base { era: base.era, ..put }))
}

// First the new record, which nobody can find yet, then its user's list, then the stone over the old one, which decides.
// Whoever dies between the first and the last leaves the old session as it was.
async fn rotate(
    shared: &Shared,
    next: Option<Id>,
    signs_in: Option<&SignIn>,
    base: &Base,
    alive: Arc<Alive>,
) -> Result<Option<Base>> {
    let new = create(shared, next, alive).await?;
    if let Err(error) = list(shared, signs_in, &new, Some(base)).await {
        withdraw(shared, &new).await;
        return Err(error);
    }
    // While copies cannot be dropped, nothing is begun: the old id would be valid elsewhere, and the visitor without one.
    if let Err(error) = confirm(shared, &base.key).await {
        withdraw(shared, &new).await;
        return Err(error);
    }
    let stone = Record::Rotated(name(&new.key));
    let buried = bury(shared, &base.key, stone, When::Revision(base.revision)).await;
    if let Ok(Outcome::Stored) = buried {
        confirm(shared, &base.key).await?;
        forget(shared, Some(base)).await;
        return Ok(Some(new));
    }
    withdraw(shared, &new).await;
    buried.map(|_| None)
}

/// Another node is quicker; a random pause lets one of the two win.
pub(crate) async fn pause(attempt: u32) {
    if attempt > 2 {
        let pause = rand::random_range(0..=1_u64 << attempt.min(5));
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Destroys a session, and where it was rotated meanwhile, that which it became: who signs out is out, also if another
/// request of theirs was just signing in.
pub(crate) async fn kill(
    shared: &Shared,
    mut key: Key,
    mut known: Option<(Revision, Option<Arc<str>>)>,
) -> Result<()> {
    let store = shared.config.store()?;
    for _ in 0..TRIES {
        let _turn = shared.turn(&key).await;
        let (revision, user) = match known.take() {
            Some(known) => known,
            None => {
                let Some(entry) = store.get(&key, &[]).await?.entry else { return Ok(()) };
                match entry.downcast_or(Record::decode).as_deref() {
                    // Also by a sign-out that could not drop its copies, and is repeated now.
                    Some(Record::Destroyed) => return confirm(shared, &key).await,
                    Some(Record::Rotated(name) | Record::Moved(name, _)) => {
                        key = named(store.namespace(), name)?;
                        continue;
                    }
                    Some(Record::Alive(alive) | Record::Moving(alive)) => {
                        (entry.revision(), alive.user.clone())
                    }
                    None => (entry.revision(), None),
                }
            }
        };
        let when = When::Revision(revision);
        if let Outcome::Stored = bury(shared, &key, Record::Destroyed, when).await? {
            if let Some(user) = user {
                for era in shared.eras() {
                    users::forget(shared, shared.names(era).slot(&user), name(&key)).await;
                }
            }
            return confirm(shared, &key).await;
        }
    }
    Err(Error::new(ErrorKind::Conflict))
}

/// Stores a record under an id that nobody has.
///
/// If somebody had to know the id before, it is that one or none.
async fn create(shared: &Shared, next: Option<Id>, alive: Arc<Alive>) -> Result<Base> {
    for _ in 0..if next.is_some() { 1 } else { NEW_IDS } {
        let id = next.clone().map_or_else(|| shared.config.entropy.id(), Ok)?;
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
    let store = shared.config.store()?;
    let ttl = Ttl::For(left(shared, &alive));
    let entry = Entry::live(Arc::new(Record::Alive(alive.clone())));
    let revision = entry.revision();
    let written = Some(shared.config.clock.now());
    let base = Base { id, era: 0, key, alive, revision, written, copy: false };
    Ok(match store.put(&base.key, entry, ttl, when).await? {
        Outcome::Stored => Some(base),
        Outcome::Refused => None,
    })
}

/// Fails unless what was ended under that key is ended in every copy: nobody is told that they are out while another node
/// may let them in. Doing it again is safe. Costs nothing where a store has no copies.
pub(crate) async fn confirm(shared: &Shared, key: &Key) -> Result<()> {
    let store = shared.config.store()?;
    if store.abilities().copies {
        // Removes nothing, since nobody has that revision, and drops the copies.
        store.remove(key, Some(Revision::random())).await?;
    }
    Ok(())
}

async fn bury(shared: &Shared, key: &Key, stone: Record, when: When) -> Result<Outcome> {
    let ttl = Ttl::For(shared.config.tombstone);
    Ok(shared.config.store()?.put(key, Entry::live(Arc::new(stone)), ttl, when).await?)
}

fn expiry(shared: &Shared, alive: &Alive) -> Expiry {
    alive.expiry.unwrap_or(shared.config.expiry)
}

pub(crate) fn left(shared: &Shared, alive: &Alive) -> Duration {
    expiry(shared, alive).left(shared.age(alive.began))
}

/// The cookie of a new id, or of another list.
pub(crate) fn announce(shared: &Shared, way: Way, base: &Base) -> Effect {
    let alive = &base.alive;
    let lifetime = (!expiry(shared, alive).browser).then(|| left(shared, alive));
    let slot = alive.user.as_ref().map(|user| shared.names(base.era).slot(user));
    Effect::Set(shared.config.give(way, &Ticket { id: base.id.clone(), slot }, lifetime))
}

// The cookie of an id that the client has: to be sent again only if the browser counts its lifetime. Nobody counts that
// of metadata.
fn renew(shared: &Shared, way: Way, base: &Base) -> Effect {
    let counted = way == Way::Cookie && !expiry(shared, &base.alive).browser;
    if counted { announce(shared, way, base) } else { Effect::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::Carried;
    use crate::id::Entropy;
    use crate::layer::SessionLayer;
    use crate::state::Change;
    use larder_cache::Cache;
    use std::sync::atomic::{AtomicU8, Ordering};

    async fn begin(shared: &Shared, value: &'static str) -> Result<State> {
        let mut state = State::new(Carried::default());
        state.load(shared).await?;
        state.change(shared, Change::Set("k".into(), Some(value.into())))?;
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
    async fn s03_and_c120_an_id_that_repeats_never_overwrites_a_session() {
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
