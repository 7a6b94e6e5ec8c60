//! Envelopes: what is written is read, and nothing else is.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use larder_core::envelope::{
    Damage, Envelope, KeyOf, PREFIX, Record, TIMES, TimeBase, counter, key_of, plain_counter,
};
use larder_core::{Encoded, Entry, Key, Revision, Sequence, Tag, Times, Token};
use proptest::prelude::*;

fn record(envelope: &Envelope, entry: &Entry) -> Vec<u8> {
    envelope.encode(key("k").as_ref(), entry, &base()).unwrap().to_vec()
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let wire = (2..=255_u8, bytes(100), bytes(400));
    let wire = wire.prop_map(|(codec, head, body)| {
        Entry::wire(Encoded { codec, head: head.into(), body: body.into() })
    });
    let payload = prop_oneof![4 => wire, 1 => any::<i64>().prop_map(Entry::integer)];
    let tags = prop::collection::vec("\\PC{1,20}", 0..6);
    let number = prop::option::of(1_000_000_000_000_000_000..9_000_000_000_000_000_000_i64);
    let millis = || prop::option::of(0..=MAX_MILLIS);
    (payload, tags, number, any::<[u8; 16]>(), 0..100_000_u64, millis(), millis()).prop_map(
        |(entry, tags, number, revision, age, fresh, ttl)| {
            let written = origin().shifted_millis(-(age as i64));
            let after = |millis: u64| written + Duration::from_millis(millis);
            let times = Times { written, fresh_until: fresh.map(after), expires: ttl.map(after) };
            entry
                .with_tags(tags.iter().map(|tag| Tag::new(tag).unwrap()))
                .with_built_at(number.and_then(Sequence::from_i64).unwrap_or(Sequence::NONE))
                .with_revision(Revision::from_bytes(revision))
                .with_times(times)
        },
    )
}

