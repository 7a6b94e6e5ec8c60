//! What the suite knows about the backend under test.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{Abilities, Backend, Clock, Key, ManualClock, Namespace, Peek, Ttl};

type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Make<B> = Box<dyn Fn() -> Job<B> + Send + Sync>;
type Plant = Box<dyn Fn(Key, Bytes) -> Job<()> + Send + Sync>;

/// One backend under test, with what the suite needs to test it to the end.
///
/// Make a new one for every check. Its two namespaces are random, so checks can run side by side on one server.
///
/// ```
/// use larder_core::Clock;
/// use larder_testkit::{Harness, reference::Reference};
///
/// let (clock, hands) = Clock::manual();
/// let reference = Reference::new(clock);
/// let store = reference.clone();
/// let harness = Harness::new(reference)
///     .with_hands(hands)
///     .with_plant(move |key, bytes| {
///         let store = store.clone();
///         async move { store.plant(key, bytes) }
///     });
/// assert_ne!(harness.namespace(), harness.other());
/// ```
pub struct Harness<B> {
    backend: Arc<B>,
    abilities: Abilities,
    namespace: Namespace,
    other: Namespace,
    hands: Option<ManualClock>,
    lag: Duration,
    sizes: Sizes,
    second: Option<Make<B>>,
    plant: Option<Plant>,
    restart: Option<Make<()>>,
    small: Option<(usize, Make<B>)>,
    round_trips: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
    guards: Vec<Box<dyn Any + Send + Sync>>,
}

/// How much of it: the checks that repeat something at random do so this often.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rounds of each race between two writers.
    pub races: usize,
    /// Futures that are dropped before they are ready.
    pub drops: usize,
}

impl Sizes {
    /// For tests of the suite itself.
    pub const TINY: Sizes = Sizes { races: 50, drops: 400 };

    // Over the races of the suite: 10^5 in memory, 10^4 over a network.
    fn usual(local: bool) -> Self {
        let set = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
        Sizes {
            races: set("LARDER_RACES").unwrap_or(if local { 20_000 } else { 2_000 }),
            drops: set("LARDER_DROPS").unwrap_or(20_000),
        }
    }
}

impl<B: Backend> Harness<B> {
    /// A harness with nothing but the backend.
    ///
    /// The random checks have their usual size, unless the environment sets `LARDER_RACES` or `LARDER_DROPS`.
    pub fn new(backend: B) -> Self {
        let abilities = backend.abilities();
        let id: u64 = rand::random();
        // One name begins with the other: a backend that cuts names short or scans by their start is caught.
        let name = |suffix: &str| Namespace::new(&format!("kit-{id:016x}{suffix}"));
        Harness {
            sizes: Sizes::usual(abilities.local),
            backend: Arc::new(backend),
            abilities,
            namespace: name("").expect("the name has allowed characters only"),
            other: name("-2").expect("the name has allowed characters only"),
            hands: None,
            lag: Duration::ZERO,
            second: None,
            plant: None,
            restart: None,
            small: None,
            round_trips: None,
            guards: Vec::new(),
        }
    }

    /// The hands of the backend's clock. Demanded of backends that declare `follows_clock`.
    #[must_use]
    pub fn with_hands(mut self, hands: ManualClock) -> Self {
        self.hands = Some(hands);
        self
    }

