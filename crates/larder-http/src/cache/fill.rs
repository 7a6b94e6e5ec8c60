//! A fill: calling the handler, and what becomes of its answer.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{IF_RANGE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use larder_cache::{Joined, Landed, Passes, Pilot};
use larder_core::{Begin, Key, Moment, Peek, Revision, Sequence, Tag, When};
use larder_http_rules::reuse::Failure;
use larder_http_rules::{Reason, RequestFacts};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::body::ResponseBody;
use super::commit::{Commit, Permit};
use super::kept;
use super::layer::Shared;
use super::miss::{Held, There};
use super::plan::{Plan, plan};
use super::record::{Page, Shown, Variant};
use super::service::strip;
use super::stream::Source;
use super::tee::Panic;
use super::validate::Question;
use super::verdict::Told;
use crate::RequestHead;
use crate::head::Snapshot;

/// One fill. It is [kept](kept::keep): a client that goes away harms nobody.
pub(super) struct Fill {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    pub(super) flight: Option<Key>,
    pub(super) snapshot: Snapshot,
    pub(super) facts: RequestFacts,
    pub(super) there: There,
    /// What is stored and may still be good, or stand in for a handler that fails.
    pub(super) held: Option<Held>,
    pub(super) told: Told,
    /// Its place among those that may run at once.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What a client gets.
pub(super) type Answered<ResB, E> = Result<Response<ResponseBody<ResB>>, E>;

/// What the client that began a fill gets.
pub(super) enum Filled<S, ReqB, ResB: Body, E> {
    Answer(Answered<ResB, E>),
    /// Somebody else stored a response in the meantime: look again.
    Again(Box<(S, Request<ReqB>, Snapshot, Told)>),
}

/// What those get who waited for a fill.
pub(super) enum Landing {
    /// A response that was storable, complete at that moment.
    Fresh(Shown, Moment),
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

/// A storable response whose body is still coming. Those who wait for its fill may read along: at once where it is known
/// how long it will be, else when they have waited for its end as long as they would.
pub(super) struct Streaming {
    /// Without its body.
    pub(super) variant: Variant,
    pub(super) at: Moment,
    pub(super) source: Source,
    pub(super) length: Option<u64>,
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
pub(super) const HOLD: Duration = Duration::from_secs(6);

// How long a handler that has just failed is left alone where something stale stands in for it.
const REST: Duration = Duration::from_secs(1);

impl Fill {
    pub(super) fn new(
        shared: &Arc<Shared>,
        key: &Key,
        snapshot: Snapshot,
        facts: RequestFacts,
        there: There,
        held: Option<Held>,
        told: Told,
    ) -> Self {
        let (shared, key) = (shared.clone(), key.clone());
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
        ResB: Body<Data: Send, Error: Send> + Send + 'static,
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
        let head = RequestHead::from(&self.snapshot);
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
        kept::spawn(self.run(Some(pilot), inner, request));
    }

    pub(super) async fn run<S, ReqB, ResB>(
        mut self,
        mut pilot: Option<Pilot>,
        inner: S,
        mut request: Request<ReqB>,
    ) -> Filled<S, ReqB, ResB, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body<Data: Send, Error: Send> + Send + 'static,
    {
        // Numbers first, then the marker, then the handler: what is invalidated from here on voids what is stored.
        let (built_at, permit) = match self.permit(pilot.as_ref()).await {
            Ok(permitted) => permitted,
            Err(SomebodyElse) => {
                land(pilot, Landing::Again, true);
                let again = (inner, request, self.snapshot, self.told);
                return Filled::Again(Box::new(again));
            }
        };
        let deadline = Instant::now() + self.shared.config.deadline;
        let sent = self.wall();
        strip(&self.shared, &mut request);
        let question = self.question(request.headers_mut());
        let marker = permit.token().map(|token| (self.key.clone(), token));
        let store = self.shared.config.store.clone();
        let asked = {
            let asking = pin!(self.ask(&mut pilot, &permit, inner, request, deadline));
            store.holding(marker.as_slice(), HOLD, asking).await
        };
        let (response, read) = match asked {
            Ok(answer) => answer,
            Err(instead) => return Filled::Answer(instead),
        };
        let commit = Commit { built_at, permit, admitted: true, head_at: self.now() };
        // What is rare is boxed: every fill's future would else have room for it.
        let response = match (question, response.status()) {
            (Question::Still(held), StatusCode::NOT_MODIFIED) => {
                Box::pin(self.confirmed(held, pilot, response, sent, read, commit)).await
            }
            (Question::Rest(held), StatusCode::PARTIAL_CONTENT) => {
                match held.completed_by(response, self.shared.config.policy.contested) {
                    Ok((response, prefix)) => {
                        let answer = (response, Some(prefix));
                        Box::pin(self.answered(pilot, answer, sent, read, commit, deadline)).await
                    }
                    Err(()) => Box::pin(self.bad_rest(pilot, commit)).await,
                }
            }
            (Question::Rest(_), StatusCode::RANGE_NOT_SATISFIABLE) => {
                Box::pin(self.bad_rest(pilot, commit)).await
            }
            _ => self.answered(pilot, (response, None), sent, read, commit, deadline).await,
        };
        Filled::Answer(Ok(response))
    }

