//! A cache before a durable store: what is lost with either of them, and what a reader may see.

use std::sync::Arc;
use std::time::Duration;

use larder_cache::{Failover, WriteThrough};
use larder_core::{
    Backend, Begin, Clock, Encoded, Entry, ErrorKind, Key, ManualClock, Namespace, Outcome,
    Remaining, Tag, Ttl, When,
};
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use larder_testkit::reference::Reference;

type Node = WriteThrough<Faulty<Reference>, Faulty<Reference>>;

const DOWN: Fault = Fault::Fail(ErrorKind::Unavailable);
const HOUR: Ttl = Ttl::For(Duration::from_secs(3600));

/// Nodes that share both stores, each with its own way to them.
struct Scene {
    cache: Reference,
    durable: Reference,
    hands: ManualClock,
}

impl Scene {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        Scene { cache: Reference::new(clock.clone()), durable: Reference::new(clock), hands }
    }

    fn node(&self) -> Node {
        let (cache, durable) = (Faulty::new(self.cache.clone()), Faulty::new(self.durable.clone()));
        WriteThrough::builder(cache, durable).build().unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.hands.advance(Duration::from_secs(seconds));
    }
}

fn cache(node: &Node) -> Faults {
    node.cache().faults()
}

fn durable(node: &Node) -> Faults {
    node.durable().faults()
}

fn key(name: &str) -> Key {
    Key::new(&shop(), ["d", name]).unwrap()
}

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn text(text: &str) -> Entry {
    Entry::wire(Encoded { codec: 200, body: text.to_owned().into(), ..Encoded::default() })
}

async fn put(store: &impl Backend, name: &str, value: &str) {
    let outcome = store.put(&key(name), text(value), HOUR, When::Always).await.unwrap();
    assert_eq!(outcome, Outcome::Stored);
}

async fn read(store: &impl Backend, name: &str) -> Option<String> {
    let entry = store.get(&key(name), &[]).await.unwrap().entry?;
    Some(String::from_utf8(entry.encoded().unwrap().body.to_vec()).unwrap())
}

// How often the durable store is asked by something.
async fn asked<T>(node: &Node, action: impl Future<Output = T>) -> usize {
    durable(node).forget();
    action.await;
    durable(node).calls().iter().filter(|call| call.verb != Verb::Peek).count()
}

