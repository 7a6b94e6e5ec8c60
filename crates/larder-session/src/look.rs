//! Finding the sessions of the ids that a request brought.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Entry, Key, Revision};
use smallvec::SmallVec;

use crate::error::Result;
use crate::event::Event;
use crate::id::{Era, Id, Slot, Ticket, name};
use crate::layer::Shared;
use crate::record::Record;
use crate::seal::{Opened, Seal};
use crate::state::{Base, Found};
use crate::users;

/// Looks up all of these sessions, in one round trip.
pub(crate) async fn look(shared: &Shared, tickets: &[Ticket]) -> Result<SmallVec<[Found; 1]>> {
    let store = shared.config.store()?;
    let mut found = SmallVec::new();
    let eras = shared.eras();
    if let ([Ticket { id, slot: None }], 1) = (tickets, eras.len()) {
        let key = shared.key(id)?;
        let entry = store.get(&key, &[]).await?.entry;
        found.push(judge(shared, id.clone(), Place::new(0, key, entry), None).await?);
        return Ok(found);
    }
    let mut keys = Vec::with_capacity((1 + eras.len()) * tickets.len());
    for Ticket { id, slot } in tickets {
        for era in &eras {
            keys.push(shared.key_of(*era, id)?);
        }
        if let Some(slot) = slot {
            keys.push(shared.user_key(*slot)?);
        }
    }
    let entries = store.lookup_many(&keys).await?;
    let mut read = keys.into_iter().zip(entries);
    for Ticket { id, slot } in tickets {
        let places = eras.iter().zip(read.by_ref());
        let places = places.map(|(era, (key, entry))| Place::new(*era, key, entry)).collect();
        let list = slot.and_then(|slot| read.next().map(|(_, list)| (slot, list)));
        let place = choose(shared, places).await?;
        found.push(judge(shared, id.clone(), place, list).await?);
    }
    Ok(found)
}

/// Looks at a session again.
pub(crate) async fn look_again(shared: &Shared, base: &Base) -> Result<Found> {
    if shared.config.accepted.is_empty() {
        let entry = shared.config.store()?.get(&base.key, &[]).await?.entry;
        return judge(shared, base.id.clone(), Place::new(0, base.key.clone(), entry), None).await;
    }
    let ticket = Ticket { id: base.id.clone(), slot: None };
    let found = look(shared, std::slice::from_ref(&ticket)).await?.pop();
    Ok(found.unwrap_or(Found::Not(Event::UnknownId)))
}

type List = (Slot, Option<Entry>);

/// What is under one of the names of an id.
struct Place {
    era: Era,
    key: Key,
    entry: Option<Entry>,
    record: Option<Arc<Record>>,
    /// It is a copy that another place says counts.
    counts: bool,
}

impl Place {
    fn new(era: Era, key: Key, entry: Option<Entry>) -> Self {
        let record = entry.as_ref().and_then(|entry| entry.downcast_or(Record::decode));
        Place { era, key, entry, record, counts: false }
    }

    fn moved(&self) -> Option<(&[u8; 32], Revision)> {
        match self.record.as_deref()? {
            Record::Moved(name, copy) => Some((name, *copy)),
            _ => None,
        }
    }

    fn is_copy(&self, copy: Revision) -> bool {
        matches!(self.record.as_deref(), Some(Record::Moving(_)))
            && self.entry.as_ref().is_some_and(|entry| entry.revision() == copy)
    }
}

type Places = SmallVec<[Place; 1]>;

/// Of the places where a session may be, that which says what it is.
async fn choose(shared: &Shared, mut places: Places) -> Result<Place> {
    let mut at = alive(&mut places);
    if at.is_none()
        && let Some(target) = target(&places)
    {
        // Several keys need not have been read at one instant: it may have arrived there since.
        let Place { era, key, .. } = &places[target];
        let entry = shared.config.store()?.get(key, &[]).await?.entry;
        places[target] = Place::new(*era, key.clone(), entry);
        at = alive(&mut places);
    }
    // Nowhere alive: what was said last is what is told.
    let at = at.or_else(|| target(&places)).unwrap_or_else(|| {
        let said = places.iter().position(|place| place.entry.is_some());
        said.unwrap_or(0)
    });
    Ok(places.swap_remove(at))
}

