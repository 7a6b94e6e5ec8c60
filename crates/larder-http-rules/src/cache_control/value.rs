//! A `Cache-Control` value to build, merge and render.

use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName};

use super::scan::Scan;
use super::{FieldList, MAX_DELTA, ResponseDirectives, smaller};
use crate::freshness;

/// A `Cache-Control` response value.
///
/// ```
/// use http::{HeaderMap, header::CACHE_CONTROL};
/// use larder_http_rules::CacheControl;
/// use std::time::{Duration, SystemTime};
///
/// let layer = CacheControl::new().public().max_age(Duration::from_secs(60));
/// assert_eq!(layer.to_header_value(), "public, max-age=60");
///
/// // what the handler said is never weakened
/// let mut headers = HeaderMap::new();
/// headers.insert(CACHE_CONTROL, "private, max-age=10, x-vendor=1".parse().unwrap());
/// layer.apply(&mut headers, SystemTime::now());
/// assert_eq!(headers[CACHE_CONTROL], "private, max-age=10, x-vendor=1");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheControl {
    said: ResponseDirectives,
    /// Members this crate does not know, as they were sent.
    unknown: Vec<Box<[u8]>>,
}

impl CacheControl {
    /// No directives.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value for what nobody may keep: `no-store, no-cache, private, must-revalidate, max-age=0`.
    ///
    /// ```
    /// use larder_http_rules::CacheControl;
    /// assert_eq!(
    ///     CacheControl::never().to_header_value(),
    ///     "no-store, no-cache, private, must-revalidate, max-age=0"
    /// );
    /// ```
    #[must_use]
    pub fn never() -> Self {
        Self::new().no_store().no_cache().private().must_revalidate().max_age(Duration::ZERO)
    }

