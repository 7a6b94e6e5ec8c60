//! The verbs of `Cache`, one test for each promise that is its own and not the backend's.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{driven, faulty, minute};
use larder_cache::{Cache, Options};
use larder_core::{ErrorKind, Remaining, Ttl};
use larder_testkit::counted::Counted;
use larder_testkit::faulty::Verb;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
}

fn teapot() -> Product {
    Product { id: 42, name: "Teapot".to_owned() }
}

#[tokio::test]
async fn a_value_comes_back_under_its_key_and_under_no_other() {
    let (cache, _) = driven();
    cache.set(("product", 42), teapot()).await.unwrap();
    assert_eq!(*cache.get::<Product>(("product", 42)).await.unwrap().unwrap(), teapot());
    for other in ["product", "product42", "product:42"] {
        assert!(cache.get::<Product>(other).await.unwrap().is_none(), "{other}");
    }
    assert!(cache.get::<Product>(("product4", 2)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_memory_hit_decodes_nothing_and_every_reader_shares_one_value() {
    thread_local!(static DECODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

    #[derive(Serialize)]
    struct Counted(u8);

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            DECODED.set(DECODED.get() + 1);
            u8::deserialize(from).map(Counted)
        }
    }

    let (cache, _) = driven();
    cache.set("k", Counted(7)).await.unwrap();
    let first = cache.get::<Counted>("k").await.unwrap().unwrap();
    for _ in 0..100 {
        let again = cache.get::<Counted>("k").await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
    }
    let options = minute();
    let computed =
        cache.get_or_compute("k", options, || async { Ok::<_, std::io::Error>(Counted(0)) });
    assert!(Arc::ptr_eq(&first, &computed.await.unwrap()));
    assert_eq!((first.0, DECODED.get()), (7, 0));
}

#[tokio::test]
async fn a_null_is_a_hit_and_an_absent_value_a_miss() {
    let (cache, _) = driven();
    cache.set("nobody", None::<Product>).await.unwrap();
    assert_eq!(cache.get::<Option<Product>>("nobody").await.unwrap().as_deref(), Some(&None));
    assert!(cache.get::<Option<Product>>("unknown").await.unwrap().is_none());

    let searches = Counted::new("the search");
    for _ in 0..2 {
        let search = searches.counting(|| async { Ok::<_, std::io::Error>(None::<Product>) });
        assert_eq!(*cache.get_or_compute("found", minute(), search).await.unwrap(), None);
    }
    searches.assert_once();
}

#[tokio::test]
async fn lifetimes_end_and_can_be_asked_for_and_touched() {
    let (cache, hands) = driven();
    cache.set_with("k", 1_i64, minute()).await.unwrap();
    assert_eq!(cache.ttl("k").await.unwrap(), Remaining::For(Duration::from_secs(60)));
    hands.advance(Duration::from_secs(59));
    assert!(cache.contains("k").await.unwrap());
    assert!(cache.touch("k", Duration::from_secs(10)).await.unwrap());
    hands.advance(Duration::from_secs(9));
    assert!(cache.contains("k").await.unwrap());
    hands.advance(Duration::from_secs(1));
    assert!(!cache.contains("k").await.unwrap());
    assert_eq!(cache.ttl("k").await.unwrap(), Remaining::Absent);
    assert!(!cache.touch("k", Ttl::Forever).await.unwrap());
    cache.set_with("k", 1_i64, Options::ttl(Ttl::Forever)).await.unwrap();
    assert_eq!(cache.ttl("k").await.unwrap(), Remaining::Forever);
}

#[tokio::test]
async fn the_default_lifetime_is_the_stores() {
    let (cache, hands) = driven();
    cache.set("k", teapot()).await.unwrap();
    hands.advance(Duration::from_secs(299));
    assert!(cache.contains("k").await.unwrap());
    hands.advance(Duration::from_secs(1));
    assert!(!cache.contains("k").await.unwrap());
}

#[tokio::test]
async fn add_stores_only_where_there_is_nothing() {
    let (cache, hands) = driven();
    assert!(cache.add("k", "first".to_owned(), minute()).await.unwrap());
    assert!(!cache.add("k", "second".to_owned(), minute()).await.unwrap());
    assert_eq!(*cache.get::<String>("k").await.unwrap().unwrap(), "first");
    hands.advance(Duration::from_secs(60));
    assert!(cache.add("k", "third".to_owned(), minute()).await.unwrap());

    let nothing = Options::ttl(Duration::ZERO);
    assert!(cache.add("zero", "value".to_owned(), nothing).await.unwrap());
    assert!(!cache.contains("zero").await.unwrap());
}

#[tokio::test]
async fn counters_count_keep_their_lifetime_and_refuse_what_is_no_integer() {
    let (cache, hands) = driven();
    assert_eq!(cache.incr("n", 1).await.unwrap(), None);
    cache.set_with("n", 5_u8, minute()).await.unwrap();
    hands.advance(Duration::from_secs(30));
    assert_eq!(cache.incr("n", 3).await.unwrap(), Some(8));
    assert_eq!(cache.decr("n", 10).await.unwrap(), Some(-2));
    assert_eq!(*cache.get::<i32>("n").await.unwrap().unwrap(), -2);
    assert!(cache.get::<u32>("n").await.unwrap().is_none(), "it does not fit that type");
    assert_eq!(cache.ttl("n").await.unwrap(), Remaining::For(Duration::from_secs(30)));

    cache.set("text", "5".to_owned()).await.unwrap();
    assert_eq!(cache.incr("text", 1).await.unwrap_err().kind(), ErrorKind::NotAnInteger);
    cache.set_with("tagged", 5_i64, minute().tag("t")).await.unwrap();
    assert_eq!(cache.incr("tagged", 1).await.unwrap_err().kind(), ErrorKind::NotAnInteger);
    assert_eq!(cache.decr("n", i64::MIN).await.unwrap_err().kind(), ErrorKind::NotAnInteger);
    assert_eq!(cache.incr_or("new", 2, 10, minute_ttl()).await.unwrap(), 12);
    assert_eq!(cache.incr_or("new", 2, 10, minute_ttl()).await.unwrap(), 14);
}

fn minute_ttl() -> Duration {
    Duration::from_secs(60)
}

#[tokio::test]
async fn batches_take_one_call_each_and_none_when_empty() {
    let (cache, faults, _) = faulty();
    let items = [("a", 1_i64), ("b", 2)];
    assert!(cache.set_many(items, minute()).await.unwrap().is_empty());
    assert_eq!((faults.count(Verb::PutMany), faults.total()), (1, 1));

    let found = cache.get_many::<i64, _>(["a", "b", "c"]).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((*found["a"], *found["b"]), (1, 2));
    assert_eq!((faults.count(Verb::GetMany), faults.total()), (1, 2));

    assert_eq!(cache.delete_many(["a", "b", "c"]).await.unwrap(), 2);
    assert_eq!((faults.count(Verb::RemoveMany), faults.total()), (1, 3));

    let none: [&str; 0] = [];
    assert!(cache.get_many::<i64, _>(none).await.unwrap().is_empty());
    assert_eq!(cache.delete_many(none).await.unwrap(), 0);
    assert!(cache.set_many::<i64, &str>([], minute()).await.unwrap().is_empty());
    assert_eq!(faults.total(), 3);
}

#[tokio::test]
async fn an_untagged_get_set_and_delete_are_one_call_each() {
    let (cache, faults, _) = faulty();
    cache.set("k", teapot()).await.unwrap();
    cache.get::<Product>("k").await.unwrap();
    cache.delete("k").await.unwrap();
    let called = faults.calls();
    let counted: Vec<Verb> =
        called.iter().map(|call| call.verb).filter(|v| *v != Verb::Peek).collect();
    assert_eq!(counted, [Verb::Put, Verb::Get, Verb::Remove]);
}

#[tokio::test]
async fn namespaces_are_apart_and_clear_empties_one() {
    let (cache, _) = driven();
    let users = cache.namespace("users").unwrap();
    cache.set("k", 1_i64).await.unwrap();
    users.set("k", 2_i64).await.unwrap();
    assert_eq!(*users.get::<i64>("k").await.unwrap().unwrap(), 2);
    cache.clear().await.unwrap();
    assert!(!cache.contains("k").await.unwrap());
    assert!(users.contains("k").await.unwrap());
    assert!(cache.namespace("NOT ONE").is_err());
}

#[tokio::test]
async fn a_value_of_another_type_is_a_miss() {
    let (cache, _) = driven();
    cache.set("k", "text".to_owned()).await.unwrap();
    assert!(cache.get::<Product>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_serialized_is_an_error_also_in_memory() {
    #[derive(Deserialize)]
    struct Stubborn;

    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }

    let (cache, _) = driven();
    cache.set("k", 1_i64).await.unwrap();
    assert!(cache.set("k", Stubborn).await.is_err());
    assert!(cache.contains("k").await.unwrap(), "nothing was touched");
}

#[tokio::test]
async fn what_is_read_often_stays_when_room_is_made() {
    let cache = Cache::connect("memory://?max_bytes=1MiB").await.unwrap();
    let often: Vec<u64> = (0..20).collect();
    for n in &often {
        cache.set(("often", n), "x".repeat(1024)).await.unwrap();
    }
    for n in 0..5_000_u64 {
        cache.set(("once", n), "x".repeat(1024)).await.unwrap();
        let read = cache.get::<String>(("often", n % 20)).await.unwrap();
        assert!(read.is_some(), "{} is gone after {n}", n % 20);
    }
    let mut kept = 0;
    for n in 0..5_000_u64 {
        kept += usize::from(cache.contains(("once", n)).await.unwrap());
    }
    // Each of them weighs more than two KiB.
    assert!((100..500).contains(&kept), "{kept} of those that were never read");
}

#[tokio::test]
async fn what_is_too_large_is_an_error_and_the_old_value_is_gone() {
    let cache = Cache::connect("memory://?max_bytes=64KiB&max_entry_bytes=4KiB").await.unwrap();
    cache.set("k", "small".to_owned()).await.unwrap();
    let error = cache.set("k", "x".repeat(100_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!cache.contains("k").await.unwrap());
}

#[tokio::test]
async fn keys_that_cannot_be_are_errors_on_every_call() {
    let (cache, _) = driven();
    let long = "x".repeat(100_000);
    let kind = |error: larder_core::Error| error.kind();
    for (call, result) in [
        ("get", cache.get::<i64>(&long).await.map(drop)),
        ("get_many", cache.get_many::<i64, _>([&long]).await.map(drop)),
        ("contains", cache.contains(&long).await.map(drop)),
        ("ttl", cache.ttl(&long).await.map(drop)),
        ("set", cache.set(&long, 1_i64).await),
        ("set_many", cache.set_many([(&long, 1_i64)], minute()).await.map(drop)),
        ("add", cache.add(&long, 1_i64, minute()).await.map(drop)),
        ("delete", cache.delete(&long).await.map(drop)),
        ("delete_many", cache.delete_many([&long]).await.map(drop)),
        ("touch", cache.touch(&long, Ttl::Forever).await.map(drop)),
        ("incr", cache.incr(&long, 1).await.map(drop)),
        ("decr", cache.decr(&long, 1).await.map(drop)),
        ("incr_or", cache.incr_or(&long, 1, 0, Ttl::Forever).await.map(drop)),
        ("lock", cache.lock(&long, minute_ttl(), Duration::ZERO).await.map(drop)),
        ("try_lock", cache.try_lock(&long, minute_ttl()).await.map(drop)),
        ("move_to_version", cache.move_to_version(&long, 2).await.map(drop)),
    ] {
        let error = result.expect_err(call);
        assert_eq!(error.kind(), ErrorKind::InvalidKey, "{call}: {error}");
    }
    // One of them is enough, and then nothing is done.
    cache.set("k", 1_i64).await.unwrap();
    let short = "k".to_owned();
    for (call, result) in [
        ("get_many", cache.get_many::<i64, _>([&short, &long]).await.map(drop)),
        ("set_many", cache.set_many([(&short, 2_i64), (&long, 2)], minute()).await.map(drop)),
        ("delete_many", cache.delete_many([&short, &long]).await.map(drop)),
    ] {
        assert_eq!(result.expect_err(call).kind(), ErrorKind::InvalidKey, "{call}");
        assert_eq!(*cache.get::<i64>("k").await.unwrap().unwrap(), 1, "{call}");
    }
    let compute = || async { Ok::<_, std::io::Error>(1_i64) };
    let computed = cache.get_or_compute(&long, minute(), compute).await.unwrap_err();
    assert_eq!(
        computed.as_cache_error().map(larder_core::Error::kind),
        Some(ErrorKind::InvalidKey)
    );
    let tags = minute().tag("");
    assert_eq!(kind(cache.set_with("k", 1_i64, tags).await.unwrap_err()), ErrorKind::InvalidKey);
    assert_eq!(kind(cache.invalidate_tag("").await.unwrap_err()), ErrorKind::InvalidKey);
}

#[tokio::test]
async fn a_url_sets_what_it_names() {
    let url = "memory://?max_bytes=1MiB&default_ttl=2h&namespace=shop";
    let cache = Cache::connect(url).await.unwrap();
    cache.set("k", 1_i64).await.unwrap();
    let Remaining::For(left) = cache.ttl("k").await.unwrap() else { panic!("it has an end") };
    assert!(left > Duration::from_secs(7000) && left <= Duration::from_secs(7200), "{left:?}");
    assert_eq!(cache.store().namespace().as_str(), "shop");
    let forever = Cache::connect("memory://?default_ttl=forever").await.unwrap();
    forever.set("k", 1_i64).await.unwrap();
    assert_eq!(forever.ttl("k").await.unwrap(), Remaining::Forever);
}

#[tokio::test]
async fn budgets_in_urls_are_the_caches_own() {
    for url in [
        "memory://?read_budget=2s",
        "memory://?write_budget=5s&max_bytes=1MiB&read_budget=50ms",
        "memory://?namespace=shop&write_budget=1h",
    ] {
        let cache = Cache::connect(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        cache.set("a", 1).await.unwrap();
        assert_eq!(cache.get::<i32>("a").await.unwrap().as_deref(), Some(&1), "{url}");
    }
}

#[tokio::test]
async fn a_word_in_a_url_takes_the_two_stores_that_follow_it() {
    for url in [
        "failover:memory://?namespace=shop|memory://?max_bytes=1MiB",
        "writethrough:memory://?max_bytes=1MiB|memory://?namespace=shop&read_budget=1s",
        "writethrough:failover:memory://|memory://|memory://?namespace=shop",
        "failover:writethrough:memory://|memory://|memory://?namespace=shop",
        "tiered:memory://?ceiling=1s|failover:memory://?namespace=shop|memory://",
    ] {
        let cache = Cache::connect(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(cache.store().namespace().as_str(), "shop", "{url}");
        cache.set("a", "b".to_owned()).await.unwrap();
        assert_eq!(*cache.get::<String>("a").await.unwrap().expect(url), "b", "{url}");
        // What decides is what stands last in a write-through.
        let splits = url.contains("failover") && !url.starts_with("writethrough");
        assert_eq!(cache.store().abilities().splits, splits, "{url}");
    }
}

#[tokio::test]
async fn urls_that_are_wrong_say_what_to_write() {
    for (url, words) in [
        ("nonsense", "memory://"),
        ("mysql://h1", "unknown kind"),
        ("memory://?max_byte=1", "max_bytes"),
        ("memory://?max_bytes=1XB", "KiB"),
        ("memory://?max_bytes=1", "4096"),
        ("memory://?namespace=No%20Good", "namespace"),
        ("memory://?read_budget=soon", "read_budget"),
        ("tiered:redis://localhost/1?namespace=shop", "|"),
        ("tiered:redis://localhost|redis://localhost", "what is near is in memory"),
        ("tiered:memory://?size=1|redis://localhost", "ceiling"),
        ("tiered:memory://|memory://", "saves nothing"),
        ("failover:memory://", "two stores"),
        ("writethrough:memory://", "two stores"),
        ("tiered:memory://", "two stores"),
        ("memory://|memory://", "more stores than words"),
        ("failover:memory://|memory://|memory://", "more stores than words"),
        ("failover:memory://?namespace=a|memory://?namespace=b", "different namespaces"),
        ("writethrough:memory://|failover:memory://|memory://", "decides nothing"),
        ("tiered:memory://|failover:memory://|nonsense", "memory://"),
        ("memory://?max_bytes=1MiB&write_budget=0s", "write_budget must lie between"),
        ("file:///var/cache/shop", if cfg!(feature = "file") { "namespace" } else { "feature" }),
        ("file:cache", if cfg!(feature = "file") { "file://" } else { "feature" }),
        (
            "redis://:secret@localhost/1",
            if cfg!(feature = "redis") { "namespace" } else { "feature" },
        ),
        (
            "memcached://h1:11211,h2",
            if cfg!(feature = "memcached") { "namespace" } else { "feature" },
        ),
        (
            "memcached://user:secret@h1",
            if cfg!(feature = "memcached") { "log in" } else { "feature" },
        ),
    ] {
        let error = Cache::connect(url).await.unwrap_err();
        assert!(error.to_string().contains(words), "{url}: {error}");
        assert!(!format!("{error:?}").contains("secret"), "{url}");
    }
}
