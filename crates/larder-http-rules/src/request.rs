//! The request before look-up: one pass over its header names, and what to do with it.
//!
//! ```
//! use http::{HeaderMap, Method, header};
//! use larder_http_rules::{Handling, Policy, Reason, RequestFacts, request};
//!
//! let policy = Policy::application();
//! let mut headers = HeaderMap::new();
//! let facts = RequestFacts::scan(&policy, &headers);
//! assert_eq!(request::handling(&policy, &Method::GET, facts, &headers), Handling::Lookup {
//!     only_if_cached: false
//! });
//!
//! headers.insert("x-original-url", "/admin".parse().unwrap());
//! let facts = RequestFacts::scan(&policy, &headers);
//! assert_eq!(
//!     request::handling(&policy, &Method::GET, facts, &headers),
//!     Handling::Bypass(Reason::OverrideHeader)
//! );
//! ```

use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Uri};

use crate::authority::HostField;
use crate::cache_control::RequestDirectives;
use crate::credentials::CredentialState;
use crate::{Policy, Reason, names, overrides};

/// Which of the headers that matter a request has: a set of flags, made in one pass over the names.
///
/// A flag says that the *name* is present. Whether a credential is empty, or a `Content-Length` zero, is
/// looked at later, and only then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RequestFacts(u32);

impl RequestFacts {
    /// `Authorization`
    pub const AUTHORIZATION: Self = Self(1);
    /// `Cookie`
    pub const COOKIE: Self = Self(1 << 1);
    /// Another credential, such as `X-Api-Key`, `Remote-User`, or one that the policy adds.
    pub const CREDENTIAL: Self = Self(1 << 2);
    /// `Range`
    pub const RANGE: Self = Self(1 << 3);
    /// `If-Range`
    pub const IF_RANGE: Self = Self(1 << 4);
    /// `Cache-Control`
    pub const CACHE_CONTROL: Self = Self(1 << 5);
    /// `Pragma`
    pub const PRAGMA: Self = Self(1 << 6);
    /// `If-None-Match` or `If-Modified-Since`
    pub const CONDITIONAL: Self = Self(1 << 7);
    /// `If-Match` or `If-Unmodified-Since`
    pub const PRECONDITION: Self = Self(1 << 8);
    /// `Content-Length` or `Transfer-Encoding`
    pub const CONTENT: Self = Self(1 << 9);
    /// `Upgrade`
    pub const UPGRADE: Self = Self(1 << 10);
    /// `Expect`
    pub const EXPECT: Self = Self(1 << 11);
    /// `Host`
    pub const HOST: Self = Self(1 << 12);
    /// `X-Forwarded-Host`, `-Proto`, `-Port`, `-Prefix` or `Forwarded`: parts of the key.
    pub const FORWARDED: Self = Self(1 << 13);
    /// A header that can change what the handler sees and is not part of the key.
    pub const OVERRIDE: Self = Self(1 << 14);
    /// An override header that the policy declares trusted, so it is part of the key.
    pub const TRUSTED_OVERRIDE: Self = Self(1 << 15);

    /// Not of the headers: the query in its key is another than its own, since a response said that what is left out
    /// does not matter ([`no_vary_search`](crate::no_vary_search)).
    pub const QUERY_REWRITTEN: Self = Self(1 << 16);
    /// Not of the headers: whoever asks may see how this request is decided.
    pub const EXPLAINED: Self = Self(1 << 17);
    /// Not of the headers: the content of this QUERY was read, and is part of its key (RFC 10008 §2.7). Says nothing for
    /// other methods.
    pub const CONTENT_KEYED: Self = Self(1 << 18);

    /// Passes over the header names once. Allocates nothing.
    #[must_use]
    pub fn scan(policy: &Policy, headers: &HeaderMap) -> Self {
        Self::scan_with_host(policy, headers).0
    }

