//! Computations that run in their caller: they may borrow, and no cancellation can interrupt them.

use std::collections::HashMap;
use std::sync::Arc;

use larder_core::Key;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::compute::{Computing, Otherwise, Seen, settled, unpack};
use crate::many::{AnyError, Busy, Order, Permitted, permitted};
use crate::nested;
use crate::{Cache, CacheKey, Computed, Failure, Options, Value};

impl Cache {
    /// Reads a value, or makes it here and now, without a task of its own: `make` may borrow.
    ///
    /// Callers of one key on one node share one computation, whichever verb they use. What is slow or asks another
    /// service belongs into [`get_or_compute`](Cache::get_or_compute): this one holds its thread up.
    /// [`Options::refresh_after`] means nothing here.
    ///
    /// ```
    /// use larder_cache::{Cache, Options};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// let text = String::from("to be or not to be");
    /// let count = || Ok::<_, std::convert::Infallible>(text.split(' ').count());
    /// assert_eq!(*cache.get_or_compute_sync("words", Options::new(), count).await?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get_or_compute`](Cache::get_or_compute).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before `make` was called, others make the value; afterwards it is stored all the same.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn get_or_compute_sync<T, E>(
        &self,
        key: impl CacheKey,
        options: Options,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, Failure>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let key = self.key(&key)?;
        let make = || make().map(Computed::new).map_err(Into::into);
        self.computing_here(options).one_here(key, make).await
    }

    // Nothing is made ahead where somebody would have to wait for it.
    pub(crate) fn computing_here(&self, options: Options) -> Computing<'_> {
        let options = Options { refresh_after: None, ..options };
        Computing { store: self.store(), codec: self.codec(), options, due: false }
    }
}

impl Computing<'_> {
    /// The value of a key, made by `make` in the caller if it is missing and nobody else makes it.
    pub(crate) async fn one_here<T: Value>(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Computed<T>, AnyError>,
    ) -> Result<Arc<T>, Failure> {
        let mut make = Some(make);
        let made = self.here(vec![((), key)], |()| match make.take() {
            Some(make) => make(),
            None => Err("the value was made, and another caller's failure took its place".into()),
        });
        made.await?.pop().ok_or_else(Failure::lost)
    }

    /// The values of these keys, in their order. What is missing and nobody else makes is made by `make`, one after
    /// the other, in the caller.
    pub(crate) async fn here<T: Value, K>(
        &self,
        keys: Vec<(K, Key)>,
        mut make: impl FnMut(&K) -> Result<Computed<T>, AnyError>,
    ) -> Result<Vec<Arc<T>>, Failure> {
        let tags = self.options.checked_tags()?;
        let started = Instant::now();
        let (names, keys): (Vec<K>, Vec<Key>) = keys.into_iter().unzip();
        let mut values = HashMap::with_capacity(names.len());
        let numbered = keys.into_iter().enumerate().collect();
        let (awaited, orders) = self.sort(numbered, &tags, &mut values).await;
        let mut granted = grant(orders, Busy::Left).await;
        let mut busy = std::mem::take(&mut granted.busy).into_iter();
        loop {
            for due in granted.due {
                let making = self.made(|| make(&names[due.order.name]));
                let (made, read) = nested::collect(self.store, making).await;
                let landing = due.land(Some(made), read);
                // In a task of its own, so that it is stored although the caller may go away.
                tokio::spawn(landing.in_current_span());
            }
            // Each by itself: nothing is held while another one is waited for.
            let Some(order) = busy.next() else { break };
            granted = grant(vec![order], Busy::Awaited).await;
        }
        let boarded = Instant::now();
        for one in awaited {
            let has_stale = one.stale.is_some();
            let value = match self.wait(one.passenger, one.own, has_stale, started, boarded).await {
                Ok(Some(landed)) if one.own || landed.shared => {
                    nested::note(self.store, &landed.tags);
                    unpack(landed)?
                }
                Ok(None) if one.own => return Err(Failure::lost()),
                Err(Otherwise::Stale) => self.stale(one.stale, Failure::timeout())?,
                Err(Otherwise::Fail) => return Err(Failure::timeout()),
                // Somebody else's was for nothing, or is stored by now, or takes too long.
                landed => {
                    let stored = match landed {
                        Ok(_) => self.look::<T>(&one.key, &tags).await,
                        Err(_) => Seen::Unusable(None),
                    };
                    if let Seen::Fresh(fresh) = stored {
                        nested::note(self.store, fresh.entry.tags());
                        fresh.value
                    } else {
                        let made = self.made(|| make(&names[one.name])).await?;
                        self.unstored(made, &tags)?.ok_or_else(Failure::lost)?
                    }
                }
            };
            values.insert(one.name, value);
        }
        Ok((0..names.len()).filter_map(|number| values.remove(&number)).collect())
    }

    // Ready at once: there is nothing to wait for.
    async fn made<T: Value>(
        &self,
        make: impl FnOnce() -> Result<Computed<T>, AnyError>,
    ) -> Result<Computed<T>, Failure> {
        settled(self.options.deadline, |_: Option<Arc<T>>| async { make() }, None).await
    }
}

// In a task of its own: a caller that goes away meanwhile must not leave markers behind on which others wait.
async fn grant<K, T>(orders: Vec<Order<K, T>>, busy: Busy) -> Permitted<K, T>
where
    K: Send + Sync + 'static,
    T: Value,
{
    if orders.is_empty() {
        return Permitted::default();
    }
    let mut granting = Granting(Some(tokio::spawn(permitted(orders, busy).in_current_span())));
    let granted = match &mut granting.0 {
        Some(task) => task.await.unwrap_or_default(),
        None => Permitted::default(),
    };
    granting.0 = None;
    granted
}

/// What is being granted; what nobody takes is given up.
struct Granting<K: Send + Sync + 'static, T: Value>(Option<JoinHandle<Permitted<K, T>>>);

impl<K: Send + Sync + 'static, T: Value> Drop for Granting<K, T> {
    fn drop(&mut self) {
        let Some(task) = self.0.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            for due in task.await.unwrap_or_default().due {
                due.land(None, Vec::new()).await;
            }
        });
    }
}
