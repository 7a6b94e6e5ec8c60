//! Limits.

use bytes::Bytes;
use larder_core::{Backend, ErrorKind, Key, Outcome, When};

use super::steps::{LONG, expect_error, item, text, wire};
use crate::Harness;

// A body that is larger than the declared limit by itself, if one is declared and can be tried.
fn too_large<B: Backend>(h: &Harness<B>) -> Option<Bytes> {
    let limit = h.abilities().max_bytes?;
    (limit <= 64 << 20).then(|| Bytes::from(vec![b'x'; limit as usize + 1]))
}

/// A value that is too large is refused with that error, and what was there is gone.
pub async fn too_large_takes_the_old_away<B: Backend>(h: &Harness<B>) {
    let Some(large) = too_large(h) else { return };
    let (key, fresh) = (h.key("large"), h.key("fresh"));
    h.store(&key, text("old"), LONG).await;
    for (key, when) in [(&key, When::Always), (&fresh, When::Always), (&fresh, When::Absent)] {
        let result = h.backend().put(key, wire(large.clone()), LONG.into(), when).await;
        expect_error(result, ErrorKind::TooLarge, "a put over the limit");
        h.expect_absent(key, "an old value must not outlive its replacement").await;
    }
    h.store(&key, text("small"), LONG).await;
    h.expect_body(&key, "small", "what fits is stored").await;
}

/// In a batch, a value that is too large fails for itself alone.
pub async fn too_large_in_a_batch<B: Backend>(h: &Harness<B>) {
    let Some(large) = too_large(h) else { return };
    let (before, key, after) = (h.key("before"), h.key("large"), h.key("after"));
    h.store(&key, text("old"), LONG).await;
    let items = vec![
        item(&before, text("before"), LONG, When::Always),
        item(&key, wire(large), LONG, When::Always),
        item(&after, text("after"), LONG, When::Always),
    ];
    let mut outcomes = h.backend().put_many(items).await.expect("the batch does not fail");
    assert_eq!(outcomes.len(), 3, "there is an answer for every item");
    let result = outcomes.remove(1);
    expect_error(result, ErrorKind::TooLarge, "an item over the limit");
    let stored = outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Stored)));
    assert!(stored, "its neighbours are stored");
    h.expect_absent(&key, "an old value must not outlive its replacement").await;
    h.expect_body(&before, "before", "its neighbours are stored").await;
    h.expect_body(&after, "after", "its neighbours are stored").await;
}

/// A value that is nearly as large as the limit is stored.
pub async fn nearly_too_large_is_stored<B: Backend>(h: &Harness<B>) {
    let Some(large) = too_large(h) else { return };
    let key = h.key("large");
    let fits = large.slice(..large.len() / 4 * 3);
    h.store(&key, wire(fits.clone()), LONG).await;
    let read = h.get(&key).await.expect("it is within the limit").encoded().expect("it encodes");
    assert!(read.body == fits, "it comes back byte for byte");
}

/// A backend with little room keeps within it, keeps something, and goes on working.
pub async fn the_bound_is_kept<B: Backend>(h: &Harness<B>) {
    let Some((room, small)) = h.small().await else { return };
    let keys: Vec<Key> = (0..room * 10 + 19).map(|n| h.key(format!("bound {n}"))).collect();
    for key in &keys {
        let outcome = small.put(key, wire(vec![b'x'; 1024]), LONG.into(), When::Always).await;
        assert_eq!(outcome.expect("put"), Outcome::Stored, "it stores at its bound too");
    }
    let found = small.get_many(&keys).await.expect("get_many");
    let there = found.iter().flatten().count();
    assert!(there <= room, "{there} entries are there, and there is room for {room}");
    assert!(there > 0, "something is kept");
    for key in &keys {
        small.remove(key, None).await.expect("remove");
    }
    let outcome = small.put(&keys[0], text("again"), LONG.into(), When::Always).await;
    assert_eq!(outcome.expect("put"), Outcome::Stored, "it goes on");
    let found = small.get(&keys[0], &[]).await.expect("get");
    assert!(found.entry.is_some(), "what is put into an empty store is there");
}
