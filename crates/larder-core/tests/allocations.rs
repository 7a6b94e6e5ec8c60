//! Hostile bytes cost bounded memory: all that is allocated while reading is at most twice the input and 64 KiB.

mod common;

use bytes::Bytes;
use common::*;
use larder_core::envelope::{Envelope, PREFIX, key_of};
use larder_core::{Encoded, Entry, Key, Times};
use proptest::prelude::*;

// Reads bytes in every way, and tells how much was allocated in all.
fn allocated(envelope: &Envelope, bytes: &Bytes, key: &Key) -> u64 {
    let (input, base) = (bytes.clone(), base());
    let counted = allocation_counter::measure(|| {
        let _ = envelope.decode(input, key.as_ref(), &base);
        let _ = key_of(bytes);
    });
    counted.bytes_total
}

fn limit(bytes: &Bytes) -> u64 {
    2 * bytes.len() as u64 + 64 * 1024
}

#[track_caller]
fn expect_bounded(bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    for envelope in [plain(), verified(), sealed()] {
        let (got, most) = (allocated(&envelope, &bytes, &key("k")), limit(&bytes));
        assert!(got <= most, "{got} bytes for an input of {}", bytes.len());
    }
}

#[test]
fn whole_and_lying_records() {
    for envelope in [plain(), sealed()] {
        for entry in entries() {
            let bytes = envelope.encode(key("k").as_ref(), &entry, &base()).unwrap().to_vec();
            expect_bounded(bytes.clone());
            for at in [72, 76, 80, 84, 88] {
                for length in [1 << 20, 1 << 30, u32::MAX] {
                    let mut lying = bytes.clone();
                    lying[at..at + 4].copy_from_slice(&u32::to_be_bytes(length));
                    expect_bounded(lying);
                }
            }
            let mut lying = bytes;
            lying[72..92].fill(0xff);
            expect_bounded(lying);
        }
    }
}

#[test]
fn a_large_body_is_not_copied() {
    let body = vec![7; 8 << 20].into();
    let entry = Entry::wire(Encoded { codec: 9, head: Bytes::new(), body })
        .with_times(Times::starting(origin(), None, None));
    for envelope in [plain(), verified(), sealed()] {
        let bytes = envelope.encode(key("k").as_ref(), &entry, &base()).unwrap();
        let got = allocated(&envelope, &bytes, &key("k"));
        assert!(got < 10_000, "{got} bytes were allocated beside a body of 8 MiB");
    }
}

// A record whose tags block is as given, and whose checksums are right.
fn with_tags(block: &[u8], tail: usize) -> Vec<u8> {
    let entry = Entry::wire(Encoded { codec: 9, ..Encoded::default() })
        .with_times(Times::starting(origin(), None, None));
    let mut bytes = plain().encode(key("k").as_ref(), &entry, &base()).unwrap().to_vec();
    bytes[76..80].copy_from_slice(&(block.len() as u32).to_be_bytes());
    bytes.extend_from_slice(block);
    bytes[84..92].copy_from_slice(&(tail as u64).to_be_bytes());
    let end = bytes.len();
    bytes.resize(end + tail, 0);
    repair(&mut bytes, key("k").as_ref());
    assert_eq!(body_at(&bytes), end);
    assert!(bytes.len() > PREFIX);
    bytes
}

#[test]
fn a_hundred_tags_of_any_length() {
    for length in [1_usize, 10, 256] {
        let one = [&(length as u16).to_be_bytes()[..], &vec![b't'; length]].concat();
        expect_bounded(with_tags(&one.repeat(100), 0));
    }
}

/// Somebody who knows the format makes a tags block of the shortest tags.
#[test]
fn a_million_tags_of_one_byte() {
    expect_bounded(with_tags(&[0, 1, b't'].repeat(1_000_000), 0));
    expect_bounded(with_tags(&[0, 1, b't'].repeat(50_000), 0));
    expect_bounded(with_tags(&[0, 1, b't'].repeat(3_000), 0));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_and_harmed_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        from in any::<prop::sample::Index>(),
        start in 0..8_usize,
    ) {
        let good = plain().encode(key("k").as_ref(), &full(), &base()).unwrap();
        let mut harmed = good.to_vec();
        let at = from.index(harmed.len());
        harmed.truncate(at);
        harmed.extend(&bytes);
        let mut begun = bytes;
        let start = start.min(begun.len());
        begun[..start].copy_from_slice(&good[..start]);
        for bytes in [harmed, begun] {
            let bytes = Bytes::from(bytes);
            for envelope in [plain(), verified(), sealed()] {
                let got = allocated(&envelope, &bytes, &key("k"));
                prop_assert!(got <= limit(&bytes), "{got} bytes for {}", bytes.len());
            }
        }
    }
}
