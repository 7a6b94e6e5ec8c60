//! The store that keeps nothing.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use larder_cache::{Cache, NullBackend, Options};
use larder_core::{
    Backend, Clock, Encoded, Entry, ErrorKind, Key, Namespace, Outcome, Put, Revision, Tag, Token,
    Ttl, When,
};
use larder_testkit::{Harness, Sizes, suite};

fn harness() -> Harness<NullBackend> {
    let (clock, hands) = Clock::manual();
    let sizes = Sizes { races: 3, drops: 60 };
    let null = NullBackend::builder().clock(clock).build();
    Harness::new(null).with_hands(hands).with_sizes(sizes)
}

// What the suite demands of what is there cannot be shown by a store where nothing is. The rest is kept, and this says
// which is which: a check that changes sides is a change of what the store promises.
#[tokio::test]
async fn the_suite_holds_as_far_as_nothing_has_to_be_there() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut kept = Vec::new();
    for check in suite::checks::<NullBackend>() {
        let harness = harness();
        if AssertUnwindSafe((check.run)(&harness)).catch_unwind().await.is_ok() {
            kept.push(check.name);
        }
    }
    std::panic::set_hook(quiet);
    assert_eq!(kept, KEPT, "{kept:#?}");
}

const KEPT: &[&str] = &[
    "reads::missing_is_none",
    "reads::local_means_ready_at_once",
    "reads::abilities_are_steady",
    "writes::remove_of_expired_is_false",
    "writes::a_second_client_sees_it",
    "writes::durable_means_durable",
    "lifetimes::zero_removes",
    "lifetimes::expired_is_absent_to_every_verb",
    "lifetimes::touch_of_absent_is_false",
    "counters::adding_to_nothing",
    "counters::racing_with_the_end",
    "fills::voided_by_remove",
    "fills::releasing_too_late",
    "fills::a_second_client_sees_markers",
    "batches::empty_batches",
    "marks::a_second_client_sees_invalidations",
    "namespaces::clearing_makes_nothing_valid",
    "namespaces::a_second_client_sees_a_clear",
    "sizes::the_bound_is_kept",
    "foreign::garbage_is_a_miss",
    "foreign::other_versions_are_a_miss",
    "foreign::damaged_records_are_a_miss",
    "foreign::lying_lengths_are_a_miss",
    "foreign::another_keys_record_is_a_miss",
    "foreign::damaged_markers_are_a_miss",
    "concurrency::no_fill_survives_a_remove",
    "concurrency::no_fill_survives_a_clear",
    "concurrency::no_touch_survives_a_remove",
    "concurrency::no_present_put_survives_a_remove",
    "concurrency::no_addition_survives_a_remove",
    "concurrency::two_clients_race",
];

fn key(name: &str) -> Key {
    Key::new(&Namespace::new("shop").unwrap(), [name]).unwrap()
}

fn bytes(length: usize) -> Entry {
    Entry::wire(Encoded { codec: 200, body: vec![b'x'; length].into(), ..Encoded::default() })
}

#[tokio::test]
async fn what_a_server_would_refuse_is_refused() {
    let null = NullBackend::builder().max_entry_bytes(2000).build();
    let put = async |entry| null.put(&key("a"), entry, Ttl::Default, When::Always).await;
    assert_eq!(put(bytes(1000)).await.unwrap(), Outcome::Stored);
    assert_eq!(put(bytes(2001)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    let tags: Vec<Tag> = (0..513).map(|n| Tag::new(&n.to_string()).unwrap()).collect();
    let error = put(bytes(1).with_tags(tags)).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (ErrorKind::TooLarge, Some("null")));
    let item = |length| {
        let (key, ttl, when) = (key("a"), Ttl::Default, When::Absent);
        Put { key, entry: bytes(length), ttl, when }
    };
    let outcomes = null.put_many(vec![item(1), item(3000), item(2)]).await.unwrap();
    assert!(matches!(&outcomes[..], [Ok(Outcome::Stored), Err(_), Ok(Outcome::Stored)]));
}

#[tokio::test]
async fn what_depends_on_something_being_there_is_refused() {
    let null = NullBackend::default();
    for when in [When::Present, When::Revision(Revision::random()), When::Token(Token::random())] {
        let outcome = null.put(&key("a"), bytes(1), Ttl::Default, when).await.unwrap();
        assert_eq!(outcome, Outcome::Refused, "{when:?}");
    }
}

#[tokio::test]
async fn a_cache_over_it_computes_each_time_and_checks_its_callers() {
    let url = "null://?namespace=shop&max_entry_bytes=4KiB";
    // It stands in for any store, whatever was asked for there, and a mistake in that is one here.
    Cache::connect(&format!("{url}&compress=lz4")).await.unwrap();
    let wrong = Cache::connect(&format!("{url}&compress=rar")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Configuration);
    let cache = Cache::connect(url).await.unwrap();
    assert!(cache.store().abilities().forgets);
    for expected in 1..4_i64 {
        let compute = async move || Ok::<_, std::io::Error>(format!("made {expected}"));
        let options = Options::ttl(Duration::from_secs(60)).tag("all");
        let made = cache.get_or_compute("a", options, compute).await.unwrap();
        assert_eq!(*made, format!("made {expected}"), "nothing is there from before");
    }
    assert_eq!(cache.incr("visits", 1).await.unwrap(), None);
    assert!(!cache.delete("a").await.unwrap());
    let error = cache.set("large", "x".repeat(5000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(cache.set("x".repeat(70_000), 1_i64).await.is_err(), "a key that is too long");
    cache.invalidate_tag("all").await.unwrap();
}
