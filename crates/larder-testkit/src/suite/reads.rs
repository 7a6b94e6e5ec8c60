//! What a read gives back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Backend, Clock, Encoded, Entry, Live, Payload, Peek, Result, Sequence, Ttl, When,
};

use super::steps::{CODEC, LONG, body, tag, text, wire};
use crate::Harness;
use crate::cancel::drop_after;

/// Nothing is under a key that was never written, and every verb says so without an error.
pub async fn missing_is_none<B: Backend>(h: &Harness<B>) {
    let key = h.key("missing");
    h.expect_absent(&key, "it was never written").await;
    assert!(!h.remove(&key).await, "there was nothing to remove");
    assert!(!h.touch(&key, LONG).await, "there was nothing to touch");
    h.expect_absent(&key, "touching a missing key must not make it").await;
}

/// Codec, head, body, tags, sequence number and revision come back as they were given.
pub async fn everything_comes_back<B: Backend>(h: &Harness<B>) {
    let key = h.key("everything");
    let sequence = h.backend().marks(h.namespace(), &[tag("red"), tag("b,l|u\0e ✓")]).await;
    let sequence = sequence.expect("marks").sequence;
    let encoded = Encoded { codec: 201, head: "the head".into(), body: "the body".into() };
    let entry = Entry::wire(encoded.clone())
        .with_tags([tag("red"), tag("b,l|u\0e ✓")])
        .with_built_at(sequence);
    let revision = entry.revision();
    h.store(&key, entry, LONG).await;

    let read = h.get(&key).await.expect("what was stored must be there");
    assert_eq!(read.encoded().expect("it encodes"), encoded, "codec, head and body must come back");
    assert_eq!(read.tags(), [tag("red"), tag("b,l|u\0e ✓")], "tags must come back in their order");
    assert_eq!(read.built_at(), sequence, "the sequence's number must come back");
    assert_eq!(read.revision(), revision, "the revision must come back");

    let many = h.backend().get_many(std::slice::from_ref(&key)).await.expect("get_many");
    let [Some(read)] = &many[..] else { panic!("get_many must find what get finds") };
    assert_eq!(read.encoded().expect("it encodes"), encoded, "get_many must give the same bytes");
    assert_eq!(read.tags().len(), 2, "get_many must give the tags");
    assert_eq!(read.built_at(), sequence, "get_many must give the sequence's number");
    assert_eq!(read.revision(), revision, "get_many must give the revision");
}

/// An entry without tags may come with any sequence number, and it comes back.
pub async fn untagged_entries_keep_their_number<B: Backend>(h: &Harness<B>) {
    let (none, some) = (h.key("none"), h.key("some"));
    let number = Sequence::start();
    h.store(&none, text("never built"), LONG).await;
    h.store(&some, text("built").with_built_at(number), LONG).await;
    let read = h.get(&none).await.expect("it is there");
    assert_eq!(read.built_at(), Sequence::NONE, "no number was given");
    let read = h.get(&some).await.expect("it is there");
    assert_eq!(read.built_at(), number, "the number must come back");
}

/// A value of no bytes is a value: stored nulls and empty bodies are hits.
pub async fn empty_values_are_hits<B: Backend>(h: &Harness<B>) {
    let key = h.key("empty");
    h.store(&key, wire(Bytes::new()), LONG).await;
    let read = h.get(&key).await.expect("an empty value is a hit").encoded().expect("it encodes");
    assert_eq!((read.head.len(), read.body.len()), (0, 0), "nothing may be added");
    assert_eq!(read.codec, CODEC, "an empty value has a codec too");

    let key = h.key("only a head");
    let entry = Entry::wire(Encoded { codec: CODEC, head: "head".into(), body: Bytes::new() });
    h.store(&key, entry, LONG).await;
    let read = h.get(&key).await.expect("a head alone is a hit").encoded().expect("it encodes");
    assert_eq!((&read.head[..], read.body.len()), (&b"head"[..], 0), "head and body stay apart");
}

