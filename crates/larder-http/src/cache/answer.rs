//! A stored response as an answer: whole, in part, or as 304.

use std::ops::Range;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    TRAILER,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use larder_http_rules::conditional::{self, Validators, Verdict};
use larder_http_rules::range::{self, Part, Selection};
use larder_http_rules::{Policy, Reason, RequestFacts, Terms};

use super::body::ResponseBody;
use super::chunks;
use super::record::{Content, Stored};
use crate::RequestHead;

/// A stored response that answers.
pub(super) struct Answer<'a> {
    stored: &'a Stored,
    resident: Duration,
    wanted: Wanted,
    /// It is stale, and to be refreshed meanwhile.
    pub(super) refresh: bool,
    /// See [`Policy::contested`](larder_http_rules::Policy::contested).
    contested: bool,
}

/// What of a stored response a request is to get.
pub(super) enum Wanted {
    All,
    /// These bytes of the whole, all of which are there.
    Bytes(Vec<Range<u64>>),
    /// Nothing: no byte that was asked for exists.
    Unsatisfiable,
}

impl Wanted {
    /// Decides by `Range` and `If-Range`; an error if what is wanted is not all there.
    pub(super) fn of(
        stored: &Stored,
        head: RequestHead<'_>,
        facts: RequestFacts,
        now: impl FnOnce() -> SystemTime,
    ) -> Result<Self, Reason> {
        let part = stored.part.as_ref();
        if part.is_none() && (!facts.any(RequestFacts::RANGE) || stored.status != StatusCode::OK) {
            return Ok(Wanted::All);
        }
        let all = || if part.is_some() { Err(Reason::RangeNotStored) } else { Ok(Wanted::All) };
        // HEAD has no range (RFC 9110 §14.2).
        if !facts.any(RequestFacts::RANGE) || *head.method() == Method::HEAD {
            return all();
        }
        let Some(specs) = range::requested(head.headers()) else { return all() };
        if facts.any(RequestFacts::IF_RANGE)
            && !range::applies(head.headers(), &stored.headers, now())
        {
            return all();
        }
        match range::select(&specs, stored.length()) {
            Selection::Whole => all(),
            // They would be read one chunk after the other, each for a few bytes: whoever asks so may have it all.
            Selection::Ranges(ranges) if ranges.len() > 1 && stored.content.here().is_none() => {
                all()
            }
            Selection::Unsatisfiable => Ok(Wanted::Unsatisfiable),
            Selection::Ranges(ranges) => match part {
                Some(part) if !ranges.iter().all(|bytes| part.covers(bytes)) => {
                    Err(Reason::RangeNotStored)
                }
                _ => Ok(Wanted::Bytes(ranges)),
            },
        }
    }
}

impl<'a> Answer<'a> {
    pub(super) fn new(
        policy: &Policy,
        stored: &'a Stored,
        resident: Duration,
        wanted: Wanted,
    ) -> Self {
        Answer { stored, resident, wanted, refresh: false, contested: policy.contested }
    }

    /// Whether all that it has is here.
    pub(super) fn is_here(&self) -> bool {
        self.stored.content.here().is_some()
    }

    /// For how many seconds it is fresh yet.
    pub(super) fn ttl(&self) -> i64 {
        self.stored.terms.ttl(self.resident)
    }

    /// On what terms it is stored.
    pub(super) fn terms(&self) -> &Terms {
        &self.stored.terms
    }

    /// Its age.
    pub(super) fn seconds(&self) -> u64 {
        self.stored.terms.age(self.resident).as_secs()
    }

    fn age(&self) -> HeaderValue {
        age_value(self.stored.terms.age(self.resident))
    }

    /// The response: whole or in part, without body for HEAD, or 304 where the client has it already (RFC 9110 §13).
    pub(super) fn respond<B: Body>(
        &self,
        head: RequestHead<'_>,
        facts: RequestFacts,
        wall: impl FnOnce() -> SystemTime,
    ) -> Response<ResponseBody<B>> {
        let stored = self.stored;
        // Preconditions come before ranges (RFC 9110 §13.2.2).
        if facts.any(RequestFacts::CONDITIONAL)
            && (stored.status == StatusCode::OK || stored.part.is_some())
            && self.not_modified(head, wall())
        {
            return self.as_304();
        }
        match &self.wanted {
            Wanted::All => self.whole(*head.method() == Method::HEAD),
            Wanted::Bytes(ranges) => match &**ranges {
                [bytes] => self.part(bytes),
                several => self.parts(several),
            },
            Wanted::Unsatisfiable => self.unsatisfiable(),
        }
    }

    fn whole<B: Body>(&self, for_head: bool) -> Response<ResponseBody<B>> {
        let stored = self.stored;
        let body = match &stored.content {
            _ if for_head => ResponseBody::empty(),
            Content::Here(body) => ResponseBody::stored(body.clone(), stored.trailers.clone()),
            Content::Chunks(chunks) => {
                ResponseBody::chunked(chunks::Reader::new(*chunks, 0..chunks.length))
            }
        };
        let mut response = self.with_fields(stored.status, body);
        if for_head && stored.status != StatusCode::NO_CONTENT {
            let length = || HeaderValue::from(stored.content.length());
            response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(length);
        }
        response
    }

