//! The meta protocol: requests as bytes, bytes as replies.
//!
//! A [`Request`] is one or more commands that travel together. Every command carries the request's number as its
//! opaque, and the server repeats it: a reply with another number than the one that is due ends the connection.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// Commands that travel together.
pub(crate) struct Request {
    pub(crate) id: u32,
    pub(crate) bytes: BytesMut,
    pub(crate) count: usize,
    pub(crate) writes: bool,
}

/// The replies to a request, one for each command.
pub(crate) type Replies = SmallVec<[Reply; 1]>;

/// What the server says to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The item, and what of it was asked for.
    Item(Item),
    /// There is none (`EN`, `NF`).
    Missing,
    /// It was not stored, because there is one already (`NS`).
    NotStored,
    /// It is another one by now (`EX`).
    Changed,
    /// An error.
    Refused(Refusal),
}

/// What a reply tells of an item; what was not asked for is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) data: Bytes,
    /// Names this very writing of the item among all of its server's life.
    pub(crate) cas: u64,
    /// Which of our kinds it is; anybody else's item has any.
    pub(crate) flags: u32,
    /// The seconds that it still has; `None` for ever.
    pub(crate) left: Option<u64>,
}

/// Errors after which the connection is still in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Larger than the server takes; what was there is gone.
    TooLarge,
    /// No memory for it; what was there is gone.
    Full,
    /// `ma` found no number.
    NotNumeric,
    /// Another error of the server's.
    Other,
}

/// Bytes that are no reply to what was asked: nothing that follows can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surprise;

/// What of an item is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Want {
    /// The value.
    Value,
    /// The value, and what is needed to change it.
    Whole,
    /// All but the value.
    Outline,
    /// The value; the item lives for so long from now.
    Kept(u32),
    /// As `Kept`, with what is needed to change it; an empty item is made where there is none.
    Made(u32),
    /// How long it still lives.
    Left,
}

/// On what condition a value is stored.
#[derive(Clone, Copy)]
pub(crate) enum Only {
    Always,
    /// There is no item.
    Absent,
    /// It is still that writing of it.
    Cas(u64),
}

impl Request {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Request { id, bytes: BytesMut::with_capacity(256), count: 0, writes: false }
    }

    /// Reads an item.
    pub(crate) fn get(&mut self, name: &str, want: Want) {
        // What is read to be changed is read where it is changed: after what was sent before.
        self.writes |= !matches!(want, Want::Value);
        match want {
            Want::Value => self.command("mg", name, &[Word(" v")]),
            Want::Whole => self.command("mg", name, &[Word(" v c f t")]),
            Want::Outline => self.command("mg", name, &[Word(" c f t")]),
            Want::Kept(life) => {
                self.command("mg", name, &[Word(" v c T"), Number(life.into())]);
            }
            Want::Made(life) => {
                let life = Number(life.into());
                self.command("mg", name, &[Word(" v c N"), life, Word(" T"), life]);
            }
            Want::Left => self.command("mg", name, &[Word(" t")]),
        }
    }

    /// Stores one.
    pub(crate) fn set(&mut self, name: &str, flags: u32, data: &[u8], life: u32, only: Only) {
        self.writes = true;
        let length = data.len();
        let [size, life, flags] = [length as u64, life.into(), flags.into()].map(Number);
        let (word, number) = match only {
            Only::Always => (Word(""), Word("")),
            Only::Absent => (Word(" ME"), Word("")),
            Only::Cas(cas) => (Word(" C"), Number(cas)),
        };
        let rest = [Word(" "), size, Word(" T"), life, Word(" F"), flags, word, number];
        self.command("ms", name, &rest);
        self.bytes.reserve(length + 2);
        self.bytes.put_slice(data);
        self.bytes.put_slice(b"\r\n");
    }

    /// Removes one, if it is still that writing of it.
    pub(crate) fn delete(&mut self, name: &str, cas: Option<u64>) {
        self.writes = true;
        match cas {
            Some(cas) => self.command("md", name, &[Word(" C"), Number(cas)]),
            None => self.command("md", name, &[]),
        }
    }

    /// Adds one to a number, which lives for so long from now, and gives it.
    pub(crate) fn next(&mut self, name: &str, life: u32) {
        self.writes = true;
        self.command("ma", name, &[Word(" D1 v T"), Number(life.into())]);
    }

    // Batches are hundreds of these: put together here, they take a fraction of what formatting takes.
    fn command(&mut self, command: &str, name: &str, rest: &[Piece]) {
        debug_assert!(name.len() <= 250 && name.bytes().all(|c| c.is_ascii_graphic()));
        let out = &mut self.bytes;
        out.reserve(name.len() + 64);
        out.put_slice(command.as_bytes());
        out.put_u8(b' ');
        out.put_slice(name.as_bytes());
        for piece in rest.iter().chain(&[Word(" O"), Number(self.id.into()), Word("\r\n")]) {
            match piece {
                Word(word) => out.put_slice(word.as_bytes()),
                Number(number) => put_number(out, *number),
            }
        }
        self.count += 1;
    }
}

