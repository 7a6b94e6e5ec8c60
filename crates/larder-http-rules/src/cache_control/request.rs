//! Request directives.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, PRAGMA};

use super::scan::{Argument, Scan};
use super::smaller;

/// How stale a response the client accepts (RFC 9111 §5.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxStale {
    /// `max-stale` without a value: any staleness.
    Any,
    /// At most this much.
    For(Duration),
}

impl MaxStale {
    /// Whether `staleness` is accepted.
    #[must_use]
    pub fn accepts(self, staleness: Duration) -> bool {
        match self {
            MaxStale::Any => true,
            MaxStale::For(limit) => staleness <= limit,
        }
    }
}

/// What a request's `Cache-Control` says (RFC 9111 §5.2.1). Reading it allocates nothing.
///
/// ```
/// use http::{HeaderMap, header::CACHE_CONTROL};
/// use larder_http_rules::cache_control::RequestDirectives;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(CACHE_CONTROL, "only-if-cached, something-else".parse().unwrap());
/// assert!(RequestDirectives::from_headers(&headers).only_if_cached);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`
    pub no_cache: bool,
    /// `no-store`
    pub no_store: bool,
    /// `max-age`; zero if it cannot be parsed.
    pub max_age: Option<Duration>,
    /// `min-fresh`; the larger of duplicates, ignored if it cannot be parsed.
    pub min_fresh: Option<Duration>,
    /// `max-stale`; the smaller of duplicates, ignored if it cannot be parsed.
    pub max_stale: Option<MaxStale>,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `no-transform`
    pub no_transform: bool,
    /// `Pragma: no-cache` in a request without `Cache-Control` (RFC 9111 §5.4).
    pub pragma_no_cache: bool,
}

impl RequestDirectives {
    /// Reads all `Cache-Control` lines, and `Pragma` when there is none.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            said.line(line.as_bytes());
        }
        if !headers.contains_key(CACHE_CONTROL) {
            said.pragma_no_cache = headers
                .get_all(PRAGMA)
                .iter()
                .flat_map(|line| Scan::new(line.as_bytes()))
                .any(|directive| directive.is("no-cache"));
        }
        said
    }

    fn line(&mut self, line: &[u8]) {
        for directive in Scan::new(line) {
            let seconds = directive.seconds();
            if directive.is("no-cache") {
                self.no_cache = true;
            } else if directive.is("no-store") {
                self.no_store = true;
            } else if directive.is("max-age") {
                self.max_age = smaller(self.max_age, seconds.unwrap_or_default());
            } else if directive.is("min-fresh") {
                self.min_fresh = self.min_fresh.max(seconds);
            } else if directive.is("max-stale") {
                self.max_stale = match (self.max_stale, directive.argument, seconds) {
                    (None, Argument::None, _) => Some(MaxStale::Any),
                    (Some(MaxStale::For(old)), _, Some(new)) => Some(MaxStale::For(old.min(new))),
                    (_, _, Some(new)) => Some(MaxStale::For(new)),
                    (old, _, None) => old,
                };
            } else if directive.is("only-if-cached") {
                self.only_if_cached = true;
            } else if directive.is("no-transform") {
                self.no_transform = true;
            }
        }
    }
}
