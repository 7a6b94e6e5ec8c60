//! The variant selector: request values, normalised and framed. Documented in [`crate::vary`].

use http::HeaderValue;
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, GetAll, HeaderMap, HeaderName,
};

use crate::Policy;
use crate::cache_control::closing_quote;

/// Values longer than this make a selector [`Selected::Long`] (threat P22).
pub const LONG_VALUE: usize = 256;

/// Whether the selector is short enough to be kept as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selected {
    /// No value is longer than [`LONG_VALUE`].
    Short,
    /// Some value is; it was written whole. The caller hashes the selector or bypasses.
    Long,
}

const ABSENT: u8 = 0;
const MEMBERS: u8 = 1;
const MALFORMED: u8 = 2;
const CODINGS: u8 = 3;
const LANGUAGES: u8 = 4;
const LANGUAGE: u8 = 5;
const MEMBER: u8 = 1;
const END: u8 = 0;
/// More members of `Accept-Language` than this are not brought into order.
const MAX_SORTED: usize = 16;

/// Writes the selector of `headers` under `names`, as [`Vary::Names`](crate::Vary::Names) gives them.
/// Equal selectors under the same names mean equal selecting headers. Allocates nothing.
pub fn select(
    policy: &Policy,
    names: &[HeaderName],
    headers: &HeaderMap,
    out: &mut impl FnMut(&[u8]),
) -> Selected {
    select_as(policy, names, headers, None, out)
}

/// The same, with that one language in place of what `Accept-Language` says. Stored responses and requests whose
/// selectors by language are equal differ in that field alone.
pub fn select_by_language(
    policy: &Policy,
    names: &[HeaderName],
    headers: &HeaderMap,
    language: &[u8],
    out: &mut impl FnMut(&[u8]),
) -> Selected {
    select_as(policy, names, headers, Some(language), out)
}

/// The language that a request prefers to all others (RFC 9110 §12.5.4); `None` if there is no such one.
#[must_use]
pub fn preferred_language(headers: &HeaderMap) -> Option<&[u8]> {
    let mut best: Option<(&[u8], u16)> = None;
    let mut alone = true;
    for line in headers.get_all(ACCEPT_LANGUAGE) {
        for member in line.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            let (range, weight) = weighted(member)?;
            match best {
                Some((_, most)) if weight < most => {}
                Some((_, most)) if weight == most => alone = false,
                _ => (best, alone) = (Some((range, weight)), true),
            }
        }
    }
    let (range, weight) = best?;
    (alone && weight > 0 && range != b"*").then_some(range)
}

fn select_as(
    policy: &Policy,
    names: &[HeaderName],
    headers: &HeaderMap,
    language: Option<&[u8]>,
    out: &mut impl FnMut(&[u8]),
) -> Selected {
    let mut selected = Selected::Short;
    for name in names {
        let lines = headers.get_all(name);
        if *name == ACCEPT_LANGUAGE
            && let Some(language) = language
        {
            out(&[LANGUAGE]);
            write_language((language, 0), out);
            selected = selected.or(Selected::of(language.len()));
        } else if lines.iter().next().is_none() {
            out(&[ABSENT]);
        } else if *name == ACCEPT_ENCODING {
            match codings(&lines) {
                Some(set) => out(&[CODINGS, set]),
                None => out(&[MALFORMED]),
            }
        } else if *name == ACCEPT_LANGUAGE {
            selected = selected.or(languages(&lines, policy.language_order, out));
        } else if (*name == ACCEPT || *name == ACCEPT_CHARSET) && !members(&lines).all(well_formed)
        {
            out(&[MALFORMED]);
        } else {
            out(&[MEMBERS]);
            let mut length = 0usize;
            for member in members(&lines) {
                length = length.saturating_add(member.len());
                write(member, out);
            }
            out(&[END]);
            selected = selected.or(Selected::of(length));
        }
    }
    selected
}

