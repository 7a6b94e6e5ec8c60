//! What a write leaves behind.

use std::sync::Arc;

use bytes::Bytes;
use larder_core::{
    Backend, Encoded, Entry, Error, ErrorKind, Live, Outcome, Remaining, Result, Revision, Ttl,
    When,
};

use super::steps::{LONG, item, tag, text};
use crate::Harness;

/// A put replaces everything: value, tags, revision, lifetime.
pub async fn put_replaces<B: Backend>(h: &Harness<B>) {
    let key = h.key("replaced");
    let marks = h.backend().marks(h.namespace(), &[tag("old")]).await.expect("marks");
    let old = text("old").with_tags([tag("old")]).with_built_at(marks.sequence);
    h.store(&key, old, LONG).await;
    let new = text("new");
    let revision = new.revision();
    h.store(&key, new, Ttl::Forever).await;
    let read = h.get(&key).await.expect("it is there");
    assert_eq!(super::steps::body(&read), "new", "the new value replaces the old one");
    assert!(read.tags().is_empty(), "the old tags are gone");
    assert_eq!(read.revision(), revision, "the revision is the new one");
    assert_eq!(h.remaining(&key).await, Remaining::Forever, "the lifetime is the new one");
}

/// A put replaces a value of another kind.
pub async fn kinds_replace_each_other<B: Backend>(h: &Harness<B>) {
    let key = h.key("kinds");
    h.store(&key, Entry::integer(5), LONG).await;
    h.store(&key, text("text"), LONG).await;
    h.expect_body(&key, "text", "bytes replace an integer").await;
    h.store(&key, Entry::integer(6), LONG).await;
    let found = h.backend().get(&key, std::slice::from_ref(&key)).await.expect("get");
    assert_eq!(found.counters, [Some(6)], "an integer replaces bytes");
}

/// Two writings of one entry are told apart by what was written, and equal ones are equal.
pub async fn revisions_are_the_writers<B: Backend>(h: &Harness<B>) {
    let key = h.key("revision");
    for bytes in [[0xff; 16], [1; 16], *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n"] {
        let revision = Revision::from_bytes(bytes);
        h.store(&key, text("same").with_revision(revision), LONG).await;
        let read = h.get(&key).await.expect("it is there");
        assert_eq!(read.revision(), revision, "the writer chooses the revision");
    }
}

/// A removed entry is gone, and removing says whether there was one.
pub async fn remove_takes_away<B: Backend>(h: &Harness<B>) {
    let (key, counter, neighbour) = (h.key("gone"), h.key("counter"), h.key("gone too"));
    h.store(&key, text("here"), LONG).await;
    h.store(&neighbour, text("stays"), LONG).await;
    h.store(&counter, Entry::integer(1), LONG).await;
    assert!(h.remove(&key).await, "there was an entry");
    assert!(h.remove(&counter).await, "there was a counter");
    h.expect_absent(&key, "it was removed").await;
    h.expect_absent(&counter, "it was removed").await;
    assert!(!h.remove(&key).await, "there was nothing left to remove");
    h.expect_body(&neighbour, "stays", "another key is not touched").await;
}

/// Removing an expired entry removes nothing.
pub async fn remove_of_expired_is_false<B: Backend>(h: &Harness<B>) {
    let key = h.key("expired");
    h.store(&key, text("short"), h.tick()).await;
    h.outlive(h.tick()).await;
    assert!(!h.remove(&key).await, "an expired entry is not there to be removed");
}

/// Removing one revision leaves another alone.
pub async fn remove_only_that_revision<B: Backend>(h: &Harness<B>) {
    let key = h.key("revision");
    let entry = text("kept");
    let revision = entry.revision();
    h.store(&key, entry, LONG).await;
    let removed = h.backend().remove(&key, Some(Revision::random())).await.expect("remove");
    assert!(!removed, "another revision is not removed");
    h.expect_body(&key, "kept", "a refused remove changes nothing").await;
    let removed = h.backend().remove(&key, Some(revision)).await.expect("remove");
    assert!(removed, "that revision is removed");
    h.expect_absent(&key, "it was removed").await;
    let removed = h.backend().remove(&key, Some(revision)).await.expect("remove");
    assert!(!removed, "there is nothing left of that revision");
}

