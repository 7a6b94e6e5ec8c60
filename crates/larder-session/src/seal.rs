//! Sessions that live in their cookie: keys, and what is sealed with them.
//!
//! A sealed session, format version 1, in unpadded base64url: version, mode (1 signed, 2 encrypted), four bytes that
//! name the key, the end (milliseconds of Unix time); then, encrypted, a nonce of 24 bytes and the ciphertext with its
//! tag, or, signed, the content and 32 bytes of its MAC. The cookie's name and everything before the content are
//! authenticated with it. The content: the id (32 bytes), when it was last kept alive, the epoch (4 bytes), and the
//! session's record as [`record`](crate::record) writes it. All big-endian.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{Buf, BufMut, Bytes};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use larder_cache::{Cache, Store};
use larder_core::{Clock, Encoded, Live};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::Id;
use crate::record::{Alive, CODEC, HEAD, Record};

/// The keys that seal sessions in cookies: one that seals, and older ones that still open.
///
/// To change the key, put the new one first and let the old one open for a while: sessions that are used in that time
/// are sealed anew. Keys come from outside of the program; `openssl rand -hex 32` makes one.
///
/// ```
/// use larder_session::KeyRing;
/// use std::time::{Duration, SystemTime};
///
/// # let (new, old) = ([7; 32], [8; 32]);
/// let two_weeks = Duration::from_secs(14 * 24 * 3600);
/// let ring = KeyRing::new(&new).accept_until(&old, SystemTime::now() + two_weeks);
/// # let _ = ring;
/// ```
#[derive(Clone)]
#[must_use]
pub struct KeyRing(Vec<(Key, Option<SystemTime>)>);

// Neither printed nor compared.
type Key = [u8; 32];

impl KeyRing {
    /// Seals, and opens, with that key.
    pub fn new(key: &[u8; 32]) -> Self {
        KeyRing(vec![(*key, None)])
    }

    /// Opens what an older key has sealed, as long as it is in the configuration.
    pub fn accept(mut self, key: &[u8; 32]) -> Self {
        self.0.push((*key, None));
        self
    }

    /// Opens what an older key has sealed, until then.
    pub fn accept_until(mut self, key: &[u8; 32], end: SystemTime) -> Self {
        self.0.push((*key, Some(end)));
        self
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

/// How sessions are kept in their cookie; for [`SessionLayer::in_cookie`](crate::SessionLayer::in_cookie).
///
/// No store is asked, so what a store gives is missing: two requests at once overwrite each other, and who has copied a
/// cookie can bring it back until it ends, also after a sign-out. [`epoch`](Sealed::epoch) ends all sessions at once,
/// and [`revocable`](Sealed::revocable) lets each user's be ended. A cookie holds 4096 bytes with its name; what does not
/// fit is [`TooLarge`](ErrorKind::TooLarge).
#[derive(Clone)]
#[must_use]
pub struct Sealed {
    ring: KeyRing,
    mode: Mode,
    epoch: u32,
    pub(crate) users: Option<Store>,
    pub(crate) clock: Clock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Signed = 1,
    Encrypted = 2,
}

impl Sealed {
    /// The visitor can neither change nor read the session (XChaCha20-Poly1305).
    pub fn encrypted(ring: KeyRing) -> Self {
        Sealed { ring, mode: Mode::Encrypted, epoch: 0, users: None, clock: Clock::system() }
    }

    /// The visitor can read the session, and not change it (keyed BLAKE3).
    pub fn signed(ring: KeyRing) -> Self {
        Sealed { mode: Mode::Signed, ..Sealed::encrypted(ring) }
    }

    /// Refuses sessions of lower epochs than this one, which is 0 unless set: a larger number signs everybody out.
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = epoch;
        self
    }

    /// Keeps a list of each user's sessions in that cache's store, so that they can be ended before their time. Reading
    /// a session that was [signed in as a user](crate::Session::sign_in_as) takes one round trip then; others take none.
    /// A store that [another one stands in for](larder_core::Abilities::splits) is refused, as for sessions themselves.
    pub fn revocable(mut self, cache: &Cache) -> Self {
        self.users = Some(cache.store().clone());
        self.clock = cache.store().clock().clone();
        self
    }

    /// Tells the time, in tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let plain = |key: &Key| key.iter().all(|byte| *byte == key[0]);
        let double = |(at, (key, _)): (usize, &(Key, _))| {
            let names = |key: &Key| blake3::derive_key(KEY_IDS, key);
            self.ring.0[..at].iter().any(|(other, _)| names(other) == names(key))
        };
        if self.ring.0.iter().any(|(key, _)| plain(key)) {
            let words = "a key is 32 random bytes, and not one byte 32 times: `openssl rand -hex 32` makes one";
            return Err(Error::saying(ErrorKind::Configuration, words));
        }
        if let Some(words) = self.users.as_ref().and_then(crate::layer::unfit) {
            return Err(Error::saying(ErrorKind::Configuration, words));
        }
        if self.ring.0.iter().enumerate().any(double) {
            let words = "a key is in the ring twice: take the older one out";
            return Err(Error::saying(ErrorKind::Configuration, words));
        }
        Ok(())
    }

