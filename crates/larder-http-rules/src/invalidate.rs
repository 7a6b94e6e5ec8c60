//! Invalidation by unsafe methods (RFC 9111 §4.4).
//!
//! ```
//! use http::{HeaderMap, Method, StatusCode, header::LOCATION};
//! use larder_http_rules::authority::{Authority, Scheme};
//! use larder_http_rules::invalidate::{self, Base};
//!
//! assert!(invalidate::invalidates(&Method::POST, StatusCode::CREATED));
//! assert!(!invalidate::invalidates(&Method::POST, StatusCode::INTERNAL_SERVER_ERROR));
//!
//! let authority = Authority::parse(Scheme::Https, b"shop.example").unwrap();
//! let base = Base { authority: Some(authority), path_and_query: "/products" };
//! let mut response = HeaderMap::new();
//! response.insert(LOCATION, "https://SHOP.example:443/products/7".parse().unwrap());
//! let targets: Vec<String> = invalidate::targets(base, &response).collect();
//! assert_eq!(targets, ["/products/7"]);
//! ```

use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode};

use crate::authority::{Authority, Scheme};
use crate::request::is_safe;

/// Whether this method and status invalidate what is stored for the target URI: an unsafe or unknown
/// method with a 2xx or 3xx answer.
#[must_use]
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// The other URIs to invalidate: `Location` and `Content-Location`, if they are of the same origin, as
/// path and query.
pub fn targets<'a>(
    base: Base<'a>,
    response: &'a HeaderMap,
) -> impl Iterator<Item = String> + use<'a> {
    [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .filter_map(move |name| base.resolve(response.get(name)?.as_bytes()))
}

/// What references are resolved against: the request target.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The effective authority. Without one only references without an authority resolve.
    pub authority: Option<Authority<'a>>,
    /// Path and query of the target.
    pub path_and_query: &'a str,
}

impl Base<'_> {
    /// Resolves a URI reference (RFC 3986 §5.2) to a path and query of the same origin. Other origins,
    /// other schemes and what is no reference give `None`. The fragment is dropped.
    #[must_use]
    pub fn resolve(&self, reference: &[u8]) -> Option<String> {
        let reference = std::str::from_utf8(reference).ok()?.trim_ascii();
        if reference.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return None;
        }
        let reference = reference.split('#').next().unwrap_or_default();
        if let Some((scheme, rest)) = split_scheme(reference) {
            let scheme = Scheme::parse(scheme)?;
            return self.same_origin(scheme, rest.strip_prefix("//")?);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return self.same_origin(self.authority?.scheme(), rest);
        }
        let base_path = self.path_and_query.split('?').next().unwrap_or_default();
        let (path, query) = split_query(reference);
        Some(match path {
            "" if query.is_none() => self.path_and_query.to_owned(),
            "" => with_query(base_path, query),
            _ if path.starts_with('/') => with_query(&remove_dots(path), query),
            _ => {
                let directory = base_path.rfind('/').map_or("/", |slash| &base_path[..=slash]);
                with_query(&remove_dots(&format!("{directory}{path}")), query)
            }
        })
    }

    fn same_origin(&self, scheme: Scheme, rest: &str) -> Option<String> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let authority = Authority::parse(scheme, authority.as_bytes()).ok()?;
        if Some(authority) != self.authority {
            return None;
        }
        let (path, query) = split_query(target);
        Some(with_query(if path.is_empty() { "/" } else { path }, query)).map(|target| {
            let (path, query) = split_query(&target);
            with_query(&remove_dots(path), query)
        })
    }
}

/// `scheme:rest`, if it begins so.
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    valid.then_some((scheme, rest))
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// RFC 3986 §5.2.4, for a path that begins with `/`.
fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}