    // The handler's answer, and what it read to make it; or what its client gets instead, where nothing comes of it.
    async fn ask<S, ReqB, ResB>(
        &mut self,
        pilot: &mut Option<Pilot>,
        permit: &Permit,
        mut inner: S,
        request: Request<ReqB>,
        deadline: Instant,
    ) -> Result<(Response<ResB>, Vec<Tag>), Answered<ResB, S::Error>>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        let store = self.shared.config.store.clone();
        let call = async move { inner.call(request).await };
        let call = pin!(AssertUnwindSafe(call).catch_unwind());
        // What the handler reads from the cache is part of what it answers.
        let mut call = pin!(larder_cache::collect(&store, call));
        let (called, read) = match timeout_at(deadline, call.as_mut()).await {
            Ok(called) => called,
            Err(_) => {
                if let Some(stale) = self.stale(Failure::NoResponse).await {
                    return Err(Ok(self.stand_in(stale, permit, pilot.take()).await));
                }
                // Nobody waits for it any longer, and it is not stored; its own client still may have it.
                self.give_up(permit, pilot.take(), Reason::WaitTooLong).await;
                self.room = None;
                let (called, _) = kept::let_go(call).await;
                return Err(self.passed_on(called));
            }
        };
        let failure = match &called {
            Ok(Ok(response)) if response.status().is_server_error() => {
                Some(Failure::Status(response.status()))
            }
            Ok(Ok(_)) => None,
            _ => Some(Failure::NoResponse),
        };
        if let Some(failure) = failure {
            if !kept::is_asked_for() {
                // A refresh that failed behind the client's back is not begun again by the next client.
                self.shared.resting.set(&self.key, REST, store.clock());
            }
            if let Some(stale) = self.stale(failure).await {
                if let Failure::Status(status) = failure {
                    self.told.answered(status);
                }
                return Err(Ok(self.stand_in(stale, permit, pilot.take()).await));
            }
        }
        match called {
            Ok(Ok(response)) => Ok((response, read)),
            failed => {
                permit.release(&self.shared, &self.key).await;
                drop(pilot.take());
                Err(self.passed_on(failed))
            }
        }
    }

    // Stores what the handler answered, if it may be stored. A prefix comes before the body that it gave.
    async fn answered<ResB>(
        mut self,
        pilot: Option<Pilot>,
        (response, prefix): (Response<ResB>, Option<Bytes>),
        sent: SystemTime,
        read: Vec<Tag>,
        mut commit: Commit,
        deadline: Instant,
    ) -> Response<ResponseBody<ResB>>
    where
        ResB: Body<Data: Send, Error: Send> + Send + 'static,
    {
        self.told.waited_for_by(pilot.as_ref().map_or(0, Pilot::waiting));
        match self.planned(&response, sent, &read) {
            // A computed value panicked.
            Err(panic) => {
                commit.permit.release(&self.shared, &self.key).await;
                drop(pilot);
                resume_unwind(panic)
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
                response
            }
            Ok(Ok(plan)) => {
                if matches!(self.there, There::Nothing)
                    && !self.shared.admission.admits(&self.key, self.shared.config.admit_after)
                {
                    // Those who wait have it all the same.
                    self.told.because(Reason::NotAdmitted);
                    commit.admitted = false;
                }
                self.copy(pilot, response, prefix, plan, commit, deadline).await
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
                let head = RequestHead::from(&self.snapshot);
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
        let head = RequestHead::from(&self.snapshot);
        let resident = clock.now().since(held.written);
        let answer =
            self.shared.stand_in(&held.variant, resident, head, self.facts, failure).ok()?;
        let mut stale = answer.respond(head, self.facts, || clock.wall());
        stale.body_mut().open(&self.shared, &self.key).await.then_some(stale)
    }

    async fn stand_in<B: Body>(
        &mut self,
        mut stale: Response<ResponseBody<B>>,
        permit: &Permit,
        pilot: Option<Pilot>,
    ) -> Response<ResponseBody<B>> {
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
        stale
    }

    pub(super) async fn give_up(&self, permit: &Permit, pilot: Option<Pilot>, reason: Reason) {
        land(pilot, Landing::Unstorable(reason), true);
        permit.release(&self.shared, &self.key).await;
    }

    pub(super) fn mark_pass(&self) {
        self.mark(&self.shared.passes);
    }

    /// The same for what could have been stored by its head.
    pub(super) fn mark_large(&self) {
        self.mark(&self.shared.large);
    }

    fn mark(&self, marks: &Passes) {
        let config = &self.shared.config;
        if let Some(flight) = &self.flight {
            marks.set(flight, config.pass_for, config.store.clock());
        }
    }

    /// The handler's own answer, error or panic.
    pub(super) fn passed_on<B: Body, E>(
        &self,
        called: Result<Result<Response<B>, E>, Panic>,
    ) -> Answered<B, E> {
        let mut response = called.unwrap_or_else(|panic| resume_unwind(panic))?;
        self.told.forwarded(&mut response, false);
        Ok(response.map(ResponseBody::passed))
    }

    pub(super) fn now(&self) -> Moment {
        self.shared.config.store.clock().now()
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.shared.config.store.clock().wall()
    }
}

impl Shared {
    /// Lifts the marks of all flights of a URL.
    pub(super) fn lift_marks(&self, url: &Key) {
        self.passes.lift_all(url);
        self.large.lift_all(url);
    }

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