/// Any byte may be in a value, and bytes that mean something to a protocol mean nothing here.
pub async fn binary_values_come_back<B: Backend>(h: &Harness<B>) {
    let all: Bytes = (0..=255).collect();
    let bodies =
        [all.clone(), Bytes::from_static(b"\r\nEND\r\n$-1\r\n\0"), Bytes::from(vec![0; 300])];
    for (index, bytes) in bodies.into_iter().enumerate() {
        let key = h.key(format!("binary {index}"));
        let encoded = Encoded { codec: CODEC, head: all.clone(), body: bytes };
        h.store(&key, Entry::wire(encoded.clone()), LONG).await;
        let read = h.get(&key).await.expect("it is there").encoded().expect("it encodes");
        assert_eq!(read.head, encoded.head, "the head must come back byte for byte");
        assert_eq!(read.body, encoded.body, "body {index} must come back byte for byte");
    }
}

/// A body of 1 MiB and a head of 64 KiB come back, or as much as the backend declares to take.
pub async fn large_values_come_back<B: Backend>(h: &Harness<B>) {
    let limit = h.abilities().max_bytes.unwrap_or(u64::MAX);
    let size = (limit / 2).min(1 << 20) as usize;
    let bytes: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
    let encoded = Encoded { codec: CODEC, head: bytes.slice(..size / 16), body: bytes };
    let key = h.key("large");
    h.store(&key, Entry::wire(encoded.clone()), LONG).await;
    let read = h.get(&key).await.expect("a large value is there").encoded().expect("it encodes");
    assert!(read == encoded, "a large value must come back byte for byte");
}

/// An integer comes back as an integer.
pub async fn integers_come_back<B: Backend>(h: &Harness<B>) {
    for value in [0, 1, -1, 42, i64::MIN, i64::MAX] {
        let key = h.key(format!("integer {value}"));
        h.store(&key, Entry::integer(value), LONG).await;
        let read = h.get(&key).await.expect("the integer is there");
        let Payload::Integer(found) = read.payload() else {
            panic!("an integer must come back as one, not as {:?}", read.payload());
        };
        assert_eq!(*found, value, "the integer must be the same");
    }
}

/// An integer with tags or a freshness comes back as an integer too, with what it carried.
pub async fn enveloped_integers_come_back<B: Backend>(h: &Harness<B>) {
    let marks = h.backend().marks(h.namespace(), &[tag("t")]).await.expect("marks");
    let (tagged, fresh) = (h.key("tagged"), h.key("fresh"));
    let entry = Entry::integer(-7).with_tags([tag("t")]).with_built_at(marks.sequence);
    let revision = entry.revision();
    h.store(&tagged, entry, LONG).await;
    let read = h.get(&tagged).await.expect("the tagged integer is there");
    assert!(matches!(read.payload(), Payload::Integer(-7)), "it must be the integer: {read:?}");
    assert_eq!(read.tags(), [tag("t")], "its tags must come back");
    assert_eq!(read.revision(), revision, "an enveloped integer has a revision");

    h.store(&fresh, Entry::integer(8).fresh_for(Duration::from_secs(60)), LONG).await;
    let read = h.get(&fresh).await.expect("the integer with a freshness is there");
    assert!(matches!(read.payload(), Payload::Integer(8)), "it must be the integer: {read:?}");
    let until = read.times().and_then(|times| times.fresh_until);
    assert!(until.is_some(), "its freshness must come back");
}

/// A value in the readers' form comes back: the very same one from a local backend, its bytes from another.
pub async fn live_values_come_back<B: Backend>(h: &Harness<B>) {
    let key = h.key("live");
    let live = Arc::new(Words("several words".into()));
    h.store(&key, Entry::live(live.clone()), LONG).await;
    let read = h.get(&key).await.expect("it is there");
    let encoded = read.encoded().expect("it encodes");
    assert_eq!(
        (encoded.codec, &encoded.body[..]),
        (77, live.0.as_bytes()),
        "the bytes are its own"
    );
    if h.abilities().local {
        let shared: Arc<Words> = read.downcast_arc().expect("a local backend keeps the live form");
        assert!(Arc::ptr_eq(&shared, &live), "a local hit must share the live form, not copy it");
    }
}

