//! Looks at a server past the backend, and every verb of the backend in a row.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use larder_core::{Backend, Encoded, Entry, Error, Generation, Key, Namespace, When};
use larder_redis::RedisBackend;
use larder_testkit::servers::RedisServer;
use larder_testkit::{Sizes, verbs};
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// For the suite on many servers at once; `scripts/soak` sets the large ones.
pub(crate) fn small_sizes() -> Sizes {
    let set = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    Sizes { races: set("LARDER_RACES").unwrap_or(200), drops: set("LARDER_DROPS").unwrap_or(1_000) }
}

/// A connection of another client.
pub(crate) async fn raw(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// One command.
pub(crate) async fn ask<T: FromRedisValue>(raw: &mut MultiplexedConnection, parts: &[&[u8]]) -> T {
    let mut command = redis::Cmd::new();
    for part in parts {
        command.arg(*part);
    }
    command.query_async(raw).await.unwrap()
}

/// Under which name the backend keeps a key; makes the namespace's generation if there is none.
pub(crate) async fn wire_name(raw: &mut MultiplexedConnection, key: &Key) -> String {
    let place = format!("{}:generation", key.namespace());
    let new = Generation::random().to_string();
    let there: Option<String> =
        ask(raw, &[b"SET", place.as_bytes(), new.as_bytes(), b"NX", b"GET"]).await;
    let generation = Generation::parse(&there.unwrap_or(new)).unwrap();
    key.as_ref().wire_name(generation)
}

/// The server's own counters: how often each command was called.
pub(crate) async fn calls(raw: &mut MultiplexedConnection) -> BTreeMap<String, u64> {
    let text: String = ask(raw, &[b"INFO", b"commandstats"]).await;
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) =
            line.strip_prefix("cmdstat_").and_then(|l| l.split_once(":calls="))
        else {
            continue;
        };
        let count = rest.split(',').next().unwrap().parse().unwrap();
        calls.insert(name.to_owned(), count);
    }
    calls
}

/// Calls in between, without those of whoever asks.
pub(crate) fn called(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let more = |(name, count): (&String, &u64)| {
        let more = count - before.get(name).copied().unwrap_or(0);
        (more > 0 && name != "info").then(|| (name.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

pub(crate) fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

pub(crate) fn key(part: &str) -> Key {
    Key::new(&shop(), ["d", part]).unwrap()
}

pub(crate) fn text(body: &str) -> Entry {
    Entry::wire(Encoded { codec: 200, body: body.to_owned().into(), ..Encoded::default() })
}

pub(crate) fn body(entry: &Entry) -> String {
    String::from_utf8(entry.encoded().unwrap().body.to_vec()).unwrap()
}

pub(crate) async fn read(backend: &RedisBackend, key: &Key) -> Option<String> {
    backend.get(key, &[]).await.unwrap().entry.as_ref().map(body)
}

pub(crate) async fn store(backend: &RedisBackend, key: &Key, value: &str) {
    let _ = backend.put(key, text(value), LONG.into(), When::Always).await.unwrap();
}

/// Every verb once: name and error, if it failed.
pub(crate) async fn every_verb(
    backend: &RedisBackend,
    namespace: &Namespace,
) -> Vec<(&'static str, Option<Error>)> {
    verbs::every_verb(backend, namespace, VERB).await
}

/// Asserts that every verb works.
pub(crate) async fn expect_all_work(backend: &RedisBackend, namespace: &Namespace) {
    verbs::expect_all_work(backend, namespace, VERB).await;
}

// Their own limits are far below.
const VERB: Duration = Duration::from_secs(10);

/// Waits for something that comes about by itself, at most 20 s.
pub(crate) async fn eventually(what: &str, mut come: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !come().await {
        assert!(tokio::time::Instant::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the servers have made one of these their primary, which takes them as long as it takes, and asserts that a
/// write is acknowledged within five seconds of that, whatever those before it were told. How long it took.
pub(crate) async fn writes_soon_after_the_election(
    backend: &RedisBackend,
    key: &Key,
    replicas: &[RedisServer],
) -> Duration {
    eventually("the election", async || {
        for replica in replicas {
            // Who is promoted closes every connection, this one too.
            let role = replica.command(&["ROLE"]).await.unwrap_or_default();
            if String::from_utf8_lossy(&role).contains("master") {
                return true;
            }
        }
        false
    })
    .await;
    let elected = tokio::time::Instant::now();
    let acknowledged = async {
        while let Err(error) = backend.put(key, text("v"), LONG.into(), When::Always).await {
            assert!(error.is_outage(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = Duration::from_secs(5);
    let found = tokio::time::timeout(limit, acknowledged).await;
    assert!(found.is_ok(), "there was a primary for {limit:?}, and nothing could be written");
    elected.elapsed()
}
