//! The service: hits inside `call`, everything else handed on.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use larder_core::{KeyBuf, Moment, Peek};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::{Handling, Reason, RequestFacts, Reuse, cookies, request};
use tower_service::Service;

use super::answer::Answer;
use super::body::{BoxError, ResponseBody};
use super::future::ResponseFuture;
use super::layer::Shared;
use super::record::Page;
use super::verdict::{self, Tier, Told};
use super::{content, explain, invalidate, key, miss, post, query, wire};
use crate::RequestHead;

/// A service whose responses are cached; made by [`CacheLayer`](super::CacheLayer).
#[derive(Clone)]
pub struct Cached<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Cached<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Cached { inner, shared }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

/// A request that memory did not answer, after one look.
enum Onward<B: Body> {
    /// Not for the cache.
    Pass(Forward, Reason),
    /// Passed on; a non-error answer invalidates.
    Unsafe(RequestFacts),
    /// Not answered from memory.
    Miss(Missing),
    /// Answered by a stale response, to be refreshed meanwhile. Boxed, since what hits return had better be small.
    Stale(Box<(Response<ResponseBody<B>>, Missing)>),
}

struct Missing {
    facts: RequestFacts,
    only_if_cached: bool,
    asked: Asked,
}

/// What memory said.
pub(super) enum Asked {
    /// It is not there.
    Nothing,
    /// A page is there whose newest variant does not answer this request.
    Page(larder_core::Entry),
    /// Only the store can tell.
    Unknown,
}

impl Shared {
    fn open<ReqB: Body, ResB: Body>(
        &self,
        request: &Request<ReqB>,
        known: RequestFacts,
        // A large value, which a hit had better not move.
        key: &mut KeyBuf,
    ) -> Result<Response<ResponseBody<ResB>>, Onward<ResB>> {
        let config = &self.config;
        let head = RequestHead::from(request);
        let (mut facts, host) = RequestFacts::scan_with_host(&config.policy, head.headers());
        facts = facts.union(known).union(content::facts(head));
        let only_if_cached =
            match request::handling(&config.policy, head.method(), facts, head.headers()) {
                Handling::Lookup { only_if_cached } => only_if_cached,
                Handling::Bypass(reason @ (Reason::Method | Reason::QueryContent)) => {
                    return Err(Onward::Pass(Forward::Method, reason));
                }
                Handling::Bypass(reason) => return Err(Onward::Pass(Forward::Bypass, reason)),
                Handling::Unsafe => return Err(Onward::Unsafe(facts)),
            };
        // In HTTP/2 no field need announce content.
        let empty = request.body().is_end_stream() || request.body().size_hint().exact() == Some(0);
        if !empty && !facts.any(RequestFacts::CONTENT_KEYED) {
            return Err(Onward::Pass(Forward::Bypass, Reason::RequestContent));
        }
        match key::write_request(key, self, head, facts, host) {
            Ok(false) => {}
            Ok(true) => facts = facts.union(RequestFacts::QUERY_REWRITTEN),
            Err(reason) => return Err(Onward::Pass(Forward::Bypass, reason)),
        }
        let Ok(borrowed) = key.as_ref() else {
            return Err(Onward::Pass(Forward::Bypass, Reason::KeyTooLong));
        };
        // Read once, for the whole hit.
        let now = config.store.clock().now();
        let asked = match config.store.peek_at(borrowed, now) {
            Peek::Miss => Asked::Nothing,
            Peek::Ask => Asked::Unknown,
            // It is compared, not served.
            Peek::Hit(entry) if config.shadow.is_some() => Asked::Page(entry),
            Peek::Hit(entry) => match entry.downcast().or_else(|| self.decoded(&entry)) {
                None => Asked::Unknown,
                Some(page) => match self.answer(page, &entry, now, head, facts) {
                    // Its chunks have to be asked for.
                    Ok(answer) if !answer.is_here() => Asked::Page(entry),
                    Ok(answer) => {
                        let wall = || config.store.clock().wall();
                        let mut response = answer.respond(head, facts, wall);
                        verdict::hit(config, facts, Tier::Near, &mut response, &answer);
                        if answer.refresh {
                            let asked = Asked::Page(entry);
                            let missing = Missing { facts, only_if_cached, asked };
                            return Err(Onward::Stale(Box::new((response, missing))));
                        }
                        return Ok(response);
                    }
                    Err(Reuse::Refuse(reason)) => {
                        return Err(Onward::Pass(Forward::Request, reason));
                    }
                    Err(_) => Asked::Page(entry),
                },
            },
        };
        Err(Onward::Miss(Missing { facts, only_if_cached, asked }))
    }

