//! What is stored for a session.
//!
//! Format version 1. The head: version, state, flags (1: an expiry of its own, 2: idle, 4: absolute, 8: browser, 16: a
//! user's), when it began (milliseconds of Unix time), idle and absolute milliseconds. The body: the length (2 bytes) and
//! name of the user if it is one's; for each key, in ascending
//! order, its length (2 bytes) and text, its value's length (4 bytes) and MessagePack; of a rotated session, the name of
//! the record where it lives on; of one that was moved, that and the revision of what it was moved to. All big-endian. Whatever differs is no record: there is one way to write each, so
//! hostile bytes have no room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use larder_core::{Encoded, Live, Result as CoreResult, Revision, Ttl};

use crate::expiry::Expiry;
use crate::users::MAX_USER;

/// The values, each as MessagePack. A copy of the map copies neither keys nor values.
pub(crate) type Values = BTreeMap<Arc<str>, Bytes>;

/// A session's record, or the stone where one was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Alive(Arc<Alive>),
    /// It was destroyed.
    Destroyed,
    /// It lives on under another id, whose record has this name.
    Rotated([u8; 32]),
    /// A copy under the name that the present secret gives, made before the record under the older secret's name says so.
    /// Until then it is nothing.
    Moving(Arc<Alive>),
    /// It lives on under the present secret's name: that, and the revision of the copy that counts.
    Moved([u8; 32], Revision),
}