impl Selected {
    fn of(length: usize) -> Self {
        if length > LONG_VALUE { Selected::Long } else { Selected::Short }
    }

    fn or(self, other: Self) -> Self {
        if self == Selected::Long { self } else { other }
    }
}

/// The content codings that selectors tell apart (RFC 9110 §8.4.1, RFC 7932, RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// No coding.
    Identity,
    /// `gzip`, `x-gzip`
    Gzip,
    /// `deflate`
    Deflate,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
    /// `compress`, `x-compress`
    Compress,
}

impl Coding {
    /// The coding of this name, in any letter case.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        // As nearly everybody writes them.
        match name {
            b"gzip" => return Some(Coding::Gzip),
            b"deflate" => return Some(Coding::Deflate),
            b"br" => return Some(Coding::Brotli),
            b"zstd" => return Some(Coding::Zstd),
            _ => {}
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("br") => Some(Coding::Brotli),
            4 if is("gzip") => Some(Coding::Gzip),
            4 if is("zstd") => Some(Coding::Zstd),
            6 if is("x-gzip") => Some(Coding::Gzip),
            7 if is("deflate") => Some(Coding::Deflate),
            8 if is("identity") => Some(Coding::Identity),
            8 if is("compress") => Some(Coding::Compress),
            10 if is("x-compress") => Some(Coding::Compress),
            _ => None,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The accepted codings as bits; `None` if the field does not parse.
fn codings(lines: &Lines<'_>) -> Option<u8> {
    let mut accepts = Accepts::default();
    for line in lines.iter() {
        if accepts.plain(line.as_bytes()).is_none() {
            // As members with weights, from the beginning.
            return weighted_codings(lines);
        }
    }
    Some(accepts.set())
}

fn weighted_codings(lines: &Lines<'_>) -> Option<u8> {
    let mut accepts = Accepts::default();
    for member in members(lines).filter(|member| !member.is_empty()) {
        let (name, weight) = weighted(member)?;
        accepts.add(name, weight > 0);
    }
    Some(accepts.set())
}

#[derive(Default)]
struct Accepts {
    accepted: u8,
    named: u8,
    others: Option<bool>,
}

impl Accepts {
    fn add(&mut self, name: &[u8], accepted: bool) {
        if name == b"*" {
            self.others = Some(accepted);
        } else if let Some(coding) = Coding::of(name) {
            self.named |= coding.bit();
            if accepted {
                self.accepted |= coding.bit();
            }
        }
    }

    /// Adds the members of a line that has names, commas and white space alone, as most have; `None` at anything else.
    fn plain(&mut self, line: &[u8]) -> Option<()> {
        let mut start = 0;
        for (at, &byte) in line.iter().enumerate() {
            match byte {
                _ if TOKEN[usize::from(byte)] => {}
                b',' => {
                    self.add(&line[start..at], true);
                    start = at + 1;
                }
                // In front of a name; behind one it is rare.
                b' ' | b'\t' if start == at => start = at + 1,
                _ => return None,
            }
        }
        self.add(&line[start..], true);
        Some(())
    }

    fn set(&self) -> u8 {
        let all = (Coding::Compress.bit() << 1) - 1;
        let unnamed = match self.others {
            Some(true) => all,
            Some(false) => 0,
            None => Coding::Identity.bit(), // acceptable unless refused
        };
        self.accepted | (unnamed & !self.named)
    }
}

fn languages(lines: &Lines<'_>, keep_order: bool, out: &mut impl FnMut(&[u8])) -> Selected {
    let mut sorted: [(&[u8], u16); MAX_SORTED] = [(b"", 0); MAX_SORTED];
    let (mut count, mut length) = (0usize, 0usize);
    for member in members(lines).filter(|member| !member.is_empty()) {
        let Some((range, weight)) = weighted(member) else {
            out(&[MALFORMED]);
            return Selected::Short;
        };
        if let Some(slot) = sorted.get_mut(count) {
            *slot = (range, weight);
        }
        count += 1;
        length = length.saturating_add(range.len()).saturating_add(2);
    }
    out(&[LANGUAGES]);
    if keep_order || count > MAX_SORTED {
        let all = members(lines).filter(|member| !member.is_empty());
        all.filter_map(weighted).for_each(|member| write_language(member, out));
    } else {
        let sorted = &mut sorted[..count];
        sorted.sort_unstable_by(|(a, heavy), (b, light)| {
            let b = b.iter().map(u8::to_ascii_lowercase);
            light.cmp(heavy).then_with(|| a.iter().map(u8::to_ascii_lowercase).cmp(b))
        });
        sorted.iter().for_each(|&member| write_language(member, out));
    }
    out(&[END]);
    Selected::of(length)
}

fn write_language((range, weight): (&[u8], u16), out: &mut impl FnMut(&[u8])) {
    out(&[MEMBER]);
    out(&weight.to_be_bytes());
    out(&u32::try_from(range.len()).unwrap_or(u32::MAX).to_be_bytes());
    let mut buffer = [0u8; 32];
    for chunk in range.chunks(buffer.len()) {
        let lower = &mut buffer[..chunk.len()];
        lower.copy_from_slice(chunk);
        lower.make_ascii_lowercase();
        out(lower);
    }
}

/// The lines of one field.
type Lines<'a> = GetAll<'a, HeaderValue>;

/// The members of all lines: split at commas outside quoted strings, trimmed.
fn members<'a>(lines: &Lines<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    lines.iter().flat_map(|line| {
        let mut rest = Some(line.as_bytes());
        std::iter::from_fn(move || {
            let text = rest?;
            let mut at = 0;
            while at < text.len() && text[at] != b',' {
                at = match text[at] {
                    b'"' => closing_quote(text, at).map_or(at + 1, |end| end + 1),
                    _ => at + 1,
                };
            }
            rest = text.get(at + 1..);
            Some(text[..at].trim_ascii())
        })
    })
}

