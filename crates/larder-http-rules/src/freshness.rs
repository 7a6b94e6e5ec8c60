//! Freshness lifetime (RFC 9111 §4.2.1) and stale windows (RFC 5861).
//!
//! The order is: a route's TTL, `s-maxage` (in shared caches), `max-age`, `Expires` − `Date`, a route's
//! default TTL, the heuristic. The presence of a higher one switches the lower ones off even if it
//! cannot be parsed. A route's TTL gives way whenever the response restricts itself: `no-cache`,
//! `max-age=0`, `s-maxage=0`, or freshness that is past or cannot be parsed.
//!
//! ```
//! use http::{HeaderMap, StatusCode, header::CACHE_CONTROL};
//! use larder_http_rules::cache_control::ResponseDirectives;
//! use larder_http_rules::{FreshnessSource, Policy, RouteRule, freshness};
//! use std::time::{Duration, SystemTime};
//!
//! let mut headers = HeaderMap::new();
//! headers.insert(CACHE_CONTROL, "max-age=60, s-maxage=10".parse().unwrap());
//! let said = ResponseDirectives::from_headers(&headers);
//! let fresh = freshness::lifetime(
//!     &Policy::application(), &RouteRule::default(), StatusCode::OK, &headers, &said,
//!     SystemTime::now(), false,
//! );
//! assert_eq!(fresh.lifetime, Duration::from_secs(10));
//! assert_eq!(fresh.source, FreshnessSource::SMaxAge);
//! ```

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{DATE, EXPIRES, HeaderMap, LAST_MODIFIED};

use crate::age::since;
use crate::cache_control::ResponseDirectives;
use crate::policy::{HEURISTIC_STATUSES, Heuristics};
use crate::{Policy, RouteRule, date};

/// Where a lifetime came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FreshnessSource {
    /// Nothing gave one.
    None,
    /// The route's TTL.
    Route,
    /// The route's default TTL.
    Default,
    /// `s-maxage`
    SMaxAge,
    /// `max-age`
    MaxAge,
    /// `Expires` − `Date`
    Expires,
    /// A share of the time since `Last-Modified`.
    Heuristic,
}

impl FreshnessSource {
    /// A short name for spans and debug headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FreshnessSource::None => "none",
            FreshnessSource::Route => "route",
            FreshnessSource::Default => "default",
            FreshnessSource::SMaxAge => "s-maxage",
            FreshnessSource::MaxAge => "max-age",
            FreshnessSource::Expires => "expires",
            FreshnessSource::Heuristic => "heuristic",
        }
    }

    /// Whether the response's own header gave it.
    #[must_use]
    pub const fn is_header(self) -> bool {
        matches!(
            self,
            FreshnessSource::SMaxAge | FreshnessSource::MaxAge | FreshnessSource::Expires
        )
    }
}

/// A lifetime and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The lifetime, ceilings applied.
    pub lifetime: Duration,
    /// Where it came from.
    pub source: FreshnessSource,
    /// The value that decided could not be parsed.
    pub invalid: bool,
}

/// The freshness lifetime of a response received at `now`. `guess` allows the heuristic (which the
/// policy must allow too).
#[must_use]
pub fn lifetime(
    policy: &Policy,
    route: &RouteRule,
    status: StatusCode,
    headers: &HeaderMap,
    said: &ResponseDirectives,
    now: SystemTime,
    guess: bool,
) -> Freshness {
    let stated = by_header(policy.shared, headers, said, now);
    let zero = Some(Duration::ZERO);
    let restricts_itself = said.no_cache.is_present()
        || said.max_age == zero
        || (policy.shared && said.s_maxage == zero)
        || stated.is_some_and(|(lifetime, _)| lifetime.is_zero());
    let by_route =
        |ttl: Option<Duration>, source| ttl.filter(|_| !restricts_itself).map(|ttl| (ttl, source));
    let (lifetime, source) = by_route(route.ttl, FreshnessSource::Route)
        .or(stated)
        .or(by_route(route.default_ttl, FreshnessSource::Default))
        .or_else(|| {
            let heuristics = policy.heuristics.filter(|_| guess && !restricts_itself)?;
            let lifetime = by_modification(heuristics, status, headers, said, now)?;
            Some((lifetime, FreshnessSource::Heuristic))
        })
        .unwrap_or((Duration::ZERO, FreshnessSource::None));
    let invalid = lifetime.is_zero()
        && (said.invalid
            || (source == FreshnessSource::Expires
                && date::parse_field(headers, EXPIRES, now).is_none()));
    Freshness { lifetime: capped(lifetime, policy.max_ttl), source, invalid }
}

/// The stale-while-revalidate and stale-if-error windows, ceilings applied. Whether stale use is
/// forbidden is another question ([`crate::Terms::forbids_stale`]).
#[must_use]
pub fn stale_windows(
    policy: &Policy,
    route: &RouteRule,
    said: &ResponseDirectives,
) -> (Duration, Duration) {
    let window = |route: Option<Duration>, response: Option<Duration>| {
        capped(route.or(response).unwrap_or_default(), policy.max_stale)
    };
    (
        window(route.stale_while_revalidate, said.stale_while_revalidate),
        window(route.stale_if_error, said.stale_if_error),
    )
}

/// `Expires` − `Date` (RFC 9111 §5.3). `None` without `Expires`; zero if it is past, several lines, or
/// no date. A `Date` that is missing or no date is replaced by `now`.
#[must_use]
pub fn expires_lifetime(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !headers.contains_key(EXPIRES) {
        return None;
    }
    let Some(expires) = date::parse_field(headers, EXPIRES, now) else {
        return Some(Duration::ZERO);
    };
    let sent = date::parse_field(headers, DATE, now).unwrap_or(now);
    Some(since(expires, sent))
}

/// Whether a status may be given heuristic freshness (RFC 9110 §15.1).
#[must_use]
pub fn is_heuristic_status(status: StatusCode) -> bool {
    HEURISTIC_STATUSES.contains(&status.as_u16())
}

fn by_header(
    shared: bool,
    headers: &HeaderMap,
    said: &ResponseDirectives,
    now: SystemTime,
) -> Option<(Duration, FreshnessSource)> {
    if let Some(lifetime) = said.s_maxage.filter(|_| shared) {
        return Some((lifetime, FreshnessSource::SMaxAge));
    }
    if let Some(lifetime) = said.max_age {
        return Some((lifetime, FreshnessSource::MaxAge));
    }
    if said.targeted {
        return None;
    }
    expires_lifetime(headers, now).map(|lifetime| (lifetime, FreshnessSource::Expires))
}

fn by_modification(
    heuristics: Heuristics,
    status: StatusCode,
    headers: &HeaderMap,
    said: &ResponseDirectives,
    now: SystemTime,
) -> Option<Duration> {
    if !is_heuristic_status(status) && !said.public {
        return None;
    }
    let modified = date::parse_field(headers, LAST_MODIFIED, now)?;
    let sent = date::parse_field(headers, DATE, now).unwrap_or(now);
    let seconds = since(sent, modified).as_secs();
    let share = seconds.saturating_mul(u64::from(heuristics.percent)) / 100;
    Some(Duration::from_secs(share).min(heuristics.max))
}

fn capped(duration: Duration, limit: Option<Duration>) -> Duration {
    limit.map_or(duration, |limit| duration.min(limit))
}
