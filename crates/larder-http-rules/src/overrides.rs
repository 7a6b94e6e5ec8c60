//! Forwarding and override headers (threat P05): what a proxy may say about the original request.
//!
//! Many handlers build links from `X-Forwarded-Host` and its kin, so these are parts of the key:
//! `X-Forwarded-Host`, `-Proto`, `-Port`, `-Prefix`, and `host` and `proto` of `Forwarded` (RFC 7239).
//! `X-Forwarded-For` and the rest of `Forwarded` are ignored. All other names that are known to change
//! the URL, host, scheme or method ([`is_override`]) make a request bypass the cache, unless
//! [`Policy::trusted_overrides`](crate::Policy::trusted_overrides) names them: then they are key parts too.
//!
//! ```
//! use http::HeaderMap;
//! use larder_http_rules::{Policy, overrides};
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("x-forwarded-proto", "https".parse().unwrap());
//! let mut part = Vec::new();
//! overrides::write_key_part(&Policy::application(), &headers, &mut |bytes| part.extend_from_slice(bytes))
//!     .unwrap();
//! assert!(!part.is_empty());
//! assert!(overrides::is_override("x-rewrite-url"));
//! ```

use http::HeaderMap;
use http::header::FORWARDED;

use crate::cache_control::closing_quote;
use crate::{Policy, Reason, RequestFacts, names};

/// The longest value, all lines of a name together, that becomes a key part.
pub const MAX_VALUE: usize = 256;
const MAX_LINES: usize = 16;

const KEYED: [&str; 4] =
    ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"];

/// Whether a header of this (lower-case) name makes a request bypass the cache.
#[must_use]
pub fn is_override(name: &str) -> bool {
    names::bits(name) & RequestFacts::OVERRIDE.bits() != 0
}

/// The names known to [`is_override`]; `x-middleware-*` is matched by its beginning besides.
#[must_use]
pub fn override_names() -> &'static [&'static str] {
    names::OVERRIDES
}

/// Whether the forwarding headers can be key parts: short enough, and a `Forwarded` that parses.
///
/// # Errors
///
/// [`Reason::OverrideTooLong`], or [`Reason::OverrideHeader`] for a `Forwarded` that does not parse.
pub fn check(headers: &HeaderMap) -> Result<(), Reason> {
    KEYED.iter().try_for_each(|name| measure(headers, name))?;
    forwarded(headers, &mut |_| {})
}

/// Writes the key part of the forwarding headers: injective, and empty if there are none.
///
/// # Errors
///
/// As [`check`], and [`Reason::OverrideTooLong`] for a trusted override header that is too long. What was
/// written before an error is of no use.
pub fn write_key_part(
    policy: &Policy,
    headers: &HeaderMap,
    out: &mut impl FnMut(&[u8]),
) -> Result<(), Reason> {
    for (tag, name) in (1u8..).zip(KEYED) {
        if headers.contains_key(name) {
            measure(headers, name)?;
            out(&[tag]);
            write_lines(headers, name, out);
        }
    }
    if headers.contains_key(FORWARDED) {
        out(&[0x10]);
        forwarded(headers, out)?;
        out(&[0]);
    }
    for name in &policy.trusted_overrides {
        if headers.contains_key(name) {
            measure(headers, name.as_str())?;
            out(&[0x20]);
            write_bytes(name.as_str().as_bytes(), out);
            write_lines(headers, name.as_str(), out);
        }
    }
    Ok(())
}

fn measure(headers: &HeaderMap, name: &str) -> Result<(), Reason> {
    let (mut lines, mut bytes) = (0usize, 0usize);
    for value in headers.get_all(name) {
        lines += 1;
        bytes = bytes.saturating_add(value.len());
    }
    if lines > MAX_LINES || bytes > MAX_VALUE { Err(Reason::OverrideTooLong) } else { Ok(()) }
}

fn write_lines(headers: &HeaderMap, name: &str, out: &mut impl FnMut(&[u8])) {
    for value in headers.get_all(name) {
        out(&[1]);
        write_bytes(value.as_bytes(), out);
    }
    out(&[0]);
}

fn write_bytes(bytes: &[u8], out: &mut impl FnMut(&[u8])) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out(&length.to_be_bytes());
    out(bytes);
}

/// Writes each `host` and `proto` of `Forwarded` with the number of its element.
fn forwarded(headers: &HeaderMap, out: &mut impl FnMut(&[u8])) -> Result<(), Reason> {
    let (mut element, mut bytes) = (0u8, 0usize);
    for line in headers.get_all(FORWARDED) {
        for member in split(line.as_bytes(), b',') {
            for pair in split(member?, b';') {
                let pair = pair?.trim_ascii();
                if pair.is_empty() {
                    continue;
                }
                let equals = pair.iter().position(|&b| b == b'=').ok_or(Reason::OverrideHeader)?;
                let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
                let tag = if name.eq_ignore_ascii_case(b"host") {
                    1
                } else if name.eq_ignore_ascii_case(b"proto") {
                    2
                } else {
                    continue;
                };
                bytes = bytes.saturating_add(value.len());
                if bytes > MAX_VALUE {
                    return Err(Reason::OverrideTooLong);
                }
                out(&[tag, element]);
                write_bytes(value, out);
            }
            element = element.checked_add(1).ok_or(Reason::OverrideTooLong)?;
        }
    }
    Ok(())
}

/// Splits outside quoted strings; one that is left open is an error.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = Result<&[u8], Reason>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut at = 0;
        while at < text.len() && text[at] != separator {
            if text[at] != b'"' {
                at += 1;
                continue;
            }
            match closing_quote(text, at) {
                Some(end) => at = end + 1,
                None => {
                    rest = None;
                    return Some(Err(Reason::OverrideHeader));
                }
            }
        }
        rest = text.get(at + 1..);
        Some(Ok(&text[..at]))
    })
}