// What a command's line is made of.
#[derive(Clone, Copy)]
enum Piece {
    Word(&'static str),
    Number(u64),
}

use Piece::{Number, Word};

fn put_number(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Takes the next reply off the buffer, with the number that it repeats; errors repeat none. `None` when it has not
/// come to its end.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<(Option<u32>, Reply)>, Surprise> {
    let Some(end) = memchr::memchr(b'\n', &buffer[..buffer.len().min(LONGEST_LINE)]) else {
        return if buffer.len() >= LONGEST_LINE { Err(Surprise) } else { Ok(None) };
    };
    let line = buffer[..end].strip_suffix(b"\r").ok_or(Surprise)?;
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let reply = match words.next().ok_or(Surprise)? {
        b"VA" => {
            let size: usize = number(words.next().unwrap_or_default())?;
            if size > LARGEST {
                return Err(Surprise);
            }
            let (id, mut item) = described(words)?;
            let whole = end + 1 + size + 2;
            if buffer.len() < whole {
                // No more than a little on the word of a length.
                buffer.reserve((whole - buffer.len()).min(RESERVED));
                return Ok(None);
            }
            buffer.advance(end + 1);
            item.data = if size <= COPIED {
                let data = Bytes::copy_from_slice(&buffer[..size]);
                buffer.advance(size);
                data
            } else {
                buffer.split_to(size).freeze()
            };
            if buffer[..2] != *b"\r\n" {
                return Err(Surprise);
            }
            buffer.advance(2);
            return Ok(Some((Some(id), Reply::Item(item))));
        }
        b"HD" => {
            let (id, item) = described(words)?;
            (Some(id), Reply::Item(item))
        }
        b"EN" | b"NF" => (Some(described(words)?.0), Reply::Missing),
        b"NS" => (Some(described(words)?.0), Reply::NotStored),
        b"EX" => (Some(described(words)?.0), Reply::Changed),
        code @ (b"CLIENT_ERROR" | b"SERVER_ERROR") => {
            let says = |words: &[u8]| line.windows(words.len()).any(|part| part == words);
            let refusal = match code {
                b"CLIENT_ERROR" if says(b"non-numeric") => Refusal::NotNumeric,
                b"CLIENT_ERROR" => return Err(Surprise),
                _ if says(b"too large") => Refusal::TooLarge,
                _ if says(b"out of memory") => Refusal::Full,
                _ => Refusal::Other,
            };
            (None, Reply::Refused(refusal))
        }
        _ => return Err(Surprise),
    };
    buffer.advance(end + 1);
    Ok(Some(reply))
}

// The words after a code: each begins with the letter that asked for it.
fn described<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<(u32, Item), Surprise> {
    let (mut id, mut item) = (None, Item::default());
    for word in words {
        let (letter, value) = word.split_first().ok_or(Surprise)?;
        match letter {
            b'O' => id = Some(number(value)?),
            b'c' => item.cas = number(value)?,
            b'f' => item.flags = number(value)?,
            b't' if value == b"-1" => item.left = None,
            b't' => item.left = Some(number(value)?),
            // Who is to fill what was made: `W`, `Z`, `X`. Our own records tell.
            b'W' | b'Z' | b'X' => {}
            _ => return Err(Surprise),
        }
    }
    Ok((id.ok_or(Surprise)?, item))
}

fn number<N: FromStr>(digits: &[u8]) -> Result<N, Surprise> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Surprise)
}

