//! Looks at a database past the backend.
#![allow(dead_code)]

use std::time::Duration;

use larder_core::{
    Backend, Encoded, Entry, Error, ErrorKind, Generation, Key, Namespace, Outcome, Put, Sequence,
    Tag, When,
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

/// Asserts that a record of exactly the declared limit is stored and read, that one byte more is refused, and that what
/// it was to replace is gone: alone and in a batch.
pub(crate) async fn expect_exact_limit(backend: &impl Backend) {
    let limit = backend.abilities().max_bytes.unwrap() as usize;
    let key = key("large");
    // The envelope has a hundred bytes, and repeats the key.
    let most = limit - 100 - key.as_ref().as_bytes().len();
    let large = |more: usize| text(&"x".repeat(most + more));
    let put = async |entry, when| backend.put(&key, entry, LONG.into(), when).await;
    let whole = async || read(backend, &key).await.is_some_and(|body| body.len() == most);
    assert_eq!(put(large(0), When::Always).await.unwrap(), Outcome::Stored, "the largest fits");
    assert!(whole().await, "it comes back, of {limit}");
    assert_eq!(put(large(1), When::Absent).await.unwrap(), Outcome::Refused, "it is there");
    assert!(whole().await, "a refusal changes nothing");
    let error = put(large(1), When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    assert_eq!(read(backend, &key).await, None, "the old value is gone");

    for more in [0, 1] {
        let items = ["large", "other"].map(|part| Put {
            key: self::key(part),
            entry: large(more),
            ttl: LONG.into(),
            when: When::Always,
        });
        // Both names are of one length, and so are their records.
        for outcome in backend.put_many(items.into()).await.unwrap() {
            assert_eq!(outcome.is_ok(), more == 0, "{outcome:?}");
        }
        assert_eq!(whole().await, more == 0, "in a batch, of {limit}");
    }
}
