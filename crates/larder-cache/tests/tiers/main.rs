//! A near store before another one: what each node may see, and when.

#[path = "../common/mod.rs"]
mod common;
mod simulation;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::{minute, settle};
use larder_cache::{Cache, Tiered};
use larder_core::{Backend, Clock, ErrorKind, ManualClock, Remaining};
use larder_memory::MemoryBackend;
use larder_testkit::bus::{LocalBus, Weather};
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use larder_testkit::reference::Reference;

/// Nodes that share a store, which is asked like a remote one, and a bus.
struct Fleet {
    memory: Reference,
    bus: LocalBus,
    hands: ManualClock,
}

struct Node {
    cache: Cache,
    tiered: Tiered<Faulty<Reference>>,
    faults: Faults,
}

impl Fleet {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        let memory = Reference::new(clock);
        Fleet { memory, bus: LocalBus::new(), hands }
    }

    async fn node(&self) -> Node {
        let remote = Faulty::new(self.memory.clone());
        let faults = remote.faults();
        let tiered = Tiered::builder(remote).with_bus(self.bus.clone()).unwrap();
        settle().await;
        assert!(tiered.is_near_used());
        Node { cache: Cache::new(tiered.clone()), tiered, faults }
    }

    // Both clocks go on together.
    async fn pass(&self, time: Duration) {
        self.hands.advance(time);
        tokio::time::sleep(time).await;
        settle().await;
    }
}

impl Node {
    async fn read(&self, key: &str) -> Option<String> {
        self.cache.get::<String>(key).await.unwrap().map(|value| value.to_string())
    }

    /// What a read finds, and how often the store was asked for it.
    async fn counted(&self, key: &str) -> (Option<String>, usize) {
        self.faults.forget();
        let value = self.read(key).await;
        (value, self.faults.count(Verb::Get))
    }

    async fn set(&self, key: &str, value: &str) {
        self.cache.set_with(key, value.to_owned(), minute()).await.unwrap();
    }
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_second_read_asks_nobody_and_all_share_one_value() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    node.set("a", "1").await;
    assert_eq!(node.counted("a").await, (some("1"), 1));
    assert_eq!(node.counted("a").await, (some("1"), 0));
    let (one, two) = (node.cache.get::<String>("a").await, node.cache.get::<String>("a").await);
    assert!(Arc::ptr_eq(&one.unwrap().unwrap(), &two.unwrap().unwrap()));
    // Batches too, and only what is missing is asked for.
    node.set("b", "2").await;
    node.faults.forget();
    let found: HashMap<&str, Arc<String>> = node.cache.get_many(["a", "b"]).await.unwrap();
    assert_eq!((found.len(), node.faults.calls()[0].keys.len()), (2, 1));
    node.faults.forget();
    let _: HashMap<&str, Arc<String>> = node.cache.get_many(["a", "b"]).await.unwrap();
    assert_eq!(node.faults.total(), 0);
}

// K10. What a node has told comes back to it, and by then it has read what is new.
#[tokio::test(start_paused = true)]
async fn k10_a_nodes_own_messages_do_not_disturb_it() {
    let late = Duration::from_millis(100);
    let weather = Weather { late, ..Weather::default() };
    let fleet = Fleet { bus: LocalBus::with_weather(1, weather), ..Fleet::new() };
    let (here, there) = (fleet.node().await, fleet.node().await);
    for change in ["set", "touch", "set_many", "invalidate_tag"] {
        match change {
            "set" => here.set("a", change).await,
            "touch" => assert!(here.cache.touch("a", Duration::from_secs(60)).await.unwrap()),
            "set_many" => {
                let all = [("a", change.to_owned())];
                assert_eq!(here.cache.set_many(all, minute()).await.unwrap(), [""; 0]);
            }
            _ => here.cache.invalidate_tag("of something else").await.unwrap(),
        }
        // No time has passed, so no message has arrived.
        let value = here.read("a").await;
        assert_eq!(here.counted("a").await, (value.clone(), 0), "{change}: it is near");
        fleet.pass(late).await;
        assert_eq!(here.counted("a").await, (value.clone(), 0), "{change}: and stays so");
        // The other one was told.
        assert_eq!(there.read("a").await, value, "{change}");
    }
}

