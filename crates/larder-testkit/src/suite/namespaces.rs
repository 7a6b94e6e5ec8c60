//! Namespaces, and clearing one.

use larder_core::{Backend, Counter, Entry, Key, Namespace, Outcome, Ttl, When};

use super::steps::{LONG, body, tag, text};
use crate::Harness;

async fn clear<B: Backend>(h: &Harness<B>) {
    h.backend().clear(h.namespace()).await.expect("clear");
}

/// Equal keys of two namespaces are two keys, to every verb.
pub async fn they_do_not_share_keys<B: Backend>(h: &Harness<B>) {
    let (mine, theirs) = (h.key("same"), h.other_key("same"));
    h.store(&mine, text("mine"), LONG).await;
    h.expect_absent(&theirs, "it was written in the other namespace only").await;
    assert!(!h.touch(&theirs, LONG).await && !h.remove(&theirs).await, "theirs is absent");
    let outcome = h.put(&theirs, text("theirs"), LONG, When::Absent).await;
    assert_eq!(outcome, Outcome::Stored, "theirs is absent");
    h.expect_body(&mine, "mine", "mine stays").await;
    h.expect_body(&theirs, "theirs", "theirs is its own").await;
    let counters = [h.key("n"), h.other_key("n")];
    for (key, initial) in counters.iter().zip([10, 20]) {
        let create = Some(Counter { initial, ttl: LONG.into() });
        assert_eq!(h.backend().add(key, 1, create).await.expect("add"), Some(initial + 1));
    }
    let found = h.backend().get(&mine, &counters).await.expect("get");
    assert_eq!(found.counters, [Some(11), Some(21)], "each counts for itself");
    assert!(h.remove(&mine).await, "mine is there");
    h.expect_body(&theirs, "theirs", "theirs stays").await;
}

/// Clearing takes away entries, counters and markers.
pub async fn clearing_empties_one<B: Backend>(h: &Harness<B>) {
    let (entry, forever, counter) = (h.key("entry"), h.key("forever"), h.key("counter"));
    let (filling, passed) = (h.key("filling"), h.key("passed"));
    h.store(&entry, text("entry"), LONG).await;
    h.store(&forever, text("forever"), Ttl::Forever).await;
    h.store(&counter, Entry::integer(1), LONG).await;
    h.token(&filling, LONG).await;
    let token = h.token(&passed, LONG).await;
    let released = h.backend().release(&passed, token, Some(LONG)).await.expect("release");
    assert!(released, "the marker was there");
    clear(h).await;
    for (key, what) in
        [(&entry, "an entry"), (&forever, "one without an end"), (&counter, "a counter")]
    {
        h.expect_absent(key, &format!("{what} was cleared")).await;
    }
    let added = h.backend().add(&counter, 1, None).await.expect("add");
    assert_eq!(added, None, "a counter was cleared");
    let refused = h.put(&entry, text("new"), LONG, When::Present).await;
    assert_eq!(refused, Outcome::Refused, "nothing is present");
    h.token(&filling, LONG).await;
    h.token(&passed, LONG).await;
}

/// Clearing touches nothing of another namespace, not even of one whose name begins alike.
pub async fn clearing_spares_others<B: Backend>(h: &Harness<B>) {
    // The other name is the own one and a suffix: clear both ways.
    for (cleared, spared) in [(h.namespace(), h.other()), (h.other(), h.namespace())] {
        let key = |part: &str| Key::new(spared, ["spared", part]).expect("the key is short");
        let tags = [tag("t")];
        let before = h.backend().marks(spared, &tags).await.expect("marks");
        let entry = text("spared").with_tags(tags.clone()).with_built_at(before.sequence);
        h.store(&key("entry"), entry, LONG).await;
        h.store(&key("counter"), Entry::integer(7), LONG).await;
        let token = h.token(&key("filling"), LONG).await;
        h.backend().clear(cleared).await.expect("clear");
        h.expect_body(&key("entry"), "spared", "another namespace was cleared").await;
        let found = h.get(&key("counter")).await.expect("another namespace was cleared");
        assert_eq!(found.as_counter(), Some(7), "its counters stay");
        let after = h.backend().marks(spared, &tags).await.expect("marks");
        assert_eq!(after.sequence, before.sequence, "its sequence stays");
        assert_eq!(after.tags, before.tags, "its tags stay");
        let outcome = h.fill(&key("filling"), text("filled"), token).await;
        assert_eq!(outcome, Outcome::Stored, "its fills go on");
    }
}

/// Clearing works on what is empty, and as often as one likes.
pub async fn clearing_twice<B: Backend>(h: &Harness<B>) {
    let key = h.key("twice");
    clear(h).await;
    for round in ["first", "second", "third"] {
        h.store(&key, text(round), LONG).await;
        h.expect_body(&key, round, "what is put after a clear is there").await;
        clear(h).await;
        h.expect_absent(&key, "it was cleared again").await;
    }
    clear(h).await;
    h.expect_absent(&key, "clearing twice brings nothing back").await;
}

