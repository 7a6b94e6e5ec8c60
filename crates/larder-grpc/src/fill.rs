//! A fill: calling the handler, and what becomes of its answer.

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::response::Parts;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use larder_cache::{Joined, Landed, Pilot};
use larder_core::{Key, Moment, Sequence, Tag};
use larder_http_rules::CredentialState;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service;
use tracing::Instrument;

use crate::body::{End, Replay, RequestBody, ResponseBody};
use crate::commit::{Made, Permit, SomebodyElse};
use crate::gather::{Gather, Gathered};
use crate::layer::{Rule, Shared};
use crate::miss::There;
use crate::plan::{Plan, Sessions, is_private, plan};
use crate::record::Call;
use crate::service::{Asked, Fits};
use crate::status;
use crate::verdict::{Reason, Told};

/// One fill, in a task of its own.
pub(crate) struct Fill {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rule: Arc<Rule>,
    credentials: CredentialState,
    session: Sessions,
    pub(crate) key: Key,
    flight: Key,
    pub(crate) there: There,
    told: Told,
}

/// What the caller that began a fill gets.
pub(crate) enum Filled<S, ResB: Body, E> {
    Response(Box<Response<ResponseBody<ResB>>>),
    Failed(E),
    Panicked(Panic),
    /// Somebody else stored an answer in the meantime: look again.
    Again(S),
}

/// What those get who waited for a fill.
pub(crate) enum Landing {
    /// An answer that was storable, complete at that moment.
    Stored(Arc<Call>, Moment),
    /// A failure, which is not stored.
    Failure(Box<Failure>),
    /// An answer that is its own caller's only.
    Own(Reason),
    /// Nothing was filled: look again.
    Again,
}

/// A whole answer with another status than OK.
pub(crate) struct Failure {
    headers: HeaderMap,
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

/// What a panic threw.
pub(crate) type Panic = Box<dyn Any + Send>;

// How long a fill marker lives without being renewed.
pub(crate) const HOLD: Duration = Duration::from_secs(6);

// How long a handler that was not available is left alone where something stale stands in for it.
const REST: Duration = Duration::from_secs(1);

pub(crate) type Sender<S, ResB, E> = oneshot::Sender<Filled<S, ResB, E>>;

impl Failure {
    pub(crate) fn respond<B: Body>(&self) -> Response<ResponseBody<B>> {
        let end = End::Trailers(self.trailers.clone());
        let body = ResponseBody::replayed(Replay::new(self.message.clone(), end));
        let mut response = Response::new(body);
        *response.headers_mut() = self.headers.clone();
        response
    }
}

impl Fill {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        asked: &Asked,
        key: Key,
        flight: Key,
        there: There,
        told: Told,
    ) -> Self {
        let session = shared.sessions(asked);
        let (rule, credentials, shared) = (asked.rule.clone(), asked.credentials, shared.clone());
        Fill { shared, rule, credentials, session, key, flight, there, told }
    }

    /// Begins a fill whose answer nobody waits for, unless one is under way.
    pub(crate) fn behind<S, ReqB, ResB>(self, inner: S, asked: Asked)
    where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ReqB::Error: Send + 'static,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Send + 'static,
    {
        let store = &self.shared.config.store;
        if self.shared.resting.holds(&self.key, store.clock()) {
            return;
        }
        let joined = store.join(&self.flight, &self.key, &self.rule.tags);
        let Joined::Pilot(pilot, _) = joined else { return };
        let request = self.shared.request(&asked);
        let (sender, _) = oneshot::channel();
        tokio::spawn(self.run(pilot, inner, request, sender).in_current_span());
    }

    pub(crate) async fn run<S, ReqB, ResB>(
        self,
        pilot: Pilot,
        inner: S,
        request: Request<RequestBody<ReqB>>,
        sender: Sender<S, ResB, S::Error>,
    ) where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>>,
        ReqB: Body,
        ResB: Body,
    {
        // Numbers first, then the marker, then the handler: what is invalidated from here on voids what is stored.
        match self.permit(&pilot).await {
            Err(SomebodyElse) => {
                land(pilot, Landing::Again, true);
                let _ = sender.send(Filled::Again(inner));
            }
            Ok((built_at, permit)) => {
                let held = match permit {
                    Permit::Token(token) => vec![(self.key.clone(), token)],
                    _ => Vec::new(),
                };
                let store = self.shared.config.store.clone();
                let filling = self.fill(pilot, inner, request, sender, built_at, permit);
                store.holding(&held, HOLD, filling).await;
            }
        }
    }

