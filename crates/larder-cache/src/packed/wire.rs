//! A packed value, format version 1.
//!
//! It is an entry like any other, of a codec of its own. Its head:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | format version: 1 |
//! | 1 | compression: 0 none, 1 Zstandard, 2 LZ4 |
//! | 2 | seal: 0 none, 1 signed, 2 encrypted |
//! | 3 | codec of the value |
//! | 4..8 | length of the value's head |
//! | 8..12 | name of the key, where it is sealed |
//! | 12.. | signed, 32 bytes of MAC; encrypted, a nonce of 24 |
//! | then | the value's head, unless it is encrypted |
//!
//! The body: the value's, compressed or not; or, encrypted, the value's head and that. Authenticated with it: the key,
//! revision, number and tags of the entry, and bytes 0..12.

use bytes::Bytes;
#[cfg(feature = "encryption")]
use bytes::{BufMut, BytesMut};
use larder_core::envelope::INTEGER;
use larder_core::{Encoded, Entry, Error, ErrorKind, Key, Payload, Result};

use super::Packing;
#[cfg(feature = "encryption")]
use super::keys::{MAC, NAME, NONCE};
#[cfg(feature = "encryption")]
use super::packing::Seal;

/// The codec number of what is packed.
pub(super) const PACKED: u8 = 5;

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const OPEN: u8 = 0;
#[cfg(feature = "encryption")]
const SIGNED: u8 = 1;
#[cfg(feature = "encryption")]
const ENCRYPTED: u8 = 2;
const FIXED: usize = 12;

/// Why a stored value cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Without encryption nothing is forged.
#[cfg_attr(not(feature = "encryption"), allow(dead_code))]
pub(super) enum Unreadable {
    /// It is not sealed, or otherwise than demanded.
    Seal,
    /// The seal is broken, made for another entry, or by a key that nobody has.
    Forged,
    /// It does not expand, or too far.
    Squeezed,
    /// Nothing that could be one.
    Malformed,
}

impl Unreadable {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Unreadable::Seal => "not sealed as demanded",
            Unreadable::Forged => "a broken seal, or an unknown key",
            Unreadable::Squeezed => "does not expand, or too far",
            Unreadable::Malformed => "malformed",
        }
    }
}

impl Packing {
    /// An entry as it is stored.
    pub(super) fn pack(&self, key: &Key, entry: Entry) -> Result<Entry> {
        // The server adds to it.
        if entry.as_counter().is_some() {
            return Ok(entry);
        }
        let encoded = entry.encoded()?;
        if encoded.codec == PACKED {
            return Err(Error::new(ErrorKind::Other, "codec 5 is that of packed values"));
        }
        let (compression, body) = self.squeezed(&encoded.body)?;
        let seal = self.seal_number();
        if (compression, seal) == (PLAIN, OPEN) {
            return Ok(entry);
        }
        let mut head = vec![VERSION, compression, seal, encoded.codec];
        let too_large = |_| Error::new(ErrorKind::TooLarge, "the value's head is too large");
        let length = u32::try_from(encoded.head.len()).map_err(too_large)?;
        head.extend_from_slice(&length.to_be_bytes());
        let _ = key;
        #[cfg(feature = "encryption")]
        if let Some((seal, keys)) = &self.seal {
            head.extend_from_slice(&keys.name());
            let bound = bound(key, &entry, &head);
            if *seal == Seal::Encrypted {
                let nonce: [u8; NONCE] = rand::random();
                let mut text = BytesMut::with_capacity(encoded.head.len() + body.len());
                text.put_slice(&encoded.head);
                text.put_slice(&body);
                let hidden = keys.encrypt(nonce, &bound, &text)?;
                head.extend_from_slice(&nonce);
                let packed = Encoded { codec: PACKED, head: head.into(), body: hidden.into() };
                return Ok(entry.with_payload(Payload::Wire(packed)));
            }
            head.extend_from_slice(&keys.sign(&[&bound, &encoded.head, &body]));
        }
        head.resize(head.len().max(FIXED), 0);
        head.extend_from_slice(&encoded.head);
        let packed = Encoded { codec: PACKED, head: head.into(), body };
        Ok(entry.with_payload(Payload::Wire(packed)))
    }

