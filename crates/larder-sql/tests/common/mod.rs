//! Looks at a database past the backend.
#![allow(dead_code)]

use std::time::Duration;

use larder_core::{
    Backend, Encoded, Entry, Error, Generation, Key, Namespace, Sequence, Tag, When,
};
use larder_testkit::verbs;

/// Under which name the backend keeps a key.
pub(crate) fn name(key: &Key) -> String {
    let generation = Generation::parse("0000000000000000").unwrap();
    let whole = key.as_ref().wire_name(generation);
    whole[key.namespace().len() + 18..].to_owned()
}

const PLANT: &str = "INSERT INTO larder \
    (namespace, generation, name, kind, number, revision, value, written, fresh, expires, used, size) \
    VALUES ($1, COALESCE((SELECT number FROM larder WHERE namespace = $1 AND generation = 0 \
    AND name = 'generation'), 1), $2, 0, NULL, NULL, $3, 0, NULL, NULL, 0, 1) \
    ON CONFLICT (namespace, generation, name) DO UPDATE SET kind = 0, number = NULL, \
    value = excluded.value, fresh = NULL, expires = NULL";

#[cfg(feature = "sqlite")]
pub(crate) mod sqlite {
    use super::*;
    use larder_sql::SqliteBackend;

    /// Writes bytes to where the backend looks for a key.
    pub(crate) async fn plant(backend: &SqliteBackend, key: &Key, bytes: &[u8]) {
        let mut connection = backend.acquire().await.unwrap();
        let query = sqlx::query(PLANT).bind(key.namespace().to_owned()).bind(name(key));
        query.bind(bytes.to_vec()).execute(&mut *connection).await.unwrap();
    }
}

#[cfg(feature = "postgres")]
pub(crate) mod postgres {
    use super::*;
    use larder_sql::PostgresBackend;

    /// Writes bytes to where the backend looks for a key.
    pub(crate) async fn plant(backend: &PostgresBackend, key: &Key, bytes: &[u8]) {
        let mut connection = backend.acquire().await.unwrap();
        let query = sqlx::query(PLANT).bind(key.namespace().to_owned()).bind(name(key));
        query.bind(bytes.to_vec()).execute(&mut *connection).await.unwrap();
    }
}

pub(crate) const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

pub(crate) fn key(part: &str) -> Key {
    Key::new(&shop(), ["d", part]).unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    Tag::new(name).unwrap()
}

pub(crate) fn text(body: &str) -> Entry {
    Entry::wire(Encoded { codec: 200, body: body.to_owned().into(), ..Encoded::default() })
}

pub(crate) fn body(entry: &Entry) -> String {
    String::from_utf8(entry.encoded().unwrap().body.to_vec()).unwrap()
}

pub(crate) async fn read(backend: &impl Backend, key: &Key) -> Option<String> {
    backend.get(key, &[]).await.unwrap().entry.as_ref().map(body)
}

pub(crate) async fn store(backend: &impl Backend, key: &Key, value: &str) {
    let _ = backend.put(key, text(value), LONG.into(), When::Always).await.unwrap();
}

/// Every verb once: name and error, if it failed.
pub(crate) async fn every_verb(
    backend: &impl Backend,
    namespace: &Namespace,
) -> Vec<(&'static str, Option<Error>)> {
    verbs::every_verb(backend, namespace, VERB).await
}

/// Asserts that every verb works.
pub(crate) async fn expect_all_work(backend: &impl Backend, namespace: &Namespace) {
    verbs::expect_all_work(backend, namespace, VERB).await;
}

// Their own limits are far below.
const VERB: Duration = Duration::from_secs(60);

/// Waits for something that comes about by itself, at most a minute.
pub(crate) async fn eventually(what: &str, mut come: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while !come().await {
        assert!(tokio::time::Instant::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Stores what was built now with these tags.
pub(crate) async fn build(backend: &impl Backend, key: &Key, tags: &[Tag]) -> Sequence {
    let sequence = backend.marks(&shop(), tags).await.unwrap().sequence;
    build_at(backend, key, tags, sequence).await;
    sequence
}

/// Stores what was built when the sequence stood there.
pub(crate) async fn build_at(backend: &impl Backend, key: &Key, tags: &[Tag], at: Sequence) {
    let entry = text("built").with_tags(tags.iter().cloned()).with_built_at(at);
    let _ = backend.put(key, entry, LONG.into(), When::Always).await.unwrap();
}

/// Whether a reader may use it, tags and all.
pub(crate) async fn usable(backend: &impl Backend, key: &Key) -> bool {
    let Some(entry) = backend.get(key, &[]).await.unwrap().entry else { return false };
    let marks = backend.marks(&shop(), entry.tags()).await.unwrap();
    marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark)))
}
