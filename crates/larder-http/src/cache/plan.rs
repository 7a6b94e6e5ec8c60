//! Whether a response may be stored, and how: by its head, before its body came.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{self, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use larder_core::envelope::MAX_TAGS;
use larder_core::{Key, Tag};
use larder_http_rules::authority::{self, Authority};
use larder_http_rules::no_vary_search::NoVarySearch;
use larder_http_rules::vary::Coding;
use larder_http_rules::{
    Reason, RequestFacts, RouteRule, SessionMark, Stored as Storable, Times, groups, storable,
};

use super::key;
use super::layer::Shared;
use super::record::{Stored, Variant};
use super::searches::{self, Search};
use super::variants::List;
use crate::RequestHead;
use crate::head::Snapshot;
use crate::mark::{Caching, VaryBy, VaryInside, VaryOutside};

/// How a response is to be stored.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) storable: Storable,
    pub(super) list: Arc<List>,
    pub(super) selector: Box<[u8]>,
    pub(super) verbatim: Option<Box<[Option<HeaderValue>]>>,
    pub(super) by_language: Option<Box<[u8]>>,
    pub(super) search: Option<Search>,
    pub(super) tags: Vec<Tag>,
    pub(super) length: Option<u64>,
    /// The mark of a session layer inside, which may be touched until the body ends.
    pub(super) session: Option<SessionMark>,
}

impl Plan {
    /// What is stored, of that response.
    pub(super) fn variant(self, shared: &Shared, response: Stored) -> Variant {
        Variant {
            rule: self.list.rule(&shared.config.route.credentials),
            list: self.list,
            selector: self.selector,
            verbatim: self.verbatim,
            by_language: self.by_language,
            search: self.search,
            response,
        }
    }
}

/// Whether a response could be stored, by its head, and how long it says it is.
pub(super) fn may_store<B>(
    shared: &Shared,
    key: &Key,
    snapshot: &Snapshot,
    facts: RequestFacts,
    response: &Response<B>,
) -> Result<Option<u64>, Reason>
where
    B: Body,
{
    let wall = shared.config.store.clock().wall();
    plan(shared, key, snapshot, facts, response, wall, &[]).map(|plan| plan.length)
}

/// How a response is to be stored, or why not. `read` are the tags of what the handler read from the cache.
pub(super) fn plan<B: Body>(
    shared: &Shared,
    key: &Key,
    snapshot: &Snapshot,
    facts: RequestFacts,
    response: &Response<B>,
    sent: SystemTime,
    read: &[Tag],
) -> Result<Plan, Reason> {
    let config = &shared.config;
    let head = RequestHead::from(snapshot);
    let extensions = response.extensions();
    let hints = extensions.get::<Caching>();
    if hints.is_some_and(|hints| hints.never) {
        return Err(Reason::HandlerDeclined);
    }
    if session_touched(snapshot, extensions.get()) {
        return Err(Reason::SessionTouched);
    }
    let mut list = config.base.clone();
    if let Some(outside) = head.extensions().get::<VaryOutside>() {
        for by in &outside.0 {
            list.headers.extend(by.headers.iter().cloned());
            let values: Vec<_> = by.values.iter().map(|input| (input.compute)(head)).collect();
            learn(shared, by, &values, head, &mut list)?;
        }
    }
    if let Some(inside) = extensions.get::<VaryInside>() {
        for (by, values) in &inside.0 {
            learn(shared, by, values, head, &mut list)?;
        }
    }
    list.normalise();

    let mut route = RouteRule { ..config.route.clone() };
    if let Some(ttl) = hints.and_then(|hints| hints.ttl) {
        route.ttl = Some(ttl);
    }
    if let Some(rule) = list.rule(&route.credentials) {
        route.credentials = rule;
    }
    let mut view = shared.view(head, facts, None);
    view.credentials = larder_http_rules::credentials::assess(
        &config.policy,
        &route.credentials,
        facts,
        head.headers(),
    );
    let times = Times { request: sent, response: config.store.clock().wall() };
    let storable =
        storable(&config.policy, &route, &view, response.status(), response.headers(), times)?;
    if storable.terms.usable_for(&config.policy).is_zero() {
        return Err(Reason::ZeroLifetime);
    }
    let search = search(shared, key, head, response.headers())?;
    list.headers.extend(storable.vary.iter().cloned());
    if config.policy.key_content_coding && response.headers().contains_key(CONTENT_ENCODING) {
        // Whoever cannot decode it must not get it, also where the handler forgot to say so.
        if !codings_known(response.headers()) {
            return Err(Reason::ContentCodingUnkeyed);
        }
        list.headers.push(header::ACCEPT_ENCODING);
    }
    list.normalise();
    let selector = list.select(&config.policy, head, &shared.computed)?;
    let by_language = match one_language(response.headers()) {
        Some(language)
            if config.policy.select_language && list.headers.contains(&ACCEPT_LANGUAGE) =>
        {
            let computed = &shared.computed;
            let selector = list.select_by_language(&config.policy, head, computed, language)?;
            Some(selector[..].into())
        }
        _ => None,
    };

    let bytes: usize = response.headers().iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if bytes > config.max_head {
        return Err(Reason::HeadTooLarge);
    }
    let length = content_length(response.headers());
    let least = response.body().size_hint().lower().max(length.unwrap_or(0));
    if least > config.max_body.max(config.max_chunked) {
        return Err(Reason::BodyTooLarge);
    }
    let common = config.tags_under(key, facts);
    let mut tags = common.to_vec();
    for tag in hints.iter().flat_map(|hints| &hints.tags) {
        tags.push(Tag::new(tag).map_err(|_| Reason::InvalidTag)?);
    }
    for field in &config.tag_fields {
        for line in response.headers().get_all(field) {
            tags_in(line, &mut tags)?;
        }
    }
    for group in groups::of(response.headers()) {
        let authority = authority::effective(head.uri(), head.headers(), config.scheme)?;
        tags.push(group_tag(authority, &group).ok_or(Reason::InvalidTag)?);
    }
    if search.is_some() {
        let authority = authority::effective(head.uri(), head.headers(), config.scheme)?;
        tags.push(searches::tag(authority, head.uri().path()).ok_or(Reason::InvalidTag)?);
    }
    tags.extend_from_slice(read);
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        return Err(Reason::TooManyTags);
    }
    if storable.terms.outlasts(&config.policy) {
        // What is kept as a stale one outlasts that its tags are made stale.
        tags = tags.iter().map(Tag::lasting).collect();
    }
    Ok(Plan {
        storable,
        verbatim: list.verbatim(head.headers()),
        list: if list == *shared.base { shared.base.clone() } else { Arc::new(list) },
        selector: selector[..].into(),
        by_language,
        search,
        tags,
        length,
        session: extensions.get().cloned(),
    })
}

