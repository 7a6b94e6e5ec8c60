//! How values are packed.

use larder_core::Result;

#[cfg(feature = "encryption")]
use super::Keys;
#[cfg(any(feature = "zstd", feature = "lz4"))]
use super::squeeze::{Ceiling, Compression};
use super::wrong;

/// How a [`Packed`](super::Packed) store packs values.
#[derive(Clone, Debug)]
// Without compression nobody asks for its limits.
#[cfg_attr(not(any(feature = "zstd", feature = "lz4")), allow(dead_code))]
#[must_use]
pub struct Packing {
    #[cfg(any(feature = "zstd", feature = "lz4"))]
    pub(super) compression: Option<Compression>,
    #[cfg(feature = "encryption")]
    pub(super) seal: Option<(Seal, Keys)>,
    pub(super) above: usize,
    pub(super) max_unpacked: usize,
    pub(super) max_ratio: usize,
}

#[cfg(feature = "encryption")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    Signed,
    Encrypted,
}

impl Default for Packing {
    fn default() -> Self {
        Packing {
            #[cfg(any(feature = "zstd", feature = "lz4"))]
            compression: None,
            #[cfg(feature = "encryption")]
            seal: None,
            above: 1024,
            max_unpacked: 64 << 20,
            max_ratio: 256,
        }
    }
}

impl Packing {
    /// Nothing is done until one of the following says what.
    pub fn new() -> Self {
        Packing::default()
    }

    /// Compresses values. What was compressed in another way is still read, if this build can.
    #[cfg(any(feature = "zstd", feature = "lz4"))]
    pub fn compress(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Compresses only what has more bytes than this. 1 KiB unless set: less is hardly worth the work. A value that would
    /// not become smaller stays as it is.
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.above = bytes;
        self
    }

    /// How large a compressed value may become when it is read, in bytes; larger ones are not stored. 64 MiB unless set.
    pub fn max_unpacked(mut self, bytes: usize) -> Self {
        self.max_unpacked = bytes;
        self
    }

    /// How many times larger than what was read a value may become. 256 unless set; what would is stored as it is.
    pub fn max_ratio(mut self, ratio: usize) -> Self {
        self.max_ratio = ratio;
        self
    }

    /// Signs values (keyed BLAKE3), and reads none that are not: who can write to the store can read them and not change
    /// them.
    #[cfg(feature = "encryption")]
    pub fn sign(mut self, keys: Keys) -> Self {
        self.seal = Some((Seal::Signed, keys));
        self
    }

    /// Encrypts values (XChaCha20-Poly1305 with random nonces), and reads none that are not: who can write to the store
    /// can neither read nor change them. How long they are can be seen; where that tells a secret that stands beside what
    /// somebody else may choose, do not compress too.
    #[cfg(feature = "encryption")]
    pub fn encrypt(mut self, keys: Keys) -> Self {
        self.seal = Some((Seal::Encrypted, keys));
        self
    }

    #[cfg(any(feature = "zstd", feature = "lz4"))]
    pub(super) fn compresses(&self) -> bool {
        self.compression.is_some()
    }

    #[cfg(not(any(feature = "zstd", feature = "lz4")))]
    pub(super) fn compresses(&self) -> bool {
        false
    }

    #[cfg(feature = "encryption")]
    fn seals(&self) -> bool {
        self.seal.is_some()
    }

    #[cfg(not(feature = "encryption"))]
    fn seals(&self) -> bool {
        false
    }

    pub(super) fn check(&self) -> Result<()> {
        if !self.compresses() && !self.seals() {
            return Err(wrong("say how values are packed: compress, sign or encrypt"));
        }
        if self.max_unpacked == 0 || self.max_ratio == 0 {
            return Err(wrong(
                "max_unpacked and max_ratio must be at least 1, or nothing could be read",
            ));
        }
        Ok(())
    }

    #[cfg(any(feature = "zstd", feature = "lz4"))]
    pub(super) fn ceiling(&self) -> Ceiling {
        Ceiling { bytes: self.max_unpacked, ratio: self.max_ratio }
    }
}
