//! Fills: markers, tokens, and what voids them.

use std::time::Duration;

use larder_core::{
    Backend, Begin, Counter, Entry, Key, Outcome, Prefix, Remaining, Revision, Token, When,
};

use super::steps::{LONG, body, tag, text};
use crate::Harness;

// After whatever happened in between, the fill must be refused.
async fn expect_void<B: Backend>(h: &Harness<B>, key: &Key, token: Token, why: &str) {
    let before = h.body(key).await;
    let outcome = h.fill(key, text("late"), token).await;
    assert_eq!(outcome, Outcome::Refused, "the token must be void: {why}");
    assert_eq!(h.body(key).await, before, "a refused fill changes nothing: {why}");
}

/// A fill of an absent key: a token, busy to others, stored once.
pub async fn a_fill<B: Backend>(h: &Harness<B>) {
    let key = h.key("filled");
    let token = h.token(&key, LONG).await;
    let second = h.begin(&key, LONG).await;
    assert!(matches!(second, Begin::Busy), "somebody fills it already: {second:?}");
    assert_eq!(h.fill(&key, text("filled"), token).await, Outcome::Stored, "the token is good");
    h.expect_body(&key, "filled", "the fill was stored").await;
    let Remaining::For(left) = h.remaining(&key).await else { panic!("it has an end") };
    assert!(left <= LONG, "the lifetime is the value's");
    expect_void(h, &key, token, "a token is good for one fill").await;
    assert!(h.remove(&key).await, "it was there");
    expect_void(h, &key, token, "a token is good for one fill, whatever happened since").await;
}

/// Where there is an entry, `begin` gives it whole instead of a token.
pub async fn begin_finds_an_entry<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("found"), h.key("counter"));
    let marks = h.backend().marks(h.namespace(), &[tag("t")]).await.expect("marks");
    let entry = text("found").with_tags([tag("t")]).with_built_at(marks.sequence);
    let revision = entry.revision();
    h.store(&key, entry, LONG).await;
    h.store(&counter, Entry::integer(3), LONG).await;
    let Begin::Found(read) = h.begin(&key, LONG).await else { panic!("the entry must be found") };
    assert_eq!(body(&read), "found", "the value is given");
    assert_eq!((read.tags(), read.revision()), (&[tag("t")][..], revision), "and what it carries");
    let left = read.remaining(h.clock().now()).expect("and its end");
    assert!(left <= LONG + h.abilities().precision, "and not more lifetime than it has");
    h.expect_body(&key, "found", "begin changes nothing").await;
    let found = h.begin(&counter, LONG).await;
    let Begin::Found(read) = found else { panic!("a counter is an entry: {found:?}") };
    assert_eq!(read.as_counter(), Some(3), "a counter is found as one");
}

/// An expired entry can be filled.
pub async fn an_expired_entry_is_filled<B: Backend>(h: &Harness<B>) {
    let key = h.key("expired");
    h.store(&key, text("old"), h.tick()).await;
    h.outlive(h.tick()).await;
    let token = h.token(&key, LONG).await;
    assert_eq!(h.fill(&key, text("new"), token).await, Outcome::Stored, "the token is good");
    h.expect_body(&key, "new", "the fill was stored").await;
}

/// A token is good for its own key, and another token for none.
pub async fn another_token_is_refused<B: Backend>(h: &Harness<B>) {
    let (key, neighbour) = (h.key("filled"), h.key("neighbour"));
    let (token, other) = (h.token(&key, LONG).await, h.token(&neighbour, LONG).await);
    assert_ne!(token, other, "tokens are random");
    expect_void(h, &key, other, "it is another key's").await;
    expect_void(h, &key, Token::random(), "nobody gave it").await;
    expect_void(h, &h.key("missing"), token, "there is no marker at all").await;
    let cross = h.other_key("filled");
    let outcome = h.put(&cross, text("late"), LONG, When::Token(token)).await;
    assert_eq!(outcome, Outcome::Refused, "the same key of another namespace is another key");
    assert_eq!(h.fill(&key, text("filled"), token).await, Outcome::Stored, "its own is good still");
}

