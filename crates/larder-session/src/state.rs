//! What one exchange knows of its session, and what it changed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use larder_core::{Key, Moment, Revision};
use smallvec::SmallVec;

use crate::carrier::{Carried, Way};
use crate::cookie::Brought;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::expiry::Expiry;
use crate::id::{Era, Id, Names, Slot, list_key};
use crate::layer::Shared;
use crate::look::{look, open};
use crate::record::{Alive, EMPTY, MAX_KEY, MAX_KEYS, Values, size};
use crate::seal::millis;

/// A session as it is stored.
#[derive(Clone)]
pub(crate) struct Base {
    pub(crate) id: Id,
    /// Whose names its own is one of.
    pub(crate) era: Era,
    pub(crate) key: Key,
    pub(crate) alive: Arc<Alive>,
    pub(crate) revision: Revision,
    /// When it was last kept alive.
    pub(crate) written: Option<Moment>,
    /// Its record is a copy, which counts only because the place that it came from says so.
    pub(crate) copy: bool,
}

/// A user, and what their device is called.
pub(crate) type SignIn = (Arc<str>, String);

/// A record that is to be destroyed, and its revision where that is known.
pub(crate) struct Kill {
    pub(crate) key: Key,
    pub(crate) known: Option<(Revision, Option<Arc<str>>)>,
}

/// What a record turned out to be.
pub(crate) enum Found {
    Alive(Base),
    Rotated,
    /// Nothing that may be used.
    Not(Event),
}

/// One change, which can be made again on newer values.
pub(crate) enum Change {
    /// That key becomes this value, or goes.
    Set(Arc<str>, Option<Bytes>),
    /// A closure makes new values out of the present ones.
    Update(Update),
    Clear,
}

pub(crate) type Update = Box<dyn FnMut(&mut Values) -> Result<()> + Send>;

/// What becomes of what the client has: its cookie, or what it has from metadata.
#[derive(Clone, Default)]
pub(crate) enum Effect {
    #[default]
    Keep,
    /// This sets it.
    Set(HeaderValue),
    Remove,
}

#[derive(Default)]
pub(crate) struct State {
    carried: Carried,
    // `None` until somebody has to know.
    brought: Option<Brought>,
    pub(crate) loaded: bool,
    /// Why it could not be read. Stays: an exchange has one answer to who its visitor is.
    pub(crate) failed: Option<Error>,
    /// Another request gave the client a new id; this one still came with the old.
    pub(crate) rotated_away: bool,
    pub(crate) base: Option<Base>,
    /// The values as they are after all changes; `None` while they are the base's.
    view: Option<Arc<Values>>,
    changes: SmallVec<[Change; 1]>,
    pub(crate) expiry: Option<Option<Expiry>>,
    pub(crate) rotate: bool,
    /// Who has signed in.
    pub(crate) signs_in: Option<SignIn>,
    /// The id that the session will have, where somebody had to know it before it is saved.
    pub(crate) next: Option<Id>,
    /// It was sealed with an older key, or one that ends.
    pub(crate) reseal: bool,
    /// What is to be destroyed.
    pub(crate) kills: Vec<Kill>,
    pub(crate) effect: Effect,
    /// A record was written in this exchange.
    pub(crate) saved: bool,
    /// The response's head is on its way.
    pub(crate) sealed: bool,
}

impl State {
    pub(crate) fn new(carried: Carried) -> Self {
        State { carried, ..State::default() }
    }

    /// How the client is told its id.
    pub(crate) fn way(&self) -> Way {
        self.carried.way
    }

    fn brought(&mut self, shared: &Shared) -> &Brought {
        let config = &shared.config;
        self.brought.get_or_insert_with(|| match &config.seal {
            None => config.read(&self.carried),
            Some(_) => match config.values(&self.carried) {
                Some(values) => Brought { any: !values.is_empty(), ..Brought::default() },
                None => Brought { any: true, malformed: true, ..Brought::default() },
            },
        })
    }

    /// The id under which the session will be known when this exchange has ended.
    pub(crate) fn lasting_id(&mut self, shared: &Shared) -> Result<Id> {
        match (&self.base, &self.next) {
            (Some(base), _) if !self.rotate => Ok(base.id.clone()),
            (_, Some(id)) => Ok(id.clone()),
            _ => {
                let id = shared.config.entropy.id()?;
                self.next = Some(id.clone());
                Ok(id)
            }
        }
    }

