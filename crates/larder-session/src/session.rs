//! The handle that handlers hold.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_http_rules::SessionMark;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::carrier::{Carried, Way};
use crate::commit;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::Expiry;
use crate::layer::Shared;
use crate::state::{Change, Effect, State, Update};
use crate::users::Users;
use crate::value;

/// The session of the visitor who sent this request.
///
/// [`SessionLayer`](crate::SessionLayer) puts it into every request's extensions; with the feature `axum` it is an
/// extractor. A clone is the same session. Nothing is read before the first use, which takes one round trip, or none
/// when the request came without a cookie. Changes are seen by later calls at once and saved when the handler has
/// returned: all of them or none. Any use, of whatever method, makes the response private to this visitor.
///
/// # Two requests at once
///
/// Changes to different keys are both kept. [`update`](Session::update) is made again on what the other one stored. Two
/// that [`insert`](Session::insert) or [`remove`](Session::remove) the same key are in conflict: the later one fails
/// with [`Conflict`](ErrorKind::Conflict), 409, and saves nothing. Keys that were only read may have changed meanwhile:
/// what depends on several belongs into one [`update_typed`](Session::update_typed). Who changes a session that another
/// request destroyed or rotated meanwhile fails with [`Gone`](ErrorKind::Gone).
///
/// # Errors
///
/// Every method fails with [`Store`](ErrorKind::Store) when the store cannot be asked, and the response is 503 then,
/// also if the handler keeps the error to itself. When the response's head was sent: changes fail with
/// [`Late`](ErrorKind::Late), and so does any use if there was none before.
///
/// # Cancel safety
///
/// Every future may be dropped; a change has then been made wholly or not at all. Nothing is saved before the handler
/// has returned (or called [`save`](Session::save)); then saving runs to its end, although the client left.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    // What caches in this stack look at if there is no outer one.
    used: AtomicBool,
    // Of a session layer around this one: one mark for all of a stack, or the outer one's would hide the inner one's.
    outer: Option<SessionMark>,
    // The head went out without saying that a session was used.
    unmarked: AtomicBool,
    way: Way,
    state: Mutex<State>,
}