    fn part<B: Body>(&self, bytes: &Range<u64>) -> Response<ResponseBody<B>> {
        let body = match &self.stored.content {
            Content::Here(body) => ResponseBody::stored(body.slice(self.stored.place(bytes)), None),
            Content::Chunks(chunks) => {
                ResponseBody::chunked(chunks::Reader::new(*chunks, bytes.clone()))
            }
        };
        let mut response = self.with_fields(StatusCode::PARTIAL_CONTENT, body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
        headers.insert(CONTENT_RANGE, Part::header_value(bytes, self.stored.length()));
        headers.remove(TRAILER);
        response
    }

    // RFC 9110 §14.6.
    fn parts<B: Body>(&self, ranges: &[Range<u64>]) -> Response<ResponseBody<B>> {
        let stored = self.stored;
        let boundary = format!("{:032x}", rand::random::<u128>());
        let kind = stored.headers.get(CONTENT_TYPE);
        let mut frames = Vec::with_capacity(2 * ranges.len() + 1);
        for bytes in ranges {
            let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
            if let Some(kind) = kind {
                head.extend_from_slice(b"content-type: ");
                head.extend_from_slice(kind.as_bytes());
                head.extend_from_slice(b"\r\n");
            }
            let range = Part::header_value(bytes, stored.length());
            head.extend_from_slice(b"content-range: ");
            head.extend_from_slice(range.as_bytes());
            head.extend_from_slice(b"\r\n\r\n");
            frames.push(Bytes::from(head));
            // There are several only of what is here.
            frames.extend(stored.content.here().map(|body| body.slice(stored.place(bytes))));
        }
        frames.push(format!("\r\n--{boundary}--\r\n").into());
        let length: usize = frames.iter().map(Bytes::len).sum();
        let mut response =
            self.with_fields(StatusCode::PARTIAL_CONTENT, ResponseBody::frames(frames));
        let headers = response.headers_mut();
        let kind = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
        headers.insert(CONTENT_TYPE, kind.unwrap_or_else(|_| unreachable!("hexadecimal digits")));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.remove(CONTENT_RANGE);
        headers.remove(TRAILER);
        response
    }

    fn unsatisfiable<B: Body>(&self) -> Response<ResponseBody<B>> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        let headers = response.headers_mut();
        headers.insert(CONTENT_RANGE, Part::unsatisfied(self.stored.length()));
        headers.insert(AGE, self.age());
        if let Some(date) = self.stored.headers.get(DATE) {
            headers.insert(DATE, date.clone());
        }
        response
    }

    fn with_fields<B: Body>(
        &self,
        status: StatusCode,
        body: ResponseBody<B>,
    ) -> Response<ResponseBody<B>> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = self.stored.headers.clone();
        // The first of the stored fields.
        if let Some(slot) = response.headers_mut().values_mut().next() {
            *slot = self.age();
        }
        response
    }

    fn not_modified(&self, head: RequestHead<'_>, now: SystemTime) -> bool {
        let validators = Validators {
            etag: self.stored.headers.get(ETAG),
            last_modified: self.stored.last_modified,
        };
        if self.contested && validators.last_modified.is_none() {
            let headers = head.headers();
            if headers.contains_key(IF_MODIFIED_SINCE) && !headers.contains_key(IF_NONE_MATCH) {
                return true;
            }
        }
        conditional::evaluate(head.headers(), validators, now) == Verdict::NotModified
    }

    fn as_304<B: Body>(&self) -> Response<ResponseBody<B>> {
        let mut response = not_modified(&self.stored.headers);
        response.headers_mut().insert(AGE, self.age());
        response
    }
}

/// A 304 with those of the fields that it keeps (RFC 9110 §15.4.5).
pub(super) fn not_modified<B: Body>(fields: &HeaderMap) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for (name, value) in fields.iter().filter(|(name, _)| conditional::kept_in_304(name)) {
        response.headers_mut().append(name, value.clone());
    }
    response
}

// The ages that hits have in the first hour: no formatting, no allocation and no reference count on a hit.
static AGES: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let value = |(age, digits): (usize, &'static [u8; 4])| {
        let zeros = 3 - age.checked_ilog10().unwrap_or(0) as usize;
        HeaderValue::from_static(str::from_utf8(&digits[zeros..]).expect("digits"))
    };
    DIGITS.iter().enumerate().map(value).collect()
});

const READY: usize = 3600;
static DIGITS: [[u8; 4]; READY] = {
    let mut ages = [[0; 4]; READY];
    let mut age = 0;
    while age < READY {
        let digits = [age / 1000, age / 100 % 10, age / 10 % 10, age % 10];
        let mut at = 0;
        while at < 4 {
            ages[age][at] = b'0' + digits[at] as u8;
            at += 1;
        }
        age += 1;
    }
    ages
};

fn age_value(age: Duration) -> HeaderValue {
    let seconds = age.as_secs();
    let ready = usize::try_from(seconds).ok().and_then(|at| AGES.get(at));
    ready.cloned().unwrap_or_else(|| HeaderValue::from(seconds))
}
