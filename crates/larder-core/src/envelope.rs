//! The wire envelope, format version 1.
//!
//! Backends that keep bytes keep these. All numbers are big-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..4 | magic `LRDR` |
//! | 4 | format version: 1 |
//! | 5 | kind: 1 entry, 2 fill marker, 3 pass marker |
//! | 6 | flags: bit 0, a MAC follows the body |
//! | 7 | codec of the payload |
//! | 8..32 | times in the backend's milliseconds: written, fresh until, expires (all ones: never) |
//! | 32..48 | seal of the times and the key: CRC-32 and zeros, or 16 bytes of a keyed BLAKE3 |
//! | 48..64 | revision |
//! | 64..72 | the sequence's number that the value was built at |
//! | 72..92 | lengths: key, tags, head (32 bits each), body (64 bits) |
//! | 92..96 | CRC-32 of bytes 0..8 and 48..92, key, tags and head |
//! | 96..100 | CRC-32 of the body |
//! | 100.. | key, tags (each with a 16-bit length), head, body, and 32 bytes of MAC if flagged |
//!
//! The times stand apart under a seal of their own, so that a lifetime can be changed in place without reading or
//! writing the rest. A marker ends after byte 36: token (8..24), expiry (24..32), CRC-32 (32..36).
//!
//! Reading checks magic, version, lengths, key and head always, and allocates nothing on a length's word: hostile bytes
//! cost bounded work and are a [`Damage`], which backends treat as a miss.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    Encoded, Entry, Error, ErrorKind, Key, KeyRef, Moment, Namespace, Payload, Result, Revision,
    Sequence, Tag, Times, Token,
};

/// The codec number of an integer that is enveloped (it has tags or a freshness of its own).
pub const INTEGER: u8 = 1;

/// The format version that this crate writes and reads.
pub const VERSION: u8 = 1;

/// Where the times and their seal lie: what a touch rewrites.
pub const TIMES: std::ops::Range<usize> = 8..48;

/// The bytes before the key: enough to learn how long the key is.
pub const PREFIX: usize = 100;

/// The most tags that an entry may carry: reading one costs more memory than its bytes, and that is bounded too.
pub const MAX_TAGS: usize = 512;

/// What every record begins with, format version included.
pub const MAGIC: &[u8; 5] = b"LRDR\x01";

/// The kind byte of an entry, at [`KIND_AT`].
pub const KIND_ENTRY: u8 = 1;

/// Where the kind byte lies.
pub const KIND_AT: usize = 5;

const KIND_FILL: u8 = 2;
const KIND_PASS: u8 = 3;
const FLAG_MAC: u8 = 1;
const MARKER: usize = 36;
const MAC: usize = 32;
const NEVER: u64 = u64::MAX;

/// Relates the backend's milliseconds to this process's clock.
#[derive(Clone, Copy, Debug)]
pub struct TimeBase {
    /// The backend's time, in milliseconds since its epoch.
    pub millis: u64,
    /// The same instant here.
    pub at: Moment,
}

impl TimeBase {
    /// A backend's time as a moment here.
    pub fn moment(&self, millis: u64) -> Moment {
        let delta = i128::from(millis) - i128::from(self.millis);
        self.at.shifted_millis(delta.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }

    /// A moment here as the backend's time.
    pub fn millis(&self, moment: Moment) -> u64 {
        self.millis.saturating_add_signed(moment.millis_since(self.at)).min(NEVER - 1)
    }
}

/// Why bytes are not a record of ours. All of them are a miss; which one is for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Not Larder's.
    Foreign,
    /// Another format version.
    Version(u8),
    /// Shorter or longer than it says.
    Length,
    /// A checksum or a MAC is wrong, or a MAC is missing where one is demanded.
    Checksum,
    /// Another key's record.
    WrongKey,
    /// Fields that cannot be.
    Malformed,
}

/// What a record is.
#[derive(Clone, Debug)]
pub enum Record {
    /// An entry.
    Entry(Entry),
    /// A fill marker.
    Fill(Token),
    /// A pass marker.
    Pass(Token),
}

