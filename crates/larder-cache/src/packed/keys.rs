//! The keys that seal what is stored.

use std::fmt;

use blake3::Hash;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use larder_core::{Error, ErrorKind, Result};

/// The keys that seal what is stored: the first one seals and opens, the others open what was sealed with them before.
///
/// To change the key, let all nodes accept the new one, then put it first; the old one can go when what it sealed has
/// ended. Keys come from outside of the program; `openssl rand -hex 32` makes one.
///
/// ```
/// use larder_cache::Keys;
///
/// let (new, old) = ("5f".repeat(16) + &"a0".repeat(16), "c3".repeat(16) + &"11".repeat(16));
/// let keys = Keys::from_hex(&format!("{new}, {old}"))?;
/// # let _ = keys;
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Keys(Vec<Derived>);

// Neither printed nor compared.
#[derive(Clone)]
struct Derived {
    name: [u8; NAME],
    sign: [u8; 32],
    encrypt: [u8; 32],
}

pub(super) const NAME: usize = 4;
pub(super) const MAC: usize = 32;
pub(super) const NONCE: usize = 24;

// What a key is used for is part of how it is derived, so that none is used for two things.
const NAMES: &str = "larder 2026-11-21 stored values: name of a key";
const SIGN: &str = "larder 2026-11-21 stored values: sign";
const ENCRYPT: &str = "larder 2026-11-21 stored values: encrypt";

impl Keys {
    /// Seals, and opens, with that key.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is one byte 32 times, which no random key is.
    pub fn new(key: &[u8; 32]) -> Result<Self> {
        Keys(Vec::new()).accept(key)
    }

    /// Opens what another key has sealed, as long as it is in the configuration.
    ///
    /// # Errors
    ///
    /// As [`new`](Keys::new), and when the key is there already.
    pub fn accept(mut self, key: &[u8; 32]) -> Result<Self> {
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(wrong(
                "a key is 32 random bytes, and not one byte 32 times: `openssl rand -hex 32` makes one",
            ));
        }
        let name = blake3::derive_key(NAMES, key);
        let derived = Derived {
            name: [name[0], name[1], name[2], name[3]],
            sign: blake3::derive_key(SIGN, key),
            encrypt: blake3::derive_key(ENCRYPT, key),
        };
        if self.0.iter().any(|other| other.name == derived.name) {
            return Err(wrong("a key is named twice: take the older one out"));
        }
        self.0.push(derived);
        Ok(self)
    }

    /// Keys of 64 hexadecimal digits each with commas between them, as an environment variable has them.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is none, or one that is none. The words do not repeat it.
    pub fn from_hex(text: &str) -> Result<Self> {
        let keys = text.split(',').try_fold(Keys(Vec::new()), |keys, one| {
            // Who reads keys from the environment does so once.
            let key: Option<[u8; 32]> = Hash::from_hex(one.trim()).ok().map(Into::into);
            keys.accept(&key.ok_or_else(|| {
                wrong("a key has 64 hexadecimal digits, with commas between several: `openssl rand -hex 32` makes one")
            })?)
        })?;
        Ok(keys)
    }

    fn first(&self) -> &Derived {
        // None is made without one.
        self.0.first().unwrap_or_else(|| unreachable!())
    }

    fn named(&self, name: [u8; NAME]) -> Option<&Derived> {
        self.0.iter().find(|key| key.name == name)
    }

    /// The name of the key that seals.
    pub(super) fn name(&self) -> [u8; NAME] {
        self.first().name
    }

    pub(super) fn sign(&self, parts: &[&[u8]]) -> [u8; MAC] {
        *mac(&self.first().sign, parts).as_bytes()
    }

    pub(super) fn verify(&self, name: [u8; NAME], parts: &[&[u8]], stored: [u8; MAC]) -> bool {
        // In constant time, which is what comparing `blake3::Hash` takes.
        self.named(name).is_some_and(|key| mac(&key.sign, parts) == Hash::from_bytes(stored))
    }

    pub(super) fn encrypt(&self, nonce: [u8; NONCE], bound: &[u8], text: &[u8]) -> Result<Vec<u8>> {
        let payload = Payload { msg: text, aad: bound };
        let cipher = XChaCha20Poly1305::new(&self.first().encrypt.into());
        let too_large =
            |_| Error::new(ErrorKind::TooLarge, "the value is too large to be encrypted");
        cipher.encrypt(&XNonce::from(nonce), payload).map_err(too_large)
    }

    pub(super) fn decrypt(
        &self,
        name: [u8; NAME],
        nonce: [u8; NONCE],
        bound: &[u8],
        hidden: &[u8],
    ) -> Option<Vec<u8>> {
        let payload = Payload { msg: hidden, aad: bound };
        let cipher = XChaCha20Poly1305::new(&self.named(name)?.encrypt.into());
        cipher.decrypt(&XNonce::from(nonce), payload).ok()
    }
}

// Each with its length, so that no two lists of parts are the same bytes.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    hasher.finalize()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words)
}
