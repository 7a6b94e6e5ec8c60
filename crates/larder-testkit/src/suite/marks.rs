//! Tags, sequences and what an invalidation leaves valid.

use std::collections::HashSet;

use larder_core::{Backend, Entry, Key, Marks, Namespace, Sequence, Tag, Ttl};

use super::steps::{LONG, tag, text};
use crate::Harness;

async fn marks<B: Backend>(h: &Harness<B>, tags: &[Tag]) -> Marks {
    marks_of(h, h.namespace(), tags).await
}

async fn marks_of<B: Backend>(h: &Harness<B>, namespace: &Namespace, tags: &[Tag]) -> Marks {
    let marks = h.backend().marks(namespace, tags).await.expect("marks");
    assert_eq!(marks.tags.len(), tags.len(), "there is an answer for every tag");
    for number in marks.tags.iter().chain([&marks.sequence]) {
        let valid = Sequence::from_i64(number.get()).is_some();
        assert!(valid, "{number:?} is no number of a sequence");
    }
    marks
}

async fn invalidate<B: Backend>(h: &Harness<B>, tags: &[Tag]) -> Sequence {
    h.backend().invalidate(h.namespace(), tags).await.expect("invalidate")
}

// Stores an entry with these tags, built now.
async fn built<B: Backend>(h: &Harness<B>, key: &Key, tags: &[Tag]) -> Sequence {
    let sequence = marks(h, tags).await.sequence;
    let entry = text("built").with_tags(tags.iter().cloned()).with_built_at(sequence);
    h.store(key, entry, LONG).await;
    sequence
}

/// Tags that nobody knew are made at the sequence's present number, and stay there.
pub async fn unknown_tags_are_made<B: Backend>(h: &Harness<B>) {
    let tags = [tag("a"), tag("b")];
    let first = marks(h, &tags).await;
    assert_eq!(first.tags, [first.sequence; 2], "they are made with the present number");
    let second = marks(h, &tags).await;
    assert_eq!(second.sequence, first.sequence, "looking does not move the sequence");
    assert_eq!(second.tags, first.tags, "looking does not move the tags");
    let later = invalidate(h, &tags[..1]).await;
    let third = marks(h, &[tag("c"), tag("b")]).await;
    assert!(third.sequence >= later, "the sequence has moved");
    assert_eq!(third.tags, [third.sequence, first.tags[1]], "a new one is made at the new number");
}

/// Without tags, the sequence alone is read, and moved.
pub async fn no_tags_at_all<B: Backend>(h: &Harness<B>) {
    let before = marks(h, &[]).await.sequence;
    let next = invalidate(h, &[]).await;
    assert!(next > before && next.same_epoch(before), "the sequence moves without tags too");
    assert_eq!(marks(h, &[]).await.sequence, next, "it stays where it was moved");
}

/// An invalidation takes the next number and raises the tags that it names, and only those.
pub async fn invalidating_raises_the_named<B: Backend>(h: &Harness<B>) {
    let tags = [tag("named"), tag("spared"), tag("named too")];
    let before = marks(h, &tags).await;
    let next = invalidate(h, &[tag("named"), tag("named too")]).await;
    assert!(next > before.sequence, "the next number is larger");
    assert!(next.same_epoch(before.sequence), "and of the same epoch");
    let after = marks(h, &tags).await;
    assert_eq!(after.sequence, next, "the sequence stands at it");
    assert_eq!(after.tags, [next, before.tags[1], next], "the named tags stand at it");
    let again = invalidate(h, &[tag("named")]).await;
    assert!(again > next, "numbers only grow");
    assert_eq!(marks(h, &tags).await.tags, [again, before.tags[1], next], "each has its own");
}

/// A tag's lasting twin is another tag, and an entry that carries it outlasts the tag's own invalidation: where the
/// backend itself checks tags, as one that is not fresh.
pub async fn lasting_tags_are_tags_of_their_own<B: Backend>(h: &Harness<B>) {
    let longest = tag(&"t".repeat(256));
    for plain in [tag("t"), longest] {
        let (key, lasting) = (h.key("lasting"), plain.lasting());
        let built_at = built(h, &key, std::slice::from_ref(&lasting)).await;
        h.expect_body(&key, "built", "it is there").await;
        let next = invalidate(h, std::slice::from_ref(&plain)).await;
        let after = marks(h, &[plain.clone(), lasting.clone()]).await.tags;
        assert_eq!(after[0], next, "the tag stands at it");
        assert!(built_at.covers(Some(after[1])), "its twin does not");
        let entry =
            h.backend().get(&key, &[]).await.expect("get").entry.expect("it is still there");
        assert_eq!(entry.tags(), std::slice::from_ref(&lasting), "it carries the twin");
        let fresh = entry.is_fresh(h.clock().now());
        assert!(!(entry.has_marks() && fresh), "who checks tags does not call it fresh");
        invalidate(h, std::slice::from_ref(&lasting)).await;
        let entry = h.backend().get(&key, &[]).await.expect("get").entry;
        assert!(entry.is_none_or(|entry| !entry.has_marks()), "who checks tags does not have it");
    }
}

