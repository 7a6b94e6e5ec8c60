//! From one store to another.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::settle;
use larder_cache::{Cache, Migrating, NullBackend, Options};
use larder_core::{
    Backend, Begin, Clock, Counter, Encoded, Entry, ErrorKind, Key, ManualClock, Namespace,
    Outcome, Prefix, Put, Remaining, Revision, Tag, Ttl, When,
};
use larder_testkit::cancel::drop_after;
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::reference::Reference;

type Stores = Migrating<Faulty<Reference>, Faulty<Reference>>;

struct Stand {
    store: Stores,
    new: Reference,
    old: Reference,
    hands: ManualClock,
}

fn stand() -> Stand {
    let (clock, hands) = Clock::manual();
    let (new, old) = (Reference::new(clock.clone()), Reference::new(clock));
    let store = Migrating::new(Faulty::new(new.clone()), Faulty::new(old.clone())).unwrap();
    Stand { store, new, old, hands }
}

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn key(name: &str) -> Key {
    Key::new(&shop(), [name]).unwrap()
}

fn text(body: &'static str) -> Entry {
    Entry::wire(Encoded { codec: 200, body: body.into(), ..Encoded::default() })
}

async fn put(store: &impl Backend, name: &str, entry: Entry) {
    let outcome = store.put(&key(name), entry, Ttl::For(HOUR), When::Always).await.unwrap();
    assert_eq!(outcome, Outcome::Stored);
}

async fn body(store: &impl Backend, name: &str) -> Option<String> {
    let entry = store.get(&key(name), &[]).await.unwrap().entry?;
    Some(String::from_utf8(entry.encoded().unwrap().body.to_vec()).unwrap())
}

const HOUR: Duration = Duration::from_secs(3600);

mod conformance {
    use larder_testkit::{Harness, Sizes};

    use super::*;

    const SIZES: Sizes = Sizes { races: 500, drops: 4000 };

    mod with_all_of_it_in_the_new_store {
        use super::*;

        async fn harness() -> Harness<Migrating<Reference, Reference>> {
            let (clock, hands) = Clock::manual();
            let (new, old) = (Reference::new(clock.clone()), Reference::new(clock));
            let node = move || Migrating::new(new.clone(), old.clone()).unwrap();
            Harness::new(node()).with_hands(hands).with_sizes(SIZES).with_second(move || {
                let node = node();
                async move { node }
            })
        }

        larder_testkit::conformance!(harness());
    }

    // Every check, with each key back in the old store before each operation on it.
    mod with_each_key_in_the_old_store {
        use super::*;

        async fn harness() -> Harness<Demoting> {
            let (clock, hands) = Clock::manual();
            let store = Demoting::new(clock);
            Harness::new(store).with_hands(hands).with_sizes(SIZES)
        }

        larder_testkit::conformance!(harness());
    }
}

/// Puts keys back into the old store, as if nobody had moved them yet. One operation at a time.
struct Demoting {
    store: Migrating<Reference, Reference>,
    turn: tokio::sync::Mutex<()>,
}

impl Demoting {
    fn new(clock: Clock) -> Self {
        let store = Migrating::new(Reference::new(clock.clone()), Reference::new(clock)).unwrap();
        Demoting { store, turn: tokio::sync::Mutex::default() }
    }

    // What has tags has numbers of the new store, and stays there.
    async fn back(&self, keys: &[Key]) -> tokio::sync::MutexGuard<'_, ()> {
        let turn = self.turn.lock().await;
        let (new, old) = (self.store.new_store(), self.store.old_store());
        for key in keys {
            let Some(entry) = new.get(key, &[]).await.unwrap().entry else { continue };
            let record = key == &Key::sequence(&Namespace::new(key.namespace()).unwrap());
            let integer = matches!(entry.payload(), larder_core::Payload::Integer(_));
            let enveloped = integer && entry.as_counter().is_none();
            if record || enveloped || !entry.tags().is_empty() || is_tag(key) {
                continue;
            }
            let now = new.clock().now();
            let left = entry.remaining(now).map_or(Ttl::Forever, Ttl::For);
            let fresh = entry.times().and_then(|times| times.fresh_until);
            let entry = match fresh {
                Some(until) => entry.fresh_for(until.since(now)),
                None => entry.fresh_throughout(),
            };
            let _ = old.put(key, entry, left, When::Always).await.unwrap();
            new.remove(key, None).await.unwrap();
        }
        turn
    }
}

fn is_tag(key: &Key) -> bool {
    let namespace = Namespace::new(key.namespace()).unwrap();
    Prefix::new(&namespace).part("t").matches(key.as_ref())
}