    pub(crate) fn values(&self) -> &Values {
        self.view.as_deref().unwrap_or_else(|| self.stored())
    }

    /// The values, to be stored: nothing is copied.
    pub(crate) fn shared_values(&self) -> Arc<Values> {
        let stored = self.base.as_ref().map(|base| &base.alive.values);
        self.view.as_ref().or(stored).cloned().unwrap_or_default()
    }

    fn stored(&self) -> &Values {
        self.base.as_ref().map_or(&EMPTY, |base| &base.alive.values)
    }

    /// Makes a change, if the session stays within its limits.
    pub(crate) fn change(&mut self, shared: &Shared, mut change: Change) -> Result<()> {
        if let Change::Set(key, value) = &change
            && self.values().get(key) == value.as_ref()
        {
            // Nothing becomes different now, but it has to hold on what another request stores, too.
            self.changes.push(change);
            return Ok(());
        }
        let mut values = self.values().clone();
        match &mut change {
            Change::Set(key, Some(value)) => match values.get_mut(key) {
                Some(present) => present.clone_from(value),
                None => drop(values.insert(key.clone(), value.clone())),
            },
            Change::Set(key, None) => {
                values.remove(key);
            }
            Change::Update(update) => update(&mut values)?,
            Change::Clear => values.clear(),
        }
        check_limits(&values, shared.config.max_bytes)?;
        self.changes.push(change);
        self.view = Some(Arc::new(values));
        Ok(())
    }

    /// Whether something has to be written for the session itself.
    pub(crate) fn is_changed(&self) -> bool {
        match &self.base {
            Some(base) => {
                let alive = &base.alive;
                self.rotate
                    || self.signs_in.is_some()
                    || self.view.as_ref().is_some_and(|view| *view != alive.values)
                    || self.expiry.is_some_and(|expiry| expiry != alive.expiry)
            }
            // What holds nothing needs no record.
            None => !self.values().is_empty() || self.signs_in.is_some() || self.next.is_some(),
        }
    }

    /// Makes the changes again, on what another request stored meanwhile.
    pub(crate) fn rebase(&mut self, shared: &Shared, newer: Base) -> Result<()> {
        let before = self.stored().clone();
        let after = &newer.alive.values;
        let mut values = (**after).clone();
        let mut cleared = false;
        for change in &mut self.changes {
            match change {
                Change::Set(key, value) => {
                    let untouched =
                        before.get(key) == after.get(key) || after.get(key) == value.as_ref();
                    if !untouched && !cleared {
                        return Err(Error::new(ErrorKind::Conflict));
                    }
                    match value {
                        Some(value) => values.insert(key.clone(), value.clone()),
                        None => values.remove(key),
                    };
                }
                Change::Update(update) => update(&mut values)?,
                Change::Clear => {
                    values.clear();
                    cleared = true;
                }
            }
        }
        check_limits(&values, shared.config.max_bytes)?;
        self.view = (!self.changes.is_empty()).then(|| Arc::new(values));
        self.base = Some(newer);
        Ok(())
    }

    /// What there was to be saved has been saved so.
    pub(crate) fn settle(&mut self, base: Option<Base>) {
        self.saved = true;
        self.reset(base);
    }

    /// There was nothing to be saved.
    pub(crate) fn settle_as_it_is(&mut self) {
        let base = self.base.take();
        self.reset(base);
    }

    fn reset(&mut self, base: Option<Base>) {
        self.base = base;
        self.view = None;
        self.changes.clear();
        self.expiry = None;
        self.signs_in = None;
        self.next = None;
        self.rotate = false;
    }

    /// Gives up what was changed; the session is read anew when it is next used.
    pub(crate) fn discard(&mut self) {
        self.reset(None);
        self.kills.clear();
        self.loaded = false;
        if let Effect::Remove = self.effect {
            self.effect = Effect::Keep;
        }
    }

    /// Destroys whatever session there is. What is put in afterwards begins another one.
    pub(crate) fn destroy(&mut self, shared: &Shared) -> Result<()> {
        let any = self.brought(shared).any;
        match self.base.take() {
            Some(base) => {
                let known = Some((base.revision, base.alive.user.clone()));
                self.kills.push(Kill { key: base.key, known });
            }
            // Also when they were read and are nothing: one may have been rotated, and lives on.
            None if self.kills.is_empty() => {
                for ticket in self.brought.iter().flat_map(|brought| &brought.tickets) {
                    for era in shared.eras() {
                        self.kills.push(Kill { key: shared.key_of(era, &ticket.id)?, known: None });
                    }
                }
            }
            None => {}
        }
        self.reset(None);
        self.loaded = true;
        self.rotated_away = false;
        // A session that began in this very exchange leaves nothing behind; a cookie that was brought has to go.
        self.effect = if any { Effect::Remove } else { Effect::Keep };
        Ok(())
    }