    /// An entry as its readers know it.
    pub(super) fn unpack(&self, key: &Key, entry: Entry) -> Result<Entry, Unreadable> {
        let encoded = match entry.payload() {
            Payload::Wire(encoded) if encoded.codec == PACKED => encoded,
            _ if self.seal_number() == OPEN || entry.as_counter().is_some() => return Ok(entry),
            _ => return Err(Unreadable::Seal),
        };
        let (fixed, rest) =
            encoded.head.split_first_chunk::<FIXED>().ok_or(Unreadable::Malformed)?;
        let [VERSION, compression, seal, codec, ..] = *fixed else {
            return Err(Unreadable::Malformed);
        };
        if seal != self.seal_number() {
            return Err(Unreadable::Seal);
        }
        let length = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) as usize;
        let (head, body) = match seal {
            OPEN => (encoded.head.slice(FIXED..), encoded.body.clone()),
            _ => self.opened(key, &entry, encoded, rest)?,
        };
        // Encrypted, the head lies before the body.
        let (head, body) = match head.is_empty() && length > 0 {
            true if length <= body.len() => (body.slice(..length), body.slice(length..)),
            _ => (head, body),
        };
        if head.len() != length || codec == PACKED {
            return Err(Unreadable::Malformed);
        }
        let body = self.expanded(compression, body)?;
        if codec == INTEGER {
            let value: [u8; 8] = body[..].try_into().map_err(|_| Unreadable::Malformed)?;
            return Ok(entry.with_payload(Payload::Integer(i64::from_be_bytes(value))));
        }
        Ok(entry.with_payload(Payload::Wire(Encoded { codec, head, body })))
    }

    #[cfg(feature = "encryption")]
    fn seal_number(&self) -> u8 {
        match self.seal {
            None => OPEN,
            Some((Seal::Signed, _)) => SIGNED,
            Some((Seal::Encrypted, _)) => ENCRYPTED,
        }
    }

    #[cfg(not(feature = "encryption"))]
    fn seal_number(&self) -> u8 {
        OPEN
    }

    // Head and body of what is sealed as this store demands; encrypted, the body has both.
    #[cfg(feature = "encryption")]
    fn opened(
        &self,
        key: &Key,
        entry: &Entry,
        packed: &Encoded,
        rest: &[u8],
    ) -> Result<(Bytes, Bytes), Unreadable> {
        let Some((seal, keys)) = &self.seal else { return Err(Unreadable::Seal) };
        let fixed = &packed.head[..FIXED];
        let name: [u8; NAME] = fixed[8..].try_into().map_err(|_| Unreadable::Malformed)?;
        let bound = bound(key, entry, fixed);
        match seal {
            Seal::Signed => {
                let (mac, head) = rest.split_first_chunk::<MAC>().ok_or(Unreadable::Malformed)?;
                if !keys.verify(name, &[&bound, head, &packed.body], *mac) {
                    return Err(Unreadable::Forged);
                }
                Ok((packed.head.slice(FIXED + MAC..), packed.body.clone()))
            }
            Seal::Encrypted => {
                let nonce: [u8; NONCE] = rest.try_into().map_err(|_| Unreadable::Malformed)?;
                let text = keys.decrypt(name, nonce, &bound, &packed.body);
                Ok((Bytes::new(), text.ok_or(Unreadable::Forged)?.into()))
            }
        }
    }

    #[cfg(not(feature = "encryption"))]
    fn opened(
        &self,
        _: &Key,
        _: &Entry,
        _: &Encoded,
        _: &[u8],
    ) -> Result<(Bytes, Bytes), Unreadable> {
        Err(Unreadable::Seal)
    }

    // With which compression, and what came out; as it is where that is of no use.
    #[cfg(any(feature = "zstd", feature = "lz4"))]
    fn squeezed(&self, body: &Bytes) -> Result<(u8, Bytes)> {
        if let Some(compression) = self.compression
            && body.len() > self.above
            && let Some(squeezed) = compression.squeeze(body, self.ceiling())?
        {
            return Ok((compression.number(), squeezed.into()));
        }
        Ok((PLAIN, body.clone()))
    }

    #[cfg(not(any(feature = "zstd", feature = "lz4")))]
    fn squeezed(&self, body: &Bytes) -> Result<(u8, Bytes)> {
        Ok((PLAIN, body.clone()))
    }

    fn expanded(&self, compression: u8, body: Bytes) -> Result<Bytes, Unreadable> {
        if compression == PLAIN {
            return Ok(body);
        }
        #[cfg(any(feature = "zstd", feature = "lz4"))]
        if let Some(raw) = super::squeeze::expand(compression, &body, self.ceiling()) {
            return Ok(raw.into());
        }
        Err(Unreadable::Squeezed)
    }
}

// What a sealed value belongs to. All but the last part has its length before it, or a fixed one.
#[cfg(feature = "encryption")]
fn bound(key: &Key, entry: &Entry, fixed: &[u8]) -> Vec<u8> {
    let key = key.as_ref();
    let mut bound = Vec::with_capacity(64 + key.as_bytes().len());
    bound.put_u32(key.as_bytes().len() as u32);
    bound.put_slice(key.as_bytes());
    bound.put_slice(&entry.revision().to_bytes());
    bound.put_i64(entry.built_at().get());
    bound.put_u32(entry.tags().len() as u32);
    for tag in entry.tags() {
        bound.put_u16(tag.as_str().len() as u16); // at most 257
        bound.put_slice(tag.as_str().as_bytes());
    }
    bound.put_slice(fixed);
    bound
}
