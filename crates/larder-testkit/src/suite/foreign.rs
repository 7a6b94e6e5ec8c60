//! Bytes under our names that are not ours. Tried where the harness can plant them.

use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::{Envelope, TIMES, TimeBase};
use larder_core::{Backend, Key, Outcome, Times, Token, When};

use super::steps::{LONG, body, item, text};
use crate::Harness;

// A whole record of that key, which would be valid if nothing were changed.
fn record<B: Backend>(h: &Harness<B>, key: &Key) -> Vec<u8> {
    let now = h.clock().now();
    let base = TimeBase { millis: 1_767_225_600_000, at: now };
    let entry = text("planted").with_times(Times::starting(now, None, None));
    let bytes = Envelope::default().encode(key.as_ref(), &entry, &base);
    bytes.expect("a small entry encodes").to_vec()
}

async fn expect_miss<B: Backend>(h: &Harness<B>, name: &str, bytes: &[u8], absent_puts: bool) {
    let key = |verb: &str| h.key(format!("{name} {verb}"));
    // A record may repeat its key: the neighbour under which it is read is another.
    let plant = async |verb: &str| h.plant(&key(verb), Bytes::copy_from_slice(bytes)).await;
    if !plant("get").await {
        return;
    }
    let found = h.backend().get(&key("get"), &[key("get")]).await.expect("a read is no error");
    assert!(found.entry.is_none(), "{name}: it is a miss");
    assert_eq!(found.counters, [None], "{name}: it is no counter");
    h.store(&key("good"), text("good"), LONG).await;
    plant("many").await;
    let found = h.backend().get_many(&[key("good"), key("many"), key("good")]).await;
    let found = found.expect("a read is no error");
    let found: Vec<_> = found.iter().map(|entry| entry.as_ref().map(body)).collect();
    let good = Some("good".to_owned());
    assert_eq!(found, [good.clone(), None, good], "{name}: it is one miss among hits");
    plant("put").await;
    h.store(&key("put"), text("new"), LONG).await;
    h.expect_body(&key("put"), "new", &format!("{name}: it can be written over")).await;
    plant("put_many").await;
    let items = vec![item(&key("put_many"), text("new"), LONG, When::Always)];
    let outcomes = h.backend().put_many(items).await.expect("put_many");
    assert!(matches!(outcomes[..], [Ok(Outcome::Stored)]), "{name}: it can be written over");
    h.expect_body(&key("put_many"), "new", &format!("{name}: it can be written over")).await;
    plant("remove").await;
    h.backend().remove(&key("remove"), None).await.expect("removing it is no error");
    h.expect_absent(&key("remove"), &format!("{name}: it was removed")).await;
    plant("begin").await;
    let token = h.token(&key("begin"), LONG).await;
    let outcome = h.fill(&key("begin"), text("filled"), token).await;
    assert_eq!(outcome, Outcome::Stored, "{name}: it can be filled over");
    h.expect_body(&key("begin"), "filled", &format!("{name}: it can be filled over")).await;
    if absent_puts {
        plant("absent").await;
        let outcome = h.put(&key("absent"), text("new"), LONG, When::Absent).await;
        assert_eq!(outcome, Outcome::Stored, "{name}: nothing of ours is there");
        plant("touch").await;
        assert!(!h.touch(&key("touch"), LONG).await, "{name}: nothing of ours is there");
    }
}

/// Bytes of somebody else.
pub async fn garbage_is_a_miss<B: Backend>(h: &Harness<B>) {
    let long = vec![0xa5; 100_000];
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("a byte", b"L"),
        ("text", b"hello, world"),
        ("json", b"{\"json\": true}"),
        ("magic only", b"LRDR"),
        ("half a number", b"12three"),
        ("padded number", b"007"),
        ("zeros", &[0; 100]),
        ("long", &long),
    ] {
        expect_miss(h, name, bytes, true).await;
    }
}

/// A record of another format version, older or newer, is a miss and can be written over.
pub async fn other_versions_are_a_miss<B: Backend>(h: &Harness<B>) {
    for version in [0, 2, 255] {
        let mut bytes = record(h, &h.key("version get"));
        bytes[4] = version;
        expect_miss(h, "version", &bytes, true).await;
    }
}

/// A record that was cut, has grown or has changed is a miss and can be written over.
pub async fn damaged_records_are_a_miss<B: Backend>(h: &Harness<B>) {
    let whole = record(h, &h.key("cut get"));
    for end in [5, 6, 7, 35, 36, 99, 100, 101, whole.len() - 1] {
        expect_miss(h, "cut", &whole[..end], false).await;
    }
    let mut longer = record(h, &h.key("grown get"));
    longer.push(0);
    expect_miss(h, "grown", &longer, false).await;
    for at in [5, 6, 7, TIMES.start, TIMES.end - 16, 50, 66, 72, 76, 80, 84, 92, 101] {
        let mut changed = record(h, &h.key("changed get"));
        changed[at] ^= 0x40;
        expect_miss(h, "changed", &changed, false).await;
    }
}

/// Lengths that promise more than there is cost nothing.
pub async fn lying_lengths_are_a_miss<B: Backend>(h: &Harness<B>) {
    for (at, length) in [(72, 4), (76, 4), (80, 4), (84, 8)] {
        let mut bytes = record(h, &h.key("lying get"));
        bytes[at..at + length].fill(0xff);
        expect_miss(h, "lying", &bytes, false).await;
    }
}

/// A whole record of another key, copied under this one, is a miss.
pub async fn another_keys_record_is_a_miss<B: Backend>(h: &Harness<B>) {
    let bytes = record(h, &h.key("somebody else"));
    expect_miss(h, "copied", &bytes, false).await;
    let bytes = record(h, &h.other_key("copied get"));
    expect_miss(h, "copied", &bytes, false).await;
}

/// A marker that was damaged holds nobody up: the key can be filled.
pub async fn damaged_markers_are_a_miss<B: Backend>(h: &Harness<B>) {
    let now = h.clock().now();
    let base = TimeBase { millis: 1_767_225_600_000, at: now };
    let end = now + Duration::from_secs(3600);
    let marker = Envelope::default().encode_marker(Token::random(), false, end, &base);
    for end in [6, 8, 24, marker.len() - 1] {
        let key = h.key(format!("marker {end}"));
        if !h.plant(&key, marker.slice(..end)).await {
            return;
        }
        h.expect_absent(&key, "a marker is no entry, less so a damaged one").await;
        let token = h.token(&key, LONG).await;
        assert_eq!(h.fill(&key, text("filled"), token).await, Outcome::Stored, "it can be filled");
        assert!(h.plant(&key, marker.slice(..end)).await, "it was planted before");
        h.store(&key, text("new"), LONG).await;
        h.expect_body(&key, "new", "it can be written over").await;
    }
}
