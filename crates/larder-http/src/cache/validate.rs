//! Asking the handler whether what is stored is still good, or for the rest of it.

use std::panic::resume_unwind;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use larder_cache::Pilot;
use larder_core::Tag;
use larder_http_rules::conditional::is_strong;
use larder_http_rules::range::Part;
use larder_http_rules::validation::{self, Confirmed};
use larder_http_rules::{Reason, RequestFacts, date};
use tracing::Instrument;

use super::answer::{Answer, Wanted};
use super::body::ResponseBody;
use super::commit::Commit;
use super::fill::{Fill, Landing, land};
use super::miss::Held;
use super::record::{Stored, Variant, slotted};
use super::tee::Panic;
use crate::RequestHead;

/// What the handler is asked.
pub(super) enum Question {
    /// For a response.
    Anew,
    /// Whether this is still good.
    Still(Held),
    /// For what this lacks.
    Rest(Held),
}

impl Fill {
    /// Makes of the client's request what the handler is asked. What is stored is for everybody: the handler must not
    /// answer 304 to this client's own copy.
    pub(super) fn question(&self, headers: &mut HeaderMap) -> Question {
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
            headers.remove(name);
        }
        let Some(held) = &self.held else { return Question::Anew };
        if held.whole {
            let asks = validation::ask(headers, &held.variant.response.headers);
            return if asks { Question::Still(held.clone()) } else { Question::Anew };
        }
        let contested = self.shared.config.policy.contested;
        match held.lacks_an_end(contested) {
            Some(first) if !self.facts.any(RequestFacts::RANGE) => {
                let range = HeaderValue::try_from(format!("bytes={first}-"));
                headers.insert(RANGE, range.unwrap_or_else(|_| unreachable!("digits")));
                if let Some(etag) = held.variant.response.headers.get(ETAG) {
                    // What has changed comes whole, since the parts could not be put together (RFC 9110 §13.1.5).
                    headers.insert(IF_RANGE, etag.clone());
                }
                Question::Rest(held.clone())
            }
            _ => Question::Anew,
        }
    }

    /// The handler says that what is held is good: it is brought up to date, and answers (RFC 9111 §4.3.4).
    pub(super) async fn confirmed<ResB: Body>(
        mut self,
        held: Held,
        pilot: Option<Pilot>,
        answer: Response<ResB>,
        sent: SystemTime,
        read: Vec<Tag>,
        commit: Commit,
    ) -> Response<ResponseBody<ResB>> {
        let (mut parts, _) = answer.into_parts();
        self.told.answered(parts.status);
        let confirms = match self.shared.config.policy.contested {
            true => Confirmed::Yes,
            false => validation::confirms(&held.variant.response.headers, &parts.headers),
        };
        let Renewed { variant, tags } = match self.renewed(&held, &mut parts, confirms, sent, &read)
        {
            Ok(Ok(renewed)) => renewed,
            Err(panic) => {
                commit.permit.release(&self.shared, &self.key).await;
                drop(pilot);
                resume_unwind(panic)
            }
            Ok(Err((reason, stored))) => {
                // This client may have it; what is stored stays as it was, or goes if the handler means another one.
                let mut response = self.respond(&stored).await;
                self.told.because(reason);
                self.told.forwarded(&mut response, false);
                if confirms == Confirmed::Other {
                    let _ = self.shared.config.store.remove(&self.key, None).await;
                }
                self.give_up(&commit.permit, pilot, reason).await;
                return response;
            }
        };
        // They were all there a moment ago; if a chunk is not any more, a reader finds out.
        self.shared.has_all(&self.key, &variant).await;

        let mut response = self.respond(&variant.response).await;
        let at = self.now();
        let may_store = commit.when().is_some();
        let Fill { shared, key, told, room, .. } = self;
        let local = shared.config.store.abilities().local;
        let committed = async move {
            let done = commit.run(&shared, &key, variant, tags, pilot.as_ref()).await;
            land(pilot, Landing::Fresh(done.variant, at), done.shared);
            drop(room);
            done.stored
        };
        let stored = if local {
            committed.await
        } else {
            // The client does not wait for the store.
            tokio::spawn(committed.in_current_span());
            may_store
        };
        told.forwarded(&mut response, stored);
        response
    }

    /// What is held, brought up to date by an answer that confirms it: judged as a response that came just now, with the
    /// age of the answer. Or why it is not stored so, and what it would be.
    pub(super) fn renewed(
        &self,
        held: &Held,
        answer: &mut Parts,
        confirms: Confirmed,
        sent: SystemTime,
        read: &[Tag],
    ) -> Result<Result<Renewed, (Reason, Stored)>, Panic> {
        let old = &held.variant.response;
        let mut fields = old.headers.clone();
        fields.remove(AGE);
        if confirms == Confirmed::Yes {
            validation::freshen(&mut fields, &answer.headers);
            if !answer.headers.contains_key(DATE) {
                fields.insert(DATE, date::header_value(self.wall()));
            }
        }
        let mut whole = Response::new(String::new());
        *whole.status_mut() = old.status;
        *whole.headers_mut() = fields.clone();
        if let Some(age) = answer.headers.get(AGE) {
            whole.headers_mut().insert(AGE, age.clone());
        }
        *whole.extensions_mut() = std::mem::take(&mut answer.extensions);
        let plan = self.planned(&whole, sent, read)?;
        answer.extensions = std::mem::take(whole.extensions_mut());
        let (content, trailers) = (old.content.clone(), old.trailers.as_deref().cloned());
        let names = fields.keys_len();
        let stored = |terms| Stored {
            part: old.part.clone(),
            ..Stored::new(
                old.status,
                slotted(fields.iter(), names),
                content,
                trailers,
                terms,
                self.wall(),
            )
        };
        let mut plan = match plan {
            Ok(plan) if confirms == Confirmed::Yes => plan,
            Ok(_) => return Ok(Err((Reason::NotModified, stored(old.terms)))),
            Err(reason) => return Ok(Err((reason, stored(old.terms)))),
        };
        let mut tags = std::mem::take(&mut plan.tags);
        tags.extend(held.tags.iter().cloned());
        tags.sort_unstable();
        tags.dedup();
        let made = stored(plan.storable.terms);
        let variant = plan.variant(&self.shared, made);
        Ok(Ok(Renewed { variant, tags }))
    }

    async fn respond<B: Body>(&self, stored: &Stored) -> Response<ResponseBody<B>> {
        let clock = self.shared.config.store.clock();
        let head = RequestHead::from(&self.snapshot);
        let wanted = Wanted::of(stored, head, self.facts, || clock.wall());
        let policy = &self.shared.config.policy;
        let wanted = wanted.unwrap_or(Wanted::All);
        let answer = Answer::new(policy, stored, Duration::ZERO, wanted);
        let mut response = answer.respond(head, self.facts, || clock.wall());
        // What is lost since it was looked at breaks off in the client's hands.
        response.body_mut().open(&self.shared, &self.key).await;
        response
    }

    /// The handler was asked for the rest of something, and gave something else that its client never asked for.
    pub(super) async fn bad_rest<B: Body>(
        mut self,
        pilot: Option<Pilot>,
        commit: Commit,
    ) -> Response<ResponseBody<B>> {
        // The next request asks for all of it.
        let _ = self.shared.config.store.remove(&self.key, None).await;
        self.give_up(&commit.permit, pilot, Reason::PartialContent).await;
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        self.told.because(Reason::PartialContent);
        self.told.forwarded(&mut response, false);
        response
    }
}

