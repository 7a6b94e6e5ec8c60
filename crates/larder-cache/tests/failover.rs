//! A store that is gone, and the one that stands in for it.

mod common;

use std::convert::Infallible;
use std::time::Duration;

use common::{Calls, minute};
use larder_cache::{Cache, Failover};
use larder_core::{
    Backend, Begin, Clock, Encoded, Entry, ErrorKind, Key, ManualClock, Namespace, Outcome, Prefix,
    Remaining, Tag, Ttl, When,
};
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use larder_testkit::reference::Reference;

type Pair = Failover<Faulty<Reference>, Faulty<Reference>>;

const DOWN: Fault = Fault::Fail(ErrorKind::Unavailable);

struct Scene {
    pair: Pair,
    first: Faults,
    second: Faults,
    hands: ManualClock,
}

fn scene() -> Scene {
    let (clock, hands) = Clock::manual();
    let store = || Faulty::new(Reference::new(clock.clone()));
    let pair = Failover::builder(store(), store()).build().unwrap();
    let (first, second) = (pair.primary().faults(), pair.standby().faults());
    Scene { pair, first, second, hands }
}

impl Scene {
    fn cache(&self) -> Cache {
        Cache::new(self.pair.clone())
    }

    // Has the second store take over.
    async fn go_over(&self) {
        self.first.inject(DOWN, &Verb::ALL);
        for _ in 0..3 {
            let _ = self.pair.get(&key("over"), &[]).await;
        }
        assert!(self.pair.is_over());
    }

    // Has the first store come back.
    async fn come_back(&self) {
        self.first.heal();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!self.pair.is_over());
    }
}

fn shop() -> Namespace {
    Namespace::new("larder").unwrap()
}

fn key(name: &str) -> Key {
    Key::new(&shop(), ["d", name]).unwrap()
}

fn text(text: &str) -> Entry {
    Entry::wire(Encoded { codec: 200, body: text.to_owned().into(), ..Encoded::default() })
}

async fn put(store: &impl Backend, name: &str, value: &str) {
    let outcome = store.put(&key(name), text(value), Ttl::Forever, When::Always).await.unwrap();
    assert_eq!(outcome, Outcome::Stored);
}