    async fn fill<S, ReqB, ResB>(
        mut self,
        pilot: Pilot,
        mut inner: S,
        request: Request<RequestBody<ReqB>>,
        mut sender: Sender<S, ResB, S::Error>,
        built_at: Sequence,
        permit: Permit,
    ) where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>>,
        ReqB: Body,
        ResB: Body,
    {
        let deadline = Instant::now() + self.shared.config.deadline;
        let call = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
        // What the handler reads from the cache is part of what it answers.
        let store = self.shared.config.store.clone();
        let mut call = std::pin::pin!(larder_cache::collect(&store, call));
        let (called, read) = match tokio::time::timeout_at(deadline, &mut call).await {
            Ok(called) => called,
            Err(_) => {
                if let Some(stale) = self.stale() {
                    return self.stand_in(stale, permit, pilot, sender).await;
                }
                // Nobody waits for it any longer, and it is not stored; its own caller still may have it.
                self.give_up(permit, pilot, Reason::FillTooLong).await;
                tokio::select! {
                    (called, _) = &mut call => return self.pass_on(called, sender),
                    () = sender.closed() => return,
                }
            }
        };
        let response = match called {
            Ok(Ok(response)) => response,
            failed => {
                if let Some(stale) = self.stale() {
                    return self.stand_in(stale, permit, pilot, sender).await;
                }
                self.release(permit).await;
                drop(pilot);
                return self.pass_on(failed, sender);
            }
        };
        let head_at = self.now();
        let (head, body) = response.into_parts();
        if status::is_unavailable(head.status)
            && let Some(stale) = self.stale()
        {
            return self.stand_in(stale, permit, pilot, sender).await;
        }
        let mut body = Box::pin(body);
        let mut gather = Gather::new(self.shared.config.max_message);
        // A unary caller can do nothing with a message before its status has come, so it is read whole.
        let reading = AssertUnwindSafe(poll_fn(|cx| gather.poll(body.as_mut(), cx))).catch_unwind();
        let gathered = tokio::time::timeout_at(deadline, reading).await;
        let (reason, end) = match gathered {
            Ok(Ok(Gathered::Message(message, Some(trailers)))) => {
                match self.planned(&head, &trailers, &read) {
                    Ok(plan) => {
                        let call = Call::new(head.headers, message, trailers, plan.terms);
                        let (call, extensions) = (Arc::new(call), head.extensions);
                        let made = Made { call, extensions, plan, head_at };
                        self.store(pilot, made, built_at, permit, sender).await;
                    }
                    Err(reason) => {
                        let whole = (head, Some(message), Some(trailers));
                        self.whole(pilot, whole, reason, permit, sender).await;
                    }
                }
                return;
            }
            Ok(Ok(Gathered::Ended(trailers))) if gather.is_empty() => {
                let reason = match told_code(&head, trailers.as_ref()) {
                    None => Reason::NoTrailers,
                    Some(status::OK) => Reason::TrailersOnly,
                    Some(_) => Reason::Status,
                };
                self.whole(pilot, (head, None, trailers), reason, permit, sender).await;
                return;
            }
            Ok(Ok(Gathered::Message(_, None))) => (Reason::NoTrailers, End::Trailers(None)),
            Ok(Ok(Gathered::Ended(trailers))) => (Reason::Truncated, End::Trailers(trailers)),
            Ok(Ok(Gathered::Stream)) => (Reason::Stream, End::Rest(body)),
            Ok(Ok(Gathered::TooLarge)) => (Reason::AnswerTooLarge, End::Rest(body)),
            Ok(Ok(Gathered::Failed(error))) => {
                if let Some(stale) = self.stale() {
                    return self.stand_in(stale, permit, pilot, sender).await;
                }
                // The others try again, one of them for all.
                self.release(permit).await;
                drop(pilot);
                self.told.because(Reason::Truncated);
                return self.hand_over(head, gather, End::Failed(Some(error)), sender);
            }
            Ok(Err(panic)) => {
                self.release(permit).await;
                drop(pilot);
                let _ = sender.send(Filled::Panicked(panic));
                return;
            }
            Err(_) => match self.stale() {
                Some(stale) => return self.stand_in(stale, permit, pilot, sender).await,
                None => (Reason::FillTooLong, End::Rest(body)),
            },
        };
        // First those who wait are told, so that they run beside this one.
        self.mark_pass();
        self.give_up(permit, pilot, reason).await;
        self.told.because(reason);
        self.hand_over(head, gather, end, sender);
    }

