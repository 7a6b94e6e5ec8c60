//! The effective authority of a request (RFC 9112 §3.2, RFC 9113 §8.3.1; threats P01, P02).
//!
//! A key without an authority could be shared between sites, and a target that disagrees with `Host`
//! lets one site's answer be stored under the other's name. So both must agree, there is at most one
//! `Host`, and whatever is unclear is not cached.
//!
//! ```
//! use http::{HeaderMap, Uri, header::HOST};
//! use larder_http_rules::authority::{self, Scheme};
//! use larder_http_rules::Reason;
//!
//! let mut headers = HeaderMap::new();
//! headers.insert(HOST, "Example.COM:80".parse().unwrap());
//! let uri = Uri::from_static("/path");
//! let authority = authority::effective(&uri, &headers, Scheme::Http).unwrap();
//! assert_eq!(authority.to_string(), "example.com");
//!
//! let absolute = Uri::from_static("http://other.example/path");
//! let refused = authority::effective(&absolute, &headers, Scheme::Http);
//! assert_eq!(refused.unwrap_err(), Reason::AuthorityMismatch);
//! ```

use std::fmt;

use http::Uri;
use http::header::{HOST, HeaderMap, HeaderValue};

use crate::Reason;

/// The two schemes that are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The scheme's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that goes without saying.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("http") {
            Some(Scheme::Http)
        } else if name.eq_ignore_ascii_case("https") {
            Some(Scheme::Https)
        } else {
            None
        }
    }
}

/// Scheme, host and port, borrowed from the request. Equality and output ignore letter case and fold
/// the scheme's default port; other ports are kept.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    scheme: Scheme,
    // Valid, so ASCII.
    host: &'a [u8],
    port: Option<u16>,
    // Nothing in the host is in upper case; if false, something may be.
    lower: bool,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]`.
    ///
    /// # Errors
    ///
    /// [`Reason::NoAuthority`] for the empty string, [`Reason::UserInfo`] for one with `@`, and
    /// [`Reason::InvalidAuthority`] for what is not a host.
    pub fn parse(scheme: Scheme, text: &'a [u8]) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err(Reason::NoAuthority);
        }
        // The usual case, which every hit passes: a plain name, for which none of the questions below arises.
        let traits = traits(text);
        if traits & ODD == 0 {
            return Ok(Self { scheme, host: text, port: None, lower: traits & UPPER == 0 });
        }
        if text.contains(&b'@') {
            return Err(Reason::UserInfo);
        }
        let text = std::str::from_utf8(text).map_err(|_| Reason::InvalidAuthority)?;
        // an IPv6 literal has colons inside its brackets
        let end = if text.starts_with('[') {
            text.find(']').map_or(0, |bracket| bracket + 1)
        } else {
            text.find(':').unwrap_or(text.len())
        };
        let (host, rest) = text.split_at(end);
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(Reason::InvalidAuthority),
            Some("") => None,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| Reason::InvalidAuthority)?)
            }
            Some(_) => return Err(Reason::InvalidAuthority),
        };
        if !valid_host(host) {
            return Err(Reason::InvalidAuthority);
        }
        let host = host.as_bytes();
        let port = port.filter(|&port| port != scheme.default_port());
        Ok(Self { scheme, host, port, lower: false })
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, in the case it was sent.
    #[must_use]
    pub fn host(&self) -> &'a str {
        std::str::from_utf8(self.host).unwrap_or_default()
    }

    /// The port, unless it is the scheme's default.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Writes `scheme://host[:port]` in lower case, in small pieces, without allocating. A host contains
    /// no `/`, so that a path written behind it cannot be confused with it.
    pub fn write_to(&self, out: &mut impl FnMut(&[u8])) {
        out(match self.scheme {
            Scheme::Http => b"http://",
            Scheme::Https => b"https://",
        });
        if self.lower {
            out(self.host);
        } else {
            let mut buffer = [0u8; 64];
            for chunk in self.host.chunks(buffer.len()) {
                let lower = &mut buffer[..chunk.len()];
                lower.copy_from_slice(chunk);
                lower.make_ascii_lowercase();
                out(lower);
            }
        }
        if let Some(port) = self.port {
            let mut digits = [b':'; 6];
            let (mut at, mut port) = (digits.len(), port);
            loop {
                at -= 1;
                digits[at] = b'0' + u8::try_from(port % 10).unwrap_or(0);
                port /= 10;
                if port == 0 {
                    break;
                }
            }
            out(b":");
            out(&digits[at..]);
        }
    }
}