async fn read(store: &impl Backend, name: &str) -> Option<String> {
    let entry = store.get(&key(name), &[]).await.unwrap().entry?;
    Some(String::from_utf8(entry.encoded().unwrap().body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_second_takes_over_with_the_third_failure_in_a_row() {
    let scene = scene();
    put(&scene.pair, "k", "first").await;
    for _ in 0..5 {
        scene.first.inject_times(2, DOWN, &[Verb::Get]);
        assert!(scene.pair.get(&key("k"), &[]).await.is_err());
        assert!(scene.pair.get(&key("k"), &[]).await.is_err());
        assert_eq!(read(&scene.pair, "k").await.as_deref(), Some("first"), "not in a row");
    }
    scene.first.inject(DOWN, &Verb::ALL);
    for _ in 0..2 {
        assert!(scene.pair.get(&key("k"), &[]).await.is_err());
    }
    assert_eq!(read(&scene.pair, "k").await, None, "the second has answered");
    put(&scene.pair, "k", "second").await;
    assert_eq!(read(&scene.pair, "k").await.as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_no_failure() {
    let scene = scene();
    scene.first.inject(Fault::Fail(ErrorKind::TooLarge), &[Verb::Put]);
    for _ in 0..10 {
        let put = scene.pair.put(&key("k"), text("v"), Ttl::Forever, When::Always).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    assert!(!scene.pair.is_over());
}

#[tokio::test(start_paused = true)]
async fn while_the_first_is_gone_only_probes_reach_it() {
    let scene = scene();
    scene.go_over().await;
    tokio::task::yield_now().await;
    scene.first.forget();
    for _ in 0..100 {
        put(&scene.pair, "k", "v").await;
        assert_eq!(read(&scene.pair, "k").await.as_deref(), Some("v"));
    }
    assert_eq!(scene.first.total(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((18..=20).contains(&scene.first.total()), "{} probes in 10 s", scene.first.total());
}

#[tokio::test(start_paused = true)]
async fn what_stood_in_earlier_is_never_seen_again() {
    let scene = scene();
    scene.go_over().await;
    put(&scene.pair, "k", "from then").await;
    scene.come_back().await;
    scene.go_over().await;
    assert_eq!(read(scene.pair.standby(), "other").await, None);
    assert_eq!(read(&scene.pair, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_meanwhile_is_gone_from_the_first() {
    let scene = scene();
    let tag = [Tag::new("t").unwrap()];
    for name in ["deleted", "replaced", "touched", "untouched", "counted", "batch"] {
        put(&scene.pair, name, "old").await;
    }
    let marks = scene.pair.marks(&shop(), &tag).await.unwrap();
    let tagged = text("old").with_tags(tag.clone()).with_built_at(marks.sequence);
    let _ = scene.pair.put(&key("tagged"), tagged, Ttl::Forever, When::Always).await.unwrap();

    scene.go_over().await;
    assert!(!scene.pair.remove(&key("deleted"), None).await.unwrap());
    scene.pair.remove_many(&[key("batch")]).await.unwrap();
    put(&scene.pair, "replaced", "new").await;
    assert!(!scene.pair.touch(&key("touched"), Ttl::For(Duration::ZERO)).await.unwrap());
    scene.pair.invalidate(&shop(), &tag).await.unwrap();
    scene.come_back().await;

    for name in ["deleted", "replaced", "touched", "batch"] {
        assert_eq!(read(&scene.pair, name).await, None, "{name}");
    }
    assert_eq!(read(&scene.pair, "untouched").await.as_deref(), Some("old"));
    let after = scene.pair.marks(&shop(), &tag).await.unwrap();
    assert!(!marks.sequence.covers(Some(after.tags[0])), "the tag was invalidated");

    scene.go_over().await;
    scene.pair.clear(&shop()).await.unwrap();
    scene.come_back().await;
    assert_eq!(read(&scene.pair, "untouched").await, None);
}

// What the first store was asked before it went silent it does when it wakes up.
#[tokio::test(start_paused = true)]
async fn what_the_first_does_late_is_undone_if_it_was_changed_since() {
    let scene = scene();
    scene.go_over().await;
    put(&scene.pair, "k", "v").await;
    assert!(scene.pair.remove(&key("k"), None).await.unwrap());
    put(scene.pair.primary().inner(), "k", "asked before, and done late").await;
    scene.come_back().await;
    assert_eq!(read(&scene.pair, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn silence_costs_the_patience_and_then_nothing() {
    let scene = scene();
    scene.first.inject(Fault::Hang, &Verb::ALL);
    let begun = tokio::time::Instant::now();
    for _ in 0..1000 {
        let _ = scene.pair.get(&key("k"), &[]).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(160), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn callers_with_little_patience_count_too() {
    let scene = scene();
    scene.first.inject(Fault::Hang, &[Verb::Get]);
    for _ in 0..3 {
        let k = key("k");
        let impatient = tokio::time::timeout(Duration::from_millis(30), scene.pair.get(&k, &[]));
        assert!(impatient.await.is_err());
    }
    assert!(scene.pair.is_over(), "though none of them has waited for all of the patience");
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_was_read_from_the_first_and_removed_meanwhile_is_gone_there() {
    let scene = scene();
    put(&scene.pair, "k", "old").await;
    let entry = scene.pair.get(&key("k"), &[]).await.unwrap().entry.unwrap();
    scene.go_over().await;
    // The second one has nothing of it.
    assert!(!scene.pair.remove(&key("k"), Some(entry.revision())).await.unwrap());
    scene.come_back().await;
    assert_eq!(read(&scene.pair, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_under_changes_that_never_end() {
    let scene = scene();
    scene.go_over().await;
    // Telling takes ten milliseconds, and something is changed each millisecond.
    let changing = {
        let pair = scene.pair.clone();
        tokio::spawn(async move {
            for n in 0_u32.. {
                put(&pair, &n.to_string(), "v").await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    scene.first.heal();
    scene.first.inject(Fault::Delay(Duration::from_millis(10)), &[Verb::RemoveMany]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!scene.pair.is_over());
    changing.abort();
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_when_it_has_settled_and_not_while_it_flaps() {
    let scene = scene();
    scene.go_over().await;
    for _ in 0..20 {
        scene.first.heal();
        tokio::time::sleep(Duration::from_millis(900)).await;
        scene.first.inject(DOWN, &Verb::ALL);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(scene.pair.is_over());
    }
    scene.come_back().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_only_reads_is_not_back() {
    let scene = scene();
    scene.go_over().await;
    scene.first.heal();
    scene.first.inject(DOWN, &[Verb::Put]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(scene.pair.is_over());
    scene.come_back().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_not_in_charge_before_it_was_told_everything() {
    let scene = scene();
    put(&scene.pair, "k", "old").await;
    scene.go_over().await;
    scene.pair.remove(&key("k"), None).await.unwrap();
    scene.first.heal();
    scene.first.inject(DOWN, &[Verb::RemoveMany]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(scene.pair.is_over());
    scene.come_back().await;
    assert_eq!(read(&scene.pair, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_lives_for_the_ceiling() {
    let scene = scene();
    scene.go_over().await;
    put(&scene.pair, "k", "v").await;
    let left = scene.pair.remaining(&key("k")).await.unwrap();
    assert_eq!(left, Remaining::For(Duration::from_secs(30)));
    scene.hands.advance(Duration::from_secs(20));
    assert!(scene.pair.touch(&key("k"), Ttl::For(Duration::from_secs(3600))).await.unwrap());
    scene.hands.advance(Duration::from_secs(29));
    assert!(read(&scene.pair, "k").await.is_some());
    scene.hands.advance(Duration::from_secs(1));
    assert!(read(&scene.pair, "k").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_fill_does_not_cross_from_one_to_the_other() {
    let scene = scene();
    let begin = async |name| {
        let begun = scene.pair.begin(&key(name), Duration::from_secs(3600)).await.unwrap();
        let Begin::Token(token) = begun else { panic!("{begun:?}") };
        token
    };
    let fill = async |name, token| {
        scene.pair.put(&key(name), text("made"), Ttl::Forever, When::Token(token)).await.unwrap()
    };
    let early = begin("early").await;
    scene.go_over().await;
    assert_eq!(fill("early", early).await, Outcome::Refused);
    let late = begin("late").await;
    scene.come_back().await;
    assert_eq!(fill("late", late).await, Outcome::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_the_one_is_not_gone_on_with_in_the_other() {
    let scene = scene();
    for name in ["a", "b", "c"] {
        put(&scene.pair, name, "v").await;
    }
    let prefix = Prefix::new(&shop());
    let page = scene.pair.page(&prefix, None, 1).await.unwrap();
    let next = page.next.expect("there is more");
    let more = scene.pair.page(&prefix, Some(next.clone()), 1).await.unwrap();
    assert_ne!(page.keys, more.keys);
    scene.go_over().await;
    let error = scene.pair.page(&prefix, Some(next), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_second_store_that_cannot_be_emptied_is_not_used() {
    let scene = scene();
    scene.go_over().await;
    put(&scene.pair, "k", "from then").await;
    scene.come_back().await;
    scene.second.inject(DOWN, &[Verb::Clear]);
    scene.first.inject(DOWN, &Verb::ALL);
    for _ in 0..10 {
        assert!(scene.pair.get(&key("k"), &[]).await.is_err());
    }
    scene.second.heal();
    assert_eq!(read(&scene.pair, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_cache_goes_on_through_an_outage_and_serves_nothing_old_afterwards() {
    let scene = scene();
    let (cache, computed) = (scene.cache(), Calls::default());
    let get = async || {
        let computed = computed.clone();
        let compute = || async move { Ok::<_, Infallible>(computed.add()) };
        *cache.get_or_compute("k", minute().tag("t"), compute).await.unwrap()
    };
    assert_eq!((get().await, get().await), (1, 1));
    scene.first.inject(DOWN, &Verb::ALL);
    for _ in 0..100 {
        get().await;
    }
    assert!(computed.get() <= 3, "{} computations", computed.get());
    let before = computed.get();
    cache.invalidate_tag("t").await.unwrap();
    assert_eq!(get().await, before + 1);
    scene.come_back().await;
    assert_eq!(get().await, before + 2, "neither what was there before nor what stood in");
    assert_eq!(get().await, before + 2);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_words() {
    let store = || Reference::new(Clock::system());
    let refused = |built: larder_core::Result<Failover<Reference, Reference>>| {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    };
    let other = Reference::new(Clock::manual().0);
    assert!(refused(Failover::builder(store(), other).build()).contains("clock"));
    let builder = || Failover::builder(store(), store());
    assert!(refused(builder().threshold(0).build()).contains("threshold"));
    assert!(refused(builder().settled(0).build()).contains("settled"));
    assert!(refused(builder().patience(Duration::ZERO).build()).contains("patience"));
    assert!(builder().build().unwrap().abilities().splits);
}
