//! Keys whose removal or replacement failed: empty on this node until a removal is confirmed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{Key, Namespace};
use parking_lot::Mutex;

use crate::store::Core;

/// The barred keys of a node.
///
/// A removal that failed may or may not have happened. Reading on would bring the removed value back, so the key reads
/// as empty here until a retry, once a second, is confirmed or a new value is stored. The same goes for a value that was
/// to be replaced: the new one is lost, and the old one is known to be old.
#[derive(Default)]
pub(crate) struct Barred {
    // Reads look here first, and there are hardly ever any.
    any: AtomicBool,
    failures: AtomicU64,
    set: Mutex<Set>,
}

#[derive(Default)]
struct Set {
    // With the number of the failure that barred it last: a removal that began before that lifts nothing.
    keys: HashMap<Key, u64>,
    // Namespaces with too many barred keys to remember: wholly barred, and cleared instead.
    flooded: HashMap<String, u64>,
    retrying: bool,
}

impl Set {
    fn lift(&mut self, key: &Key, failures: u64) {
        if self.keys.get(key).is_some_and(|last| *last <= failures) {
            self.keys.remove(key);
        }
    }
}

// Some 10 MiB of usual keys.
const MOST: usize = 65_536;
const RETRY: Duration = Duration::from_secs(1);

impl Barred {
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn bars(&self, key: &Key) -> bool {
        if !self.any() {
            return false;
        }
        let set = self.set.lock();
        set.keys.contains_key(key) || set.flooded.contains_key(key.namespace())
    }

    pub(crate) fn bar(&self, core: &Arc<Core>, keys: &[Key]) {
        let mut set = self.set.lock();
        let failure = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        for key in keys {
            if let Some(last) = set.flooded.get_mut(key.namespace()) {
                *last = failure;
            } else if set.keys.len() >= MOST {
                let namespace = key.namespace().to_owned();
                set.keys.retain(|key, _| key.namespace() != namespace);
                set.flooded.insert(namespace, failure);
            } else {
                set.keys.insert(key.clone(), failure);
            }
        }
        self.any.store(true, Ordering::Release);
        if !std::mem::replace(&mut set.retrying, true) {
            let core = Arc::downgrade(core);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(RETRY).await;
                    let Some(core) = core.upgrade() else { return };
                    if core.barred.retry(&core).await {
                        return;
                    }
                }
            });
        }
    }

    /// How many failures there were, for an operation that begins.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Frees a key after a removal or a put that began when there had been so many failures.
    pub(crate) fn lift(&self, key: &Key, failures: u64) {
        if self.any() {
            self.set.lock().lift(key, failures);
        }
    }

    // True when nothing is left to retry.
    async fn retry(&self, core: &Core) -> bool {
        let failures = self.failures();
        let (keys, flooded) = {
            let set = self.set.lock();
            let keys: Vec<Key> = set.keys.keys().take(1000).cloned().collect();
            (keys, set.flooded.keys().cloned().collect::<Vec<_>>())
        };
        if !keys.is_empty() && core.write(core.backend.remove_many_erased(&keys)).await.is_ok() {
            let mut set = self.set.lock();
            for key in &keys {
                set.lift(key, failures);
            }
        }
        for name in flooded {
            if let Ok(namespace) = Namespace::new(&name)
                && core.write(core.backend.clear_erased(&namespace)).await.is_ok()
            {
                let mut set = self.set.lock();
                if set.flooded.get(&name).is_some_and(|last| *last <= failures) {
                    set.flooded.remove(&name);
                }
            }
        }
        let mut set = self.set.lock();
        let done = set.keys.is_empty() && set.flooded.is_empty();
        if done {
            set.retrying = false;
            self.any.store(false, Ordering::Release);
        }
        done
    }
}
