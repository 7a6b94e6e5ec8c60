//! May a stored response answer this request (RFC 9111 §4), and how?
//!
//! That the variant matches is a precondition, checked before and apart from freshness (see
//! [`crate::vary`]; threat P11).
//!
//! ```
//! use http::{HeaderMap, Method, Uri};
//! use larder_http_rules::{
//!     CredentialState, FreshnessSource, Policy, Reason, RequestFacts, RequestView, Reuse, Terms, reuse,
//! };
//! use std::time::Duration;
//!
//! let policy = Policy::application();
//! let (method, uri, headers) = (Method::GET, Uri::from_static("/"), HeaderMap::new());
//! let request = RequestView {
//!     method: &method,
//!     uri: &uri,
//!     headers: &headers,
//!     facts: RequestFacts::scan(&policy, &headers),
//!     credentials: CredentialState::Absent,
//! };
//! let terms = Terms {
//!     lifetime: Duration::from_secs(60),
//!     source: FreshnessSource::MaxAge,
//!     initial_age: Duration::ZERO,
//!     no_cache: false,
//!     forbids_stale: false,
//!     stale_while_revalidate: Duration::from_secs(10),
//!     stale_if_error: Duration::ZERO,
//!     shared_despite_credentials: false,
//!     has_validator: true,
//! };
//! let after = |seconds| reuse::decide(&policy, &terms, Duration::from_secs(seconds), &request);
//! assert_eq!(after(59), Reuse::Fresh);
//! assert_eq!(after(60), Reuse::StaleWhileRevalidate);
//! assert_eq!(after(70), Reuse::Validate(Reason::Expired));
//! ```

use std::time::Duration;

use http::{Method, StatusCode};

use crate::cache_control::RequestDirectives;
use crate::request::is_keyed_query;
use crate::{CredentialState, Policy, Reason, RequestFacts, RequestView, Terms};

/// How a stored response may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It answers.
    Fresh,
    /// It answers, and one refresh is started in the background.
    StaleWhileRevalidate,
    /// It answers although stale, because the client accepts that (`max-stale`).
    StaleAllowed,
    /// Ask the handler with the stored validators first.
    Validate(Reason),
    /// Ask the handler anew: there is no validator.
    Fetch(Reason),
    /// It must not answer this request, which is passed by.
    Refuse(Reason),
}

impl Reuse {
    /// Whether the stored response answers as it is.
    #[must_use]
    pub const fn answers(self) -> bool {
        matches!(self, Reuse::Fresh | Reuse::StaleWhileRevalidate | Reuse::StaleAllowed)
    }

    /// Why.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Reuse::Fresh => Reason::Fresh,
            Reuse::StaleWhileRevalidate => Reason::StaleWhileRevalidate,
            Reuse::StaleAllowed => Reason::MaxStale,
            Reuse::Validate(reason) | Reuse::Fetch(reason) | Reuse::Refuse(reason) => reason,
        }
    }
}

/// How the handler failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It answered with this status.
    Status(StatusCode),
    /// It gave no response: an error, a panic, a deadline, a closed connection.
    NoResponse,
}

/// Decides how a stored response, `resident` in the store for so long, may be used for `request`.
#[must_use]
pub fn decide(
    policy: &Policy,
    terms: &Terms,
    resident: Duration,
    request: &RequestView<'_>,
) -> Reuse {
    if let Err(reason) = admits(policy, terms, request) {
        return Reuse::Refuse(reason);
    }
    let age = terms.age(resident);
    let staleness = age.checked_sub(terms.lifetime); // fresh only while lifetime > age
    let ask = |reason| {
        if terms.has_validator { Reuse::Validate(reason) } else { Reuse::Fetch(reason) }
    };
    let client = client(policy, request);
    if terms.no_cache {
        return ask(Reason::NoCache);
    }
    if client.no_cache || client.pragma_no_cache {
        return ask(Reason::RequestNoCache);
    }
    if client.max_age.is_some_and(|limit| age > limit) {
        return ask(Reason::RequestMaxAge);
    }
    let left = terms.lifetime.saturating_sub(age);
    if client.min_fresh.is_some_and(|wanted| left < wanted) {
        return ask(Reason::RequestMinFresh);
    }
    let Some(staleness) = staleness else {
        return Reuse::Fresh;
    };
    if terms.forbids_stale {
        return ask(Reason::MustRevalidate);
    }
    let ceiling = policy.max_stale.unwrap_or(Duration::MAX);
    if client.max_stale.is_some_and(|accepted| accepted.accepts(staleness)) && staleness < ceiling {
        return Reuse::StaleAllowed;
    }
    if staleness < terms.stale_while_revalidate {
        return Reuse::StaleWhileRevalidate;
    }
    ask(Reason::Expired)
}

/// Whether a stored response may stand in for a handler that failed (RFC 5861 §4, RFC 9111 §4.2.4).
///
/// # Errors
///
/// Why it may not; the failure is then the answer.
pub fn on_failure(
    policy: &Policy,
    terms: &Terms,
    resident: Duration,
    request: &RequestView<'_>,
    failure: Failure,
) -> Result<Reason, Reason> {
    admits(policy, terms, request)?;
    let window = match failure {
        Failure::Status(status) if !status.is_server_error() => return Err(Reason::Status),
        Failure::Status(_) => terms.stale_if_error,
        Failure::NoResponse => {
            terms.stale_if_error.max(policy.stale_on_failure.unwrap_or_default())
        }
    };
    if terms.no_cache {
        return Err(Reason::NoCache);
    }
    match terms.age(resident).checked_sub(terms.lifetime) {
        None => Ok(Reason::Fresh),
        Some(_) if terms.forbids_stale => Err(Reason::MustRevalidate),
        Some(staleness) if staleness < window => Ok(Reason::StaleIfError),
        Some(_) => Err(Reason::Expired),
    }
}

/// Whether a request of this method and these credentials may be answered from this entry at all.
///
/// This is also the question for a request that waits for another one's fill.
///
/// # Errors
///
/// Why it may not.
pub fn admits(policy: &Policy, terms: &Terms, request: &RequestView<'_>) -> Result<(), Reason> {
    let read = matches!(*request.method, Method::GET | Method::HEAD);
    if !read && !is_keyed_query(request.method, request.facts) {
        return Err(Reason::Method);
    }
    match request.credentials {
        CredentialState::Undeclared(reason)
            if policy.shared
                && !policy.credentials_may_read
                && !terms.shared_despite_credentials =>
        {
            Err(reason)
        }
        _ => Ok(()),
    }
}

fn client(policy: &Policy, request: &RequestView<'_>) -> RequestDirectives {
    let said = RequestFacts::CACHE_CONTROL.union(RequestFacts::PRAGMA);
    if request.facts.any(said) {
        policy.obeyed(&RequestDirectives::from_headers(request.headers))
    } else {
        RequestDirectives::default()
    }
}
