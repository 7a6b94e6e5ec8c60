//! `get_or_compute_many`: one computation for what is missing, and every key's guarantees as if it were alone.

mod common;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::{Calls, driven, faulty, minute, settle};
use larder_cache::{Cache, Failure, Options};
use larder_core::ErrorKind;
use larder_memory::MemoryBackend;
use larder_testkit::cancel::drop_after;
use larder_testkit::faulty::{Fault, Verb};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

type Values = HashMap<u32, Arc<String>>;

/// A source that notes what it was asked for, and waits at its gate.
#[derive(Clone)]
struct Source {
    asked: Arc<Mutex<Vec<Vec<u32>>>>,
    gate: Arc<Semaphore>,
}

impl Source {
    fn open() -> Self {
        Source { asked: Arc::default(), gate: Arc::new(Semaphore::new(1000)) }
    }

    fn shut() -> Self {
        Source { asked: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        let mut asked = self.asked.lock().clone();
        asked.iter_mut().for_each(|keys| keys.sort_unstable());
        asked
    }

    // Multiples of ten are not known to it.
    async fn find(self, keys: Vec<u32>) -> Result<HashMap<u32, String>, io::Error> {
        self.asked.lock().push(keys.clone());
        self.gate.acquire().await.unwrap().forget();
        Ok(keys
            .into_iter()
            .filter(|key| key % 10 != 0)
            .map(|key| (key, format!("v{key}")))
            .collect())
    }

    async fn many(
        &self,
        cache: &Cache,
        keys: impl IntoIterator<Item = u32>,
        options: Options,
    ) -> Result<Values, Failure> {
        let source = self.clone();
        cache.get_or_compute_many(keys, options, move |keys| source.clone().find(keys)).await
    }

    fn spawn(
        &self,
        cache: &Cache,
        keys: Vec<u32>,
    ) -> tokio::task::JoinHandle<Result<Values, Failure>> {
        let (source, cache) = (self.clone(), cache.clone());
        tokio::spawn(async move { source.many(&cache, keys, minute()).await })
    }
}

fn keys_of(values: &Values) -> Vec<u32> {
    assert!(values.iter().all(|(key, value)| **value == format!("v{key}")));
    let mut keys: Vec<u32> = values.keys().copied().collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn only_what_is_missing_is_computed_and_once_for_all() {
    let (cache, hands) = driven();
    let source = Source::open();
    cache.set_with(2_u32, "v2".to_owned(), minute()).await.unwrap();
    let values = source.many(&cache, [1, 2, 3, 3, 10], minute()).await.unwrap();
    assert_eq!(keys_of(&values), [1, 2, 3]);
    assert_eq!(source.asked(), [vec![1, 3, 10]]);

    // All is there but what the source does not know, for a minute.
    source.many(&cache, [1, 2, 3, 10], minute()).await.unwrap();
    assert_eq!(source.asked().last().unwrap(), &[10]);
    hands.advance(Duration::from_secs(61));
    source.many(&cache, [1, 2], minute()).await.unwrap();
    assert_eq!(source.asked().last().unwrap(), &[1, 2]);
    assert_eq!(cache.store().flights(), 0);
}

#[tokio::test]
async fn no_keys_no_computation_and_no_round_trip() {
    let (cache, faults, _) = faulty();
    let source = Source::open();
    assert!(source.many(&cache, [], minute()).await.unwrap().is_empty());
    assert!(source.asked().is_empty());
    assert_eq!(faults.total(), 0);
}

#[tokio::test]
async fn batches_that_overlap_wait_for_each_other_key_by_key() {
    let (cache, _) = driven();
    let source = Source::shut();
    // Crosswise, so that each waits for a key of the other.
    let one = source.spawn(&cache, vec![1, 2]);
    settle().await;
    let two = source.spawn(&cache, vec![3, 2, 1]);
    settle().await;
    let alone =
        cache.get_or_compute(3_u32, minute(), || async { Ok::<_, io::Error>("own".to_owned()) });
    assert!(drop_after(1, alone).await.is_none(), "it waits for the batch");
    assert_eq!(source.asked(), [vec![1, 2], vec![3]]);
    source.gate.add_permits(2);
    assert_eq!(keys_of(&one.await.unwrap().unwrap()), [1, 2]);
    assert_eq!(keys_of(&two.await.unwrap().unwrap()), [1, 2, 3]);
    assert_eq!(source.asked().len(), 2);
}

#[tokio::test]
async fn a_dropped_caller_leaves_the_computation_running() {
    let (cache, _) = driven();
    let source = Source::shut();
    let caller = source.spawn(&cache, vec![1, 2]);
    settle().await;
    caller.abort();
    let _ = caller.await;
    source.gate.add_permits(1);
    settle().await;
    assert!(cache.contains(1_u32).await.unwrap() && cache.contains(2_u32).await.unwrap());
    assert_eq!((source.asked().len(), cache.store().flights()), (1, 0));
}

#[tokio::test]
async fn what_is_invalidated_meanwhile_is_not_stored_and_the_rest_is() {
    let (cache, _) = driven();
    let source = Source::shut();
    let caller = source.spawn(&cache, vec![1, 2, 3]);
    settle().await;
    cache.delete(1_u32).await.unwrap();
    cache.set_with(2_u32, "newer".to_owned(), minute()).await.unwrap();
    source.gate.add_permits(1);
    assert_eq!(keys_of(&caller.await.unwrap().unwrap()), [1, 2, 3]);
    assert!(!cache.contains(1_u32).await.unwrap());
    assert_eq!(*cache.get::<String>(2_u32).await.unwrap().unwrap(), "newer");
    assert!(cache.contains(3_u32).await.unwrap());
}

#[tokio::test]
async fn a_tag_drops_all_and_those_of_what_was_read_too() {
    let (cache, _) = driven();
    cache.set_with("rate", 2_i64, minute().tag("rates")).await.unwrap();
    let inner = cache.clone();
    let find = move |keys: Vec<u32>| {
        let cache = inner.clone();
        async move {
            let rate = *cache.get::<i64>("rate").await?.unwrap();
            Ok::<_, larder_core::Error>(
                keys.into_iter().map(|key| (key, i64::from(key) * rate)).collect(),
            )
        }
    };
    let values = cache.get_or_compute_many([1, 2], minute().tag("prices"), find).await.unwrap();
    assert_eq!(*values[&2], 4);
    cache.invalidate_tag("rates").await.unwrap();
    assert!(!cache.contains(1_u32).await.unwrap() && !cache.contains(2_u32).await.unwrap());
}

#[tokio::test]
async fn an_error_or_a_panic_is_told_and_what_was_there_stays() {
    let (cache, _) = driven();
    cache.set_with(1_u32, "v1".to_owned(), minute()).await.unwrap();
    let failing = |_| async { Err::<HashMap<u32, String>, _>(io::Error::other("down")) };
    let failure = cache.get_or_compute_many([1, 2, 3], minute(), failing).await.unwrap_err();
    assert!(failure.downcast_ref::<io::Error>().is_some());
    let panicking = |keys: Vec<u32>| async move {
        assert!(keys.is_empty(), "on purpose");
        Ok::<HashMap<u32, String>, io::Error>(HashMap::new())
    };
    let failure = cache.get_or_compute_many([2, 3], minute(), panicking).await.unwrap_err();
    assert!(failure.is_panic());
    assert_eq!(cache.store().flights(), 0);
    assert_eq!(
        keys_of(&Source::open().many(&cache, [1, 2, 3], minute()).await.unwrap()),
        [1, 2, 3]
    );
}

#[tokio::test]
async fn stale_values_stand_in_for_a_failed_computation_and_are_refreshed_ahead() {
    let (cache, hands) = driven();
    let source = Source::open();
    let options = || minute().stale_for(Duration::from_secs(600));
    source.many(&cache, [1, 2], options()).await.unwrap();
    hands.advance(Duration::from_secs(61));
    let calls = Calls::default();
    let counted = calls.clone();
    let failing = move |_| {
        counted.add();
        async { Err::<HashMap<u32, String>, _>(io::Error::other("down")) }
    };
    let values = cache.get_or_compute_many([1, 2], options(), failing.clone()).await.unwrap();
    assert_eq!(keys_of(&values), [1, 2]);
    assert_eq!(calls.get(), 1);
    // Throttled: they count as fresh for a while.
    cache.get_or_compute_many([1, 2], options(), failing.clone()).await.unwrap();
    assert_eq!(calls.get(), 1);
    // A key without one tells the failure.
    assert!(cache.get_or_compute_many([1, 4], options(), failing).await.is_err());

    let ahead = || minute().refresh_after(Duration::from_secs(30));
    source.many(&cache, [5, 6], ahead()).await.unwrap();
    hands.advance(Duration::from_secs(31));
    let before = source.asked().len();
    assert_eq!(keys_of(&source.many(&cache, [5, 6], ahead()).await.unwrap()), [5, 6]);
    settle().await;
    assert_eq!(source.asked()[before..], [vec![5, 6]]);
    hands.advance(Duration::from_secs(40));
    source.many(&cache, [5, 6], minute()).await.unwrap();
    assert_eq!(source.asked().len(), before + 1, "their successors are there");
}

#[tokio::test]
async fn the_hard_timeout_bounds_the_caller_and_not_the_computation() {
    tokio::time::pause();
    let (cache, _) = driven();
    let source = Source::shut();
    let options = minute().hard_timeout(Duration::from_millis(200));
    let failure = source.many(&cache, [1, 2], options).await.unwrap_err();
    assert!(failure.is_timeout());
    source.gate.add_permits(1);
    settle().await;
    assert!(cache.contains(1_u32).await.unwrap());
}

#[tokio::test]
async fn an_outage_costs_no_value() {
    let (cache, faults, _) = faulty();
    let source = Source::open();
    faults.inject(Fault::Fail(ErrorKind::Unavailable), &Verb::ALL);
    assert_eq!(keys_of(&source.many(&cache, [1, 2], minute()).await.unwrap()), [1, 2]);
    assert_eq!(source.asked(), [vec![1, 2]]);
}

#[tokio::test]
async fn reads_take_one_round_trip() {
    let (cache, faults, _) = faulty();
    let source = Source::open();
    source.many(&cache, [1, 2, 3], minute()).await.unwrap();
    faults.forget();
    source.many(&cache, [1, 2, 3], minute()).await.unwrap();
    assert_eq!((faults.total(), faults.count(Verb::GetMany)), (1, 1), "{:?}", faults.calls());
}

// Two nodes that want the same keys, each with one of them begun: neither waits for the other before it computes.
#[tokio::test]
async fn what_another_node_is_filling_holds_up_nothing_that_is_begun_here() {
    let store = MemoryBackend::default();
    let (one, other) = (Cache::new(store.clone()), Cache::new(store));
    let (here, there) = (Source::shut(), Source::shut());
    let first = there.spawn(&other, vec![2]);
    settle().await;
    let both = here.spawn(&one, vec![1, 2]);
    settle().await;
    assert_eq!(here.asked(), [vec![1]]);
    there.gate.add_permits(1);
    assert_eq!(keys_of(&first.await.unwrap().unwrap()), [2]);
    here.gate.add_permits(1);
    assert_eq!(keys_of(&both.await.unwrap().unwrap()), [1, 2]);
    assert_eq!((here.asked().len(), there.asked().len()), (1, 1));
}
