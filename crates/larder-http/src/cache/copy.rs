//! Copying a response's body for the store while it goes to the client, and storing what is complete.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, SET_COOKIE, TRAILER};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, SizeHint};
use larder_cache::Pilot;
use larder_http_rules::conditional::{self, Validators, Verdict};
use larder_http_rules::range::Part;
use larder_http_rules::{Reason, RequestFacts, SessionMark, date, headers};
use tokio::time::Instant;

use super::answer::not_modified;
use super::body::ResponseBody;
use super::commit::Commit;
use super::fill::{Announced, Fill, Filled, Landing, Sender, Streaming, land};
use super::plan::{Plan, session_touched};
use super::record::{Content, Stored, Variant};
use super::stream::Stream;
use super::tee::{self, Copied, Copying};
use crate::RequestHead;

impl Fill {
    /// Gives the client its response, and stores a copy of it. `prefix` comes before the body that the handler gave.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn copy<S, ReqB, ResB: Body, E>(
        mut self,
        pilot: Option<Pilot>,
        response: Response<ResB>,
        prefix: Option<Bytes>,
        sender: Sender<S, ReqB, ResB, E>,
        plan: Plan,
        commit: Commit,
        deadline: Instant,
    ) {
        let (parts, body) = response.into_parts();
        self.told.answered(parts.status);
        let size = longer(body.size_hint(), prefix.as_ref());
        let stored_head = (parts.status, parts.headers.clone());
        let whole = prefix.is_none();
        let mut copying = Copying::new(prefix, body, self.shared.config.max_body, plan.length);

        // What is ready already needs no stream: most handlers' bodies are.
        let ready = poll_fn(|cx| Poll::Ready(copying.poll_copy(cx, |_| {})));
        let ready = AssertUnwindSafe(ready).catch_unwind().await;
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
        let may_store = commit.permit.when().is_some();
        let spills = whole && self.spills(&plan, &commit);
        let ready = match ready {
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
                    self.told.forwarded(&mut response, may_store);
                    let _ = sender.send(Filled::Response(response));
                    self.finish(stored_head, body, trailers, plan, commit).await.land(pilot);
                }
                return;
            }
            other => other,
        };
        let (writer, reader) = tee::pair(copying.frames().to_vec(), size);
        let copied = match ready {
            Err(panic) => Err(panic),
            Ok(Poll::Ready(other)) => {
                let mut response = head(ResponseBody::copied(reader));
                let stored = spills && matches!(other, Copied::TooLarge);
                if matches!(other, Copied::TooLarge) && !stored {
                    self.told.because(Reason::BodyTooLarge);
                }
                self.told.forwarded(&mut response, stored);
                let _ = sender.send(Filled::Response(response));
                Ok(Ok(other))
            }
            Ok(Poll::Pending) => {
                if let Some(pilot) = pilot.as_ref().filter(|_| whole) {
                    self.announce(pilot, &stored_head, &plan, &commit, writer.stream());
                }
                let mut response = head(ResponseBody::copied(reader));
                self.told.forwarded(&mut response, may_store);
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
            Ok(Ok(Copied::TooLarge)) if spills => {
                self.spill(writer, copying, pilot, stored_head, plan, commit, deadline).await;
            }
            Ok(Ok(Copied::TooLarge)) => {
                self.mark_pass();
                writer.hand_over(copying.into_parts().1);
                self.give_up(&commit.permit, pilot, Reason::BodyTooLarge).await;
            }
            Ok(Ok(broken)) => {
                writer.ended(Ok(broken), copying.into_parts().1);
                commit.permit.release(&self.shared, &self.key).await;
            }
            Err(panic) => {
                writer.ended(Err(panic), copying.into_parts().1);
                commit.permit.release(&self.shared, &self.key).await;
            }
            Ok(Err(_)) => {
                // Nobody begins to read along any more.
                land(pilot, Landing::Unstorable(Reason::WaitTooLong), true);
                if !writer.stream().is_followed() {
                    writer.hand_over(copying.into_parts().1);
                    return commit.permit.release(&self.shared, &self.key).await;
                }
                commit.permit.release(&self.shared, &self.key).await;
                // Those who do have nobody else to read from; how long it may become is known.
                let rest = poll_fn(|cx| copying.poll_copy(cx, |frame| writer.push(frame.clone())));
                let rest = AssertUnwindSafe(rest).catch_unwind();
                let copied = tokio::select! {
                    copied = rest => copied,
                    () = writer.stream().deserted() => return,
                };
                writer.ended(copied, copying.into_parts().1);
            }
        }
    }

    // Those who wait may read along: where it is known how long it will be, and where nothing can turn up on the way
    // that makes it its own client's only.
    fn announce(
        &self,
        pilot: &Pilot,
        (status, fields): &(StatusCode, HeaderMap),
        plan: &Plan,
        commit: &Commit,
        stream: &Stream,
    ) {
        let outside = RequestHead::from(&*self.snapshot).extensions().get::<SessionMark>();
        let sure = outside.is_none() && plan.session.is_none() && !fields.contains_key(TRAILER);
        let small = |length: &u64| *length <= self.shared.config.max_body;
        if let (true, Some(length), None, Some(when)) =
            (sure, plan.length.filter(small), &plan.storable.part, commit.permit.when())
        {
            let (mut plan, built_at) = (plan.clone(), commit.built_at);
            let tags = std::mem::take(&mut plan.tags);
            let head = (*status, fields.clone());
            let variant = self.variant(head, Content::Here(Bytes::new()), None, None, plan, commit);
            let (at, source) = (self.now(), stream.source());
            let streaming = Streaming { variant, at, source, length, when, tags, built_at };
            pilot.announce(Arc::new(Announced::Streaming(Box::new(streaming))));
        }
    }

    // The response is complete: store it, unless its session was used while it streamed.
    async fn finish(
        &self,
        (status, mut fields): (StatusCode, HeaderMap),
        body: Bytes,
        trailers: Option<HeaderMap>,
        mut plan: Plan,
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
        let made = (status, body, plan.storable.part.take());
        let Some((status, body, part)) = self.joined(made, &mut fields) else {
            commit.permit.release(&self.shared, &self.key).await;
            return Ending::unstorable(Reason::PartialContent);
        };
        let (tags, own_tags) = (std::mem::take(&mut plan.tags), plan.own_tags);
        let (head, content) = ((status, fields), Content::Here(body));
        let variant = Arc::new(self.variant(head, content, trailers, part, plan, &commit));
        let at = self.now();
        let done = commit.run(&self.shared, &self.key, variant.clone(), tags).await;
        // Invalidating a tag that only the response knew does not detach the flight, so somebody may wait who came
        // after that. The store tells them whether it still holds.
        let shared = done.shared && !(done.stored && own_tags);
        Ending { landing: Landing::Fresh(variant, at), stored: done.stored, shared }
    }

    // What is stored of a response.
    pub(super) fn variant(
        &self,
        (status, mut fields): (StatusCode, HeaderMap),
        content: Content,
        trailers: Option<HeaderMap>,
        part: Option<Part>,
        plan: Plan,
        commit: &Commit,
    ) -> Variant {
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
        let made = Stored { part, ..Stored::new(status, fields, content, trailers, terms, wall) };
        plan.variant(&self.shared, made)
    }

    // What is stored of a part: with what there was of the same whole, if they fit (RFC 9111 §3.4). `None` where it has
    // not the bytes that it says it has.
    fn joined(
        &self,
        (status, body, part): (StatusCode, Bytes, Option<Part>),
        fields: &mut HeaderMap,
    ) -> Option<(StatusCode, Bytes, Option<Part>)> {
        let Some(part) = part else { return Some((status, body, None)) };
        let part = match body.len() as u64 {
            length if length == part.len() => part,
            length if self.shared.config.policy.contested => {
                let end = part.bytes.start + length;
                Part { bytes: part.bytes.start..end, of: end }
            }
            _ => return None,
        };
        let other = self.held.as_ref().and_then(|held| held.same_whole(&part, fields));
        let (part, body) = match other {
            Some((whole, old, at)) if whole.len() <= self.shared.config.max_body => {
                let mut joined = BytesMut::zeroed(whole.len() as usize);
                let mut put = |bytes: &Bytes, first: u64| {
                    let from = (first - whole.bytes.start) as usize;
                    joined[from..from + bytes.len()].copy_from_slice(bytes);
                };
                put(&old, at);
                put(&body, part.bytes.start);
                (whole, joined.freeze())
            }
            _ => (part, body),
        };
        if part.is_whole() {
            fields.remove(CONTENT_RANGE);
            fields.insert(CONTENT_LENGTH, part.of.into());
            return Some((StatusCode::OK, body, None));
        }
        fields.insert(CONTENT_RANGE, Part::header_value(&part.bytes, part.of));
        fields.insert(CONTENT_LENGTH, part.len().into());
        Some((status, body, Some(part)))
    }
}

/// The size of a body with something before it.
pub(super) fn longer(rest: SizeHint, prefix: Option<&Bytes>) -> SizeHint {
    let prefix = prefix.map_or(0, |prefix| prefix.len() as u64);
    let mut size = SizeHint::new();
    size.set_lower(rest.lower().saturating_add(prefix));
    if let Some(upper) = rest.upper() {
        size.set_upper(upper.saturating_add(prefix));
    }
    size
}

struct Ending {
    landing: Landing,
    stored: bool,
    shared: bool,
}

impl Ending {
    fn unstorable(reason: Reason) -> Self {
        Ending { landing: Landing::Unstorable(reason), stored: false, shared: true }
    }

    fn land(self, pilot: Option<Pilot>) -> bool {
        land(pilot, self.landing, self.shared);
        self.stored
    }
}
