//! Tags that expire: what is kept as a stale value stays as one, all else is gone. Each test runs on a store in this
//! process, on one that is asked like a remote one, and on memory before such a one.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::{Calls, driven, minute, settle};
use larder_cache::{Cache, Failure, Found, Options, Tiered};
use larder_core::{Clock, ManualClock, Tag};
use larder_testkit::bus::LocalBus;
use larder_testkit::faulty::{Faulty, Verb};
use larder_testkit::reference::Reference;

async fn stores() -> Vec<(Cache, ManualClock)> {
    let (clock, hands) = Clock::manual();
    let remote = Cache::new(Faulty::new(Reference::new(clock)));
    let (clock, other_hands) = Clock::manual();
    let tiered = Tiered::builder(Faulty::new(Reference::new(clock)));
    let tiered = Cache::new(tiered.with_bus(LocalBus::new()).unwrap());
    settle().await;
    vec![driven(), (remote, hands), (tiered, other_hands)]
}

/// A minute, and an hour as stale.
fn bridged() -> Options {
    minute().stale_for(Duration::from_secs(3600)).throttle(Duration::from_secs(10))
}

async fn make(cache: &Cache, key: &str, options: Options, value: &str) -> Arc<String> {
    let value = value.to_owned();
    let compute = || async move { Ok::<_, io::Error>(value) };
    cache.get_or_compute(key, options, compute).await.unwrap()
}

async fn fail(
    cache: &Cache,
    key: &str,
    options: Options,
    calls: &Calls,
) -> Result<Arc<String>, Failure> {
    let calls = calls.clone();
    let compute = move || async move {
        calls.add();
        Err::<String, _>(io::Error::other("the source is down"))
    };
    cache.get_or_compute(key, options, compute).await
}