    /// What explicit saves have done to the cookie. A destruction that was not carried out removes nothing.
    pub(crate) fn effect_of_saves(&self) -> Effect {
        match self.effect {
            Effect::Set(_) if self.saved => self.effect.clone(),
            _ => Effect::Keep,
        }
    }

    /// Reads the session, unless that was done.
    pub(crate) async fn load(&mut self, shared: &Shared) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        if self.failed.is_none() {
            match self.find(shared).await {
                Ok(()) => self.loaded = true,
                Err(error) => {
                    tracing::warn!(?error, "a session cannot be read");
                    shared.config.hook.tell(Event::Failed);
                    self.failed = Some(error);
                }
            }
        }
        match &self.failed {
            Some(error) if !shared.config.read_only_on_outage => Err(error.clone()),
            _ => Ok(()),
        }
    }

    async fn find(&mut self, shared: &Shared) -> Result<()> {
        let hook = &shared.config.hook;
        let brought = self.brought(shared);
        if brought.malformed {
            hook.tell(Event::Malformed);
        }
        let (mut alive, mut several, mut rotated) = (None, false, false);
        let found = match &shared.config.seal {
            None => look(shared, &brought.tickets).await?,
            Some(seal) => {
                let values = shared.config.values(&self.carried).unwrap_or_default();
                open(shared, seal, &values, &mut self.reseal).await?
            }
        };
        for found in found {
            match found {
                Found::Alive(base) => several |= alive.replace(base).is_some(),
                Found::Rotated => {
                    rotated = true;
                    hook.tell(Event::DeadId);
                }
                Found::Not(event) => hook.tell(event),
            }
        }
        if several {
            hook.tell(Event::Ambiguous);
            alive = None;
        }
        self.rotated_away = rotated && alive.is_none();
        self.base = alive;
        Ok(())
    }
}

fn check_limits(values: &Values, max_bytes: usize) -> Result<()> {
    let keys = values.len() <= MAX_KEYS && values.keys().all(|key| key.len() <= MAX_KEY);
    if keys && size(values) <= max_bytes { Ok(()) } else { Err(Error::new(ErrorKind::TooLarge)) }
}

impl Shared {
    /// Where the session of that id is kept.
    pub(crate) fn key(&self, id: &Id) -> Result<Key> {
        self.key_of(0, id)
    }

    /// Where it is kept by the names of that era.
    pub(crate) fn key_of(&self, era: Era, id: &Id) -> Result<Key> {
        self.names(era).key(&self.config.namespace, id)
    }

    /// The names of an era.
    pub(crate) fn names(&self, era: Era) -> &Names {
        match era {
            0 => &self.config.names,
            other => &self.config.accepted[other - 1].names,
        }
    }

    /// The eras that count now, the present one first.
    pub(crate) fn eras(&self) -> SmallVec<[Era; 4]> {
        let counts =
            |until: Option<SystemTime>| until.is_none_or(|until| self.config.clock.wall() < until);
        let others = self.config.accepted.iter().enumerate();
        let others = others.filter(|(_, other)| counts(other.until)).map(|(at, _)| at + 1);
        std::iter::once(0).chain(others).collect()
    }

    /// Where the list of a user's sessions is kept.
    pub(crate) fn user_key(&self, slot: Slot) -> Result<Key> {
        list_key(&self.config.namespace, slot)
    }

    /// Whether a session that was last kept alive so long ago has ended.
    pub(crate) fn is_over(&self, alive: &Alive, idle: Duration) -> bool {
        let expiry = alive.expiry.unwrap_or(self.config.expiry);
        expiry.idle.is_some_and(|most| idle >= most)
            || expiry.absolute.is_some_and(|most| self.age(alive.began) >= most)
    }

    /// Milliseconds of Unix time.
    pub(crate) fn wall_millis(&self) -> i64 {
        millis(self.config.clock.wall())
    }

    /// How long ago a session began. Zero if that is to come.
    pub(crate) fn age(&self, began: i64) -> Duration {
        let age = self.wall_millis().saturating_sub(began);
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}
