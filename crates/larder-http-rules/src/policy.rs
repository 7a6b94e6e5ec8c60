//! The rules that differ between profiles, as plain data.

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;

use crate::NamePattern;
use crate::cache_control::RequestDirectives;
use crate::credentials::CredentialRule;

/// What a cache does where the RFCs leave a choice, or where an application wants more caution than a
/// proxy. Take a profile and change its fields:
///
/// ```
/// use larder_http_rules::Policy;
/// use std::time::Duration;
///
/// let mut policy = Policy::application();
/// policy.max_ttl = Some(Duration::from_secs(3600));
/// policy.extra_credentials.push("x-tenant-key".parse().unwrap());
/// assert!(policy.shared);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// A shared cache obeys `private`, `s-maxage` and the credential rules; a private one belongs to one
    /// user (RFC 9111 §1.2).
    pub shared: bool,
    /// Heuristic freshness (RFC 9111 §4.2.2). `None` stores nothing that nobody asked to store.
    pub heuristics: Option<Heuristics>,
    /// Stores a response without any freshness if it has a validator and a heuristically cacheable
    /// status, to be validated on every use.
    pub store_without_freshness: bool,
    /// The longest freshness lifetime.
    pub max_ttl: Option<Duration>,
    /// The longest stale window, whoever asked for it.
    pub max_stale: Option<Duration>,
    /// For how long a response with a validator is kept past its lifetime, so that the handler need only say that it is
    /// still good (RFC 9111 §4.3).
    pub keep: Duration,
    /// For how long a stale response may be served if the handler gave no response at all, although
    /// nothing says so (RFC 9111 §4.2.4).
    pub stale_on_failure: Option<Duration>,
    /// Whether `s-maxage` forbids stale use as `proxy-revalidate` does (RFC 9111 §5.2.2.10).
    pub s_maxage_forbids_stale: bool,
    /// Whether the `Date` of a response counts in its age (RFC 9111 §4.2.3).
    pub apparent_age: bool,
    /// Whether a response with `Set-Cookie` may be stored if its own header gives it a positive
    /// freshness lifetime. Off: never.
    pub store_set_cookie: bool,
    /// Whether an answer to POST with explicit freshness and a `Content-Location` equal to the target is
    /// stored for GET (RFC 9110 §9.3.3).
    pub store_post: bool,
    /// Statuses stored whenever anything gives them freshness, a route's TTL included.
    pub statuses: Vec<StatusCode>,
    /// Statuses stored only if their own header gives them freshness, or the route names them.
    pub statuses_with_freshness: Vec<StatusCode>,
    /// Statuses stored only if the route names them, for at most [`Policy::opt_in_max_ttl`].
    pub statuses_opt_in: Vec<StatusCode>,
    /// The lifetime ceiling of [`Policy::statuses_opt_in`]; they are never served stale.
    pub opt_in_max_ttl: Duration,
    /// Treats every other final status like [`Policy::statuses_with_freshness`] (RFC 9111 §3).
    pub any_status_with_freshness: bool,
    /// Refuses redirects without `Location` (threat P16).
    pub redirect_needs_location: bool,
    /// `must-understand` beside `no-store`: store if the status is known (RFC 9111 §5.2.2.3).
    pub must_understand: bool,
    /// `must-revalidate` also declares an answer to `Authorization` shared (RFC 9111 §3.5).
    pub must_revalidate_shares: bool,
    /// A request with a credential may be answered by what was stored for a request without one.
    pub credentials_may_read: bool,
    /// Counts `X-Api-Key`, `Remote-User` and the other
    /// [known names](crate::credentials::credential_names) as credentials, besides `Authorization` and
    /// `Cookie`.
    pub other_credentials: bool,
    /// More names that are credentials.
    pub extra_credentials: Vec<HeaderName>,
    /// Whether a `Vary` that names a credential is stored, and matched like any other (threat P09).
    pub vary_on_credentials: bool,
    /// Override headers that the application trusts: key parts instead of a bypass (threat P05).
    pub trusted_overrides: Vec<HeaderName>,
    /// Which request directives are obeyed.
    pub client: ClientDirectives,
    /// The targeted fields (RFC 9213) that address this cache, in order of preference: the first that is there and
    /// valid counts instead of `Cache-Control` and `Expires`.
    pub targeted: Vec<HeaderName>,
    /// Whether parts of a representation (206) are stored, and completed from stored ones (RFC 9111 §3.3, §3.4). Ranges
    /// of what is stored whole are served in any case.
    pub store_partial: bool,
    /// Whether a stored response whose `Content-Language` is the one language that a request prefers answers it, although
    /// its `Accept-Language` is another than the one that it was stored for (RFC 9111 §4.1).
    pub select_language: bool,
    /// Whether a response with a `Content-Encoding` is kept from requests that do not accept it, although its `Vary` does
    /// not say so.
    pub key_content_coding: bool,
    /// Whether a response that says by `No-Vary-Search` that parts of its query do not matter is shared among the queries
    /// that differ in nothing else. Then every request with an unsafe method makes another step in the store, to drop
    /// what is stored for several queries.
    pub no_vary_search: bool,
    /// Does six things that the public cache tests ask for and that are wrong or wasteful, to show that they can be done;
    /// not for use. `If-Modified-Since` is answered with 304 where there is no `Last-Modified` to compare it with; a
    /// part is believed to be as long as its body, whatever its `Content-Range` says, and to be the end of the whole; a
    /// part is completed without a validator; and a 304 updates a response that it names by another entity tag.
    pub contested: bool,
    /// Whether the order of equally weighted `Accept-Language` members is part of a variant.
    pub language_order: bool,
}