// Near stores keep what is read a second time.
async fn warm(cache: &Cache, key: &str) {
    for _ in 0..3 {
        assert!(cache.contains(key).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_value_is_absent_and_bridges_a_failing_source() {
    for (cache, hands) in stores().await {
        let calls = Calls::default();
        make(&cache, "k", bridged().tag("t"), "old").await;
        warm(&cache, "k").await;
        cache.expire_tag("t").await.unwrap();
        assert!(!cache.contains("k").await.unwrap());
        assert!(cache.get::<String>("k").await.unwrap().is_none());
        assert!(cache.get_many::<String, _>(["k"]).await.unwrap().is_empty());
        let found = cache.lookup::<String>("k").await.unwrap();
        assert!(matches!(&found, Found::Stale(value) if **value == "old"), "{found:?}");
        for _ in 0..3 {
            assert_eq!(*fail(&cache, "k", bridged().tag("t"), &calls).await.unwrap(), "old");
        }
        assert_eq!(calls.get(), 1, "it rests for the throttle");
        hands.advance(Duration::from_secs(10));
        assert_eq!(*fail(&cache, "k", bridged().tag("t"), &calls).await.unwrap(), "old");
        assert_eq!(calls.get(), 2);
        hands.advance(Duration::from_secs(10));
        assert_eq!(*make(&cache, "k", bridged().tag("t"), "new").await, "new");
        warm(&cache, "k").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_as_stale_is_gone() {
    for (cache, _) in stores().await {
        let calls = Calls::default();
        make(&cache, "computed", minute().tag("t"), "old").await;
        cache.set_with("set", "old".to_owned(), minute().tag("t")).await.unwrap();
        cache.set_many([("many", "old".to_owned())], minute().tag("t")).await.unwrap();
        cache.set_with("other", "old".to_owned(), minute().tag("other")).await.unwrap();
        cache.expire_tags(["t", "unheard of"]).await.unwrap();
        for key in ["computed", "set", "many"] {
            assert!(!cache.contains(key).await.unwrap(), "{key}");
            assert!(fail(&cache, key, bridged().tag("t"), &calls).await.is_err(), "{key}");
        }
        assert!(cache.contains("other").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_set_to_be_kept_as_stale_outlasts_being_expired_too() {
    for (cache, _) in stores().await {
        let calls = Calls::default();
        cache.set_with("set", "old".to_owned(), bridged().tag("t")).await.unwrap();
        cache.set_many([("many", "old".to_owned())], bridged().tag("t")).await.unwrap();
        cache.expire_tag("t").await.unwrap();
        for key in ["set", "many"] {
            assert!(!cache.contains(key).await.unwrap(), "{key}");
            assert_eq!(*fail(&cache, key, bridged(), &calls).await.unwrap(), "old", "{key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_value_bridges_nothing_whenever_it_expired() {
    for (cache, _) in stores().await {
        for order in [["expire", "invalidate"], ["invalidate", "expire"], ["invalidate", ""]] {
            let calls = Calls::default();
            make(&cache, "k", bridged().tag("t"), "old").await;
            warm(&cache, "k").await;
            for step in order {
                match step {
                    "expire" => cache.expire_tag("t").await.unwrap(),
                    "invalidate" => cache.invalidate_tag("t").await.unwrap(),
                    _ => {}
                }
            }
            assert!(fail(&cache, "k", bridged().tag("t"), &calls).await.is_err(), "{order:?}");
        }
        // One that stands in already is no exception.
        let calls = Calls::default();
        make(&cache, "k", bridged().tag("t"), "old").await;
        cache.expire_tag("t").await.unwrap();
        fail(&cache, "k", bridged().tag("t"), &calls).await.unwrap();
        assert!(cache.contains("k").await.unwrap(), "it stands in for a while");
        cache.invalidate_tag("t").await.unwrap();
        assert!(!cache.contains("k").await.unwrap());
        assert!(fail(&cache, "k", bridged().tag("t"), &calls).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_stands_in_expires_again() {
    for (cache, _) in stores().await {
        let calls = Calls::default();
        make(&cache, "k", bridged().tag("t"), "old").await;
        for round in 1..4 {
            cache.expire_tag("t").await.unwrap();
            assert!(!cache.contains("k").await.unwrap());
            assert_eq!(*fail(&cache, "k", bridged().tag("t"), &calls).await.unwrap(), "old");
            assert_eq!(calls.get(), round);
            assert!(cache.contains("k").await.unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_expires_with_its_part_and_decides_for_itself_whether_it_stays() {
    for (cache, _) in stores().await {
        for (key, options) in [("stays", bridged()), ("goes", minute())] {
            let calls = Calls::default();
            make(&cache, "part", bridged().tag("t"), "part").await;
            let inner = cache.clone();
            let compute = move || async move {
                let part = inner.get::<String>("part").await?.unwrap();
                Ok::<_, larder_core::Error>(format!("whole of {part}"))
            };
            let whole = cache.get_or_compute(key, options.clone(), compute).await.unwrap();
            assert_eq!(*whole, "whole of part");
            warm(&cache, key).await;
            cache.expire_tag("t").await.unwrap();
            assert!(!cache.contains(key).await.unwrap());
            assert_eq!(fail(&cache, key, options, &calls).await.is_ok(), key == "stays");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_computed_when_its_tag_expires_is_stale_when_it_is_stored() {
    for (cache, _) in stores().await {
        let inner = cache.clone();
        let compute = move || async move {
            inner.expire_tag("t").await?;
            Ok::<_, larder_core::Error>("made before".to_owned())
        };
        let made = cache.get_or_compute("k", bridged().tag("t"), compute).await.unwrap();
        assert_eq!(*made, "made before", "its own caller has it");
        assert!(!cache.contains("k").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_on_another_node_arrives() {
    let (clock, _hands) = Clock::manual();
    let (store, bus) = (Reference::new(clock), LocalBus::new());
    let node = || {
        let tiered = Tiered::builder(Faulty::new(store.clone()));
        Cache::new(tiered.with_bus(bus.clone()).unwrap())
    };
    let (here, there) = (node(), node());
    settle().await;
    make(&here, "k", bridged().tag("t"), "old").await;
    warm(&there, "k").await;
    here.expire_tag("t").await.unwrap();
    settle().await;
    assert!(!there.contains("k").await.unwrap());
    let calls = Calls::default();
    assert_eq!(*fail(&there, "k", bridged().tag("t"), &calls).await.unwrap(), "old");
}

// As without: one command where the tags are named, one more where they are not.
#[tokio::test(start_paused = true)]
async fn it_costs_no_round_trip() {
    let (clock, _hands) = Clock::manual();
    let backend = Faulty::new(Reference::new(clock));
    let faults = backend.faults();
    let cache = Cache::new(backend);
    let asked = || {
        let verbs: Vec<Verb> = faults.calls().iter().map(|call| call.verb).collect();
        faults.forget();
        verbs.into_iter().filter(|verb| *verb != Verb::Peek).collect::<Vec<_>>()
    };
    make(&cache, "k", bridged().tag("t"), "value").await;
    assert_eq!(asked(), [Verb::Get, Verb::Marks, Verb::Begin, Verb::Put]);
    make(&cache, "k", bridged().tag("t"), "another").await;
    assert_eq!(asked(), [Verb::Get]);
    cache.get::<String>("k").await.unwrap().unwrap();
    assert_eq!(asked(), [Verb::Get, Verb::Get]);
    cache.expire_tag("t").await.unwrap();
    cache.invalidate_tag("t").await.unwrap();
    assert_eq!(asked(), [Verb::Invalidate, Verb::Invalidate]);
}

#[test]
fn nobody_takes_the_name_of_a_twin() {
    let tag = Tag::new("t").unwrap();
    assert!(Tag::new(tag.lasting().as_str()).is_err());
    assert_eq!(Tag::written(tag.lasting().as_str()).unwrap(), tag.lasting());
    assert_eq!(tag.lasting().expiring(), Some(tag.clone()));
    assert_eq!((tag.lasting().lasting(), tag.expiring()), (tag.lasting(), None));
}
