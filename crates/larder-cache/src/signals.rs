//! What happens in the application, and what is to be done in the cache then.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use larder_core::{Error, ErrorKind, Result};
use parking_lot::RwLock;
use tracing::Instrument;

use crate::Cache;
use crate::cache::Inner;

type Event = dyn Any + Send + Sync;
type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
type Receiver = Arc<dyn Fn(&Cache, &Event) -> Running + Send + Sync>;

/// The receivers of one engine, whatever handle they were registered with.
#[derive(Default)]
pub(crate) struct Signals(RwLock<Registry>);

#[derive(Default)]
struct Registry {
    next: u64,
    receivers: HashMap<TypeId, Vec<(u64, Receiver)>>,
}

/// A receiver that is registered; made by [`Cache::on`]. Dropping it changes nothing: the receiver stays for as long as
/// the cache does, unless it is [removed](Subscription::remove).
pub struct Subscription {
    cache: Cache,
    event: TypeId,
    number: u64,
}

impl Cache {
    /// Registers what is to be done in the cache when something of that type happens: what Django calls a receiver of
    /// `post_save`. Whoever changes the data [sends](Cache::send) the event, and need not know what is cached of it.
    ///
    /// All handles on one store share their receivers; each receiver gets a handle like the one that it was registered with.
    ///
    /// ```
    /// use larder_cache::{Cache, Options};
    ///
    /// struct ProductSaved { id: u64 }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// cache.on(|cache, saved: &ProductSaved| {
    ///     let tags = [format!("product:{}", saved.id), "products".to_owned()];
    ///     async move { cache.invalidate_tags(tags).await.map(drop) }
    /// });
    ///
    /// cache.set_with("page", "…".to_owned(), Options::new().tag("product:7")).await?;
    /// cache.send(ProductSaved { id: 7 }).await?;
    /// assert!(!cache.contains("page").await?);
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    pub fn on<E, F, Fut>(&self, receiver: F) -> Subscription
    where
        E: Send + Sync + 'static,
        F: Fn(Cache, &E) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        // Without the engine, which holds the receiver.
        let Inner { store, codec, strict, version } = self.inner().clone();
        let namespace = store.namespace().clone();
        let receive: Receiver = Arc::new(move |sender, event| {
            // Registered under the event's type, so it is one.
            let Some(event) = event.downcast_ref::<E>() else { return Box::pin(async { Ok(()) }) };
            let store = sender.store().in_namespace(namespace.clone());
            let handle = Inner { store, codec, strict, version: version.clone() };
            Box::pin(receiver(Cache::from(handle), event))
        });
        let event = TypeId::of::<E>();
        let mut registry = self.store().signals().0.write();
        registry.next += 1;
        let number = registry.next;
        registry.receivers.entry(event).or_default().push((number, receive));
        Subscription { cache: self.clone(), event, number }
    }

    /// Tells that something has happened, and waits until every receiver has done its part, one after the other in the
    /// order in which they were registered. Send it when the change is committed: not before, since what is computed
    /// until then shows the old.
    ///
    /// # Errors
    ///
    /// The first receiver's that failed or panicked; the others have run all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the receivers running.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn send<E: Send + Sync + 'static>(&self, event: E) -> Result<()> {
        let receivers = {
            let registry = self.store().signals().0.read();
            registry.receivers.get(&TypeId::of::<E>()).cloned().unwrap_or_default()
        };
        if receivers.is_empty() {
            return Ok(());
        }
        let cache = self.clone();
        let running = async move {
            let mut result = Ok(());
            for (_, receiver) in receivers {
                let running = AssertUnwindSafe(async { receiver(&cache, &event).await });
                let done = running.catch_unwind().await.unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Other, "a receiver of a signal panicked"))
                });
                if let Err(error) = &done {
                    tracing::error!(kind = error.kind().as_str(), "a receiver of a signal failed");
                }
                result = result.and(done);
            }
            result
        };
        match tokio::spawn(running.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "the runtime is shutting down")),
        }
    }
}

impl Subscription {
    /// Removes the receiver. One that is running goes on to its end.
    pub fn remove(self) {
        let mut registry = self.cache.store().signals().0.write();
        if let Some(receivers) = registry.receivers.get_mut(&self.event) {
            receivers.retain(|(number, _)| *number != self.number);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("number", &self.number).finish_non_exhaustive()
    }
}
