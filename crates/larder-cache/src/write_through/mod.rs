//! A cache before a durable store.

mod copies;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::order::Order;
use larder_core::{Backend, Error, ErrorKind, Result};

use copies::Copies;

/// Two stores: the durable one has everything and decides everything; the cache has copies of what was read lately. It
/// is a backend like any other:
///
/// ```
/// use larder_cache::{Cache, WriteThrough};
/// use larder_memory::MemoryBackend;
/// # use larder_memory::MemoryBackend as PostgresBackend;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let postgres = PostgresBackend::default();
/// let store = WriteThrough::builder(MemoryBackend::default(), postgres).build()?;
/// let cache = Cache::builder(store).namespace("shop")?.build();
/// cache.set("greeting", "hello".to_owned()).await?;
/// assert!(cache.contains("greeting").await?);
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
///
/// # What a reader may see
///
/// * A write is done when the durable store has it. Then its copy is dropped; a read makes the next one, and one that
///   began before the write does not.
/// * A cache that is gone, slow or empty costs round trips to the durable store and loses nothing. What was written
///   meanwhile is read from the durable store on the node that wrote it.
/// * A durable store that is gone is an error for all that is written and for all that is not copied.
/// * A node that could not reach the cache has dropped no copy there: other nodes may read it until it is as old as the
///   [ceiling](WriteThroughBuilder::ceiling), 30 s unless set. A cache in the memory of one of several processes hears of
///   nothing that others write: there, this is always so.
/// * A removal and a clear that the cache did not confirm are errors: the durable store has done them, and the copy may
///   be read elsewhere until the ceiling. Doing them again is safe.
/// * What a node still sees for a durable store's [`clear_delay`](larder_core::Abilities::clear_delay) after a clear, it may
///   copy, and the copy may be read until the ceiling.
///
/// What carries tags, counters and locks are not copied. An entry's age is counted from when its copy was made, and its
/// end is that of the durable store.
///
/// # Cancel safety
///
/// Dropping the future of a write leaves it running, so that the copy is dropped when it is done.
pub struct WriteThrough<C, D>(Arc<Inner<C, D>>);

struct Inner<C, D> {
    copies: Copies<C>,
    durable: D,
    writes: Order,
}

impl<C, D> Clone for WriteThrough<C, D> {
    fn clone(&self) -> Self {
        WriteThrough(self.0.clone())
    }
}

impl<C: Backend, D: Backend> WriteThrough<C, D> {
    /// Configures a cache before a durable store. Both need the same clock.
    pub fn builder(cache: C, durable: D) -> WriteThroughBuilder<C, D> {
        WriteThroughBuilder {
            cache,
            durable,
            ceiling: Duration::from_secs(30),
            patience: Duration::from_millis(50),
        }
    }

    /// The cache.
    pub fn cache(&self) -> &C {
        self.0.copies.store()
    }

    /// The durable store.
    pub fn durable(&self) -> &D {
        &self.0.durable
    }
}

impl<C, D> fmt::Debug for WriteThrough<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteThrough").finish_non_exhaustive()
    }
}

/// Configures a [`WriteThrough`].
#[must_use]
#[derive(Debug)]
pub struct WriteThroughBuilder<C, D> {
    cache: C,
    durable: D,
    ceiling: Duration,
    patience: Duration,
}

impl<C: Backend, D: Backend> WriteThroughBuilder<C, D> {
    /// How old a copy may become before the durable store is asked again. 30 s unless set; at least 10 ms.
    pub fn ceiling(mut self, ceiling: Duration) -> Self {
        self.ceiling = ceiling;
        self
    }

    /// How long one operation of the cache may take; then it is taken for gone. 50 ms unless set: less than half of what
    /// a cache gives to an operation in all, so that the durable store has time to answer too.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    pub fn build(self) -> Result<WriteThrough<C, D>> {
        let WriteThroughBuilder { cache, durable, ceiling, patience } = self;
        if !cache.clock().is_same(durable.clock()) {
            return Err(wrong("the two stores of a write-through need the same clock"));
        }
        if ceiling < SHORTEST || patience < SHORTEST {
            return Err(wrong("ceiling and patience must be at least 10ms"));
        }
        if !durable.abilities().read_delay.is_zero() {
            return Err(wrong(
                "the cache would keep what a replica is late to forget; read the durable store from its primary (read=primary)",
            ));
        }
        if durable.abilities().splits {
            return Err(wrong(
                "a store that is in more than one place decides nothing; name the durable one itself",
            ));
        }
        let copies = Copies::new(cache, ceiling, patience);
        Ok(WriteThrough(Arc::new(Inner { copies, durable, writes: Order::default() })))
    }
}

const SHORTEST: Duration = Duration::from_millis(10);

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend("write-through")
}
