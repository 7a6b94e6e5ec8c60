//! `get_or_compute`: one computation, whoever is cancelled, fails or panics, and never an old value after an
//! invalidation.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::{Calls, driven, faulty, minute, settle};
use larder_cache::{Cache, Computed, Failure, Options};
use larder_core::ErrorKind;
use larder_testkit::cancel::drop_after;
use larder_testkit::faulty::{Fault, Verb};
use tokio::sync::{Notify, Semaphore};

type Outcome = Result<Arc<String>, Failure>;

fn text(value: &str) -> Result<String, io::Error> {
    Ok(value.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_callers_of_a_cold_key_compute_once() {
    let (cache, _) = driven();
    let calls = Calls::default();
    let gate = Arc::new(Semaphore::new(0));
    let callers: Vec<_> = (0..10_000)
        .map(|_| {
            let (cache, calls, gate) = (cache.clone(), calls.clone(), gate.clone());
            tokio::spawn(async move {
                let compute = move || async move {
                    calls.add();
                    let _ = gate.acquire().await;
                    text("value")
                };
                cache.get_or_compute("cold", minute(), compute).await
            })
        })
        .collect();
    settle().await;
    gate.add_permits(1);
    let mut values = Vec::new();
    for caller in callers {
        values.push(caller.await.unwrap().unwrap());
    }
    assert_eq!(calls.get(), 1);
    assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])), "all share one value");
    assert_eq!(cache.store().flights(), 0);
}

#[tokio::test]
async fn different_keys_do_not_wait_for_each_other() {
    let (cache, _) = driven();
    let stuck = cache.get_or_compute("stuck", minute(), || async {
        std::future::pending::<()>().await;
        text("never")
    });
    assert!(drop_after(1, stuck).await.is_none());
    let free = cache.get_or_compute("free", minute(), || async { text("value") }).await;
    assert_eq!(*free.unwrap(), "value");
}

#[tokio::test]
async fn the_leader_dropped_at_every_poll_leaves_nobody_hanging_and_it_computes_once() {
    for polls in 0..20 {
        let (cache, _) = driven();
        let calls = Calls::default();
        let compute = |calls: Calls| {
            move || async move {
                calls.add();
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
                text("value")
            }
        };
        let leader = cache.get_or_compute("k", minute(), compute(calls.clone()));
        let finished = drop_after(polls, leader).await.is_some();
        let followers =
            (0..100).map(|_| cache.get_or_compute("k", minute(), compute(calls.clone())));
        for follower in futures_util::future::join_all(followers).await {
            assert_eq!(*follower.unwrap(), "value", "dropped after {polls} polls");
        }
        assert_eq!(calls.get(), 1, "dropped after {polls} polls, finished: {finished}");
        assert_eq!(cache.store().flights(), 0);
    }
}

#[tokio::test]
async fn when_all_callers_have_left_it_completes_and_is_stored() {
    let (cache, _) = driven();
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let caller = cache.get_or_compute("k", minute(), move || async move {
        opened.notified().await;
        text("value")
    });
    assert!(drop_after(1, caller).await.is_none());
    settle().await;
    gate.notify_one();
    settle().await;
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "value");
}

#[tokio::test]
async fn a_panic_frees_every_caller_with_an_error_and_the_next_one_can_compute() {
    let (cache, _) = driven();
    let calls = Calls::default();
    let callers = (0..100).map(|_| {
        let calls = calls.clone();
        cache.get_or_compute("k", minute(), move || async move {
            calls.add();
            tokio::task::yield_now().await;
            if true {
                panic!("on purpose");
            }
            text("never")
        })
    });
    for outcome in futures_util::future::join_all(callers).await {
        assert!(outcome.unwrap_err().is_panic());
    }
    assert_eq!(calls.get(), 1);
    let next = cache.get_or_compute("k", minute(), || async { text("value") }).await;
    assert_eq!(*next.unwrap(), "value");
}

#[tokio::test]
async fn a_panic_before_there_is_a_future_is_caught_too() {
    let (cache, _) = driven();
    let outcome: Outcome = cache
        .get_or_compute("k", minute(), || {
            if true {
                panic!("on purpose");
            }
            async { text("never") }
        })
        .await;
    assert!(outcome.unwrap_err().is_panic());
    assert_eq!(cache.store().flights(), 0);
}

