//! May this response be stored (RFC 9111 §3), and on which terms?
//!
//! ```
//! use http::{HeaderMap, Method, StatusCode, Uri, header::CACHE_CONTROL};
//! use larder_http_rules::{
//!     CredentialState, Policy, Reason, RequestFacts, RequestView, RouteRule, Times, storable,
//! };
//! use std::time::{Duration, SystemTime};
//!
//! let policy = Policy::application();
//! let (method, uri, asked) = (Method::GET, Uri::from_static("/"), HeaderMap::new());
//! let request = RequestView {
//!     method: &method,
//!     uri: &uri,
//!     headers: &asked,
//!     facts: RequestFacts::scan(&policy, &asked),
//!     credentials: CredentialState::Absent,
//! };
//! let times = Times::at(SystemTime::now());
//!
//! let mut answer = HeaderMap::new();
//! let refused = storable(&policy, &RouteRule::default(), &request, StatusCode::OK, &answer, times);
//! assert_eq!(refused.unwrap_err(), Reason::NoFreshness);
//!
//! answer.insert(CACHE_CONTROL, "max-age=60".parse().unwrap());
//! let stored = storable(&policy, &RouteRule::default(), &request, StatusCode::OK, &answer, times);
//! assert_eq!(stored.unwrap().terms.lifetime, Duration::from_secs(60));
//! ```

use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    LAST_MODIFIED, LOCATION, SET_COOKIE,
};
use http::{Method, StatusCode};

use crate::cache_control::{RequestDirectives, ResponseDirectives};
use crate::credentials::is_credential;
use crate::freshness::{Freshness, is_heuristic_status};
use crate::invalidate::Base;
use crate::policy::StatusClass;
use crate::range::Part;
use crate::request::{Handling, handling, is_keyed_query};
use crate::vary::{Coding, Vary};
use crate::{
    CredentialState, FreshnessSource, Policy, Reason, RequestFacts, RequestView, RouteRule, age,
    date, freshness,
};

/// When the request went to the handler and when its response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When the request went out.
    pub request: SystemTime,
    /// When the response head came.
    pub response: SystemTime,
}

impl Times {
    /// An exchange that took no time.
    #[must_use]
    pub fn at(now: SystemTime) -> Self {
        Self { request: now, response: now }
    }
}

/// The terms on which a stored response may be used: computed once when it is stored, so that a hit
/// parses nothing. Every field belongs into the stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The freshness lifetime, counted from when the origin made the response.
    pub lifetime: Duration,
    /// Where the lifetime came from.
    pub source: FreshnessSource,
    /// How old the response was when it was stored.
    pub initial_age: Duration,
    /// Every use needs a successful validation (`no-cache`).
    pub no_cache: bool,
    /// Never to be used stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub forbids_stale: bool,
    /// For how long after its lifetime it may answer while it is refreshed.
    pub stale_while_revalidate: Duration,
    /// For how long after its lifetime it may answer for a failing handler.
    pub stale_if_error: Duration,
    /// The response itself declared that it may be given to requests with credentials.
    pub shared_despite_credentials: bool,
    /// There is an `ETag` or a `Last-Modified` to validate with.
    pub has_validator: bool,
}

impl Terms {
    /// The age after `resident` time in the store (RFC 9111 §4.2.3).
    #[must_use]
    pub fn age(&self, resident: Duration) -> Duration {
        age::current_age(self.initial_age, resident)
    }

    /// The remaining lifetime in whole seconds, negative when stale (RFC 9211 §2.4).
    #[must_use]
    pub fn ttl(&self, resident: Duration) -> i64 {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        seconds(self.lifetime).saturating_sub(seconds(self.age(resident)))
    }

    /// For how long it answers by its own word, counted from now: its lifetime and the larger of its stale windows.
    #[must_use]
    pub fn answers_for(&self) -> Duration {
        let window = if self.forbids_stale || self.no_cache {
            Duration::ZERO
        } else {
            self.stale_while_revalidate.max(self.stale_if_error)
        };
        self.for_a_window_of(window)
    }

