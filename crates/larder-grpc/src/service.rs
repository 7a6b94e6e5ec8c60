//! The service: hits inside `call`, everything else handed on.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use larder_core::{Entry, KeyBuf, Moment, Peek, Tag};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::{CredentialState, Reason as HttpReason, RequestFacts, credentials};
use tower_service::Service;

use crate::body::{End, Replay, RequestBody, ResponseBody};
use crate::future::ResponseFuture;
use crate::gather::{Gather, Gathered};
use crate::layer::{Rule, Shared};
use crate::miss::Missed;
use crate::record::Call;
use crate::verdict::{self, Reason, Told};
use crate::writes::Drops;
use crate::{key, miss, status, wire};

/// A service whose calls are cached; made by [`GrpcCacheLayer`](crate::GrpcCacheLayer).
///
/// Under Tonic it keeps the inner service's name (feature `tonic`), so it can be added to a server as that could.
#[derive(Clone)]
pub struct Cached<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Cached<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
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

/// What a call is, by its head.
enum Kind {
    Pass(Forward, Reason),
    Write(Vec<Tag>),
    Read(Arc<Rule>, RequestFacts, CredentialState),
}

/// A call whose message was read.
pub(crate) struct Asked {
    pub(crate) rule: Arc<Rule>,
    pub(crate) parts: Parts,
    pub(crate) message: Bytes,
    pub(crate) credentials: CredentialState,
}

/// What memory said of a call.
pub(crate) enum Looked<B: Body> {
    Hit(Response<ResponseBody<B>>),
    /// It is an answer, and is to be refreshed behind.
    Stale(Response<ResponseBody<B>>, Entry),
    /// Not for the cache.
    Pass(Reason),
    /// What is there, if that is known.
    Miss(KeyBuf, Option<Option<Entry>>),
}

/// Whether a stored call answers.
pub(crate) enum Fits {
    Fresh,
    /// Stale, and may be given while it is refreshed.
    Refresh,
    /// Stale, and may stand in for a handler that is not available.
    StandIn,
    Expired,
    /// Not this caller's.
    NotShared(HttpReason),
}

impl Shared {
    fn kind<B>(&self, request: &Request<B>) -> Kind {
        let config = &self.config;
        let path = request.uri().path();
        let rule = match config.reads.get(path) {
            Some(rule) => rule,
            None => match (&config.chosen, config.writes.get(path)) {
                (_, Some(tags)) => return Kind::Write(tags.clone()),
                (Some((choose, rule)), None) if choose(path) => rule,
                _ => return Kind::Pass(Forward::Bypass, Reason::NotDeclared),
            },
        };
        let headers = request.headers();
        let plain = status::content(headers).is_some() && request.uri().query().is_none();
        if *request.method() != Method::POST || !plain {
            return Kind::Pass(Forward::Bypass, Reason::NotGrpc);
        }
        let facts = RequestFacts::scan(&config.policy, headers);
        if facts.any(RequestFacts::OVERRIDE) {
            return Kind::Pass(Forward::Bypass, HttpReason::OverrideHeader.into());
        }
        let state = credentials::assess(&config.policy, &rule.credentials, facts, headers);
        if let CredentialState::Undeclared(reason) = state
            && !config.public
        {
            return Kind::Pass(Forward::Bypass, reason.into());
        }
        Kind::Read(rule.clone(), facts, state)
    }

    /// Looks into memory.
    pub(crate) fn look<B: Body>(&self, asked: &Asked, facts: RequestFacts) -> Looked<B> {
        let config = &self.config;
        let mut key = KeyBuf::from(config.room.as_ref());
        let Asked { rule, parts, message, .. } = asked;
        if let Err(reason) = key::write(&mut key, config, rule, parts, facts, message) {
            return Looked::Pass(reason);
        }
        let Ok(borrowed) = key.as_ref() else {
            return Looked::Pass(HttpReason::KeyTooLong.into());
        };
        // Read once, for the whole hit.
        let now = config.store.clock().now();
        let entry = match config.store.peek_at(borrowed, now) {
            Peek::Miss => return Looked::Miss(key, Some(None)),
            Peek::Ask => return Looked::Miss(key, None),
            Peek::Hit(entry) => entry,
        };
        let Some(call) = entry.downcast_or(wire::decode) else {
            return Looked::Miss(key, None);
        };
        match self.fits(&call, &entry, now, asked.credentials) {
            (Fits::Fresh, resident) => Looked::Hit(self.hit(&call, resident)),
            (Fits::Refresh, resident) => Looked::Stale(self.hit(&call, resident), entry),
            _ => Looked::Miss(key, Some(Some(entry))),
        }
    }

    /// Whether a stored call answers at that moment, and how long it has been here.
    pub(crate) fn fits(
        &self,
        call: &Call,
        entry: &Entry,
        now: Moment,
        credentials: CredentialState,
    ) -> (Fits, Duration) {
        let resident = entry.times().map_or(Duration::ZERO, |times| now.since(times.written));
        (self.fits_after(call, resident, credentials), resident)
    }

    /// Whether a call answers, so long after it was made.
    pub(crate) fn fits_after(
        &self,
        call: &Call,
        resident: Duration,
        credentials: CredentialState,
    ) -> Fits {
        let terms = &call.terms;
        if let CredentialState::Undeclared(reason) = credentials
            && !(self.config.public && terms.public)
        {
            return Fits::NotShared(reason);
        }
        match terms.age.saturating_add(resident).checked_sub(terms.lifetime) {
            None => Fits::Fresh,
            Some(stale) if stale < terms.stale_while_revalidate => Fits::Refresh,
            Some(stale) if stale < terms.stale_on_unavailable => Fits::StandIn,
            Some(_) => Fits::Expired,
        }
    }

