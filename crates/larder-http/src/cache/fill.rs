//! A fill: calling the handler, and what becomes of its answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use http::header::{IF_RANGE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use larder_cache::{Joined, Landed, Pilot};
use larder_core::{Begin, Key, Moment, Peek, Revision, Sequence, Tag, When};
use larder_http_rules::reuse::Failure;
use larder_http_rules::{Reason, RequestFacts};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tower_service::Service;
use tracing::Instrument;

use super::body::{BoxError, ResponseBody};
use super::commit::{Commit, Permit};
use super::layer::Shared;
use super::miss::{Held, There};
use super::plan::{Plan, plan};
use super::record::{Page, Variant};
use super::service::strip;
use super::stream::Source;
use super::tee::Panic;
use super::validate::Question;
use super::verdict::Told;
use crate::RequestHead;
use crate::head::Snapshot;

/// One fill, in a task of its own.
pub(super) struct Fill {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    pub(super) flight: Option<Key>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) facts: RequestFacts,
    pub(super) there: There,
    /// What is stored and may still be good, or stand in for a handler that fails.
    pub(super) held: Option<Held>,
    pub(super) told: Told,
    /// Its place among those that may run at once.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What the client that began a fill gets.
pub(super) enum Filled<S, ReqB, ResB: Body, E> {
    Response(Response<ResponseBody<ResB>>),
    Failed(E),
    Panicked(Panic),
    /// Somebody else stored a response in the meantime: look again.
    Again(Box<(S, Request<ReqB>, Told)>),
}

/// What those get who waited for a fill.
pub(super) enum Landing {
    /// A response that was storable, complete at that moment.
    Fresh(Arc<Variant>, Moment),
    /// One that is its own client's only.
    Unstorable(Reason),
    /// Nothing was filled: look again.
    Again,
}

/// What those who wait hear before the end of a fill.
pub(super) enum Announced {
    Streaming(Box<Streaming>),
    /// A response that they had better not wait for.
    Unfit(Reason),
}

/// A storable response whose body is still coming. Those who wait for its fill may read along.
pub(super) struct Streaming {
    /// Without its body.
    pub(super) variant: Variant,
    pub(super) at: Moment,
    pub(super) source: Source,
    pub(super) length: u64,
    pub(super) when: When,
    pub(super) tags: Vec<Tag>,
    pub(super) built_at: Sequence,
}

impl Streaming {
    /// Whether what was invalidated since it was begun leaves it as it is: somebody who came after that must not have
    /// it.
    pub(super) async fn holds(&self, shared: &Shared, key: &Key) -> bool {
        let Streaming { when, tags, built_at, .. } = self;
        let holds = shared.config.store.would_hold(key, *when, HOLD, tags, *built_at).await;
        holds.unwrap_or(false)
    }
}

// How long a fill marker lives without being renewed.
const HOLD: Duration = Duration::from_secs(6);

// How long a handler that has just failed is left alone where something stale stands in for it.
const REST: Duration = Duration::from_secs(1);

pub(super) type Sender<S, ReqB, ResB, E> = oneshot::Sender<Filled<S, ReqB, ResB, E>>;

impl Fill {
    pub(super) fn new(
        shared: &Arc<Shared>,
        key: &Key,
        snapshot: &Arc<Snapshot>,
        facts: RequestFacts,
        there: There,
        held: Option<Held>,
        told: Told,
    ) -> Self {
        let (shared, key, snapshot) = (shared.clone(), key.clone(), snapshot.clone());
        Fill { shared, key, flight: None, snapshot, facts, there, held, told, room: None }
    }