/// Reads and writes envelopes.
///
/// ```
/// use larder_core::envelope::{Envelope, Record, TimeBase};
/// use larder_core::{Clock, Encoded, Entry, Key, Namespace, Times};
///
/// let clock = Clock::system();
/// let base = TimeBase { millis: 1_767_225_600_000, at: clock.now() };
/// let key = Key::new(&Namespace::new("shop")?, ["greeting"])?;
/// let entry = Entry::wire(Encoded { codec: 7, body: "hello".into(), ..Encoded::default() })
///     .with_times(Times::starting(clock.now(), None, None));
///
/// let envelope = Envelope::default();
/// let bytes = envelope.encode(key.as_ref(), &entry, &base)?;
/// let Ok(Record::Entry(read)) = envelope.decode(bytes.clone(), key.as_ref(), &base) else { panic!() };
/// assert_eq!(read.encoded()?.body, "hello");
///
/// let other = Key::new(&Namespace::new("shop")?, ["another"])?;
/// assert!(envelope.decode(bytes, other.as_ref(), &base).is_err());
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Envelope {
    mac: Option<[u8; 32]>,
    verify_body: bool,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("mac", &self.mac.is_some())
            .field("verify_body", &self.verify_body)
            .finish()
    }
}

impl Envelope {
    /// Seals every record with a keyed BLAKE3, and refuses records without one. Who can write to the store can then
    /// neither change an entry nor copy it under another key. Fill markers carry no seal: a forged one can delay or
    /// refuse a fill, and no more. Times that were sealed for a key once can be put back on its later entries.
    #[must_use]
    pub fn sealed(mut self, key: [u8; 32]) -> Self {
        self.mac = Some(key);
        self
    }

    /// Checks bodies too: for stores that may tear or rot.
    #[must_use]
    pub fn verify_body(mut self, verify: bool) -> Self {
        self.verify_body = verify;
        self
    }

    /// An entry as bytes. The body is copied once; its times must be set.
    ///
    /// # Errors
    ///
    /// When the payload does not encode, has no times, has more than [`MAX_TAGS`] tags, or a part is longer than its
    /// length field.
    pub fn encode(&self, key: KeyRef<'_>, entry: &Entry, base: &TimeBase) -> Result<Bytes> {
        let too_large = || Error::new(ErrorKind::TooLarge, "the entry is too large to be stored");
        let times =
            entry.times().ok_or_else(|| Error::new(ErrorKind::Other, "the entry has no times"))?;
        let encoded = entry.encoded()?;
        if entry.tags().len() > MAX_TAGS {
            return Err(Error::new(ErrorKind::TooLarge, "the entry carries more than 512 tags"));
        }
        if encoded.codec == INTEGER && !matches!(entry.payload(), Payload::Integer(_)) {
            return Err(Error::new(ErrorKind::Other, "codec 1 is the integers' own"));
        }
        let tags: usize = entry.tags().iter().map(|tag| 2 + tag.as_str().len()).sum();
        let total = PREFIX + key.as_bytes().len() + tags + encoded.head.len() + encoded.body.len();

        let mut out = BytesMut::with_capacity(total + MAC);
        out.put_slice(MAGIC);
        out.put_u8(KIND_ENTRY);
        out.put_u8(if self.mac.is_some() { FLAG_MAC } else { 0 });
        out.put_u8(encoded.codec);
        out.put_slice(&self.times(key, times, base));
        out.put_slice(&entry.revision().to_bytes());
        out.put_i64(entry.built_at().get());
        for length in [key.as_bytes().len(), tags, encoded.head.len()] {
            out.put_u32(u32::try_from(length).map_err(|_| too_large())?);
        }
        out.put_u64(encoded.body.len() as u64);
        out.put_bytes(0, 8); // the checksums, below
        out.put_slice(key.as_bytes());
        for tag in entry.tags() {
            out.put_u16(tag.as_str().len() as u16); // at most 257, by `Tag::written`
            out.put_slice(tag.as_str().as_bytes());
        }
        out.put_slice(&encoded.head);
        let body_at = out.len();
        out.put_slice(&encoded.body);

        let head_sum = head_sum(&out[..body_at]);
        out[92..96].copy_from_slice(&head_sum.to_be_bytes());
        out[96..100].copy_from_slice(&crc32fast::hash(&encoded.body).to_be_bytes());
        if let Some(mac) = &self.mac {
            let mac = data_mac(mac, &out);
            out.put_slice(&mac);
        }
        Ok(out.freeze())
    }

    /// Times and their seal, for [`TIMES`].
    pub fn times(&self, key: KeyRef<'_>, times: &Times, base: &TimeBase) -> [u8; 40] {
        let mut out = [0; 40];
        let millis = |moment: Option<Moment>| moment.map_or(NEVER, |moment| base.millis(moment));
        out[..8].copy_from_slice(&base.millis(times.written).to_be_bytes());
        out[8..16].copy_from_slice(&millis(times.fresh_until).to_be_bytes());
        out[16..24].copy_from_slice(&millis(times.expires).to_be_bytes());
        let seal = self.times_seal(key, &out[..24]);
        out[24..].copy_from_slice(&seal);
        out
    }

