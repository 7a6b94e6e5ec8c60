//! Tags: one call, however many entries, and right about values that were being made meanwhile.

mod common;

use std::time::Duration;

use common::{driven, minute};
use larder_cache::{Cache, Options};
use larder_core::{Backend, Encoded, Entry, Key, Sequence, Tag, Ttl, When};
use larder_memory::MemoryBackend;
use larder_testkit::faulty::{Faulty, Verb};
use larder_testkit::reference::Reference;

#[tokio::test]
async fn a_tag_drops_what_carries_it_and_nothing_else() {
    let (cache, _) = driven();
    cache.set_with("both", 1_u64, minute().tag("a").tag("b")).await.unwrap();
    cache.set_with("b", 2_u64, minute().tag("b")).await.unwrap();
    cache.set("none", 3_u64).await.unwrap();
    cache.invalidate_tag("a").await.unwrap();
    assert!(!cache.contains("both").await.unwrap());
    assert!(cache.contains("b").await.unwrap());
    assert!(cache.contains("none").await.unwrap());
    cache.invalidate_tags(["a", "b", "unheard of"]).await.unwrap();
    assert!(!cache.contains("b").await.unwrap());
    assert!(cache.contains("none").await.unwrap());
}

#[tokio::test]
async fn what_is_stored_after_an_invalidation_is_there() {
    let (cache, _) = driven();
    for round in 0..3_u64 {
        cache.set_with("k", vec![round], minute().tag("t")).await.unwrap();
        assert!(cache.contains("k").await.unwrap(), "round {round}");
        cache.invalidate_tag("t").await.unwrap();
        assert!(!cache.contains("k").await.unwrap(), "round {round}");
    }
}

#[tokio::test]
async fn tags_of_another_namespace_are_others() {
    let (cache, _) = driven();
    let other = cache.namespace("other").unwrap();
    cache.set_with("k", 1_u64, minute().tag("t")).await.unwrap();
    other.invalidate_tag("t").await.unwrap();
    assert!(cache.contains("k").await.unwrap());
}

#[tokio::test]
async fn invalidating_costs_the_same_for_one_entry_and_for_many() {
    // `scripts/soak` runs this with a million.
    let many = std::env::var("LARDER_ENTRIES").map_or(10_000, |n| n.parse().unwrap());
    let backend = MemoryBackend::builder().max_bytes(4 << 30).build().unwrap();
    let backend = Faulty::new(backend);
    let faults = backend.faults();
    let cache = Cache::new(backend);
    let mut cost = Vec::new();
    for entries in [1, many] {
        for key in 0..entries {
            cache.set_with(("k", key), 1_u64, minute().tag("t")).await.unwrap();
        }
        faults.forget();
        cache.invalidate_tag("t").await.unwrap();
        cost.push(faults.total());
    }
    assert_eq!(cost, [1, 1]);
    for key in [0, many / 2, many - 1] {
        assert!(!cache.contains(("k", key)).await.unwrap());
    }
}

#[tokio::test]
async fn set_many_and_get_many_obey_tags() {
    let (cache, _) = driven();
    cache.set_many([("a", 1_u64), ("b", 2)], minute().tag("t")).await.unwrap();
    cache.set_many([("c", 3_u64)], minute()).await.unwrap();
    assert_eq!(cache.get_many::<u64, _>(["a", "b", "c"]).await.unwrap().len(), 3);
    cache.invalidate_tag("t").await.unwrap();
    let left = cache.get_many::<u64, _>(["a", "b", "c"]).await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), [&"c"]);
}

/// A store that keeps tags as records and checks nothing itself, as every remote one does.
fn remote() -> (Cache, Reference, larder_testkit::faulty::Faults) {
    let reference = Reference::new(larder_core::Clock::system());
    let backend = Faulty::new(reference.clone());
    let faults = backend.faults();
    (Cache::new(backend), reference, faults)
}