/// After a clear, everything works as in a new namespace.
pub async fn a_cleared_namespace_works<B: Backend>(h: &Harness<B>) {
    let (key, counter, filled) = (h.key("key"), h.key("counter"), h.key("filled"));
    h.store(&counter, Entry::integer(100), LONG).await;
    clear(h).await;
    let outcome = h.put(&key, text("new"), LONG, When::Absent).await;
    assert_eq!(outcome, Outcome::Stored, "nothing is there after a clear");
    h.expect_body(&key, "new", "what is put after a clear is there").await;
    let create = Some(Counter { initial: 0, ttl: LONG.into() });
    let added = h.backend().add(&counter, 1, create).await.expect("add");
    assert_eq!(added, Some(1), "counters start again");
    let token = h.token(&filled, LONG).await;
    assert_eq!(h.fill(&filled, text("filled"), token).await, Outcome::Stored, "fills work");
    let marks = h.backend().marks(h.namespace(), &[tag("t")]).await.expect("marks");
    let entry = text("tagged").with_tags([tag("t")]).with_built_at(marks.sequence);
    h.store(&key, entry, LONG).await;
    assert!(h.usable(&key).await, "tags work");
    let next = h.backend().invalidate(h.namespace(), &[tag("t")]).await.expect("invalidate");
    assert!(next > marks.sequence, "invalidations work");
    assert!(!h.usable(&key).await, "invalidations work");
}

/// A clear does not forget what was invalidated: what was built before stays invalid, even when it is stored late.
pub async fn clearing_makes_nothing_valid<B: Backend>(h: &Harness<B>) {
    let key = h.key("late");
    let tags = [tag("t")];
    let before = h.backend().marks(h.namespace(), &tags).await.expect("marks");
    let late = || text("late").with_tags(tags.clone()).with_built_at(before.sequence);
    h.store(&key, late(), LONG).await;
    h.backend().invalidate(h.namespace(), &tags).await.expect("invalidate");
    clear(h).await;
    h.expect_absent(&key, "it was cleared").await;
    h.store(&key, late(), LONG).await;
    assert!(!h.usable(&key).await, "it was built before its tag was invalidated");
    clear(h).await;
    assert!(!h.usable(&key).await, "it was cleared");
}

/// Put, clear and get in one instant: the clear counts, and so does what is put after it.
pub async fn clearing_in_one_instant<B: Backend>(h: &Harness<B>) {
    let key = h.key("instant");
    for round in 0..h.sizes().races {
        h.store(&key, text("before"), LONG).await;
        clear(h).await;
        assert!(h.get(&key).await.is_none(), "round {round}: it was cleared");
        h.store(&key, text("after"), LONG).await;
        let found = h.get(&key).await;
        let found = found.as_ref().map(body);
        assert_eq!(found.as_deref(), Some("after"), "round {round}: it was put after the clear");
    }
}

/// Names that differ in a character, in length or in order are different namespaces.
pub async fn similar_names_are_different<B: Backend>(h: &Harness<B>) {
    let base = h.namespace().as_str();
    let names = [
        base.to_owned(),
        format!("{base}-"),
        format!("{base}_"),
        format!("{base}0"),
        format!("{base}--"),
    ];
    let spaces: Vec<_> = names.iter().map(|n| Namespace::new(n).expect("it is valid")).collect();
    let key = |n: usize| Key::new(&spaces[n], ["kit", "similar"]).expect("the key is short");
    for n in 0..spaces.len() {
        h.expect_absent(&key(n), "only similar namespaces were written to").await;
        h.store(&key(n), text(format!("value {n}")), LONG).await;
    }
    for n in 0..spaces.len() {
        h.expect_body(&key(n), &format!("value {n}"), "each has its own").await;
    }
    clear(h).await;
    h.expect_absent(&key(0), "it was cleared").await;
    for n in 1..spaces.len() {
        h.expect_body(&key(n), &format!("value {n}"), "only its name is similar").await;
    }
}

/// A second client sees a clear as soon as it has returned, and does not write into the old life.
pub async fn a_second_client_sees_a_clear<B: Backend>(h: &Harness<B>) {
    let Some(second) = h.second().await else { return };
    let key = h.key("shared");
    h.store(&key, text("old"), LONG).await;
    h.settle().await;
    let seen = second.get(&key, &[]).await.expect("get").entry;
    assert!(seen.is_some(), "the other client sees it");
    let begun = h.key("begun");
    let token = h.token(&begun, LONG).await;
    second.clear(h.namespace()).await.expect("clear");
    h.settle().await;
    h.expect_absent(&key, "the other client cleared it").await;
    let outcome = h.fill(&begun, text("late"), token).await;
    assert_eq!(outcome, Outcome::Refused, "a clear of the other client voids tokens too");
    h.store(&key, text("new"), LONG).await;
    h.settle().await;
    let seen = second.get(&key, &[]).await.expect("get").entry.expect("both live in one life");
    assert_eq!(body(&seen), "new", "the other client sees what was put after its clear");
}
