//! What keeps a write that its caller gave up from overtaking a later one, for backends that do more than one thing at a
//! time.
//!
//! Connections, and threads, work side by side. A caller who drops a put and puts again must find the second value, so
//! whoever writes where a dropped operation of this handle still does waits for it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_core::Result<()> {
//! use larder_core::order::{Keys, Order};
//! use larder_core::{Key, Namespace};
//!
//! let order = Order::default();
//! let key = Key::new(&Namespace::new("shop")?, ["k"])?;
//! let (waiting, mut running) = order.begin(Keys::one(&key));
//! let task = tokio::spawn(async move {
//!     running.turn().await;
//!     // the write
//! });
//! // Dropped before this, it is waited for by the next who writes under the key.
//! task.await.unwrap();
//! waiting.answered();
//! # Ok(())
//! # }
//! ```

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Key;

/// Which keys an operation writes: a bit for each sixty-fourth part of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys(u64);

impl Keys {
    /// It writes nothing.
    pub const NONE: Keys = Keys(0);
    /// It writes anywhere.
    pub const ALL: Keys = Keys(u64::MAX);

    /// It writes under one key.
    pub fn one(key: &Key) -> Self {
        Keys::of(std::iter::once(key))
    }

    /// It writes under these.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let bit = |key: &Key| {
            let hash = |sum: u8, byte: &u8| sum.wrapping_mul(31).wrapping_add(*byte);
            1_u64 << (key.as_ref().as_bytes().iter().fold(0, hash) % 64)
        };
        Keys(keys.into_iter().fold(0, |all, key| all | bit(key)))
    }

    fn meets(self, other: Keys) -> bool {
        self.0 & other.0 != 0
    }
}

/// The operations that were dropped and still run.
#[derive(Debug, Default)]
pub struct Order(Mutex<Vec<(Keys, watch::Receiver<()>)>>);

/// Held while somebody waits for an operation. Dropping it unanswered is giving the operation up.
#[derive(Debug)]
pub struct Waiting<'a> {
    order: &'a Order,
    keys: Keys,
    running: Option<watch::Receiver<()>>,
}

/// Held by an operation; its end is known when this goes.
#[derive(Debug, Default)]
pub struct Running {
    _end: Option<watch::Sender<()>>,
    earlier: Vec<watch::Receiver<()>>,
}

impl Order {
    /// Begins an operation: what its caller holds, and what it holds itself.
    pub fn begin(&self, keys: Keys) -> (Waiting<'_>, Running) {
        if keys == Keys::NONE {
            return (Waiting { order: self, keys, running: None }, Running::default());
        }
        let (end, running) = watch::channel(());
        let mut dropped = self.0.lock();
        dropped.retain(|(_, end)| end.has_changed().is_ok());
        let met = dropped.iter().filter(|(theirs, _)| theirs.meets(keys));
        let earlier = met.map(|(_, end)| end.clone()).collect();
        (
            Waiting { order: self, keys, running: Some(running) },
            Running { _end: Some(end), earlier },
        )
    }
}

impl Running {
    /// Waits for those that were dropped before this one began: no longer than they take.
    ///
    /// Dropping the future harms nobody.
    pub async fn turn(&mut self) {
        for mut end in self.earlier.drain(..) {
            // Nothing is ever sent: it fails when the other end has gone.
            while end.changed().await.is_ok() {}
        }
    }
}

impl Waiting<'_> {
    /// It has come to its end.
    pub fn answered(mut self) {
        self.running = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.order.0.lock().push((self.keys, running));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;
    use crate::Namespace;

    fn key(part: &str) -> Key {
        Key::new(&Namespace::new("shop").unwrap(), [part]).unwrap()
    }

    #[tokio::test]
    async fn what_was_dropped_is_waited_for_by_those_who_write_the_same() {
        let order = Order::default();
        let (a, b) = (Keys::one(&key("a")), Keys::one(&key("b")));
        assert!(!a.meets(b) && a.meets(Keys::ALL) && !Keys::NONE.meets(Keys::ALL));
        let (waiting, first) = order.begin(a);
        // While somebody waits for it, it is his business.
        assert!(order.begin(a).1.earlier.is_empty());
        drop(waiting);
        let dropped = order.0.lock().len();
        drop(order.begin(Keys::NONE));
        assert_eq!(order.0.lock().len(), dropped, "nobody waits for a read");
        assert!(order.begin(b).1.earlier.is_empty());
        let (_waiting, mut second) = order.begin(a);
        let turn = tokio::spawn(async move { second.turn().await });
        yield_now().await;
        assert!(!turn.is_finished());
        drop(first);
        turn.await.unwrap();
        assert!(order.begin(Keys::ALL).1.earlier.is_empty(), "it is forgotten");
        let (waiting, _running) = order.begin(a);
        waiting.answered();
        assert!(order.begin(a).1.earlier.is_empty());
    }
}