#[tokio::test(start_paused = true)]
async fn c44_what_is_kept_near_has_what_is_left_of_its_lifetime() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    node.set("a", "1").await;
    fleet.pass(Duration::from_secs(50)).await;
    assert_eq!(node.counted("a").await, (some("1"), 1));
    fleet.pass(Duration::from_millis(9_900)).await;
    assert_eq!(node.counted("a").await, (some("1"), 0));
    fleet.pass(Duration::from_millis(100)).await;
    assert_eq!(node.read("a").await, None);
    assert_eq!(node.cache.ttl("a").await.unwrap(), Remaining::Absent);
}

#[tokio::test(start_paused = true)]
async fn c47_every_kind_of_change_reaches_the_other_nodes() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    let warm = async || {
        here.set("a", "old").await;
        settle().await;
        for _ in 0..2 {
            assert_eq!(there.read("a").await, some("old"));
        }
        assert_eq!(there.counted("a").await.1, 0, "it is near");
    };
    warm().await;
    here.set("a", "new").await;
    assert_eq!(here.read("a").await, some("new"));
    settle().await;
    assert_eq!(there.counted("a").await, (some("new"), 1));

    warm().await;
    here.cache.delete("a").await.unwrap();
    settle().await;
    assert_eq!(there.read("a").await, None);

    warm().await;
    here.cache.delete_many(["a", "b"]).await.unwrap();
    settle().await;
    assert_eq!(there.read("a").await, None);

    warm().await;
    here.cache.touch("a", Duration::from_secs(1)).await.unwrap();
    settle().await;
    assert_eq!(there.counted("a").await, (some("old"), 1), "its lifetime is read anew");
    fleet.pass(Duration::from_secs(1)).await;
    assert_eq!(there.read("a").await, None);

    warm().await;
    let failed: Vec<&str> = here.cache.set_many([("a", "x".to_owned())], minute()).await.unwrap();
    assert!(failed.is_empty());
    settle().await;
    assert_eq!(there.read("a").await, some("x"));

    warm().await;
    here.cache.clear().await.unwrap();
    settle().await;
    assert_eq!(there.read("a").await, None);

    here.cache.incr_or("n", 1, 0, Duration::from_secs(60)).await.unwrap();
    settle().await;
    assert_eq!(there.cache.get::<i64>("n").await.unwrap().as_deref(), Some(&1));
    assert_eq!(there.cache.get::<i64>("n").await.unwrap().as_deref(), Some(&1));
    here.cache.incr("n", 4).await.unwrap();
    settle().await;
    assert_eq!(there.cache.get::<i64>("n").await.unwrap().as_deref(), Some(&5));
}