impl Policy {
    /// For a cache inside an application, safe by default: explicit freshness only; nothing that could
    /// be one visitor's own is shared; strangers cannot bypass the cache.
    #[must_use]
    pub fn application() -> Self {
        Self {
            shared: true,
            heuristics: None,
            store_without_freshness: false,
            max_ttl: Some(DAY),
            max_stale: Some(DAY),
            keep: Duration::from_secs(3600),
            stale_on_failure: None,
            s_maxage_forbids_stale: true,
            apparent_age: true,
            store_set_cookie: false,
            store_post: false,
            statuses: statuses(&[200, 203, 300, 301, 308]),
            statuses_with_freshness: statuses(&[204, 302, 303, 307]),
            statuses_opt_in: statuses(&[404, 405, 410]),
            opt_in_max_ttl: Duration::from_secs(10),
            any_status_with_freshness: false,
            redirect_needs_location: true,
            must_understand: true,
            must_revalidate_shares: false,
            credentials_may_read: false,
            other_credentials: true,
            extra_credentials: Vec::new(),
            vary_on_credentials: false,
            trusted_overrides: Vec::new(),
            client: ClientDirectives::ONLY_IF_CACHED,
            targeted: Vec::new(),
            store_partial: true,
            select_language: false,
            key_content_coding: true,
            no_vary_search: false,
            contested: false,
            language_order: true,
        }
    }

    /// A shared cache to the letter of RFC 9111, as a reverse proxy wants it.
    #[must_use]
    pub fn rfc9111() -> Self {
        Self {
            heuristics: Some(Heuristics { percent: 10, max: DAY }),
            store_without_freshness: true,
            max_ttl: None,
            max_stale: None,
            keep: DAY,
            stale_on_failure: Some(Duration::from_secs(3600)),
            store_set_cookie: true,
            store_post: true,
            statuses: statuses(HEURISTIC_STATUSES),
            statuses_with_freshness: Vec::new(),
            statuses_opt_in: Vec::new(),
            any_status_with_freshness: true,
            redirect_needs_location: false,
            must_revalidate_shares: true,
            credentials_may_read: true,
            other_credentials: false,
            vary_on_credentials: true,
            client: ClientDirectives::ALL,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            select_language: true,
            no_vary_search: true,
            key_content_coding: false,
            language_order: false,
            ..Self::application()
        }
    }

    /// A private cache to the letter of RFC 9111: one user's own, as a browser's. It stores what is `private` and what
    /// goes with credentials, and does not obey what is said to shared caches alone.
    ///
    /// For the client's side of a service. A client that asks for many users with one cache needs a partition by user,
    /// or is a shared cache.
    #[must_use]
    pub fn private() -> Self {
        Self { shared: false, targeted: Vec::new(), ..Self::rfc9111() }
    }