    /// Begins a fill whose response nobody waits for, unless one is under way. The request is the client's own, which
    /// was answered already: what outer layers put into it is as good for this as for a fill whose client has left.
    pub(super) fn behind<S, ReqB, ResB>(mut self, inner: S, mut request: Request<ReqB>)
    where
        S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Into<BoxError> + Send + 'static,
    {
        let store = &self.shared.config.store;
        if request.method() == Method::HEAD || self.shared.resting.holds(&self.key, store.clock()) {
            return;
        }
        // All of it is refreshed, whatever part the client wanted.
        for name in [RANGE, IF_RANGE] {
            request.headers_mut().remove(name);
        }
        self.facts = self.facts.without(RequestFacts::RANGE.union(RequestFacts::IF_RANGE));
        let head = RequestHead::from(&*self.snapshot);
        let flight = self.shared.flight(&self.key, &self.there, head, self.facts);
        let Some(flight) = flight else { return };
        let tags = self.shared.config.tags_under(&self.key, self.facts);
        let joined = store.join(&flight, &self.key, &tags);
        let Joined::Pilot(pilot, _) = joined else { return };
        self.room = self.shared.room();
        if self.room.is_none() {
            return;
        }
        self.flight = Some(flight);
        let (sender, _) = oneshot::channel();
        tokio::spawn(Box::pin(self.run(Some(pilot), inner, request, sender)).in_current_span());
    }