// What a response says about queries. Where that makes another key than the one that was looked up, it is learned and
// the response not stored.
fn search(
    shared: &Shared,
    key: &Key,
    head: RequestHead<'_>,
    headers: &HeaderMap,
) -> Result<Option<Search>, Reason> {
    if !shared.config.policy.no_vary_search {
        return Ok(None);
    }
    let rule = NoVarySearch::of(headers);
    let own = head.uri().query();
    let wanted = match &rule {
        Some(rule) => rule.canonical(own),
        None => own.map(str::to_owned),
    };
    let (query, path) = key::query(&shared.config, key);
    if let Some(path) = path.as_ref().and_then(|path| path.as_ref().ok()) {
        shared.searches.learn(path, rule.as_ref());
    }
    if wanted.as_deref().map(str::as_bytes) != query {
        return Err(Reason::QueryLearned);
    }
    Ok(rule.map(|rule| Search { rule, query: wanted }))
}

// Takes in what a VaryLayer told. Its computed values must be the same here as where they were computed, or requests
// would be told apart by something that a look-up cannot see.
fn learn(
    shared: &Shared,
    by: &VaryBy,
    values: &[Option<String>],
    head: RequestHead<'_>,
    list: &mut List,
) -> Result<(), Reason> {
    list.cookies.extend(by.cookies.iter().cloned());
    for (input, value) in by.values.iter().zip(values) {
        if !shared.computed.learn(input) {
            return Err(Reason::VaryConflict);
        }
        if (input.compute)(head) != *value {
            tracing::warn!(target: "larder_http", "{}", Reason::VaryMisplaced);
            return Err(Reason::VaryMisplaced);
        }
        list.values.push(input.name.clone());
    }
    Ok(())
}

/// Whether a session layer, outside or inside, says that its session was used.
pub(super) fn session_touched(snapshot: &Snapshot, response: Option<&SessionMark>) -> bool {
    let outside = RequestHead::from(snapshot).extensions().get::<SessionMark>();
    [outside, response].into_iter().flatten().any(SessionMark::is_touched)
}

// Whether selectors tell apart who takes the response's codings.
fn codings_known(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .all(|coding| coding.is_empty() || Coding::of(coding).is_some())
}

fn tags_in(line: &HeaderValue, tags: &mut Vec<Tag>) -> Result<(), Reason> {
    let text = line.to_str().map_err(|_| Reason::InvalidTag)?;
    for name in text.split([' ', '\t', ',']).filter(|name| !name.is_empty()) {
        tags.push(Tag::new(name).map_err(|_| Reason::InvalidTag)?);
    }
    Ok(())
}

/// The tag of a cache group, which is its origin's own (RFC 9875 §2).
pub(super) fn group_tag(authority: Authority<'_>, group: &str) -> Option<Tag> {
    let scheme = authority.scheme().as_str();
    Tag::new(&format!("cache-group {scheme}://{authority} {group}")).ok()
}

// The language of a response that is in one.
fn one_language(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(CONTENT_LANGUAGE).iter();
    let line = lines.next()?.as_bytes().trim_ascii();
    (lines.next().is_none() && !line.is_empty() && !line.contains(&b',')).then_some(line)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