#[tokio::test(start_paused = true)]
async fn c51_a_tag_hides_what_is_near_on_every_node_and_nothing_else() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    for (key, tag) in [("a", "red"), ("b", "red"), ("c", "blue")] {
        let options = minute().tag(tag);
        here.cache.set_with(key, key.to_owned(), options).await.unwrap();
    }
    settle().await;
    for node in [&here, &there] {
        for key in ["a", "b", "c"] {
            for _ in 0..3 {
                assert_eq!(node.read(key).await, some(key));
            }
            assert_eq!(node.counted(key).await.1, 0, "{key} is near");
        }
    }
    here.cache.invalidate_tag("red").await.unwrap();
    assert_eq!((here.read("a").await, here.read("b").await), (None, None));
    settle().await;
    assert_eq!((there.read("a").await, there.read("b").await), (None, None));
    assert_eq!(there.counted("c").await, (some("c"), 0));
    // What is made afterwards is seen, and kept.
    there.cache.set_with("a", "new".to_owned(), minute().tag("red")).await.unwrap();
    settle().await;
    for _ in 0..2 {
        assert_eq!(here.read("a").await, some("new"));
    }
    assert_eq!(here.counted("a").await, (some("new"), 0));
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_tag_was_invalidated_before_this_node_knew_the_tag_is_not_kept() {
    let fleet = Fleet::new();
    let here = fleet.node().await;
    here.cache.set_with("a", "old".to_owned(), minute().tag("t")).await.unwrap();
    here.cache.invalidate_tag("t").await.unwrap();
    let late = fleet.node().await;
    for _ in 0..4 {
        assert_eq!(late.read("a").await, None);
    }
    assert_eq!(late.tiered.near_usage().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sequence_that_was_lost_makes_nothing_valid_again() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    here.cache.set_with("a", "old".to_owned(), minute().tag("t")).await.unwrap();
    settle().await;
    for _ in 0..3 {
        assert_eq!(there.read("a").await, some("old"));
    }
    assert_eq!(there.counted("a").await.1, 0);
    // The server is replaced by an empty one behind the near stores: a new sequence, of another epoch.
    let fresh = Reference::new(fleet.memory.clock().clone());
    let other = Tiered::builder(Faulty::new(fresh)).with_bus(fleet.bus.clone()).unwrap();
    settle().await;
    let other = Cache::new(other);
    other.invalidate_tag("t").await.unwrap();
    settle().await;
    assert!(
        there.counted("a").await.1 > 0,
        "the numbers cannot be compared, so the store is asked"
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_that_began_before_a_change_keeps_nothing() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    here.set("a", "old").await;
    settle().await;
    // The answer is on its way for a second; meanwhile the value changes.
    there.faults.inject_times(1, Fault::Late(Duration::from_secs(1)), &[Verb::Get]);
    let reading = tokio::spawn({
        let cache = there.cache.clone();
        async move { cache.get::<String>("a").await.unwrap() }
    });
    settle().await;
    here.set("a", "new").await;
    settle().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(reading.await.unwrap());
    assert_eq!(there.read("a").await, some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_goes_away_is_heard_all_the_same() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    here.set("a", "old").await;
    settle().await;
    there.read("a").await;
    here.faults.inject_times(1, Fault::Delay(Duration::from_millis(50)), &[Verb::Put]);
    let writing = here.cache.set_with("a", "new".to_owned(), minute());
    assert!(larder_testkit::cancel::drop_after(1, writing).await.is_none());
    tokio::time::sleep(Duration::from_millis(100)).await;
    settle().await;
    assert_eq!(there.read("a").await, some("new"));
}

#[tokio::test(start_paused = true)]
async fn nothing_near_is_used_while_the_bus_is_down_and_what_was_told_then_is_told_later() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    here.set("a", "1").await;
    settle().await;
    there.read("a").await;
    assert_eq!(there.counted("a").await.1, 0);
    fleet.bus.cut();
    settle().await;
    assert!(!there.tiered.is_near_used());
    here.set("a", "2").await;
    assert_eq!(there.counted("a").await, (some("2"), 1));
    assert_eq!(there.counted("a").await, (some("2"), 1));
    fleet.bus.mend();
    settle().await;
    assert_eq!(there.counted("a").await, (some("2"), 1));
    assert_eq!(there.counted("a").await, (some("2"), 0));
    // The message that waited arrives now, and costs one more question.
    fleet.pass(Duration::from_secs(2)).await;
    assert_eq!(there.read("a").await, some("2"));
    here.set("a", "3").await;
    settle().await;
    assert_eq!(there.read("a").await, some("3"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_noticed_with_the_next_one() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    here.set("a", "1").await;
    settle().await;
    there.read("a").await;
    fleet.bus.set_weather(Weather { lost: 1.0, ..Weather::default() });
    here.set("a", "2").await;
    settle().await;
    assert_eq!(there.read("a").await, some("1"), "nobody could know");
    fleet.bus.set_weather(Weather::default());
    fleet.pass(Duration::from_millis(1100)).await;
    assert_eq!(there.read("a").await, some("2"), "a heartbeat later");
}

#[tokio::test(start_paused = true)]
async fn a_silent_bus_is_no_bus() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    node.set("a", "1").await;
    settle().await;
    node.read("a").await;
    fleet.bus.set_weather(Weather { lost: 1.0, ..Weather::default() });
    for _ in 0..5 {
        fleet.pass(Duration::from_secs(1)).await;
    }
    assert!(!node.tiered.is_near_used());
    assert_eq!(node.counted("a").await, (some("1"), 1));
    fleet.bus.set_weather(Weather::default());
    fleet.pass(Duration::from_secs(2)).await;
    assert!(node.tiered.is_near_used());
}

#[tokio::test(start_paused = true)]
async fn nothing_near_is_older_than_the_ceiling() {
    let fleet = Fleet::new();
    let remote = Faulty::new(fleet.memory.clone());
    let faults = remote.faults();
    let builder = Tiered::builder(remote).ceiling(Duration::from_secs(2));
    let cache = Cache::new(builder.without_bus().unwrap());
    let writer = Cache::new(Faulty::new(fleet.memory.clone()));
    writer.set_with("a", "1".to_owned(), minute()).await.unwrap();
    let read = async || cache.get::<String>("a").await.unwrap().map(|value| value.to_string());
    assert_eq!(read().await, some("1"));
    writer.set_with("a", "2".to_owned(), minute()).await.unwrap();
    faults.forget();
    assert_eq!((read().await, faults.total()), (some("1"), 0));
    fleet.hands.advance(Duration::from_millis(990));
    assert_eq!((read().await, faults.total()), (some("1"), 0), "half the ceiling is for sure");
    fleet.hands.advance(Duration::from_millis(1020));
    assert_eq!(read().await, some("2"));
    // On this node everything is seen at once.
    cache.set_with("a", "3".to_owned(), minute()).await.unwrap();
    assert_eq!(read().await, some("3"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_change_is_taken_for_one_that_was_made() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    for (verb, change) in [(Verb::Invalidate, 0), (Verb::Remove, 1), (Verb::Put, 2)] {
        here.cache.set_with("a", "1".to_owned(), minute().tag("t")).await.unwrap();
        settle().await;
        for node in [&here, &there] {
            for _ in 0..3 {
                node.read("a").await;
            }
            assert_eq!(node.counted("a").await.1, 0);
        }
        here.faults.inject_times(1, Fault::Fail(ErrorKind::Timeout), &[verb]);
        let strict = here.cache.strict();
        match change {
            0 => strict.invalidate_tag("t").await.unwrap_err(),
            1 => strict.delete("a").await.map(drop).unwrap_err(),
            _ => strict.set("a", "2".to_owned()).await.unwrap_err(),
        };
        settle().await;
        assert!(there.counted("a").await.1 > 0, "{verb:?}: the store is asked");
        here.faults.heal();
        fleet.pass(Duration::from_secs(5)).await;
        here.cache.delete("a").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn computations_and_their_voiding_are_what_they_are_without_a_near_store() {
    let fleet = Fleet::new();
    let (here, there) = (fleet.node().await, fleet.node().await);
    let compute = async |node: &Node, value: &'static str| {
        let options = minute().tag("t");
        let computing = node.cache.get_or_compute("a", options, move || async move {
            Ok::<_, Infallible>(value.to_owned())
        });
        computing.await.unwrap().to_string()
    };
    assert_eq!(compute(&here, "1").await, "1");
    assert_eq!(compute(&there, "2").await, "1");
    here.cache.invalidate_tag("t").await.unwrap();
    settle().await;
    assert_eq!(compute(&there, "2").await, "2");
    assert_eq!(compute(&here, "3").await, "2");
}

#[tokio::test(start_paused = true)]
async fn c52_a_thousand_seeds_of_bad_weather_never_show_more_than_the_table_allows() {
    let seeds = std::env::var("LARDER_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(1000) {
        simulation::run(seed).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_told() {
    let remote = || Faulty::new(MemoryBackend::default());
    let bus = LocalBus::new();
    let words = |error: larder_core::Error| {
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    };
    let error = Tiered::builder(MemoryBackend::default()).with_bus(bus.clone()).unwrap_err();
    assert!(words(error).contains("memory itself"));
    let error = Tiered::builder(remote()).ceiling(Duration::ZERO).without_bus().unwrap_err();
    assert!(words(error).contains("ceiling"));
    let error = Tiered::builder(remote()).heartbeat(Duration::ZERO).with_bus(bus).unwrap_err();
    assert!(words(error).contains("heartbeat"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_dropped_stops_listening() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    assert_eq!(fleet.bus.listeners(), 1);
    drop(node);
    settle().await;
    assert_eq!(fleet.bus.listeners(), 0);
}
