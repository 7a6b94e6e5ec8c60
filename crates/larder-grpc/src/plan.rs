//! Whether an answer may be stored, and how.

use std::time::Duration;

use http::header::{AGE, SET_COOKIE, VARY};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use larder_core::Tag;
use larder_core::envelope::MAX_TAGS;
use larder_http_rules::cache_control::ResponseDirectives;
use larder_http_rules::{CredentialState, Reason as HttpReason, SessionMark};

use crate::layer::{Config, Rule};
use crate::mark::Caching;
use crate::record::Terms;
use crate::status;
use crate::verdict::Reason;

/// How an answer is to be stored.
pub(crate) struct Plan {
    pub(crate) terms: Terms,
    pub(crate) tags: Vec<Tag>,
}

// What is stored is clamped to this: a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Whether nobody but the caller may see an answer of that head, whatever its status.
pub(crate) fn is_private(head: &Parts, trailers: Option<&HeaderMap>, session: &Sessions) -> bool {
    let said = ResponseDirectives::from_headers(&head.headers);
    let hints = head.extensions.get::<Caching>();
    said.no_store
        || said.private.is_present()
        || said.no_cache.is_present()
        || hints.is_some_and(|hints| hints.never)
        || session.touched(head)
        || sets_cookie(&head.headers)
        || trailers.is_some_and(sets_cookie)
}

/// The mark of a session layer outside, kept of the request.
pub(crate) struct Sessions(pub(crate) Option<SessionMark>);

impl Sessions {
    fn touched(&self, head: &Parts) -> bool {
        let inside = head.extensions.get::<SessionMark>();
        self.0.iter().chain(inside).any(SessionMark::is_touched)
    }
}

fn sets_cookie(fields: &HeaderMap) -> bool {
    fields.contains_key(SET_COOKIE) || fields.contains_key("set-cookie2")
}

/// How an answer of that head and these trailers is to be stored, or why not. `read` are the tags of what the handler
/// read from the cache.
pub(crate) fn plan(
    config: &Config,
    rule: &Rule,
    credentials: CredentialState,
    session: &Sessions,
    head: &Parts,
    trailers: &HeaderMap,
    read: &[Tag],
) -> Result<Plan, Reason> {
    let headers = &head.headers;
    let hints = head.extensions.get::<Caching>();
    if head.status != StatusCode::OK || status::content(headers).is_none() {
        return Err(Reason::NotGrpc);
    }
    if status::code(trailers) != Some(status::OK) || headers.contains_key(status::STATUS) {
        return Err(Reason::Status);
    }
    if hints.is_some_and(|hints| hints.never) {
        return Err(HttpReason::HandlerDeclined.into());
    }
    if session.touched(head) {
        return Err(HttpReason::SessionTouched.into());
    }
    if sets_cookie(headers) || sets_cookie(trailers) {
        return Err(HttpReason::SetCookie.into());
    }
    if headers.get_all(VARY).iter().any(|line| line.as_bytes().contains(&b'*')) {
        return Err(HttpReason::VaryAny.into());
    }
    let fields = |map: &HeaderMap| -> usize {
        map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
    };
    if fields(headers) + fields(trailers) > config.max_head {
        return Err(Reason::HeadTooLarge);
    }
    let terms = terms(config, rule, credentials, headers, hints)?;

    let mut tags = rule.tags.clone();
    for tag in hints.iter().flat_map(|hints| &hints.tags) {
        tags.push(Tag::new(tag).map_err(|_| HttpReason::InvalidTag)?);
    }
    for field in &config.tag_fields {
        for line in headers.get_all(field).iter().chain(trailers.get_all(field)) {
            let text = line.to_str().map_err(|_| HttpReason::InvalidTag)?;
            for name in text.split([' ', '\t', ',']).filter(|name| !name.is_empty()) {
                tags.push(Tag::new(name).map_err(|_| HttpReason::InvalidTag)?);
            }
        }
    }
    tags.extend_from_slice(read);
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        return Err(HttpReason::TooManyTags.into());
    }
    Ok(Plan { terms, tags })
}

fn terms(
    config: &Config,
    rule: &Rule,
    credentials: CredentialState,
    headers: &HeaderMap,
    hints: Option<&Caching>,
) -> Result<Terms, Reason> {
    let said = ResponseDirectives::from_headers(headers);
    if said.no_store {
        return Err(HttpReason::NoStore.into());
    }
    if said.private.is_present() {
        return Err(HttpReason::Private.into());
    }
    if said.no_cache.is_present() {
        return Err(Reason::NoCache);
    }
    if said.invalid {
        return Err(HttpReason::InvalidFreshness.into());
    }
    let public = said.public || said.s_maxage.is_some();
    if let CredentialState::Undeclared(reason) = credentials
        && !(config.public && public)
    {
        return Err(reason.into());
    }
    let stated = said.s_maxage.or(said.max_age);
    let route = hints.and_then(|hints| hints.ttl).or(rule.ttl);
    if stated.is_some_and(|lifetime| lifetime.is_zero()) {
        return Err(HttpReason::ZeroLifetime.into());
    }
    let lifetime =
        route.or(stated).or(config.default_ttl).ok_or(HttpReason::NoFreshness)?.min(LONGEST);
    let age = age(headers);
    if lifetime <= age {
        return Err(match lifetime.is_zero() {
            true => HttpReason::ZeroLifetime.into(),
            false => HttpReason::AlreadyStale.into(),
        });
    }
    let strict = said.must_revalidate || said.proxy_revalidate;
    let window = |said: Option<Duration>, ours: Duration| match strict {
        true => Duration::ZERO,
        false => said.unwrap_or(ours).min(LONGEST),
    };
    Ok(Terms {
        lifetime,
        age,
        stale_while_revalidate: window(said.stale_while_revalidate, rule.stale_while_revalidate),
        stale_on_unavailable: window(said.stale_if_error, rule.stale_on_unavailable),
        public,
    })
}

// What cannot be read is as old as can be.
fn age(headers: &HeaderMap) -> Duration {
    let age = |value: &http::HeaderValue| value.to_str().ok()?.parse().ok();
    headers
        .get(AGE)
        .map_or(Duration::ZERO, |value| age(value).map_or(Duration::MAX, Duration::from_secs))
}