// The longest line has a dozen short words.
const LONGEST_LINE: usize = 1024;

// No server can be told to take larger items.
const LARGEST: usize = 1 << 30;

// What is made ready for a value that has not come yet.
const RESERVED: usize = 1 << 20;

// Small values are copied out, so that keeping one does not keep what was read along with it.
const COPIED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(Option<u32>, Reply)>, Surprise> {
        let mut buffer = BytesMut::from(bytes);
        let mut replies = Vec::new();
        while let Some(reply) = take(&mut buffer)? {
            replies.push(reply);
        }
        Ok(replies)
    }

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let bytes = b"VA 3 c7 f2 t-1 O1\r\na\n\r\r\nHD O2\r\nEN O3\r\nNS O4\r\nEX O5\r\nNF O6\r\n\
            SERVER_ERROR object too large for cache\r\nVA 0 t9 W O8\r\n\r\n";
        let item = Item { data: "a\n\r".into(), cas: 7, flags: 2, left: None };
        let expected = [
            (Some(1), Reply::Item(item)),
            (Some(2), Reply::Item(Item::default())),
            (Some(3), Reply::Missing),
            (Some(4), Reply::NotStored),
            (Some(5), Reply::Changed),
            (Some(6), Reply::Missing),
            (None, Reply::Refused(Refusal::TooLarge)),
            (Some(8), Reply::Item(Item { left: Some(9), ..Item::default() })),
        ];
        assert_eq!(all(bytes).unwrap(), expected);
        let mut buffer = BytesMut::new();
        let mut read = Vec::new();
        for byte in bytes {
            buffer.put_u8(*byte);
            read.extend(take(&mut buffer).unwrap());
        }
        assert_eq!(read, expected);
    }

    #[test]
    fn large_values_are_not_copied() {
        let mut bytes = BytesMut::from(&b"VA 5000 O1\r\n"[..]);
        bytes.put_bytes(7, 5000);
        bytes.put_slice(b"\r\n");
        let place = bytes[12..].as_ptr();
        let Some((_, Reply::Item(item))) = take(&mut bytes).unwrap() else { panic!() };
        assert_eq!((item.data.len(), item.data.as_ptr()), (5000, place));
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_a_surprise() {
        for bytes in [
            &b"HD\r\n"[..],
            b"HD O\r\n",
            b"HD O1 y\r\n",
            b"HD O99999999999\r\n",
            b"VA 3 O1\r\nabcd\r\n",
            b"VA -3 O1\r\n",
            b"VA 99999999999 O1\r\n",
            b"VALUE k 0 1\r\n",
            b"ERROR\r\n",
            b"CLIENT_ERROR bad data chunk\r\n",
            b"MN\r\n",
            b"HD O1\n",
            b"\xff\xff\r\n",
            b"\r\n",
            &[b'x'; 2000],
        ] {
            assert_eq!(all(bytes), Err(Surprise), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn requests_are_what_the_protocol_says() {
        let mut request = Request::new();
        let id = request.id;
        request.get("k", Want::Whole);
        request.set("k", 1, b"a\r\n", 9, Only::Cas(5));
        request.delete("k", Some(7));
        request.next("n", 3);
        request.get("k", Want::Made(0));
        request.set("k", 0, b"", u32::MAX, Only::Absent);
        request.delete("k", Some(u64::MAX));
        let expected = format!(
            "mg k v c f t O{id}\r\nms k 3 T9 F1 C5 O{id}\r\na\r\n\r\nmd k C7 O{id}\r\nma n D1 v T3 O{id}\r\n\
            mg k v c N0 T0 O{id}\r\nms k 0 T4294967295 F0 ME O{id}\r\n\r\nmd k C18446744073709551615 O{id}\r\n"
        );
        assert_eq!((request.bytes, request.count), (expected.as_str().into(), 7));
    }
}
