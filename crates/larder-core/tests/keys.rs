//! Keys: framing, wire names, prefixes.

mod common;

use common::cases;
use larder_core::{ErrorKind, Generation, Key, KeyBuf, Namespace, Prefix, Tag};
use proptest::prelude::*;

type Parts = Vec<Option<Vec<u8>>>;

// Few different bytes, so that lists that nearly collide are common; also those that framing and names use.
fn part() -> impl Strategy<Value = Option<Vec<u8>>> {
    let byte = prop::sample::select(&b"\0\x01\x02a A:.-_\xff"[..]);
    prop_oneof![
        1 => Just(None),
        6 => prop::collection::vec(byte, 0..6).prop_map(Some),
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Some),
    ]
}

fn parts() -> impl Strategy<Value = Parts> {
    prop::collection::vec(part(), 0..6)
}

fn namespace() -> impl Strategy<Value = Namespace> {
    prop_oneof!["[a-c]{1,2}", "[a-z0-9_-]{1,32}"].prop_map(|name| Namespace::new(&name).unwrap())
}

// Another list that is easily taken for the first: split, joined, absent for empty.
fn relative(parts: &Parts, how: usize, at: usize) -> Parts {
    let mut parts = parts.clone();
    if parts.is_empty() {
        return vec![None];
    }
    let at = at % parts.len();
    let part = parts[at].clone();
    match (how % 6, part) {
        (0, Some(bytes)) if bytes.len() > 1 => {
            let (left, right) = bytes.split_at(bytes.len() / 2);
            parts.splice(at..=at, [Some(left.to_vec()), Some(right.to_vec())]);
        }
        (1, Some(mut bytes)) if at + 1 < parts.len() => {
            bytes.extend(parts.remove(at + 1).unwrap_or_default());
            parts[at] = Some(bytes);
        }
        (2, Some(bytes)) if bytes.is_empty() => parts[at] = None,
        (3, None) => parts[at] = Some(Vec::new()),
        (4, _) => parts.push(None),
        (5, _) => parts.push(Some(Vec::new())),
        _ => parts.reverse(),
    }
    parts
}

fn build(namespace: &Namespace, parts: &Parts) -> Key {
    let buf = parts.iter().fold(KeyBuf::new(namespace), |buf, part| buf.optional(part.as_ref()));
    buf.key().unwrap()
}

// What a prefix matches, in the plainest words.
fn begins(whole: &[Vec<u8>], start: &[u8], parts: &Parts) -> bool {
    parts.len() > whole.len()
        && whole.iter().zip(parts).all(|(whole, part)| part.as_ref() == Some(whole))
        && parts[whole.len()].clone().unwrap_or_default().starts_with(start)
}