    /// The same, and what there is of `Host` while we are at it.
    #[must_use]
    pub fn scan_with_host<'a>(policy: &Policy, headers: &'a HeaderMap) -> (Self, HostField<'a>) {
        let mut facts = 0;
        let mut host = HostField::Absent;
        for (name, value) in headers {
            let bits = names::bits(name.as_str());
            if bits != 0 {
                facts |= bits;
                if bits == Self::HOST.0 {
                    host = match host {
                        HostField::Absent => HostField::One(value.as_bytes()),
                        _ => HostField::Several,
                    };
                }
            }
        }
        if !policy.extra_credentials.is_empty() || !policy.trusted_overrides.is_empty() {
            facts = Self::with_the_policys_own(facts, policy, headers);
        }
        (Self(facts), host)
    }

    // The names that the policy adds, and the overrides that it trusts. Apart, since few policies have any.
    fn with_the_policys_own(mut facts: u32, policy: &Policy, headers: &HeaderMap) -> u32 {
        facts &= !Self::OVERRIDE.0;
        for name in headers.keys() {
            let is_override = names::bits(name.as_str()) & Self::OVERRIDE.0 != 0;
            if policy.trusted_overrides.contains(name) {
                facts |= Self::TRUSTED_OVERRIDE.0;
            } else if is_override {
                facts |= Self::OVERRIDE.0;
            }
            if policy.extra_credentials.contains(name) {
                facts |= Self::CREDENTIAL.0;
            }
        }
        facts
    }

    /// Whether any of `flags` is set.
    #[must_use]
    pub const fn any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags but not `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The raw bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Everything that leaves the fast path of a hit; if none of these is set, the request is a plain one.
    pub const UNUSUAL: Self = Self(!(Self::HOST.0 | Self::EXPECT.0));
}

/// What to do with a request before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// GET, HEAD, or a QUERY whose content is in its key: look it up.
    Lookup {
        /// Nothing usable stored means 504 (RFC 9111 §5.2.1.7).
        only_if_cached: bool,
    },
    /// Pass it on; neither read nor fill.
    Bypass(Reason),
    /// Pass it on; a non-error answer invalidates (see [`crate::invalidate`]).
    Unsafe,
}

/// Decides how a request is handled, by method and headers. Its authority is looked at by
/// [`crate::authority::effective`], its credentials by [`crate::credentials::assess`].
///
/// A request whose content is announced by neither `Content-Length` nor `Transfer-Encoding` exists in
/// HTTP/2: the caller must also bypass when the request's body is not empty.
#[must_use]
pub fn handling(
    policy: &Policy,
    method: &Method,
    facts: RequestFacts,
    headers: &HeaderMap,
) -> Handling {
    let query = is_keyed_query(method, facts);
    if *method != Method::GET && *method != Method::HEAD && !query {
        return match method.as_str() {
            "QUERY" => Handling::Bypass(Reason::QueryContent),
            _ if is_safe(method) => Handling::Bypass(Reason::Method),
            _ => Handling::Unsafe,
        };
    }
    if !facts.any(RequestFacts::UNUSUAL) {
        return Handling::Lookup { only_if_cached: false };
    }
    // The content of a QUERY is part of its key.
    let considered = if query { facts.without(RequestFacts::CONTENT) } else { facts };
    if let Some(reason) = bypass(considered, headers) {
        return Handling::Bypass(reason);
    }
    if !facts.any(RequestFacts::CACHE_CONTROL.union(RequestFacts::PRAGMA)) {
        return Handling::Lookup { only_if_cached: false };
    }
    let said = policy.obeyed(&RequestDirectives::from_headers(headers));
    Handling::Lookup { only_if_cached: said.only_if_cached }
}

/// Safe methods (RFC 9110 §9.2.1 and the registry), which invalidate nothing. Unknown methods are unsafe.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

/// A QUERY whose content is part of its key, so that what is stored for it answers whoever asks the same (RFC 10008 §2.7).
#[must_use]
pub fn is_keyed_query(method: &Method, facts: RequestFacts) -> bool {
    facts.any(RequestFacts::CONTENT_KEYED) && method.as_str() == "QUERY"
}

fn bypass(facts: RequestFacts, headers: &HeaderMap) -> Option<Reason> {
    if facts.any(RequestFacts::OVERRIDE) {
        Some(Reason::OverrideHeader)
    } else if facts.any(RequestFacts::CONTENT) && has_content(headers) {
        Some(Reason::RequestContent)
    } else if facts.any(RequestFacts::PRECONDITION) {
        Some(Reason::Precondition)
    } else if facts.any(RequestFacts::UPGRADE) {
        Some(Reason::Upgrade)
    } else if facts.any(RequestFacts::FORWARDED.union(RequestFacts::TRUSTED_OVERRIDE)) {
        overrides::check(headers).err()
    } else {
        None
    }
}

/// `Transfer-Encoding`, or any `Content-Length` that is not plainly zero.
fn has_content(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0")
}

/// The request as the later decisions see it.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// What [`RequestFacts::scan`] found in them.
    pub facts: RequestFacts,
    /// What [`crate::credentials::assess`] made of its credentials.
    pub credentials: CredentialState,
}