fn write(member: &[u8], out: &mut impl FnMut(&[u8])) {
    out(&[MEMBER]);
    out(&u32::try_from(member.len()).unwrap_or(u32::MAX).to_be_bytes());
    out(member);
}

/// `token [;q=weight]`, the weight in thousandths.
fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| is_token(name))?;
    let Some(parameter) = parts.next() else {
        return Some((name, 1000));
    };
    let weight = match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => weight,
        _ => return None,
    };
    if parts.next().is_some() { None } else { Some((name, thousandths(weight)?)) }
}

/// A qvalue (RFC 9110 §12.4.2).
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, fraction) = match weight {
        [whole] | [whole, b'.'] => (whole, &b""[..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut value = match whole {
        b'0' => 0u16,
        b'1' => 1,
        _ => return None,
    };
    for at in 0..3 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u16::from(digit - b'0');
    }
    (value <= 1000).then_some(value)
}

/// `token[/token]` and parameters, whatever they mean.
fn well_formed(member: &[u8]) -> bool {
    let end = member.iter().position(|&b| b == b';').unwrap_or(member.len());
    let (range, parameters) = member.split_at(end);
    let range = range.trim_ascii();
    let (kind, subtype) = match range.iter().position(|&b| b == b'/') {
        Some(slash) => (&range[..slash], &range[slash + 1..]),
        None => (range, &b"*"[..]),
    };
    let visible = |text: &[u8]| text.iter().all(|&b| b == b'\t' || (0x20..0x7f).contains(&b));
    member.is_empty() || (is_token(kind) && is_token(subtype) && visible(parameters))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| TOKEN[usize::from(b)])
}

/// The bytes of a token (RFC 9110 §5.6.2).
static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut at = 0;
    while at < token.len() {
        let byte = at as u8;
        token[at] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        at += 1;
    }
    token
};
