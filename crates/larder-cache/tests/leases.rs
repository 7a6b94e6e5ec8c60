//! Fills of several nodes: who holds a key's marker may store, and nobody who held it once.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::minute;
use larder_cache::Cache;
use larder_core::{Begin, Clock, Key};
use larder_memory::MemoryBackend;
use larder_testkit::counted::Counted;
use larder_testkit::faulty::{Fault, Faulty, Verb};
use tokio::sync::Notify;

/// Two engines over one store know nothing of each other's computations. The first one's computation begins, and goes on
/// when it is told to.
async fn paused(
    here: &Cache,
    loads: &Counted,
) -> (Arc<Notify>, tokio::task::JoinHandle<Arc<String>>) {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits) = (started.clone(), gate.clone());
    let load = loads.counting(move || async move {
        says.notify_one();
        waits.notified().await;
        Ok::<_, io::Error>("old".to_owned())
    });
    let here = here.clone();
    let first =
        tokio::spawn(async move { here.get_or_compute("k", minute(), load).await.unwrap() });
    started.notified().await;
    (gate, first)
}

#[tokio::test]
async fn a_holder_that_is_paused_beyond_its_lease_replaces_nothing_newer() {
    for remote in [false, true] {
        let (clock, hands) = Clock::manual();
        let store = MemoryBackend::builder().clock(clock).build().unwrap();
        let node = || match remote {
            false => Cache::new(store.clone()),
            true => Cache::new(Faulty::new(store.clone())),
        };
        let (here, there) = (node(), node());
        let loads = Counted::new("the value");
        let (gate, first) = paused(&here, &loads).await;

        // As if this process had been stopped: no time to renew its marker.
        hands.advance(Duration::from_secs(7));
        let new = loads.counting(|| async { Ok::<_, io::Error>("new".to_owned()) });
        assert_eq!(*there.get_or_compute("k", minute(), new).await.unwrap(), "new");
        gate.notify_one();
        assert_eq!(*first.await.unwrap(), "old", "its caller gets what it waited for");
        loads.assert_times(2);
        for node in [&here, &there] {
            assert_eq!(*node.get::<String>("k").await.unwrap().unwrap(), "new", "{remote}");
        }
        // What was stored last is gone as well when it ends, and not replaced by what came late.
        hands.advance(Duration::from_secs(60));
        assert!(here.get::<String>("k").await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_while_a_marker_is_renewed_does_not_hold_up_the_work() {
    let backend = Faulty::new(MemoryBackend::default());
    let faults = backend.faults();
    let hour = Duration::from_secs(3600);
    let cache = Cache::builder(backend).write_budget(hour).build();
    let store = cache.store();
    let key = Key::new(store.namespace(), ["k"]).unwrap();
    let hold = Duration::from_secs(6);
    let Begin::Token(token) = store.begin(&key, hold).await.unwrap() else { panic!("a marker") };
    faults.inject(Fault::Hang, &[Verb::Renew]);
    let begun = tokio::time::Instant::now();
    let work = tokio::time::sleep(Duration::from_secs(5));
    store.holding(&[(key, token)], hold, work).await;
    assert_eq!((begun.elapsed().as_secs(), faults.count(Verb::Renew)), (5, 1));
}

#[tokio::test]
async fn a_holder_that_is_paused_stores_nothing_once_its_marker_has_ended() {
    let (clock, hands) = Clock::manual();
    let store = MemoryBackend::builder().clock(clock).build().unwrap();
    let cache = Cache::new(store);
    let loads = Counted::new("the value");
    let (gate, first) = paused(&cache, &loads).await;
    // Somebody else may have stored and dropped a newer value since.
    hands.advance(Duration::from_secs(7));
    gate.notify_one();
    assert_eq!(*first.await.unwrap(), "old");
    assert!(cache.get::<String>("k").await.unwrap().is_none());
}
