//! Looks at a database past the backend.
#![allow(dead_code)]

use std::time::Duration;

use larder_core::{
    Backend, Counter, Encoded, Entry, Error, Generation, Key, Namespace, Prefix, Put, Result,
    Revision, Sequence, Tag, Token, Ttl, When,
};

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

/// Every verb once, none longer than a minute (their own limits are far below): name and error, if it failed.
pub(crate) async fn every_verb(
    b: &impl Backend,
    namespace: &Namespace,
) -> Vec<(&'static str, Option<Error>)> {
    async fn run<T>(verb: impl Future<Output = Result<T>>) -> Option<Error> {
        tokio::time::timeout(Duration::from_secs(60), verb)
            .await
            .expect("a verb has no time limit")
            .err()
    }
    let key = Key::new(namespace, ["verbs"]).unwrap();
    let counter = Key::new(namespace, ["counter"]).unwrap();
    let tags = [tag("t")];
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
pub(crate) async fn expect_all_work(backend: &impl Backend, namespace: &Namespace) {
    for (verb, error) in every_verb(backend, namespace).await {
        assert!(error.is_none(), "{verb}: {error:?}");
    }
}

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
