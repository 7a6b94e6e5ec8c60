//! Messages between the nodes that share a store.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::Result;

/// Carries short messages from each node to all nodes, the sender included.
///
/// What is sent is never a value: only that something changed. The users of a bus number their messages, so losses are
/// noticed; what a bus has to promise is to tell when it may have lost some ([`Heard::Lost`]), as far as it knows.
pub trait Bus: Send + Sync + 'static {
    /// Sends a message to every node that listens.
    ///
    /// # Errors
    ///
    /// When it cannot be said that it was sent.
    fn publish(&self, message: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Listens until the future is dropped, and connects again by itself.
    ///
    /// `hear` is called for whatever happens, in order, and returns at once. A connection on which nothing was heard for
    /// `silence` is to be given up: users send something of their own more often than that.
    fn listen(
        &self,
        silence: Duration,
        hear: impl FnMut(Heard) + Send,
    ) -> impl Future<Output = ()> + Send;
}

/// What one who listens hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// From now on every message arrives, until a [`Lost`](Heard::Lost).
    Connected,
    /// A message.
    Message(Bytes),
    /// Messages may be missing from now on.
    Lost,
}