    /// A marker as bytes.
    pub fn encode_marker(
        &self,
        token: Token,
        pass: bool,
        expires: Moment,
        base: &TimeBase,
    ) -> Bytes {
        let mut out = BytesMut::with_capacity(MARKER);
        out.put_slice(MAGIC);
        out.put_u8(if pass { KIND_PASS } else { KIND_FILL });
        out.put_bytes(0, 2);
        out.put_slice(&token.to_bytes());
        out.put_u64(base.millis(expires));
        out.put_u32(crc32fast::hash(&out));
        out.freeze()
    }

    /// Bytes as a record of that key. Head, body and live parts are slices of `bytes`.
    ///
    /// # Errors
    ///
    /// [`Damage`] for everything that is not a whole, unharmed record of that key.
    pub fn decode(&self, bytes: Bytes, key: KeyRef<'_>, base: &TimeBase) -> Result<Record, Damage> {
        match kind(&bytes)? {
            KIND_FILL => marker(&bytes).map(Record::Fill),
            KIND_PASS => marker(&bytes).map(Record::Pass),
            KIND_ENTRY => self.entry(bytes, key, base).map(Record::Entry),
            _ => Err(Damage::Malformed),
        }
    }

    fn entry(&self, bytes: Bytes, key: KeyRef<'_>, base: &TimeBase) -> Result<Entry, Damage> {
        let fixed = bytes.first_chunk::<PREFIX>().ok_or(Damage::Length)?;
        let flagged = fixed[6] & FLAG_MAC != 0;
        if flagged != self.mac.is_some() || fixed[6] & !FLAG_MAC != 0 {
            return Err(Damage::Checksum);
        }
        let lengths = [72, 76, 80].map(|at| u32_at(fixed, at) as usize);
        let body = usize::try_from(u64_at(fixed, 84)).map_err(|_| Damage::Length)?;
        let plus = |sum: usize, length: usize| sum.checked_add(length).ok_or(Damage::Length);
        let key_end = plus(PREFIX, lengths[0])?;
        let tags_end = plus(key_end, lengths[1])?;
        let head_end = plus(tags_end, lengths[2])?;
        let body_end = plus(head_end, body)?;
        let end = plus(body_end, if flagged { MAC } else { 0 })?;
        if end != bytes.len() {
            return Err(Damage::Length);
        }
        if head_sum(&bytes[..head_end]) != u32_at(fixed, 92) {
            return Err(Damage::Checksum);
        }
        if &bytes[PREFIX..key_end] != key.as_bytes() {
            return Err(Damage::WrongKey);
        }
        if fixed[32..48] != self.times_seal(key, &fixed[8..32]) {
            return Err(Damage::Checksum);
        }
        if self.verify_body && crc32fast::hash(&bytes[head_end..body_end]) != u32_at(fixed, 96) {
            return Err(Damage::Checksum);
        }
        if let Some(mac) = &self.mac {
            // Constant time: BLAKE3's hashes compare so.
            let stored: [u8; MAC] = bytes[body_end..].try_into().map_err(|_| Damage::Length)?;
            if blake3::Hash::from_bytes(data_mac(mac, &bytes[..body_end]))
                != blake3::Hash::from_bytes(stored)
            {
                return Err(Damage::Checksum);
            }
        }

        let moment = |at: usize| match u64_at(fixed, at) {
            NEVER => None,
            millis => Some(base.moment(millis)),
        };
        let times = Times {
            written: base.moment(u64_at(fixed, 8)),
            fresh_until: moment(16),
            expires: moment(24),
        };
        let encoded = Encoded {
            codec: fixed[7],
            head: bytes.slice(tags_end..head_end),
            body: bytes.slice(head_end..body_end),
        };
        let payload = match encoded.codec {
            INTEGER => {
                let value = encoded.body[..].try_into().map_err(|_| Damage::Malformed)?;
                Payload::Integer(i64::from_be_bytes(value))
            }
            _ => Payload::Wire(encoded),
        };
        let revision: [u8; 16] = fixed[48..64].try_into().map_err(|_| Damage::Length)?;
        let revision = Revision::from_bytes(revision);
        let built_at = Sequence::from_i64(u64_at(fixed, 64).cast_signed());
        let built_at = built_at.unwrap_or(Sequence::NONE);
        let tags = tags(&bytes[key_end..tags_end])?;
        Ok(Entry::stored(payload, tags, built_at, revision, times))
    }

    // The key is sealed with the times, so that one entry's lifetime cannot be given to another.
    fn times_seal(&self, key: KeyRef<'_>, times: &[u8]) -> [u8; 16] {
        let mut seal = [0; 16];
        match &self.mac {
            Some(mac) => {
                let mut hasher = blake3::Hasher::new_keyed(mac);
                hasher.update(b"times").update(times).update(key.as_bytes());
                seal.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            }
            None => {
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(times);
                hasher.update(key.as_bytes());
                seal[..4].copy_from_slice(&hasher.finalize().to_be_bytes());
            }
        }
        seal
    }
}

