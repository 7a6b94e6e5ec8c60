//! Looks at servers past the backend, and every verb of the backend in a row.
#![allow(dead_code)]

use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Backend, Counter, Encoded, Entry, Error, Key, Namespace, Put, Result, Revision, Tag, Token,
    Ttl, When,
};
use larder_memcached::{Builder, MemcachedBackend};
use larder_testkit::servers::MemcachedServer;

pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A configuration with time enough: a busy machine is no reason to fail.
pub(crate) fn builder(url: &str) -> Builder {
    MemcachedBackend::builder()
        .url(url)
        .expect("the URL is right")
        .response_timeout(Duration::from_secs(100))
        .connect_timeout(Duration::from_secs(60))
}

/// A backend over these servers.
pub(crate) async fn over(servers: &[&MemcachedServer]) -> MemcachedBackend {
    builder(&ring_url(servers)).connect().await.expect("the servers are there")
}

pub(crate) fn ring_url(servers: &[&MemcachedServer]) -> String {
    let addresses: Vec<String> = servers.iter().map(|server| server.address()).collect();
    format!("memcached://{}", addresses.join(","))
}

/// Writes raw bytes to where a backend looks for a key.
pub(crate) async fn plant(
    backend: &MemcachedBackend,
    servers: &[&MemcachedServer],
    key: &Key,
    bytes: Bytes,
) {
    let (address, name) = backend.place(key).await.expect("the server is there");
    let server = servers.iter().find(|server| server.address() == address).expect("one of them");
    let mut request = format!("ms {name} {} T0\r\n", bytes.len()).into_bytes();
    request.extend_from_slice(&bytes);
    request.extend_from_slice(b"\r\n");
    assert_eq!(server.send(&request).await.unwrap(), b"HD\r\n");
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

pub(crate) async fn read(backend: &MemcachedBackend, key: &Key) -> Option<String> {
    backend.get(key, &[]).await.unwrap().entry.as_ref().map(body)
}

pub(crate) async fn store(backend: &MemcachedBackend, key: &Key, value: &str) {
    let _ = backend.put(key, text(value), LONG.into(), When::Always).await.unwrap();
}

/// Every verb once, none for ever: name and error, if it failed.
pub(crate) async fn every_verb(
    b: &MemcachedBackend,
    namespace: &Namespace,
) -> Vec<(&'static str, Option<Error>)> {
    async fn run<T>(verb: impl Future<Output = Result<T>>) -> Option<Error> {
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, verb).await.expect("a verb has no time limit").err()
    }
    let key = Key::new(namespace, ["verbs"]).unwrap();
    let counter = Key::new(namespace, ["counter"]).unwrap();
    let tags = [Tag::new("t").unwrap()];
    let put = |when| Put { key: key.clone(), entry: text("verb"), ttl: LONG.into(), when };
    let create = Some(Counter { initial: 0, ttl: LONG.into() });
    let token = Token::random();
    let many = async |puts| {
        let outcomes = b.put_many(puts).await?;
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
    };
    vec![
        ("get", run(b.get(&key, &[])).await),
        ("get with counters", run(b.get(&key, std::slice::from_ref(&counter))).await),
        ("get_many", run(b.get_many(&[key.clone(), counter.clone()])).await),
        ("put", run(b.put(&key, text("verb"), LONG.into(), When::Always)).await),
        ("put absent", run(b.put(&key, text("verb"), LONG.into(), When::Absent)).await),
        ("put present", run(b.put(&key, text("verb"), LONG.into(), When::Present)).await),
        ("put_many", run(many(vec![put(When::Always), put(When::Always)])).await),
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
        ("clear", run(b.clear(namespace)).await),
    ]
}

/// Asserts that every verb works.
pub(crate) async fn expect_all_work(backend: &MemcachedBackend, namespace: &Namespace) {
    for (verb, error) in every_verb(backend, namespace).await {
        assert!(error.is_none(), "{verb}: {error:?}");
    }
}

/// Waits for something that comes about by itself.
pub(crate) async fn eventually(what: &str, mut come: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while !come().await {
        assert!(tokio::time::Instant::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