#[tokio::test]
async fn an_error_is_given_to_every_caller_and_nothing_is_stored() {
    let (cache, _) = driven();
    let calls = Calls::default();
    let callers = (0..10).map(|_| {
        let calls = calls.clone();
        cache.get_or_compute("k", minute(), move || async move {
            calls.add();
            tokio::task::yield_now().await;
            Err::<String, _>(io::Error::other("no database"))
        })
    });
    for outcome in futures_util::future::join_all(callers).await {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.downcast_ref::<io::Error>().unwrap().to_string(), "no database");
    }
    assert_eq!(calls.get(), 1);
    assert!(!cache.contains("k").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_computation_that_takes_too_long_is_given_up() {
    let (cache, _) = driven();
    let options = minute().deadline(Duration::from_secs(5));
    let stuck = || async {
        std::future::pending::<()>().await;
        text("never")
    };
    let outcome: Outcome = cache.get_or_compute("k", options, stuck).await;
    assert!(outcome.unwrap_err().is_deadline());
    let next = cache.get_or_compute("k", minute(), || async { text("value") }).await;
    assert_eq!(*next.unwrap(), "value");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_so_long_and_then_computes_for_itself() {
    let (cache, _) = driven();
    let stuck = cache.get_or_compute("k", minute(), || async {
        std::future::pending::<()>().await;
        text("never")
    });
    assert!(drop_after(1, stuck).await.is_none());
    let options = minute().wait(Duration::from_secs(1));
    let own = cache.get_or_compute("k", options, || async { text("own") }).await;
    assert_eq!(*own.unwrap(), "own");
}

#[tokio::test(start_paused = true)]
async fn a_computation_that_asks_for_its_own_key_does_not_deadlock() {
    let (cache, _) = driven();
    let inner = cache.clone();
    let outcome = cache
        .get_or_compute("k", minute(), move || async move {
            let nested = inner.get_or_compute("k", minute(), || async { text("inner") }).await;
            nested.map(|value| format!("outer of {value}"))
        })
        .await;
    assert_eq!(*outcome.unwrap(), "outer of inner");
}

/// Starts a computation of "old" that waits; invalidates by `invalidate`; then lets it go on.
async fn invalidated_meanwhile<F: Future<Output = ()>>(
    cache: &Cache,
    options: Options,
    invalidate: impl FnOnce(Cache) -> F,
) -> Outcome {
    let started = Arc::new(Notify::new());
    let gate = Arc::new(Notify::new());
    let (says, waits) = (started.clone(), gate.clone());
    let running = cache.clone();
    let first = tokio::spawn(async move {
        let compute = move || async move {
            says.notify_one();
            waits.notified().await;
            text("old")
        };
        running.get_or_compute("k", options, compute).await
    });
    started.notified().await;
    invalidate(cache.clone()).await;
    gate.notify_one();
    first.await.unwrap()
}

#[tokio::test]
async fn invalidating_during_a_computation_never_leaves_the_old_value_readable() {
    for (cache, name) in [(driven().0, "memory"), (faulty().0, "remote")] {
        let tagged = || minute().tag("products");
        for what in ["delete", "tag", "clear", "key", "delete_many"] {
            let outcome = invalidated_meanwhile(&cache, tagged(), |cache| async move {
                match what {
                    "delete" => drop(cache.delete("k").await.unwrap()),
                    "tag" => cache.invalidate_tag("products").await.unwrap(),
                    "clear" => cache.clear().await.unwrap(),
                    "key" => cache.invalidate_key("k").await.unwrap(),
                    _ => drop(cache.delete_many(["k"]).await.unwrap()),
                }
            })
            .await;
            // Whoever asked before gets what was computed for it; nobody else does.
            assert_eq!(*outcome.unwrap(), "old");
            let read = cache.get::<String>("k").await.unwrap();
            assert_eq!(read, None, "{name}: {what}");
            let later = cache.get_or_compute("k", tagged(), || async { text("new") }).await;
            assert_eq!(*later.unwrap(), "new", "{name}: {what}");
            cache.clear().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_value_set_during_a_computation_stays() {
    for (cache, name) in [(driven().0, "memory"), (faulty().0, "remote")] {
        let outcome = invalidated_meanwhile(&cache, minute(), |cache| async move {
            cache.set("k", "set".to_owned()).await.unwrap();
        })
        .await;
        assert_eq!(*outcome.unwrap(), "old");
        assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "set", "{name}");
    }
}

#[tokio::test]
async fn callers_that_come_after_an_invalidation_do_not_join_the_old_computation() {
    let (cache, _) = driven();
    let late = Arc::new(Notify::new());
    let told = late.clone();
    let outcome = invalidated_meanwhile(&cache, minute().tag("t"), |cache| async move {
        cache.invalidate_tag("t").await.unwrap();
        let options = minute().tag("t");
        let later = cache.get_or_compute("k", options, || async { text("new") }).await;
        assert_eq!(*later.unwrap(), "new", "while the old computation is still running");
        told.notify_one();
    })
    .await;
    late.notified().await;
    assert_eq!(*outcome.unwrap(), "old");
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn another_tag_and_another_key_disturb_no_computation() {
    let (cache, _) = driven();
    let outcome = invalidated_meanwhile(&cache, minute().tag("a"), |cache| async move {
        cache.invalidate_tag("b").await.unwrap();
        cache.delete("other").await.unwrap();
        cache.namespace("other").unwrap().clear().await.unwrap();
    })
    .await;
    assert_eq!(*outcome.unwrap(), "old");
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "old", "it is stored");
}

#[tokio::test]
async fn a_value_removed_on_another_node_is_not_brought_back_by_a_running_computation() {
    // Two engines over one store: they know nothing of each other's computations.
    let backend = larder_memory::MemoryBackend::default();
    let (here, there) = (Cache::new(backend.clone()), Cache::new(backend));
    for what in ["delete", "tag", "clear", "set"] {
        let outcome = invalidated_meanwhile(&here, minute().tag("t"), |_| async {
            match what {
                "delete" => drop(there.delete("k").await.unwrap()),
                "tag" => there.invalidate_tag("t").await.unwrap(),
                "clear" => there.clear().await.unwrap(),
                _ => there.set("k", "set".to_owned()).await.unwrap(),
            }
        })
        .await;
        assert_eq!(*outcome.unwrap(), "old");
        let read = there.get::<String>("k").await.unwrap();
        let expected = (what == "set").then(|| Arc::new("set".to_owned()));
        assert_eq!(read, expected, "{what}");
        here.clear().await.unwrap();
    }
}

#[tokio::test]
async fn those_who_waited_for_a_voided_computation_compute_anew() {
    for what in ["delete", "tag", "tag of what is not stored"] {
        let backend = larder_memory::MemoryBackend::default();
        let (here, there) = (Cache::new(backend.clone()), Cache::new(backend));
        let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (says, waits, cache) = (started.clone(), gate.clone(), here.clone());
        let first = tokio::spawn(async move {
            let compute = move |_: Option<Arc<String>>| async move {
                says.notify_one();
                waits.notified().await;
                let value = Computed::new("old".to_owned());
                let value = if what.ends_with("stored") { value.unstored() } else { value };
                Ok::<_, io::Error>(value)
            };
            cache.get_or_compute_with("k", minute().tag("t"), compute).await
        });
        started.notified().await;
        match what {
            "delete" => drop(there.delete("k").await.unwrap()),
            _ => there.invalidate_tag("t").await.unwrap(),
        }
        // It comes after that, and this node does not know of it.
        let cache = here.clone();
        let late = tokio::spawn(async move {
            cache.get_or_compute("k", minute().tag("t"), || async { text("new") }).await
        });
        settle().await;
        gate.notify_one();
        assert_eq!(*first.await.unwrap().unwrap(), "old");
        assert_eq!(*late.await.unwrap().unwrap(), "new", "{what}");
    }
}

#[tokio::test]
async fn ten_thousand_random_races_leave_no_old_value() {
    // The source is a number that only grows; a reader must never see less than it was before the reader's invalidation.
    use std::sync::atomic::{AtomicU64, Ordering};
    let cache = Cache::memory();
    let source = Arc::new(AtomicU64::new(0));
    let read = |cache: Cache, source: Arc<AtomicU64>| async move {
        let compute = move || async move {
            let seen = source.load(Ordering::SeqCst);
            for _ in 0..rand_turns() {
                tokio::task::yield_now().await;
            }
            Ok::<_, io::Error>(vec![seen])
        };
        cache.get_or_compute("k", minute().tag("t"), compute).await.unwrap()[0]
    };
    for round in 0..10_000_u64 {
        let running = tokio::spawn(read(cache.clone(), source.clone()));
        for _ in 0..rand_turns() {
            tokio::task::yield_now().await;
        }
        let now = source.fetch_add(1, Ordering::SeqCst) + 1;
        if round % 2 == 0 {
            cache.invalidate_tag("t").await.unwrap();
        } else {
            cache.delete("k").await.unwrap();
        }
        assert!(read(cache.clone(), source.clone()).await >= now, "round {round}");
        running.await.unwrap();
        let left = cache.get::<Vec<u64>>("k").await.unwrap();
        assert!(left.is_none_or(|left| left[0] >= now), "round {round}");
    }
}

fn rand_turns() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u32 % 6
}

#[tokio::test]
async fn cancelled_callers_on_distinct_keys_leave_nothing_behind() {
    // `scripts/soak` runs this with a million.
    let count = std::env::var("LARDER_CANCELLED").map_or(20_000, |n| n.parse().unwrap());
    let (cache, _) = driven();
    for key in 0..count {
        let caller = cache.get_or_compute(("k", key), Options::ttl(Duration::ZERO), || async {
            tokio::task::yield_now().await;
            text("value")
        });
        assert!(drop_after(1, caller).await.is_none());
        if key % 1000 == 0 {
            settle().await;
        }
    }
    settle().await;
    assert_eq!(cache.store().flights(), 0);
    let prefix = larder_core::Prefix::new(cache.store().namespace());
    let left = cache.store().page(&prefix, None, 10).await.unwrap();
    assert!(left.keys.is_empty(), "{} keys are left", left.keys.len());
}

#[tokio::test]
async fn one_key_asked_for_as_two_types_computes_and_hangs_nobody() {
    let (cache, _) = driven();
    let number = cache.get_or_compute("k", minute(), || async {
        tokio::task::yield_now().await;
        Ok::<_, io::Error>(vec![7_u8])
    });
    let string = cache.get_or_compute("k", minute(), || async { text("value") });
    let (number, string) = tokio::join!(number, string);
    assert_eq!(*number.unwrap(), [7]);
    assert!(string.is_err(), "told, not mixed up");
}

#[tokio::test]
async fn the_same_key_in_two_caches_is_two_computations() {
    let (one, two) = (driven().0, driven().0);
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    let first = one.clone();
    let running = tokio::spawn(async move {
        let compute = move || async move {
            waits.notified().await;
            text("one")
        };
        first.get_or_compute("k", minute(), compute).await
    });
    settle().await;
    let second = two.get_or_compute("k", minute(), || async { text("two") }).await;
    assert_eq!(*second.unwrap(), "two");
    gate.notify_one();
    assert_eq!(*running.await.unwrap().unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_in_every_way_costs_no_value() {
    for fault in [
        Fault::Fail(ErrorKind::Unavailable),
        Fault::Lose(ErrorKind::Timeout),
        Fault::Hang,
        Fault::Delay(Duration::from_secs(60)),
    ] {
        let (cache, faults, _) = faulty();
        faults.inject(fault, &Verb::ALL);
        let calls = Calls::default();
        let callers = (0..100).map(|_| {
            let calls = calls.clone();
            cache.get_or_compute("k", minute().tag("t"), move || async move {
                calls.add();
                text("value")
            })
        });
        for outcome in futures_util::future::join_all(callers).await {
            assert_eq!(*outcome.unwrap(), "value", "{fault:?}");
        }
        assert_eq!(calls.get(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_given_all_the_same() {
    let cache = Cache::connect("memory://?max_bytes=64KiB&max_entry_bytes=4KiB").await.unwrap();
    let large = cache.get_or_compute("k", minute(), || async { text(&"x".repeat(100_000)) }).await;
    assert_eq!(large.unwrap().len(), 100_000);
    assert!(!cache.contains("k").await.unwrap());
}

#[tokio::test]
async fn an_unusable_tag_is_told_before_anything_is_computed() {
    let (cache, _) = driven();
    let calls = Calls::default();
    let counted = calls.clone();
    let outcome: Outcome = cache
        .get_or_compute("k", minute().tag(""), move || async move {
            counted.add();
            text("never")
        })
        .await;
    assert_eq!(outcome.unwrap_err().as_cache_error().unwrap().kind(), ErrorKind::InvalidKey);
    assert_eq!(calls.get(), 0);
}

#[tokio::test]
async fn who_comes_while_a_value_is_stored_waits_for_that_and_computes_nothing() {
    for here in [false, true] {
        let (cache, faults, hands) = faulty();
        let calls = Calls::default();
        let ask = || {
            let (cache, calls) = (cache.clone(), calls.clone());
            tokio::spawn(async move {
                let options = minute().stale_for(Duration::from_secs(600));
                let make = move || text(&calls.add().to_string());
                match here {
                    true => cache.get_or_compute_sync("key", options, make).await.unwrap(),
                    false => {
                        let compute = move || async move { make() };
                        cache.get_or_compute("key", options, compute).await.unwrap()
                    }
                }
            })
        };
        for expected in ["1", "2"] {
            faults.inject(Fault::Hang, &[Verb::Put]);
            let first = ask();
            while faults.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            let late = ask();
            settle().await;
            assert!(!late.is_finished());
            faults.heal();
            assert_eq!(*first.await.unwrap(), expected, "here: {here}");
            assert_eq!(*late.await.unwrap(), expected, "here: {here}");
            hands.advance(Duration::from_secs(61));
        }
    }
}
