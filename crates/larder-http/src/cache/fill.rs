//! A fill: calling the handler, giving the client its response, and storing a copy of it.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use http::header::{DATE, IF_MODIFIED_SINCE, IF_NONE_MATCH, SET_COOKIE, TRAILER};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use larder_cache::{Landed, Pilot};
use larder_core::{Begin, Key, Moment, Peek, Revision, Sequence};
use larder_http_rules::conditional::{self, Validators, Verdict};
use larder_http_rules::{Reason, RequestFacts, date, headers};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service;

use super::body::ResponseBody;
use super::commit::{Commit, Permit};
use super::layer::Shared;
use super::look::not_modified;
use super::miss::There;
use super::plan::{Plan, plan, session_touched};
use super::record::{Page, Stored, Variant};
use super::service::strip;
use super::tee::{self, Copied, Copying, Panic};
use super::verdict::Told;
use crate::RequestHead;
use crate::head::Snapshot;

/// One fill, in a task of its own.
pub(super) struct Fill {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    pub(super) flight: Key,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) facts: RequestFacts,
    pub(super) there: There,
    pub(super) told: Told,
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

// How long a fill marker lives without being renewed.
const HOLD: Duration = Duration::from_secs(6);

type Sender<S, ReqB, ResB, E> = oneshot::Sender<Filled<S, ReqB, ResB, E>>;

impl Fill {
    pub(super) async fn run<S, ReqB, ResB>(
        self,
        pilot: Pilot,
        inner: S,
        request: Request<ReqB>,
        sender: Sender<S, ReqB, ResB, S::Error>,
    ) where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        // Numbers first, then the marker, then the handler: what is invalidated from here on voids what is stored.
        match self.permit(&pilot).await {
            Err(SomebodyElse) => {
                land(pilot, Landing::Again, true);
                let _ = sender.send(Filled::Again(Box::new((inner, request, self.told))));
            }
            Ok((built_at, permit)) => {
                let held: Vec<_> =
                    permit.token().into_iter().map(|token| (self.key.clone(), token)).collect();
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
        // What is stored is for everybody: the handler must not answer 304 to this client's own copy.
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
            request.headers_mut().remove(name);
        }
        let call = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
        // What the handler reads from the cache is part of what it answers.
        let store = self.shared.config.store.clone();
        let mut call = std::pin::pin!(larder_cache::collect(&store, call));
        let (called, read) = match tokio::time::timeout_at(deadline, &mut call).await {
            Ok(called) => called,
            Err(_) => {
                // Nobody waits for it any longer, and it is not stored; its own client still may have it.
                self.give_up(&permit, pilot, Reason::WaitTooLong).await;
                tokio::select! {
                    (called, _) = &mut call => return self.pass_on(called, sender),
                    () = sender.closed() => return,
                }
            }
        };
        let response = match called {
            Ok(Ok(response)) => response,
            failed => {
                permit.release(&self.shared, &self.key).await;
                drop(pilot);
                return self.pass_on(failed, sender);
            }
        };
        let planned = std::panic::catch_unwind(AssertUnwindSafe(|| {
            plan(&self.shared, &self.snapshot, self.facts, &response, sent, &read)
        }));
        let planned = match planned {
            Ok(planned) => planned,
            // A computed value panicked.
            Err(panic) => {
                permit.release(&self.shared, &self.key).await;
                drop(pilot);
                return self.pass_on(Err(panic), sender);
            }
        };
        match planned {
            Err(reason) => {
                self.told.because(reason);
                if !response.status().is_server_error() {
                    self.mark_pass();
                }
                // First those who wait are told, so that they run beside this one.
                self.give_up(&permit, pilot, reason).await;
                self.pass_on(Ok(Ok(response)), sender);
            }
            Ok(plan) => {
                let commit = Commit { built_at, permit, head_at: self.now() };
                self.copy(pilot, response, sender, plan, commit, deadline).await;
            }
        }
    }