/// Fifty tags, long ones and strange ones, come back.
pub async fn many_tags_come_back<B: Backend>(h: &Harness<B>) {
    let key = h.key("tags");
    let mut tags: Vec<_> = (0..46).map(|n| tag(&format!("tag {n}"))).collect();
    tags.extend([tag(&"x".repeat(256)), tag("\u{1F980}"), tag("a,b;c|d:e"), tag("\r\n*")]);
    let marks = h.backend().marks(h.namespace(), &tags).await.expect("marks");
    let entry = text("tagged").with_tags(tags.clone()).with_built_at(marks.sequence);
    h.store(&key, entry, LONG).await;
    let read = h.get(&key).await.expect("it is there");
    assert_eq!(read.tags(), tags, "every tag comes back, in order");
    assert!(h.usable(&key).await, "no tag was invalidated");
}

/// A value that does not encode is an error where it would have to, and nothing of it is stored.
pub async fn what_does_not_encode_is_not_stored<B: Backend>(h: &Harness<B>) {
    let (key, before, after) = (h.key("broken"), h.key("before"), h.key("after"));
    let broken = || Entry::live(Arc::new(Broken));
    match h.backend().put(&key, broken(), LONG.into(), When::Always).await {
        Err(_) => h.expect_absent(&key, "nothing of it may be stored").await,
        Ok(_) => {
            let read = h.get(&key).await.expect("a put that succeeds has stored");
            assert!(read.downcast::<Broken>().is_some(), "only a live form can have been stored");
        }
    }
    let items = vec![
        item(&before, text("before"), LONG, When::Always),
        item(&key, broken(), LONG, When::Always),
        item(&after, text("after"), LONG, When::Always),
    ];
    let outcomes = h.backend().put_many(items).await.expect("one bad item does not fail a batch");
    assert_eq!(outcomes.len(), 3, "there is an answer for every item");
    for (index, key, body) in [(0, &before, "before"), (2, &after, "after")] {
        assert!(matches!(outcomes[index], Ok(Outcome::Stored)), "item {index} must be stored");
        h.expect_body(key, body, "one bad item must not harm its neighbours").await;
    }
}

/// A second client reads, conditions on and counts what the first one wrote.
pub async fn a_second_client_sees_it<B: Backend>(h: &Harness<B>) {
    let Some(second) = h.second().await else { return };
    let (key, counter) = (h.key("shared"), h.key("counter"));
    let marks = h.backend().marks(h.namespace(), &[tag("t")]).await.expect("marks");
    let entry = text("first").with_tags([tag("t")]).with_built_at(marks.sequence);
    let revision = entry.revision();
    h.store(&key, entry, LONG).await;
    h.settle().await;
    let read = second.get(&key, &[]).await.expect("get").entry.expect("the other client sees it");
    assert_eq!(super::steps::body(&read), "first", "the other client sees the value");
    assert_eq!(read.revision(), revision, "the other client sees the revision");
    assert_eq!(read.tags(), [tag("t")], "the other client sees the tags");
    let seen = second.marks(h.namespace(), &[tag("t")]).await.expect("marks");
    assert_eq!(seen.tags, marks.tags, "both see the same invalidations");
    let outcome =
        second.put(&key, text("second"), LONG.into(), When::Revision(revision)).await.expect("put");
    assert_eq!(outcome, Outcome::Stored, "the revision holds for the other client");
    h.settle().await;
    h.expect_body(&key, "second", "the first client sees what the second wrote").await;
    let create = Some(larder_core::Counter { initial: 0, ttl: LONG.into() });
    assert_eq!(h.backend().add(&counter, 1, create).await.expect("add"), Some(1));
    assert_eq!(second.add(&counter, 1, None).await.expect("add"), Some(2), "they count together");
    assert!(second.remove(&key, None).await.expect("remove"), "the other client can remove it");
    h.settle().await;
    h.expect_absent(&key, "the other client removed it").await;
}

/// What a durable backend stored is there after its store was restarted.
pub async fn durable_means_durable<B: Backend>(h: &Harness<B>) {
    let key = h.key("durable");
    h.store(&key, text("durable"), LONG).await;
    if h.restart().await {
        h.expect_body(&key, "durable", "it outlives a restart").await;
    }
}

struct Broken;

impl Live for Broken {
    fn encode(&self) -> Result<Encoded> {
        Err(Error::new(ErrorKind::Other, "this value cannot be represented"))
    }

    fn weight(&self) -> usize {
        size_of::<Bytes>()
    }
}