/// What was brought up to date.
pub(super) struct Renewed {
    pub(super) variant: Variant,
    pub(super) tags: Vec<Tag>,
}

impl Held {
    // Where the rest of a part begins, and the strong validator that both must have (RFC 9111 §3.4).
    fn lacks_an_end(&self, contested: bool) -> Option<u64> {
        let stored = &self.variant.response;
        let part = stored.part.as_ref()?;
        let strong = stored.headers.get(ETAG).is_some_and(|etag| is_strong(etag.as_bytes()));
        (part.bytes.start == 0 && (strong || contested)).then_some(part.bytes.end)
    }

    /// The whole of which a 206 is the rest: its head, and the bytes that come before its body.
    pub(super) fn completed_by<B>(
        &self,
        rest: Response<B>,
        contested: bool,
    ) -> Result<(Response<B>, Bytes), ()> {
        let stored = &self.variant.response;
        let first = self.lacks_an_end(contested).ok_or(())?;
        let part = Part::of_response(rest.headers()).ok_or(())?;
        let fits = part.bytes.start == first && part.bytes.end == part.of;
        if !fits
            || part.of != stored.length()
            || rest.headers().get(ETAG) != stored.headers.get(ETAG)
        {
            return Err(());
        }
        let (mut parts, body) = rest.into_parts();
        let mut fields = stored.headers.clone();
        fields.remove(AGE);
        validation::freshen(&mut fields, &parts.headers);
        if let Some(age) = parts.headers.get(AGE) {
            fields.insert(AGE, age.clone());
        }
        fields.remove(CONTENT_RANGE);
        fields.insert(CONTENT_LENGTH, part.of.into());
        parts.headers = fields;
        parts.status = StatusCode::OK;
        let prefix = stored.content.here().ok_or(())?.clone();
        Ok((Response::from_parts(parts, body), prefix))
    }

    /// What this and a new part of the same representation are together; the bytes of this, and where they begin.
    pub(super) fn same_whole(&self, new: &Part, fields: &HeaderMap) -> Option<(Part, Bytes, u64)> {
        let stored = &self.variant.response;
        let body = stored.content.here()?;
        let length = body.len() as u64;
        let old = stored.part.clone().unwrap_or(Part { bytes: 0..length, of: length });
        let etag = fields.get(ETAG).filter(|etag| is_strong(etag.as_bytes()))?;
        if stored.headers.get(ETAG) != Some(etag) {
            return None;
        }
        Some((old.joined(new)?, body.clone(), old.bytes.start))
    }
}
