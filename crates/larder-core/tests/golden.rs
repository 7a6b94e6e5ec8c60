//! Records of format version 1, as they were written when it was released. They must be read for as long as a release
//! promises to read version 1, and be written the same way for as long as version 1 is written.
//!
//! `LARDER_REGENERATE_GOLDEN=1 cargo test -p larder-core --test golden` writes them anew: only ever together with a
//! new format version, in a folder of its own.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use larder_core::envelope::{Envelope, Record};
use larder_core::{Encoded, Entry, Payload, Revision, Sequence, Times};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(format!("{name}.bin"))
}

// The file's bytes, which must be what is written today.
fn golden(name: &str, written: &Bytes) -> Bytes {
    if std::env::var_os("LARDER_REGENERATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(file(name), written).unwrap();
    }
    let stored = std::fs::read(file(name)).unwrap();
    assert!(stored == *written, "{name}: version 1 is written differently than it was");
    stored.into()
}

fn read(envelope: &Envelope, name: &str, entry: &Entry) -> Entry {
    let key = key("golden");
    let written = envelope.encode(key.as_ref(), entry, &base()).unwrap();
    match envelope.decode(golden(name, &written), key.as_ref(), &base()) {
        Ok(Record::Entry(entry)) => entry,
        other => panic!("{name} does not read as an entry: {other:?}"),
    }
}

// Said again in full, so that a change of the shared helper is seen.
fn expect_full(entry: &Entry) {
    let expected = Encoded { codec: 7, head: "the head".into(), body: "the body".into() };
    assert_eq!(entry.encoded().unwrap(), expected);
    assert_eq!(entry.tags(), [tag("product:42"), tag("ü")]);
    assert_eq!(entry.built_at().get(), 1_234_567_890_000_000_042);
    assert_eq!(entry.revision(), Revision::from_bytes(*b"sixteen bytes ok"));
    let times = entry.times().unwrap();
    assert_eq!(times.written, origin());
    assert_eq!(times.fresh_until, Some(origin() + Duration::from_secs(60)));
    assert_eq!(times.expires, Some(origin() + Duration::from_secs(3600)));
}

#[test]
fn an_entry_with_tags() {
    expect_full(&read(&plain(), "entry", &full()));
    expect_full(&read(&verified(), "entry", &full()));
}

#[test]
fn a_sealed_entry() {
    expect_full(&read(&sealed(), "sealed", &full()));
}

#[test]
fn an_enveloped_integer() {
    let entry = Entry::integer(-1_234_567)
        .with_tags([tag("counts")])
        .with_built_at(Sequence::from_i64(8_000_000_000_000_000_001).unwrap())
        .with_revision(Revision::from_bytes([0xab; 16]))
        .with_times(Times::starting(origin(), None, None));
    let entry = read(&plain(), "integer", &entry);
    assert!(matches!(entry.payload(), Payload::Integer(-1_234_567)));
    assert_eq!(entry.tags(), [tag("counts")]);
    assert_eq!(entry.built_at().get(), 8_000_000_000_000_000_001);
    assert_eq!(entry.revision(), Revision::from_bytes([0xab; 16]));
    let forever = Times { written: origin(), fresh_until: None, expires: None };
    assert_eq!(entry.times(), Some(&forever));
}

#[test]
fn markers() {
    let end = origin() + Duration::from_secs(10);
    for (name, pass) in [("fill", false), ("pass", true)] {
        let bytes = golden(name, &plain().encode_marker(token(), pass, end, &base()));
        let expires = u64::from_be_bytes(bytes[24..32].try_into().unwrap());
        assert_eq!(expires, 1_767_225_610_000, "a marker tells its end");
        match plain().decode(bytes, key("golden").as_ref(), &base()) {
            Ok(Record::Fill(read)) => assert!(!pass && read == token()),
            Ok(Record::Pass(read)) => assert!(pass && read == token()),
            other => panic!("{name} does not read as a marker: {other:?}"),
        }
    }
}