    pub(crate) fn seal(&self, cookie: &str) -> Seal {
        let context = match self.mode {
            Mode::Signed => "larder-session v1: cookies that are signed",
            Mode::Encrypted => "larder-session v1: cookies that are encrypted",
        };
        let derived = |(key, until): &(Key, Option<SystemTime>)| Derived {
            id: blake3::derive_key(KEY_IDS, key)[..4].try_into().unwrap_or_default(),
            key: blake3::derive_key(context, key),
            until: *until,
        };
        Seal {
            keys: self.ring.0.iter().map(derived).collect(),
            mode: self.mode,
            epoch: self.epoch,
            cookie: cookie.to_owned(),
        }
    }
}

const KEY_IDS: &str = "larder-session v1: names of keys";

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("ring", &self.ring)
            .field("mode", &self.mode)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Seals and opens the sessions of one cookie.
#[derive(Clone)]
pub(crate) struct Seal {
    keys: Vec<Derived>,
    mode: Mode,
    epoch: u32,
    cookie: String,
}

#[derive(Clone)]
struct Derived {
    id: [u8; 4],
    key: Key,
    until: Option<SystemTime>,
}

/// What was in a cookie.
pub(crate) struct Opened {
    pub(crate) id: Id,
    pub(crate) alive: Arc<Alive>,
    /// Milliseconds of Unix time.
    pub(crate) kept: i64,
    /// It was sealed with an older key.
    pub(crate) old: bool,
}

const VERSION: u8 = 1;
const START: usize = 1 + 1 + 4 + 8;
const NONCE: usize = 24;
const MAC: usize = 32;