/// A put voids the token, and the late fill does not replace what was put.
pub async fn voided_by_put<B: Backend>(h: &Harness<B>) {
    for (name, when) in [("always", When::Always), ("absent", When::Absent)] {
        let key = h.key(name);
        let token = h.token(&key, LONG).await;
        assert_eq!(h.put(&key, text("put"), LONG, when).await, Outcome::Stored, "{when:?} stores");
        expect_void(h, &key, token, "something was put").await;
        assert!(h.remove(&key).await, "it was there");
        expect_void(h, &key, token, "something was put and removed").await;
    }
    let key = h.key("many");
    let token = h.token(&key, LONG).await;
    let items = vec![super::steps::item(&key, text("put"), LONG, When::Always)];
    let outcomes = h.backend().put_many(items).await.expect("put_many");
    assert!(matches!(outcomes[..], [Ok(Outcome::Stored)]), "put_many stores over a marker");
    expect_void(h, &key, token, "something was put by put_many").await;
    let key = h.key("zero");
    let token = h.token(&key, LONG).await;
    h.store(&key, text("zero"), Duration::ZERO).await;
    expect_void(h, &key, token, "something was put for no time: it is a removal").await;
}

/// A removal voids the token, although there was nothing to remove.
pub async fn voided_by_remove<B: Backend>(h: &Harness<B>) {
    let (one, many) = (h.key("one"), h.key("many"));
    let token = h.token(&one, LONG).await;
    assert!(!h.remove(&one).await, "a marker is no entry");
    expect_void(h, &one, token, "the key was removed").await;
    let token = h.token(&many, LONG).await;
    let removed = h.backend().remove_many(std::slice::from_ref(&many)).await.expect("remove_many");
    assert_eq!(removed, 0, "a marker is no entry");
    expect_void(h, &many, token, "the key was removed by remove_many").await;
    h.token(&one, LONG).await;
}

/// Clearing the namespace voids its tokens, and no others.
pub async fn voided_by_clear<B: Backend>(h: &Harness<B>) {
    let (key, stranger) = (h.key("cleared"), h.other_key("kept"));
    let (token, kept) = (h.token(&key, LONG).await, h.token(&stranger, LONG).await);
    h.backend().clear(h.namespace()).await.expect("clear");
    expect_void(h, &key, token, "the namespace was cleared").await;
    h.token(&key, LONG).await;
    let outcome = h.fill(&stranger, text("kept"), kept).await;
    assert_eq!(outcome, Outcome::Stored, "another namespace's fills go on");
}

/// A counter that starts in its place voids the token.
pub async fn voided_by_a_counter<B: Backend>(h: &Harness<B>) {
    let key = h.key("counter");
    let token = h.token(&key, LONG).await;
    let create = Some(Counter { initial: 10, ttl: LONG.into() });
    let added = h.backend().add(&key, 1, create).await.expect("add");
    assert_eq!(added, Some(11), "to a counter, a marker is absent");
    expect_void(h, &key, token, "a counter has started").await;
    let added = h.backend().add(&key, 1, None).await.expect("add");
    assert_eq!(added, Some(12), "the counter goes on");
}

/// The marker's end voids the token; the next one may begin.
pub async fn voided_by_its_end<B: Backend>(h: &Harness<B>) {
    let (key, again) = (h.key("late"), h.key("again"));
    let token = h.token(&key, h.tick()).await;
    let first = h.token(&again, h.tick()).await;
    h.outlive(h.tick()).await;
    expect_void(h, &key, token, "its time is over").await;
    let second = h.token(&again, LONG).await;
    assert_ne!(first, second, "the next fill has a token of its own");
    expect_void(h, &again, first, "another fill has begun").await;
    assert_eq!(h.fill(&again, text("second"), second).await, Outcome::Stored, "the second is good");
}