    /// The answer of a hit.
    pub(crate) fn hit<B: Body>(
        &self,
        call: &Arc<Call>,
        resident: Duration,
    ) -> Response<ResponseBody<B>> {
        let mut response = call.respond(resident);
        let left = || {
            let age = call.terms.age.saturating_add(resident).as_secs();
            call.terms.lifetime.as_secs().cast_signed().saturating_sub_unsigned(age)
        };
        verdict::hit(&self.config.status_name, response.headers_mut(), left);
        response
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Cached<S>
where
    S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body + Unpin + Send + 'static,
    ReqB::Error: Send + 'static,
    ResB: Body + Send + 'static,
    ResB::Data: Send,
    ResB::Error: Send + 'static,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (rule, facts, credentials) = match self.shared.kind(&request) {
            Kind::Pass(forward, reason) => {
                let told = Told::new(&self.shared.config.status_name, forward, reason);
                let request = request.map(RequestBody::passed);
                return ResponseFuture::passed(self.inner.call(request), told);
            }
            Kind::Write(tags) => {
                let drops = Drops::new(self.shared.config.store.clone(), tags);
                let name = &self.shared.config.status_name;
                let told = Told::new(name, Forward::Method, Reason::Writes);
                let request = request.map(RequestBody::passed);
                return ResponseFuture::writing(self.inner.call(request), drops, told);
            }
            Kind::Read(rule, facts, credentials) => (rule, facts, credentials),
        };
        let (parts, mut body) = request.into_parts();
        let mut gather = Gather::new(self.shared.config.max_message);
        // A unary message has mostly come with the head. What has not is waited for by the future, which asks again.
        let mut cx = Context::from_waker(Waker::noop());
        let gathered = match gather.poll(Pin::new(&mut body), &mut cx) {
            Poll::Ready(gathered) => gathered,
            Poll::Pending => {
                let mut cached = Cached { inner: self.ready(), shared: self.shared.clone() };
                let timeout = status::timeout(&parts.headers);
                let answered = async move {
                    let reading = std::future::poll_fn(|cx| gather.poll(Pin::new(&mut body), cx));
                    let gathered = reading.await;
                    let read = Read { rule, facts, credentials, parts, gather, body };
                    cached.read(read, gathered).await
                };
                return ResponseFuture::boxed(Box::pin(miss::within(timeout, answered)));
            }
        };
        self.read(Read { rule, facts, credentials, parts, gather, body }, gathered)
    }
}

/// A call of which something was read.
struct Read<ReqB> {
    rule: Arc<Rule>,
    facts: RequestFacts,
    credentials: CredentialState,
    parts: Parts,
    gather: Gather,
    body: ReqB,
}

impl<S> Cached<S> {
    // Goes on when the message was read, or was none that can be.
    fn read<ReqB, ResB>(
        &mut self,
        read: Read<ReqB>,
        gathered: Gathered<ReqB::Error>,
    ) -> ResponseFuture<S::Future, ResB, S::Error>
    where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ReqB::Error: Send + 'static,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Send + 'static,
    {
        let Read { rule, facts, credentials, parts, gather, body } = read;
        let (message, reason, end) = match gathered {
            Gathered::Message(message, _) => (message, None, None),
            Gathered::Ended(trailers) => {
                let reason = match gather.is_empty() {
                    true => Reason::SeveralMessages,
                    false => Reason::RequestFailed,
                };
                (Bytes::new(), Some(reason), Some(End::Trailers(trailers)))
            }
            Gathered::Failed(error) => {
                (Bytes::new(), Some(Reason::RequestFailed), Some(End::Failed(Some(error))))
            }
            Gathered::Stream => {
                (Bytes::new(), Some(Reason::SeveralMessages), Some(End::Rest(Box::pin(body))))
            }
            Gathered::TooLarge => {
                (Bytes::new(), Some(Reason::RequestTooLarge), Some(End::Rest(Box::pin(body))))
            }
        };
        if let (Some(reason), Some(end)) = (reason, end) {
            let body = RequestBody::replayed(Replay::new(gather.into_frames(), end));
            return self.pass(parts, body, reason);
        }
        let asked = Asked { rule, parts, message, credentials };
        match self.shared.look(&asked, facts) {
            Looked::Hit(response) => ResponseFuture::hit(response),
            Looked::Stale(response, entry) => {
                self.missed(asked).refresh(entry, facts);
                ResponseFuture::hit(response)
            }
            Looked::Pass(reason) => {
                let body = RequestBody::message(asked.message);
                self.pass(asked.parts, body, reason)
            }
            Looked::Miss(key, there) => {
                ResponseFuture::boxed(Box::pin(self.missed(asked).run(key, there)))
            }
        }
    }

    fn pass<ReqB, ResB>(
        &mut self,
        parts: Parts,
        body: RequestBody<ReqB>,
        reason: Reason,
    ) -> ResponseFuture<S::Future, ResB, S::Error>
    where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>>,
        ReqB: Body,
        ResB: Body,
    {
        let told = Told::new(&self.shared.config.status_name, Forward::Bypass, reason);
        ResponseFuture::passed(self.inner.call(Request::from_parts(parts, body)), told)
    }
}

impl<S: Clone> Cached<S> {
    fn missed(&mut self, asked: Asked) -> Missed<S> {
        Missed { shared: self.shared.clone(), inner: self.ready(), asked }
    }

    // The service that was polled ready is the one that is called.
    fn ready(&mut self) -> S {
        let next = self.inner.clone();
        std::mem::replace(&mut self.inner, next)
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("inner", &self.inner).finish_non_exhaustive()
    }
}
