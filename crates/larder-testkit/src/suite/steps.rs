//! What many checks do, in few words.

use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Backend, Begin, Encoded, Entry, Error, ErrorKind, Key, Outcome, Put, Remaining, Result, Tag,
    Token, Ttl, When,
};

use crate::Harness;

/// A lifetime that no check outlives by accident.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// The codec number of the suite's entries.
pub(crate) const CODEC: u8 = 200;

/// An entry of bytes.
pub(crate) fn wire(body: impl Into<Bytes>) -> Entry {
    Entry::wire(Encoded { codec: CODEC, head: Bytes::new(), body: body.into() })
}

/// An entry of text.
pub(crate) fn text(body: impl AsRef<str>) -> Entry {
    wire(Bytes::copy_from_slice(body.as_ref().as_bytes()))
}

/// The body as text.
pub(crate) fn body(entry: &Entry) -> String {
    let encoded = entry.encoded().expect("what was stored encodes");
    String::from_utf8_lossy(&encoded.body).into_owned()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::new(text).expect("the tag is short")
}

pub(crate) fn item(key: &Key, entry: Entry, ttl: impl Into<Ttl>, when: When) -> Put {
    Put { key: key.clone(), entry, ttl: ttl.into(), when }
}

/// Asserts which kind of error it is.
pub(crate) fn expect_error<T>(result: Result<T>, kind: ErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what} must fail with {kind:?}, and it succeeded"),
        Err(error) => assert_eq!(error.kind(), kind, "{what} must fail with {kind:?}: {error:?}"),
    }
}

fn must<T>(verb: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{verb} failed: {error:?}"))
}

impl<B: Backend> Harness<B> {
    pub(crate) async fn get(&self, key: &Key) -> Option<Entry> {
        must("get", self.backend().get(key, &[]).await).entry
    }

    /// The body of what is there.
    pub(crate) async fn body(&self, key: &Key) -> Option<String> {
        self.get(key).await.as_ref().map(body)
    }

    pub(crate) async fn put(
        &self,
        key: &Key,
        entry: Entry,
        ttl: impl Into<Ttl>,
        when: When,
    ) -> Outcome {
        must("put", self.backend().put(key, entry, ttl.into(), when).await)
    }

    /// Stores without a condition.
    pub(crate) async fn store(&self, key: &Key, entry: Entry, ttl: impl Into<Ttl>) {
        let outcome = self.put(key, entry, ttl, When::Always).await;
        assert_eq!(outcome, Outcome::Stored, "an unconditional put must store");
    }

    pub(crate) async fn remove(&self, key: &Key) -> bool {
        must("remove", self.backend().remove(key, None).await)
    }

    pub(crate) async fn touch(&self, key: &Key, ttl: impl Into<Ttl>) -> bool {
        must("touch", self.backend().touch(key, ttl.into()).await)
    }

    pub(crate) async fn remaining(&self, key: &Key) -> Remaining {
        must("remaining", self.backend().remaining(key).await)
    }

    pub(crate) async fn begin(&self, key: &Key, hold: Duration) -> Begin {
        must("begin", self.backend().begin(key, hold).await)
    }

    /// Begins a fill that must succeed.
    pub(crate) async fn token(&self, key: &Key, hold: Duration) -> Token {
        match self.begin(key, hold).await {
            Begin::Token(token) => token,
            other => panic!("begin on an absent key must give a token, not {other:?}"),
        }
    }

    /// Stores by token.
    pub(crate) async fn fill(&self, key: &Key, entry: Entry, token: Token) -> Outcome {
        self.put(key, entry, LONG, When::Token(token)).await
    }

    /// Asserts that every verb that only looks finds nothing.
    pub(crate) async fn expect_absent(&self, key: &Key, why: &str) {
        assert!(self.get(key).await.is_none(), "get must miss: {why}");
        let many = must("get_many", self.backend().get_many(std::slice::from_ref(key)).await);
        assert!(matches!(many[..], [None]), "get_many must miss: {why}");
        let remaining = self.remaining(key).await;
        assert_eq!(remaining, Remaining::Absent, "remaining must say absent: {why}");
        let found = must("get", self.backend().get(key, std::slice::from_ref(key)).await);
        assert_eq!(found.counters, [None], "a counter must be absent: {why}");
    }

    /// Asserts that an entry with that body is there.
    pub(crate) async fn expect_body(&self, key: &Key, expected: &str, why: &str) {
        assert_eq!(self.body(key).await.as_deref(), Some(expected), "{why}");
    }

    /// Whether a reader may use what is under the key: it is there, and no tag was invalidated since it was built.
    pub(crate) async fn usable(&self, key: &Key) -> bool {
        let Some(entry) = self.get(key).await else { return false };
        let marks = must("marks", self.backend().marks(self.namespace(), entry.tags()).await);
        marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark)))
    }
}
