//! Keys whose removal or replacement failed: empty on this node until a removal is confirmed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    set: Mutex<Set>,
}

#[derive(Default)]
struct Set {
    keys: HashSet<Key>,
    // Namespaces with too many barred keys to remember: wholly barred, and cleared instead.
    flooded: HashSet<String>,
    retrying: bool,
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
        set.keys.contains(key) || set.flooded.contains(key.namespace())
    }

    pub(crate) fn bar(&self, core: &Arc<Core>, keys: &[Key]) {
        let mut set = self.set.lock();
        for key in keys {
            if set.keys.len() >= MOST {
                let namespace = key.namespace().to_owned();
                set.keys.retain(|key| key.namespace() != namespace);
                set.flooded.insert(namespace);
            } else if !set.flooded.contains(key.namespace()) {
                set.keys.insert(key.clone());
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

    pub(crate) fn lift(&self, key: &Key) {
        if self.any() {
            self.set.lock().keys.remove(key);
        }
    }

    // True when nothing is left to retry.
    async fn retry(&self, core: &Core) -> bool {
        let (keys, flooded) = {
            let set = self.set.lock();
            let keys: Vec<Key> = set.keys.iter().take(1000).cloned().collect();
            (keys, set.flooded.iter().cloned().collect::<Vec<_>>())
        };
        if !keys.is_empty() && core.write(core.backend.remove_many_erased(&keys)).await.is_ok() {
            let mut set = self.set.lock();
            for key in &keys {
                set.keys.remove(key);
            }
        }
        for name in flooded {
            if let Ok(namespace) = Namespace::new(&name)
                && core.write(core.backend.clear_erased(&namespace)).await.is_ok()
            {
                self.set.lock().flooded.remove(&name);
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
