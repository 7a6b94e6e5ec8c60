//! Conditional requests (RFC 9110 §13) against stored validators: 304 or the whole response.
//!
//! ```
//! use http::{HeaderMap, HeaderValue, header::IF_NONE_MATCH};
//! use larder_http_rules::conditional::{self, Validators, Verdict};
//! use std::time::SystemTime;
//!
//! let etag = HeaderValue::from_static("\"v1\"");
//! let stored = Validators { etag: Some(&etag), last_modified: None };
//! let mut request = HeaderMap::new();
//! request.insert(IF_NONE_MATCH, "\"v0\", W/\"v1\"".parse().unwrap());
//! assert_eq!(conditional::evaluate(&request, stored, SystemTime::now()), Verdict::NotModified);
//! ```

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, VARY,
};
use http::{HeaderValue, Method};

use crate::date;

/// The validators of a stored response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// Its `ETag`, byte for byte.
    pub etag: Option<&'a HeaderValue>,
    /// Its `Last-Modified`.
    pub last_modified: Option<SystemTime>,
}

impl<'a> Validators<'a> {
    /// Reads them from response headers.
    #[must_use]
    pub fn from_headers(headers: &'a HeaderMap, now: SystemTime) -> Self {
        Self {
            etag: headers.get(ETAG),
            last_modified: date::parse_field(headers, LAST_MODIFIED, now),
        }
    }
}

/// What a conditional request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 304, with the fields that [`kept_in_304`] names.
    NotModified,
    /// The whole response.
    Full,
}

/// Evaluates `If-None-Match`, or without one `If-Modified-Since` (RFC 9110 §13.2.2), for a request that
/// a stored 200 response would answer. A date that cannot be parsed is ignored.
#[must_use]
pub fn evaluate(request: &HeaderMap, stored: Validators<'_>, now: SystemTime) -> Verdict {
    let unchanged = if request.contains_key(IF_NONE_MATCH) {
        none_match(request, stored.etag)
    } else {
        match (date::parse_field(request, IF_MODIFIED_SINCE, now), stored.last_modified) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    };
    if unchanged { Verdict::NotModified } else { Verdict::Full }
}

/// What the preconditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Go on.
    Holds,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not in the state that the request is meant for.
    Failed,
}

/// Evaluates all preconditions in their order (RFC 9110 §13.2.2), for those who know the current state: an origin, never
/// a cache. `current` is `None` where there is no representation. A date that cannot be parsed is ignored, and so is one
/// where there is no `Last-Modified` to compare with.
#[must_use]
pub fn preconditions(
    method: &Method,
    request: &HeaderMap,
    current: Option<Validators<'_>>,
    now: SystemTime,
) -> Precondition {
    let etag = current.and_then(|current| current.etag);
    let modified = current.and_then(|current| current.last_modified);
    if request.contains_key(IF_MATCH) {
        let same = |tag: &[u8]| is_strong(tag) && etag.is_some_and(|etag| etag.as_bytes() == tag);
        let matches = request.get_all(IF_MATCH).iter().any(|line| {
            tags(line.as_bytes()).any(|tag| (tag == b"*" && current.is_some()) || same(tag))
        });
        if !matches {
            return Precondition::Failed;
        }
    } else if let Some(since) = date::parse_field(request, IF_UNMODIFIED_SINCE, now)
        && modified.is_some_and(|modified| whole_seconds(modified) > since)
    {
        return Precondition::Failed;
    }
    let reads = matches!(method.as_str(), "GET" | "HEAD" | "QUERY");
    if request.contains_key(IF_NONE_MATCH) {
        return match (current.is_some() && none_match(request, etag), reads) {
            (false, _) => Precondition::Holds,
            (true, true) => Precondition::NotModified,
            (true, false) => Precondition::Failed,
        };
    }
    let since = date::parse_field(request, IF_MODIFIED_SINCE, now).filter(|_| reads);
    match (since, modified) {
        (Some(since), Some(modified)) if whole_seconds(modified) <= since => {
            Precondition::NotModified
        }
        _ => Precondition::Holds,
    }
}

// As a date says it.
fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => time,
    }
}

/// Weak comparison of two entity tags (RFC 9110 §8.8.3.2), byte for byte.
#[must_use]
pub fn weak_eq(left: &[u8], right: &[u8]) -> bool {
    opaque(left) == opaque(right)
}

/// Whether an entity tag is a strong validator (RFC 9110 §8.8.1): in quotes, without `W/`.
#[must_use]
pub fn is_strong(tag: &[u8]) -> bool {
    let tag = tag.trim_ascii();
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

/// Whether a field stays in a 304 made from a stored response (RFC 9110 §15.4.5): `Cache-Control`,
/// `Content-Location`, `Date`, `ETag`, `Expires`, `Vary`; besides `Last-Modified`, `Age`,
/// `Cache-Status` and `CDN-Cache-Control`, which steer caches on the way.
#[must_use]
pub fn kept_in_304(name: &HeaderName) -> bool {
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY, LAST_MODIFIED, AGE].contains(name)
        || matches!(name.as_str(), "cache-status" | "cdn-cache-control")
}

/// Whether any listed tag matches; `*` matches everything stored.
fn none_match(request: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        tags(line.as_bytes())
            .any(|tag| tag == b"*" || etag.is_some_and(|etag| weak_eq(tag, etag.as_bytes())))
    })
}

/// The members of an entity-tag list. A quoted tag may contain commas (but no escapes); what is not
/// quoted ends at the next comma.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            let skip = rest.iter().position(|&b| !matches!(b, b',' | b' ' | b'\t'))?;
            rest = &rest[skip..];
            let open = if rest.starts_with(b"W/\"") { 2 } else { 0 };
            let close = if rest.get(open) == Some(&b'"') {
                rest[open + 1..].iter().position(|&b| b == b'"').map(|at| open + 1 + at + 1)
            } else {
                None
            };
            let comma = || rest.iter().position(|&b| b == b',').unwrap_or(rest.len());
            let (tag, after) = rest.split_at(close.unwrap_or_else(comma));
            rest = after;
            let tag = tag.trim_ascii();
            if !tag.is_empty() {
                return Some(tag);
            }
        }
    })
}

fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.trim_ascii();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}
