//! What the engine's tests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_cache::{Cache, Options};
use larder_core::{Clock, ManualClock};
use larder_memory::MemoryBackend;
use larder_testkit::faulty::{Faults, Faulty};

/// A cache in memory whose clock the test drives.
#[allow(dead_code)]
pub(crate) fn driven() -> (Cache, ManualClock) {
    let (clock, hands) = Clock::manual();
    (Cache::new(MemoryBackend::builder().clock(clock).build().unwrap()), hands)
}

/// A cache over a store that is asked like a remote one, and fails when told to.
#[allow(dead_code)]
pub(crate) fn faulty() -> (Cache, Faults, ManualClock) {
    let (clock, hands) = Clock::manual();
    let backend = Faulty::new(MemoryBackend::builder().clock(clock).build().unwrap());
    let faults = backend.faults();
    (Cache::new(backend), faults, hands)
}

/// Counts computations.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<AtomicUsize>);

#[allow(dead_code)]
impl Calls {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[allow(dead_code)]
pub(crate) fn minute() -> Options {
    Options::ttl(Duration::from_secs(60))
}

/// Lets every other task run until it waits.
#[allow(dead_code)]
pub(crate) async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}