impl PartialEq for Authority<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.port == other.port
            && self.host.eq_ignore_ascii_case(other.host)
    }
}

impl Eq for Authority<'_> {}

impl fmt::Display for Authority<'_> {
    /// `host[:port]` in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.host().chars() {
            fmt::Write::write_char(f, c.to_ascii_lowercase())?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The authority a request is for. `scheme` is the connection's and counts when the target has none
/// (HTTP/1 origin form).
///
/// # Errors
///
/// Each error means: answer the request, store nothing. [`Reason::NoAuthority`],
/// [`Reason::AuthorityMismatch`], [`Reason::SeveralHosts`], [`Reason::UserInfo`],
/// [`Reason::InvalidAuthority`], [`Reason::UnsupportedScheme`].
pub fn effective<'a>(
    uri: &'a Uri,
    headers: &'a HeaderMap,
    scheme: Scheme,
) -> Result<Authority<'a>, Reason> {
    let mut lines = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let host = match (lines.next(), lines.next()) {
        (None, _) => HostField::Absent,
        (Some(host), None) => HostField::One(host),
        _ => HostField::Several,
    };
    effective_of(uri, host, scheme)
}

/// What a request has of `Host`; see [`RequestFacts::scan_with_host`](crate::RequestFacts::scan_with_host).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostField<'a> {
    /// Nothing.
    Absent,
    /// One line.
    One(&'a [u8]),
    /// More than one.
    Several,
}

/// [`effective`], for those who have looked for `Host` already.
///
/// # Errors
///
/// The same.
pub fn effective_of<'a>(
    uri: &'a Uri,
    host: HostField<'a>,
    scheme: Scheme,
) -> Result<Authority<'a>, Reason> {
    let scheme = match uri.scheme() {
        None => scheme,
        Some(name) if *name == http::uri::Scheme::HTTP => Scheme::Http,
        Some(name) if *name == http::uri::Scheme::HTTPS => Scheme::Https,
        Some(other) => Scheme::parse(other.as_str()).ok_or(Reason::UnsupportedScheme)?,
    };
    let host = match host {
        HostField::Absent => None,
        HostField::One(host) => Some(host.trim_ascii()),
        HostField::Several => return Err(Reason::SeveralHosts),
    };
    let target = uri.authority().map(|target| target.as_str().as_bytes());
    match (target, host) {
        (None, None) => Err(Reason::NoAuthority),
        (Some(one), None) | (None, Some(one)) => Authority::parse(scheme, one),
        (Some(target), Some(host)) if target == host => Authority::parse(scheme, target),
        (Some(target), Some(host)) => {
            let (target, host) =
                (Authority::parse(scheme, target)?, Authority::parse(scheme, host)?);
            if target == host { Ok(target) } else { Err(Reason::AuthorityMismatch) }
        }
    }
}

// A byte that is none of a plain name's: of a literal, an escape, a port, or of no host at all.
const ODD: u8 = 1;
const UPPER: u8 = 2;

// What there is among a host's bytes. Four at a time: every hit comes by here.
fn traits(text: &[u8]) -> u8 {
    let of = |b: &u8| TRAITS[usize::from(*b)];
    let (fours, rest) = text.as_chunks::<4>();
    let fours = fours.iter().fold(0, |sum, [a, b, c, d]| sum | of(a) | of(b) | of(c) | of(d));
    rest.iter().fold(fours, |sum, byte| sum | of(byte))
}

/// All bytes that are not odd are [valid](valid_host).
static TRAITS: [u8; 256] = {
    let mut traits = [ODD; 256];
    let mut at = 0;
    while at < traits.len() {
        let byte = at as u8;
        if byte.is_ascii_uppercase() {
            traits[at] = UPPER;
        } else if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            traits[at] = 0;
        }
        at += 1;
    }
    traits
};

/// A registered name, an IPv4 address or a bracketed literal (RFC 3986 §3.2.2), by its characters.
fn valid_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[') {
        return inside.strip_suffix(']').is_some_and(|literal| {
            !literal.is_empty()
                && literal.bytes().all(|b| b.is_ascii_alphanumeric() || b":.-_~%".contains(&b))
        });
    }
    !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b))
}