    /// How to make another client of the same store. Demanded of backends that declare `shared`.
    #[must_use]
    pub fn with_second<F>(mut self, second: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = B> + Send + 'static,
    {
        self.second = Some(Box::new(move || Box::pin(second())));
        self
    }

    /// How to write raw bytes to where the backend looks for a key. Without it, nothing foreign is tried.
    #[must_use]
    pub fn with_plant<F>(mut self, plant: impl Fn(Key, Bytes) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.plant = Some(Box::new(move |key, bytes| Box::pin(plant(key, bytes))));
        self
    }

    /// How to restart the store. Demanded of backends that declare `durable`.
    #[must_use]
    pub fn with_restart<F>(mut self, restart: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.restart = Some(Box::new(move || Box::pin(restart())));
        self
    }

    /// How to make a backend that has room for at most so many entries with bodies of 1 KiB.
    #[must_use]
    pub fn with_small<F>(
        mut self,
        entries: usize,
        small: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = B> + Send + 'static,
    {
        self.small = Some((entries, Box::new(move || Box::pin(small()))));
        self
    }

    /// Tells how many round trips the backend has made so far. Without it, they are not counted.
    #[must_use]
    pub fn with_round_trips(mut self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.round_trips = Some(Box::new(count));
        self
    }

    /// How long a second client may go on seeing what was there before a write of the first one: the documented bound.
    /// Zero unless set.
    #[must_use]
    pub fn with_lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// How often the random checks try.
    #[must_use]
    pub fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// Keeps something until the check has ended: a server, a temporary directory.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend, for a task.
    pub fn shared(&self) -> Arc<B> {
        self.backend.clone()
    }

    /// What the backend declares.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// The backend's clock.
    pub fn clock(&self) -> &Clock {
        self.backend.clock()
    }

    /// This harness's own namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Another one, whose name begins with the first one's.
    pub fn other(&self) -> &Namespace {
        &self.other
    }

    /// A key of the own namespace.
    pub fn key(&self, part: impl AsRef<[u8]>) -> Key {
        Key::new(&self.namespace, [b"kit".as_slice(), part.as_ref()]).expect("the key is short")
    }

    /// The same key in the other namespace.
    pub fn other_key(&self, part: impl AsRef<[u8]>) -> Key {
        Key::new(&self.other, [b"kit".as_slice(), part.as_ref()]).expect("the key is short")
    }

    pub(crate) fn peek(&self, key: &Key) -> Peek {
        self.backend.peek(key.as_ref(), self.clock().now())
    }

    /// Lets time pass: moves the hands if the backend's lifetimes follow them, sleeps otherwise.
    pub async fn pass(&self, duration: Duration) {
        match self.moving_hands() {
            Some(hands) => hands.advance(duration),
            None => tokio::time::sleep(duration).await,
        }
    }

    /// Lets a lifetime that begins now, or began before, come to its end.
    pub async fn outlive(&self, ttl: Duration) {
        if self.moving_hands().is_some() {
            return self.pass(ttl).await;
        }
        self.pass(ttl + self.abilities.precision + Duration::from_millis(50)).await;
    }

    /// A short lifetime: long enough for a few operations, short enough to sleep through.
    pub fn tick(&self) -> Duration {
        match self.moving_hands() {
            Some(_) => Duration::from_secs(10),
            None => Duration::from_millis(400).max(self.abilities.precision * 2),
        }
    }

    /// Begins to watch the time. What must be true before a moment is asserted only if the machine was fast enough.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.moving_hands().is_none().then(Instant::now))
    }

    pub(crate) fn moving_hands(&self) -> Option<&ManualClock> {
        self.abilities.follows_clock.then(|| {
            self.hands.as_ref().expect(
                "the backend declares `follows_clock`: give its clock's hands to the harness",
            )
        })
    }

    pub(crate) fn default_ttl(&self) -> Ttl {
        self.abilities.default_ttl
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// A second client, if the backend declares `shared`.
    pub(crate) async fn second(&self) -> Option<Arc<B>> {
        if !self.abilities.shared {
            return None;
        }
        let second = self
            .second
            .as_ref()
            .expect("the backend declares `shared`: tell the harness how to make a second client");
        Some(Arc::new(second().await))
    }

    /// Waits until a second client must have seen a write.
    pub(crate) async fn settle(&self) {
        if !self.lag.is_zero() {
            tokio::time::sleep(self.lag).await;
        }
    }

    /// Plants raw bytes; false if the harness cannot.
    pub(crate) async fn plant(&self, key: &Key, bytes: Bytes) -> bool {
        let Some(plant) = &self.plant else { return false };
        plant(key.clone(), bytes).await;
        true
    }

    /// Restarts the store; false if it declares that it forgets then.
    pub(crate) async fn restart(&self) -> bool {
        if !self.abilities.durable {
            return false;
        }
        let restart = self
            .restart
            .as_ref()
            .expect("the backend declares `durable`: tell the harness how to restart its store");
        restart().await;
        true
    }

    /// A backend with little room, and how many entries it has room for.
    pub(crate) async fn small(&self) -> Option<(usize, B)> {
        let (entries, small) = self.small.as_ref()?;
        Some((*entries, small().await))
    }

    /// The round trips so far, if they are counted.
    pub(crate) fn round_trips(&self) -> Option<u64> {
        self.round_trips.as_ref().map(|count| count())
    }
}

impl<B: fmt::Debug> fmt::Debug for Harness<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("backend", &self.backend)
            .field("abilities", &self.abilities)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// See [`Harness::watch`].
pub(crate) struct Watch(Option<Instant>);

impl Watch {
    /// Whether certainly less than that has passed. Always, by a clock that stands still.
    pub(crate) fn within(&self, duration: Duration) -> bool {
        self.0.is_none_or(|since| since.elapsed() < duration)
    }
}
