//! Looks at a server past the backend, and every verb of the backend in a row.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use larder_core::{
    Backend, Counter, Encoded, Entry, Error, Generation, Key, Namespace, Prefix, Put, Result,
    Revision, Tag, Token, Ttl, When,
};
use larder_redis::RedisBackend;
use larder_testkit::servers::RedisServer;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

pub(crate) const LONG: Duration = Duration::from_secs(3600);

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

/// Every verb once, none longer than ten seconds (their own limits are far below): name and error, if it failed.
pub(crate) async fn every_verb(
    b: &RedisBackend,
    namespace: &Namespace,
) -> Vec<(&'static str, Option<Error>)> {
    async fn run<T>(verb: impl Future<Output = Result<T>>) -> Option<Error> {
        tokio::time::timeout(Duration::from_secs(10), verb)
            .await
            .expect("a verb has no time limit")
            .err()
    }
    let key = Key::new(namespace, ["verbs"]).unwrap();
    let counter = Key::new(namespace, ["counter"]).unwrap();
    let tags = [Tag::new("t").unwrap()];
    let put = |when| Put { key: key.clone(), entry: text("verb"), ttl: LONG.into(), when };
    let create = Some(Counter { initial: 0, ttl: LONG.into() });
    let token = Token::random();
    vec![
        ("get", run(b.get(&key, &[])).await),
        ("get with counters", run(b.get(&key, std::slice::from_ref(&counter))).await),
        ("get_many", run(b.get_many(&[key.clone(), counter.clone()])).await),
        ("put", run(b.put(&key, text("verb"), LONG.into(), When::Always)).await),
        ("put absent", run(b.put(&key, text("verb"), LONG.into(), When::Absent)).await),
        ("put present", run(b.put(&key, text("verb"), LONG.into(), When::Present)).await),
        ("put_many", run(b.put_many(vec![put(When::Always), put(When::Always)])).await),
        ("remove", run(b.remove(&key, None)).await),
        ("remove only", run(b.remove(&key, Some(Revision::random()))).await),
        ("remove_many", run(b.remove_many(std::slice::from_ref(&key))).await),
        ("touch", run(b.touch(&key, Ttl::Default)).await),
        ("add", run(b.add(&counter, 1, create)).await),
        ("remaining", run(b.remaining(&key)).await),
        ("begin", run(b.begin(&key, LONG)).await),
        ("renew", run(b.renew(&key, token, LONG)).await),
        ("release", run(b.release(&key, token, None)).await),
        ("marks", run(b.marks(namespace, &tags)).await),
        ("invalidate", run(b.invalidate(namespace, &tags)).await),
        ("page", run(b.page(&Prefix::new(namespace), None, 10)).await),
        ("clear", run(b.clear(namespace)).await),
    ]
}

/// Asserts that every verb works.
pub(crate) async fn expect_all_work(backend: &RedisBackend, namespace: &Namespace) {
    for (verb, error) in every_verb(backend, namespace).await {
        assert!(error.is_none(), "{verb}: {error:?}");
    }
}

/// Waits for something that comes about by itself, at most 20 s.
pub(crate) async fn eventually(what: &str, mut come: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !come().await {
        assert!(tokio::time::Instant::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
