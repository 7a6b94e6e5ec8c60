//! Locks that several nodes share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Begin, Error, ErrorKind, Key, KeyBuf, Result, Token, Ttl};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Cache, CacheKey, Store, key};

// A shorter hold would end before its first renewal could arrive.
const SHORTEST: Duration = Duration::from_millis(30);

impl Cache {
    /// Takes a lock that all nodes share, if nobody holds it; see [`lock`](Cache::lock).
    ///
    /// # Errors
    ///
    /// As [`lock`](Cache::lock).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn try_lock(&self, name: impl CacheKey, hold: Duration) -> Result<Option<Lock>> {
        self.lock(name, hold, Duration::ZERO).await
    }

    /// Takes a lock that all nodes share, and waits up to `wait` while somebody else holds it; `None` if they still do.
    ///
    /// The lock is held until it is [released](Lock::release) or dropped. It is renewed in the background every third
    /// of `hold`; a node that dies holds it for `hold` longer, and no other node waits for it after that. Locks have
    /// names of their own: no value is in their way. [`clear`](Cache::clear) frees those of its namespace.
    ///
    /// It saves work; it is no proof. A holder that was suspended, or a store that lost its data, can let two believe
    /// that they hold it for a moment: [`is_held`](Lock::is_held) says what this node knows. What must never happen
    /// twice belongs into a transaction of the database that it changes.
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use std::time::Duration;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// let hold = Duration::from_secs(10);
    /// let lock = cache.try_lock("nightly-report", hold).await?.expect("nobody else makes it");
    /// assert!(cache.try_lock("nightly-report", hold).await?.is_none());
    /// lock.release().await?;
    /// assert!(cache.lock("nightly-report", hold, Duration::from_secs(1)).await?.is_some());
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// When the store cannot be asked: whether somebody holds it is not known then. A `hold` of less than 30 ms.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the lock may have been taken, and is free again after `hold`.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn lock(
        &self,
        name: impl CacheKey,
        hold: Duration,
        wait: Duration,
    ) -> Result<Option<Lock>> {
        let key = self.lock_key(&name, hold)?;
        let hold = hold.min(Ttl::MAX);
        let (begun, asked) = self.store().begin_since(&key, hold, wait).await?;
        let until = asked + hold;
        Ok(match begun {
            Begin::Token(token) => Some(Lock::new(self.store().clone(), key, token, hold, until)),
            Begin::Busy | Begin::Pass | Begin::Found(_) => None,
        })
    }

    /// Goes on holding a lock that was [handed over](Lock::hand_over), on this node or another. `None` when it is no
    /// longer held.
    ///
    /// # Errors
    ///
    /// As [`lock`](Cache::lock).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn resume_lock(
        &self,
        name: impl CacheKey,
        token: Token,
        hold: Duration,
    ) -> Result<Option<Lock>> {
        let key = self.lock_key(&name, hold)?;
        let hold = hold.min(Ttl::MAX);
        let until = Instant::now() + hold;
        let held = self.store().renew(&key, token, hold).await?;
        Ok(held.then(|| Lock::new(self.store().clone(), key, token, hold, until)))
    }

    fn lock_key(&self, name: &impl CacheKey, hold: Duration) -> Result<Key> {
        if hold < SHORTEST {
            let words = "a lock is held for at least 30 ms, or it would end before it is renewed";
            return Err(Error::new(ErrorKind::Configuration, words));
        }
        let mut buf = KeyBuf::new(self.store().namespace());
        buf.push(key::LOCKS);
        name.write(&mut buf);
        buf.key()
    }
}

/// A lock that this node holds; made by [`Cache::lock`].
///
/// Dropping it releases it in the background; [`release`](Lock::release) waits for that and tells how it went.
#[must_use = "a lock that is not kept is released at once"]
pub struct Lock {
    held: Arc<Held>,
    renewing: JoinHandle<()>,
    over: bool,
}

struct Held {
    store: Store,
    key: Key,
    token: Token,
    hold: Duration,
    // Until when it is ours, as far as the last answer tells; `None` when the store has said that it is not.
    until: Mutex<Option<Instant>>,
    lost: Notify,
}

impl Lock {
    fn new(store: Store, key: Key, token: Token, hold: Duration, until: Instant) -> Self {
        let until = Mutex::new(Some(until));
        let held = Arc::new(Held { store, key, token, hold, until, lost: Notify::new() });
        let renewing = tokio::spawn(held.clone().renew());
        Lock { held, renewing, over: false }
    }

    /// Whether it is surely held still, by this node's clock: false when the store said that it is not, or when no
    /// renewal was confirmed for the whole of its hold.
    pub fn is_held(&self) -> bool {
        self.held.until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it is no longer held, to be selected against the work that it protects.
    ///
    /// Dropping the future harms nobody.
    pub async fn lost(&self) {
        loop {
            let notified = self.held.lost.notified();
            let Some(until) = *self.held.until.lock() else { return };
            if Instant::now() >= until {
                return;
            }
            // Told, or not: it is looked at again.
            let _ = tokio::time::timeout_at(until, notified).await;
        }
    }

    /// Releases it. False when it was not held any more, so somebody else may have worked meanwhile.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked; it is free after its hold then.
    pub async fn release(mut self) -> Result<bool> {
        self.over = true;
        self.renewing.abort();
        self.held.store.release(&self.held.key, self.held.token, None).await
    }

    /// Stops renewing it without releasing it. Whoever [resumes](Cache::resume_lock) with the token within its hold has
    /// it then, also in another process.
    pub fn hand_over(mut self) -> Token {
        self.over = true;
        self.held.token
    }
}

impl Held {
    async fn renew(self: Arc<Self>) {
        loop {
            let Some(until) = *self.until.lock() else { return };
            tokio::time::sleep(self.hold / 3).await;
            let asked = Instant::now();
            match self.store.renew(&self.key, self.token, self.hold).await {
                Ok(true) => *self.until.lock() = Some(asked + self.hold),
                Ok(false) => {
                    *self.until.lock() = None;
                    self.lost.notify_waiters();
                    return;
                }
                // It is ours until its time is over, and may be renewed as long.
                Err(_) if asked < until => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.renewing.abort();
        if self.over {
            return;
        }
        let held = self.held.clone();
        // Without a runtime there is nobody to send it: it ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { held.store.release(&held.key, held.token, None).await });
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("held", &self.is_held()).finish_non_exhaustive()
    }
}
