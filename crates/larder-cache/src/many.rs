//! `get_or_compute_many`: one computation for all that is missing.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use larder_core::{Entry, Key, Tag};
use tokio::time::Instant;
use tracing::Instrument;

use crate::compute::{Computing, Otherwise, Previous, Seen, settled, unpack};
use crate::fill::{Fill, HOLD, Permit, Start};
use crate::flight::{Joined, Passenger, Pilot};
use crate::nested;
use crate::{Cache, CacheKey, Computed, Failure, Options, Value};

impl Cache {
    /// Reads many values in one round trip, and computes those that are missing in one computation.
    ///
    /// The computation is given the missing keys and gives what it found of them; keys that it leaves out are left out
    /// of the answer too, and nothing is stored for them. What other callers compute already, one by one or in a batch
    /// of their own, is waited for instead of computed again, and others wait for what is computed here. It may be
    /// called once more, with a single key, when such a wait takes longer than [`Options::wait`] or was for nothing. For
    /// each key everything else is as with [`get_or_compute`](Cache::get_or_compute).
    ///
    /// ```
    /// use larder_cache::{Cache, Options};
    /// use std::collections::{HashMap, HashSet};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// cache.set(("price", 7), 1999_i64).await?;
    /// let prices = cache
    ///     .get_or_compute_many([("price", 7), ("price", 8), ("price", 9)], Options::new(), |missing| async move {
    ///         assert_eq!(missing, [("price", 8), ("price", 9)]);
    ///         // One query for all of them; there is no product 9.
    ///         Ok::<_, std::io::Error>(HashMap::from([(("price", 8), 2999_i64)]))
    ///     })
    ///     .await?;
    /// assert_eq!((*prices[&("price", 7)], *prices[&("price", 8)]), (1999, 2999));
    /// assert!(!prices.contains_key(&("price", 9)));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get_or_compute`](Cache::get_or_compute), for any of the keys. What was found or computed for the others is
    /// stored all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the computation running.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn get_or_compute_many<T, E, K, F, Fut>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: Options,
        compute: F,
    ) -> Result<HashMap<K, Arc<T>>, Failure>
    where
        T: Value,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
        K: CacheKey + Eq + Hash + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, T>, E>> + Send + 'static,
    {
        let (mut seen, mut wanted) = (HashSet::new(), Vec::new());
        for name in keys {
            let key = self.key(&name)?;
            if seen.insert(key.clone()) {
                wanted.push((name, key));
            }
        }
        let computing = Computing { store: self.store(), codec: self.codec(), options, due: false };
        // Boxed, since a future for hits alone had better be small.
        Box::pin(computing.many(wanted, Arc::new(compute))).await
    }
}

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A key that this call waits for.
pub(crate) struct Awaited<K, T> {
    pub(crate) name: K,
    pub(crate) key: Key,
    pub(crate) passenger: Passenger,
    pub(crate) own: bool,
    pub(crate) stale: Option<Previous<T>>,
}

/// A key that this call computes.
pub(crate) struct Order<K, T> {
    pub(crate) name: K,
    pub(crate) fill: Fill<T>,
    pub(crate) pilot: Pilot,
}

/// One that may be stored, as far as the store tells.
pub(crate) struct Due<K, T> {
    pub(crate) order: Order<K, T>,
    start: Start,
}

