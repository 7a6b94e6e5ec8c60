//! A whole session as one struct.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::record::Values;
use crate::session::Session;
use crate::state::{Change, Update};
use crate::value;

impl Session {
    /// The whole session as one struct, whose fields are the keys. Fields that may be missing need a default
    /// (`#[serde(default)]`).
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Default, Serialize, Deserialize)]
    /// #[serde(default)]
    /// struct Visitor {
    ///     name: Option<String>,
    ///     cart: Vec<String>,
    /// }
    ///
    /// # async fn handler(session: larder_session::Session) -> Result<(), larder_session::Error> {
    /// let visitor: Visitor = session.typed().await?;
    /// session.update_typed(|visitor: &mut Visitor| visitor.cart.push("teapot".to_owned())).await?;
    /// # let _ = visitor.name; Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Value`](crate::ErrorKind::Value) when it is not of that type; see also [above](Session#errors).
    pub async fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        value::join(self.read().await?.values())
    }

    /// Changes the whole session as one struct. Only fields that become different are written, however deep the change
    /// is; other keys stay. The closure runs again, as that of [`update`](Session::update) does.
    ///
    /// # Errors
    ///
    /// As [`update`](Session::update).
    pub async fn update_typed<T, F>(&self, mut change: F) -> Result<()>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(&mut T) + Send + 'static,
    {
        let update: Update = Box::new(move |values| {
            let mut whole: T = value::join(values)?;
            let before = value::split(&whole)?;
            change(&mut whole);
            apply(values, &before, value::split(&whole)?);
            Ok(())
        });
        self.change(Change::Update(update)).await
    }
}

fn apply(values: &mut Values, before: &Values, after: Values) {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        values.remove(key);
    }
    for (key, value) in after {
        if before.get(&key) != Some(&value) {
            values.insert(key, value);
        }
    }
}
