//! Many at once.

use larder_core::{Backend, Entry, Key, Outcome, Revision, When};

use super::steps::{LONG, body, item, text};
use crate::Harness;

/// Answers of `get_many` have the keys' order, with gaps where nothing is, and repeat what is asked for twice.
pub async fn get_many_keeps_the_order<B: Backend>(h: &Harness<B>) {
    let (a, b, c) = (h.key("a"), h.key("b"), h.key("c"));
    let (gone, short, filling) = (h.key("gone"), h.key("short"), h.key("filling"));
    for (key, value) in [(&a, "A"), (&b, "B"), (&c, "C"), (&gone, "gone")] {
        h.store(key, text(value), LONG).await;
    }
    h.store(&short, text("short"), h.tick()).await;
    h.token(&filling, LONG).await;
    assert!(h.remove(&gone).await, "it was there");
    h.outlive(h.tick()).await;
    let keys = [c.clone(), h.key("missing"), a, gone, b, short, c, filling];
    let found = h.backend().get_many(&keys).await.expect("get_many");
    let found: Vec<_> = found.iter().map(|entry| entry.as_ref().map(body)).collect();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    let expected = [Some("C"), None, Some("A"), None, Some("B"), None, Some("C"), None];
    assert_eq!(found, expected, "the answer has the keys' order");
}

/// One batch may reach into several namespaces.
pub async fn a_batch_of_two_namespaces<B: Backend>(h: &Harness<B>) {
    let (mine, theirs) = (h.key("same"), h.other_key("same"));
    let items = vec![
        item(&mine, text("mine"), LONG, When::Always),
        item(&theirs, text("theirs"), LONG, When::Always),
    ];
    let outcomes = h.backend().put_many(items).await.expect("put_many");
    assert!(matches!(outcomes[..], [Ok(Outcome::Stored), Ok(Outcome::Stored)]), "both are stored");
    let found = h.backend().get_many(&[theirs.clone(), mine.clone()]).await.expect("get_many");
    let found: Vec<_> = found.iter().flatten().map(body).collect();
    assert_eq!(found, ["theirs", "mine"], "each has its own");
    let removed = h.backend().remove_many(&[mine, theirs]).await.expect("remove_many");
    assert_eq!(removed, 2, "both are removed");
}

/// Empty batches succeed, and ask nobody.
pub async fn empty_batches<B: Backend>(h: &Harness<B>) {
    let before = h.round_trips();
    assert!(h.backend().get_many(&[]).await.expect("get_many").is_empty(), "nothing was asked for");
    let outcomes = h.backend().put_many(Vec::new()).await.expect("put_many");
    assert!(outcomes.is_empty(), "nothing was to be stored");
    assert_eq!(h.backend().remove_many(&[]).await.expect("remove_many"), 0, "nothing to remove");
    assert_eq!(h.round_trips(), before, "an empty batch must not cost a round trip");
}

/// Each item of `put_many` is stored or refused for itself, with its own condition and lifetime.
pub async fn put_many_answers_for_each<B: Backend>(h: &Harness<B>) {
    let key = |name: &str| h.key(name);
    let old = text("old");
    let revision = old.revision();
    h.store(&key("there"), old.clone(), LONG).await;
    h.store(&key("revised"), old.clone(), LONG).await;
    h.store(&key("zeroed"), old, LONG).await;
    let token = h.token(&key("filled"), LONG).await;
    let new = || text("new");
    let zero = std::time::Duration::ZERO;
    let items = vec![
        item(&key("always"), new(), LONG, When::Always),
        item(&key("there"), new(), LONG, When::Absent),
        item(&key("absent"), new(), LONG, When::Absent),
        item(&key("missing"), new(), LONG, When::Present),
        item(&key("revised"), new(), LONG, When::Revision(revision)),
        item(&key("revision"), new(), LONG, When::Revision(Revision::random())),
        item(&key("filled"), new(), LONG, When::Token(token)),
        item(&key("zeroed"), new(), zero, When::Always),
        item(&key("short"), new(), h.tick(), When::Always),
        item(&key("integer"), Entry::integer(4), LONG, When::Always),
    ];
    let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
    let outcomes = h.backend().put_many(items).await.expect("put_many");
    let outcomes: Vec<_> = outcomes.into_iter().map(|o| o.expect("no item fails")).collect();
    use Outcome::{Refused as R, Stored as S};
    assert_eq!(outcomes, [S, R, S, R, S, R, S, S, S, S], "each item has its own outcome");
    h.outlive(h.tick()).await;
    let found = h.backend().get_many(&keys).await.expect("get_many");
    let there: Vec<_> = found.iter().map(Option::is_some).collect();
    let expected = [true, true, true, false, true, false, true, false, false, true];
    assert_eq!(there, expected, "what was stored is there");
    h.expect_body(&key("there"), "old", "a refused item changes nothing").await;
    h.expect_body(&key("revised"), "new", "a stored item replaces").await;
    let integer = found[9].as_ref().and_then(Entry::as_counter);
    assert_eq!(integer, Some(4), "an integer among them is a counter");
}