impl Computing<'_> {
    async fn many<T, E, K, F, Fut>(
        &self,
        keys: Vec<(K, Key)>,
        compute: Arc<F>,
    ) -> Result<HashMap<K, Arc<T>>, Failure>
    where
        T: Value,
        E: Into<AnyError> + 'static,
        K: CacheKey + Eq + Hash + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, T>, E>> + Send + 'static,
    {
        let tags = self.options.checked_tags()?;
        let started = Instant::now();
        let mut values = HashMap::with_capacity(keys.len());
        let (awaited, orders) = self.sort(keys, &tags, &mut values).await;
        if !orders.is_empty() {
            // In a task of its own: whoever goes away harms nobody.
            let task = run(orders, compute.clone());
            tokio::spawn(task.in_current_span());
        }
        let boarded = Instant::now();
        for Awaited { name, key, passenger, own, stale } in awaited {
            let value = match self.wait(passenger, own, stale.is_some(), started, boarded).await {
                Ok(Some(landed)) if own || landed.shared => {
                    nested::note(self.store, &landed.tags);
                    Some(unpack(landed)?)
                }
                // Left out by the computation.
                Ok(None) if own => None,
                Err(Otherwise::Stale) => Some(self.stale(stale, Failure::timeout())?),
                Err(Otherwise::Fail) => return Err(Failure::timeout()),
                Ok(_) | Err(Otherwise::Alone) => self.one(name.clone(), key, &compute).await?,
            };
            values.extend(value.map(|value| (name, value)));
        }
        Ok(values)
    }

    /// What is there and fresh goes into the values; for the rest flights are joined or begun.
    pub(crate) async fn sort<T: Value, K: Eq + Hash + Clone>(
        &self,
        keys: Vec<(K, Key)>,
        tags: &[Tag],
        values: &mut HashMap<K, Arc<T>>,
    ) -> (Vec<Awaited<K, T>>, Vec<Order<K, T>>) {
        let wanted: Vec<Key> = keys.iter().map(|(_, key)| key.clone()).collect();
        // A store that fails has nothing: the computation runs all the same.
        let found: Vec<Option<Entry>> =
            self.store.lookup_many(&wanted).await.unwrap_or_else(|_| vec![None; wanted.len()]);
        let (mut awaited, mut orders) = (Vec::new(), Vec::new());
        for ((name, key), entry) in keys.into_iter().zip(found) {
            let seen: Seen<T> = entry.map_or(Seen::Unusable(None), |entry| self.seen(entry));
            let mut missing = true;
            if let Seen::Fresh(fresh) = &seen {
                nested::note(self.store, fresh.entry.tags());
                values.insert(name.clone(), fresh.value.clone());
                if !self.refreshes::<T>(&fresh.entry) {
                    continue;
                }
                missing = false;
            }
            let (passenger, own) = match self.store.join(&key, &key, tags) {
                Joined::Passenger(passenger) => (passenger, false),
                Joined::Pilot(pilot, passenger) => {
                    let fill = self.fill(&key, tags, &seen);
                    orders.push(Order { name: name.clone(), fill, pilot });
                    (passenger, true)
                }
            };
            if missing {
                let stale = match seen {
                    Seen::Stale(previous) => Some(previous),
                    Seen::Fresh(_) | Seen::Unusable(_) => None,
                };
                awaited.push(Awaited { name, key, passenger, own, stale });
            }
        }
        (awaited, orders)
    }

    // A key whose wait was for nothing, by itself.
    async fn one<T, E, K, F, Fut>(
        &self,
        name: K,
        key: Key,
        compute: &Arc<F>,
    ) -> Result<Option<Arc<T>>, Failure>
    where
        T: Value,
        E: Into<AnyError> + 'static,
        K: Eq + Hash + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, T>, E>> + Send + 'static,
    {
        let compute = compute.clone();
        let alone = Computing { options: self.options.clone(), ..*self };
        let computed = alone.run(key, move |_| async move {
            let mut found = compute(vec![name.clone()]).await.map_err(Into::<AnyError>::into)?;
            found.remove(&name).map(Computed::new).ok_or_else(|| AnyError::from(LeftOut))
        });
        match computed.await {
            Err(failure) if failure.downcast_ref::<LeftOut>().is_some() => Ok(None),
            result => result.map(Some),
        }
    }
}

/// The computation gave nothing for the key.
#[derive(Debug)]
struct LeftOut;

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the computation gave nothing for this key")
    }
}

impl std::error::Error for LeftOut {}

