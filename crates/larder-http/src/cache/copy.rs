//! Copying a response's body for the store while it goes to the client.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http::header::TRAILER;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, SizeHint};
use larder_cache::Pilot;
use larder_http_rules::conditional::{self, Validators, Verdict};
use larder_http_rules::{Reason, RequestFacts, SessionMark};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use super::answer::not_modified;
use super::body::ResponseBody;
use super::commit::{Commit, Permit};
use super::fill::{Announced, Fill, HOLD, Landing, Streaming, land};
use super::plan::Plan;
use super::record::Content;
use super::stream::Stream;
use super::tee::{self, Copied, Copying, Writer, poll_data};
use crate::RequestHead;

impl Fill {
    /// Gives the client its response, and stores a copy of it. `prefix` comes before the body that the handler gave.
    pub(super) async fn copy<B>(
        mut self,
        pilot: Option<Pilot>,
        response: Response<B>,
        prefix: Option<Bytes>,
        plan: Plan,
        commit: Commit,
        deadline: Instant,
    ) -> Response<ResponseBody<B>>
    where
        B: Body<Data: Send, Error: Send> + Send + 'static,
    {
        let (parts, body) = response.into_parts();
        self.told.answered(parts.status);
        let size =
            longer(body.size_hint(), prefix.as_ref().map_or(0, |prefix| prefix.len() as u64));
        let whole = prefix.is_none();
        let mut copying = Copying::new(prefix, body, self.shared.config.max_body, plan.length);
        // What is ready already needs no stream: most handlers' bodies are.
        let begun = poll_fn(|cx| Poll::Ready(copying.poll_copy(cx, |_| {}))).await;
        let known = self.is_known(&parts);
        let may_store = commit.when().is_some();
        let begun = match begun {
            Poll::Ready(Copied::Complete(body, trailers)) => {
                let given = ResponseBody::stored(body.clone(), trailers.clone().map(Arc::new));
                if self.shared.config.store.abilities().local {
                    let head = (parts.status, &parts.headers);
                    let stored = self.finish(head, body, trailers, plan, commit, pilot).await;
                    let mut response = answer(known, parts, given);
                    self.told.forwarded(&mut response, stored);
                    return response;
                }
                // The client does not wait for the store.
                let head = (parts.status, parts.headers.clone());
                let mut response = answer(known, parts, given);
                self.told.forwarded(&mut response, may_store);
                let finishing = async move {
                    let head = (head.0, &head.1);
                    self.finish(head, body, trailers, plan, commit, pilot).await;
                };
                tokio::spawn(finishing.in_current_span());
                return response;
            }
            begun => begun,
        };
        let (writer, reader) = tee::pair(copying.frames().iter().cloned(), size);
        let spills = whole && self.spills(&plan, &commit);
        let stored = match &begun {
            Poll::Pending => {
                let fits = |length| length <= self.shared.config.max_body;
                // What may go on in chunks is kept nowhere that others could read it.
                let bounded = plan.length.map_or(!spills, fits);
                if let Some(pilot) = pilot.as_ref().filter(|_| whole && bounded) {
                    self.announce(pilot, &parts, &plan, &commit, writer.stream());
                }
                may_store
            }
            Poll::Ready(Copied::TooLarge) => {
                if !spills {
                    self.told.because(Reason::BodyTooLarge);
                }
                spills
            }
            Poll::Ready(_) => false,
        };
        let head = (parts.status, parts.headers.clone());
        let mut response = answer(known, parts, ResponseBody::copied(reader));
        self.told.forwarded(&mut response, stored);
        let rest = Rest { fill: self, pilot, head, plan, commit, deadline };
        tokio::spawn(rest.run(begun, copying, writer, spills).in_current_span());
        response
    }

    // Whether the client asked on a condition, and what was made for everybody meets it.
    fn is_known(&self, parts: &Parts) -> bool {
        if !self.facts.any(RequestFacts::CONDITIONAL) || parts.status != StatusCode::OK {
            return false;
        }
        let validators = Validators::from_headers(&parts.headers, self.wall());
        let asked = RequestHead::from(&self.snapshot).headers();
        conditional::evaluate(asked, validators, self.wall()) == Verdict::NotModified
    }

    // Those who wait may read along where nothing can turn up on the way that makes it its own client's only.
    fn announce(
        &self,
        pilot: &Pilot,
        parts: &Parts,
        plan: &Plan,
        commit: &Commit,
        stream: &Stream,
    ) {
        let outside = RequestHead::from(&self.snapshot).extensions().get::<SessionMark>();
        let sure =
            outside.is_none() && plan.session.is_none() && !parts.headers.contains_key(TRAILER);
        if let (true, None, Some(when)) = (sure, &plan.storable.part, commit.when()) {
            let (mut plan, built_at) = (plan.clone(), commit.built_at);
            let (tags, length) = (std::mem::take(&mut plan.tags), plan.length);
            let head = (parts.status, &parts.headers);
            let variant = self.variant(head, Content::Here(Bytes::new()), None, None, plan, commit);
            let (at, source) = (self.now(), stream.source());
            let streaming = Streaming { variant, at, source, length, when, tags, built_at };
            pilot.announce(Arc::new(Announced::Streaming(Box::new(streaming))));
        }
    }
}