impl Seal {
    /// The cookie's value, which opens until `ends`. Both times are milliseconds of Unix time.
    pub(crate) fn close(
        &self,
        id: &Id,
        alive: &Arc<Alive>,
        kept: i64,
        ends: i64,
    ) -> Result<String> {
        let record = Record::Alive(alive.clone()).encode()?;
        let mut content = Vec::with_capacity(64 + HEAD + record.body.len());
        content.put_slice(id.bytes());
        content.put_i64(kept);
        content.put_u32(self.epoch);
        content.put_slice(&record.head);
        content.put_slice(&record.body);
        let first = &self.keys[0];
        let mut sealed = vec![VERSION, self.mode as u8];
        sealed.put_slice(&first.id);
        sealed.put_i64(ends);
        let bound = self.bound(&sealed);
        match self.mode {
            Mode::Signed => {
                let mac = first.mac(&bound, &content);
                sealed.put_slice(&content);
                sealed.put_slice(mac.as_bytes());
            }
            Mode::Encrypted => {
                let nonce = random()?;
                let payload = Payload { msg: &content, aad: &bound };
                let hidden = first.cipher().encrypt(&XNonce::from(nonce), payload);
                // Only fails for contents of many gigabytes.
                let hidden = hidden.map_err(|_| Error::new(ErrorKind::TooLarge))?;
                sealed.put_slice(&nonce);
                sealed.put_slice(&hidden);
            }
        }
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    pub(crate) fn open(&self, text: &[u8], now: SystemTime) -> Result<Opened, Event> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Event::Malformed)?;
        if sealed.len() < START || sealed[0] != VERSION || sealed[1] != self.mode as u8 {
            return Err(Event::Malformed);
        }
        let (start, rest) = sealed.split_at(START);
        let bound = self.bound(start);
        let opens = |key: &&Derived| key.id == start[2..6] && key.until.is_none_or(|end| now < end);
        let key = self.keys.iter().position(|key| opens(&key)).ok_or(Event::Forged)?;
        let content = match self.mode {
            Mode::Signed => self.keys[key].verified(&bound, rest),
            Mode::Encrypted => self.keys[key].decrypted(&bound, rest),
        };
        let content = content.ok_or(Event::Forged)?;
        let ends = (&start[6..]).get_i64();
        if millis(now) >= ends {
            return Err(Event::Expired);
        }
        // Only who has a key can have written what follows.
        self.read(content, key > 0)
    }

    fn read(&self, mut content: Bytes, old: bool) -> Result<Opened, Event> {
        if content.len() < 32 + 8 + 4 + HEAD {
            return Err(Event::Undecodable);
        }
        let mut id = [0; 32];
        content.copy_to_slice(&mut id);
        let (kept, epoch) = (content.get_i64(), content.get_u32());
        if epoch < self.epoch {
            return Err(Event::Revoked);
        }
        let encoded = Encoded { codec: CODEC, head: content.split_to(HEAD), body: content };
        match Record::decode(&encoded) {
            Some(Record::Alive(alive)) => Ok(Opened { id: Id::from_bytes(id), alive, kept, old }),
            _ => Err(Event::Undecodable),
        }
    }

    // What is authenticated besides the content: framed, so that no two contexts are the same bytes.
    fn bound(&self, start: &[u8]) -> Vec<u8> {
        let mut bound = Vec::with_capacity(4 + self.cookie.len() + start.len());
        bound.put_u32(self.cookie.len() as u32);
        bound.put_slice(self.cookie.as_bytes());
        bound.put_slice(start);
        bound
    }
}

impl Derived {
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.into())
    }

    fn mac(&self, bound: &[u8], content: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(bound).update(content);
        hasher.finalize()
    }

    // In constant time, which is what comparing `blake3::Hash` takes.
    fn verified(&self, bound: &[u8], rest: &[u8]) -> Option<Bytes> {
        let (content, mac) = rest.split_at_checked(rest.len().checked_sub(MAC)?)?;
        let mac = blake3::Hash::from_bytes(mac.try_into().ok()?);
        (self.mac(bound, content) == mac).then(|| Bytes::copy_from_slice(content))
    }

    fn decrypted(&self, bound: &[u8], rest: &[u8]) -> Option<Bytes> {
        let (nonce, hidden) = rest.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let payload = Payload { msg: hidden, aad: bound };
        self.cipher().decrypt(&XNonce::from(nonce), payload).ok().map(Bytes::from)
    }
}

fn random() -> Result<[u8; NONCE]> {
    let mut bytes = [0; NONCE];
    crate::id::fill(&mut bytes)?;
    Ok(bytes)
}

