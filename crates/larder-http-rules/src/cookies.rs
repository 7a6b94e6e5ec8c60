//! The `Cookie` header (RFC 6265 §4.2): reading cookies, and removing those a route ignores.
//!
//! ```
//! use http::{HeaderMap, header::COOKIE};
//! use larder_http_rules::NamePattern;
//! use larder_http_rules::cookies::{self, CookieValue};
//!
//! let mut headers = HeaderMap::new();
//! headers.insert(COOKIE, "_ga=1; theme=dark; _ga_XYZ=2".parse().unwrap());
//! assert_eq!(cookies::value(&headers, "theme"), CookieValue::One(b"dark"));
//!
//! cookies::remove(&mut headers, &[NamePattern::new("_ga*")]);
//! assert_eq!(headers[COOKIE], "theme=dark");
//! ```

use http::HeaderValue;
use http::header::{COOKIE, HeaderMap};

use crate::NamePattern;

/// One cookie's value in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieValue<'a> {
    /// There is no cookie of that name.
    Absent,
    /// There is one.
    One(&'a [u8]),
    /// There are several: handlers differ in which they read, so such a request should bypass the cache
    /// ([`Reason::AmbiguousCookie`](crate::Reason::AmbiguousCookie)) if the cookie is a key part.
    Several,
}

/// All cookies of all `Cookie` lines: name and value, trimmed. A piece without `=` is a cookie of that
/// name with an empty value, so that it cannot slip past a check of names.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(COOKIE).iter().flat_map(of)
}

/// The cookies of one `Cookie` line.
pub fn of(line: &HeaderValue) -> impl Iterator<Item = (&[u8], &[u8])> {
    pieces(line.as_bytes()).map(split)
}

/// The value of one cookie.
#[must_use]
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> CookieValue<'a> {
    let mut found = cookies(headers).filter(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (None, _) => CookieValue::Absent,
        (Some(value), None) => CookieValue::One(value),
        (Some(_), Some(_)) => CookieValue::Several,
    }
}

/// Removes the cookies that match any of `patterns` and tells whether there were some. The others stay,
/// in order, on one line; without others the header goes.
pub fn remove(headers: &mut HeaderMap, patterns: &[NamePattern]) -> bool {
    let ignored = |name: &[u8]| patterns.iter().any(|pattern| pattern.matches(name));
    if !cookies(headers).any(|(name, _)| ignored(name)) {
        return false;
    }
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all(COOKIE) {
        for piece in pieces(line.as_bytes()).filter(|piece| !ignored(split(piece).0)) {
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(piece);
        }
    }
    match HeaderValue::from_bytes(&kept) {
        Ok(value) if !kept.is_empty() => headers.insert(COOKIE, value),
        _ => headers.remove(COOKIE),
    };
    true
}

fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&b| b == b';').map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty())
}

fn split(piece: &[u8]) -> (&[u8], &[u8]) {
    match piece.iter().position(|&b| b == b'=') {
        Some(at) => (piece[..at].trim_ascii_end(), piece[at + 1..].trim_ascii_start()),
        None => (piece, b""),
    }
}
