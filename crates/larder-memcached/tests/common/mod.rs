//! Looks at servers past the backend, and every verb of the backend in a row.
#![allow(dead_code)]

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Backend, Encoded, Entry, Error, Key, Namespace, When};
use larder_memcached::{Builder, MemcachedBackend};
use larder_testkit::servers::MemcachedServer;
use larder_testkit::verbs;

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

/// Every verb once: name and error, if it failed.
pub(crate) async fn every_verb(
    backend: &MemcachedBackend,
    namespace: &Namespace,
) -> Vec<(&'static str, Option<Error>)> {
    verbs::every_verb(backend, namespace, VERB).await
}

/// Asserts that every verb works.
pub(crate) async fn expect_all_work(backend: &MemcachedBackend, namespace: &Namespace) {
    verbs::expect_all_work(backend, namespace, VERB).await;
}

// Their own limits are far below.
const VERB: Duration = Duration::from_secs(60);

/// Waits for something that comes about by itself.
pub(crate) async fn eventually(what: &str, mut come: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while !come().await {
        assert!(tokio::time::Instant::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