impl AsRef<AtomicBool> for Inner {
    fn as_ref(&self) -> &AtomicBool {
        &self.used
    }
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, outer: Option<SessionMark>, carried: Carried) -> Self {
        Session(Arc::new(Inner {
            shared,
            used: AtomicBool::new(false),
            outer,
            unmarked: AtomicBool::new(false),
            way: carried.way,
            state: Mutex::new(State::new(carried)),
        }))
    }

    /// Reads a value. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Value`](ErrorKind::Value) when it is not of that type; see also [above](Session#errors).
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let state = self.read().await?;
        state.values().get(key).map(|bytes| value::decode(bytes)).transpose()
    }

    /// Whether there is a value.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn contains(&self, key: &str) -> Result<bool> {
        Ok(self.read().await?.values().contains_key(key))
    }

    /// The keys, in order.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn keys(&self) -> Result<Vec<String>> {
        Ok(self.read().await?.values().keys().map(ToString::to_string).collect())
    }

    /// Whether there is nothing in it.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.read().await?.values().is_empty())
    }

    /// Puts a value in, instead of the present one.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](ErrorKind::TooLarge), [`Value`](ErrorKind::Value) when serde cannot write it; see also
    /// [above](Session#errors). Nothing was changed then.
    pub async fn insert<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<()> {
        let bytes = value::encode(value)?;
        self.change(Change::Set(key.into(), Some(bytes))).await
    }

    /// Takes a value out. True if there was one.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn remove(&self, key: &str) -> Result<bool> {
        let mut state = self.write().await?;
        if !state.values().contains_key(key) {
            return Ok(false);
        }
        state.change(&self.0.shared, Change::Set(key.into(), None))?;
        Ok(true)
    }

    /// Takes a value out and gives it: what is to be shown once, for instance.
    ///
    /// ```
    /// # async fn handlers(session: larder_session::Session) -> Result<(), larder_session::Error> {
    /// // before a redirect
    /// session.update("notices", |notices: &mut Vec<String>| notices.push("Saved.".to_owned())).await?;
    /// // on the page where it leads
    /// let notices: Vec<String> = session.take("notices").await?.unwrap_or_default();
    /// # let _ = notices; Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Value`](ErrorKind::Value) when it is not of that type; see also [above](Session#errors). Nothing was changed
    /// then.
    pub async fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let mut state = self.write().await?;
        let Some(bytes) = state.values().get(key) else { return Ok(None) };
        let value = value::decode(bytes)?;
        state.change(&self.0.shared, Change::Set(key.into(), None))?;
        Ok(Some(value))
    }

    /// Signs a visitor in: [rotates](Session::rotate) the id, and puts in who they are. What they did before stays in
    /// the session, a cart for instance; [`clear`](Session::clear) it where it should not. See
    /// [`sign_in_as`](Session::sign_in_as) for sessions that can be listed and ended by user.
    ///
    /// # Errors
    ///
    /// As [`insert`](Session::insert).
    pub async fn sign_in<T: Serialize + ?Sized>(&self, key: &str, who: &T) -> Result<()> {
        self.rotate().await?;
        self.insert(key, who).await
    }

    /// Changes a value in place, beginning with its default if there is none, and gives what it became.
    ///
    /// The closure runs now, and again on what another request stored meanwhile: counts are never lost. It should do
    /// nothing but change the value.
    ///
    /// ```
    /// # async fn handler(session: larder_session::Session) -> Result<String, larder_session::Error> {
    /// let visits = session.update("visits", |visits: &mut u32| *visits += 1).await?;
    /// session.update("cart", |cart: &mut Vec<String>| cart.push("teapot".to_owned())).await?;
    /// # Ok(visits.to_string()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Value`](ErrorKind::Value) when what is there is not of that type, [`TooLarge`](ErrorKind::TooLarge); see also
    /// [above](Session#errors). Nothing was changed then.
    pub async fn update<T, F>(&self, key: &str, mut change: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Default,
        F: FnMut(&mut T) + Send + 'static,
    {
        let name: Arc<str> = key.into();
        let update: Update = Box::new(move |values| {
            let present = values.get(&*name).map(|bytes| value::decode(bytes)).transpose()?;
            let mut value: T = present.unwrap_or_default();
            change(&mut value);
            values.insert(name.clone(), value::encode(&value)?);
            Ok(())
        });
        let mut state = self.write().await?;
        state.change(&self.0.shared, Change::Update(update))?;
        state.values().get(key).map_or_else(|| Ok(T::default()), |bytes| value::decode(bytes))
    }

    /// Keeps those items of a list that `keep` says. Runs again on what another request stored meanwhile.
    pub(crate) async fn retain<T, F>(&self, key: &str, keep: F) -> Result<()>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(&T) -> bool + Send + 'static,
    {
        let name: Arc<str> = key.into();
        let update: Update = Box::new(move |values| {
            let Some(bytes) = values.get(&*name) else { return Ok(()) };
            let mut items: Vec<T> = value::decode(bytes)?;
            items.retain(&keep);
            match items.is_empty() {
                true => values.remove(&*name),
                false => values.insert(name.clone(), value::encode(&items)?),
            };
            Ok(())
        });
        self.change(Change::Update(update)).await
    }

    /// Takes all values out. The session and its id stay.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn clear(&self) -> Result<()> {
        self.change(Change::Clear).await
    }

    /// Gives the session a new id and ends the old one, which is what every change of rights needs: whoever knew the id
    /// before, knows nothing now. Done when the session is saved, and kept whatever is called after it.
    ///
    /// Call it first when somebody signs in. A request that still comes with an id that was rotated away cannot change
    /// anything ([`Gone`](ErrorKind::Gone)); rotating begins a new session for it, empty, so that who lost the response
    /// to a sign-in can sign in again.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn rotate(&self) -> Result<()> {
        let mut state = self.open().await?;
        state.rotated_away = false;
        state.rotate = true;
        Ok(())
    }

    /// Ends the session, and removes the client's cookie. What is put in afterwards begins a new one. Nothing is
    /// written if there was none.
    ///
    /// No request that runs at the same time can bring it back.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn destroy(&self) -> Result<()> {
        self.touch()?;
        let shared = &self.0.shared;
        let mut state = self.0.state.lock().await;
        unsealed(&state)?;
        if shared.config.seal.is_some() && shared.config.store.is_some() {
            // Whose list it has to leave, it says itself.
            state.load(shared).await?;
        }
        state.destroy(shared)
    }

    /// Gives this session a lifetime of its own, or the layer's again. Kept with the session. One that holds nothing
    /// has no record to keep it in.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn set_expiry(&self, expiry: impl Into<Option<Expiry>>) -> Result<()> {
        self.write().await?.expiry = Some(expiry.into());
        Ok(())
    }

    /// Tells sessions apart in logs: 16 hexadecimal digits, of which neither id nor record can be found. `None` before
    /// the session was first saved.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn id_hash(&self) -> Result<Option<String>> {
        let state = self.read().await?;
        Ok(state.base.as_ref().map(|base| self.0.shared.config.names.for_logs(&base.id)))
    }

    /// Saves now, instead of when the handler has returned: for those who want to answer a conflict themselves. Runs to
    /// its end in a task of its own.
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict), [`Gone`](ErrorKind::Gone); see also [above](Session#errors). The changes are
    /// given up then, and the session is read anew when it is next used.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives the answer up; saving goes on.
    pub async fn save(&self) -> Result<()> {
        self.touch()?;
        let session = self.clone();
        let running = self.0.shared.running();
        let task = async move {
            let _running = running;
            let mut state = session.0.state.lock().await;
            unsealed(&state)?;
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            let saved = commit::save(&session.0.shared, &mut state).await;
            if saved.is_err() {
                state.discard();
            }
            saved
        };
        joined(tokio::spawn(task.in_current_span()).await)
    }

    pub(crate) async fn change(&self, change: Change) -> Result<()> {
        self.write().await?.change(&self.0.shared, change)
    }

    pub(crate) async fn read(&self) -> Result<MutexGuard<'_, State>> {
        self.touch()?;
        let mut state = self.0.state.lock().await;
        state.load(&self.0.shared).await?;
        Ok(state)
    }

    pub(crate) async fn write(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.open().await?;
        if state.rotated_away {
            return Err(Error::new(ErrorKind::Gone));
        }
        Ok(state)
    }

    pub(crate) async fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.read().await?;
        unsealed(&state)?;
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    // Sequentially consistent on both sides: either the head tells of the use, or the user is told of the head.
    fn touch(&self) -> Result<()> {
        if let Some(outer) = &self.0.outer {
            outer.touch();
        }
        self.0.used.store(true, Ordering::SeqCst);
        if self.0.unmarked.load(Ordering::SeqCst) { Err(late()) } else { Ok(()) }
    }
}