    /// Reads all `Cache-Control` lines, directives that are not known included.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut value = Self::default();
        let mut open_quote = false;
        for line in headers.get_all(CACHE_CONTROL) {
            let mut scan = Scan::new(line.as_bytes());
            while let Some(directive) = scan.next() {
                let whole = !directive.raw.is_empty() && !scan.malformed();
                if !value.said.apply(&directive) && whole {
                    let raw = Box::from(directive.raw);
                    if !value.unknown.contains(&raw) {
                        value.unknown.push(raw);
                    }
                }
            }
            open_quote |= scan.malformed();
        }
        if open_quote {
            value.said.distrust();
        }
        value.said.invalid = false; // the zero says it already
        value
    }

    /// The directives.
    #[must_use]
    pub fn directives(&self) -> &ResponseDirectives {
        &self.said
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `public`; takes back `private`.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.said.public = true;
        self.said.private = FieldList::Absent;
        self
    }

    /// `private`; takes back `public`.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.said.private = FieldList::All;
        self.said.public = false;
        self
    }

    /// `private="…"`: the named fields are for one user.
    #[must_use]
    pub fn private_fields(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        let list = FieldList::Fields(fields.into_iter().collect());
        self.said.private = self.said.private.union(list);
        self
    }

    /// `no-cache`
    #[must_use]
    pub fn no_cache(mut self) -> Self {
        self.said.no_cache = FieldList::All;
        self
    }

    /// `no-cache="…"`: the named fields need validation.
    #[must_use]
    pub fn no_cache_fields(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        let list = FieldList::Fields(fields.into_iter().collect());
        self.said.no_cache = self.said.no_cache.union(list);
        self
    }

    /// `no-store`
    #[must_use]
    pub fn no_store(mut self) -> Self {
        self.said.no_store = true;
        self
    }

    /// `max-age`, in whole seconds, rounded down.
    #[must_use]
    pub fn max_age(mut self, lifetime: Duration) -> Self {
        self.said.max_age = Some(whole(lifetime));
        self
    }

    /// `s-maxage`: the lifetime in shared caches.
    #[must_use]
    pub fn s_maxage(mut self, lifetime: Duration) -> Self {
        self.said.s_maxage = Some(whole(lifetime));
        self
    }

    /// `must-revalidate`
    #[must_use]
    pub fn must_revalidate(mut self) -> Self {
        self.said.must_revalidate = true;
        self
    }

    /// `proxy-revalidate`
    #[must_use]
    pub fn proxy_revalidate(mut self) -> Self {
        self.said.proxy_revalidate = true;
        self
    }

    /// `must-understand`
    #[must_use]
    pub fn must_understand(mut self) -> Self {
        self.said.must_understand = true;
        self
    }

    /// `no-transform`
    #[must_use]
    pub fn no_transform(mut self) -> Self {
        self.said.no_transform = true;
        self
    }

    /// `immutable`
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.said.immutable = true;
        self
    }

    /// `stale-while-revalidate`
    #[must_use]
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.said.stale_while_revalidate = Some(whole(window));
        self
    }

    /// `stale-if-error`
    #[must_use]
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.said.stale_if_error = Some(whole(window));
        self
    }

    /// Adds `self` to what `existing` says, and never weakens that:
    ///
    /// * `no-store` and `private` stay; beside them no `public`, `s-maxage` (and, for `no-store`, no
    ///   lifetime at all) is added. A `private` or `no-store` of ours takes back their `public`.
    /// * Of two lifetimes the smaller counts; an `s-maxage` of ours is at most their `max-age`.
    /// * Field lists of `no-cache` and `private` are united; the bare directive wins.
    /// * Directives that are not known survive.
    #[must_use]
    pub fn merge(&self, existing: &CacheControl) -> CacheControl {
        let (new, old) = (&self.said, &existing.said);
        let kept_out = old.no_store; // a lifetime beside their no-store could only weaken it
        let private = old.private.clone().union(new.private.clone());
        let shareable = !private.is_present();
        let lifetime = |ours: Option<Duration>, theirs: Option<Duration>| match (ours, theirs) {
            (Some(ours), _) if !kept_out => smaller(theirs, ours),
            _ => theirs,
        };
        let s_maxage = match (new.s_maxage, old.max_age) {
            _ if old.private.is_present() => None,
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, _) => ours,
        };
        let said = ResponseDirectives {
            no_store: old.no_store || new.no_store,
            no_cache: old.no_cache.clone().union(new.no_cache.clone()),
            public: shareable && (old.public || (new.public && !kept_out)),
            private,
            max_age: lifetime(new.max_age, old.max_age),
            s_maxage: lifetime(s_maxage, old.s_maxage),
            must_revalidate: old.must_revalidate || new.must_revalidate,
            proxy_revalidate: old.proxy_revalidate || new.proxy_revalidate,
            // must-understand makes caches ignore no-store, so it must not meet a foreign one
            must_understand: (old.must_understand && (old.no_store || !new.no_store))
                || (new.must_understand && !old.no_store),
            no_transform: old.no_transform || new.no_transform,
            immutable: old.immutable || (new.immutable && !kept_out),
            targeted: false,
            stale_while_revalidate: lifetime(
                new.stale_while_revalidate,
                old.stale_while_revalidate,
            ),
            stale_if_error: lifetime(new.stale_if_error, old.stale_if_error),
            invalid: false,
        };
        let mut unknown = existing.unknown.clone();
        unknown.extend(self.unknown.iter().filter(|raw| !existing.unknown.contains(raw)).cloned());
        CacheControl { said, unknown }
    }

    /// [Merges](CacheControl::merge) with the headers' `Cache-Control` and writes one line.
    ///
    /// A lifetime of ours would override an `Expires` that the handler set (RFC 9111 §5.3), so it is at
    /// most what that `Expires` gives.
    pub fn apply(&self, headers: &mut HeaderMap, now: SystemTime) {
        let existing = Self::from_headers(headers);
        let mut merged = self.merge(&existing);
        let by_expires = freshness::expires_lifetime(headers, now);
        if let Some(limit) = by_expires.filter(|_| existing.said.max_age.is_none()) {
            let limit = whole(limit);
            merged.said.max_age = merged.said.max_age.map(|ours| ours.min(limit));
            if existing.said.s_maxage.is_none() {
                merged.said.s_maxage = merged.said.s_maxage.map(|ours| ours.min(limit));
            }
        }
        if !merged.is_empty() {
            headers.insert(CACHE_CONTROL, merged.to_header_value());
        }
    }

    /// Renders the value, in a fixed order.
    #[must_use]
    pub fn to_header_value(&self) -> HeaderValue {
        let mut out = Vec::with_capacity(64);
        let said = &self.said;
        flag(&mut out, "public", said.public);
        flag(&mut out, "no-store", said.no_store);
        list(&mut out, "no-cache", &said.no_cache);
        list(&mut out, "private", &said.private);
        flag(&mut out, "must-revalidate", said.must_revalidate);
        flag(&mut out, "proxy-revalidate", said.proxy_revalidate);
        flag(&mut out, "must-understand", said.must_understand);
        flag(&mut out, "no-transform", said.no_transform);
        flag(&mut out, "immutable", said.immutable);
        seconds(&mut out, "max-age", said.max_age);
        seconds(&mut out, "s-maxage", said.s_maxage);
        seconds(&mut out, "stale-while-revalidate", said.stale_while_revalidate);
        seconds(&mut out, "stale-if-error", said.stale_if_error);
        for raw in &self.unknown {
            member(&mut out, raw);
        }
        // every part came from a header value or from this file; no-store would be the safe way out
        HeaderValue::from_bytes(&out).unwrap_or(HeaderValue::from_static("no-store"))
    }
}

fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs()).min(MAX_DELTA)
}

fn member(out: &mut Vec<u8>, text: &[u8]) {
    if !out.is_empty() {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(text);
}

fn flag(out: &mut Vec<u8>, name: &str, set: bool) {
    if set {
        member(out, name.as_bytes());
    }
}

fn seconds(out: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    if let Some(value) = value {
        member(out, format!("{name}={}", value.as_secs()).as_bytes());
    }
}

fn list(out: &mut Vec<u8>, name: &str, fields: &FieldList) {
    match fields {
        FieldList::Absent => {}
        FieldList::All => member(out, name.as_bytes()),
        FieldList::Fields(names) => {
            let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
            member(out, format!("{name}=\"{}\"", names.join(", ")).as_bytes());
        }
    }
}
