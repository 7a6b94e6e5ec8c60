//! Records, and ways to harm them.

#![allow(dead_code)]

use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::{Envelope, PREFIX, Record, TIMES, TimeBase};
use larder_core::{
    Clock, Encoded, Entry, Key, KeyRef, Moment, Namespace, Payload, Revision, Sequence, Tag, Times,
    Token,
};
use proptest::test_runner::Config;

/// How many cases each property is tried on; `LARDER_CASES` sets another number.
pub(crate) fn cases() -> Config {
    let set = std::env::var("LARDER_CASES").ok().and_then(|value| value.parse().ok());
    // No files: a failure prints its seed, and the case.
    Config { failure_persistence: None, ..Config::with_cases(set.unwrap_or(10_000)) }
}

pub(crate) const MAC_KEY: [u8; 32] = *b"an example key of thirty-two byt";

/// A time base at the origin of a clock that stands still.
pub(crate) fn base() -> TimeBase {
    TimeBase { millis: 1_767_225_600_000, at: origin() }
}

pub(crate) fn origin() -> Moment {
    Clock::manual().0.now()
}

pub(crate) fn key(part: &str) -> Key {
    Key::new(&Namespace::new("shop").unwrap(), ["data", part]).unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

/// An entry that has everything.
pub(crate) fn full() -> Entry {
    let now = origin();
    Entry::wire(Encoded { codec: 7, head: "the head".into(), body: "the body".into() })
        .with_tags([tag("product:42"), tag("ü")])
        .with_built_at(Sequence::from_i64(1_234_567_890_000_000_042).unwrap())
        .with_revision(Revision::from_bytes(*b"sixteen bytes ok"))
        .with_times(Times::starting(
            now,
            Some(Duration::from_secs(3600)),
            Some(Duration::from_secs(60)),
        ))
}

/// Entries of several shapes.
pub(crate) fn entries() -> Vec<Entry> {
    let forever = Times::starting(origin(), None, None);
    let bare = Encoded { codec: 9, ..Encoded::default() };
    let long = Encoded { codec: 255, head: vec![1; 40].into(), body: vec![2; 200].into() };
    vec![
        full(),
        Entry::wire(bare).with_times(forever),
        Entry::wire(long).with_times(forever).with_tags([tag("t")]),
        Entry::integer(-5).with_tags([tag("a")]).with_times(forever),
    ]
}

pub(crate) fn plain() -> Envelope {
    Envelope::default()
}

pub(crate) fn verified() -> Envelope {
    Envelope::default().verify_body(true)
}

pub(crate) fn sealed() -> Envelope {
    Envelope::default().sealed(MAC_KEY)
}

/// Decodes an entry; anything else is `None`.
pub(crate) fn decode(envelope: &Envelope, bytes: &[u8], key: KeyRef<'_>) -> Option<Entry> {
    match envelope.decode(Bytes::copy_from_slice(bytes), key, &base()) {
        Ok(Record::Entry(entry)) => Some(entry),
        Ok(Record::Fill(_) | Record::Pass(_)) => panic!("an entry never reads as a marker"),
        Err(_) => None,
    }
}

/// Whether two entries are the same in every field that is stored.
pub(crate) fn same(one: &Entry, two: &Entry) -> bool {
    let integers = |entry: &Entry| match entry.payload() {
        Payload::Integer(value) => Some(*value),
        _ => None,
    };
    one.encoded().unwrap() == two.encoded().unwrap()
        && integers(one) == integers(two)
        && one.tags() == two.tags()
        && one.built_at() == two.built_at()
        && one.revision() == two.revision()
        && one.times() == two.times()
}

pub(crate) fn token() -> Token {
    Token::from_bytes(*b"a token, 16 byte")
}

/// Where the body of an entry's record begins.
pub(crate) fn body_at(record: &[u8]) -> usize {
    let length = |at: usize| u32::from_be_bytes(record[at..at + 4].try_into().unwrap()) as usize;
    PREFIX + length(72) + length(76) + length(80)
}

/// Makes the unkeyed checksums right, as somebody would who knows the format.
pub(crate) fn repair(record: &mut [u8], key: KeyRef<'_>) {
    if record.len() < PREFIX {
        return;
    }
    let mut times = crc32fast::Hasher::new();
    times.update(&record[TIMES.start..TIMES.end - 16]);
    times.update(key.as_bytes());
    record[32..48].fill(0);
    record[32..36].copy_from_slice(&times.finalize().to_be_bytes());
    let body = body_at(record).clamp(PREFIX, record.len());
    let mut head = crc32fast::Hasher::new();
    head.update(&record[..8]);
    head.update(&record[48..92]);
    head.update(&record[PREFIX..body]);
    record[92..96].copy_from_slice(&head.finalize().to_be_bytes());
    let sum = crc32fast::hash(&record[body..]);
    record[96..100].copy_from_slice(&sum.to_be_bytes());
}
