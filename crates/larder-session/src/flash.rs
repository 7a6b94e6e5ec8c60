//! Messages that are shown once.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::session::Session;

/// A message for the next page that the visitor sees; see [`Session::flash`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flash {
    /// What kind of message it is, for the page's colours.
    pub level: Level,
    /// What it says. Not escaped: that is the template's business.
    pub text: String,
    // Tells it from others of the same words, so that what one page has shown does not take away what came meanwhile.
    id: u64,
}

/// What kind of message a [`Flash`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Level {
    /// Something worth knowing.
    Info,
    /// It worked.
    Success,
    /// Something to think about.
    Warning,
    /// It did not work.
    Error,
}

impl Level {
    /// In lower case, for a class in a style sheet.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Success => "success",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// The key under which messages wait.
const KEY: &str = "flashes";

impl Session {
    /// Leaves a message for the next page that [takes](Session::take_flashes) it: "Saved." before a redirect. Messages
    /// wait under the key `flashes`, count among the session's bytes, and requests at the same time lose none.
    ///
    /// ```
    /// use larder_session::{Level, Result, Session};
    ///
    /// async fn save(session: Session) -> Result<()> {
    ///     session.flash(Level::Success, "Saved.").await
    ///     // and a redirect
    /// }
    ///
    /// async fn page(session: Session) -> Result<String> {
    ///     let flashes = session.take_flashes().await?;
    ///     Ok(flashes.iter().map(|flash| format!("{}: {}\n", flash.level.as_str(), flash.text)).collect())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`insert`](Session::insert).
    pub async fn flash(&self, level: Level, text: impl Into<String>) -> Result<()> {
        let flash = Flash { level, text: text.into(), id: rand::random() };
        let add = move |flashes: &mut Vec<Flash>| flashes.push(flash.clone());
        self.update(KEY, add).await.map(drop)
    }

    /// The messages that wait, the oldest first, and none of them again. Without any, nothing is written.
    ///
    /// Those that another request leaves meanwhile wait for the next page.
    ///
    /// # Errors
    ///
    /// As [`take`](Session::take).
    pub async fn take_flashes(&self) -> Result<Vec<Flash>> {
        let taken: Vec<Flash> = self.get(KEY).await?.unwrap_or_default();
        if !taken.is_empty() {
            let shown: Vec<u64> = taken.iter().map(|flash| flash.id).collect();
            self.retain(KEY, move |flash: &Flash| !shown.contains(&flash.id)).await?;
        }
        Ok(taken)
    }
}
