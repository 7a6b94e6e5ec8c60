//! `Cache-Status` (RFC 9211): what a cache did, as a response header.
//!
//! ```
//! use http::HeaderMap;
//! use larder_http_rules::cache_status::{CacheStatus, Forward};
//! use larder_http_rules::Reason;
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("cache-status", "origin-cache; hit".parse().unwrap());
//! CacheStatus::forwarded("larder", Forward::Stale)
//!     .forward_status(304)
//!     .stored(true)
//!     .detail(Reason::Expired)
//!     .append(&mut headers);
//! assert_eq!(
//!     headers["cache-status"],
//!     "origin-cache; hit, larder; fwd=stale; fwd-status=304; stored; detail=expired"
//! );
//! ```

use std::fmt::{self, Write};

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};

use crate::Reason;

/// The field's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was configured not to handle it.
    Bypass,
    /// Its method requires it.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Nothing stored for the URI matches the request's headers.
    VaryMiss,
    /// Nothing stored could answer.
    Miss,
    /// The request's own directives require it.
    Request,
    /// What is stored is stale.
    Stale,
    /// What is stored is only a part.
    Partial,
}

impl Forward {
    /// The token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Miss => "miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
            Forward::Partial => "partial",
        }
    }
}

/// One cache's member of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    cache: &'a str,
    forward: Option<Forward>,
    forward_status: Option<u16>,
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    detail: Option<Reason>,
}

impl<'a> CacheStatus<'a> {
    /// The cache answered.
    #[must_use]
    pub const fn hit(cache: &'a str) -> Self {
        Self {
            cache,
            forward: None,
            forward_status: None,
            ttl: None,
            stored: false,
            collapsed: false,
            detail: None,
        }
    }

    /// The request went forward.
    #[must_use]
    pub const fn forwarded(cache: &'a str, why: Forward) -> Self {
        Self { forward: Some(why), ..Self::hit(cache) }
    }

    /// The status the handler answered with; left out on a hit.
    #[must_use]
    pub fn forward_status(mut self, status: u16) -> Self {
        self.forward_status = StatusCode::from_u16(status).ok().map(|status| status.as_u16());
        self
    }

    /// The remaining lifetime in seconds; negative when stale ([`crate::Terms::ttl`]).
    #[must_use]
    pub const fn ttl(mut self, seconds: i64) -> Self {
        self.ttl = Some(seconds);
        self
    }

    /// Whether the response was stored.
    #[must_use]
    pub const fn stored(mut self, stored: bool) -> Self {
        self.stored = stored;
        self
    }

    /// Whether the request shared another one's fill.
    #[must_use]
    pub const fn collapsed(mut self, collapsed: bool) -> Self {
        self.collapsed = collapsed;
        self
    }

    /// Why, in this implementation's words.
    #[must_use]
    pub const fn detail(mut self, reason: Reason) -> Self {
        self.detail = Some(reason);
        self
    }

    /// Adds this member behind those of the caches nearer to the origin.
    pub fn append(&self, headers: &mut HeaderMap) {
        let mut joined = Vec::new();
        for line in headers.get_all(CACHE_STATUS) {
            joined.extend_from_slice(line.as_bytes());
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(self.to_string().as_bytes());
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            headers.insert(CACHE_STATUS, value);
        }
    }

    /// The member alone as a header value.
    #[must_use]
    pub fn to_header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static("cache"))
    }
}

impl fmt::Display for CacheStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(self.cache, f)?;
        match self.forward {
            None => f.write_str("; hit")?,
            Some(forward) => {
                write!(f, "; fwd={}", forward.as_str())?;
                if let Some(status) = self.forward_status {
                    write!(f, "; fwd-status={status}")?;
                }
            }
        }
        if let Some(ttl) = self.ttl {
            // the range of a structured integer
            write!(f, "; ttl={}", ttl.clamp(-LARGEST_INTEGER, LARGEST_INTEGER))?;
        }
        if self.stored && self.forward.is_some() {
            f.write_str("; stored")?;
        }
        if self.collapsed && self.forward.is_some() {
            f.write_str("; collapsed")?;
        }
        self.detail.map_or(Ok(()), |reason| write!(f, "; detail={}", reason.as_str()))
    }
}

const LARGEST_INTEGER: i64 = 999_999_999_999_999;

/// A structured token if the name is one, else a string; what fits neither is left out.
fn write_name(name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let tail = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b);
    if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*') && name.bytes().all(tail) {
        return f.write_str(name);
    }
    f.write_char('"')?;
    for c in name.chars().filter(|c| (' '..='~').contains(c)) {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}