    // What is near and was not read yet: decoded where it lies, once for all who come after.
    #[cold]
    fn decoded<'a>(&self, entry: &'a larder_core::Entry) -> Option<&'a Page> {
        let route = &self.config.route.credentials;
        entry.downcast_or(|encoded| wire::decode_page(encoded, route))?;
        entry.downcast()
    }

    // The page's newest variant as the answer, or why not.
    fn answer<'a>(
        &self,
        page: &'a Page,
        entry: &larder_core::Entry,
        now: Moment,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Result<Answer<'a>, Reuse> {
        let variant = &page.newest;
        match self.selects(variant, head, facts) {
            Ok(true) => {}
            Ok(false) => return Err(Reuse::Fetch(Reason::VariantMiss)),
            Err(reason @ Reason::AmbiguousCookie) => return Err(Reuse::Refuse(reason)),
            Err(reason) => return Err(Reuse::Fetch(reason)),
        }
        let resident = self.resident(entry, variant, now);
        self.judge(variant, resident, head, facts)
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Cached<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body + Send + 'static,
    ResB: Body + Send + 'static,
    ResB::Data: Send,
    ResB::Error: Into<BoxError> + Send + 'static,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let config = &self.shared.config;
        if !config.query.is_idle() {
            query::rewrite(&config.query, &mut request);
        }
        let key = match &config.explain {
            None => None,
            Some(secret) => explain::asked(secret, &self.shared, &mut request),
        };
        let known = match key {
            None => RequestFacts::default(),
            Some(_) => RequestFacts::EXPLAINED,
        };
        let mut target = KeyBuf::from(self.shared.config.room.as_ref());
        let answered = match self.shared.open(&request, known, &mut target) {
            // Nearly every hit: nothing is written into the future once more.
            Ok(response) if key.is_none() => return ResponseFuture::hit(response),
            Ok(response) => ResponseFuture::hit(response),
            Err(Onward::Pass(forward, reason)) => {
                self.strip(&mut request);
                let told = Told::new(&self.shared.config, known, forward, reason);
                ResponseFuture::passed(self.inner.call(request), told)
            }
            Err(Onward::Unsafe(facts)) => {
                let shared = self.shared.clone();
                match post::key(&shared, RequestHead::from(&request), facts) {
                    Some(url) => {
                        let posted = post::run(shared, self.ready(), url, facts, request);
                        ResponseFuture::kept(posted)
                    }
                    None => {
                        let targets = invalidate::Targets::of(&request, facts);
                        self.strip(&mut request);
                        let response = self.inner.call(request);
                        let after = invalidate::after(shared, targets, response);
                        ResponseFuture::kept(after)
                    }
                }
            }
            Err(Onward::Miss(missing)) => {
                let (missed, asked) = self.missed(target, missing);
                match asked {
                    Asked::Unknown => ResponseFuture::kept(missed.ask(request)),
                    asked => ResponseFuture::kept(missed.run(request, asked, None)),
                }
            }
            Err(Onward::Stale(stale)) => {
                let (response, missing) = *stale;
                let (missed, asked) = self.missed(target, missing);
                missed.refresh(request, asked);
                ResponseFuture::hit(response)
            }
        };
        answered.with_key(key)
    }
}

impl<S: Clone> Cached<S> {
    fn missed(&mut self, key: KeyBuf, missing: Missing) -> (miss::Missed<S>, Asked) {
        let Missing { facts, only_if_cached, asked } = missing;
        let (inner, shared) = (self.ready(), self.shared.clone());
        let key = key.key().expect("its length was checked");
        (miss::Missed { shared, inner, key, facts, only_if_cached }, asked)
    }

    // The service that was polled ready is the one that is called.
    fn ready(&mut self) -> S {
        let next = self.inner.clone();
        std::mem::replace(&mut self.inner, next)
    }
}

impl<S> Cached<S> {
    // What the route ignores is removed before the handler runs, whether or not the cache is used: otherwise it would
    // change what others get.
    fn strip<B>(&self, request: &mut Request<B>) {
        strip(&self.shared, request);
    }
}

pub(super) fn strip<B>(shared: &Shared, request: &mut Request<B>) {
    let ignored = &shared.config.route.credentials.ignored_cookies;
    if !ignored.is_empty() {
        cookies::remove(request.headers_mut(), ignored);
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("inner", &self.inner).finish_non_exhaustive()
    }
}
