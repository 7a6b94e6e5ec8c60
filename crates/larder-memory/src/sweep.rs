//! Frees what nobody reads any more. Whether an entry may be read is never decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::Inner;

// A map up to this size is swept where the need is noticed.
const SMALL: u64 = 1024;

/// When to sweep next.
///
/// Expired entries are freed when as many entries were put as there were after the last sweep, so a put pays for about
/// one entry's visit however large the map is; and entries that a `clear` has made invalid, right after it.
#[derive(Default)]
pub(crate) struct Sweeps {
    // Sweeps asked for and not done.
    asked: AtomicU64,
    puts: AtomicU64,
    left_by_last: AtomicU64,
}

impl Sweeps {
    /// Counts a put. True when it is time to sweep.
    pub(crate) fn due(&self) -> bool {
        let puts = self.puts.fetch_add(1, Ordering::Relaxed) + 1;
        puts > self.left_by_last.load(Ordering::Relaxed).max(SMALL)
    }
}

/// A small map is swept here, a large one in a thread of its own: neither a put nor a clear may hold a runtime's worker
/// up.
pub(crate) fn sweep(inner: &Arc<Inner>) {
    inner.sweeps.puts.store(0, Ordering::Relaxed);
    if inner.map.len() <= SMALL {
        return run(inner);
    }
    // A sweep that is under way may have passed entries that are invalid now: it goes round once more.
    if inner.sweeps.asked.fetch_add(1, Ordering::AcqRel) > 0 {
        return;
    }
    let shared = inner.clone();
    let thread = std::thread::Builder::new().name("larder-memory-sweep".into());
    let spawned = thread.spawn(move || {
        loop {
            let asked = shared.sweeps.asked.load(Ordering::Acquire);
            run(&shared);
            if shared.sweeps.asked.fetch_sub(asked, Ordering::AcqRel) == asked {
                return;
            }
        }
    });
    if spawned.is_err() {
        inner.sweeps.asked.store(0, Ordering::Release);
    }
}

fn run(inner: &Inner) {
    let now = inner.clock.now();
    for (key, entry) in inner.map.iter().filter(|(_, entry)| !Inner::readable(entry, now)) {
        drop(entry);
        // Somebody may have put a valid entry there since.
        let _fills = inner.lock(&key);
        inner.map.remove_if(key.as_ref(), |entry| !Inner::readable(entry, now));
    }
    inner.sweeps.left_by_last.store(inner.map.len(), Ordering::Relaxed);
}