    /// For how long it is of any use, counted from now: as long as it answers, as the policy keeps it to be validated, and
    /// as the policy lets it stand in for a handler that gives no response.
    #[must_use]
    pub fn usable_for(&self, policy: &Policy) -> Duration {
        let validated = if self.has_validator { policy.keep } else { Duration::ZERO };
        let stands_in = match policy.stale_on_failure {
            Some(window) if !self.forbids_stale && !self.no_cache => window,
            _ => Duration::ZERO,
        };
        self.answers_for().max(self.for_a_window_of(validated.max(stands_in)))
    }

    /// Whether it is of any use when it is stale.
    #[must_use]
    pub fn outlasts(&self, policy: &Policy) -> bool {
        self.usable_for(policy) > self.for_a_window_of(Duration::ZERO)
    }

    fn for_a_window_of(&self, window: Duration) -> Duration {
        self.lifetime.saturating_add(window).saturating_sub(self.initial_age)
    }
}

/// A response that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// On which terms.
    pub terms: Terms,
    /// The request headers that select this variant: sorted, without those that the route covers by a
    /// finer key part.
    pub vary: Vec<HeaderName>,
    /// Which bytes of the whole these are, for a 206 response.
    pub part: Option<Part>,
    /// `Set-Cookie` must be removed from what is stored: the route ignores these cookies.
    pub strip_set_cookie: bool,
}

/// Decides whether the response to `request` may be stored.
///
/// Nothing in a request can make an unstorable response storable: the request only ever adds reasons
/// against. Call this before hop-by-hop fields are removed, and only for a response that is complete.
///
/// # Errors
///
/// The first [`Reason`] against storing.
pub fn storable(
    policy: &Policy,
    route: &RouteRule,
    request: &RequestView<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    times: Times,
) -> Result<Stored, Reason> {
    let post = check_request(policy, request)?;
    let said = ResponseDirectives::targeted(&policy.targeted, headers);
    let part = check_part(policy, request, status, headers)?;
    // A part is stored as its whole would be.
    let class = check_status(policy, route, if part.is_some() { StatusCode::OK } else { status })?;
    check_directives(policy, status, &said)?;
    check_type(headers)?;
    let set_cookie = check_set_cookie(policy, route, headers)?;
    let vary = check_vary(policy, route, headers)?;
    check_credentials(policy, request, &said)?;
    if policy.redirect_needs_location
        && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
        && !headers.contains_key(LOCATION)
    {
        return Err(Reason::RedirectWithoutLocation);
    }

    let now = times.response;
    // What answers a QUERY is fresh by somebody's word only.
    let query = is_keyed_query(request.method, request.facts);
    let guess = set_cookie == SetCookies::None
        && !query
        && !request.facts.any(RequestFacts::COOKIE)
        && request.uri.query().is_none();
    let fresh = freshness::lifetime(policy, route, status, headers, &said, now, guess);
    let explicit = fresh.source.is_header() && !fresh.lifetime.is_zero();
    if set_cookie == SetCookies::Kept && !explicit {
        return Err(Reason::SetCookie);
    }
    if post && !(explicit && locates_itself(request, headers)) {
        return Err(Reason::PostContentLocation);
    }

    let terms = terms(policy, route, headers, &said, times, fresh, class);
    check_freshness(policy, status, class, fresh, &terms)?;
    if query && fresh.source == FreshnessSource::None && !terms.no_cache {
        return Err(Reason::NoFreshness);
    }
    Ok(Stored { terms, vary, part, strip_set_cookie: set_cookie == SetCookies::Ignored })
}

/// Whether it is a POST.
fn check_request(policy: &Policy, request: &RequestView<'_>) -> Result<bool, Reason> {
    let post = policy.store_post && *request.method == Method::POST;
    if post {
        if request.facts.any(RequestFacts::OVERRIDE) {
            return Err(Reason::OverrideHeader);
        }
        if request.facts.any(RequestFacts::RANGE) {
            return Err(Reason::RangeRequest);
        }
    } else {
        match handling(policy, request.method, request.facts, request.headers) {
            Handling::Lookup { .. } if *request.method == Method::HEAD => {
                return Err(Reason::HeadResponse);
            }
            Handling::Lookup { .. } => {}
            Handling::Bypass(reason) => return Err(reason),
            Handling::Unsafe => return Err(Reason::UnsafeMethod),
        }
    }
    if policy.client.no_store
        && request.facts.any(RequestFacts::CACHE_CONTROL)
        && RequestDirectives::from_headers(request.headers).no_store
    {
        return Err(Reason::RequestNoStore);
    }
    Ok(post)
}

