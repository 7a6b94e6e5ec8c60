//! Counters.

use std::time::Duration;

use larder_core::{Backend, Counter, Entry, ErrorKind, Key, Payload, Remaining, Ttl};

use super::steps::{LONG, expect_error, tag, text, wire};
use crate::Harness;

fn from(initial: i64, ttl: impl Into<Ttl>) -> Option<Counter> {
    Some(Counter { initial, ttl: ttl.into() })
}

async fn add<B: Backend>(
    h: &Harness<B>,
    key: &Key,
    delta: i64,
    create: Option<Counter>,
) -> Option<i64> {
    h.backend().add(key, delta, create).await.expect("add")
}

async fn value<B: Backend>(h: &Harness<B>, key: &Key) -> Option<i64> {
    let found = h.backend().get(key, std::slice::from_ref(key)).await.expect("get");
    let integer = found.entry.map(|entry| match entry.payload() {
        Payload::Integer(value) => *value,
        other => panic!("a counter must read as an integer, not as {other:?}"),
    });
    assert_eq!(found.counters, [integer], "entry and counter must agree");
    integer
}

/// Adding to what is absent answers `None` and makes nothing.
pub async fn adding_to_nothing<B: Backend>(h: &Harness<B>) {
    let key = h.key("missing");
    assert_eq!(add(h, &key, 1, None).await, None, "there is no counter");
    h.expect_absent(&key, "adding must not make it unless asked to").await;
}

/// An absent counter starts as it is told to, with the lifetime that it is told.
pub async fn creating<B: Backend>(h: &Harness<B>) {
    let (key, short, forever) = (h.key("counter"), h.key("short"), h.key("forever"));
    assert_eq!(add(h, &key, 5, from(100, LONG)).await, Some(105), "initial and delta");
    assert_eq!(add(h, &key, 1, from(1000, Ttl::Forever)).await, Some(106), "it exists already");
    assert_eq!(value(h, &key).await, Some(106), "the sum is stored");
    let Remaining::For(left) = h.remaining(&key).await else {
        panic!("the lifetime of its beginning counts")
    };
    assert!(left <= LONG, "{left:?} of {LONG:?} remains");
    assert_eq!(add(h, &short, 1, from(0, h.tick())).await, Some(1), "a short one");
    assert_eq!(add(h, &forever, 1, from(0, Ttl::Forever)).await, Some(1), "one without an end");
    assert_eq!(h.remaining(&forever).await, Remaining::Forever, "it has no end");
    h.outlive(h.tick()).await;
    h.expect_absent(&short, "its lifetime is over").await;
    assert_eq!(add(h, &short, 1, from(50, LONG)).await, Some(51), "it starts again");
}

/// Any sign, and zero.
pub async fn negative_and_zero<B: Backend>(h: &Harness<B>) {
    let key = h.key("counter");
    h.store(&key, Entry::integer(10), LONG).await;
    for (delta, expected) in [(-3, 7), (-20, -13), (0, -13), (14, 1), (-1, 0), (0, 0), (-1, -1)] {
        assert_eq!(add(h, &key, delta, None).await, Some(expected), "adding {delta}");
        assert_eq!(value(h, &key).await, Some(expected), "after adding {delta}");
    }
    assert_eq!(add(h, &h.key("new"), -5, from(-5, LONG)).await, Some(-10), "from below zero");
}

/// An integer that was put can be added to, and what was added to can be put over.
pub async fn put_and_add_are_of_one_kind<B: Backend>(h: &Harness<B>) {
    let key = h.key("counter");
    assert_eq!(add(h, &key, 1, from(0, LONG)).await, Some(1), "it starts");
    h.store(&key, Entry::integer(-40), LONG).await;
    assert_eq!(value(h, &key).await, Some(-40), "it was put over");
    assert_eq!(add(h, &key, -2, None).await, Some(-42), "what was put can be added to");
    let many = h.backend().get_many(std::slice::from_ref(&key)).await.expect("get_many");
    let read = many.into_iter().next().flatten().expect("get_many finds it");
    assert!(matches!(read.payload(), Payload::Integer(-42)), "get_many reads it as an integer");
    assert!(h.remove(&key).await, "a counter can be removed");
    assert_eq!(add(h, &key, 1, None).await, None, "it is gone");
}

/// A value that is no integer is an error and stays as it is, even if it looks like one.
pub async fn no_integer<B: Backend>(h: &Harness<B>) {
    let bodies = ["text", "", "5", "-5", " 5", "5.0", "9223372036854775808"];
    for (index, bytes) in bodies.into_iter().enumerate() {
        let key = h.key(format!("bytes {index}"));
        let entry = text(bytes);
        let revision = entry.revision();
        h.store(&key, entry, LONG).await;
        for create in [None, from(0, LONG)] {
            let result = h.backend().add(&key, 1, create).await;
            expect_error(result, ErrorKind::NotAnInteger, &format!("adding to bytes {bytes:?}"));
        }
        let read = h.get(&key).await.expect("it stays");
        assert_eq!(super::steps::body(&read), bytes, "it is unchanged");
        assert_eq!(read.revision(), revision, "its revision is unchanged");
    }
    let key = h.key("eight bytes");
    h.store(&key, wire(vec![0; 8]), LONG).await;
    let result = h.backend().add(&key, 1, None).await;
    expect_error(result, ErrorKind::NotAnInteger, "adding to eight bytes of zero");
}

