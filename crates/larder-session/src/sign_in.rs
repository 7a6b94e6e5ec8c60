//! Who has signed in: users and their devices, and tokens against other sites' requests.

use std::sync::Arc;

use crate::csrf::NONCE;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{fill, name};
use crate::session::Session;
use crate::users::{Device, MAX_USER, label};

impl Session {
    /// Signs a visitor in as a user, under a new id: the session is in that user's list from then on, and ends when it is
    /// taken off. `device` is for the page that lists them, such as the `User-Agent`; it is cut at 256 bytes.
    ///
    /// The user's name is whatever the application never changes of them, a number for instance. A user has at most 64
    /// sessions; the oldest ends when there would be more. Each user who is signed in has one record more in the store.
    ///
    /// ```
    /// # async fn handlers(session: larder_session::Session, agent: &str) -> Result<(), larder_session::Error> {
    /// session.sign_in_as("7", agent).await?;
    /// assert_eq!(session.user().await?.as_deref(), Some("7"));
    /// // later, on a page that lists them
    /// for device in session.devices().await? {
    ///     println!("{} since {:?}", device.label, device.since);
    /// }
    /// session.revoke_other_devices().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TooLarge`](ErrorKind::TooLarge) when the name is longer than 256 bytes; see also [above](Session#errors).
    pub async fn sign_in_as(&self, user: &str, device: &str) -> Result<()> {
        if user.len() > MAX_USER {
            return Err(Error::new(ErrorKind::TooLarge));
        }
        let mut state = self.open().await?;
        state.rotated_away = false;
        state.rotate = true;
        state.signs_in = Some((Arc::from(user), label(device)));
        Ok(())
    }

    /// Who has [signed in](Session::sign_in_as). `None` if nobody has.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn user(&self) -> Result<Option<String>> {
        let state = self.read().await?;
        let signs_in = state.signs_in.as_ref().map(|(user, _)| user);
        let user = signs_in.or(state.base.as_ref().and_then(|base| base.alive.user.as_ref()));
        Ok(user.map(|user| user.to_string()))
    }

    /// The sessions of this one's user, those that signed in first at the beginning. None if nobody has signed in.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors), and [`Users`](crate::Users#errors).
    pub async fn devices(&self) -> Result<Vec<Device>> {
        match self.listed().await? {
            Some((user, own)) => self.users().devices_for(&user, &own).await,
            None => Ok(Vec::new()),
        }
    }

    /// Ends one session of this one's user, at once. False if there is none of that [id](Device::id). If it is this one,
    /// that is [`destroy`](Session::destroy).
    ///
    /// # Errors
    ///
    /// See [above](Session#errors), and [`Users`](crate::Users#errors).
    pub async fn revoke_device(&self, device: &str) -> Result<bool> {
        let Some((user, own)) = self.listed().await? else { return Ok(false) };
        let mut eras = self.shared().eras().into_iter().zip(&own);
        if eras.any(|(era, own)| self.shared().names(era).device(own) == device) {
            self.destroy().await?;
            return Ok(true);
        }
        self.users().revoke(&user, device).await
    }

    /// Ends all other sessions of this one's user, at once; how many there were.
    ///
    /// # Errors
    ///
    /// See [above](Session#errors), and [`Users`](crate::Users#errors).
    pub async fn revoke_other_devices(&self) -> Result<usize> {
        match self.listed().await? {
            Some((user, own)) => self.users().revoke_others(&user, &own).await,
            None => Ok(0),
        }
    }

    // The user, and the names that this session may have in their lists.
    async fn listed(&self) -> Result<Option<(Arc<str>, Vec<[u8; 32]>)>> {
        let (state, shared) = (self.read().await?, self.shared());
        let Some(base) = &state.base else { return Ok(None) };
        let Some(user) = &base.alive.user else { return Ok(None) };
        let names = shared.eras().into_iter().map(|era| Ok(name(&shared.key_of(era, &base.id)?)));
        Ok(Some((user.clone(), names.collect::<Result<_>>()?)))
    }

    /// A token for this visitor's forms, which [`verify_csrf`](Session::verify_csrf) asks for. Another site cannot know
    /// it. Another text each time, all of which hold until the id changes: with a sign-in, for instance.
    ///
    /// It needs a session to hold for, so asking for one begins a session. Ask after a rotation, not before it.
    ///
    /// ```
    /// # async fn handlers(session: larder_session::Session, form_token: &str) -> Result<(), larder_session::Error> {
    /// // in the form's page
    /// let field = format!("<input type=hidden name=token value={}>", session.csrf_token().await?);
    /// // where the form is sent to
    /// session.verify_csrf(form_token).await?;
    /// # let _ = field; Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [above](Session#errors).
    pub async fn csrf_token(&self) -> Result<String> {
        let mut nonce = [0; NONCE];
        fill(&mut nonce)?;
        let mut state = self.write().await?;
        let id = state.lasting_id(self.shared())?;
        Ok(self.shared().config.names.tokens.make(&id, nonce))
    }

    /// Whether the visitor was given that token in this session. Compared in constant time.
    ///
    /// # Errors
    ///
    /// [`CrossSite`](ErrorKind::CrossSite), 403, if not; see also [above](Session#errors).
    pub async fn verify_csrf(&self, token: &str) -> Result<()> {
        let shared = self.shared();
        let state = self.read().await?;
        let holds = |id| {
            let mut eras = shared.eras().into_iter();
            eras.any(|era| shared.names(era).tokens.holds(id, token))
        };
        if state.base.as_ref().is_some_and(|base| holds(&base.id)) {
            return Ok(());
        }
        shared.config.hook.tell(Event::CrossSite);
        Err(Error::new(ErrorKind::CrossSite))
    }
}
