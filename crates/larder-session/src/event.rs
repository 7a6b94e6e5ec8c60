//! What is worth counting.

use std::fmt;
use std::sync::Arc;

/// Something worth counting: floods, guesses, losses. For the hook of
/// [`SessionLayer::on_event`](crate::SessionLayer::on_event); `tracing` hears of it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A session began. Many of them from one place are somebody filling the store.
    Began,
    /// What a handler changed was not saved, or who its visitor is could not be read; the response said so.
    Failed,
    /// A well-formed id that no record has: it ended long ago, or somebody guesses.
    UnknownId,
    /// The id of a session that was destroyed or rotated a moment ago.
    DeadId,
    /// A record whose lifetime is over, though the store still has it.
    Expired,
    /// A cookie that was not sealed by any key that opens now, or not for this name: somebody tries, or a key was taken
    /// away.
    Forged,
    /// A session that was revoked: by its user, for its user, or with its whole epoch.
    Revoked,
    /// A request that changes something, and was sent by another site's page or has no token of this visitor's.
    CrossSite,
    /// A cookie that is no id, or more cookies of its name than are looked at.
    Malformed,
    /// Several cookies of the name, with a session each: none of them is used.
    Ambiguous,
    /// A record that is damaged, or of a version that this one cannot read.
    Undecodable,
}

#[derive(Clone, Default)]
pub(crate) struct Hook(pub(crate) Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Hook {
    pub(crate) fn tell(&self, event: Event) {
        match event {
            Event::Began => tracing::debug!("a session began"),
            // The error is told where it is known.
            Event::Failed => {}
            Event::CrossSite => tracing::debug!("a request of another site was refused"),
            Event::Undecodable => tracing::warn!(?event, "a session's record cannot be read"),
            _ => tracing::debug!(?event, "no session for the cookie that came"),
        }
        if let Some(hook) = &self.0 {
            hook(event);
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Hook(set)" } else { "Hook(none)" })
    }
}