/// An integer that carries tags or a freshness cannot be added to, and stays as it is.
pub async fn enveloped_integers_do_not_count<B: Backend>(h: &Harness<B>) {
    let (tagged, fresh) = (h.key("tagged"), h.key("fresh"));
    let marks = h.backend().marks(h.namespace(), &[tag("t")]).await.expect("marks");
    let entry = Entry::integer(5).with_tags([tag("t")]).with_built_at(marks.sequence);
    h.store(&tagged, entry, LONG).await;
    h.store(&fresh, Entry::integer(5).fresh_for(Duration::from_secs(600)), LONG).await;
    for (key, what) in [(tagged, "a tagged integer"), (fresh, "an integer with a freshness")] {
        let result = h.backend().add(&key, 1, None).await;
        expect_error(result, ErrorKind::NotAnInteger, &format!("adding to {what}"));
        let read = h.get(&key).await.expect("it stays");
        assert!(matches!(read.payload(), Payload::Integer(5)), "{what} is unchanged: {read:?}");
        // Whether it is enveloped does not change by a touch.
        assert!(h.touch(&key, LONG).await, "it is there to be touched");
        let result = h.backend().add(&key, 1, None).await;
        expect_error(result, ErrorKind::NotAnInteger, &format!("adding to {what}, touched"));
    }
}

/// A sum that does not fit is an error, and the counter stays as it is.
pub async fn overflow<B: Backend>(h: &Harness<B>) {
    let key = h.key("counter");
    for (start, delta) in [
        (i64::MAX, 1),
        (i64::MAX - 5, 6),
        (i64::MIN, -1),
        (1, i64::MAX),
        (-2, i64::MIN),
        (i64::MAX, i64::MAX),
    ] {
        h.store(&key, Entry::integer(start), LONG).await;
        let what = format!("{start} + {delta}");
        expect_error(h.backend().add(&key, delta, None).await, ErrorKind::NotAnInteger, &what);
        assert_eq!(value(h, &key).await, Some(start), "{what}: it is unchanged");
    }
    for (start, delta) in
        [(i64::MAX - 5, 5), (i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (-1, i64::MIN + 1)]
    {
        h.store(&key, Entry::integer(start), LONG).await;
        assert_eq!(add(h, &key, delta, None).await, Some(start + delta), "{start} + {delta} fits");
        assert_eq!(value(h, &key).await, Some(start + delta), "{start} + {delta} is exact");
    }
    let new = h.key("new");
    let result = h.backend().add(&new, 1, from(i64::MAX, LONG)).await;
    expect_error(result, ErrorKind::NotAnInteger, "a counter that starts beyond its end");
    h.expect_absent(&new, "a counter that cannot start is not made").await;
}

/// Adding leaves the lifetime as it is: an end stays, and so does none.
pub async fn adding_keeps_the_lifetime<B: Backend>(h: &Harness<B>) {
    let (short, long, forever) = (h.key("short"), h.key("long"), h.key("forever"));
    let tick = h.tick();
    h.store(&short, Entry::integer(1), tick).await;
    h.store(&long, Entry::integer(1), LONG).await;
    h.store(&forever, Entry::integer(1), Ttl::Forever).await;
    h.pass(tick / 2).await;
    add(h, &short, 1, from(0, tick / 2)).await;
    assert_eq!(add(h, &long, 1, from(0, Ttl::Forever)).await, Some(2), "it is there");
    assert_eq!(add(h, &forever, 1, from(0, tick)).await, Some(2), "it is there");
    let Remaining::For(left) = h.remaining(&long).await else { panic!("its end must stay") };
    let step = h.abilities().precision;
    assert!(left <= LONG - tick / 2 + step, "adding must not prolong it: {left:?} remains");
    assert!(left > LONG - Duration::from_secs(600), "adding must not shorten it: {left:?} remains");
    assert_eq!(h.remaining(&forever).await, Remaining::Forever, "it must stay without an end");
    h.outlive(tick / 2).await;
    h.expect_absent(&short, "adding must not prolong a lifetime").await;
}

/// Adding while a counter expires never makes one without an end.
pub async fn racing_with_the_end<B: Backend>(h: &Harness<B>) {
    let (plain, created) = (h.key("plain"), h.key("created"));
    let ttl = if h.moving_hands().is_some() { h.tick() } else { Duration::from_millis(30) };
    for _ in 0..5 {
        h.store(&plain, Entry::integer(0), ttl).await;
        add(h, &created, 1, from(0, ttl)).await;
        let adders =
            [(plain.clone(), None), (created.clone(), from(0, ttl))].map(|(key, create)| {
                let backend = h.shared();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        backend.add(&key, 1, create).await.expect("add");
                        let left = backend.remaining(&key).await.expect("remaining");
                        assert_ne!(left, Remaining::Forever, "an addition made a counter immortal");
                        tokio::task::yield_now().await;
                    }
                })
            });
        for _ in 0..10 {
            h.pass(ttl / 5).await;
            tokio::task::yield_now().await;
        }
        for adder in adders {
            adder.await.expect("an adder must not fail");
        }
    }
    h.outlive(ttl).await;
    h.expect_absent(&plain, "a counter that nobody makes again has an end").await;
    h.expect_absent(&created, "a counter that was made again has an end").await;
}
