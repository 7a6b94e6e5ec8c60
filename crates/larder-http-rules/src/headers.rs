//! Fields that are never stored (RFC 9111 §3.1, RFC 9110 §7.6.1): those of one connection.
//!
//! ```
//! use http::{HeaderMap, header::CONNECTION};
//! use larder_http_rules::headers;
//!
//! let mut response = HeaderMap::new();
//! response.insert(CONNECTION, "close, X-Hop".parse().unwrap());
//! response.insert("x-hop", "1".parse().unwrap());
//! response.insert("x-kept", "2".parse().unwrap());
//! headers::remove_hop_by_hop(&mut response);
//! assert_eq!(response.len(), 1);
//! ```

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection or one proxy, whatever `Connection` says.
pub const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field is hop-by-hop by its name.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Removes the hop-by-hop fields and those that `Connection` names. Decide [whether the response may be
/// stored](crate::storable) before: a `Connection` that names `Cache-Control` must not hide it.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in named(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

/// The fields that [`remove_hop_by_hop`] leaves.
///
/// ```
/// use http::{HeaderMap, header::CONNECTION};
/// use larder_http_rules::headers;
///
/// let mut response = HeaderMap::new();
/// response.insert(CONNECTION, "close, X-Hop".parse().unwrap());
/// response.insert("x-hop", "1".parse().unwrap());
/// response.insert("x-kept", "2".parse().unwrap());
/// let left: Vec<_> = headers::end_to_end(&response).collect();
/// assert_eq!((left.len(), left[0].0.as_str()), (1, "x-kept"));
/// ```
pub fn end_to_end(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let named = named(headers);
    headers.iter().filter(move |(name, _)| !is_hop_by_hop(name) && !named.contains(name))
}

fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}
