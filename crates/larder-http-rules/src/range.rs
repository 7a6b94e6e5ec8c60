//! Ranges of bytes (RFC 9110 §14, RFC 9111 §3.3 and §3.4): what was asked for, what a stored response can give of it,
//! and which part of a whole a 206 response is.
//!
//! ```
//! use http::{HeaderMap, header::RANGE};
//! use larder_http_rules::range::{self, Selection};
//!
//! let mut request = HeaderMap::new();
//! request.insert(RANGE, "bytes=0-4, -2".parse().unwrap());
//! let asked = range::requested(&request).unwrap();
//! assert_eq!(range::select(&asked, 10), Selection::Ranges(vec![0..5, 8..10]));
//! assert_eq!(range::select(&asked, 0), Selection::Unsatisfiable);
//! ```

use std::ops::Range;
use std::time::SystemTime;

use http::HeaderValue;
use http::header::{CONTENT_RANGE, DATE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};

use crate::conditional::is_strong;
use crate::date;

/// One range that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    /// From the one byte to the other, or to the end.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
}

/// More ranges than this are not looked at: the request gets the whole, as RFC 9110 §14.2 allows.
pub const MOST: usize = 16;

/// The ranges of a request; `None` where there is no `Range`, where it is in another unit, malformed, or has more than
/// [`MOST`] members: such a field is ignored (RFC 9110 §14.2).
#[must_use]
pub fn requested(request: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = request.get_all(RANGE).iter();
    let line = lines.next()?.as_bytes();
    if lines.next().is_some() {
        return None;
    }
    let equals = line.iter().position(|&b| b == b'=')?;
    let (unit, set) = (&line[..equals], &line[equals + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for member in set.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty()) {
        if specs.len() == MOST {
            return None;
        }
        let dash = member.iter().position(|&b| b == b'-')?;
        let (first, last) = (&member[..dash], &member[dash + 1..]);
        specs.push(match (first, last) {
            (b"", last) => Spec::Last(number(last)?),
            (first, b"") => Spec::From(number(first)?, None),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                Spec::From(first, Some(last))
            }
        });
    }
    (!specs.is_empty()).then_some(specs)
}

/// What of a representation answers a range request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These of its bytes, in the order in which they were asked for.
    Ranges(Vec<Range<u64>>),
    /// None: 416.
    Unsatisfiable,
    /// All of it, with 200: the ranges overlap or are too small to be worth it (RFC 9110 §14.2, §17.15).
    Whole,
}

/// The bytes of a representation of that length that the ranges name (RFC 9110 §14.1.2).
#[must_use]
pub fn select(specs: &[Spec], length: u64) -> Selection {
    let ranges: Vec<Range<u64>> = specs.iter().filter_map(|spec| resolve(*spec, length)).collect();
    if ranges.is_empty() {
        return Selection::Unsatisfiable;
    }
    let mut sorted: Vec<&Range<u64>> = ranges.iter().collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let overlaps = sorted.windows(2).any(|pair| pair[1].start < pair[0].end);
    if overlaps { Selection::Whole } else { Selection::Ranges(ranges) }
}

fn resolve(spec: Spec, length: u64) -> Option<Range<u64>> {
    let range = match spec {
        Spec::From(first, None) => first..length,
        Spec::From(first, Some(last)) => first..last.saturating_add(1).min(length),
        Spec::Last(bytes) => length.saturating_sub(bytes)..length,
    };
    (range.start < range.end).then_some(range)
}

/// Which bytes of a whole a response has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// These.
    pub bytes: Range<u64>,
    /// Of so many.
    pub of: u64,
}

impl Part {
    /// What a 206 response says that it has. `None` where the field is missing, malformed or in another unit, and where
    /// the length of the whole is not known (RFC 9110 §14.4).
    #[must_use]
    pub fn of_response(response: &HeaderMap) -> Option<Part> {
        let mut lines = response.get_all(CONTENT_RANGE).iter();
        let line = lines.next()?.as_bytes();
        if lines.next().is_some() {
            return None;
        }
        let rest = line
            .get(..6)
            .filter(|unit| unit.eq_ignore_ascii_case(b"bytes "))
            .map(|_| &line[6..])?;
        let dash = rest.iter().position(|&b| b == b'-')?;
        let slash = rest.iter().position(|&b| b == b'/')?;
        let (first, last) = (number(&rest[..dash])?, number(rest.get(dash + 1..slash)?)?);
        let of = number(&rest[slash + 1..])?;
        (first <= last && last < of).then_some(Part { bytes: first..last + 1, of })
    }

    /// `Content-Range` for some bytes of a whole.
    #[must_use]
    pub fn header_value(bytes: &Range<u64>, of: u64) -> HeaderValue {
        let text = format!("bytes {}-{}/{of}", bytes.start, bytes.end.saturating_sub(1));
        HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("digits and slashes"))
    }

    /// `Content-Range` of 416.
    #[must_use]
    pub fn unsatisfied(of: u64) -> HeaderValue {
        let text = format!("bytes */{of}");
        HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("digits and slashes"))
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// Never, by how it is made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it is all there is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes == (0..self.of)
    }

    /// Whether it has these bytes.
    #[must_use]
    pub fn covers(&self, bytes: &Range<u64>) -> bool {
        self.bytes.start <= bytes.start && bytes.end <= self.bytes.end
    }

    /// This and another part of the same whole as one, if nothing is missing between them.
    #[must_use]
    pub fn joined(&self, other: &Part) -> Option<Part> {
        let touch = self.bytes.start <= other.bytes.end && other.bytes.start <= self.bytes.end;
        let start = self.bytes.start.min(other.bytes.start);
        let end = self.bytes.end.max(other.bytes.end);
        (self.of == other.of && touch).then_some(Part { bytes: start..end, of: self.of })
    }
}

/// Whether a request's `Range` applies to a representation: there is no `If-Range`, or it names it (RFC 9110 §13.1.5).
///
/// An entity tag is compared strongly; a date must be exactly that of `Last-Modified`, and that a strong validator: at
/// least one second older than the response (RFC 9110 §8.8.2.2).
#[must_use]
pub fn applies(request: &HeaderMap, stored: &HeaderMap, now: SystemTime) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(wanted) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let wanted = wanted.as_bytes().trim_ascii();
    if wanted.starts_with(b"\"") || wanted.starts_with(b"W/") {
        let etag = stored.get(ETAG).map(|etag| etag.as_bytes().trim_ascii());
        return is_strong(wanted) && etag == Some(wanted);
    }
    let modified = date::parse_field(stored, LAST_MODIFIED, now);
    let sent = date::parse_field(stored, DATE, now);
    match (date::parse(wanted, now), modified, sent) {
        (Some(wanted), Some(modified), Some(sent)) => {
            let a_second = sent.duration_since(modified).is_ok_and(|age| age.as_secs() >= 1);
            wanted == modified && a_second
        }
        _ => false,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
