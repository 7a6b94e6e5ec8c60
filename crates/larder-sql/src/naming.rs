//! Under which names rows lie, and the table's own name.

use larder_core::{Key, Namespace, Result, Tag};

use crate::config::wrong;

/// Where a key's row lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Sequences and tags outlive a `clear`, so they are of no generation.
    pub(crate) mark: bool,
}

impl Place {
    /// Of an entry, a counter or a fill marker.
    pub(crate) fn of(key: &Key) -> Self {
        // Namespace and generation have columns of their own.
        let name = key.as_ref().short_name();
        Place { namespace: key.namespace().to_owned(), name, mark: false }
    }

    /// Of what is read as a counter: it may also be a sequence's or a tag's number.
    pub(crate) fn of_counter(key: &Key) -> Self {
        let mut parts = key.as_ref().parts();
        match [parts.next(), parts.next(), parts.next()] {
            [Some(Some(b"q")), None, _] => {
                Place { name: SEQUENCE.to_owned(), mark: true, ..Place::of(key) }
            }
            [Some(Some(b"t")), Some(Some(_)), None] => Place { mark: true, ..Place::of(key) },
            _ => Place::of(key),
        }
    }
}

/// The name of a tag's row.
pub(crate) fn tag(namespace: &Namespace, tag: &Tag) -> String {
    Key::tag(namespace, tag).as_ref().short_name()
}

/// The name of the row that holds a namespace's sequence. No tag's name is like it: those hold a colon.
pub(crate) const SEQUENCE: &str = "sequence";

/// Checks a table's name: it becomes part of statements, where nothing can be bound in its place.
pub(crate) fn table(name: &str) -> Result<&str> {
    let one = |part: &str| {
        let first = part.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_');
        let rest = part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        first && rest && part.len() <= 48
    };
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| one(part)) {
        return Err(wrong(
            "table is a name of 1 to 48 characters of a-z, 0-9 and '_' that does not begin with a digit, or schema.table",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use larder_core::Prefix;

    use super::*;

    #[test]
    fn names_are_plain_and_bounded() {
        let shop = Namespace::new("shop").unwrap();
        let long = "../".repeat(10_000);
        for part in ["Product 42", "", "'; DROP TABLE larder; --", "a\0b\r\n", &long] {
            let place = Place::of(&Key::new(&shop, ["d", part]).unwrap());
            let plain = |c: u8| c.is_ascii_alphanumeric() || b"_.:-".contains(&c);
            assert!(place.name.len() <= 129 && place.name.bytes().all(plain), "{}", place.name);
            assert!(place.name.starts_with("d:") && !place.mark);
        }
        let prefix = Prefix::new(&shop).part("d").starting_with("Pro");
        assert_eq!(prefix.short_start(), "d:pro");
    }

    #[test]
    fn sequences_and_tags_are_marks() {
        let shop = Namespace::new("shop").unwrap();
        let sequence = Place::of_counter(&Key::sequence(&shop));
        assert_eq!((&*sequence.name, sequence.mark), (SEQUENCE, true));
        let t = Tag::new("t").unwrap();
        let place = Place::of_counter(&Key::tag(&shop, &t));
        assert_eq!((place.name, place.mark), (tag(&shop, &t), true));
        assert!(!Place::of_counter(&Key::new(&shop, ["q", "q"]).unwrap()).mark);
    }

    #[test]
    fn a_tables_name_is_a_name() {
        for good in ["larder", "_l", "cache_2", "app.larder"] {
            assert_eq!(table(good).unwrap(), good);
        }
        let long = "x".repeat(49);
        for bad in
            ["", "2x", "Larder", "a b", "x; drop table y", "a\"b", "a.b.c", ".a", "a.", "ü", &long]
        {
            let error = table(bad).unwrap_err();
            assert!(error.to_string().contains("table is a name"), "{bad}: {error}");
        }
    }
}