// What the layer does with it.
impl Session {
    /// The head goes out now. Whether it has to tell of a use.
    pub(crate) fn was_used(&self) -> bool {
        self.0.unmarked.store(true, Ordering::SeqCst);
        let used = self.0.used.load(Ordering::SeqCst);
        if used {
            self.0.unmarked.store(false, Ordering::SeqCst);
        }
        used
    }

    pub(crate) fn users(&self) -> Users {
        Users(self.0.shared.clone())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// How the client is told its id.
    pub(crate) fn way(&self) -> Way {
        self.0.way
    }

    pub(crate) fn mark(&self) -> SessionMark {
        self.0.outer.clone().unwrap_or_else(|| SessionMark::part_of(self.0.clone()))
    }

    /// Ends the exchange, if there is nothing to save.
    pub(crate) fn finish_at_once(&self, discards: bool) -> Option<Result<Effect>> {
        let mut state = self.0.state.try_lock().ok()?;
        if let Some(answer) = self.answer(&state, discards) {
            state.sealed = true;
            return Some(answer);
        }
        let idle = state.kills.is_empty()
            && !state.is_changed()
            && !commit::is_refresh_due(&self.0.shared, &state);
        idle.then(|| {
            state.sealed = true;
            Ok(std::mem::take(&mut state.effect))
        })
    }

    /// Ends the exchange, and saves.
    pub(crate) fn finish(self, discards: bool) -> JoinHandle<Result<Effect>> {
        // From now on, and not from when the task is first run: somebody may be waiting for it already.
        let running = self.0.shared.running();
        let task = async move {
            let _running = running;
            self.finish_in_turn(discards).await
        };
        tokio::spawn(task.in_current_span())
    }

    async fn finish_in_turn(&self, discards: bool) -> Result<Effect> {
        let shared = &self.0.shared;
        let mut state = self.0.state.lock().await;
        state.sealed = true;
        if let Some(answer) = self.answer(&state, discards) {
            return answer;
        }
        commit::save(shared, &mut state).await?;
        if commit::is_refresh_due(shared, &state) {
            commit::refresh(shared, &mut state).await;
        }
        Ok(std::mem::take(&mut state.effect))
    }

    // What is clear without saving: an outage is told, and a failed handler's changes are given up.
    fn answer(&self, state: &State, discards: bool) -> Option<Result<Effect>> {
        if discards {
            return Some(Ok(state.effect_of_saves()));
        }
        let error = state.failed.as_ref()?;
        match self.0.shared.config.read_only_on_outage {
            true => None,
            false => Some(Err(error.clone())),
        }
    }
}

fn unsealed(state: &State) -> Result<()> {
    if state.sealed { Err(late()) } else { Ok(()) }
}

#[cold]
fn late() -> Error {
    tracing::error!("a session was used after the response's head was sent");
    Error::new(ErrorKind::Late)
}

/// What a task of ours came to. It is never aborted, so it ended by itself or by a panic of a closure of the user's.
pub(crate) fn joined<T>(ended: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match ended {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(error) => Err(Error::new(ErrorKind::Store).with_source(error)),
        },
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.used.load(Ordering::Relaxed);
        f.debug_struct("Session").field("used", &used).finish_non_exhaustive()
    }
}