/// The computation, and the end of its flights.
async fn run<T, E, K, F, Fut>(orders: Vec<Order<K, T>>, compute: Arc<F>)
where
    T: Value,
    E: Into<AnyError> + 'static,
    K: Eq + Hash + Clone + Send + Sync + 'static,
    F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<HashMap<K, T>, E>> + Send + 'static,
{
    let Permitted { due, busy } = permitted(orders, Busy::Left).await;
    // Each by itself: who has waited for one holds nothing while it waits for another.
    let later = busy.into_iter().map(|order| async {
        compute_all(permitted(vec![order], Busy::Awaited).await.due, &*compute).await;
    });
    join(compute_all(due, &*compute), join_all(later)).await;
}

async fn compute_all<T, E, K, F, Fut>(due: Vec<Due<K, T>>, compute: &F)
where
    T: Value,
    E: Into<AnyError> + 'static,
    K: Eq + Hash + Clone + Send + Sync + 'static,
    F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<HashMap<K, T>, E>> + Send + 'static,
{
    let Some(Due { order, .. }) = due.first() else { return };
    let (store, deadline) = (order.fill.store.clone(), order.fill.options.deadline);
    let held: Vec<_> = due.iter().filter_map(|due| due.order.fill.held(due.start.permit)).collect();
    let missing: Vec<K> = due.iter().map(|due| due.order.name.clone()).collect();
    let computing = async move { compute(missing).await.map(Computed::new) };
    let computing = settled(deadline, |_| computing, None);
    let (computed, read) = store.holding(&held, HOLD, nested::collect(&store, computing)).await;
    let mut found = computed.map(|values| {
        // Nobody else has them.
        values.value.and_then(Arc::into_inner).unwrap_or_default()
    });
    let landings = due.into_iter().map(|due| {
        let computed = match &mut found {
            Ok(values) => values.remove(&due.order.name).map(|value| Ok(Computed::new(value))),
            Err(failure) => Some(Err(failure.clone())),
        };
        due.land(computed, read.clone())
    });
    let landings: Vec<_> = landings.collect();
    join_all(landings).await;
}

/// What becomes of keys that another node is filling.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// They are left for later: whoever fills them may be waiting for one that this call has begun.
    Left,
    /// They are waited for, as long as the options say.
    Awaited,
}

/// What may be computed, and what another node is filling.
pub(crate) struct Permitted<K, T> {
    pub(crate) due: Vec<Due<K, T>>,
    pub(crate) busy: Vec<Order<K, T>>,
}

impl<K, T> Default for Permitted<K, T> {
    fn default() -> Self {
        Permitted { due: Vec::new(), busy: Vec::new() }
    }
}

/// Begins those that are still to be computed. As in a single fill: numbers and markers first, then the source.
pub(crate) async fn permitted<K, T: Value>(
    orders: Vec<Order<K, T>>,
    busy: Busy,
) -> Permitted<K, T> {
    // Who wants one alone holds nothing that anybody could wait for meanwhile.
    let waits = busy == Busy::Awaited || orders.len() == 1;
    let wait = |order: &Order<K, T>| if waits { order.fill.options.wait } else { Duration::ZERO };
    let starts = orders.iter().map(|order| order.fill.start(&order.pilot, wait(order)));
    let starts = join_all(starts).await;
    let mut permitted = Permitted::default();
    for (order, start) in orders.into_iter().zip(starts) {
        match start {
            Ok(start) if !waits && matches!(start.permit, Permit::Never) => {
                permitted.busy.push(order);
            }
            Ok(start) => permitted.due.push(Due { order, start }),
            Err(landed) => order.pilot.land(|| landed),
        }
    }
    permitted
}

impl<K, T: Value> Due<K, T> {
    /// Stores it, and ends its flight. Without a value nothing comes of it.
    pub(crate) async fn land(self, computed: Option<Result<Computed<T>, Failure>>, read: Vec<Tag>) {
        let Due { order: Order { fill, pilot, .. }, start } = self;
        match computed {
            Some(computed) => {
                let landed = fill.landing(&pilot, computed, read, start).await;
                pilot.land(|| landed);
            }
            // Dropping the pilot tells those who wait.
            None => fill.give_up(start.permit).await,
        }
    }
}
