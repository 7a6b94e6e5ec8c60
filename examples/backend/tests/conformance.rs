//! The proof: every check of the public suite, each as a test of its own.

use backend::Shelf;
use larder::{Cache, Options};
use larder_core::Clock;
use larder_testkit::Harness;
use std::time::Duration;

mod contract {
    use super::*;

    async fn harness() -> Harness<Shelf> {
        let (clock, hands) = Clock::manual();
        Harness::new(Shelf::new(clock)).with_hands(hands)
    }

    larder_testkit::conformance!(harness());
}

#[tokio::test]
async fn a_cache_stands_on_it_as_on_any_other() {
    let cache = Cache::new(Shelf::new(Clock::system()));
    let options = Options::ttl(Duration::from_secs(60)).tag("all");
    let load = || async { Ok::<_, std::io::Error>("computed".to_owned()) };
    assert_eq!(*cache.get_or_compute("a", options, load).await.unwrap(), "computed");
    cache.invalidate_tag("all").await.unwrap();
    assert!(cache.get::<String>("a").await.unwrap().is_none());
}

#[test]
fn it_takes_less_than_150_lines() {
    let source = include_str!("../src/lib.rs");
    let code =
        source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let count = code.count();
    assert!(count < 150, "{count} lines without comments and empty ones");
}