/// To every other verb a marker is absent; and none that finds it so takes it away.
pub async fn markers_are_absent<B: Backend>(h: &Harness<B>) {
    let key = h.key("marker");
    let token = h.token(&key, LONG).await;
    let why = "a marker is no entry";
    h.expect_absent(&key, why).await;
    assert!(!h.touch(&key, LONG).await, "touch: {why}");
    assert!(!h.touch(&key, Duration::ZERO).await, "touch with zero: {why}");
    let added = h.backend().add(&key, 1, None).await.expect("adding to a marker is no error");
    assert_eq!(added, None, "add: {why}");
    for when in [When::Present, When::Revision(Revision::random()), When::Revision(Revision::NONE)]
    {
        let outcome = h.put(&key, text("no"), LONG, when).await;
        assert_eq!(outcome, Outcome::Refused, "{when:?}: {why}");
    }
    if h.abilities().pages {
        let page = h.backend().page(&Prefix::new(h.namespace()), None, 1000).await.expect("page");
        assert!(!page.keys.contains(&key), "page: {why}");
    }
    assert_eq!(h.fill(&key, text("filled"), token).await, Outcome::Stored, "the marker was left");
}

/// A renewed marker lives on; a lost or foreign one cannot be renewed.
pub async fn renewing<B: Backend>(h: &Harness<B>) {
    let (b, tick) = (h.backend(), h.tick());
    let (key, lost, removed) = (h.key("renewed"), h.key("lost"), h.key("removed"));
    let watch = h.watch();
    let token = h.token(&key, tick).await;
    let gone = h.token(&removed, LONG).await;
    let late = h.token(&lost, tick).await;
    let renewed = b.renew(&key, token, LONG).await.expect("renew");
    assert!(renewed || !watch.within(tick), "the marker was there");
    assert!(!b.renew(&key, Token::random(), LONG).await.expect("renew"), "it is not yours");
    assert!(!h.remove(&removed).await, "a marker is no entry");
    assert!(!b.renew(&removed, gone, LONG).await.expect("renew"), "it was taken away");
    h.outlive(tick).await;
    assert!(!b.renew(&lost, late, LONG).await.expect("renew"), "its time was over");
    h.token(&lost, LONG).await;
    if renewed {
        let begin = h.begin(&key, LONG).await;
        assert!(matches!(begin, Begin::Busy), "a renewed marker is there: {begin:?}");
        assert_eq!(h.fill(&key, text("filled"), token).await, Outcome::Stored, "and still good");
    }
    assert!(!b.renew(&key, token, LONG).await.expect("renew"), "there is an entry now");
    let filled = if renewed { "filled" } else { return };
    h.expect_body(&key, filled, "renewing what is filled changes nothing").await;
}

/// A renewal counts from now, and may shorten.
pub async fn a_renewal_counts_from_now<B: Backend>(h: &Harness<B>) {
    let key = h.key("renewed");
    let token = h.token(&key, LONG).await;
    assert!(h.backend().renew(&key, token, h.tick()).await.expect("renew"), "it is there");
    h.outlive(h.tick()).await;
    expect_void(h, &key, token, "it was renewed for a short time").await;
}

/// A released marker is gone, and only its owner can release it.
pub async fn releasing<B: Backend>(h: &Harness<B>) {
    let (b, key) = (h.backend(), h.key("released"));
    let token = h.token(&key, LONG).await;
    assert!(!b.release(&key, Token::random(), None).await.expect("release"), "it is not yours");
    let begin = h.begin(&key, LONG).await;
    assert!(matches!(begin, Begin::Busy), "a stranger's release changes nothing: {begin:?}");
    assert!(b.release(&key, token, None).await.expect("release"), "it is there");
    assert!(!b.release(&key, token, None).await.expect("release"), "it is gone");
    expect_void(h, &key, token, "it was released").await;
    let next = h.token(&key, LONG).await;
    assert!(!b.release(&key, token, None).await.expect("release"), "the next one is not yours");
    assert_eq!(h.fill(&key, text("next"), next).await, Outcome::Stored, "the next one is good");
    assert!(!b.release(&key, next, None).await.expect("release"), "there is an entry now");
    h.expect_body(&key, "next", "a late release does not take the entry away").await;
}

