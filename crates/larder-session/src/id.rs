//! Ids: what the cookie carries, and the names that are made of it.

use std::time::SystemTime;

use larder_core::{Key, Namespace};
use rand::TryRng;
use rand::rngs::SysRng;

use crate::csrf::Tokens;
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

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Id(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which user's list a session is in: a keyed hash of the user's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot([u8; 16]);

/// What the cookie of a session in a store says: its id, and which user's list says whether it is valid, so that both
/// can be read at once. Believed is the session's record alone.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) id: Id,
    pub(crate) slot: Option<Slot>,
}

impl Ticket {
    /// The characters of the longest one.
    pub(crate) const LONGEST: usize = Id::LENGTH + 32;

    /// From its only encoding: 64 lowercase hexadecimal digits, or 96.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (id, slot) = text.split_at_checked(Id::LENGTH)?;
        let slot = match slot {
            [] => None,
            slot => Some(Slot(bytes(slot)?)),
        };
        Some(Ticket { id: Id(bytes(id)?), slot })
    }

    /// As it stands in a cookie.
    pub(crate) fn write_to(&self, text: &mut String) {
        hex(&self.id.0, text);
        if let Some(slot) = &self.slot {
            hex(&slot.0, text);
        }
    }

    #[cfg(test)]
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text);
        text
    }
}

/// Appends bytes in their only encoding: two lowercase hexadecimal digits each.
pub(crate) fn hex(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|half| char::from(DIGITS[usize::from(half)])));
    }
}

/// Reads so many bytes in their only encoding, and nothing besides them.
pub(crate) fn bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
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
        Entropy(|bytes| fill(bytes))
    }
}

/// Random bytes from the operating system.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<()> {
    let failed = |source| Error::new(ErrorKind::Entropy).with_source(source);
    SysRng.try_fill_bytes(bytes).map_err(failed)
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
    user: [u8; 32],
    device: [u8; 32],
    pub(crate) tokens: Tokens,
}

impl Names {
    pub(crate) fn new(secret: &[u8], cookie: &str) -> Self {
        // The cookie's name has no zero byte.
        let material = [cookie.as_bytes(), &[0], secret].concat();
        Names {
            record: blake3::derive_key("larder-session v1: names of records", &material),
            log: blake3::derive_key("larder-session v1: hashes for logs", &material),
            user: blake3::derive_key("larder-session v1: names of users' lists", &material),
            device: blake3::derive_key("larder-session v1: names of devices", &material),
            tokens: Tokens::new(&material),
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

    /// Which list is that user's.
    pub(crate) fn slot(&self, user: &str) -> Slot {
        let hash = blake3::keyed_hash(&self.user, user.as_bytes());
        Slot(std::array::from_fn(|at| hash.as_bytes()[at]))
    }

    /// Tells a user's sessions apart on a page: 16 hexadecimal digits.
    pub(crate) fn device(&self, record: &[u8; 32]) -> String {
        blake3::keyed_hash(&self.device, record).to_hex()[..16].to_owned()
    }
}

/// Names by a secret that is not the present one any more, or not yet.
#[derive(Clone)]
pub(crate) struct Accepted {
    pub(crate) names: Names,
    pub(crate) until: Option<SystemTime>,
}

/// Whose names a session is known by: 0 the present secret's, from 1 on those of the others, in order.
pub(crate) type Era = usize;

/// Where the list of a user's sessions is kept.
pub(crate) fn list_key(namespace: &Namespace, slot: Slot) -> Result<Key> {
    Key::new(namespace, [b"x".as_slice(), b"u", &slot.0]).map_err(Error::from)
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
        let many = std::env::var("LARDER_IDS").ok().and_then(|many| many.parse().ok());
        let many: u32 = many.unwrap_or(20_000);
        for _ in 0..many {
            let ticket = Ticket { id: Entropy::default().id().unwrap(), slot: None };
            let text = ticket.to_text();
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

    /// Comparing secrets takes longer the more of them is right, so there is no way to: `==` on one of these types is as
    /// good as a second implementation for them here, and the call is then ambiguous and does not compile.
    #[test]
    fn s15_ids_and_keys_cannot_be_compared() {
        trait NotComparable<Why> {
            fn holds() -> bool {
                true
            }
        }
        struct Never;
        impl<T: ?Sized> NotComparable<()> for T {}
        impl<T: ?Sized + PartialEq> NotComparable<Never> for T {}
        assert!(<Id as NotComparable<_>>::holds());
        assert!(<Ticket as NotComparable<_>>::holds());
        assert!(<Names as NotComparable<_>>::holds());
        assert!(<Tokens as NotComparable<_>>::holds());
        assert!(<crate::KeyRing as NotComparable<_>>::holds());
        assert!(<crate::seal::Seal as NotComparable<_>>::holds());
    }

    proptest! {
        #[test]
        fn s09_accepted_means_canonical(text in "[0-9a-f]{63,65}|[0-9a-f]{95,97}|[0-9a-fA-F]{0,100}") {
            let length = text.len() == 64 || text.len() == 96;
            let canonical = length && !text.bytes().any(|c| c.is_ascii_uppercase());
            let ticket = Ticket::parse(text.as_bytes());
            prop_assert_eq!(ticket.is_some(), canonical);
            if let Some(ticket) = ticket {
                prop_assert_eq!(ticket.to_text(), text);
            }
        }

        #[test]
        fn s09_any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Ticket::parse(&bytes);
        }
    }
}