    /// The directives of a request that this policy obeys; the others are as if they were absent.
    #[must_use]
    pub fn obeyed(&self, said: &RequestDirectives) -> RequestDirectives {
        let obey = &self.client;
        RequestDirectives {
            no_cache: said.no_cache && obey.no_cache,
            no_store: said.no_store && obey.no_store,
            max_age: said.max_age.filter(|_| obey.max_age),
            min_fresh: said.min_fresh.filter(|_| obey.min_fresh),
            max_stale: said.max_stale.filter(|_| obey.max_stale),
            only_if_cached: said.only_if_cached && obey.only_if_cached,
            no_transform: said.no_transform,
            pragma_no_cache: said.pragma_no_cache && obey.pragma,
        }
    }

    pub(crate) fn status_class(&self, status: StatusCode, route: &RouteRule) -> StatusClass {
        let own = self.statuses_with_freshness.contains(&status);
        let opt_in = self.statuses_opt_in.contains(&status);
        let named = route.statuses.contains(&status);
        if status.is_informational() || matches!(status.as_u16(), 206 | 304) {
            StatusClass::Never
        } else if opt_in {
            if named { StatusClass::OptedIn } else { StatusClass::NotOptedIn }
        } else if self.statuses.contains(&status)
            || (named && (own || self.any_status_with_freshness))
        {
            StatusClass::Any
        } else if own || self.any_status_with_freshness {
            StatusClass::OwnFreshness
        } else {
            StatusClass::Never
        }
    }
}

impl Default for Policy {
    /// [`Policy::application`]
    fn default() -> Self {
        Self::application()
    }
}

/// Freshness that nobody stated, guessed from how long ago the response was modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heuristics {
    /// The share of the time since `Last-Modified` that becomes the lifetime.
    pub percent: u32,
    /// The longest such lifetime.
    pub max: Duration,
}

/// Which request directives are obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientDirectives {
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `no-cache`
    pub no_cache: bool,
    /// `no-store`
    pub no_store: bool,
    /// `max-age`
    pub max_age: bool,
    /// `min-fresh`
    pub min_fresh: bool,
    /// `max-stale`
    pub max_stale: bool,
    /// `Pragma: no-cache`
    pub pragma: bool,
}

impl ClientDirectives {
    /// All of them.
    pub const ALL: Self = Self {
        only_if_cached: true,
        no_cache: true,
        no_store: true,
        max_age: true,
        min_fresh: true,
        max_stale: true,
        pragma: true,
    };
    /// `only-if-cached` alone, so that strangers cannot make the handler work.
    pub const ONLY_IF_CACHED: Self = Self {
        only_if_cached: true,
        no_cache: false,
        no_store: false,
        max_age: false,
        min_fresh: false,
        max_stale: false,
        pragma: false,
    };
}

/// What a route says in code.
///
/// ```
/// use larder_http_rules::RouteRule;
/// use std::time::Duration;
///
/// let route = RouteRule { ttl: Some(Duration::from_secs(300)), ..RouteRule::default() };
/// assert!(route.statuses.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRule {
    /// The lifetime, before what the response says, unless the response restricts itself.
    pub ttl: Option<Duration>,
    /// The lifetime if the response says nothing.
    pub default_ttl: Option<Duration>,
    /// The stale-while-revalidate window, before what the response says.
    pub stale_while_revalidate: Option<Duration>,
    /// The stale-if-error window, before what the response says.
    pub stale_if_error: Option<Duration>,
    /// Statuses that the route wants stored, of those the policy leaves to routes.
    pub statuses: Vec<StatusCode>,
    /// What the route declares about credentials.
    pub credentials: CredentialRule,
    /// `Set-Cookie` lines of these cookies do not keep a response out: the caller removes them from
    /// what it stores ([`Stored::strip_set_cookie`](crate::Stored::strip_set_cookie)).
    pub ignored_set_cookies: Vec<NamePattern>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusClass {
    Never,
    NotOptedIn,
    OptedIn,
    OwnFreshness,
    Any,
}

/// Heuristically cacheable (RFC 9110 §15.1), without 206.
pub(crate) const HEURISTIC_STATUSES: &[u16] =
    &[200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

const DAY: Duration = Duration::from_secs(86_400);

fn statuses(codes: &[u16]) -> Vec<StatusCode> {
    codes.iter().filter_map(|&code| StatusCode::from_u16(code).ok()).collect()
}