/// A marker that has ended cannot be released, and no pass comes of it.
pub async fn releasing_too_late<B: Backend>(h: &Harness<B>) {
    let key = h.key("late");
    let token = h.token(&key, h.tick()).await;
    h.outlive(h.tick()).await;
    let released = h.backend().release(&key, token, Some(LONG)).await.expect("release");
    assert!(!released, "its time was over");
    h.token(&key, LONG).await;
}

/// A pass tells those who begin that filling is of no use, until it ends.
pub async fn passing<B: Backend>(h: &Harness<B>) {
    let (b, key, short) = (h.backend(), h.key("passed"), h.key("short"));
    let token = h.token(&key, LONG).await;
    assert!(b.release(&key, token, Some(LONG)).await.expect("release"), "it is there");
    for _ in 0..2 {
        let begin = h.begin(&key, LONG).await;
        assert!(matches!(begin, Begin::Pass), "filling it is of no use: {begin:?}");
    }
    h.expect_absent(&key, "a pass is no entry").await;
    expect_void(h, &key, token, "a pass is no fill").await;
    assert!(!b.renew(&key, token, LONG).await.expect("renew"), "a pass is no fill");
    assert!(!b.release(&key, token, None).await.expect("release"), "a pass is no fill");
    assert!(!h.remove(&key).await, "a pass is no entry");
    h.token(&key, LONG).await;

    let token = h.token(&short, LONG).await;
    assert!(b.release(&short, token, Some(h.tick())).await.expect("release"), "it is there");
    h.outlive(h.tick()).await;
    h.token(&short, LONG).await;
}

/// Whoever stores a value over a pass ends it.
pub async fn a_put_ends_a_pass<B: Backend>(h: &Harness<B>) {
    let key = h.key("passed");
    let token = h.token(&key, LONG).await;
    let released = h.backend().release(&key, token, Some(LONG)).await.expect("release");
    assert!(released, "it is there");
    h.store(&key, text("value"), LONG).await;
    let begin = h.begin(&key, LONG).await;
    assert!(matches!(begin, Begin::Found(_)), "there is a value now: {begin:?}");
    assert!(h.remove(&key).await, "it was there");
    h.token(&key, LONG).await;
}

/// A fill for no time counts as stored, and ends the fill.
pub async fn a_fill_for_no_time<B: Backend>(h: &Harness<B>) {
    let key = h.key("zero");
    let token = h.token(&key, LONG).await;
    let outcome = h.put(&key, text("zero"), Duration::ZERO, When::Token(token)).await;
    assert_eq!(outcome, Outcome::Stored, "zero counts as stored");
    h.expect_absent(&key, "zero stores nothing").await;
    expect_void(h, &key, token, "it was used").await;
    h.token(&key, LONG).await;
}

/// A second client sees the marker, and can void it.
pub async fn a_second_client_sees_markers<B: Backend>(h: &Harness<B>) {
    let Some(second) = h.second().await else { return };
    let key = h.key("shared");
    let token = h.token(&key, LONG).await;
    h.settle().await;
    let begin = second.begin(&key, LONG).await.expect("begin");
    assert!(matches!(begin, Begin::Busy), "somebody fills it: {begin:?}");
    assert!(!second.remove(&key, None).await.expect("remove"), "a marker is no entry");
    h.settle().await;
    expect_void(h, &key, token, "another client removed the key").await;
    let begin = second.begin(&key, LONG).await.expect("begin");
    let Begin::Token(token) = begin else { panic!("nobody fills it: {begin:?}") };
    let outcome = second.put(&key, text("second"), LONG.into(), When::Token(token)).await;
    assert_eq!(outcome.expect("put"), Outcome::Stored, "the token is good");
    h.settle().await;
    let begin = h.begin(&key, LONG).await;
    assert!(matches!(begin, Begin::Found(_)), "the other client filled it: {begin:?}");
}