/// `remove_many` counts what it removed: not what was missing, expired, a marker or named twice.
pub async fn remove_many_counts<B: Backend>(h: &Harness<B>) {
    let (a, b, kept) = (h.key("a"), h.key("b"), h.key("kept"));
    let (short, counter, filling) = (h.key("short"), h.key("counter"), h.key("filling"));
    for key in [&a, &b, &kept] {
        h.store(key, text("there"), LONG).await;
    }
    h.store(&short, text("short"), h.tick()).await;
    h.store(&counter, Entry::integer(1), LONG).await;
    h.token(&filling, LONG).await;
    h.outlive(h.tick()).await;
    let keys = [a.clone(), h.key("missing"), b.clone(), a.clone(), short, counter.clone(), filling];
    let removed = h.backend().remove_many(&keys).await.expect("remove_many");
    assert_eq!(removed, 3, "two entries and a counter were there");
    for key in [&a, &b, &counter] {
        h.expect_absent(key, "it was removed").await;
    }
    h.expect_body(&kept, "there", "what was not named stays").await;
    assert_eq!(h.backend().remove_many(&keys).await.expect("remove_many"), 0, "nothing is left");
}

/// Batches of a thousand work, and take one round trip where round trips are counted.
pub async fn large_batches<B: Backend>(h: &Harness<B>) {
    let keys: Vec<Key> = (0..1000).map(|n| h.key(format!("batch {n}"))).collect();
    let items = |from: usize, to: usize| {
        let put = |n: usize| item(&keys[n], text(format!("value {n}")), LONG, When::Always);
        (from..to).map(put).collect::<Vec<_>>()
    };
    // What is learned once (scripts, generations) is learned here.
    let first = h.backend().put_many(items(0, 1)).await.expect("put_many");
    assert_eq!(first.len(), 1, "there is an answer for the item");
    h.backend().get_many(&keys[..1]).await.expect("get_many");
    h.backend().remove_many(&[h.key("missing")]).await.expect("remove_many");

    let before = h.round_trips();
    let outcomes = h.backend().put_many(items(1, 1000)).await.expect("put_many");
    let after_put = h.round_trips();
    assert_eq!(outcomes.len(), 999, "there is an answer for every item");
    assert!(outcomes.iter().all(|o| matches!(o, Ok(Outcome::Stored))), "every item is stored");
    let found = h.backend().get_many(&keys).await.expect("get_many");
    let after_get = h.round_trips();
    for (n, entry) in found.iter().enumerate() {
        let value = entry.as_ref().map(body);
        assert_eq!(value, Some(format!("value {n}")), "every answer is at its place");
    }
    assert_eq!(found.len(), 1000, "there is an answer for every key");
    let counted = h.backend().get(&keys[0], &keys[..50]).await.expect("get");
    assert_eq!(counted.counters, vec![None; 50], "none of them is a counter");
    let after_counters = h.round_trips();
    assert_eq!(h.backend().remove_many(&keys).await.expect("remove_many"), 1000, "all were there");
    let after_remove = h.round_trips();
    let trips = [before, after_put, after_get, after_counters, after_remove];
    for (pair, verb) in trips.windows(2).zip(["put_many", "get_many", "get", "remove_many"]) {
        if let [Some(before), Some(after)] = pair {
            assert!(after - before <= 1, "{verb} took {} round trips", after - before);
        }
    }
}
