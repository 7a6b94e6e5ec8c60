//! Another store stands in for one that is gone.

mod missed;
mod store;
mod switch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Backend, Error, ErrorKind, Result, Ttl};
use parking_lot::Mutex;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use switch::Switch;

/// Two stores: the first one is asked, and while it is gone the second one stands in for it. It is a backend like any
/// other:
///
/// ```
/// use larder_cache::{Cache, Failover};
/// use larder_memory::MemoryBackend;
/// # use larder_memory::MemoryBackend as RedisBackend;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let redis = RedisBackend::default();
/// let store = Failover::builder(redis, MemoryBackend::default()).build()?;
/// let cache = Cache::builder(store).namespace("shop")?.build();
/// cache.set("greeting", "hello".to_owned()).await?;
/// assert!(cache.contains("greeting").await?);
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
///
/// # When it goes over, and when it comes back
///
/// An operation of the first store has failed when it says so or gives no answer within the
/// [patience](FailoverBuilder::patience). After [three](FailoverBuilder::threshold) of them in a row, every operation
/// goes to the second one, the third of them included. From then on the first one is asked every
/// [half second](FailoverBuilder::probe) whether it would write; when it has said so [three
/// times](FailoverBuilder::settled) in a row, it is told what it has missed, and is in charge again.
///
/// # What a reader may see
///
/// * What is in the second store from an earlier time is never seen: it is emptied when it takes over, namespace by
///   namespace. Where several nodes share it, the last one to go over empties it for all of them.
/// * Whatever was written, deleted, invalidated or cleared meanwhile on this node is removed from the first store before
///   it is asked again. Counters start anew.
/// * A node that still reaches the first store does not hear what happens on one that does not, nor the other way round,
///   until that one is back. What stands in therefore lives at most for the [ceiling](FailoverBuilder::ceiling), and a
///   change that another node has made is seen after that time at the latest.
/// * A process that ends before the first store is back takes along what that one has missed.
///
/// So it is for what can be computed again. Locks and "only if absent" hold within one of the stores, not across the
/// change from one to the other, and [`Abilities::splits`](larder_core::Abilities::splits) says so: sessions refuse to
/// live here.
///
/// # Cancel safety
///
/// As the two stores: what was asked happens wholly or not at all.
pub struct Failover<P, S>(Arc<Inner<P, S>>);

struct Inner<P, S> {
    primary: P,
    standby: S,
    switch: Switch,
    limits: Limits,
    // Looks after the first store while it is gone.
    keeper: Mutex<Option<JoinHandle<()>>>,
    // Held while the first store is told the last of what it has missed.
    telling: RwLock<()>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    patience: Duration,
    threshold: u32,
    probe: Duration,
    settled: u32,
    ceiling: Option<Duration>,
}

impl<P, S> Drop for Inner<P, S> {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut() {
            keeper.abort();
        }
    }
}

impl<P, S> Clone for Failover<P, S> {
    fn clone(&self) -> Self {
        Failover(self.0.clone())
    }
}

impl<P: Backend, S: Backend> Failover<P, S> {
    /// Configures a store, and another one that stands in for it. Both need the same clock.
    pub fn builder(primary: P, standby: S) -> FailoverBuilder<P, S> {
        let limits = Limits {
            patience: Duration::from_millis(50),
            threshold: 3,
            probe: Duration::from_millis(500),
            settled: 3,
            ceiling: Some(Duration::from_secs(30)),
        };
        FailoverBuilder { primary, standby, limits }
    }

    /// The first store.
    pub fn primary(&self) -> &P {
        &self.0.primary
    }

    /// The second store.
    pub fn standby(&self) -> &S {
        &self.0.standby
    }

    /// Whether the second store stands in at this moment.
    pub fn is_over(&self) -> bool {
        self.0.switch.is_over()
    }
}

impl<P, S> fmt::Debug for Failover<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover").field("over", &self.0.switch.is_over()).finish_non_exhaustive()
    }
}

/// Configures a [`Failover`].
#[must_use]
#[derive(Debug)]
pub struct FailoverBuilder<P, S> {
    primary: P,
    standby: S,
    limits: Limits,
}

impl<P: Backend, S: Backend> FailoverBuilder<P, S> {
    /// How long one operation of the first store may take. 50 ms unless set: less than half of what a cache gives to an
    /// operation in all, so that the second store has time to answer too. A caller that gives an operation up after half
    /// of it counts it as a failure.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.limits.patience = patience;
        self
    }

    /// After how many failures in a row the second store takes over. 3 unless set; at least 1.
    pub fn threshold(mut self, failures: u32) -> Self {
        self.limits.threshold = failures;
        self
    }

    /// How often the first store is asked whether it is back. 500 ms unless set; at least 10 ms.
    pub fn probe(mut self, every: Duration) -> Self {
        self.limits.probe = every;
        self
    }

    /// How many times in a row it must say so. 3 unless set; at least 1.
    pub fn settled(mut self, times: u32) -> Self {
        self.limits.settled = times;
        self
    }

    /// How long anything lives in the second store at most. 30 s unless set; at least 10 ms. With [`Ttl::Forever`] it
    /// lives as long as it would in the first one: for a second store that no node uses while another one uses the first.
    pub fn ceiling(mut self, ceiling: impl Into<Ttl>) -> Self {
        self.limits.ceiling = ceiling.into().resolve(Ttl::STANDARD);
        self
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    pub fn build(self) -> Result<Failover<P, S>> {
        let FailoverBuilder { primary, standby, limits } = self;
        if !primary.clock().is_same(standby.clock()) {
            return Err(wrong("the two stores of a failover need the same clock"));
        }
        if limits.threshold == 0 || limits.settled == 0 {
            return Err(wrong("threshold and settled must be at least 1"));
        }
        let times = [limits.patience, limits.probe].into_iter().chain(limits.ceiling);
        if times.into_iter().any(|time| time < SHORTEST) {
            return Err(wrong("patience, probe and ceiling must be at least 10ms"));
        }
        let switch = Switch::new(limits.threshold);
        let (keeper, telling) = (Mutex::new(None), RwLock::new(()));
        Ok(Failover(Arc::new(Inner { primary, standby, switch, limits, keeper, telling })))
    }
}

const SHORTEST: Duration = Duration::from_millis(10);

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend("failover")
}
