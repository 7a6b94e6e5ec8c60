//! Typed values as MessagePack, and a whole session as one struct.

use std::io::Cursor;

use bytes::{BufMut, Bytes};
use rmp_serde::Deserializer;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Values;

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes> {
    // Most are small, and then take one allocation of their length.
    let mut bytes = SmallVec::<[u8; 128]>::new();
    // Field names are written, so that fields may come and go between versions.
    rmp_serde::encode::write_named(&mut bytes, value).map_err(refused)?;
    Ok(match bytes.spilled() {
        true => Bytes::from(bytes.into_vec()),
        false => Bytes::copy_from_slice(&bytes),
    })
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(refused)
}

/// All values as one struct or map: a key is a field.
pub(crate) fn join<T: DeserializeOwned>(values: &Values) -> Result<T> {
    let mut bytes = vec![0xdf];
    bytes.put_u32(values.len() as u32);
    for (key, value) in values {
        bytes.put_u8(0xdb);
        bytes.put_u32(key.len() as u32);
        bytes.put_slice(key.as_bytes());
        bytes.put_slice(value);
    }
    decode(&bytes)
}

/// The other way round.
pub(crate) fn split<T: Serialize>(whole: &T) -> Result<Values> {
    let bytes = encode(whole)?;
    fields(&bytes).ok_or_else(|| {
        let words = "a whole session must be a struct, or a map whose keys are text";
        Error::saying(ErrorKind::Value, words)
    })
}

fn fields(bytes: &Bytes) -> Option<Values> {
    let (count, mut at) = match *bytes.first()? {
        marker @ 0x80..=0x8f => (u32::from(marker & 15), 1),
        0xde => (u32::from(u16::from_be_bytes(bytes.get(1..3)?.try_into().ok()?)), 3),
        0xdf => (u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?), 5),
        _ => return None,
    };
    let mut values = Values::new();
    for _ in 0..count {
        let (key, length) = first::<String>(&bytes[at..])?;
        at += length;
        let (_, length) = first::<IgnoredAny>(&bytes[at..])?;
        values.insert(key.into(), bytes.slice(at..at + length));
        at += length;
    }
    Some(values)
}

// The first value and its length.
fn first<'a, T: Deserialize<'a>>(bytes: &[u8]) -> Option<(T, usize)> {
    let mut reader = Deserializer::new(Cursor::new(bytes));
    let value = T::deserialize(&mut reader).ok()?;
    Some((value, usize::try_from(reader.position()).ok()?))
}

// What serde says may quote the value.
fn refused<E>(_: E) -> Error {
    Error::new(ErrorKind::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Cart {
        items: Vec<(String, u32)>,
        note: Option<String>,
        deep: BTreeMap<String, Vec<f64>>,
        bytes: [u8; 3],
        big: u64,
    }

    #[test]
    fn a_struct_is_its_fields_and_back() {
        let cart = Cart {
            items: vec![("tea".into(), 2), ("pot".into(), 1)],
            note: Some("x".repeat(300)),
            deep: BTreeMap::from([("a".into(), vec![0.5; 20])]),
            bytes: [0, 255, 7],
            big: u64::MAX,
        };
        let values = split(&cart).unwrap();
        let keys: Vec<&str> = values.keys().map(|key| &**key).collect();
        assert_eq!(keys, ["big", "bytes", "deep", "items", "note"]);
        assert_eq!(decode::<u64>(&values["big"]).unwrap(), u64::MAX);
        assert_eq!(join::<Cart>(&values).unwrap(), cart);
        assert_eq!(join::<Cart>(&Values::new()).unwrap(), Cart::default());
    }

    #[test]
    fn what_is_no_struct_is_refused() {
        for wrong in [split(&7), split(&"text"), split(&[1, 2]), split(&BTreeMap::from([(1, 2)]))] {
            assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Value);
        }
    }
}
