//! A bus in this process, with the weather that a network has.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Bus, Error, ErrorKind, Heard, Result};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What happens to each message on its way to each listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// The share that is lost without a word.
    pub lost: f64,
    /// The share that arrives twice.
    pub doubled: f64,
    /// Up to so late; each message for itself, so that later ones overtake earlier ones.
    pub late: Duration,
}

/// Carries messages between the nodes of a test, in one process. A clone is the same bus.
///
/// ```
/// use larder_core::{Bus, Heard};
/// use larder_testkit::bus::LocalBus;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let bus = LocalBus::new();
/// let (heard, mut news) = tokio::sync::mpsc::unbounded_channel();
/// let ear = bus.clone();
/// let silence = std::time::Duration::from_secs(3);
/// tokio::spawn(async move { ear.listen(silence, |one| drop(heard.send(one))).await });
/// assert_eq!(news.recv().await, Some(Heard::Connected));
/// bus.publish("hello".into()).await?;
/// assert_eq!(news.recv().await, Some(Heard::Message("hello".into())));
/// bus.cut();
/// assert_eq!(news.recv().await, Some(Heard::Lost));
/// assert!(bus.publish("nobody hears".into()).await.is_err());
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct LocalBus(Arc<Wire>);

impl fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBus").field("listeners", &self.listeners()).finish_non_exhaustive()
    }
}

struct Wire(Mutex<State>);

struct State {
    ears: HashMap<u64, UnboundedSender<Heard>>,
    next: u64,
    cut: bool,
    weather: Weather,
    random: StdRng,
}

impl Default for LocalBus {
    fn default() -> Self {
        LocalBus::new()
    }
}

impl LocalBus {
    /// One on which every message arrives at once.
    pub fn new() -> Self {
        LocalBus::with_weather(0, Weather::default())
    }

    /// One with weather, the same for the same seed.
    pub fn with_weather(seed: u64, weather: Weather) -> Self {
        LocalBus(Arc::new(Wire(Mutex::new(State {
            ears: HashMap::new(),
            next: 0,
            cut: false,
            weather,
            random: StdRng::seed_from_u64(seed),
        }))))
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.0.0.lock().weather = weather;
    }

    /// Cuts all listeners off, and tells them.
    pub fn cut(&self) {
        let mut state = self.0.0.lock();
        state.cut = true;
        state.tell(&Heard::Lost);
    }

    /// Connects all listeners again, and tells them.
    pub fn mend(&self) {
        let mut state = self.0.0.lock();
        state.cut = false;
        state.tell(&Heard::Connected);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.0.0.lock().ears.len()
    }
}

impl State {
    fn tell(&self, heard: &Heard) {
        // A listener that has gone hears nothing.
        self.ears.values().for_each(|ear| drop(ear.send(heard.clone())));
    }
}

// Gone when its listener is.
struct Seat(LocalBus, u64);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.0.lock().ears.remove(&self.1);
    }
}

impl Bus for LocalBus {
    async fn publish(&self, message: Bytes) -> Result<()> {
        let mut state = self.0.0.lock();
        if state.cut {
            return Err(Error::new(ErrorKind::Unavailable, "the bus is cut"));
        }
        let State { ears, weather, random, .. } = &mut *state;
        for ear in ears.values() {
            let copies = match random.random::<f64>() {
                chance if chance < weather.lost => 0,
                chance if chance < weather.lost + weather.doubled => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let (ear, message) = (ear.clone(), Heard::Message(message.clone()));
                if weather.late.is_zero() {
                    let _ = ear.send(message);
                    continue;
                }
                let late = weather.late.mul_f64(random.random());
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let _ = ear.send(message);
                });
            }
        }
        Ok(())
    }

    async fn listen(&self, _: Duration, mut hear: impl FnMut(Heard) + Send) {
        let (ear, mut heard) = unbounded_channel();
        let seat = {
            let mut state = self.0.0.lock();
            state.next += 1;
            let seat = state.next;
            if !state.cut {
                let _ = ear.send(Heard::Connected);
            }
            state.ears.insert(seat, ear);
            Seat(self.clone(), seat)
        };
        while let Some(one) = heard.recv().await {
            hear(one);
        }
        drop(seat);
    }
}
