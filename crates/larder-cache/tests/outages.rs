//! A store that is down: bounded waiting, no lies, nothing brought back.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::{faulty, minute, settle};
use larder_cache::Cache;
use larder_core::ErrorKind;
use larder_memory::MemoryBackend;
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use tokio::sync::Notify;

// A node whose store fails when told to, and another one.
fn two_nodes() -> (Faults, Cache, Cache) {
    let memory = MemoryBackend::default();
    let store = Faulty::new(memory.clone());
    (store.faults(), Cache::new(store), Cache::new(memory))
}

const DOWN: Fault = Fault::Fail(ErrorKind::Unavailable);

#[tokio::test]
async fn reads_are_misses_and_sets_are_done_without_effect() {
    let (cache, faults, _) = faulty();
    faults.inject(DOWN, &Verb::ALL);
    assert!(cache.get::<u64>("k").await.unwrap().is_none());
    assert!(!cache.contains("k").await.unwrap());
    assert!(cache.get_many::<u64, _>(["k"]).await.unwrap().is_empty());
    cache.set("k", 1_u64).await.unwrap();
    assert_eq!(cache.set_many([("k", 1_u64)], minute()).await.unwrap(), ["k"]);
}

#[tokio::test]
async fn what_would_be_a_guess_is_an_error() {
    let (cache, faults, _) = faulty();
    faults.inject(DOWN, &Verb::ALL);
    let kind = |error: larder_core::Error| error.kind();
    assert_eq!(kind(cache.add("k", 1_u64, minute()).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(cache.incr("k", 1).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(
        kind(cache.touch("k", Duration::from_secs(1)).await.unwrap_err()),
        ErrorKind::Unavailable
    );
    assert_eq!(kind(cache.ttl("k").await.unwrap_err()), ErrorKind::Unavailable);
    assert!(cache.delete("k").await.is_err());
    assert!(cache.invalidate_tag("t").await.is_err());
    assert!(cache.clear().await.is_err());
}

#[tokio::test]
async fn a_strict_handle_tells_every_error() {
    let (cache, faults, _) = faulty();
    faults.inject(DOWN, &Verb::ALL);
    let strict = cache.strict();
    assert!(strict.get::<u64>("k").await.is_err());
    assert!(strict.contains("k").await.is_err());
    assert!(strict.get_many::<u64, _>(["k"]).await.is_err());
    assert!(strict.set("k", 1_u64).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_one_budget_and_then_nothing() {
    let (cache, faults, hands) = faulty();
    faults.inject(Fault::Hang, &[Verb::Get]);
    let start = tokio::time::Instant::now();
    assert!(cache.get::<u64>("k").await.unwrap().is_none());
    assert_eq!(start.elapsed(), Duration::from_millis(100));
    for _ in 0..4 {
        assert!(cache.get::<u64>("k").await.unwrap().is_none());
    }
    // Five in a row: from here on nobody waits, and the store is left alone.
    let (waited, asked) = (start.elapsed(), faults.count(Verb::Get));
    for _ in 0..1000 {
        assert!(cache.get::<u64>("k").await.unwrap().is_none());
    }
    assert_eq!((start.elapsed(), faults.count(Verb::Get)), (waited, asked));

    // After the pause one probe asks, and finds it healthy again.
    faults.heal();
    hands.advance(Duration::from_secs(1));
    assert!(cache.get::<u64>("k").await.unwrap().is_none());
    assert_eq!(faults.count(Verb::Get), asked + 1);
    cache.set("k", 1_u64).await.unwrap();
    assert!(cache.get::<u64>("k").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_many_calls_sends_probes_only() {
    let (cache, faults, hands) = faulty();
    faults.inject(DOWN, &Verb::ALL);
    for second in 0..60 {
        for _ in 0..100 {
            cache.get::<u64>("k").await.unwrap();
        }
        let asked = faults.count(Verb::Get);
        assert!(asked <= 5 + second, "{asked} calls in {second} s");
        hands.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_callers_mistake_never_opens_the_breaker() {
    let (cache, faults, _) = faulty();
    cache.set("text", "no number".to_owned()).await.unwrap();
    for _ in 0..100 {
        assert_eq!(cache.incr("text", 1).await.unwrap_err().kind(), ErrorKind::NotAnInteger);
    }
    assert!(cache.contains("text").await.unwrap());
    assert_eq!(faults.count(Verb::Add), 100);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_failed_is_told_and_its_value_stays_away() {
    let (cache, faults, hands) = faulty();
    cache.set("k", "old".to_owned()).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::Remove]);
    assert!(cache.delete("k").await.is_err());
    // The store works again and still has it; this node knows better.
    assert!(cache.get::<String>("k").await.unwrap().is_none());
    assert!(!cache.contains("k").await.unwrap());
    assert!(cache.get_many::<String, _>(["k"]).await.unwrap().is_empty());

    // The removal is tried again by itself, and then the key is free.
    hands.advance(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(faults.count(Verb::RemoveMany), 1);
    cache.set("k", "new".to_owned()).await.unwrap();
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_began_before_a_second_failure_frees_nothing() {
    let (faults, cache, other) = two_nodes();
    cache.set("k", "old".to_owned()).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::Remove]);
    assert!(cache.delete("k").await.is_err());
    faults.inject_times(1, Fault::Late(Duration::from_millis(50)), &[Verb::RemoveMany]);
    while faults.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.set("k", "newer".to_owned()).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::Remove]);
    assert!(cache.delete("k").await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(faults.count(Verb::RemoveMany), 1, "the first retry is over");
    assert!(cache.get::<String>("k").await.unwrap().is_none());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(faults.count(Verb::RemoveMany), 2);
    assert!(!other.contains("k").await.unwrap());
    other.set("k", "newest".to_owned()).await.unwrap();
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "newest");
}

#[tokio::test(start_paused = true)]
async fn a_removal_whose_answer_is_late_does_not_free_what_failed_after_it() {
    let (faults, cache, other) = two_nodes();
    cache.set("k", "old".to_owned()).await.unwrap();
    faults.inject_times(1, Fault::Late(Duration::from_millis(50)), &[Verb::Remove]);
    let late = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.delete("k").await })
    };
    while faults.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    other.set("k", "newer".to_owned()).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::Remove]);
    assert!(cache.delete("k").await.is_err());
    assert!(late.await.unwrap().unwrap());
    assert!(cache.get::<String>("k").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_removed_comes_back_by_no_way() {
    let (cache, faults, _) = faulty();
    cache.set("k", "old".to_owned()).await.unwrap();
    cache.set("n", 5_i64).await.unwrap();
    for key in ["k", "n"] {
        faults.inject_times(1, DOWN, &[Verb::Remove]);
        assert!(cache.delete(key).await.is_err());
        // So that the breaker stays out of it.
        cache.set("well", 1_u64).await.unwrap();
    }
    assert!(!cache.touch("k", Duration::from_secs(60)).await.unwrap());
    let new =
        cache.get_or_compute("k", minute(), || async { Ok::<_, io::Error>("new".to_owned()) });
    assert_eq!(*new.await.unwrap(), "new");
    assert_eq!(
        cache.incr_or("n", 1, 0, Duration::from_secs(60)).await.unwrap(),
        1,
        "not what was there"
    );
}

#[tokio::test(start_paused = true)]
async fn a_computation_that_is_older_than_a_failed_delete_does_not_free_its_key() {
    let (cache, faults, hands) = faulty();
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits, own) = (started.clone(), gate.clone(), cache.clone());
    let computing = tokio::spawn(async move {
        let compute = move || async move {
            says.notify_one();
            waits.notified().await;
            Ok::<_, io::Error>("old".to_owned())
        };
        own.get_or_compute("k", minute(), compute).await
    });
    started.notified().await;
    faults.inject_times(1, DOWN, &[Verb::Remove]);
    assert!(cache.delete("k").await.is_err());
    gate.notify_one();
    assert_eq!(*computing.await.unwrap().unwrap(), "old");
    assert_eq!(faults.count(Verb::Put), 1, "the store knows nothing of the removal");
    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
    hands.advance(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(faults.count(Verb::RemoveMany), 1);
    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_ever_is_waiting_for_long() {
    let (cache, ..) = faulty();
    let options = || minute().wait(Duration::MAX);
    let compute = || async { Ok::<_, io::Error>("value".to_owned()) };
    assert_eq!(*cache.get_or_compute("k", options(), compute).await.unwrap(), "value");
    let lock = cache.lock("l", Duration::MAX, Duration::MAX).await.unwrap().expect("it is free");
    let token = lock.hand_over();
    assert!(cache.resume_lock("l", token, Duration::MAX).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_value_that_could_not_be_replaced_is_not_read_any_more() {
    let (cache, faults, hands) = faulty();
    let tagged = || minute().tag("t");
    let keys = ["alone", "tagged", "batch", "tagged batch", "lost"];
    for key in keys {
        cache.set_with(key, "old".to_owned(), tagged()).await.unwrap();
    }
    faults.inject_times(1, DOWN, &[Verb::Put]);
    cache.set("alone", "new".to_owned()).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::Marks]);
    cache.set_with("tagged", "new".to_owned(), tagged()).await.unwrap();
    let new = |key: &'static str| [(key, "new".to_owned())];
    // So that the breaker stays out of it.
    cache.set("well", 1_u64).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::PutMany]);
    assert_eq!(cache.set_many(new("batch"), minute()).await.unwrap(), ["batch"]);
    faults.inject_times(1, DOWN, &[Verb::Marks]);
    assert_eq!(cache.set_many(new("tagged batch"), tagged()).await.unwrap(), ["tagged batch"]);
    // It was carried out, and nobody was told.
    cache.set("well", 1_u64).await.unwrap();
    faults.inject_times(1, Fault::Lose(ErrorKind::Timeout), &[Verb::Put]);
    cache.set("lost", "new".to_owned()).await.unwrap();
    for key in keys {
        assert_eq!(cache.get::<String>(key).await.unwrap(), None, "{key}");
    }
    // What is only added replaces nothing.
    cache.set("added", "old".to_owned()).await.unwrap();
    faults.inject_times(1, DOWN, &[Verb::Put]);
    assert!(cache.add("added", "new".to_owned(), minute()).await.is_err());
    assert_eq!(*cache.get::<String>("added").await.unwrap().unwrap(), "old");

    // Other nodes are told with the removal, which is tried by itself.
    hands.advance(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(faults.count(Verb::RemoveMany), 1);
    for key in keys {
        assert!(cache.add(key, "newest".to_owned(), minute()).await.unwrap(), "{key}");
        assert_eq!(*cache.get::<String>(key).await.unwrap().unwrap(), "newest");
    }
}

#[tokio::test]
async fn a_new_value_frees_a_barred_key() {
    let (cache, faults, _) = faulty();
    cache.set("k", "old".to_owned()).await.unwrap();
    faults.inject_times(1, Fault::Lose(ErrorKind::Timeout), &[Verb::Remove]);
    assert!(cache.delete("k").await.is_err());
    cache.set("k", "new".to_owned()).await.unwrap();
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn too_many_failed_deletes_bar_and_then_clear_the_namespace() {
    let (cache, faults, hands) = faulty();
    cache.set("kept", 1_u64).await.unwrap();
    faults.inject(DOWN, &[Verb::RemoveMany]);
    let keys: Vec<u64> = (0..70_000).collect();
    assert!(cache.delete_many(keys).await.is_err());
    assert!(cache.get::<u64>("kept").await.unwrap().is_none(), "the whole namespace is barred");
    faults.heal();
    hands.advance(Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(10)).await;
    settle().await;
    assert!(faults.count(Verb::Clear) >= 1);
    cache.set("k", 2_u64).await.unwrap();
    assert!(cache.get::<u64>("k").await.unwrap().is_some());
}

#[tokio::test]
async fn no_value_key_or_secret_is_in_an_errors_text() {
    let (cache, faults, _) = faulty();
    faults.inject(DOWN, &Verb::ALL);
    let strict = cache.strict();
    let error = strict.set("canary-key", "canary-value".to_owned()).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("canary"), "{text}");
}