fn prefix(namespace: &Namespace, whole: &[Vec<u8>], start: &[u8]) -> Prefix {
    whole.iter().fold(Prefix::new(namespace), |prefix, part| prefix.part(part)).starting_with(start)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn different_lists_are_different_keys(
        spaces in [namespace(), namespace()],
        lists in [parts(), parts()],
        how in 0_usize..6,
        at in 0_usize..6,
    ) {
        let related = relative(&lists[0], how, at);
        for (space, list) in [(&spaces[1], &lists[0]), (&spaces[0], &lists[1]), (&spaces[0], &related)] {
            let (one, two) = (build(&spaces[0], &lists[0]), build(space, list));
            let equal = spaces[0] == *space && lists[0] == *list;
            prop_assert_eq!(one == two, equal);
            let generation = Generation::random();
            let names = [&one, &two].map(|key| key.as_ref().wire_name(generation));
            prop_assert_eq!(names[0] == names[1], equal, "wire names");
        }
    }

    #[test]
    fn parts_come_back(space in namespace(), list in parts()) {
        let key = build(&space, &list);
        prop_assert_eq!(key.namespace(), space.as_str());
        let read: Parts = key.as_ref().parts().map(|part| part.map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(read, list);
        prop_assert_eq!(&key.as_ref().to_key(), &key);
        prop_assert_eq!(Key::from_framed(key.as_ref().as_bytes()), Some(key));
    }

    #[test]
    fn every_way_to_build_is_one(space in namespace(), list in parts(), cut in 0_usize..100) {
        let key = build(&space, &list);
        let mut pushed = KeyBuf::new(&space);
        let mut pieces = KeyBuf::new(&space);
        let mut written = KeyBuf::new(&space);
        for part in &list {
            let Some(part) = part else {
                for buf in [&mut pushed, &mut pieces, &mut written] {
                    buf.push_optional(None::<&str>);
                }
                continue;
            };
            let (left, right) = part.split_at(cut.min(part.len()));
            pushed.push(part);
            pieces.push_pieces(&[left, right]);
            written.push_with(|writer| {
                writer.write(left);
                writer.write(right);
            });
        }
        for buf in [pushed, pieces, written] {
            prop_assert_eq!(buf.key().unwrap(), key.clone());
        }
        let longer = KeyBuf::from(key.as_ref()).part("more").key().unwrap();
        let more: Parts = list.iter().cloned().chain([Some(b"more".to_vec())]).collect();
        prop_assert_eq!(longer, build(&space, &more));
    }

    #[test]
    fn bytes_are_a_key_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(key) = Key::from_framed(&bytes) {
            prop_assert_eq!(key.as_ref().as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn harmed_keys_are_a_key_or_none(
        space in namespace(),
        list in parts(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = build(&space, &list).as_ref().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Some(key) = Key::from_framed(&bytes) {
            // What is accepted is what could have been built, and nothing else.
            let read: Parts = key.as_ref().parts().map(|part| part.map(<[u8]>::to_vec)).collect();
            let space = Namespace::new(key.namespace()).unwrap();
            let built = build(&space, &read);
            prop_assert_eq!(built.as_ref().as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn wire_names_are_plain_and_short(
        space in namespace(),
        list in parts(),
        long in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let generation = Generation::random();
        let key = build(&space, &list.into_iter().chain([Some(long)]).collect());
        let name = key.as_ref().wire_name(generation);
        let plain = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b':' | b'-');
        prop_assert!(name.bytes().all(plain), "{name}");
        prop_assert!(name.len() <= 200, "{} bytes", name.len());
        prop_assert!(name.starts_with(&space.wire_start(generation)));
        prop_assert_ne!(name, key.as_ref().wire_name(Generation::random()));
    }

    #[test]
    fn names_of_matching_keys_start_like_the_prefix(
        space in namespace(),
        list in prop::collection::vec(part(), 1..6),
        whole in 0_usize..5,
        start in any::<prop::sample::Index>(),
    ) {
        let named = |part: &Option<Vec<u8>>| part.is_some();
        let whole = whole.min(list.len() - 1).min(list.iter().take_while(|p| named(p)).count());
        prop_assume!(whole < list.len());
        let next = list[whole].clone().unwrap_or_default();
        let start = &next[..start.index(next.len() + 1)];
        let leading: Vec<Vec<u8>> = list[..whole].iter().flatten().cloned().collect();
        let prefix = prefix(&space, &leading, start);
        let key = build(&space, &list);
        prop_assert!(prefix.matches(key.as_ref()));
        let generation = Generation::random();
        let (name, start) = (key.as_ref().wire_name(generation), prefix.wire_start(generation));
        prop_assert!(name.starts_with(&start), "{name} does not start with {start}");
        prop_assert!(start.starts_with(&space.wire_start(generation)));
    }

    #[test]
    fn prefixes_match_what_begins_so(
        spaces in [namespace(), namespace()],
        list in parts(),
        whole in prop::collection::vec(part().prop_map(Option::unwrap_or_default), 0..3),
        start in part().prop_map(Option::unwrap_or_default),
    ) {
        let prefix = prefix(&spaces[0], &whole, &start);
        let expected = begins(&whole, &start, &list);
        prop_assert_eq!(prefix.matches(build(&spaces[0], &list).as_ref()), expected);
        let elsewhere = prefix.matches(build(&spaces[1], &list).as_ref());
        prop_assert_eq!(elsewhere, expected && spaces[0] == spaces[1]);
    }

    #[test]
    fn names_that_are_accepted_are_valid(text in "\\PC{0,40}") {
        if Namespace::new(&text).is_ok() {
            let valid = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
            prop_assert!((1..=32).contains(&text.len()) && text.chars().all(valid));
        }
        prop_assert_eq!(Tag::new(&text).is_ok(), !text.is_empty());
        if let Some(generation) = Generation::parse(&text) {
            prop_assert_eq!(generation.to_string(), text);
        }
    }
}

#[test]
fn the_longest_key_and_one_byte_more() {
    let space = Namespace::new("shop").unwrap();
    let overhead = Key::new(&space, [""]).unwrap().as_ref().as_bytes().len();
    let most = Key::MAX_BYTES - overhead;
    for (length, fits) in [(most - 1, true), (most, true), (most + 1, false), (10 << 20, false)] {
        let part = vec![b'x'; length];
        let key = Key::new(&space, [&part]);
        let kind = key.as_ref().map_err(|error| error.kind()).err();
        assert_eq!(kind, (!fits).then_some(ErrorKind::InvalidKey), "{length} bytes");
        let mut written = KeyBuf::new(&space);
        written.push_with(|writer| part.chunks(1000).for_each(|piece| writer.write(piece)));
        assert_eq!(written.key().ok(), key.ok(), "{length} bytes, piece by piece");
        let framed = [&[4][..], b"shop", &[1], &(length as u32).to_be_bytes(), &part].concat();
        assert_eq!(Key::from_framed(&framed).is_some(), fits, "{length} bytes, framed");
    }
    let many = (0..Key::MAX_BYTES).fold(KeyBuf::new(&space), |buf, _| buf.optional(None::<&str>));
    assert!(many.key().is_err(), "absent parts count too");
    let mut late = KeyBuf::new(&space).part(vec![0; most + 1]);
    late.push("short");
    assert!(late.key().is_err(), "what was too long once stays so");
}

#[test]
fn lying_lengths_in_framed_keys_are_refused() {
    for length in [5, 6, 1000, u32::MAX - 1, u32::MAX] {
        let framed = [&[4][..], b"shop", &[1], &length.to_be_bytes(), b"four"].concat();
        assert!(Key::from_framed(&framed).is_none(), "{length}");
    }
    for start in [&[][..], &[0], &[33], &[255], &[1, b'A'], &[2, b'a'], &[1, b'a', 2]] {
        assert!(Key::from_framed(start).is_none(), "{start:?}");
    }
}