    // The right to store.
    async fn permit(&self, pilot: &Pilot) -> Result<(Sequence, Permit), SomebodyElse> {
        let config = &self.shared.config;
        let store = &config.store;
        if matches!(self.there, There::Outage) {
            return Ok((Sequence::NONE, Permit::Outage));
        }
        // The response may bring tags that the route does not know, so the sequence is always read.
        let Ok(marks) = store.marks(&config.tags).await else {
            return Ok((Sequence::NONE, Permit::Outage));
        };
        let permit = match &self.there {
            There::Page(revision, ..) | There::Unusable(revision) if self.replaced(*revision) => {
                return Err(SomebodyElse);
            }
            There::Page(revision, written, entry, page) => {
                Permit::Page(*revision, *written, entry.clone(), page.clone())
            }
            There::Unusable(revision) => Permit::Revision(*revision),
            There::Outage => Permit::Outage,
            There::Nothing => match store.begin_or_wait(&self.key, HOLD, config.wait).await {
                Ok(Begin::Token(token)) if pilot.holds(token) => Permit::Token(token),
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
                entry.downcast::<Page>().is_none_or(|page| self.shared.has_variant(page, head))
            }
            _ => false,
        }
    }

    async fn copy<S, ReqB, ResB: Body, E>(
        mut self,
        pilot: Pilot,
        response: Response<ResB>,
        sender: Sender<S, ReqB, ResB, E>,
        plan: Plan,
        commit: Commit,
        deadline: Instant,
    ) {
        let (parts, body) = response.into_parts();
        self.told.answered(parts.status);
        let size = body.size_hint();
        let stored_head = (parts.status, parts.headers.clone());
        let mut copying = Copying::new(body, self.shared.config.max_body, plan.length);

        // What is ready already needs no stream: most handlers' bodies are.
        let ready = poll_fn(|cx| Poll::Ready(copying.poll_copy(cx, |_| {})));
        let ready = AssertUnwindSafe(ready).catch_unwind().await;
        let (writer, reader) = tee::pair(copying.frames().to_vec(), size);
        // The client asked on a condition, and what was made for everybody meets it.
        let known = (self.facts.any(RequestFacts::CONDITIONAL) && parts.status == StatusCode::OK)
            .then(|| Validators::from_headers(&parts.headers, self.wall()))
            .is_some_and(|validators| {
                let asked = RequestHead::from(&*self.snapshot).headers();
                conditional::evaluate(asked, validators, self.wall()) == Verdict::NotModified
            });
        let head = |body| {
            if known { not_modified(&parts.headers) } else { Response::from_parts(parts, body) }
        };
        let local = self.shared.config.store.abilities().local;
        let copied = match ready {
            Err(panic) => Err(panic),
            Ok(Poll::Ready(Copied::Complete(body, trailers))) => {
                let given = ResponseBody::stored(body.clone(), trailers.clone().map(Arc::new));
                let mut response = head(given);
                if local {
                    let ending = self.finish(stored_head, body, trailers, plan, commit).await;
                    let stored = ending.land(pilot);
                    self.told.forwarded(&mut response, stored);
                    let _ = sender.send(Filled::Response(response));
                } else {
                    // The client does not wait for the store.
                    self.told.forwarded(&mut response, true);
                    let _ = sender.send(Filled::Response(response));
                    self.finish(stored_head, body, trailers, plan, commit).await.land(pilot);
                }
                return;
            }
            Ok(Poll::Ready(other)) => {
                let mut response = head(ResponseBody::copied(reader));
                if matches!(other, Copied::TooLarge) {
                    self.told.because(Reason::BodyTooLarge);
                }
                self.told.forwarded(&mut response, false);
                let _ = sender.send(Filled::Response(response));
                Ok(Ok(other))
            }
            Ok(Poll::Pending) => {
                let mut response = head(ResponseBody::copied(reader));
                self.told.forwarded(&mut response, true);
                let _ = sender.send(Filled::Response(response));
                let copy = poll_fn(|cx| copying.poll_copy(cx, |frame| writer.push(frame.clone())));
                let copy = AssertUnwindSafe(tokio::time::timeout_at(deadline, copy));
                copy.catch_unwind().await
            }
        };
        match copied {
            Ok(Ok(Copied::Complete(body, trailers))) => {
                if local {
                    let given = trailers.clone();
                    let ending = self.finish(stored_head, body, trailers, plan, commit).await;
                    ending.land(pilot);
                    // Last, so that a client that has read to the end finds it stored.
                    writer.complete(given);
                } else {
                    writer.complete(trailers.clone());
                    self.finish(stored_head, body, trailers, plan, commit).await.land(pilot);
                }
            }
            Ok(Ok(Copied::Failed(error))) => {
                writer.fail(error);
                commit.permit.release(&self.shared, &self.key).await;
            }
            Ok(Ok(Copied::Truncated(trailers))) => {
                writer.complete(trailers);
                commit.permit.release(&self.shared, &self.key).await;
            }
            Err(panic) => {
                writer.panicked(panic);
                commit.permit.release(&self.shared, &self.key).await;
            }
            gone_too_far => {
                let in_time = gone_too_far.is_ok_and(|copied| copied.is_ok());
                if in_time {
                    self.mark_pass();
                }
                writer.hand_over(copying.into_parts().1);
                let reason = if in_time { Reason::BodyTooLarge } else { Reason::WaitTooLong };
                self.give_up(&commit.permit, pilot, reason).await;
            }
        }
    }

