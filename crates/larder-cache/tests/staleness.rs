//! Stale values, timeouts, refreshing ahead, and what a computation decides. Each test runs on a store in this process
//! and on one that is asked like a remote one.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::{Calls, driven, faulty, minute, settle};
use larder_cache::{Cache, Computed, Failure, Found, Options};
use larder_core::{ManualClock, Remaining};
use tokio::sync::Notify;

type Outcome = Result<Arc<String>, Failure>;

fn stores() -> Vec<(Cache, ManualClock)> {
    let (remote, _, hands) = faulty();
    vec![driven(), (remote, hands)]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A minute, and an hour as stale.
fn bridged() -> Options {
    minute().stale_for(seconds(3600)).throttle(seconds(10))
}

async fn good(cache: &Cache, options: Options, calls: &Calls, value: &str) -> Outcome {
    let (calls, value) = (calls.clone(), value.to_owned());
    let compute = move || async move {
        calls.add();
        Ok::<_, io::Error>(value)
    };
    cache.get_or_compute("k", options, compute).await
}

async fn bad(cache: &Cache, options: Options, calls: &Calls) -> Outcome {
    let calls = calls.clone();
    let compute = move || async move {
        calls.add();
        Err::<String, _>(io::Error::other("the source is down"))
    };
    cache.get_or_compute("k", options, compute).await
}

async fn stuck(cache: &Cache, options: Options, calls: &Calls, gate: &Arc<Notify>) -> Outcome {
    let (calls, gate) = (calls.clone(), gate.clone());
    let compute = move || async move {
        calls.add();
        gate.notified().await;
        Ok::<_, io::Error>("new".to_owned())
    };
    cache.get_or_compute("k", options, compute).await
}

#[tokio::test(start_paused = true)]
async fn c33_a_failing_computation_gives_the_stale_value_and_rests_for_the_throttle() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        good(&cache, bridged(), &calls, "old").await.unwrap();
        hands.advance(seconds(61));
        for _ in 0..3 {
            assert_eq!(*bad(&cache, bridged(), &calls).await.unwrap(), "old");
            assert_eq!(calls.get(), 2, "one try, and then none for the throttle's time");
        }
        hands.advance(seconds(11));
        assert_eq!(*bad(&cache, bridged(), &calls).await.unwrap(), "old");
        assert_eq!(calls.get(), 3);
        hands.advance(seconds(11));
        assert_eq!(*good(&cache, bridged(), &calls, "new").await.unwrap(), "new");
        assert_eq!(*bad(&cache, bridged(), &calls).await.unwrap(), "new", "and fresh for a minute");
        assert_eq!(calls.get(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn c33_a_panic_and_a_missed_deadline_are_failures_too() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        good(&cache, bridged(), &calls, "old").await.unwrap();
        hands.advance(seconds(61));
        let panics =
            || async { if true { panic!("oh") } else { Ok::<_, io::Error>(String::new()) } };
        assert_eq!(*cache.get_or_compute("k", bridged(), panics).await.unwrap(), "old");
        hands.advance(seconds(11));
        let late = bridged().deadline(seconds(5));
        let outcome = stuck(&cache, late, &calls, &Arc::default()).await;
        assert_eq!(*outcome.unwrap(), "old");
    }
}

#[tokio::test(start_paused = true)]
async fn c34_without_stale_for_the_failure_is_returned() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        good(&cache, bridged(), &calls, "old").await.unwrap();
        hands.advance(seconds(61));
        let failure = bad(&cache, minute(), &calls).await.unwrap_err();
        assert!(failure.downcast_ref::<io::Error>().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn c35_nothing_is_used_beyond_its_staleness_however_often_it_bridged() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        good(&cache, bridged(), &calls, "old").await.unwrap();
        hands.advance(seconds(60));
        let mut bridges = 0;
        for _ in 0..360 {
            hands.advance(seconds(10));
            match bad(&cache, bridged(), &calls).await {
                Ok(value) => assert_eq!(*value, "old"),
                Err(_) => break,
            }
            bridges += 1;
        }
        assert_eq!(bridges, 359, "an hour, less the moment of its end");
        assert!(matches!(cache.lookup::<String>("k").await.unwrap(), Found::Missing));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_absent_to_every_other_verb() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        good(&cache, bridged().tag("t"), &calls, "old").await.unwrap();
        assert!(cache.contains("k").await.unwrap());
        hands.advance(seconds(60));
        assert!(cache.get::<String>("k").await.unwrap().is_none());
        assert!(cache.get_tagged::<String>("k", &["t"]).await.unwrap().is_none());
        assert!(cache.get_many::<String, _>(["k"]).await.unwrap().is_empty());
        assert!(!cache.contains("k").await.unwrap());
        match cache.lookup::<String>("k").await.unwrap() {
            Found::Stale(value) => assert_eq!(*value, "old"),
            other => panic!("{other:?}"),
        }
        cache.invalidate_tag("t").await.unwrap();
        assert!(!matches!(cache.lookup::<String>("k").await.unwrap(), Found::Stale(_)));
        assert!(
            bad(&cache, bridged().tag("t"), &calls).await.is_err(),
            "and never when invalidated"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn c36_c38_after_the_soft_timeout_the_stale_value_is_given_and_the_new_one_comes_later() {
    for (cache, hands) in stores() {
        let (calls, gate) = (Calls::default(), Arc::new(Notify::new()));
        let options = || bridged().soft_timeout(Duration::from_millis(100));
        good(&cache, options(), &calls, "old").await.unwrap();
        hands.advance(seconds(61));
        for _ in 0..3 {
            assert_eq!(*stuck(&cache, options(), &calls, &gate).await.unwrap(), "old");
            assert_eq!(calls.get(), 2, "one computation, that those who came later join");
        }
        gate.notify_one();
        settle().await;
        assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "new");
        assert_eq!(cache.store().flights(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn c36_without_a_stale_value_the_soft_timeout_does_nothing() {
    for (cache, _) in stores() {
        let (calls, gate) = (Calls::default(), Arc::new(Notify::new()));
        let late = gate.clone();
        tokio::spawn(async move {
            tokio::time::sleep(seconds(2)).await;
            late.notify_one();
        });
        let options = bridged().soft_timeout(Duration::from_millis(100));
        assert_eq!(*stuck(&cache, options, &calls, &gate).await.unwrap(), "new");
    }
}

#[tokio::test(start_paused = true)]
async fn c37_after_the_hard_timeout_there_is_an_error_and_the_value_is_stored_later() {
    for (cache, hands) in stores() {
        let (calls, gate) = (Calls::default(), Arc::new(Notify::new()));
        let options = || bridged().hard_timeout(seconds(1));
        for _ in 0..3 {
            let failure = stuck(&cache, options(), &calls, &gate).await.unwrap_err();
            assert!(failure.is_timeout(), "{failure}");
            assert_eq!(calls.get(), 1);
        }
        gate.notify_one();
        settle().await;
        assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "new");
        hands.advance(seconds(61));
        assert_eq!(*stuck(&cache, options(), &calls, &gate).await.unwrap(), "new", "the stale one");
        gate.notify_one();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn c39_a_hit_past_the_threshold_is_answered_at_once_and_starts_one_refresh() {
    for (cache, hands) in stores() {
        let (calls, gate) = (Calls::default(), Arc::new(Notify::new()));
        let options = || minute().refresh_after(seconds(45));
        good(&cache, options(), &calls, "old").await.unwrap();
        hands.advance(seconds(44));
        assert_eq!(*stuck(&cache, options(), &calls, &gate).await.unwrap(), "old");
        assert_eq!(calls.get(), 1, "not before the threshold");
        hands.advance(seconds(1));
        for _ in 0..5 {
            assert_eq!(*stuck(&cache, options(), &calls, &gate).await.unwrap(), "old");
            settle().await;
            assert_eq!(calls.get(), 2, "exactly one");
        }
        // Who misses while it is refreshed waits for it.
        hands.advance(seconds(15));
        let (waiting, counted, never) = (cache.clone(), calls.clone(), gate.clone());
        let missed = tokio::spawn(async move { stuck(&waiting, minute(), &counted, &never).await });
        settle().await;
        assert!(!missed.is_finished());
        gate.notify_one();
        assert_eq!(*missed.await.unwrap().unwrap(), "new");
        assert_eq!(calls.get(), 2);
        hands.advance(seconds(59));
        assert!(cache.contains("k").await.unwrap(), "for another minute");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_value_as_it_is() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        let options = || minute().refresh_after(seconds(30));
        good(&cache, options(), &calls, "old").await.unwrap();
        hands.advance(seconds(30));
        assert_eq!(*bad(&cache, options(), &calls).await.unwrap(), "old");
        settle().await;
        assert_eq!(calls.get(), 2);
        hands.advance(seconds(29));
        assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "old");
        hands.advance(seconds(1));
        assert!(!cache.contains("k").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_invalidated_while_it_is_refreshed_is_not_brought_back() {
    for (cache, hands) in stores() {
        let (calls, gate) = (Calls::default(), Arc::new(Notify::new()));
        let options = || minute().refresh_after(seconds(30)).tag("t");
        good(&cache, options(), &calls, "old").await.unwrap();
        hands.advance(seconds(30));
        assert_eq!(*stuck(&cache, options(), &calls, &gate).await.unwrap(), "old");
        settle().await;
        cache.invalidate_tag("t").await.unwrap();
        gate.notify_one();
        settle().await;
        assert!(cache.get::<String>("k").await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_that_is_deleted_while_its_successor_fails_does_not_come_back() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        good(&cache, bridged(), &calls, "old").await.unwrap();
        hands.advance(seconds(61));
        let gate = Arc::new(Notify::new());
        let (own, opens) = (cache.clone(), gate.clone());
        let failing = tokio::spawn(async move {
            let compute = move || async move {
                opens.notified().await;
                Err::<String, _>(io::Error::other("down"))
            };
            own.get_or_compute("k", bridged(), compute).await
        });
        settle().await;
        cache.delete("k").await.unwrap();
        gate.notify_one();
        let _ = failing.await.unwrap();
        assert!(matches!(cache.lookup::<String>("k").await.unwrap(), Found::Missing));
    }
}

#[tokio::test(start_paused = true)]
async fn c41_jitter_only_shortens_by_a_tenth_at_most_and_only_what_is_computed() {
    for (cache, _) in stores() {
        let mut shortened = 0;
        for n in 0..200_u64 {
            let options = Options::ttl(seconds(1000)).jitter(5.0);
            let compute = move || async move { Ok::<_, io::Error>(vec![n]) };
            cache.get_or_compute(format!("c{n}"), options.clone(), compute).await.unwrap();
            let Remaining::For(left) = cache.ttl(format!("c{n}")).await.unwrap() else { panic!() };
            assert!(left <= seconds(1000) && left >= seconds(900), "{left:?}");
            shortened += u32::from(left < seconds(1000));
            cache.set_with(format!("s{n}"), vec![n], options).await.unwrap();
            let left = cache.ttl(format!("s{n}")).await.unwrap();
            assert_eq!(left, Remaining::For(seconds(1000)), "what is set is not computed");
        }
        assert!(shortened > 150);
    }
}

#[tokio::test(start_paused = true)]
async fn c42_a_computation_decides_lifetime_tags_and_whether_it_is_stored() {
    for (cache, hands) in stores() {
        let options = minute().tag("ours");
        let decide = |_: Option<Arc<String>>| async {
            let made = Computed::new("value".to_owned()).ttl(seconds(5)).tag("theirs");
            Ok::<_, io::Error>(made)
        };
        for drop_by in ["ours", "theirs"] {
            cache.get_or_compute_with("k", options.clone(), decide).await.unwrap();
            assert_eq!(cache.ttl("k").await.unwrap(), Remaining::For(seconds(5)));
            assert!(cache.contains("k").await.unwrap());
            cache.invalidate_tag(drop_by).await.unwrap();
            assert!(!cache.contains("k").await.unwrap(), "{drop_by}");
        }
        cache.get_or_compute_with("k", options.clone(), decide).await.unwrap();
        hands.advance(seconds(5));
        assert!(!cache.contains("k").await.unwrap());

        let calls = Calls::default();
        for _ in 0..3 {
            let calls = calls.clone();
            let compute = move |_| async move {
                calls.add();
                Ok::<_, io::Error>(Computed::new("not for keeping".to_owned()).unstored())
            };
            let value = cache.get_or_compute_with("k", options.clone(), compute).await.unwrap();
            assert_eq!(*value, "not for keeping");
        }
        assert_eq!(calls.get(), 3);
        assert!(!cache.contains("k").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn c43_a_refresh_is_given_the_previous_value_and_may_say_unchanged() {
    for (cache, hands) in stores() {
        let calls = Calls::default();
        let ask = |calls: Calls, unchanged: bool| {
            move |previous: Option<Arc<String>>| async move {
                calls.add();
                Ok::<_, io::Error>(match previous {
                    Some(_) if unchanged => Computed::unchanged(),
                    Some(previous) => Computed::new(format!("after {previous}")),
                    None => Computed::new("first".to_owned()),
                })
            }
        };
        let options = || bridged().tag("t");
        let first = cache.get_or_compute_with("k", options(), ask(calls.clone(), true)).await;
        let first = first.unwrap();
        hands.advance(seconds(61));
        let same =
            cache.get_or_compute_with("k", options(), ask(calls.clone(), true)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &same) || !cache.store().abilities().local);
        assert_eq!(*same, "first");
        assert_eq!(calls.get(), 2);
        assert!(cache.contains("k").await.unwrap(), "fresh again");
        hands.advance(seconds(59));
        assert!(cache.contains("k").await.unwrap(), "for a whole minute");
        hands.advance(seconds(2));
        let after = cache.get_or_compute_with("k", options(), ask(calls.clone(), false)).await;
        assert_eq!(*after.unwrap(), "after first");
        cache.invalidate_tag("t").await.unwrap();
        let anew = cache.get_or_compute_with("k", options(), ask(calls.clone(), true)).await;
        assert_eq!(*anew.unwrap(), "first", "an invalidated value is no previous one");
    }
    let (cache, _) = driven();
    let wrong = |_| async { Ok::<_, io::Error>(Computed::<String>::unchanged()) };
    assert!(cache.get_or_compute_with("nothing", minute(), wrong).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn own_tags_are_obeyed_by_those_who_waited() {
    // The flight does not know the tag, so an invalidation does not detach it: whoever came after it looks again.
    for (cache, _) in stores() {
        let (calls, gate) = (Calls::default(), Arc::new(Notify::new()));
        let ask = |cache: Cache, calls: Calls, gate: Arc<Notify>| async move {
            let compute = move |_| async move {
                let call = calls.add();
                if call == 1 {
                    gate.notified().await;
                }
                Ok::<_, io::Error>(Computed::new(format!("{call}")).tag("own"))
            };
            cache.get_or_compute_with("k", minute(), compute).await
        };
        let first = tokio::spawn(ask(cache.clone(), calls.clone(), gate.clone()));
        settle().await;
        cache.invalidate_tag("own").await.unwrap();
        let second = tokio::spawn(ask(cache.clone(), calls.clone(), gate.clone()));
        settle().await;
        gate.notify_one();
        assert_eq!(*first.await.unwrap().unwrap(), "1", "it asked before");
        assert_eq!(*second.await.unwrap().unwrap(), "2");
        assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "2");
    }
}

// 40. How many of 400 values that took ten seconds to make are made anew by a hit so long before their end.
async fn early(left: u64, beta: f64) -> Vec<usize> {
    let mut counts = Vec::new();
    for (cache, hands) in stores() {
        let options = || minute().early_refresh(beta);
        for key in 0..400_u64 {
            let compute = || async {
                tokio::time::sleep(seconds(10)).await;
                Ok::<_, io::Error>("old".to_owned())
            };
            cache.get_or_compute(("k", key), options(), compute).await.unwrap();
        }
        hands.advance(seconds(60 - left));
        let calls = Calls::default();
        for key in 0..400_u64 {
            let counted = calls.clone();
            let compute = move || async move {
                counted.add();
                Ok::<_, io::Error>("new".to_owned())
            };
            let read = cache.get_or_compute(("k", key), options(), compute).await.unwrap();
            assert_eq!(*read, "old", "a hit does not wait");
        }
        settle().await;
        counts.push(calls.get());
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn c40_early_refreshes_grow_towards_the_end() {
    // e^(-left / cost): 0.2 %, 13.5 % and 61 % of them, and six standard deviations.
    for (left, expected) in [(60, 0..=10), (20, 13..=95), (5, 180..=305)] {
        for count in early(left, 1.0).await {
            assert!(expected.contains(&count), "{count} of 400 with {left} s left");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c40_zero_is_never_early_and_infinity_always() {
    assert_eq!(early(1, 0.0).await, [0, 0]);
    assert_eq!(early(60, f64::INFINITY).await, [400, 400]);
    assert_eq!(early(1, f64::NAN).await, [0, 0]);
}
