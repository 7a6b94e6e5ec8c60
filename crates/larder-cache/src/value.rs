//! Typed values as entries.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Abilities, Encoded, Entry, Live, Payload, Result, Ttl};
use serde::Serialize;
use serde::de::value::{Error as PlainError, I64Deserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::codec::decode;
use crate::{Codec, Options};

/// What can be cached: anything that serde can write and read and that threads can share.
pub trait Value: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Value for T {}

/// The readers' form of a typed value.
struct Typed<T> {
    value: Arc<T>,
    codec: Codec,
    encoded_len: OnceLock<usize>,
    cost: Duration,
}

impl<T: Serialize + Send + Sync + 'static> Live for Typed<T> {
    fn encode(&self) -> Result<Encoded> {
        let encoded = self.codec.encode(&*self.value)?;
        Ok(Encoded { head: head(self.cost), ..encoded })
    }

    // What a value occupies cannot be asked; twice its encoded length is near for most.
    fn weight(&self) -> usize {
        let length = self
            .encoded_len
            .get_or_init(|| self.codec.encoded_len(&*self.value).unwrap_or(usize::MAX / 4));
        size_of::<Self>() + 2 * length
    }
}

/// An entry for a value. With `keep_live` the value itself is kept and not its bytes; that it can be encoded is checked
/// all the same. `cost` is how long it took to make it, zero if nobody will ask.
fn to_entry<T: Value>(
    value: Arc<T>,
    codec: Codec,
    keep_live: bool,
    cost: Duration,
) -> Result<Entry> {
    if let Some(integer) = as_integer(&*value) {
        return Ok(Entry::integer(integer));
    }
    if !keep_live {
        return Ok(Entry::wire(Encoded { head: head(cost), ..codec.encode(&*value)? }));
    }
    let encoded_len = OnceLock::from(codec.encoded_len(&*value)?);
    Ok(Entry::live(Arc::new(Typed { value, codec, encoded_len, cost })))
}

/// An entry for a value that these options keep, and for how long: its lifetime and what it is kept beyond that.
pub(crate) fn to_kept_entry<T: Value>(
    value: Arc<T>,
    codec: Codec,
    abilities: &Abilities,
    options: &Options,
    ttl: Ttl,
    cost: Duration,
) -> Result<(Entry, Ttl)> {
    let (ttl, fresh) = options.kept(ttl, abilities.default_ttl);
    let cost = if options.early_refresh > 0.0 { cost } else { Duration::ZERO };
    let entry = to_entry(value, codec, abilities.local, cost)?;
    Ok((fresh.into_iter().fold(entry, Entry::fresh_for), ttl))
}

/// The value of an entry, shared with every other reader; `None` when it is none of that type.
pub(crate) fn from_entry<T: Value>(entry: &Entry) -> Option<Arc<T>> {
    if let Payload::Integer(integer) = entry.payload() {
        let integer: I64Deserializer<PlainError> = integer.into_deserializer();
        return T::deserialize(integer).ok().map(Arc::new);
    }
    if let Some(typed) = entry.downcast::<Typed<T>>() {
        return Some(typed.value.clone());
    }
    let typed = entry.downcast_or(|encoded| {
        let value: Arc<T> = Arc::new(decode(encoded)?);
        let cost = cost(&encoded.head);
        Some(Typed { value, codec: Codec::default(), encoded_len: encoded.body.len().into(), cost })
    })?;
    Some(typed.value.clone())
}

/// How long it took to make the value of an entry that was read as that type; zero where nobody noted it.
pub(crate) fn cost_of<T: Value>(entry: &Entry) -> Duration {
    entry.downcast::<Typed<T>>().map_or(Duration::ZERO, |typed| typed.cost)
}

// A value's head: four bytes of milliseconds, or nothing.
fn head(cost: Duration) -> Bytes {
    let millis = u32::try_from(cost.as_millis()).unwrap_or(u32::MAX);
    if millis == 0 { Bytes::new() } else { Bytes::copy_from_slice(&millis.to_be_bytes()) }
}

fn cost(head: &Bytes) -> Duration {
    let millis = head.as_ref().try_into().map_or(0, u32::from_be_bytes);
    Duration::from_millis(millis.into())
}

// Integers stay plain, so that the server can add to them.
fn as_integer<T: 'static>(value: &T) -> Option<i64> {
    let any: &dyn Any = value;
    macro_rules! first_of {
        ($($integer:ty),*) => {
            $(if let Some(value) = any.downcast_ref::<$integer>() {
                return i64::try_from(*value).ok();
            })*
        };
    }
    first_of!(i64, u64, i32, u32, usize, isize, i16, u16, i8, u8);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back<T: Value>(value: T, keep_live: bool) -> Arc<T> {
        from_entry(&to_entry(Arc::new(value), Codec::default(), keep_live, Duration::ZERO).unwrap())
            .unwrap()
    }

    #[test]
    fn integers_of_every_width_come_back() {
        assert_eq!(*read_back(u8::MAX, true), u8::MAX);
        assert_eq!(*read_back(i64::MIN, false), i64::MIN);
        // Too large for a plain integer, so it is encoded.
        assert_eq!(*read_back(u64::MAX, false), u64::MAX);
    }

    #[test]
    fn a_narrower_reader_refuses_what_does_not_fit() {
        let entry = to_entry(Arc::new(300_i64), Codec::default(), true, Duration::ZERO).unwrap();
        assert!(from_entry::<u8>(&entry).is_none());
        assert_eq!(from_entry::<u16>(&entry).as_deref(), Some(&300));
    }

    #[test]
    fn a_reader_of_another_type_decodes_for_itself() {
        let entry =
            to_entry(Arc::new(("a".to_owned(), 1_u8)), Codec::default(), true, Duration::ZERO)
                .unwrap();
        assert_eq!(*from_entry::<(String, u64)>(&entry).unwrap(), ("a".to_owned(), 1));
        assert!(from_entry::<Vec<bool>>(&entry).is_none());
    }

    #[test]
    fn readers_of_wire_bytes_share_one_decoded_value() {
        let entry =
            to_entry(Arc::new("text".to_owned()), Codec::default(), false, Duration::ZERO).unwrap();
        let (first, second) = (from_entry::<String>(&entry), from_entry::<String>(&entry));
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
    }
}