    // The response is complete: store it, unless its session was used while it streamed.
    async fn finish(
        &self,
        (status, mut fields): (StatusCode, HeaderMap),
        body: bytes::Bytes,
        trailers: Option<HeaderMap>,
        plan: Plan,
        commit: Commit,
    ) -> Ending {
        let late = if session_touched(&self.snapshot, plan.session.as_ref()) {
            Some(Reason::SessionTouched)
        } else if trailers.as_ref().is_some_and(|trailers| trailers.contains_key(SET_COOKIE)) {
            Some(Reason::SetCookie)
        } else {
            None
        };
        if let Some(reason) = late {
            commit.permit.release(&self.shared, &self.key).await;
            return Ending::unstorable(reason);
        }
        let wall = self.wall();
        let announced = trailers.as_ref().and_then(|_| fields.get(TRAILER).cloned());
        headers::remove_hop_by_hop(&mut fields);
        if let Some(names) = announced {
            // Without it, a server does not send the trailers that are stored.
            fields.insert(TRAILER, names);
        }
        if plan.storable.strip_set_cookie {
            fields.remove(SET_COOKIE);
        }
        fields.entry(DATE).or_insert_with(|| date::header_value(wall));
        let mut terms = plan.storable.terms;
        terms.initial_age = terms.age(self.now().since(commit.head_at));
        let route = &self.shared.config.route.credentials;
        let variant = Arc::new(Variant {
            rule: plan.list.rule(route),
            list: plan.list,
            selector: plan.selector,
            verbatim: plan.verbatim,
            response: Stored::new(status, fields, body, trailers, terms, wall),
        });
        let at = self.now();
        let done = commit.run(&self.shared, &self.key, variant.clone(), plan.tags).await;
        // Invalidating a tag that only the response knew does not detach the flight, so somebody may wait who came
        // after that. The store tells them whether it still holds.
        let shared = done.shared && !(done.stored && plan.own_tags);
        Ending { landing: Landing::Fresh(variant, at), stored: done.stored, shared }
    }

    async fn give_up(&self, permit: &Permit, pilot: Pilot, reason: Reason) {
        land(pilot, Landing::Unstorable(reason), true);
        permit.release(&self.shared, &self.key).await;
    }

    fn mark_pass(&self) {
        let config = &self.shared.config;
        self.shared.passes.set(&self.flight, config.pass_for, config.store.clock());
    }

    fn pass_on<S, ReqB, ResB: Body, E>(
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

    fn now(&self) -> Moment {
        self.shared.config.store.clock().now()
    }

    fn wall(&self) -> SystemTime {
        self.shared.config.store.clock().wall()
    }
}

/// A response was stored between the look and the fill.
struct SomebodyElse;

struct Ending {
    landing: Landing,
    stored: bool,
    shared: bool,
}

impl Ending {
    fn unstorable(reason: Reason) -> Self {
        Ending { landing: Landing::Unstorable(reason), stored: false, shared: true }
    }

    fn land(self, pilot: Pilot) -> bool {
        land(pilot, self.landing, self.shared);
        self.stored
    }
}

fn land(pilot: Pilot, landing: Landing, shared: bool) {
    pilot.land(Landed::new(Ok(Arc::new(landing)), shared));
}
