//! Ids: what the cookie carries, and the names that are made of it.

use larder_core::{Key, Namespace};
use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::{Error, ErrorKind, Result};

/// 256 bits from the operating system, which only the client knows.
///
/// It has neither `Debug` nor `PartialEq`: it must not be printed, and nothing decides by comparing two of them. What
/// is looked up is a keyed hash, so no comparison's time tells anything of an id.
#[derive(Clone)]
pub(crate) struct Id([u8; 32]);

impl Id {
    /// The characters of an id in a cookie.
    pub(crate) const LENGTH: usize = 64;

    /// From its only encoding: 64 lowercase hexadecimal digits.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let digits: &[u8; Id::LENGTH] = text.try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Id(bytes))
    }

    /// As it stands in a cookie.
    pub(crate) fn to_text(&self) -> String {
        self.0.iter().fold(String::with_capacity(Id::LENGTH), |mut text, byte| {
            text.extend([byte >> 4, byte & 15].map(|half| char::from(DIGITS[usize::from(half)])));
            text
        })
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// Where new ids come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entropy(pub(crate) fn(&mut [u8; 32]) -> Result<()>);

impl Default for Entropy {
    fn default() -> Self {
        Entropy(|bytes| {
            let failed = |source| Error::new(ErrorKind::Entropy).with_source(source);
            SysRng.try_fill_bytes(bytes).map_err(failed)
        })
    }
}

impl Entropy {
    pub(crate) fn id(self) -> Result<Id> {
        let mut bytes = [0; 32];
        self.0(&mut bytes)?;
        Ok(Id(bytes))
    }
}

/// Makes names of ids. Both are keyed hashes, by keys of their own: what a log shows does not lead to a record, and a
/// record does not lead to an id.
///
/// The cookie's name is part of the keys, so that an id is of no use to a layer with another one.
#[derive(Clone)]
pub(crate) struct Names {
    record: [u8; 32],
    log: [u8; 32],
}

impl Names {
    pub(crate) fn new(secret: &[u8], cookie: &str) -> Self {
        // The cookie's name has no zero byte.
        let material = [cookie.as_bytes(), &[0], secret].concat();
        Names {
            record: blake3::derive_key("larder-session v1: names of records", &material),
            log: blake3::derive_key("larder-session v1: hashes for logs", &material),
        }
    }

    /// Where the session of that id is kept.
    pub(crate) fn key(&self, namespace: &Namespace, id: &Id) -> Result<Key> {
        named(namespace, blake3::keyed_hash(&self.record, &id.0).as_bytes())
    }

    /// Tells sessions apart in logs: 16 hexadecimal digits.
    pub(crate) fn for_logs(&self, id: &Id) -> String {
        blake3::keyed_hash(&self.log, &id.0).to_hex()[..16].to_owned()
    }
}

/// Where the session of that name is kept.
pub(crate) fn named(namespace: &Namespace, name: &[u8; 32]) -> Result<Key> {
    Key::new(namespace, [b"x".as_slice(), name]).map_err(Error::from)
}

/// The name of a session that is kept there.
pub(crate) fn name(key: &Key) -> [u8; 32] {
    let name = key.as_ref().parts().last().flatten().and_then(|name| name.try_into().ok());
    // Every key of a session is made by `named`.
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn s10_ids_differ_and_every_position_is_uniform() {
        let mut seen = HashSet::new();
        let mut counts = vec![[0_u32; 16]; Id::LENGTH];
        let many = 20_000;
        for _ in 0..many {
            let text = Entropy::default().id().unwrap().to_text();
            for (count, character) in counts.iter_mut().zip(text.bytes()) {
                count[usize::from(digit(character).unwrap())] += 1;
            }
            assert!(seen.insert(text));
        }
        // χ² with 15 degrees of freedom: above 70 once in 10^8.
        let expected = f64::from(many) / 16.0;
        for count in counts {
            let chi: f64 =
                count.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
            assert!(chi < 70.0, "χ² = {chi}");
        }
    }

    #[test]
    fn s13_names_depend_on_cookie_and_secret() {
        let id = Entropy::default().id().unwrap();
        let namespace = Namespace::new("shop").unwrap();
        let key = |secret: &str, cookie: &str| {
            Names::new(secret.as_bytes(), cookie).key(&namespace, &id).unwrap()
        };
        let keys = [key("", "a"), key("", "b"), key("s", "a"), key("s", "b"), key("a", "")];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    proptest! {
        #[test]
        fn s09_accepted_means_canonical(text in "[0-9a-fA-F]{0,70}") {
            let canonical = text.len() == 64 && !text.bytes().any(|c| c.is_ascii_uppercase());
            let id = Id::parse(text.as_bytes());
            prop_assert_eq!(id.is_some(), canonical);
            if let Some(id) = id {
                prop_assert_eq!(id.to_text(), text);
            }
        }

        #[test]
        fn s09_any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Id::parse(&bytes);
        }
    }
}