/// Milliseconds of Unix time.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Entropy;
    use crate::record::Values;
    use proptest::prelude::*;
    use std::time::Duration;

    fn ring() -> KeyRing {
        KeyRing::new(&std::array::from_fn(|at| at as u8))
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn sealed(seal: &Seal, user: u32) -> String {
        let values = Values::from([("user".into(), user.to_string().into())]);
        let values = Arc::new(values);
        let alive = Arc::new(Alive { began: 0, expiry: None, user: None, values });
        let id = Entropy::default().id().unwrap();
        seal.close(&id, &alive, 0, millis(now()) + 1000).unwrap()
    }

    /// The very value that was changed, and everything that decodes to the same bytes in a laxer way.
    fn every_change_is_refused(make: fn(KeyRing) -> Sealed) {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let cookies = std::env::var("LARDER_COOKIES").ok().and_then(|many| many.parse().ok());
        let seal = make(ring()).seal("__Host-id");
        for user in 0..cookies.unwrap_or(100) {
            let text = sealed(&seal, user);
            assert!(seal.open(text.as_bytes(), now()).is_ok());
            let mut changed = text.clone().into_bytes();
            for at in 0..changed.len() {
                let was = changed[at];
                for bit in 0..8 {
                    changed[at] = was ^ (1 << bit);
                    assert!(seal.open(&changed, now()).is_err(), "byte {at}, bit {bit}");
                }
                changed[at] = was;
                assert!(seal.open(&changed[..at], now()).is_err(), "cut at {at}");
            }
            let last = ALPHABET.iter().filter(|last| **last != text.as_bytes()[text.len() - 1]);
            for last in last {
                // Among them those whose unused bits differ.
                *changed.last_mut().unwrap() = *last;
                assert!(seal.open(&changed, now()).is_err());
            }
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
            let others = [
                format!("{text}="),
                format!("{text}=="),
                format!("{text}A"),
                format!("{text}\n"),
                format!(" {text}"),
                format!("{text}."),
                base64::prelude::BASE64_STANDARD.encode(&bytes) + "=",
                text.replace('A', "%41") + "%",
            ];
            for other in others {
                assert!(seal.open(other.as_bytes(), now()).is_err(), "{other}");
            }
        }
    }

    #[test]
    fn s12_and_c114_every_bit_flip_truncation_and_other_encoding_of_encrypted_cookies_is_refused() {
        every_change_is_refused(Sealed::encrypted);
    }

    #[test]
    fn s12_and_c114_every_bit_flip_truncation_and_other_encoding_of_signed_cookies_is_refused() {
        every_change_is_refused(Sealed::signed);
    }

    #[test]
    fn s13_and_c114_contexts_are_not_confused_by_moving_their_borders() {
        for make in [Sealed::encrypted, Sealed::signed] {
            let text = sealed(&make(ring()).seal("ab"), 7);
            for other in ["a", "abc", "b", "", "AB", "ab\0"] {
                assert!(make(ring()).seal(other).open(text.as_bytes(), now()).is_err());
            }
        }
        // The first byte of what is hidden cannot become the last of what is told.
        let (signed, encrypted) =
            (Sealed::signed(ring()).seal("a"), Sealed::encrypted(ring()).seal("a"));
        for (from, to, mode) in [(&signed, &encrypted, 2), (&encrypted, &signed, 1)] {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed(from, 7)).unwrap();
            bytes[1] = mode;
            let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            assert!(to.open(text.as_bytes(), now()).is_err());
        }
    }

    #[test]
    fn s07_the_end_is_told_to_the_millisecond_and_bound() {
        let seal = Sealed::encrypted(ring()).seal("a");
        let text = sealed(&seal, 7);
        let at = |millis| seal.open(text.as_bytes(), now() + Duration::from_millis(millis));
        assert!(at(999).is_ok());
        assert_eq!(at(1000).err(), Some(Event::Expired));
    }

    #[test]
    fn nonces_never_repeat() {
        let seal = Sealed::encrypted(ring()).seal("a");
        let nonces = (0..1000).map(|_| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed(&seal, 7)).unwrap();
            bytes[START..START + NONCE].to_vec()
        });
        assert_eq!(nonces.collect::<std::collections::HashSet<_>>().len(), 1000);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            mode in 1..3_u8,
        ) {
            let make = if mode == 1 { Sealed::signed } else { Sealed::encrypted };
            let seal = make(ring()).seal("a");
            prop_assert!(seal.open(&bytes, now()).is_err());
            let mut begun = vec![VERSION, mode];
            begun.extend_from_slice(&seal.keys[0].id);
            begun.extend_from_slice(&bytes);
            let text = BASE64_URL_SAFE_NO_PAD.encode(begun);
            prop_assert!(seal.open(text.as_bytes(), now()).is_err());
        }

        #[test]
        fn content_of_whoever_has_the_key_is_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = Sealed::encrypted(ring()).seal("a").read(bytes.into(), false);
        }
    }
}