/// A tag that nobody knew can be invalidated.
pub async fn invalidating_the_unknown<B: Backend>(h: &Harness<B>) {
    let first = invalidate(h, &[tag("unknown")]).await;
    let record = Key::tag(h.namespace(), &tag("unknown"));
    let found = h.backend().get(&h.key("missing"), &[record]).await.expect("get");
    assert_eq!(found.counters, [Some(first.get())], "when it returns, every tag is recorded");
    let seen = marks(h, &[tag("unknown")]).await;
    assert_eq!((seen.sequence, seen.tags), (first, vec![first]), "it is recorded");
}

/// What was built before an invalidation of one of its tags may not be used; everything else may.
pub async fn older_entries_are_not_covered<B: Backend>(h: &Harness<B>) {
    let (red, blue, both, plain) = (h.key("red"), h.key("blue"), h.key("both"), h.key("plain"));
    built(h, &red, &[tag("red")]).await;
    built(h, &blue, &[tag("blue")]).await;
    built(h, &both, &[tag("blue"), tag("red")]).await;
    built(h, &plain, &[]).await;
    for key in [&red, &blue, &both, &plain] {
        assert!(h.usable(key).await, "nothing was invalidated yet");
    }
    invalidate(h, &[tag("red")]).await;
    assert!(!h.usable(&red).await, "its tag was invalidated");
    assert!(!h.usable(&both).await, "one of its tags was invalidated");
    assert!(h.usable(&blue).await, "its tag was not named");
    assert!(h.usable(&plain).await, "it has no tags");
    built(h, &red, &[tag("red")]).await;
    assert!(h.usable(&red).await, "it was built since");
    // Built before, stored after: the delayed write.
    let late = marks(h, &[tag("red")]).await.sequence;
    invalidate(h, &[tag("red")]).await;
    let entry = text("late").with_tags([tag("red")]).with_built_at(late);
    h.store(&both, entry, LONG).await;
    assert!(!h.usable(&both).await, "it was built before its tag was invalidated");
}

/// An invalidation reaches the entries of its own namespace only.
pub async fn other_namespaces_are_spared<B: Backend>(h: &Harness<B>) {
    let tags = [tag("t")];
    let mine = marks(h, &tags).await;
    let theirs = marks_of(h, h.other(), &tags).await;
    let next = invalidate(h, &tags).await;
    let after = marks_of(h, h.other(), &tags).await;
    assert_eq!((after.sequence, after.tags), (theirs.sequence, theirs.tags), "theirs stay");
    assert!(next > mine.sequence && next.same_epoch(mine.sequence), "mine has moved");
    let theirs = h.backend().invalidate(h.other(), &tags).await.expect("invalidate");
    assert!(theirs > after.sequence, "theirs can move too");
    assert_eq!(marks(h, &tags).await.sequence, next, "mine stays when theirs moves");
}

/// Sequences and tags read as counters under their keys, in the round trip of a `get`.
pub async fn marks_are_counters<B: Backend>(h: &Harness<B>) {
    let tags = [tag("a"), tag("b"), tag("unknown")];
    marks(h, &tags[..2]).await;
    let next = invalidate(h, &tags[..1]).await;
    let seen = marks(h, &tags[..2]).await;
    let keys = [
        Key::tag(h.namespace(), &tags[0]),
        Key::sequence(h.namespace()),
        Key::tag(h.namespace(), &tags[1]),
        Key::tag(h.namespace(), &tags[2]),
        Key::tag(h.other(), &tags[0]),
    ];
    let found = h.backend().get(&h.key("missing"), &keys).await.expect("get");
    let b = Some(seen.tags[1].get());
    let expected = [Some(next.get()), Some(next.get()), b, None, None];
    assert_eq!(found.counters, expected, "the records are where their keys say");
}

/// Records that were lost are made anew, and what was built before an invalidation stays invalid.
pub async fn lost_records_make_nothing_valid<B: Backend>(h: &Harness<B>) {
    let (lost, swept) = (h.key("lost"), h.key("swept"));
    let (a, b) = (tag("a"), tag("b"));
    built(h, &lost, std::slice::from_ref(&a)).await;
    invalidate(h, std::slice::from_ref(&a)).await;
    // A backend that keeps these records elsewhere loses nothing by this, and answers so.
    let gone = h.remove(&Key::tag(h.namespace(), &a)).await;
    let seen = marks(h, std::slice::from_ref(&a)).await;
    assert!(!gone || seen.tags == [seen.sequence], "a lost record is made at the present number");
    assert!(!h.usable(&lost).await, "its tag was invalidated, and then its record was lost");

    let before = built(h, &swept, std::slice::from_ref(&b)).await;
    assert!(h.usable(&swept).await, "nothing was invalidated");
    let gone = h.remove(&Key::sequence(h.namespace())).await;
    let seen = marks(h, &[b]).await;
    if gone {
        assert!(!seen.sequence.same_epoch(before), "a lost sequence comes back in another epoch");
        assert_eq!(seen.tags, [seen.sequence], "records of another epoch are made anew");
        assert!(!h.usable(&swept).await, "what was built in another epoch is not valid");
    }
}

