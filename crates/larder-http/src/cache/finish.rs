//! Storing a response that is complete.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, SET_COOKIE, TRAILER};
use http::{HeaderMap, StatusCode};
use larder_cache::Pilot;
use larder_http_rules::range::Part;
use larder_http_rules::{Reason, date, headers};

use super::commit::Commit;
use super::fill::{Fill, Landing, land};
use super::plan::{Plan, session_touched};
use super::record::{Content, Stored, Variant, slotted};

impl Fill {
    /// Stores it, unless its session was used while it streamed, and tells those who wait. Whether it is stored.
    pub(super) async fn finish(
        &self,
        (status, fields): (StatusCode, &HeaderMap),
        body: Bytes,
        trailers: Option<HeaderMap>,
        mut plan: Plan,
        commit: Commit,
        pilot: Option<Pilot>,
    ) -> bool {
        let late = if session_touched(&self.snapshot, plan.session.as_ref()) {
            Some(Reason::SessionTouched)
        } else if trailers.as_ref().is_some_and(|trailers| trailers.contains_key(SET_COOKIE)) {
            Some(Reason::SetCookie)
        } else {
            None
        };
        if let Some(reason) = late {
            commit.permit.release(&self.shared, &self.key).await;
            land(pilot, Landing::Unstorable(reason), true);
            return false;
        }
        let made = match plan.storable.part.take() {
            None => Some((status, Cow::Borrowed(fields), body, None)),
            Some(part) => self.joined(status, fields, body, part),
        };
        let Some((status, fields, body, part)) = made else {
            commit.permit.release(&self.shared, &self.key).await;
            land(pilot, Landing::Unstorable(Reason::PartialContent), true);
            return false;
        };
        let tags = std::mem::take(&mut plan.tags);
        let (head, content) = ((status, &*fields), Content::Here(body));
        let variant = self.variant(head, content, trailers, part, plan, &commit);
        let at = self.now();
        let done = commit.run(&self.shared, &self.key, variant, tags, pilot.as_ref()).await;
        land(pilot, Landing::Fresh(done.variant, at), done.shared);
        done.stored
    }

    /// What is stored of a response.
    pub(super) fn variant(
        &self,
        (status, fields): (StatusCode, &HeaderMap),
        content: Content,
        trailers: Option<HeaderMap>,
        part: Option<Part>,
        plan: Plan,
        commit: &Commit,
    ) -> Variant {
        let wall = self.wall();
        // Room for a `Date` that the handler did not give.
        let mut headers = slotted(headers::end_to_end(fields), fields.keys_len() + 1);
        if trailers.is_some()
            && let Some(names) = fields.get(TRAILER)
        {
            // Without it, a server does not send the trailers that are stored.
            headers.insert(TRAILER, names.clone());
        }
        if plan.storable.strip_set_cookie {
            headers.remove(SET_COOKIE);
        }
        headers.entry(DATE).or_insert_with(|| date::header_value(wall));
        let mut terms = plan.storable.terms;
        terms.initial_age = terms.age(self.now().since(commit.head_at));
        let made = Stored { part, ..Stored::new(status, headers, content, trailers, terms, wall) };
        plan.variant(&self.shared, made)
    }

    // What is stored of a part: with what there was of the same whole, if they fit (RFC 9111 §3.4). `None` where it has
    // not the bytes that it says it has.
    fn joined<'a>(
        &self,
        status: StatusCode,
        fields: &'a HeaderMap,
        body: Bytes,
        part: Part,
    ) -> Option<(StatusCode, Cow<'a, HeaderMap>, Bytes, Option<Part>)> {
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
        let mut fields = fields.clone();
        if part.is_whole() {
            fields.remove(CONTENT_RANGE);
            fields.insert(CONTENT_LENGTH, part.of.into());
            return Some((StatusCode::OK, Cow::Owned(fields), body, None));
        }
        fields.insert(CONTENT_RANGE, Part::header_value(&part.bytes, part.of));
        fields.insert(CONTENT_LENGTH, part.len().into());
        Some((status, Cow::Owned(fields), body, Some(part)))
    }
}
