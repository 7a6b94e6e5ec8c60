//! Records as bytes: a small framed head, the message apart and never copied by reading.
//!
//! Numbers are big-endian. Everything that is read is checked; whatever is not exactly right is no record, and a length
//! is never believed further than the bytes that are there.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use larder_core::Encoded;

use crate::gather::PREFIX;
use crate::record::{Call, Terms};
use crate::status;

// The codec number of this crate's records; those of larder-http are 18 and 19.
const CALL: u8 = 20;

pub(crate) fn encode(call: &Call) -> Encoded {
    let mut head = BytesMut::with_capacity(256);
    let terms = &call.terms;
    for duration in
        [terms.lifetime, terms.age, terms.stale_while_revalidate, terms.stale_on_unavailable]
    {
        head.put_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
    head.put_u8(u8::from(terms.public));
    put_fields(&mut head, &call.headers);
    put_fields(&mut head, &call.trailers);
    Encoded { codec: CALL, head: head.freeze(), body: call.message.clone() }
}

pub(crate) fn decode(encoded: &Encoded) -> Option<Call> {
    if encoded.codec != CALL {
        return None;
    }
    let mut head = encoded.head.clone();
    let mut duration = || head.try_get_u64().ok().map(Duration::from_millis);
    let terms = Terms {
        lifetime: duration()?,
        age: duration()?,
        stale_while_revalidate: duration()?,
        stale_on_unavailable: duration()?,
        public: match head.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        },
    };
    let (headers, trailers) = (get_fields(&mut head)?, get_fields(&mut head)?);
    let message = &encoded.body;
    let length = message.get(1..PREFIX)?.try_into().ok()?;
    let whole = u32::from_be_bytes(length) as usize == message.len() - PREFIX;
    let good = whole && head.is_empty() && status::code(&trailers) == Some(status::OK);
    good.then(|| Call::new(headers, message.clone(), trailers, terms))
}

fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    out.put_u16(fields.len() as u16);
    for (name, value) in fields {
        for bytes in [name.as_str().as_bytes(), value.as_bytes()] {
            out.put_u32(bytes.len() as u32);
            out.put_slice(bytes);
        }
    }
}

fn get_fields(from: &mut Bytes) -> Option<HeaderMap> {
    let count = from.try_get_u16().ok()? as usize;
    // Each field takes at least eight bytes, so a false count allocates no more than the input allows.
    let mut fields = HeaderMap::with_capacity(count.min(from.len() / 8));
    for _ in 0..count {
        let name = HeaderName::from_bytes(&take(from)?).ok()?;
        let value = HeaderValue::from_maybe_shared(take(from)?).ok()?;
        fields.try_append(name, value).ok()?;
    }
    Some(fields)
}

fn take(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call() -> Call {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.append("x-bin", HeaderValue::from_static("AAEC"));
        headers.append("x-bin", HeaderValue::from_bytes(b"\xff").unwrap());
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("sum-bin", HeaderValue::from_static("_w"));
        let terms = Terms {
            lifetime: Duration::from_millis(1500),
            age: Duration::from_secs(3),
            stale_while_revalidate: Duration::ZERO,
            stale_on_unavailable: Duration::from_secs(9),
            public: true,
        };
        Call::new(headers, Bytes::from_static(b"\0\0\0\0\x02ab"), trailers, terms)
    }

    #[test]
    fn a_call_comes_back_whole() {
        let call = call();
        let encoded = encode(&call);
        let read = decode(&encoded).unwrap();
        assert_eq!((&read.headers, &read.trailers), (&call.headers, &call.trailers));
        assert_eq!((read.terms, &read.message), (call.terms, &call.message));
        assert_eq!(read.message.as_ptr(), encoded.body.as_ptr(), "the message is not copied");
    }

    #[test]
    fn every_shortening_and_every_longer_record_is_none() {
        let encoded = encode(&call());
        for length in 0..encoded.head.len() {
            let cut = Encoded { head: encoded.head.slice(..length), ..encoded.clone() };
            assert!(decode(&cut).is_none(), "{length} bytes");
        }
        for length in 0..encoded.body.len() {
            let cut = Encoded { body: encoded.body.slice(..length), ..encoded.clone() };
            assert!(decode(&cut).is_none(), "a message of {length} bytes");
        }
        let longer = [&encoded.head[..], b"x"].concat().into();
        assert!(decode(&Encoded { head: longer, ..encoded.clone() }).is_none());
        assert!(decode(&Encoded { codec: 18, ..encoded }).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn hostile_heads_harm_nobody(
            noise in prop::collection::vec(any::<u8>(), 0..64),
            at in any::<prop::sample::Index>(),
        ) {
            let encoded = encode(&call());
            let mut head = encoded.head.to_vec();
            let at = at.index(head.len());
            let end = (at + noise.len()).min(head.len());
            head[at..end].copy_from_slice(&noise[..end - at]);
            for head in [head, noise] {
                let _ = decode(&Encoded { head: head.into(), ..encoded.clone() });
            }
        }
    }
}
