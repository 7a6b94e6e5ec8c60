//! How typed values become bytes.

use std::io;

use bytes::Bytes;
use larder_core::{Encoded, Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How typed values are written when they leave the process. Reading obeys what an entry says it was written with, so
/// two codecs can share one store while a fleet changes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// MessagePack with field names: compact, and fields may come and go between versions.
    #[default]
    MessagePack,
    /// JSON: readable with the server's own tools; larger and slower.
    #[cfg(feature = "json")]
    Json,
    /// Postcard: the smallest, without names. A type whose fields have changed reads older bytes as something else or not
    /// at all, so give values that change a [version](crate::Cache::version). It knows no bounds: a recursive type, or a
    /// list of what takes no room, can be made to end the process by whoever can write to the store, so sign or encrypt
    /// what lies where others can.
    #[cfg(feature = "postcard")]
    Postcard,
}

const MESSAGE_PACK: u8 = 2;
const JSON: u8 = 3;
const POSTCARD: u8 = 4;

impl Codec {
    pub(crate) fn encode<T: Serialize>(self, value: &T) -> Result<Encoded> {
        let (codec, body) = match self {
            Codec::MessagePack => (MESSAGE_PACK, rmp_serde::to_vec_named(value).map_err(refused)?),
            #[cfg(feature = "json")]
            Codec::Json => (JSON, serde_json::to_vec(value).map_err(refused)?),
            #[cfg(feature = "postcard")]
            Codec::Postcard => (POSTCARD, postcard::to_stdvec(value).map_err(refused)?),
        };
        Ok(Encoded { codec, head: Bytes::new(), body: body.into() })
    }

    /// How long the encoded value is, without keeping it.
    pub(crate) fn encoded_len<T: Serialize>(self, value: &T) -> Result<usize> {
        let mut count = Count(0);
        match self {
            Codec::MessagePack => {
                rmp_serde::encode::write_named(&mut count, value).map_err(refused)?;
            }
            #[cfg(feature = "json")]
            Codec::Json => serde_json::to_writer(&mut count, value).map_err(refused)?,
            #[cfg(feature = "postcard")]
            Codec::Postcard => {
                postcard::to_io(value, &mut count).map_err(refused)?;
            }
        }
        Ok(count.0)
    }
}

/// A value from bytes, `None` if they are not one.
pub(crate) fn decode<T: DeserializeOwned>(encoded: &Encoded) -> Option<T> {
    match encoded.codec {
        MESSAGE_PACK => rmp_serde::from_slice(&encoded.body).ok(),
        #[cfg(feature = "json")]
        JSON => serde_json::from_slice(&encoded.body).ok(),
        #[cfg(not(feature = "json"))]
        JSON => None,
        #[cfg(feature = "postcard")]
        POSTCARD => {
            let (value, rest) = postcard::take_from_bytes(&encoded.body).ok()?;
            rest.is_empty().then_some(value)
        }
        #[cfg(not(feature = "postcard"))]
        POSTCARD => None,
        _ => None,
    }
}

fn refused(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Other, "the value cannot be serialized").with_source(source)
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