/// A hit of a local backend shares the body's bytes with the entry that was stored.
pub async fn hits_share_the_body<B: Backend>(h: &Harness<B>) {
    let key = h.key("shared");
    let bytes = Bytes::from(vec![7; 4096]);
    h.store(&key, wire(bytes.clone()), LONG).await;
    let read = h.get(&key).await.expect("it is there");
    let first = read.encoded().expect("it encodes").body;
    let second = read.encoded().expect("it encodes").body;
    assert_eq!(first.as_ptr(), second.as_ptr(), "every look at an entry must share its body");
    if h.abilities().local {
        assert_eq!(first.as_ptr(), bytes.as_ptr(), "a local hit must not copy the body");
        if let Peek::Hit(peeked) = h.peek(&key) {
            let peeked = peeked.encoded().expect("it encodes").body;
            assert_eq!(peeked.as_ptr(), bytes.as_ptr(), "a peek must not copy the body");
        }
    }
}

/// Counters come with a read, in their order; what is no plain integer counts as none.
pub async fn counters_come_with_a_read<B: Backend>(h: &Harness<B>) {
    let (entry, one, two) = (h.key("entry"), h.key("one"), h.key("two"));
    let (words, tagged, missing) = (h.key("words"), h.key("tagged"), h.key("missing"));
    let marks = h.backend().marks(h.namespace(), &[tag("t")]).await.expect("marks");
    let enveloped = Entry::integer(3).with_tags([tag("t")]).with_built_at(marks.sequence);
    h.store(&entry, text("the entry"), LONG).await;
    h.store(&one, Entry::integer(1), LONG).await;
    h.store(&two, Entry::integer(-2), LONG).await;
    h.store(&words, text("5"), LONG).await;
    h.store(&tagged, enveloped, LONG).await;

    let counters = [two.clone(), missing.clone(), one.clone(), words, tagged, two];
    let expected = [Some(-2), None, Some(1), None, None, Some(-2)];
    let found = h.backend().get(&entry, &counters).await.expect("get");
    assert_eq!(found.entry.as_ref().map(body).as_deref(), Some("the entry"), "the entry is there");
    assert_eq!(found.counters, expected, "counters come in the order in which they were asked for");
    let found = h.backend().get(&missing, &counters).await.expect("get");
    assert!(found.entry.is_none(), "the entry is missing");
    assert_eq!(found.counters, expected, "counters come with a miss too");
}

/// A peek never says anything else than a read would.
pub async fn peek_agrees_with_get<B: Backend>(h: &Harness<B>) {
    let (there, gone, filling, over) =
        (h.key("there"), h.key("gone"), h.key("fill"), h.key("over"));
    h.store(&there, text("there"), LONG).await;
    h.store(&gone, text("gone"), LONG).await;
    h.store(&over, text("over"), h.tick()).await;
    assert!(h.remove(&gone).await, "it was there");
    h.token(&filling, LONG).await;
    h.outlive(h.tick()).await;
    match h.peek(&there) {
        Peek::Hit(entry) => assert_eq!(body(&entry), "there", "a peek must show what is there"),
        Peek::Miss => panic!("a peek must not miss what is there"),
        Peek::Ask => assert!(!h.abilities().local, "a local backend must never say `Ask`"),
    }
    for (key, what) in [(gone, "removed"), (filling, "a marker"), (over, "expired")] {
        match h.peek(&key) {
            Peek::Hit(_) => panic!("a peek must not see what is {what}"),
            Peek::Miss => {}
            Peek::Ask => assert!(!h.abilities().local, "a local backend must never say `Ask`"),
        }
    }
}

