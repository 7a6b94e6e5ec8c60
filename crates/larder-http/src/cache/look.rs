//! Deciding a request from what is stored: no I/O, no waiting.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use http::header::{AGE, CONTENT_LENGTH, ETAG};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use larder_http_rules::conditional::{self, Validators, Verdict};
use larder_http_rules::{Reason, RequestFacts, RequestView, Reuse, credentials, reuse};

use super::body::ResponseBody;
use super::layer::Shared;
use super::record::{Page, Stored, Variant};
use super::variants::Selector;
use crate::RequestHead;

/// A stored response that answers, and how long it is fresh yet.
pub(super) struct Answer<'a> {
    stored: &'a Stored,
    resident: Duration,
}

impl Shared {
    /// What the request says about itself, with the route's declarations and perhaps a variant's.
    pub(super) fn view<'a>(
        &self,
        head: RequestHead<'a>,
        facts: RequestFacts,
        variant: Option<&Variant>,
    ) -> RequestView<'a> {
        let route = &self.config.route.credentials;
        let rule = variant.and_then(|variant| variant.rule.as_ref()).unwrap_or(route);
        RequestView {
            method: head.method(),
            uri: head.uri(),
            headers: head.headers(),
            facts,
            credentials: credentials::assess(&self.config.policy, rule, facts, head.headers()),
        }
    }

    /// Whether the request selects this variant. Decided before and apart from freshness.
    pub(super) fn selects(&self, variant: &Variant, head: RequestHead<'_>) -> Result<bool, Reason> {
        let list = &variant.list;
        let verbatim = variant.verbatim.as_deref();
        if list.is_empty() || verbatim.is_some_and(|sent| list.sends(sent, head.headers())) {
            return Ok(true);
        }
        let selector = list.select(&self.config.policy, head, &self.computed)?;
        Ok(*selector == *variant.selector)
    }

    /// Whether a variant that the request selects may answer it.
    pub(super) fn judge<'a>(
        &self,
        variant: &'a Variant,
        resident: Duration,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Result<Answer<'a>, Reuse> {
        let terms = &variant.response.terms;
        let view = self.view(head, facts, Some(variant));
        match reuse::decide(&self.config.policy, terms, resident, &view) {
            // Refreshing in the background is not here yet, so a stale response is fetched anew.
            Reuse::StaleWhileRevalidate => Err(Reuse::Fetch(Reason::Expired)),
            reuse if reuse.answers() => Ok(Answer { stored: &variant.response, resident }),
            reuse => Err(reuse),
        }
    }

    /// Whether the page has a variant that the request selects.
    pub(super) fn has_variant(&self, page: &Page, head: RequestHead<'_>) -> bool {
        let among_others = || {
            let selectors = self.selectors(page, head).unwrap_or_default();
            let mut lists = page.lists.iter().zip(&selectors);
            lists.any(|(list, selector)| page.others.contains(&Variant::name(list, selector)))
        };
        self.selects(&page.newest, head) == Ok(true) || among_others()
    }

    /// The selectors of a request under a page's lists, newest list first.
    pub(super) fn selectors(
        &self,
        page: &Page,
        head: RequestHead<'_>,
    ) -> Result<Vec<Selector>, Reason> {
        let policy = &self.config.policy;
        page.lists.iter().map(|list| list.select(policy, head, &self.computed)).collect()
    }
}

impl Answer<'_> {
    /// For how many seconds it is fresh yet.
    pub(super) fn ttl(&self) -> i64 {
        self.stored.terms.ttl(self.resident)
    }

    fn age(&self) -> HeaderValue {
        age_value(self.stored.terms.age(self.resident))
    }

    /// The response: whole, without body for HEAD, or 304 where the client has it already (RFC 9110 §13).
    pub(super) fn respond<B: Body>(
        &self,
        head: RequestHead<'_>,
        facts: RequestFacts,
        wall: impl FnOnce() -> SystemTime,
    ) -> Response<ResponseBody<B>> {
        let stored = self.stored;
        if facts.any(RequestFacts::CONDITIONAL)
            && stored.status == StatusCode::OK
            && self.not_modified(head, wall())
        {
            return self.as_304();
        }
        let for_head = *head.method() == Method::HEAD;
        let body = if for_head {
            ResponseBody::empty()
        } else {
            ResponseBody::stored(stored.body.clone(), stored.trailers.clone())
        };
        let mut response = Response::new(body);
        *response.status_mut() = stored.status;
        *response.headers_mut() = stored.headers.clone();
        // The first of the stored fields.
        if let Some(slot) = response.headers_mut().values_mut().next() {
            *slot = self.age();
        }
        if for_head && stored.status != StatusCode::NO_CONTENT {
            let length = || HeaderValue::from(stored.body.len());
            response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(length);
        }
        response
    }

    fn not_modified(&self, head: RequestHead<'_>, now: SystemTime) -> bool {
        let validators = Validators {
            etag: self.stored.headers.get(ETAG),
            last_modified: self.stored.last_modified,
        };
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