const MAX_MILLIS: u64 = larder_core::Ttl::MAX.as_millis() as u64;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_written_is_read(entry in entry(), part in "\\PC{0,40}", shift in 0..1_000_000_u64) {
        let key = key(&part);
        for envelope in [plain(), verified(), sealed(), sealed().verify_body(true)] {
            let bytes = envelope.encode(key.as_ref(), &entry, &base()).unwrap();
            let read = decode(&envelope, &bytes, key.as_ref());
            prop_assert!(read.is_some_and(|read| same(&read, &entry)));
            // Another process, whose clock began at another time.
            let here = base();
            let there = TimeBase { millis: here.millis + shift, at: here.at };
            let Ok(Record::Entry(read)) = envelope.decode(bytes.clone(), key.as_ref(), &there)
            else { panic!("it reads anywhere") };
            let moved = |at: larder_core::Moment| at.shifted_millis(-(shift as i64));
            let (written, read) = (*entry.times().unwrap(), *read.times().unwrap());
            prop_assert_eq!(read.written, moved(written.written));
            prop_assert_eq!(read.expires, written.expires.map(moved));
            prop_assert_eq!(read.fresh_until, written.fresh_until.map(moved));
            // Paging reads the key from the start.
            let mut have = 0;
            loop {
                match key_of(&bytes[..have]) {
                    Ok(KeyOf::Whole(found)) => break prop_assert_eq!(&found, &key),
                    Ok(KeyOf::Needs(more)) => {
                        prop_assert!(more > have && more <= bytes.len(), "{have}, then {more}");
                        have = more;
                    }
                    Err(Damage::Foreign) if have < 6 => have = 6,
                    Err(damage) => panic!("{damage:?}"),
                }
            }
        }
    }

    #[test]
    fn a_body_is_a_slice_of_the_record(entry in entry()) {
        let key = key("k");
        let bytes = plain().encode(key.as_ref(), &entry, &base()).unwrap();
        let Ok(Record::Entry(read)) = plain().decode(bytes.clone(), key.as_ref(), &base()) else {
            panic!("it reads")
        };
        if !matches!(read.payload(), larder_core::Payload::Integer(_)) {
            let (body, at) = (read.encoded().unwrap().body, body_at(&bytes));
            prop_assert!(body.is_empty() || body.as_ptr() == bytes[at..].as_ptr());
        }
    }

    #[test]
    fn markers_come_back(token in any::<[u8; 16]>(), pass in any::<bool>(), hold in any::<u32>()) {
        let end = origin() + Duration::from_millis(hold.into());
        let token = Token::from_bytes(token);
        let bytes = plain().encode_marker(token, pass, end, &base());
        match plain().decode(bytes.clone(), key("any").as_ref(), &base()) {
            Ok(Record::Fill(read)) => prop_assert!(!pass && read == token),
            Ok(Record::Pass(read)) => prop_assert!(pass && read == token),
            other => panic!("{other:?}"),
        }
        prop_assert!(key_of(&bytes).is_err(), "a marker repeats no key");
    }

    #[test]
    fn random_bytes_are_damage(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in 0..7_usize) {
        let mut bytes = bytes;
        // With more and more of a right beginning.
        let start = b"LRDR\x01\x01\0";
        let magic = magic.min(bytes.len());
        bytes[..magic].copy_from_slice(&start[..magic]);
        for envelope in [plain(), verified(), sealed()] {
            let read = envelope.decode(bytes.clone().into(), key("k").as_ref(), &base());
            prop_assert!(read.is_err());
        }
        if let Ok(KeyOf::Whole(found)) = key_of(&bytes) {
            prop_assert!(found.as_ref().as_bytes().len() <= Key::MAX_BYTES);
        }
    }

    // Somebody who knows the format sets fields at will and makes the checksums right.
    #[test]
    fn hostile_records_are_read_or_refused(
        entry in entry(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        field in prop::sample::select(vec![72_usize, 76, 80, 84, 88]),
        length in prop_oneof![any::<u32>(), 0..200_u32, Just(u32::MAX)],
        lie in any::<bool>(),
    ) {
        let key = key("k");
        let mut bytes = plain().encode(key.as_ref(), &entry, &base()).unwrap().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if lie {
            bytes[field..field + 4].copy_from_slice(&length.to_be_bytes());
        }
        bytes[..7].copy_from_slice(b"LRDR\x01\x01\0");
        repair(&mut bytes, key.as_ref());
        for envelope in [plain(), verified(), sealed()] {
            if let Some(read) = decode(&envelope, &bytes, key.as_ref()) {
                prop_assert!(read.encoded().unwrap().body.len() <= bytes.len());
                prop_assert!(read.tags().iter().all(|tag| tag.as_str().len() <= 256));
            }
        }
        prop_assert!(decode(&sealed(), &bytes, key.as_ref()).is_none(), "it has no MAC");
    }

    #[test]
    fn counters_are_canonical(value in any::<i64>(), text in "[-+ 0-9]{0,22}") {
        prop_assert_eq!(counter(value.to_string().as_bytes()), Some(value));
        prop_assert_eq!(plain_counter(&Entry::integer(value)), Some(value.to_string().into()));
        if let Some(read) = counter(text.as_bytes()) {
            prop_assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn counters_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
        if let Some(read) = counter(&bytes) {
            let text = read.to_string();
            prop_assert_eq!(text.as_bytes(), &bytes[..]);
        }
    }
}

#[test]
fn every_truncation_is_damage() {
    for envelope in [plain(), verified(), sealed()] {
        for entry in entries() {
            let bytes = record(&envelope, &entry);
            for end in 0..bytes.len() {
                let read = decode(&envelope, &bytes[..end], key("k").as_ref());
                assert!(read.is_none(), "{end} of {} bytes", bytes.len());
            }
        }
    }
}

#[test]
fn trailing_bytes_are_damage() {
    for envelope in [plain(), verified(), sealed()] {
        for entry in entries() {
            for tail in [&[0][..], b"LRDR", &[0; 32], &[0; 1000]] {
                let bytes = [&record(&envelope, &entry)[..], tail].concat();
                assert!(decode(&envelope, &bytes, key("k").as_ref()).is_none());
            }
        }
    }
}

/// Without a seal and without `verify_body`, two things are not covered: the body, and the body's own checksum at
/// 96..100. Every other bit is.
#[test]
fn every_flip_before_the_body_is_damage_or_changes_nothing() {
    for entry in entries() {
        let bytes = record(&plain(), &entry);
        for bit in 0..body_at(&bytes) * 8 {
            let read = decode(&plain(), &flip(&bytes, bit), key("k").as_ref());
            if (96..100).contains(&(bit / 8)) {
                assert!(same(&read.unwrap(), &entry), "bit {bit}: the body's sum is not looked at");
            } else {
                assert!(read.is_none(), "bit {bit} of byte {}", bit / 8);
            }
        }
        for bit in body_at(&bytes) * 8..bytes.len() * 8 {
            let read = decode(&plain(), &flip(&bytes, bit), key("k").as_ref()).unwrap();
            assert_eq!(read.tags(), entry.tags(), "bit {bit}: only the body changes");
            assert_ne!(read.encoded().unwrap().body, entry.encoded().unwrap().body);
        }
    }
}

#[test]
fn with_the_body_verified_every_flip_is_damage() {
    for entry in entries() {
        let bytes = record(&verified(), &entry);
        for bit in 0..bytes.len() * 8 {
            let read = decode(&verified(), &flip(&bytes, bit), key("k").as_ref());
            assert!(read.is_none(), "bit {bit} of byte {}", bit / 8);
        }
    }
}

#[test]
fn sealed_every_flip_is_damage() {
    for entry in entries() {
        let bytes = record(&sealed(), &entry);
        for bit in 0..bytes.len() * 8 {
            let read = decode(&sealed(), &flip(&bytes, bit), key("k").as_ref());
            assert!(read.is_none(), "bit {bit} of byte {}", bit / 8);
        }
    }
}

#[test]
fn a_seal_is_demanded_and_only_its_own() {
    let (k, entry) = (key("k"), full());
    let other = Envelope::default().sealed([7; 32]);
    assert!(decode(&sealed(), &record(&plain(), &entry), k.as_ref()).is_none(), "no MAC");
    assert!(decode(&plain(), &record(&sealed(), &entry), k.as_ref()).is_none(), "a MAC too many");
    assert!(decode(&other, &record(&sealed(), &entry), k.as_ref()).is_none(), "another key's MAC");
    // The flag alone, or a MAC alone, helps nobody.
    let mut flagged = record(&plain(), &entry);
    flagged[6] = 1;
    repair(&mut flagged, k.as_ref());
    assert!(decode(&sealed(), &flagged, k.as_ref()).is_none());
    flagged.extend([0; 32]);
    assert!(decode(&sealed(), &flagged, k.as_ref()).is_none());
    let whole = record(&sealed(), &entry);
    let mut stripped = whole[..whole.len() - 32].to_vec();
    stripped[6] = 0;
    repair(&mut stripped, k.as_ref());
    assert!(decode(&sealed(), &stripped, k.as_ref()).is_none());
    assert!(decode(&plain(), &stripped, k.as_ref()).is_some(), "it is a plain record now");
}

#[test]
fn a_record_copied_under_another_key_is_damage() {
    for envelope in [plain(), verified(), sealed()] {
        for entry in entries() {
            let bytes = record(&envelope, &entry);
            let read = envelope.decode(bytes.clone().into(), key("j").as_ref(), &base());
            assert_eq!(read.unwrap_err(), Damage::WrongKey);
            // With the key inside exchanged too, and the sums repaired.
            let mut forged = bytes.clone();
            let (old, new) = (key("k"), key("j"));
            forged[PREFIX..PREFIX + old.as_ref().as_bytes().len()]
                .copy_from_slice(new.as_ref().as_bytes());
            assert!(decode(&envelope, &forged, new.as_ref()).is_none(), "the sums tell");
            if envelope.encode(new.as_ref(), &entry, &base()).unwrap()[6] == 1 {
                repair(&mut forged, new.as_ref());
                assert!(decode(&envelope, &forged, new.as_ref()).is_none(), "the seal tells");
            }
        }
    }
}

#[test]
fn times_can_be_rewritten_in_place_and_not_exchanged() {
    let (k, j) = (key("k"), key("j"));
    let longer = Times::starting(origin(), Some(Duration::from_secs(9999)), None);
    for envelope in [plain(), verified(), sealed()] {
        let mut bytes = record(&envelope, &full());
        bytes[TIMES].copy_from_slice(&envelope.times(k.as_ref(), &longer, &base()));
        let read = decode(&envelope, &bytes, k.as_ref()).expect("a touch leaves a whole record");
        assert_eq!(read.times(), Some(&longer));
        assert!(same(&read, &full().with_times(longer)), "a touch changes nothing else");
        bytes[TIMES].copy_from_slice(&envelope.times(j.as_ref(), &longer, &base()));
        assert!(decode(&envelope, &bytes, k.as_ref()).is_none(), "these are another key's times");
    }
    let mut bytes = record(&sealed(), &full());
    bytes[TIMES].copy_from_slice(&plain().times(k.as_ref(), &longer, &base()));
    assert!(decode(&sealed(), &bytes, k.as_ref()).is_none(), "these times have no seal");
}

#[test]
fn other_versions_and_kinds_are_damage() {
    for envelope in [plain(), sealed()] {
        for version in (0..=255).filter(|version| *version != 1) {
            let mut bytes = record(&envelope, &full());
            bytes[4] = version;
            repair(&mut bytes, key("k").as_ref());
            let read = envelope.decode(bytes.clone().into(), key("k").as_ref(), &base());
            assert_eq!(read.unwrap_err(), Damage::Version(version));
            assert_eq!(key_of(&bytes).unwrap_err(), Damage::Version(version));
        }
        for kind in (0..=255).filter(|kind| *kind != 1) {
            let mut bytes = record(&envelope, &full());
            bytes[5] = kind;
            repair(&mut bytes, key("k").as_ref());
            assert!(envelope.decode(bytes.into(), key("k").as_ref(), &base()).is_err());
        }
    }
}

#[test]
fn lying_lengths_are_damage() {
    for envelope in [plain(), verified(), sealed()] {
        for entry in entries() {
            let bytes = record(&envelope, &entry);
            for at in [72, 76, 80] {
                let own = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                let near = [own.wrapping_sub(1), own + 1, own + 4, bytes.len() as u32];
                for length in near.into_iter().chain([1 << 31, u32::MAX - 100, u32::MAX]) {
                    let mut lying = bytes.clone();
                    lying[at..at + 4].copy_from_slice(&length.to_be_bytes());
                    assert!(
                        decode(&envelope, &lying, key("k").as_ref()).is_none(),
                        "{at}: {length}"
                    );
                }
            }
            let own = u64::from_be_bytes(bytes[84..92].try_into().unwrap());
            let near = [own.wrapping_sub(1), own + 1, bytes.len() as u64, 1 << 32, 1 << 63];
            for length in near.into_iter().chain([u64::MAX - 200, u64::MAX - 32, u64::MAX]) {
                let mut lying = bytes.clone();
                lying[84..92].copy_from_slice(&length.to_be_bytes());
                assert!(decode(&envelope, &lying, key("k").as_ref()).is_none(), "84: {length}");
            }
            // Lengths that add up, with the borders elsewhere.
            for (from, to) in [(72, 76), (76, 72), (76, 80), (80, 76), (80, 72), (72, 80)] {
                let mut moved = bytes.clone();
                let length = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                let Some(less) = length(from).checked_sub(1) else { continue };
                moved[from..from + 4].copy_from_slice(&less.to_be_bytes());
                moved[to..to + 4].copy_from_slice(&(length(to) + 1).to_be_bytes());
                assert!(decode(&envelope, &moved, key("k").as_ref()).is_none(), "the sum tells");
            }
        }
    }
}

#[test]
fn harmed_markers_are_damage() {
    for pass in [false, true] {
        let bytes = plain().encode_marker(token(), pass, origin(), &base());
        for end in 0..bytes.len() {
            assert!(plain().decode(bytes.slice(..end), key("k").as_ref(), &base()).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let harmed = Bytes::from(flip(&bytes, bit));
            let read = plain().decode(harmed, key("k").as_ref(), &base());
            assert!(read.is_err(), "bit {bit} of byte {}", bit / 8);
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(plain().decode(longer, key("k").as_ref(), &base()).is_err());
    }
}

/// What format version 1 does not promise: a marker carries neither key nor seal, so who can write to the store can
/// plant one. It can delay or refuse a fill, and never becomes a value.
#[test]
fn markers_carry_no_seal() {
    let bytes = plain().encode_marker(token(), false, origin(), &base());
    assert_eq!(bytes, sealed().encode_marker(token(), false, origin(), &base()));
    let read = sealed().decode(bytes, key("any").as_ref(), &base());
    assert!(matches!(read, Ok(Record::Fill(_))));
}

#[test]
fn the_integers_codec_is_refused_to_others() {
    for length in [0, 1, 7, 8, 9, 16] {
        let body = vec![0; length].into();
        let entry = Entry::wire(Encoded { codec: 1, head: Bytes::new(), body })
            .with_times(Times::starting(origin(), None, None));
        assert!(plain().encode(key("k").as_ref(), &entry, &base()).is_err());
    }
}

#[test]
fn more_tags_than_allowed_do_not_encode() {
    let entry = |tags: usize| {
        Entry::wire(Encoded { codec: 9, ..Encoded::default() })
            .with_tags((0..tags).map(|n| tag(&n.to_string())))
            .with_times(Times::starting(origin(), None, None))
    };
    assert!(plain().encode(key("k").as_ref(), &entry(512), &base()).is_ok());
    assert!(plain().encode(key("k").as_ref(), &entry(513), &base()).is_err());
}

#[test]
fn an_entry_without_times_does_not_encode() {
    let entry = Entry::wire(Encoded::default());
    assert!(plain().encode(key("k").as_ref(), &entry, &base()).is_err());
}

#[test]
fn hostile_tags_are_damage() {
    let k = key("k");
    let entry = Entry::wire(Encoded { codec: 9, ..Encoded::default() })
        .with_tags([tag("abc")])
        .with_times(Times::starting(origin(), None, None));
    let good = record(&plain(), &entry);
    let at = PREFIX + k.as_ref().as_bytes().len();
    for block in [
        [0, 0, 0, 1, b'a'],
        [0, 4, b'a', b'b', b'c'],
        [0xff, 0xff, 1, 2, 3],
        [0, 3, 0xff, 0xfe, 0xfd],
        [0, 2, b'a', b'b', 0],
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 5].copy_from_slice(&block);
        repair(&mut bytes, k.as_ref());
        let read = plain().decode(bytes.into(), k.as_ref(), &base());
        assert_eq!(read.unwrap_err(), Damage::Malformed, "{block:?}");
    }
}