// Where it lives. There is one such place at most, since it arrives by what makes the other one a stone.
fn alive(places: &mut Places) -> Option<usize> {
    for at in 0..places.len() {
        if matches!(places[at].record.as_deref(), Some(Record::Alive(_))) {
            return Some(at);
        }
        let own = name(&places[at].key);
        let moved = places.iter().filter_map(Place::moved).find(|(name, _)| **name == own);
        if moved.is_some_and(|(_, copy)| places[at].is_copy(copy)) {
            places[at].counts = true;
            return Some(at);
        }
    }
    None
}

// Where it is said to be.
fn target(places: &Places) -> Option<usize> {
    let mut moved = places.iter().filter_map(Place::moved);
    moved.find_map(|(there, _)| places.iter().position(|place| name(&place.key) == *there))
}

// The ends are checked here, whatever the store does with its lifetimes.
async fn judge(shared: &Shared, id: Id, place: Place, list: Option<List>) -> Result<Found> {
    let Place { era, key, entry, record, counts } = place;
    let Some(entry) = entry else { return Ok(Found::Not(Event::UnknownId)) };
    let Some(record) = record else { return Ok(Found::Not(Event::Undecodable)) };
    let alive = match &*record {
        Record::Alive(alive) => alive.clone(),
        Record::Moving(alive) if counts => alive.clone(),
        Record::Moving(_) => return Ok(Found::Not(Event::UnknownId)),
        Record::Destroyed => return Ok(Found::Not(Event::DeadId)),
        // To another id, or by a secret that is not accepted here.
        Record::Rotated(_) | Record::Moved(..) => return Ok(Found::Rotated),
    };
    let written = entry.times().map(|times| times.written);
    let idle = written.map_or(Duration::ZERO, |written| shared.config.clock.now().since(written));
    if shared.is_over(&alive, idle) {
        return Ok(Found::Not(Event::Expired));
    }
    let base = Base { id, era, key, alive, revision: entry.revision(), written, copy: counts };
    listed(shared, base, list).await
}

// A session of a user is one while it is in their list. `list` is what was read already.
async fn listed(shared: &Shared, base: Base, list: Option<List>) -> Result<Found> {
    let (Some(user), Some(store)) = (&base.alive.user, &shared.config.store) else {
        return Ok(Found::Alive(base));
    };
    let slot = shared.names(base.era).slot(user);
    let list = match list {
        Some((read, list)) if read == slot => list,
        // The cookie did not say so, or lied.
        _ => store.get(&shared.user_key(slot)?, &[]).await?.entry,
    };
    Ok(match users::lists(list.as_ref(), &name(&base.key)) {
        true => Found::Alive(base),
        false => Found::Not(Event::Revoked),
    })
}

/// Opens the sessions that these values are.
pub(crate) async fn open(
    shared: &Shared,
    seal: &Seal,
    values: &[&[u8]],
    reseal: &mut bool,
) -> Result<SmallVec<[Found; 1]>> {
    let mut all = SmallVec::new();
    for value in values {
        let opened = match seal.open(value, shared.config.clock.wall()) {
            Ok(opened) => opened,
            Err(event) => {
                all.push(Found::Not(event));
                continue;
            }
        };
        let Opened { id, alive, kept, old } = opened;
        let idle = shared.age(kept);
        if shared.is_over(&alive, idle) {
            all.push(Found::Not(Event::Expired));
            continue;
        }
        let millis = i64::try_from(idle.as_millis()).unwrap_or(i64::MAX);
        let written = Some(shared.config.clock.now().shifted_millis(-millis));
        let key = shared.key(&id)?;
        let revision = Revision::NONE;
        let base = Base { id, era: 0, key, alive, revision, written, copy: false };
        let found = listed(shared, base, None).await?;
        *reseal |= old && matches!(found, Found::Alive(_));
        all.push(found);
    }
    Ok(all)
}
