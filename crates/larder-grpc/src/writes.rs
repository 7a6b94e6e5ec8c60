//! What calls that change something drop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use larder_cache::Store;
use larder_core::Tag;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::status;

/// The tags that a call drops unless it is known to have failed.
///
/// Whoever drops this while the call is on its way does not know whether it happened; then the tags are dropped as well.
pub(crate) struct Drops {
    store: Store,
    tags: Vec<Tag>,
    state: State,
}

enum State {
    /// What becomes of the call is not known yet.
    Open,
    Dropping(JoinHandle<()>),
    Done,
}

impl Drops {
    pub(crate) fn new(store: Store, tags: Vec<Tag>) -> Self {
        Drops { store, tags, state: State::Open }
    }

    /// More tags, from the handler.
    pub(crate) fn also(&mut self, tags: &[String]) {
        for tag in tags {
            match Tag::new(tag) {
                Ok(tag) => self.tags.push(tag),
                Err(error) => {
                    tracing::warn!(target: "larder_grpc", "a tag cannot be dropped: {error}");
                }
            }
        }
    }

    /// The call's status, if it told one.
    pub(crate) fn answered(&mut self, code: Option<u32>) {
        if matches!(self.state, State::Open) && code.is_some_and(|code| code != status::OK) {
            self.state = State::Done;
        }
    }

    /// Drops the tags, unless the call failed, and waits for it.
    pub(crate) fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.begin();
        if let State::Dropping(dropping) = &mut self.state {
            let _ = ready!(Pin::new(dropping).poll(cx));
            self.state = State::Done;
        }
        Poll::Ready(())
    }

    // In a task of its own: a caller that goes away does not stop it.
    fn begin(&mut self) {
        if !matches!(self.state, State::Open) {
            return;
        }
        self.state = State::Done;
        if self.tags.is_empty() {
            return;
        }
        // Without a runtime the program is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (store, tags) = (self.store.clone(), std::mem::take(&mut self.tags));
        let dropping = async move {
            if let Err(error) = store.invalidate(&tags).await {
                tracing::warn!(
                    target: "larder_grpc",
                    kind = error.kind().as_str(),
                    "an invalidation was not confirmed"
                );
            }
        };
        self.state = State::Dropping(runtime.spawn(dropping.in_current_span()));
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        self.begin();
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drops({} tags)", self.tags.len())
    }
}
