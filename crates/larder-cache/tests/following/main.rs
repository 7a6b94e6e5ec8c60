//! What is changed in a database is invalidated: by anybody, whoever was running, and nothing is ever skipped.
#![cfg(all(feature = "sqlite", feature = "postgres"))]

mod postgres;
mod sqlite;

use std::time::{Duration, Instant};

use larder_cache::{Cache, Following, Options};
use larder_sql::{Database, Outbox, Watch};

const PATIENCE: Duration = Duration::from_secs(60);

fn products() -> Watch {
    Watch::table("product").unwrap().tag("products").unwrap().tag_of("product:", "id").unwrap()
}

/// Stores something that carries each of these tags, and one that carries none of them.
async fn fill(cache: &Cache, tags: &[&str]) {
    let options = || Options::ttl(Duration::from_secs(3600));
    for tag in tags {
        cache.strict().set_with(*tag, "old".to_owned(), options().tag(*tag)).await.unwrap();
    }
    cache.strict().set_with("other", "old".to_owned(), options().tag("other")).await.unwrap();
    assert_eq!(there(cache, tags).await, tags);
}

/// Which of them are there still.
async fn there<'a>(cache: &Cache, tags: &[&'a str]) -> Vec<&'a str> {
    let mut there = Vec::new();
    for tag in tags {
        if cache.strict().contains(*tag).await.unwrap() {
            there.push(*tag);
        }
    }
    there
}

/// What a change invalidates, and that it is nothing else.
async fn invalidated<'a>(cache: &Cache, following: &Following, tags: &[&'a str]) -> Vec<&'a str> {
    caught_up(following).await;
    assert_eq!(there(cache, &["other"]).await, ["other"], "{following:?}");
    let left = there(cache, tags).await;
    tags.iter().copied().filter(|tag| !left.contains(tag)).collect()
}

async fn caught_up(following: &Following) {
    let waiting = tokio::time::timeout(PATIENCE, following.caught_up()).await;
    waiting.unwrap_or_else(|_| panic!("it does not get on: {following:?}"));
    assert!(following.last_error().is_none() && following.lag().is_some());
}

/// Waits for what comes about by itself.
async fn eventually(what: &str, mut come: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !come().await {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One that has made its beginning.
async fn follow<D: Database>(cache: &Cache, outbox: &Outbox<D>) -> Following {
    let following = cache.follow(outbox.clone());
    caught_up(&following).await;
    following
}
