//! What a key is called where it leaves the process.

use std::fmt;

use crate::{KeyRef, Namespace, Prefix};

/// Which life of a namespace a wire name belongs to: 64 random bits.
///
/// `clear` gives a namespace a new one, and everything stored under an older one can no longer be reached. A lost
/// generation also comes back as a new random one, so nothing old returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Generation(u64);

impl Generation {
    /// A new random generation.
    pub fn random() -> Self {
        Generation(rand::random())
    }

    /// Reads what [`Display`](fmt::Display) wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical =
            text.len() == 16 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        canonical.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Generation)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({self})")
    }
}

// How much of a key's text is shown in its wire name.
const PLAIN: usize = 64;

impl KeyRef<'_> {
    /// The name under which a server keeps this key: `namespace:generation:<plain start>:<BLAKE3 of the key>`.
    ///
    /// Only `a`-`z`, `0`-`9`, `_`, `.`, `:` and `-`, at most 200 bytes, whatever the key holds. The plain start is the
    /// parts' text, lower-cased, other characters as `_`: for people and for [`Prefix`] scans. Different keys have
    /// different names by their hash; a read checks the whole key, which every entry repeats.
    ///
    /// ```
    /// use larder_core::{Generation, Key, Namespace};
    ///
    /// let key = Key::new(&Namespace::new("shop")?, ["d", "Product 42"])?;
    /// let name = key.as_ref().wire_name(Generation::parse("00000000000000ff").unwrap());
    /// assert!(name.starts_with("shop:00000000000000ff:d:product_42:"));
    /// # Ok::<(), larder_core::Error>(())
    /// ```
    pub fn wire_name(self, generation: Generation) -> String {
        self.named(head(self.namespace_bytes(), generation))
    }

    /// What a wire name has behind its generation, for stores that keep namespace and generation beside it: at most
    /// 129 bytes.
    ///
    /// ```
    /// use larder_core::{Generation, Key, Namespace};
    ///
    /// let key = Key::new(&Namespace::new("shop")?, ["d", "Product 42"])?;
    /// let generation = Generation::parse("00000000000000ff").unwrap();
    /// let name = format!("shop:{generation}:{}", key.as_ref().short_name());
    /// assert_eq!(name, key.as_ref().wire_name(generation));
    /// # Ok::<(), larder_core::Error>(())
    /// ```
    pub fn short_name(self) -> String {
        self.named(Vec::with_capacity(PLAIN + 65))
    }

    fn named(self, mut name: Vec<u8>) -> String {
        let end = name.len() + PLAIN;
        for (index, part) in self.parts().enumerate() {
            if index > 0 {
                push_plain(&mut name, end, b":");
            }
            push_plain(&mut name, end, part.unwrap_or(b"."));
        }
        name.push(b':');
        push_hex(&mut name, blake3::hash(self.as_bytes()).as_bytes());
        text(name)
    }
}

impl Prefix {
    /// What the wire names of matching keys start with in that generation. Others may start so too (the text is
    /// shortened and simplified): check each key found with [`Prefix::matches`].
    pub fn wire_start(&self, generation: Generation) -> String {
        self.named(head(self.namespace().as_str().as_bytes(), generation))
    }

    /// What [`KeyRef::short_name`] of matching keys starts with, as [`wire_start`](Prefix::wire_start) does.
    pub fn short_start(&self) -> String {
        self.named(Vec::new())
    }

    fn named(&self, mut name: Vec<u8>) -> String {
        let end = name.len() + PLAIN;
        let (parts, start) = self.pieces();
        for part in parts {
            push_plain(&mut name, end, part);
            push_plain(&mut name, end, b":");
        }
        push_plain(&mut name, end, start);
        text(name)
    }
}

impl Namespace {
    /// What the wire names of all its keys start with in that generation.
    pub fn wire_start(&self, generation: Generation) -> String {
        text(head(self.as_str().as_bytes(), generation))
    }
}

// Names are made for every operation on a server: as bytes, with the digits written here, they take half of what
// formatting takes.

fn head(namespace: &[u8], generation: Generation) -> Vec<u8> {
    let mut name = Vec::with_capacity(200);
    name.extend_from_slice(namespace);
    name.push(b':');
    push_hex(&mut name, &generation.0.to_be_bytes());
    name.push(b':');
    name
}

fn push_plain(name: &mut Vec<u8>, end: usize, bytes: &[u8]) {
    let start = name.len();
    name.extend_from_slice(&bytes[..bytes.len().min(end.saturating_sub(start))]);
    for byte in &mut name[start..] {
        *byte = SHOWN[usize::from(*byte)];
    }
}

fn push_hex<const N: usize>(name: &mut Vec<u8>, bytes: &[u8; N]) {
    // Written apart, where its length is known, and added at once.
    let mut digits = [[0; 2]; N];
    for (digits, byte) in digits.iter_mut().zip(bytes) {
        *digits = DIGITS[usize::from(*byte)];
    }
    name.extend_from_slice(digits.as_flattened());
}

// Two for each byte.
static DIGITS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

// What is shown for each byte.
static SHOWN: [u8; 256] = {
    let mut shown = [b'_'; 256];
    let mut byte = 0;
    while byte < 128 {
        if matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':') {
            shown[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    shown
};

fn text(name: Vec<u8>) -> String {
    String::from_utf8(name).expect("every byte is one of ASCII")
}
