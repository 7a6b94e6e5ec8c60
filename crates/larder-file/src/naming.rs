//! What the files are called, and in which of the directories they lie.

use larder_core::{Generation, Key};

/// A directory of record files: entries lie in one of [`ENTRIES`] by the hash of their key, a namespace's sequence and
/// tags together in one of [`MARKS`] by its name, since they are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shelf(u16);

/// The shelves of entries.
pub(crate) const ENTRIES: usize = 256;

/// The shelves of sequences and tags.
pub(crate) const MARKS: usize = 16;

/// All of them.
pub(crate) const SHELVES: usize = ENTRIES + MARKS;

impl Shelf {
    pub(crate) fn all() -> impl Iterator<Item = Shelf> {
        (0..SHELVES as u16).map(Shelf)
    }

    pub(crate) fn at(index: usize) -> Self {
        Shelf((index % SHELVES) as u16)
    }

    pub(crate) fn marks_of(namespace: &str) -> Self {
        let hash = namespace.bytes().fold(0_u16, |h, c| h.wrapping_mul(31).wrapping_add(c.into()));
        Shelf((ENTRIES + hash as usize % MARKS) as u16)
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }

    pub(crate) fn is_marks(self) -> bool {
        self.index() >= ENTRIES
    }

    /// Below the root.
    pub(crate) fn directory(self) -> String {
        match self.index().checked_sub(ENTRIES) {
            None => format!("entries/{:02x}", self.0),
            Some(marks) => format!("marks/{marks:x}"),
        }
    }
}

/// Where a key's record lies.
pub(crate) struct Place {
    pub(crate) shelf: Shelf,
    pub(crate) file: String,
}

impl Place {
    pub(crate) fn of(key: &Key, generation: Generation) -> Self {
        let file = dotted(key.as_ref().wire_name(generation));
        let hash = &file[file.len() - HASH..];
        let shelf = match is_mark(key) {
            true => Shelf::marks_of(key.namespace()),
            false => Shelf(u16::from_str_radix(&hash[..2], 16).unwrap_or_default()),
        };
        Place { shelf, file }
    }
}

/// What a file's name tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    /// A record of that namespace in that life.
    Record { namespace: &'a str, generation: Generation, sequence: bool },
    /// A file that was begun and not renamed yet.
    Temporary,
    /// Somebody else's.
    Foreign,
}

/// Reads a file's name.
pub(crate) fn read(name: &str) -> Named<'_> {
    if name.strip_suffix(TEMPORARY).is_some_and(|name| name.len() == 32 && hex(name)) {
        return Named::Temporary;
    }
    record(name).unwrap_or(Named::Foreign)
}

fn record(name: &str) -> Option<Named<'_>> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_.-".contains(&c);
    if name.len() > LONGEST || !name.bytes().all(plain) {
        return None;
    }
    let (namespace, rest) = name.split_once('.')?;
    let (generation, rest) = rest.split_once('.')?;
    let at = rest.len().checked_sub(HASH)?;
    let (shown, hash) = rest.split_at(at);
    let ours = (1..=32).contains(&namespace.len()) && hex(hash) && shown.ends_with('.');
    let generation = Generation::parse(generation).filter(|_| ours)?;
    Some(Named::Record { namespace, generation, sequence: shown == "q." })
}

/// A new name for a file that is not there yet.
pub(crate) fn temporary() -> String {
    format!("{:032x}{TEMPORARY}", rand::random::<u128>())
}

/// A wire name as a file's name. Namespaces hold no dot, so the first one ends them.
pub(crate) fn dotted(wire: String) -> String {
    let mut name = wire.into_bytes();
    for byte in name.iter_mut().filter(|byte| **byte == b':') {
        *byte = b'.';
    }
    String::from_utf8(name).expect("one of ASCII stands for another")
}

// Where `Key::sequence` and `Key::tag` point. Others of that shape are kept in the same way.
fn is_mark(key: &Key) -> bool {
    let mut parts = key.as_ref().parts();
    let first = [parts.next(), parts.next(), parts.next()];
    matches!(first, [Some(Some(b"q")), None, _] | [Some(Some(b"t")), Some(Some(_)), None])
}

fn hex(text: &str) -> bool {
    text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

const TEMPORARY: &str = ".tmp";

const HASH: usize = 64;

// Of a wire name.
const LONGEST: usize = 200;

#[cfg(test)]
mod tests {
    use larder_core::{Namespace, Tag};

    use super::*;

    #[test]
    fn names_are_plain_and_bounded_and_tell_whose_they_are() {
        let shop = Namespace::new("shop-eu_1").unwrap();
        let life = Generation::random();
        let long = "../".repeat(20_000);
        for parts in [&["d", "Product 42"][..], &["..", "/etc/passwd"], &[""], &[], &[&long]] {
            let place = Place::of(&Key::new(&shop, parts).unwrap(), life);
            assert!(place.file.len() <= 200 && !place.file.starts_with('.'), "{}", place.file);
            let expected =
                Named::Record { namespace: "shop-eu_1", generation: life, sequence: false };
            assert_eq!(read(&place.file), expected);
            assert!(!place.shelf.is_marks());
        }
    }

    #[test]
    fn a_namespaces_sequence_and_tags_lie_together() {
        let shop = Namespace::new("shop").unwrap();
        let life = Generation::random();
        let sequence = Place::of(&Key::sequence(&shop), life);
        let tag = Place::of(&Key::tag(&shop, &Tag::new("q").unwrap()), life);
        assert_eq!((sequence.shelf, sequence.shelf.is_marks()), (tag.shelf, true));
        assert!(matches!(read(&sequence.file), Named::Record { sequence: true, .. }));
        assert!(matches!(read(&tag.file), Named::Record { sequence: false, .. }));
        let data = Place::of(&Key::new(&shop, ["q", "q"]).unwrap(), life);
        assert!(!data.shelf.is_marks());
        assert!(matches!(read(&data.file), Named::Record { sequence: false, .. }));
    }

    #[test]
    fn other_names_are_foreign() {
        assert_eq!(read(&temporary()), Named::Temporary);
        let hash = "0".repeat(64);
        for name in [
            "",
            "README",
            ".tmp",
            "notes.tmp",
            "00000000000000000000000000000000.TMP",
            &hash,
            &format!("shop.{hash}"),
            &format!("shop.00ff.d.{hash}"),
            &format!("shop.00000000000000ff.d{hash}"),
            &format!("shop.00000000000000FF.d.{hash}"),
            &format!("shop.00000000000000ff.d.{hash}.bak"),
            &format!("Shop.00000000000000ff.d.{hash}"),
        ] {
            assert_eq!(read(name), Named::Foreign, "{name}");
        }
    }
}