#[tokio::test(start_paused = true)]
async fn a_second_read_asks_the_cache_alone() {
    let scene = Scene::new();
    let (here, there) = (scene.node(), scene.node());
    put(&here, "k", "v").await;
    assert_eq!(asked(&here, read(&here, "k")).await, 1);
    for node in [&here, &there] {
        assert_eq!(asked(node, read(node, "k")).await, 0);
    }
    put(&there, "k", "w").await;
    assert_eq!(read(&here, "k").await.as_deref(), Some("w"));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_checked_when_it_is_as_old_as_the_ceiling() {
    let scene = Scene::new();
    let node = scene.node();
    put(&node, "k", "v").await;
    read(&node, "k").await;
    // By somebody who knows of no cache.
    put(&scene.durable, "k", "w").await;
    scene.pass(27);
    assert_eq!(read(&node, "k").await.as_deref(), Some("v"));
    scene.pass(3);
    assert_eq!(read(&node, "k").await.as_deref(), Some("w"));
    assert_eq!(asked(&node, read(&node, "k")).await, 0, "and copied anew");
    scene.durable.remove(&key("k"), None).await.unwrap();
    scene.pass(30);
    assert_eq!(read(&node, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn c116_a_cache_that_is_gone_or_empty_loses_nothing() {
    let scene = Scene::new();
    let node = scene.node();
    put(&node, "before", "1").await;
    read(&node, "before").await;
    cache(&node).inject(DOWN, &Verb::ALL);
    assert_eq!(read(&node, "before").await.as_deref(), Some("1"));
    put(&node, "before", "2").await;
    put(&node, "during", "3").await;
    assert_eq!(read(&node, "before").await.as_deref(), Some("2"));
    assert_eq!(read(&node, "during").await.as_deref(), Some("3"));
    cache(&node).heal();
    // Its copy from before the outage is not read by who has changed it.
    assert_eq!(read(&node, "before").await.as_deref(), Some("2"));
    scene.pass(60);
    scene.cache.clear(&shop()).await.unwrap();
    assert_eq!(read(&node, "before").await.as_deref(), Some("2"));
    let left = Remaining::For(Duration::from_secs(3540));
    assert_eq!(node.remaining(&key("before")).await.unwrap(), left);
    assert_eq!(scene.cache.remaining(&key("before")).await.unwrap(), left, "the copy's too");
}

#[tokio::test(start_paused = true)]
async fn c116_a_durable_store_that_is_gone_is_an_error() {
    let scene = Scene::new();
    let node = scene.node();
    put(&node, "copied", "1").await;
    put(&node, "not copied", "1").await;
    read(&node, "copied").await;
    durable(&node).inject(DOWN, &Verb::ALL);
    assert!(node.put(&key("k"), text("v"), HOUR, When::Always).await.is_err());
    assert!(node.remove(&key("k"), None).await.is_err());
    assert!(node.get(&key("not copied"), &[]).await.is_err());
    assert_eq!(read(&node, "copied").await.as_deref(), Some("1"));
    assert!(node.put(&key("copied"), text("2"), HOUR, When::Always).await.is_err());
    // It may have been done, so the copy is no longer read.
    assert!(node.get(&key("copied"), &[]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_could_not_drop_a_copy_shows_it_nowhere_beyond_the_ceiling() {
    let scene = Scene::new();
    let (here, there) = (scene.node(), scene.node());
    put(&here, "k", "old").await;
    read(&here, "k").await;
    cache(&here).inject(DOWN, &Verb::ALL);
    put(&here, "k", "new").await;
    cache(&here).heal();
    assert_eq!(read(&here, "k").await.as_deref(), Some("new"));
    assert_eq!(read(&there, "k").await.as_deref(), Some("old"), "which is what the docs say");
    scene.pass(30);
    assert_eq!(read(&there, "k").await.as_deref(), Some("new"));
    assert_eq!(read(&here, "k").await.as_deref(), Some("new"));
}

// A reader asks the durable store, the entry is replaced, and only then what was read reaches the cache.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_does_not_put_back_what_was_replaced() {
    for reachable in [true, false] {
        let scene = Scene::new();
        let (here, there) = (scene.node(), scene.node());
        put(&scene.durable, "k", "old").await;
        let begun = scene.cache.begin(&key("k"), Duration::from_secs(2)).await.unwrap();
        let Begin::Token(token) = begun else { panic!("{begun:?}") };
        if !reachable {
            cache(&here).inject(DOWN, &Verb::ALL);
        }
        put(&here, "k", "new").await;
        cache(&here).heal();
        scene.pass(1);
        let late = scene.cache.put(&key("k"), text("old"), HOUR, When::Token(token)).await.unwrap();
        assert_eq!(late == Outcome::Refused, reachable);
        assert_eq!(read(&here, "k").await.as_deref(), Some("new"));
        scene.pass(29);
        assert_eq!(read(&there, "k").await.as_deref(), Some("new"));
        assert_eq!(read(&here, "k").await.as_deref(), Some("new"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_overtaken_by_a_writer_keeps_no_copy() {
    let scene = Scene::new();
    let (reader, writer) = (Arc::new(scene.node()), scene.node());
    put(&writer, "k", "old").await;
    durable(&reader).inject_times(1, Fault::Late(Duration::from_millis(40)), &[Verb::Get]);
    let slow = reader.clone();
    let slow = tokio::spawn(async move { read(&*slow, "k").await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    put(&writer, "k", "new").await;
    assert_eq!(slow.await.unwrap().as_deref(), Some("old"), "it was asked before");
    for node in [&*reader, &writer] {
        assert_eq!(read(node, "k").await.as_deref(), Some("new"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_the_cache_has_not_confirmed_is_an_error_and_can_be_repeated() {
    let scene = Scene::new();
    let node = scene.node();
    put(&node, "k", "v").await;
    read(&node, "k").await;
    cache(&node).inject_times(1, DOWN, &[Verb::RemoveMany]);
    assert!(node.remove(&key("k"), None).await.is_err());
    assert_eq!(read(&node, "k").await, None, "this node knows");
    assert!(!node.remove(&key("k"), None).await.unwrap(), "it was gone from the durable store");
    assert!(scene.cache.get(&key("k"), &[]).await.unwrap().entry.is_none());

    put(&node, "k", "v").await;
    cache(&node).inject_times(1, DOWN, &[Verb::Clear]);
    assert!(node.clear(&shop()).await.is_err());
    assert_eq!(read(&node, "k").await, None);
    node.clear(&shop()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_goes_away_drops_the_copy_all_the_same() {
    let scene = Scene::new();
    let node = scene.node();
    put(&node, "k", "old").await;
    read(&node, "k").await;
    durable(&node).inject_times(1, Fault::Late(Duration::from_millis(40)), &[Verb::Put]);
    let k = key("k");
    let put = node.put(&k, text("new"), HOUR, When::Always);
    assert!(tokio::time::timeout(Duration::from_millis(10), Box::pin(put)).await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(read(&node, "k").await.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_does_not_answer_costs_its_patience_and_then_nothing() {
    let scene = Scene::new();
    let node = scene.node();
    put(&node, "k", "v").await;
    cache(&node).inject(Fault::Hang, &Verb::ALL);
    let begun = tokio::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(read(&node, "k").await.as_deref(), Some("v"));
    }
    assert!(begun.elapsed() <= Duration::from_millis(255), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_has_tags_or_counts_is_the_durable_stores_alone() {
    let scene = Scene::new();
    let node = scene.node();
    let marks = node.marks(&shop(), &[Tag::new("t").unwrap()]).await.unwrap();
    let tagged = text("v").with_tags([Tag::new("t").unwrap()]).with_built_at(marks.sequence);
    let _ = node.put(&key("tagged"), tagged, HOUR, When::Always).await.unwrap();
    let _ = node.put(&key("counter"), Entry::integer(7), HOUR, When::Always).await.unwrap();
    for name in ["tagged", "counter"] {
        for _ in 0..3 {
            assert!(node.get(&key(name), &[]).await.unwrap().entry.is_some());
        }
        assert!(scene.cache.get(&key(name), &[]).await.unwrap().entry.is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn ids_that_nobody_has_leave_nothing_behind() {
    let scene = Scene::new();
    let node = scene.node();
    for n in 0..10_000 {
        assert!(read(&node, &n.to_string()).await.is_none());
    }
    for n in 0..10_000 {
        let begun = scene.cache.begin(&key(&n.to_string()), Duration::from_secs(1)).await.unwrap();
        assert!(matches!(begun, Begin::Token(_)), "no marker is left");
    }
}

#[test]
fn what_cannot_be_is_refused_with_words() {
    let (clock, _) = Clock::manual();
    let store = || Reference::new(clock.clone());
    let words = |built: larder_core::Result<WriteThrough<Reference, Reference>>| {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    };
    let other = Reference::new(Clock::system());
    assert!(words(WriteThrough::builder(store(), other).build()).contains("clock"));
    let builder = || WriteThrough::builder(store(), store());
    assert!(words(builder().ceiling(Duration::ZERO).build()).contains("ceiling"));
    assert!(words(builder().patience(Duration::ZERO).build()).contains("patience"));
    let pair = Failover::builder(store(), store()).build().unwrap();
    let error = WriteThrough::builder(store(), pair).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}