/// Which part a 206 is. Any other answer to a request with `Range` than the whole or a part is about the range, and no
/// answer to others.
fn check_part(
    policy: &Policy,
    request: &RequestView<'_>,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Part>, Reason> {
    let ranged = request.facts.any(RequestFacts::RANGE);
    match status {
        StatusCode::PARTIAL_CONTENT if policy.store_partial && ranged => {
            Part::of_response(headers).map(Some).ok_or(Reason::PartialContent)
        }
        StatusCode::PARTIAL_CONTENT => Err(Reason::PartialContent),
        StatusCode::OK => Ok(None),
        _ if ranged => Err(Reason::RangeRequest),
        _ => Ok(None),
    }
}

fn check_status(
    policy: &Policy,
    route: &RouteRule,
    status: StatusCode,
) -> Result<StatusClass, Reason> {
    match (policy.status_class(status, route), status.as_u16()) {
        (_, 304) => Err(Reason::NotModified),
        (StatusClass::Never, _) => Err(Reason::Status),
        (StatusClass::NotOptedIn, _) => Err(Reason::StatusNotOptedIn),
        (class, _) => Ok(class),
    }
}

fn check_directives(
    policy: &Policy,
    status: StatusCode,
    said: &ResponseDirectives,
) -> Result<(), Reason> {
    if said.must_understand && policy.must_understand {
        if status.canonical_reason().is_none() {
            return Err(Reason::MustUnderstand);
        }
    } else if said.no_store {
        return Err(Reason::NoStore);
    }
    if policy.shared && said.private.is_present() {
        return Err(Reason::Private);
    }
    Ok(())
}

// Media types whose responses go on for as long as somebody listens (the HTML standard, §9.2, and browsers' "server
// push"). Who comes later must get a stream of its own, and without waiting for the end of another one.
fn check_type(headers: &HeaderMap) -> Result<(), Reason> {
    let endless = headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        [&b"text/event-stream"[..], b"multipart/x-mixed-replace"]
            .iter()
            .any(|endless| essence.eq_ignore_ascii_case(endless))
    });
    if endless { Err(Reason::Endless) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetCookies {
    None,
    Ignored,
    Kept,
}

fn check_set_cookie(
    policy: &Policy,
    route: &RouteRule,
    headers: &HeaderMap,
) -> Result<SetCookies, Reason> {
    let (mut lines, mut kept) = (0usize, headers.contains_key("set-cookie2"));
    for line in headers.get_all(SET_COOKIE) {
        let name = line.as_bytes().split(|&b| b == b'=' || b == b';').next().unwrap_or_default();
        let name = name.trim_ascii();
        lines += 1;
        kept |= !route.ignored_set_cookies.iter().any(|pattern| pattern.matches(name));
    }
    match (lines, kept) {
        (_, true) if policy.shared && !policy.store_set_cookie => Err(Reason::SetCookie),
        (_, true) => Ok(SetCookies::Kept),
        (0, false) => Ok(SetCookies::None),
        (_, false) => Ok(SetCookies::Ignored),
    }
}

fn check_vary(
    policy: &Policy,
    route: &RouteRule,
    headers: &HeaderMap,
) -> Result<Vec<HeaderName>, Reason> {
    let Vary::Names(mut names) = Vary::parse(headers) else {
        return Err(Reason::VaryAny);
    };
    names.retain(|name| !(is_credential(policy, name) && route.credentials.covers_vary(name)));
    if policy.shared
        && !policy.vary_on_credentials
        && names.iter().any(|name| is_credential(policy, name))
    {
        return Err(Reason::VaryCredential);
    }
    // codings that the selector drops from Accept-Encoding must not occur in what it selects
    let foreign = |value: &http::HeaderValue| {
        let mut codings = value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii);
        codings.any(|name| !name.is_empty() && Coding::of(name).is_none())
    };
    if names.contains(&ACCEPT_ENCODING) && headers.get_all(CONTENT_ENCODING).iter().any(foreign) {
        return Err(Reason::ContentCodingUnkeyed);
    }
    Ok(names)
}