    // A whole answer that is not to be stored.
    async fn whole<S, ResB: Body, E>(
        mut self,
        pilot: Pilot,
        (head, message, trailers): (Parts, Option<Bytes>, Option<HeaderMap>),
        reason: Reason,
        permit: Permit,
        sender: Sender<S, ResB, E>,
    ) {
        let code = told_code(&head, trailers.as_ref());
        if code == Some(status::UNAVAILABLE)
            && let Some(stale) = self.stale()
        {
            return self.stand_in(stale, permit, pilot, sender).await;
        }
        self.told.because(reason);
        let failed = code.is_some_and(|code| code != status::OK);
        let undeclared = matches!(self.credentials, CredentialState::Undeclared(_));
        if failed && !undeclared && !is_private(&head, trailers.as_ref(), &self.session) {
            // Those who wait have asked the same, and would ask a handler that fails all at once.
            let failure = Failure {
                headers: head.headers.clone(),
                message: message.clone(),
                trailers: trailers.clone(),
            };
            land(pilot, Landing::Failure(Box::new(failure)), true);
            self.release(permit).await;
        } else {
            if !failed {
                self.mark_pass();
            }
            self.give_up(permit, pilot, reason).await;
        }
        let body = ResponseBody::replayed(Replay::new(message, End::Trailers(trailers)));
        self.tell(Response::from_parts(head, body), false, sender);
    }

    fn planned(&self, head: &Parts, trailers: &HeaderMap, read: &[Tag]) -> Result<Plan, Reason> {
        let config = &self.shared.config;
        plan(config, &self.rule, self.credentials, &self.session, head, trailers, read)
    }

    // What is stale and may stand in for a handler that is not available.
    fn stale(&self) -> Option<(Arc<Call>, Duration)> {
        let There::Call(_, entry, call) = &self.there else { return None };
        let (fits, resident) = self.shared.fits(call, entry, self.now(), self.credentials);
        // Where it may be given while it is refreshed, it may also stand in for what failed.
        let good = matches!(fits, Fits::Fresh | Fits::Refresh | Fits::StandIn);
        good.then(|| (call.clone(), resident))
    }

    async fn stand_in<S, ResB: Body, E>(
        mut self,
        (call, resident): (Arc<Call>, Duration),
        permit: Permit,
        pilot: Pilot,
        sender: Sender<S, ResB, E>,
    ) {
        tracing::warn!(
            target: "larder_grpc",
            "the handler is not available; a stale answer stands in for it"
        );
        self.shared.resting.set(&self.key, REST, self.shared.config.store.clock());
        // Those who wait find that the handler rests, and what stands in for it.
        land(pilot, Landing::Again, true);
        self.release(permit).await;
        self.told.because(Reason::StaleUnavailable);
        self.tell(call.respond(resident), false, sender);
    }

    async fn give_up(&self, permit: Permit, pilot: Pilot, reason: Reason) {
        land(pilot, Landing::Own(reason), true);
        self.release(permit).await;
    }

    fn mark_pass(&self) {
        let config = &self.shared.config;
        self.shared.passes.set(&self.flight, config.pass_for, config.store.clock());
    }

    // What was read, and the rest as it comes.
    fn hand_over<S, ResB: Body, E>(
        self,
        head: Parts,
        gather: Gather,
        end: End<ResB>,
        sender: Sender<S, ResB, E>,
    ) {
        let body = ResponseBody::replayed(Replay::new(gather.into_frames(), end));
        self.tell(Response::from_parts(head, body), false, sender);
    }

    fn pass_on<S, ResB: Body, E>(
        &self,
        called: Result<Result<Response<ResB>, E>, Panic>,
        sender: Sender<S, ResB, E>,
    ) {
        match called {
            Ok(Ok(response)) => self.tell(response.map(ResponseBody::passed), false, sender),
            Ok(Err(error)) => drop(sender.send(Filled::Failed(error))),
            Err(panic) => drop(sender.send(Filled::Panicked(panic))),
        }
    }

    pub(crate) fn tell<S, ResB: Body, E>(
        &self,
        mut response: Response<ResponseBody<ResB>>,
        stored: bool,
        sender: Sender<S, ResB, E>,
    ) {
        self.told.forwarded(&mut response, stored);
        let _ = sender.send(Filled::Response(Box::new(response)));
    }

    fn now(&self) -> Moment {
        self.shared.config.store.clock().now()
    }
}

// The status, in the head of an answer that has nothing else, or where it belongs.
fn told_code(head: &Parts, trailers: Option<&HeaderMap>) -> Option<u32> {
    status::code(&head.headers).or_else(|| trailers.and_then(status::code))
}

pub(crate) fn land(pilot: Pilot, landing: Landing, shared: bool) {
    pilot.land(|| Landed::new(Ok(Arc::new(landing)), shared));
}
