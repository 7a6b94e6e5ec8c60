//! A near store before another one.

mod message;
mod near;
mod node;
mod store;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::order::Order;
use larder_core::{Backend, Bus, Error, ErrorKind, Result};
use larder_memory::{MemoryBackend, Usage};
use tokio::task::AbortHandle;

pub(crate) use url::NearUrl;

use near::Near;
use node::Node;

/// Keeps in this process's memory what was read from a server, so that reading it again takes no round trip, decodes
/// nothing and copies nothing; a [`Bus`] between the nodes says what has changed. It is a backend like any other:
///
/// ```no_run
/// use larder_cache::Cache;
///
/// # async fn f() -> larder_core::Result<()> {
/// // Memory before Redis, which also carries the messages.
/// let cache = Cache::connect("tiered:memory://?max_bytes=64MiB|redis://127.0.0.1/1?namespace=shop").await?;
/// # Ok(()) }
/// ```
///
/// # What a reader may see
///
/// | after | on the node that did it | on another |
/// | --- | --- | --- |
/// | `set`, `delete`, `touch`, `incr` | the new state, once the call has returned | the new state, once the message has arrived |
/// | `invalidate_tag`, of however many entries | nothing of it, once the call has returned | nothing of it, once the message has arrived |
/// | `clear` | nothing of it | nothing of it once the message has arrived, and what the store itself still shows for its [`clear_delay`] |
/// | a message is lost | | the old, until the sender's next message: a gap in its numbers, and nothing near is used any more; at most a heartbeat |
/// | the bus is down, or silent | what the store says | what the store says: the near store is not used. What was told to no one is told when the bus is back |
/// | a node that writes and cannot tell | the new state | the old, for at most the ceiling |
/// | a call that failed, of which nobody knows whether the store has done it | what the store says, or the old for at most the ceiling if the store does it later | the same |
/// | the store loses its data | the old, for at most the ceiling | the same |
///
/// Nothing near is older than the ceiling, 30 s unless set; nothing outlives its lifetime in the store. A value is kept
/// near when it is read, never when it is written, and a read that began before something happened to its key is not
/// kept. A value with tags is kept when this node knows their last invalidations: at once where the reader names them,
/// with the second read otherwise. Sessions, locks and what is only counted are not kept.
///
/// # Cancel safety
///
/// Dropping the future of a write leaves it running, so that it is told to the others when it is done.
///
/// [`clear_delay`]: larder_core::Abilities::clear_delay
pub struct Tiered<B>(Arc<Inner<B>>);

struct Inner<B> {
    remote: B,
    near: Arc<Near>,
    node: Option<Arc<Node>>,
    tasks: Vec<AbortHandle>,
    writes: Order,
}

impl<B> Drop for Inner<B> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl<B> Clone for Tiered<B> {
    fn clone(&self) -> Self {
        Tiered(self.0.clone())
    }
}

impl<B: Backend> Tiered<B> {
    /// Configures a near store before that one.
    pub fn builder(remote: B) -> TieredBuilder<B> {
        TieredBuilder {
            remote,
            near: MemoryBackend::builder(),
            ceiling: Duration::from_secs(30),
            heartbeat: Duration::from_secs(1),
        }
    }

    /// The store behind.
    pub fn remote(&self) -> &B {
        &self.0.remote
    }

    /// What is kept near, what may not be used any more and was not freed yet included.
    pub fn near_usage(&self) -> Usage {
        self.0.near.usage()
    }

    /// Whether the near store is used: messages of other nodes arrive.
    pub fn is_near_used(&self) -> bool {
        self.0.near.hears()
    }
}

impl<B> fmt::Debug for Tiered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("near_used", &self.0.near.hears()).finish_non_exhaustive()
    }
}

/// Configures a [`Tiered`] store.
#[must_use]
#[derive(Debug)]
pub struct TieredBuilder<B> {
    remote: B,
    near: larder_memory::Builder,
    ceiling: Duration,
    heartbeat: Duration,
}

impl<B: Backend> TieredBuilder<B> {
    /// The near store's sizes. 64 MiB in all unless set. Its clock is the other store's.
    pub fn near(mut self, near: larder_memory::Builder) -> Self {
        self.near = near;
        self
    }

    /// How old what is near may become before the store is asked again. 30 s unless set; at least 10 ms.
    pub fn ceiling(mut self, ceiling: Duration) -> Self {
        self.ceiling = ceiling;
        self
    }

    /// How often this node tells that it lives, so that others notice lost messages. 1 s unless set; at least 10 ms,
    /// and the same on all nodes. After three that are missing a node is taken for gone.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Makes it, with a bus that carries what changed between all nodes that share the store.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn with_bus(self, bus: impl Bus) -> Result<Tiered<B>> {
        let heartbeat = self.heartbeat;
        if heartbeat < SHORTEST {
            return Err(wrong("heartbeat must be at least 10ms"));
        }
        let (remote, near) = self.parts(false)?;
        let node = Arc::new(Node::new(near.clone(), heartbeat));
        let bus = Arc::new(bus);
        let sending = {
            let (node, bus) = (node.clone(), bus.clone());
            tokio::spawn(async move { node.send(&*bus).await })
        };
        let listening = {
            let node = node.clone();
            tokio::spawn(async move { node.listen(&*bus).await })
        };
        let watching = {
            let node = node.clone();
            tokio::spawn(async move { node.watch().await })
        };
        let tasks = [sending, listening, watching].iter().map(|task| task.abort_handle()).collect();
        Ok(Tiered(Arc::new(Inner {
            remote,
            near,
            node: Some(node),
            tasks,
            writes: Order::default(),
        })))
    }

    /// Makes it without a bus: on other nodes what is near may be as old as the [ceiling](TieredBuilder::ceiling),
    /// whatever was written, deleted or invalidated meanwhile. Choose a short one, a second or two.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    pub fn without_bus(self) -> Result<Tiered<B>> {
        let (remote, near) = self.parts(true)?;
        Ok(Tiered(Arc::new(Inner {
            remote,
            near,
            node: None,
            tasks: Vec::new(),
            writes: Order::default(),
        })))
    }

    fn parts(self, hears: bool) -> Result<(B, Arc<Near>)> {
        let abilities = self.remote.abilities();
        if abilities.local {
            return Err(wrong("a near store before one that is in memory itself saves nothing"));
        }
        if !abilities.read_delay.is_zero() {
            return Err(wrong(
                "a near store would keep what a replica is late to forget; read the store behind it from its primary (read=primary)",
            ));
        }
        if self.ceiling < SHORTEST {
            return Err(wrong("ceiling must be at least 10ms; without a near store there is none"));
        }
        let memory = self.near.clock(self.remote.clock().clone()).build()?;
        let near = Near::new(memory, self.ceiling, abilities.clear_delay, hears);
        Ok((self.remote, Arc::new(near)))
    }
}

const SHORTEST: Duration = Duration::from_millis(10);

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend("tiered")
}