/// A local backend's futures are ready when they are first polled.
pub async fn local_means_ready_at_once<B: Backend>(h: &Harness<B>) {
    if !h.abilities().local {
        return;
    }
    let (b, key, keys) = (h.backend(), h.key("local"), [h.key("local"), h.key("more")]);
    let item = super::steps::item(&keys[1], text("more"), LONG, When::Always);
    macro_rules! at_once {
        ($verb:literal, $future:expr) => {
            let ready = drop_after(1, $future).await;
            let ready = ready.expect(concat!("local: `", $verb, "` must be ready at once"));
            let _ = ready.expect(concat!($verb, " must succeed"));
        };
    }
    at_once!("put", b.put(&key, text("local"), LONG.into(), When::Always));
    at_once!("put_many", b.put_many(vec![item]));
    at_once!("get", b.get(&key, &keys));
    at_once!("get_many", b.get_many(&keys));
    at_once!("touch", b.touch(&key, Ttl::Forever));
    at_once!("remaining", b.remaining(&key));
    at_once!("add", b.add(&h.key("counter"), 1, None));
    at_once!("begin", b.begin(&key, LONG));
    at_once!("marks", b.marks(h.namespace(), &[tag("t")]));
    at_once!("invalidate", b.invalidate(h.namespace(), &[tag("t")]));
    at_once!("remove", b.remove(&key, None));
    at_once!("remove_many", b.remove_many(&keys));
    at_once!("clear", b.clear(h.namespace()));
}

/// What a backend declares about itself is steady, and fits its clock.
pub async fn abilities_are_steady<B: Backend>(h: &Harness<B>) {
    let (b, declared) = (h.backend(), h.abilities());
    assert!(!b.name().is_empty(), "a backend has a name");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    assert!(b.name().chars().all(plain), "the name is a short word: {:?}", b.name());
    h.store(&h.key("steady"), text("steady"), LONG).await;
    assert_eq!(format!("{declared:?}"), format!("{:?}", b.abilities()), "abilities do not change");
    let manual = Clock::is_manual(b.clock());
    assert!(!declared.follows_clock || manual, "`follows_clock` is for clocks that a test drives");
    assert!(declared.precision > Duration::ZERO, "there is a smallest step of a lifetime");
    let before = b.clock().now();
    h.pass(declared.precision).await;
    assert!(b.clock().now() > before, "the backend's clock must be the one that the hands move");
}

/// A read changes nothing: not the value, not the revision, not the lifetime.
pub async fn reading_changes_nothing<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("read"), h.key("counter"));
    let ttl = h.tick();
    let entry = text("read");
    let revision = entry.revision();
    let watch = h.watch();
    h.store(&key, entry, ttl).await;
    h.store(&counter, Entry::integer(5), ttl).await;
    h.pass(ttl / 2).await;
    let read = h.get(&key).await;
    let found = h.backend().get(&counter, std::slice::from_ref(&counter)).await.expect("get");
    let _ = h.backend().get_many(&[key.clone(), counter.clone()]).await.expect("get_many");
    let _ = h.remaining(&key).await;
    if watch.within(ttl) {
        assert_eq!(read.expect("it has not expired").revision(), revision, "the revision stays");
        assert_eq!(found.counters, [Some(5)], "the counter stays");
    }
    h.outlive(ttl / 2).await;
    h.expect_absent(&key, "reading must not prolong a lifetime").await;
    h.expect_absent(&counter, "reading must not prolong a counter's lifetime").await;
}

struct Words(String);

impl Live for Words {
    fn encode(&self) -> Result<Encoded> {
        Ok(Encoded {
            codec: 77,
            head: Bytes::new(),
            body: Bytes::copy_from_slice(self.0.as_bytes()),
        })
    }

    fn weight(&self) -> usize {
        self.0.len()
    }
}