#[tokio::test]
async fn named_tags_ride_along_and_others_cost_one_more_call() {
    let (cache, _, faults) = remote();
    cache.set_with("k", vec![1_u64], minute().tag("a")).await.unwrap();
    let asked = |faults: &larder_testkit::faulty::Faults| {
        let calls: Vec<_> = faults.calls().into_iter().map(|call| call.verb).collect();
        faults.forget();
        calls.into_iter().filter(|verb| *verb != Verb::Peek).collect::<Vec<_>>()
    };
    asked(&faults);
    assert!(cache.get_tagged::<Vec<u64>>("k", &["a"]).await.unwrap().is_some());
    assert_eq!(asked(&faults), [Verb::Get]);
    assert!(cache.get::<Vec<u64>>("k").await.unwrap().is_some());
    assert_eq!(asked(&faults), [Verb::Get, Verb::Get]);
    cache.invalidate_tag("a").await.unwrap();
    asked(&faults);
    assert!(cache.get_tagged::<Vec<u64>>("k", &["a"]).await.unwrap().is_none());
    assert!(cache.get::<Vec<u64>>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn an_invalidated_entry_is_replaced_by_the_next_computation() {
    let (cache, _, _) = remote();
    for round in 0..3_u64 {
        let options = minute().tag("a");
        let made =
            cache
                .get_or_compute("k", options, move || async move {
                    Ok::<_, std::io::Error>(vec![round])
                })
                .await
                .unwrap();
        assert_eq!(*made, [round]);
        assert_eq!(cache.get::<Vec<u64>>("k").await.unwrap().as_deref(), Some(&vec![round]));
        cache.invalidate_tag("a").await.unwrap();
        assert!(cache.get::<Vec<u64>>("k").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn evicted_tag_records_never_bring_an_entry_back() {
    let (cache, reference, _) = remote();
    let namespace = cache.store().namespace().clone();
    cache.set_with("k", vec![1_u64], minute().tag("a")).await.unwrap();
    cache.invalidate_tag("a").await.unwrap();
    let record = Key::tag(&namespace, &Tag::new("a").unwrap());
    reference.remove(&record, None).await.unwrap();
    assert!(cache.get_tagged::<Vec<u64>>("k", &["a"]).await.unwrap().is_none());
    assert!(cache.get::<Vec<u64>>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_sequence_makes_everything_tagged_a_miss() {
    let (cache, reference, _) = remote();
    let namespace = cache.store().namespace().clone();
    cache.set_with("k", vec![1_u64], minute().tag("a")).await.unwrap();
    reference.remove(&Key::sequence(&namespace), None).await.unwrap();
    cache.invalidate_tag("another").await.unwrap(); // a new sequence begins
    assert!(cache.get::<Vec<u64>>("k").await.unwrap().is_none());
    cache.set_with("k", vec![2_u64], minute().tag("a")).await.unwrap();
    assert!(cache.get::<Vec<u64>>("k").await.unwrap().is_some(), "and new ones are there");
}

#[tokio::test]
async fn an_entry_without_a_number_is_never_valid_for_its_tags() {
    // What a writer forgot to number could never be invalidated; it is not believed.
    let (cache, reference, _) = remote();
    let key = Key::new(cache.store().namespace(), ["d", "k"]).unwrap();
    let entry = Entry::wire(Encoded { codec: 2, body: "\u{1}".into(), ..Encoded::default() })
        .with_tags([Tag::new("a").unwrap()])
        .with_built_at(Sequence::NONE);
    let _ = reference.put(&key, entry, Ttl::Default, When::Always).await.unwrap();
    assert!(cache.get::<u8>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn a_wall_clock_an_hour_off_changes_nothing() {
    let (clock, hands) = larder_core::Clock::manual();
    let backend = MemoryBackend::builder().clock(clock).build().unwrap();
    let cache = Cache::new(backend);
    cache.set_with("k", 1_u64, Options::ttl(Duration::from_secs(60)).tag("t")).await.unwrap();
    hands.skew_wall(Duration::from_secs(3600), true);
    cache.invalidate_tag("t").await.unwrap();
    assert!(!cache.contains("k").await.unwrap());
    cache.set_with("k", 2_u64, minute().tag("t")).await.unwrap();
    hands.skew_wall(Duration::from_secs(7200), false);
    assert!(cache.contains("k").await.unwrap());
}