    pub(super) async fn run<S, ReqB, ResB>(
        self,
        pilot: Option<Pilot>,
        inner: S,
        request: Request<ReqB>,
        sender: Sender<S, ReqB, ResB, S::Error>,
    ) where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        // Numbers first, then the marker, then the handler: what is invalidated from here on voids what is stored.
        match self.permit(pilot.as_ref()).await {
            Err(SomebodyElse) => {
                land(pilot, Landing::Again, true);
                let _ = sender.send(Filled::Again(Box::new((inner, request, self.told))));
            }
            Ok((built_at, permit)) => {
                let held = permit.token().map(|token| (self.key.clone(), token));
                let store = self.shared.config.store.clone();
                let filling = self.fill(pilot, inner, request, sender, built_at, permit);
                store.holding(held.as_slice(), HOLD, filling).await;
            }
        }
    }

    async fn fill<S, ReqB, ResB>(
        mut self,
        pilot: Option<Pilot>,
        mut inner: S,
        mut request: Request<ReqB>,
        mut sender: Sender<S, ReqB, ResB, S::Error>,
        built_at: Sequence,
        permit: Permit,
    ) where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        let deadline = Instant::now() + self.shared.config.deadline;
        let sent = self.wall();
        strip(&self.shared, &mut request);
        let question = self.question(request.headers_mut());
        let call = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
        // What the handler reads from the cache is part of what it answers.
        let store = self.shared.config.store.clone();
        let mut call = std::pin::pin!(larder_cache::collect(&store, call));
        let (called, read) = match tokio::time::timeout_at(deadline, &mut call).await {
            Ok(called) => called,
            Err(_) => {
                if let Some(stale) = self.stale(Failure::NoResponse).await {
                    return self.stand_in(stale, &permit, pilot, sender).await;
                }
                // Nobody waits for it any longer, and it is not stored; its own client still may have it.
                self.give_up(&permit, pilot, Reason::WaitTooLong).await;
                self.room = None;
                tokio::select! {
                    (called, _) = &mut call => return self.pass_on(called, sender),
                    () = sender.closed() => return,
                }
            }
        };
        let response = match called {
            Ok(Ok(response)) => response,
            failed => {
                if let Some(stale) = self.stale(Failure::NoResponse).await {
                    return self.stand_in(stale, &permit, pilot, sender).await;
                }
                self.rest_behind(&sender);
                permit.release(&self.shared, &self.key).await;
                drop(pilot);
                return self.pass_on(failed, sender);
            }
        };
        let status = response.status();
        if status.is_server_error() {
            self.rest_behind(&sender);
        }
        if status.is_server_error()
            && let Some(stale) = self.stale(Failure::Status(status)).await
        {
            self.told.answered(status);
            return self.stand_in(stale, &permit, pilot, sender).await;
        }
        let mut commit = Commit { built_at, permit, head_at: self.now() };
        let (response, prefix) = match (question, status) {
            (Question::Still(held), StatusCode::NOT_MODIFIED) => {
                return self.confirmed(held, pilot, response, sender, sent, &read, commit).await;
            }
            (Question::Rest(held), StatusCode::PARTIAL_CONTENT) => {
                match held.completed_by(response, self.shared.config.policy.contested) {
                    Ok((response, prefix)) => (response, Some(prefix)),
                    Err(()) => return self.bad_rest(pilot, sender, commit).await,
                }
            }
            (Question::Rest(_), StatusCode::RANGE_NOT_SATISFIABLE) => {
                return self.bad_rest(pilot, sender, commit).await;
            }
            _ => (response, None),
        };
        self.told.waited_for_by(pilot.as_ref().map_or(0, Pilot::waiting));
        match self.planned(&response, sent, &read) {
            // A computed value panicked.
            Err(panic) => {
                commit.permit.release(&self.shared, &self.key).await;
                drop(pilot);
                self.pass_on(Err(panic), sender);
            }
            Ok(Err(reason)) => {
                self.told.because(reason);
                if !response.status().is_server_error() {
                    self.mark_pass();
                }
                // First those who wait are told, so that they run beside this one.
                self.give_up(&commit.permit, pilot, reason).await;
                let mut response = match prefix {
                    Some(prefix) => response.map(|body| ResponseBody::behind(prefix, body)),
                    None => response.map(ResponseBody::passed),
                };
                self.told.forwarded(&mut response, false);
                let _ = sender.send(Filled::Response(response));
            }
            Ok(Ok(plan)) => {
                if matches!(self.there, There::Nothing)
                    && !self.shared.admission.admits(&self.key, self.shared.config.admit_after)
                {
                    // Those who wait have it all the same.
                    self.told.because(Reason::NotAdmitted);
                    commit.permit.release(&self.shared, &self.key).await;
                    commit.permit = Permit::Outage;
                }
                self.copy(pilot, response, prefix, sender, plan, commit, deadline).await;
            }
        }
    }

    /// How a response is to be stored, or why not; a panic where a computed value panicked.
    pub(super) fn planned<B: Body>(
        &self,
        response: &Response<B>,
        sent: SystemTime,
        read: &[Tag],
    ) -> Result<Result<Plan, Reason>, Panic> {
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            plan(&self.shared, &self.key, &self.snapshot, self.facts, response, sent, read)
        }))
    }

    // The right to store.
    async fn permit(&self, pilot: Option<&Pilot>) -> Result<(Sequence, Permit), SomebodyElse> {
        let config = &self.shared.config;
        let store = &config.store;
        if matches!(self.there, There::Outage) {
            return Ok((Sequence::NONE, Permit::Outage));
        }
        // The response may bring tags that the route does not know, so the sequence is always read.
        let watched = config.watched_under(&self.key, self.facts);
        let Ok(marks) = store.marks(&watched).await else {
            return Ok((Sequence::NONE, Permit::Outage));
        };
        let permit = match &self.there {
            There::Page(revision, ..) | There::Unusable(revision)
                if pilot.is_some() && self.replaced(*revision) =>
            {
                return Err(SomebodyElse);
            }
            There::Page(revision, written, entry, page) => {
                Permit::Page(*revision, *written, entry.clone(), page.clone())
            }
            There::Unusable(revision) => Permit::Revision(*revision),
            There::Outage => Permit::Outage,
            There::Nothing => match store.begin_or_wait(&self.key, HOLD, config.wait).await {
                Ok(Begin::Token(token)) if pilot.is_some_and(|pilot| pilot.holds(token)) => {
                    Permit::Token(token)
                }
                Ok(Begin::Token(token)) => {
                    Permit::Token(token).release(&self.shared, &self.key).await;
                    Permit::Never
                }
                Ok(Begin::Found(_)) => return Err(SomebodyElse),
                Ok(Begin::Busy | Begin::Pass) => Permit::Never,
                Err(_) => Permit::Outage,
            },
        };
        Ok((marks.sequence, permit))
    }

    // Whether another fill has ended between the look and this one, where that can be seen without waiting. One that
    // made another variant changes nothing: with many variants at once there would be no end of looking.
    fn replaced(&self, revision: Revision) -> bool {
        match self.shared.config.store.peek(self.key.as_ref()) {
            Peek::Hit(entry) if entry.revision() != revision => {
                let head = RequestHead::from(&*self.snapshot);
                entry
                    .downcast::<Page>()
                    .is_none_or(|page| self.shared.has_variant(page, head, self.facts))
            }
            _ => false,
        }
    }

    // What is stale and may stand in for a handler that failed.
    async fn stale<B: Body>(&self, failure: Failure) -> Option<Response<ResponseBody<B>>> {
        let held = self.held.as_ref()?;
        let clock = self.shared.config.store.clock();
        let head = RequestHead::from(&*self.snapshot);
        let resident = clock.now().since(held.written);
        let answer =
            self.shared.stand_in(&held.variant, resident, head, self.facts, failure).ok()?;
        let mut stale = answer.respond(head, self.facts, || clock.wall());
        stale.body_mut().open(&self.shared, &self.key).await.then_some(stale)
    }

    // A refresh that failed behind the client's back is not begun again by the next client.
    fn rest_behind<T>(&self, sender: &oneshot::Sender<T>) {
        if sender.is_closed() {
            self.shared.resting.set(&self.key, REST, self.shared.config.store.clock());
        }
    }

    async fn stand_in<S, ReqB, ResB: Body, E>(
        mut self,
        mut stale: Response<ResponseBody<ResB>>,
        permit: &Permit,
        pilot: Option<Pilot>,
        sender: Sender<S, ReqB, ResB, E>,
    ) {
        tracing::warn!(
            target: "larder_http",
            "the handler failed; a stale response stands in for it"
        );
        self.shared.resting.set(&self.key, REST, self.shared.config.store.clock());
        // Those who wait find that the handler rests, and what stands in for it.
        land(pilot, Landing::Again, true);
        permit.release(&self.shared, &self.key).await;
        self.told.because(Reason::StaleIfError);
        self.told.forwarded(&mut stale, false);
        let _ = sender.send(Filled::Response(stale));
    }

    pub(super) async fn give_up(&self, permit: &Permit, pilot: Option<Pilot>, reason: Reason) {
        land(pilot, Landing::Unstorable(reason), true);
        permit.release(&self.shared, &self.key).await;
    }

    pub(super) fn mark_pass(&self) {
        let config = &self.shared.config;
        if let Some(flight) = &self.flight {
            self.shared.passes.set(flight, config.pass_for, config.store.clock());
        }
    }

    pub(super) fn pass_on<S, ReqB, ResB: Body, E>(
        &self,
        called: Result<Result<Response<ResB>, E>, Panic>,
        sender: Sender<S, ReqB, ResB, E>,
    ) {
        let filled = match called {
            Ok(Ok(response)) => {
                let mut response = response.map(ResponseBody::passed);
                self.told.forwarded(&mut response, false);
                Filled::Response(response)
            }
            Ok(Err(error)) => Filled::Failed(error),
            Err(panic) => Filled::Panicked(panic),
        };
        let _ = sender.send(filled);
    }

    pub(super) fn now(&self) -> Moment {
        self.shared.config.store.clock().now()
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.shared.config.store.clock().wall()
    }
}

impl Shared {
    /// Room for one more fill, if there is any.
    pub(super) fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.fills.clone().try_acquire_owned().ok()
    }
}

/// A response was stored between the look and the fill.
struct SomebodyElse;

pub(super) fn land(pilot: Option<Pilot>, landing: Landing, shared: bool) {
    if let Some(pilot) = pilot {
        pilot.land(|| Landed::new(Ok(Arc::new(landing)), shared));
    }
}