impl Record {
    /// What a session that lives, or may live, has in it.
    pub(crate) fn content(&self) -> Option<&Arc<Alive>> {
        match self {
            Record::Alive(alive) | Record::Moving(alive) => Some(alive),
            Record::Destroyed | Record::Rotated(_) | Record::Moved(..) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alive {
    /// Milliseconds of Unix time.
    pub(crate) began: i64,
    /// `None`: what the layer says.
    pub(crate) expiry: Option<Expiry>,
    /// Whose it is, if they have signed in as somebody.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) values: Arc<Values>,
}

/// No values.
pub(crate) static EMPTY: Values = Values::new();

/// The most keys that a session has.
pub(crate) const MAX_KEYS: usize = 1024;
/// The longest key, in bytes.
pub(crate) const MAX_KEY: usize = 256;

pub(crate) const CODEC: u8 = 20;
const VERSION: u8 = 1;
pub(crate) const HEAD: usize = 27;

/// The bytes that values take up in a record.
pub(crate) fn size(values: &Values) -> usize {
    values.iter().map(|(key, value)| 6 + key.len() + value.len()).sum()
}

impl Record {
    pub(crate) fn decode(encoded: &Encoded) -> Option<Record> {
        if encoded.codec != CODEC || encoded.head.len() != HEAD {
            return None;
        }
        let mut head = &encoded.head[..];
        if head.get_u8() != VERSION {
            return None;
        }
        let (state, flags, began) = (head.get_u8(), head.get_u8(), head.get_i64());
        let duration = |bit: u8, millis: u64| {
            let duration = Duration::from_millis(millis);
            match flags & bit != 0 {
                true => (duration <= Ttl::MAX).then_some(Some(duration)),
                false => (millis == 0).then_some(None),
            }
        };
        let expiry = Expiry {
            idle: duration(2, head.get_u64())?,
            absolute: duration(4, head.get_u64())?,
            browser: flags & 8 != 0,
        };
        if flags > 31 || (flags & 1 == 0 && flags & 15 != 0) {
            return None;
        }
        let expiry = (flags & 1 != 0).then_some(expiry);
        let stone = flags == 0 && began == 0;
        match state {
            0 | 3 => {
                let mut body = encoded.body.clone();
                let user = match flags & 16 {
                    0 => None,
                    _ => Some(decode_user(&mut body)?),
                };
                let values = Arc::new(decode_values(body)?);
                let alive = Arc::new(Alive { began, expiry, user, values });
                Some(if state == 0 { Record::Alive(alive) } else { Record::Moving(alive) })
            }
            1 if stone && encoded.body.is_empty() => Some(Record::Destroyed),
            2 if stone => Some(Record::Rotated(encoded.body[..].try_into().ok()?)),
            4 if stone => {
                let (name, copy) = encoded.body.split_at_checked(32)?;
                let copy = Revision::from_bytes(copy.try_into().ok()?);
                Some(Record::Moved(name.try_into().ok()?, copy))
            }
            _ => None,
        }
    }
}

fn decode_user(body: &mut Bytes) -> Option<Arc<str>> {
    let length = usize::from(body.try_get_u16().ok()?);
    let user = take(body, length).filter(|_| length <= MAX_USER)?;
    Some(std::str::from_utf8(&user).ok()?.into())
}

// The values are slices of the body: nothing is copied but the keys.
fn decode_values(mut rest: Bytes) -> Option<Values> {
    let mut values = Values::new();
    let mut last: Option<Bytes> = None;
    while !rest.is_empty() {
        let length = usize::from(rest.try_get_u16().ok()?);
        let key = take(&mut rest, length)?;
        let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
        let value = take(&mut rest, length)?;
        if last.is_some_and(|last| last >= key) || key.len() > MAX_KEY || values.len() == MAX_KEYS {
            return None;
        }
        values.insert(std::str::from_utf8(&key).ok()?.into(), value);
        last = Some(key);
    }
    Some(values)
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= rest.len()).then(|| rest.split_to(length))
}

impl Live for Record {
    fn encode(&self) -> CoreResult<Encoded> {
        let state = match self {
            Record::Alive(_) => 0,
            Record::Destroyed => 1,
            Record::Rotated(_) => 2,
            Record::Moving(_) => 3,
            Record::Moved(..) => 4,
        };
        let alive = self.content();
        let expiry = alive.and_then(|alive| alive.expiry);
        let flags = expiry.map_or(0, |expiry| {
            1 | u8::from(expiry.idle.is_some()) << 1
                | u8::from(expiry.absolute.is_some()) << 2
                | u8::from(expiry.browser) << 3
        });
        let user = alive.and_then(|alive| alive.user.as_deref());
        let flags = flags | u8::from(user.is_some()) << 4;
        let millis = |duration: Option<Duration>| {
            // At most a hundred years.
            duration.map_or(0, |duration| duration.as_millis() as u64)
        };
        let mut head = BytesMut::with_capacity(HEAD);
        head.put_slice(&[VERSION, state, flags]);
        head.put_i64(alive.map_or(0, |alive| alive.began));
        head.put_u64(millis(expiry.and_then(|expiry| expiry.idle)));
        head.put_u64(millis(expiry.and_then(|expiry| expiry.absolute)));
        let mut body = BytesMut::new();
        match self {
            Record::Rotated(name) => body.put_slice(name),
            Record::Moved(name, copy) => {
                body.put_slice(name);
                body.put_slice(&copy.to_bytes());
            }
            Record::Alive(_) | Record::Destroyed | Record::Moving(_) => {}
        }
        if let Some(user) = user {
            body.put_u16(user.len() as u16);
            body.put_slice(user.as_bytes());
        }
        for (key, value) in alive.into_iter().flat_map(|alive| &*alive.values) {
            // Both were checked against limits that fit.
            body.put_u16(key.len() as u16);
            body.put_slice(key.as_bytes());
            body.put_u32(value.len() as u32);
            body.put_slice(value);
        }
        Ok(Encoded { codec: CODEC, head: head.freeze(), body: body.freeze() })
    }

    fn weight(&self) -> usize {
        let (values, user) = match self.content() {
            Some(alive) => (&*alive.values, alive.user.as_deref()),
            None => (&EMPTY, None),
        };
        let each = size_of::<(Arc<str>, Bytes)>();
        size_of::<Self>() + size(values) + values.len() * each + user.map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Record> {
        let durations = proptest::option::of(0..3_153_600_000_000_u64)
            .prop_map(|millis| millis.map(Duration::from_millis));
        let expiry = (durations.clone(), durations, any::<bool>())
            .prop_map(|(idle, absolute, browser)| Expiry { idle, absolute, browser });
        let value = proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let values = proptest::collection::btree_map(".{0,8}".prop_map(Arc::from), value, 0..6)
            .prop_map(Arc::new);
        let user = proptest::option::of(".{0,8}".prop_map(Arc::from));
        let alive = (any::<i64>(), proptest::option::of(expiry), user, values).prop_map(
            |(began, expiry, user, values)| Arc::new(Alive { began, expiry, user, values }),
        );
        let moved = (any::<[u8; 32]>(), any::<[u8; 16]>())
            .prop_map(|(name, copy)| Record::Moved(name, Revision::from_bytes(copy)));
        prop_oneof![
            6 => alive.clone().prop_map(Record::Alive),
            2 => alive.prop_map(Record::Moving),
            1 => Just(Record::Destroyed),
            1 => any::<[u8; 32]>().prop_map(Record::Rotated),
            1 => moved,
        ]
    }

    proptest! {
        #[test]
        fn records_come_back(record in records()) {
            let encoded = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&encoded), Some(record));
        }

        #[test]
        fn what_decodes_was_written_so(record in records(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut encoded = record.encode().unwrap();
            let mut bytes = [&encoded.head[..], &encoded.body[..]].concat();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut bytes = Bytes::from(bytes);
            encoded.head = bytes.split_to(HEAD);
            encoded.body = bytes;
            if let Some(other) = Record::decode(&encoded) {
                prop_assert_eq!(other.encode().unwrap(), encoded);
            }
        }

        #[test]
        fn hostile_bytes_are_no_record_and_no_panic(
            codec in prop_oneof![Just(CODEC), any::<u8>()],
            mut head in proptest::collection::vec(any::<u8>(), HEAD..=HEAD),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            head[0] = VERSION;
            head[1] %= 5;
            let encoded = Encoded { codec, head: head.into(), body: body.into() };
            if let Some(record) = Record::decode(&encoded) {
                prop_assert_eq!(record.encode().unwrap(), encoded);
            }
        }
    }
}