/// What a key's record begins to tell: the key that it repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// The whole key. It is not verified further than that its namespace is valid.
    Whole(Key),
    /// So many bytes from the start are needed.
    Needs(usize),
}

/// The key that an entry's record repeats, from the record's first bytes: for paging.
///
/// # Errors
///
/// [`Damage`] when it is no entry of this format.
pub fn key_of(start: &[u8]) -> Result<KeyOf, Damage> {
    if kind(start)? != KIND_ENTRY {
        return Err(Damage::Foreign);
    }
    let Some(fixed) = start.first_chunk::<PREFIX>() else { return Ok(KeyOf::Needs(PREFIX)) };
    let length = u32_at(fixed, 72) as usize;
    if length > Key::MAX_BYTES {
        return Err(Damage::Length);
    }
    let Some(bytes) = start.get(PREFIX..PREFIX + length) else {
        return Ok(KeyOf::Needs(PREFIX + length));
    };
    Key::from_framed(bytes).map(KeyOf::Whole).ok_or(Damage::Malformed)
}

fn kind(bytes: &[u8]) -> Result<u8, Damage> {
    match bytes {
        [b'L', b'R', b'D', b'R', VERSION, kind, ..] => Ok(*kind),
        [b'L', b'R', b'D', b'R', version, ..] if *version != VERSION => {
            Err(Damage::Version(*version))
        }
        _ => Err(Damage::Foreign),
    }
}

fn marker(bytes: &[u8]) -> Result<Token, Damage> {
    let fixed: &[u8; MARKER] = bytes.try_into().map_err(|_| Damage::Length)?;
    if crc32fast::hash(&fixed[..32]) != u32_at(fixed, 32) {
        return Err(Damage::Checksum);
    }
    let token: [u8; 16] = fixed[8..24].try_into().map_err(|_| Damage::Length)?;
    Ok(Token::from_bytes(token))
}

fn tags(mut block: &[u8]) -> Result<Arc<[Tag]>, Damage> {
    // None is the usual number, and that slice is there already.
    if block.is_empty() {
        return Ok(Arc::default());
    }
    let mut tags = Vec::new();
    while let Some((length, rest)) = block.split_first_chunk::<2>() {
        let (tag, rest) =
            rest.split_at_checked(u16::from_be_bytes(*length) as usize).ok_or(Damage::Malformed)?;
        let tag = std::str::from_utf8(tag).map_err(|_| Damage::Malformed)?;
        tags.push(Tag::written(tag).map_err(|_| Damage::Malformed)?);
        if tags.len() > MAX_TAGS {
            return Err(Damage::Malformed);
        }
        block = rest;
    }
    if block.is_empty() { Ok(tags.into()) } else { Err(Damage::Malformed) }
}

// Everything up to the body except the times (they change) and the checksums themselves.
fn head_sum(to_body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&to_body[..8]);
    hasher.update(&to_body[48..92]);
    hasher.update(&to_body[PREFIX..]);
    hasher.finalize()
}

fn data_mac(key: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"data").update(&record[..8]).update(&record[48..]);
    *hasher.finalize().as_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Key {
    /// A key from its framed bytes, if they are well framed.
    pub fn from_framed(bytes: &[u8]) -> Option<Key> {
        let (length, rest) = bytes.split_first()?;
        let (name, mut parts) = rest.split_at_checked(*length as usize)?;
        Namespace::new(std::str::from_utf8(name).ok()?).ok()?;
        while let Some((kind, rest)) = parts.split_first() {
            parts = match kind {
                0 => rest,
                1 => {
                    let (length, rest) = rest.split_first_chunk::<4>()?;
                    rest.get(u32::from_be_bytes(*length) as usize..)?
                }
                _ => return None,
            };
        }
        (bytes.len() <= Key::MAX_BYTES).then(|| Key::copied(bytes))
    }
}

/// A plain counter's text as its number, if it is one: what Larder writes and the server adds to.
pub fn counter(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() || bytes.len() > 20 {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let value: i64 = text.parse().ok()?;
    // Canonical only: "+5" and "007" were written by somebody else.
    (value.to_string() == text).then_some(value)
}

/// What a payload needs to be on a server that counts: the plain text of an untagged integer.
pub fn plain_counter(entry: &Entry) -> Option<Bytes> {
    match entry.payload() {
        Payload::Integer(_) => entry.as_counter().map(|value| value.to_string().into()),
        _ => None,
    }
}