impl Backend for Demoting {
    fn name(&self) -> &'static str {
        "demoting"
    }
    fn abilities(&self) -> larder_core::Abilities {
        self.store.abilities()
    }
    fn clock(&self) -> &Clock {
        self.store.clock()
    }
    async fn get(&self, key: &Key, counters: &[Key]) -> larder_core::Result<larder_core::Found> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.get(key, counters).await
    }
    async fn get_many(&self, keys: &[Key]) -> larder_core::Result<Vec<Option<Entry>>> {
        let _turn = self.back(keys).await;
        self.store.get_many(keys).await
    }
    async fn put(
        &self,
        key: &Key,
        entry: Entry,
        ttl: Ttl,
        when: When,
    ) -> larder_core::Result<Outcome> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.put(key, entry, ttl, when).await
    }
    async fn put_many(
        &self,
        items: Vec<Put>,
    ) -> larder_core::Result<Vec<larder_core::Result<Outcome>>> {
        let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
        let _turn = self.back(&keys).await;
        self.store.put_many(items).await
    }
    async fn remove(&self, key: &Key, only: Option<Revision>) -> larder_core::Result<bool> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.remove(key, only).await
    }
    async fn remove_many(&self, keys: &[Key]) -> larder_core::Result<u64> {
        let _turn = self.back(keys).await;
        self.store.remove_many(keys).await
    }
    async fn touch(&self, key: &Key, ttl: Ttl) -> larder_core::Result<bool> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.touch(key, ttl).await
    }
    async fn add(
        &self,
        key: &Key,
        delta: i64,
        create: Option<Counter>,
    ) -> larder_core::Result<Option<i64>> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.add(key, delta, create).await
    }
    async fn remaining(&self, key: &Key) -> larder_core::Result<Remaining> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.remaining(key).await
    }
    async fn begin(&self, key: &Key, hold: Duration) -> larder_core::Result<Begin> {
        let _turn = self.back(std::slice::from_ref(key)).await;
        self.store.begin(key, hold).await
    }
    async fn renew(
        &self,
        key: &Key,
        token: larder_core::Token,
        hold: Duration,
    ) -> larder_core::Result<bool> {
        self.store.renew(key, token, hold).await
    }
    async fn release(
        &self,
        key: &Key,
        token: larder_core::Token,
        pass: Option<Duration>,
    ) -> larder_core::Result<bool> {
        self.store.release(key, token, pass).await
    }
    async fn marks(
        &self,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> larder_core::Result<larder_core::Marks> {
        self.store.marks(namespace, tags).await
    }
    async fn invalidate(
        &self,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> larder_core::Result<larder_core::Sequence> {
        self.store.invalidate(namespace, tags).await
    }
    async fn clear(&self, namespace: &Namespace) -> larder_core::Result<()> {
        let _turn = self.turn.lock().await;
        self.store.clear(namespace).await
    }
    async fn page(
        &self,
        prefix: &Prefix,
        from: Option<larder_core::Cursor>,
        limit: usize,
    ) -> larder_core::Result<larder_core::Page> {
        let _turn = self.turn.lock().await;
        self.store.page(prefix, from, limit).await
    }
}

#[tokio::test]
async fn what_is_read_is_moved_with_its_revision_and_what_is_left_of_its_life() {
    let Stand { store, new, old, hands } = stand();
    let revision = Revision::random();
    put(&old, "a", text("old").with_revision(revision).fresh_for(HOUR / 2)).await;
    hands.advance(HOUR / 4);
    let found = store.get(&key("a"), &[]).await.unwrap().entry.expect("it is in the old one");
    assert_eq!(found.revision(), revision);
    assert_eq!(store.remaining(&key("a")).await.unwrap(), Remaining::For(HOUR * 3 / 4));
    assert_eq!(body(&new, "a").await.as_deref(), Some("old"));
    assert_eq!(body(&old, "a").await, None, "it is in one of the two");
    hands.advance(HOUR / 4);
    let entry = store.get(&key("a"), &[]).await.unwrap().entry.unwrap();
    assert!(!entry.is_fresh(store.clock().now()), "stale when it would have been");
    let progress = store.progress();
    assert_eq!((progress.old, progress.new, progress.neither, progress.moved), (1, 1, 0, 1));
    store.get(&key("nothing"), &[]).await.unwrap();
    assert_eq!(store.progress().neither, 1);
}

#[tokio::test]
async fn what_is_in_the_new_store_costs_one_round_trip() {
    let Stand { store, .. } = stand();
    put(&store, "a", text("new")).await;
    store.new_store().faults().forget();
    store.old_store().faults().forget();
    assert!(body(&store, "a").await.is_some());
    assert_eq!((store.new_store().faults().total(), store.old_store().faults().total()), (1, 0));
}

#[tokio::test]
async fn conditions_and_counters_hold_for_what_is_in_the_old_store() {
    let Stand { store, old, .. } = stand();
    let revision = Revision::random();
    for name in ["absent", "present", "revision", "other"] {
        put(&old, name, text("old").with_revision(revision)).await;
    }
    let put_when = async |name: &str, when| {
        store.put(&key(name), text("new"), Ttl::For(HOUR), when).await.unwrap()
    };
    assert_eq!(put_when("absent", When::Absent).await, Outcome::Refused);
    assert_eq!(put_when("present", When::Present).await, Outcome::Stored);
    assert_eq!(put_when("revision", When::Revision(revision)).await, Outcome::Stored);
    assert_eq!(put_when("other", When::Revision(Revision::random())).await, Outcome::Refused);
    assert_eq!(body(&store, "other").await.as_deref(), Some("old"));
    put(&old, "n", Entry::integer(40)).await;
    assert_eq!(store.add(&key("n"), 2, None).await.unwrap(), Some(42));
    assert_eq!(store.remaining(&key("n")).await.unwrap(), Remaining::For(HOUR));
    put(&old, "touched", text("old")).await;
    assert!(store.touch(&key("touched"), Ttl::For(2 * HOUR)).await.unwrap());
    assert_eq!(store.remaining(&key("touched")).await.unwrap(), Remaining::For(2 * HOUR));
    put(&old, "begun", text("old")).await;
    assert!(matches!(store.begin(&key("begun"), HOUR).await.unwrap(), Begin::Found(_)));
}

#[tokio::test]
async fn what_was_removed_replaced_or_cleared_does_not_come_back() {
    let Stand { store, new, old, .. } = stand();
    for name in ["removed", "many", "replaced", "by revision", "cleared"] {
        put(&old, name, text("old").with_revision(Revision::from_bytes([7; 16]))).await;
    }
    assert!(store.remove(&key("removed"), None).await.unwrap());
    assert_eq!(store.remove_many(&[key("many"), key("none")]).await.unwrap(), 1);
    let only = Some(Revision::from_bytes([7; 16]));
    assert!(store.remove(&key("by revision"), only).await.unwrap());
    put(&store, "replaced", text("new")).await;
    // Even when the new store loses what it has.
    new.remove(&key("replaced"), None).await.unwrap();
    for name in ["removed", "many", "by revision", "replaced"] {
        assert_eq!(body(&store, name).await, None, "{name}");
    }
    store.clear(&shop()).await.unwrap();
    assert_eq!(body(&store, "cleared").await, None);
}

#[tokio::test]
async fn tags_hold_across_the_move() {
    let Stand { store, new, old, .. } = stand();
    let (before, cache) = (Cache::new(old.clone()), Cache::new(store.clone()));
    let options = || Options::ttl(HOUR).tag("all");
    before.set_with("gone", 1_i64, options()).await.unwrap();
    before.set_with("expired", "e".to_owned(), options().stale_for(HOUR)).await.unwrap();
    before.invalidate_tag("all").await.unwrap();
    assert!(cache.get::<i64>("gone").await.unwrap().is_none(), "it was invalidated before");
    before.set_with("kept", "k".to_owned(), options()).await.unwrap();
    before.set_with("later", "l".to_owned(), options()).await.unwrap();
    before.set_with("batch", "b".to_owned(), options()).await.unwrap();
    assert_eq!(cache.get::<String>("kept").await.unwrap().as_deref().map(|s| &**s), Some("k"));
    let many = cache.get_many::<String, _>(["batch", "gone"]).await.unwrap();
    assert_eq!(many.len(), 1);
    cache.invalidate_tag("all").await.unwrap();
    for name in ["kept", "later", "batch", "gone", "expired"] {
        assert!(cache.get::<String>(name).await.unwrap().is_none(), "{name}");
    }
    // The old store heard of it too.
    assert!(before.get::<String>("later").await.unwrap().is_none());
    drop(new);
}

// A reader that moves, and somebody who removes, replaces or invalidates: what was done last is what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_meets_a_change_loses() {
    let rounds = std::env::var("LARDER_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let clock = Clock::system();
    let (new, old) = (Reference::new(clock.clone()), Reference::new(clock));
    let store = Migrating::new(new.clone(), old.clone()).unwrap();
    let tag = Tag::new("all").unwrap();
    let came_back = Arc::new(AtomicUsize::new(0));
    for round in 0..rounds {
        let name = format!("key {round}");
        let marks = old.marks(&shop(), std::slice::from_ref(&tag)).await.unwrap();
        let mut entry = text("old");
        if round % 4 == 3 {
            entry = entry.with_tags([tag.clone()]).with_built_at(marks.sequence);
        }
        put(&old, &name, entry).await;
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (store, name) = (store.clone(), name.clone());
                tokio::spawn(async move {
                    for _ in 0..3 {
                        let _ = store.get(&key(&name), &[]).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        match round % 4 {
            0 => drop(store.remove(&key(&name), None).await.unwrap()),
            1 => put(&store, &name, text("new")).await,
            2 => store.clear(&shop()).await.unwrap(),
            _ => drop(store.invalidate(&shop(), std::slice::from_ref(&tag)).await.unwrap()),
        }
        for reader in readers {
            reader.await.unwrap();
        }
        let found = store.get(&key(&name), &[Key::tag(&shop(), &tag)]).await.unwrap();
        let usable = found.entry.filter(|entry| {
            let mark = found.counters[0].and_then(larder_core::Sequence::from_i64);
            entry.tags().is_empty() || entry.built_at().covers(mark)
        });
        let now = usable.map(|entry| entry.encoded().unwrap().body);
        let expected = (round % 4 == 1).then(|| bytes::Bytes::from("new"));
        if now != expected {
            came_back.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(came_back.load(Ordering::Relaxed), 0, "of {rounds}");
}

#[tokio::test]
async fn a_store_that_is_gone_is_an_error_and_not_an_absence() {
    let Stand { store, old, .. } = stand();
    put(&old, "a", text("old")).await;
    store.old_store().faults().inject(Fault::Fail(ErrorKind::Unavailable), &Verb::ALL);
    assert!(store.get(&key("a"), &[]).await.unwrap_err().is_outage());
    assert!(store.remove(&key("a"), None).await.unwrap_err().is_outage());
    assert!(store.clear(&shop()).await.unwrap_err().is_outage());
    store.old_store().faults().heal();
    assert_eq!(body(&store, "a").await.as_deref(), Some("old"));
}

#[tokio::test]
async fn the_two_stores_are_checked() {
    let old = Reference::new(Clock::system());
    let error = Migrating::new(NullBackend::default(), old.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let (clock, _hands) = Clock::manual();
    assert!(Migrating::new(Reference::new(clock), old).unwrap_err().to_string().contains("clock"));
    let url = "migrating:memory://?namespace=a|memory://?namespace=b";
    assert!(Cache::connect(url).await.unwrap_err().to_string().contains("different namespaces"));
    let cache = Cache::connect("migrating:memory://?namespace=shop|memory://").await.unwrap();
    cache.set("a", 1_i64).await.unwrap();
    assert_eq!(cache.incr("a", 1).await.unwrap(), Some(2));
    assert!(!cache.store().abilities().splits, "sessions may move");
}

#[tokio::test]
async fn a_put_whose_caller_goes_away_leaves_nothing_behind_in_the_old_store() {
    let Stand { store, new, old, .. } = stand();
    put(&old, "a", text("old")).await;
    // Somebody is about to move it, or to fill the key.
    assert!(matches!(new.begin(&key("a"), HOUR).await.unwrap(), Begin::Token(_)));
    let faults = store.new_store().faults();
    faults.inject(Fault::Hang, &[Verb::Put]);
    let key = key("a");
    let replacing = store.put(&key, text("new"), Ttl::For(HOUR), When::Always);
    assert!(drop_after(1, replacing).await.is_none(), "it hangs");
    faults.heal();
    while old.get(&key, &[]).await.unwrap().entry.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(body(&new, "a").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn what_comes_later_waits_for_a_put_that_was_given_up() {
    for removes in [false, true] {
        let Stand { store, .. } = stand();
        let named = key("a");
        let faults = store.old_store().faults();
        faults.inject_times(1, Fault::Hang, &[Verb::Get]);
        let first = store.put(&named, text("given up"), Ttl::For(HOUR), When::Always);
        assert!(drop_after(1, first).await.is_none(), "it hangs");
        let later = {
            let store = store.clone();
            tokio::spawn(async move {
                if removes {
                    store.remove(&key("a"), None).await.unwrap();
                } else {
                    put(&store, "a", text("later")).await;
                }
            })
        };
        settle().await;
        faults.heal();
        later.await.unwrap();
        // What was given up has had its time.
        settle().await;
        let expected = (!removes).then_some("later");
        assert_eq!(body(&store, "a").await.as_deref(), expected, "removes: {removes}");
    }
}
