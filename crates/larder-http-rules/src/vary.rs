//! `Vary` (RFC 9110 §12.5.5, RFC 9111 §4.1): which request headers select a variant, and the selector.
//!
//! The selector is the framed sequence of the selecting values. Absent, empty and literal values differ,
//! lines are joined, white space around commas does not count, bytes need not be UTF-8. Two requests
//! with equal selectors have equal selecting headers, up to what the RFC calls equivalent:
//!
//! * `Accept-Encoding` becomes the set of codings it accepts, of those in [`Coding`].
//! * `Accept-Language` is compared without letter case; without order at equal weight only if the
//!   policy says so ([`Policy::language_order`](crate::Policy::language_order)).
//! * An `Accept…` field that does not parse is one class (threat P23).
//!
//! ```
//! use http::{HeaderMap, header::{ACCEPT_ENCODING, VARY}};
//! use larder_http_rules::{Policy, Vary, vary};
//!
//! let mut response = HeaderMap::new();
//! response.append(VARY, "Accept-Encoding, , X-Tenant".parse().unwrap());
//! let Vary::Names(names) = Vary::parse(&response) else { panic!() };
//!
//! let policy = Policy::application();
//! let selector = |headers: &HeaderMap| {
//!     let mut selector = Vec::new();
//!     vary::select(&policy, &names, headers, &mut |bytes| selector.extend_from_slice(bytes));
//!     selector
//! };
//! let (mut one, mut two) = (HeaderMap::new(), HeaderMap::new());
//! one.insert(ACCEPT_ENCODING, "gzip,br".parse().unwrap());
//! two.insert(ACCEPT_ENCODING, "br;q=0.5, gzip".parse().unwrap());
//! assert_eq!(selector(&one), selector(&two));
//! two.insert("x-tenant", "".parse().unwrap());
//! assert_ne!(selector(&one), selector(&two));
//! ```

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName, VARY};

pub use crate::selector::{
    Coding, LONG_VALUE, Selected, preferred_language, select, select_by_language,
};

/// What a response varies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// `*`, or something that is no header name: no other request can match.
    Any,
    /// These request headers: sorted, without duplicates. Empty if there is no `Vary`.
    Names(Vec<HeaderName>),
}

impl Vary {
    /// Reads all `Vary` lines. Empty members are ignored; a `*` anywhere is [`Vary::Any`].
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for member in members(headers) {
            match HeaderName::from_bytes(member) {
                Ok(name) if name.as_str() != "*" => names.push(name),
                _ => return Vary::Any,
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Vary::Names(names)
    }
}

/// Adds names to a response's `Vary`: no duplicates in any letter case, order kept, and everything
/// collapses to `*` if that is a member.
///
/// ```
/// use http::{HeaderMap, header::{ACCEPT_LANGUAGE, COOKIE, VARY}};
/// use larder_http_rules::vary;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(VARY, "COOKIE".parse().unwrap());
/// vary::append(&mut headers, &[ACCEPT_LANGUAGE, COOKIE]);
/// assert_eq!(headers[VARY], "COOKIE, accept-language");
/// ```
pub fn append(headers: &mut HeaderMap, names: &[HeaderName]) {
    let mut all: Vec<&[u8]> = Vec::new();
    let added = names.iter().map(|name| name.as_str().as_bytes());
    for member in members(headers).chain(added) {
        if !all.iter().any(|known| known.eq_ignore_ascii_case(member)) {
            all.push(member);
        }
    }
    let joined = if all.contains(&b"*".as_slice()) { b"*".to_vec() } else { all.join(&b", "[..]) };
    if joined.is_empty() {
        return;
    }
    // the parts were header text already; * is the safe way out
    let value = HeaderValue::from_bytes(&joined).unwrap_or(HeaderValue::from_static("*"));
    headers.insert(VARY, value);
}

fn members(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(VARY)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}
