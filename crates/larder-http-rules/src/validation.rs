//! Asking the handler whether a stored response is still good (RFC 9111 §4.3), and what its answer changes.
//!
//! ```
//! use http::{HeaderMap, header};
//! use larder_http_rules::validation::{self, Confirmed};
//!
//! let mut stored = HeaderMap::new();
//! stored.insert(header::ETAG, "W/\"v1\"".parse().unwrap());
//! stored.insert(header::CONTENT_LENGTH, "5".parse().unwrap());
//! stored.insert("x-price", "7".parse().unwrap());
//!
//! let mut request = HeaderMap::new();
//! validation::ask(&mut request, &stored);
//! assert_eq!(request[header::IF_NONE_MATCH], "W/\"v1\"");
//!
//! let mut answer = HeaderMap::new();
//! answer.insert("x-price", "8".parse().unwrap());
//! answer.insert(header::CONTENT_LENGTH, "0".parse().unwrap());
//! assert_eq!(validation::confirms(&stored, &answer), Confirmed::Yes);
//! validation::freshen(&mut stored, &answer);
//! assert_eq!(stored["x-price"], "8");
//! assert_eq!(stored[header::CONTENT_LENGTH], "5");
//! ```

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};

use crate::conditional::is_strong;
use crate::headers::remove_hop_by_hop;

/// Makes a request conditional on the stored validators, byte for byte as they came; the request's own
/// `If-None-Match` and `If-Modified-Since` go. False when there is nothing to ask with.
pub fn ask(request: &mut HeaderMap, stored: &HeaderMap) -> bool {
    let mut asks = false;
    for (condition, validator) in [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)] {
        request.remove(&condition);
        if let Some(value) = stored.get(&validator) {
            request.insert(condition, value.clone());
            asks = true;
        }
    }
    asks
}

/// What a 304 says of the stored response that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It is good, and the 304 updates it.
    Yes,
    /// The 304 names another representation by a strong validator and must not update this one (RFC 9111 §4.3.4).
    Other,
}

/// Whether a 304 may update the stored response.
#[must_use]
pub fn confirms(stored: &HeaderMap, answer: &HeaderMap) -> Confirmed {
    match answer.get(ETAG) {
        Some(named) if is_strong(named.as_bytes()) && stored.get(ETAG) != Some(named) => {
            Confirmed::Other
        }
        _ => Confirmed::Yes,
    }
}

/// What a successful response to HEAD shows of what is stored for GET (RFC 9111 §4.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A validator is the same and nothing differs: it updates what is stored.
    Same,
    /// A validator or the length differs: what is stored is out of date.
    Other,
    /// There is no validator that both have, or only the response to HEAD has one of them.
    Nothing,
}

/// Compares a response to HEAD with what is stored, whose body has so many bytes.
#[must_use]
pub fn shown(stored: &HeaderMap, body: u64, head: &HeaderMap) -> Shown {
    let (mut same, mut new) = (false, false);
    for name in [ETAG, LAST_MODIFIED] {
        match (stored.get(&name), head.get(&name)) {
            (Some(then), Some(now)) if then != now => return Shown::Other,
            (Some(_), Some(_)) => same = true,
            (None, Some(_)) => new = true,
            (_, None) => {}
        }
    }
    let length = head.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(length) if body != length => Shown::Other,
        _ if same && !new => Shown::Same,
        _ => Shown::Nothing,
    }
}

/// Brings stored fields up to date with those of a 304 or of a response to HEAD (RFC 9111 §3.2): each field of the
/// answer replaces the stored ones of its name, and the others stay.
///
/// What describes the stored bytes stays as it was: `Content-Length`, `Content-Encoding`, `Content-Range`,
/// `Content-MD5` and `ETag`. Fields of one connection, and `Age`, do not count.
pub fn freshen(stored: &mut HeaderMap, answer: &HeaderMap) {
    let mut answer = answer.clone();
    remove_hop_by_hop(&mut answer);
    for name in [AGE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE] {
        answer.remove(name);
    }
    answer.remove("content-md5");
    if stored.contains_key(ETAG) {
        answer.remove(ETAG);
    }
    for name in answer.keys() {
        stored.remove(name);
    }
    for (name, value) in &answer {
        stored.append(name, value.clone());
    }
}