fn answer<B: Body>(known: bool, parts: Parts, body: ResponseBody<B>) -> Response<ResponseBody<B>> {
    if known { not_modified(&parts.headers) } else { Response::from_parts(parts, body) }
}

/// What is left of a fill whose client has its response, and not yet all of its body. In a task of its own: the copy does
/// not wait for the client.
pub(super) struct Rest {
    pub(super) fill: Fill,
    pub(super) pilot: Option<Pilot>,
    pub(super) head: (StatusCode, HeaderMap),
    pub(super) plan: Plan,
    pub(super) commit: Commit,
    pub(super) deadline: Instant,
}

impl Rest {
    async fn run<B: Body>(
        self,
        begun: Poll<Copied<B::Error>>,
        copying: Copying<B>,
        writer: Writer<B>,
        spills: bool,
    ) {
        let store = self.fill.shared.config.store.clone();
        let marker = self.commit.permit.token().map(|token| (self.fill.key.clone(), token));
        let given_up = {
            let going_on = pin!(self.go_on(begun, copying, writer, spills));
            store.holding(marker.as_slice(), HOLD, going_on).await
        };
        // Its marker is not kept alive any more.
        if let Some(GivenUp { fill, permit, rest, writer }) = given_up {
            let config = &fill.shared.config;
            let sharing = share(rest, writer, config.max_body, config.wait);
            join(permit.release(&fill.shared, &fill.key), sharing).await;
        }
    }

    async fn go_on<B: Body>(
        self,
        begun: Poll<Copied<B::Error>>,
        mut copying: Copying<B>,
        writer: Writer<B>,
        spills: bool,
    ) -> Option<GivenUp<B>> {
        let copied = match begun {
            Poll::Ready(copied) => copied,
            Poll::Pending => {
                let copy = poll_fn(|cx| copying.poll_copy(cx, |frame| writer.push(frame.clone())));
                match timeout_at(self.deadline, copy).await {
                    Ok(copied) => copied,
                    Err(_) => return Some(self.given_up(copying, writer, Reason::WaitTooLong)),
                }
            }
        };
        let (body, trailers) = match copied {
            Copied::Complete(body, trailers) => (body, trailers),
            Copied::TooLarge if spills => {
                self.spill(copying, writer).await;
                return None;
            }
            Copied::TooLarge => {
                self.fill.mark_large();
                return Some(self.given_up(copying, writer, Reason::BodyTooLarge));
            }
            Copied::Broken(over) => {
                let Rest { fill, pilot, commit, .. } = self;
                // Nobody begins to read along any more.
                drop(pilot);
                writer.broken(over);
                commit.permit.release(&fill.shared, &fill.key).await;
                return None;
            }
        };
        let Rest { fill, pilot, head, plan, commit, .. } = self;
        let given = trailers.clone();
        let finish = fill.finish((head.0, &head.1), body, trailers, plan, commit, pilot);
        if fill.shared.config.store.abilities().local {
            finish.await;
            // Last, so that a client that has read to the end finds it stored.
            writer.complete(given);
        } else {
            writer.complete(given);
            finish.await;
        }
        None
    }

    fn given_up<B: Body>(
        self,
        copying: Copying<B>,
        writer: Writer<B>,
        reason: Reason,
    ) -> GivenUp<B> {
        let Rest { fill, pilot, commit, .. } = self;
        // Nobody begins to read along any more.
        land(pilot, Landing::Unstorable(reason), true);
        GivenUp { fill, permit: commit.permit, rest: copying.into_rest(), writer }
    }
}

/// A fill of which nothing is stored. Its body goes on.
struct GivenUp<B: Body> {
    fill: Fill,
    permit: Permit,
    rest: Pin<Box<B>>,
    writer: Writer<B>,
}

/// Gives the rest of what is not stored to those who read it. Where there are several, it goes on at the pace of the one in
/// front, and no more is kept for those behind than a copy may have. They are waited for, but all in all no longer than
/// `patience`.
async fn share<B: Body>(
    mut rest: Pin<Box<B>>,
    mut writer: Writer<B>,
    limit: u64,
    mut patience: Duration,
) {
    loop {
        (writer, rest) = match writer.hand_over_alone(rest) {
            Ok(()) => return,
            Err(shared) => shared,
        };
        let stream = writer.stream();
        let next = async {
            // A body that is always ready does not hold others up.
            tokio::task::consume_budget().await;
            loop {
                stream.wanted().await;
                let since = Instant::now();
                let caught_up = timeout(patience, stream.caught_up(limit)).await;
                patience = patience.saturating_sub(since.elapsed());
                if caught_up.is_err() {
                    stream.leave_behind(limit);
                }
                // Whoever was in front may have left.
                if stream.is_wanted() {
                    break;
                }
            }
            poll_fn(|cx| poll_data(rest.as_mut(), cx)).await
        };
        let data = tokio::select! {
            data = next => data,
            () = stream.deserted() => return,
        };
        match data {
            Ok(data) => stream.push(data),
            Err(over) => return writer.over(over),
        }
    }
}

/// The size of a body with so much before it.
pub(crate) fn longer(rest: SizeHint, by: u64) -> SizeHint {
    let mut size = SizeHint::new();
    size.set_lower(rest.lower().saturating_add(by));
    if let Some(upper) = rest.upper() {
        size.set_upper(upper.saturating_add(by));
    }
    size
}