const DAYS: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 60 * 60);

/// Records of tags last for days, whatever the default lifetime. That they end at all is allowed: what depends on them
/// is a miss then.
pub async fn records_last_for_days<B: Backend>(h: &Harness<B>) {
    let key = h.key("kept");
    let tags = [tag("t")];
    let first = marks(h, &tags).await;
    let entry = text("kept").with_tags(tags.clone()).with_built_at(first.sequence);
    h.store(&key, entry, Ttl::Forever).await;
    if h.moving_hands().is_some() {
        h.pass(DAYS).await;
    }
    let second = marks(h, &tags).await;
    assert_eq!((second.sequence, &second.tags), (first.sequence, &first.tags), "they are kept");
    assert!(h.usable(&key).await, "it is for ever, and nothing was invalidated");
    for record in [Key::sequence(h.namespace()), Key::tag(h.namespace(), &tags[0])] {
        let left = h.remaining(&record).await;
        let soon = matches!(left, larder_core::Remaining::For(left) if left < DAYS);
        assert!(!soon, "a record ends after {left:?}");
    }
}

/// Many tags in one call, named twice, of any text.
pub async fn many_tags_at_once<B: Backend>(h: &Harness<B>) {
    let mut tags: Vec<Tag> = (0..200).map(|n| tag(&format!("tag {n}"))).collect();
    tags.extend(["*", "?", "[a]", "a b", "\r\n", "\0", "ü", "A", "a"].map(tag));
    tags.push(tag(&"x".repeat(256)));
    let distinct = tags.len();
    tags.push(tags[0].clone());
    let before = marks(h, &tags).await;
    let next = invalidate(h, &tags[..distinct - 1]).await;
    let after = marks(h, &tags).await;
    for (index, number) in after.tags.iter().enumerate() {
        let expected = if index == distinct - 1 { before.tags[index] } else { next };
        assert_eq!(*number, expected, "the tag at {index}");
    }
    invalidate(h, &[tag("*"), tag("A")]).await;
    let spared = marks(h, &[tag("tag 0"), tag("a"), tag("?")]).await;
    assert_eq!(spared.tags, [next; 3], "a tag is literal text, and its case counts");
    let twice = invalidate(h, &[tag("twice"), tag("twice")]).await;
    assert_eq!(marks(h, &[tag("twice")]).await.tags, [twice], "named twice, raised once");
}

/// Invalidations at the same time take different numbers, and every one is recorded when it returns.
pub async fn numbers_are_taken_once<B: Backend>(h: &Harness<B>) {
    let mut tasks = Vec::new();
    for n in 0..50 {
        let (backend, namespace) = (h.shared(), h.namespace().clone());
        tasks.push(tokio::spawn(async move {
            let (own, all) = (tag(&format!("own {n}")), tag("all"));
            let tags = [own, all];
            let next = backend.invalidate(&namespace, &tags).await.expect("invalidate");
            let seen = backend.marks(&namespace, &tags).await.expect("marks");
            assert_eq!(seen.tags[0], next, "when it returns, it is recorded");
            assert!(seen.tags[1] >= next, "a mark never goes back");
            assert!(seen.sequence >= next, "the sequence never goes back");
            next
        }));
    }
    let mut numbers = HashSet::new();
    let mut largest = Sequence::NONE;
    for task in tasks {
        let number = task.await.expect("an invalidation must not fail");
        assert!(numbers.insert(number), "{number:?} was taken twice");
        largest = largest.max(number);
    }
    let after = marks(h, &[tag("all")]).await;
    assert_eq!((after.sequence, after.tags), (largest, vec![largest]), "the largest one stays");
}

/// A counter under a key of its own is not moved by the sequence.
pub async fn counters_are_not_sequences<B: Backend>(h: &Harness<B>) {
    let key = h.key("counter");
    h.store(&key, Entry::integer(1), LONG).await;
    let before = marks(h, &[]).await.sequence;
    assert_eq!(h.backend().add(&key, 1, None).await.expect("add"), Some(2), "it counts");
    assert_eq!(marks(h, &[]).await.sequence, before, "the sequence stays");
    invalidate(h, &[tag("t")]).await;
    let found = h.get(&key).await.expect("it is there");
    assert_eq!(found.as_counter(), Some(2), "the counter stays");
}

/// A second client sees an invalidation as soon as it has returned.
pub async fn a_second_client_sees_invalidations<B: Backend>(h: &Harness<B>) {
    let Some(second) = h.second().await else { return };
    let (key, tags) = (h.key("shared"), [tag("t")]);
    built(h, &key, &tags).await;
    let next = second.invalidate(h.namespace(), &tags).await.expect("invalidate");
    let seen = marks(h, &tags).await;
    assert_eq!((seen.sequence, seen.tags), (next, vec![next]), "what the other recorded is seen");
    h.settle().await;
    assert!(!h.usable(&key).await, "the other client invalidated it");
}