fn check_credentials(
    policy: &Policy,
    request: &RequestView<'_>,
    said: &ResponseDirectives,
) -> Result<(), Reason> {
    let CredentialState::Undeclared(reason) = request.credentials else {
        return Ok(());
    };
    // RFC 9111 §3.5 speaks of Authorization alone
    let only_authorization =
        !request.facts.any(RequestFacts::COOKIE.union(RequestFacts::CREDENTIAL))
            && reason == Reason::AuthorizationNotShared;
    let shared = said.public
        || said.s_maxage.is_some()
        || (policy.must_revalidate_shares && said.must_revalidate && only_authorization);
    if !policy.shared || shared { Ok(()) } else { Err(reason) }
}

/// `Content-Location` names the request target (RFC 9110 §9.3.3).
fn locates_itself(request: &RequestView<'_>, headers: &HeaderMap) -> bool {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let base = Base { authority: None, path_and_query: target };
    let mut lines = headers.get_all(CONTENT_LOCATION).iter();
    match (lines.next(), lines.next()) {
        (Some(location), None) => base.resolve(location.as_bytes()).as_deref() == Some(target),
        _ => false,
    }
}

fn terms(
    policy: &Policy,
    route: &RouteRule,
    headers: &HeaderMap,
    said: &ResponseDirectives,
    times: Times,
    fresh: Freshness,
    class: StatusClass,
) -> Terms {
    let initial_age = age::initial_age(headers, times.request, times.response, policy.apparent_age);
    let (mut stale_while_revalidate, mut stale_if_error) =
        freshness::stale_windows(policy, route, said);
    let mut lifetime = fresh.lifetime;
    if class == StatusClass::OptedIn {
        lifetime = lifetime.min(policy.opt_in_max_ttl);
        (stale_while_revalidate, stale_if_error) = (Duration::ZERO, Duration::ZERO);
    }
    let s_maxage = said.s_maxage.is_some();
    Terms {
        lifetime,
        source: fresh.source,
        initial_age,
        no_cache: said.no_cache.is_present(),
        forbids_stale: said.revalidate(policy.shared)
            || (policy.shared && s_maxage && policy.s_maxage_forbids_stale),
        stale_while_revalidate,
        stale_if_error,
        shared_despite_credentials: said.public || s_maxage,
        has_validator: headers.contains_key(ETAG)
            || date::parse_field(headers, LAST_MODIFIED, times.response).is_some(),
    }
}

fn check_freshness(
    policy: &Policy,
    status: StatusCode,
    class: StatusClass,
    fresh: Freshness,
    terms: &Terms,
) -> Result<(), Reason> {
    if terms.no_cache && !terms.has_validator {
        return Err(Reason::NoCacheWithoutValidator);
    }
    if class == StatusClass::OwnFreshness && !fresh.source.is_header() {
        let guessed = fresh.source == FreshnessSource::Heuristic; // 599 with public
        if !guessed {
            return Err(Reason::StatusNeedsFreshness);
        }
    }
    if fresh.source == FreshnessSource::None && !terms.no_cache {
        let to_validate = policy.store_without_freshness && is_heuristic_status(status);
        if !(to_validate && terms.has_validator) {
            return Err(Reason::NoFreshness);
        }
    }
    if !terms.has_validator && terms.answers_for().is_zero() {
        return Err(match fresh {
            Freshness { invalid: true, .. } => Reason::InvalidFreshness,
            Freshness { lifetime, .. } if lifetime.is_zero() => Reason::ZeroLifetime,
            _ => Reason::AlreadyStale,
        });
    }
    Ok(())
}
