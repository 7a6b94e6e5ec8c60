//! Telling what was decided, and why: a tracing event always, `Cache-Status` (RFC 9211) where it is switched on, and all
//! of it to a developer who [may ask](super::CacheLayer::explain).

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use larder_http_rules::cache_status::{CacheStatus, Forward};
use larder_http_rules::{Reason, RequestFacts};

use super::answer::Answer;
use super::explain::VERDICT;
use super::layer::Config;

/// A request that went forward, and why.
pub(super) struct Told {
    name: Option<Arc<str>>,
    explained: bool,
    forward: Forward,
    reason: Reason,
    collapsed: bool,
    waiting: usize,
    status: Option<StatusCode>,
}

/// What answered.
#[derive(Clone, Copy)]
pub(super) enum Tier {
    /// This process's memory.
    Near,
    /// Another place, which had to be asked.
    Store,
    /// The fill of another request.
    Fill,
}

impl Told {
    pub(super) fn new(
        config: &Config,
        facts: RequestFacts,
        forward: Forward,
        reason: Reason,
    ) -> Self {
        let explained = facts.any(RequestFacts::EXPLAINED);
        let name = config.status_name.clone();
        Told { name, explained, forward, reason, collapsed: false, waiting: 0, status: None }
    }

    /// It waited for another request's fill.
    pub(super) fn collapsed(&mut self) {
        self.collapsed = true;
    }

    /// So many wait for its fill.
    pub(super) fn waited_for_by(&mut self, waiting: usize) {
        self.waiting = waiting;
    }

    /// What the handler answered, where the client gets something else.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(super) fn because(&mut self, reason: Reason) {
        self.reason = reason;
    }

    pub(super) fn forward_because(&mut self, forward: Forward, reason: Reason) {
        (self.forward, self.reason) = (forward, reason);
    }

    /// Whether only the handler itself can tell: the response must be validated for each use, or the client wants it to.
    pub(super) fn wants_its_own(&self) -> bool {
        matches!(
            self.reason,
            Reason::NoCache
                | Reason::RequestNoCache
                | Reason::RequestMaxAge
                | Reason::RequestMinFresh
        )
    }

    /// Tells of a request that was not to go forward.
    pub(super) fn refused(&self) {
        tracing::debug!(
            target: "larder_http",
            reason = self.reason.as_str(),
            section = self.reason.section(),
            "only-if-cached, and nothing stored answers: {}",
            self.reason,
        );
    }

    /// Tells of the handler's response.
    pub(super) fn forwarded<B>(&self, response: &mut Response<B>, stored: bool) {
        tracing::debug!(
            target: "larder_http",
            forward = self.forward.as_str(),
            reason = self.reason.as_str(),
            section = self.reason.section(),
            stored,
            collapsed = self.collapsed,
            waiting = self.waiting,
            "not answered from the cache: {}",
            self.reason,
        );
        let status = self.status.unwrap_or(response.status());
        if let Some(name) = &self.name {
            CacheStatus::forwarded(name, self.forward)
                .forward_status(status.as_u16())
                .stored(stored)
                .collapsed(self.collapsed)
                .detail(self.reason)
                .append(response.headers_mut());
        }
        if self.explained {
            let mut text =
                format!("forward={}; handler={}", self.forward.as_str(), status.as_u16());
            text.push_str(if stored { "; stored" } else { "; not stored" });
            if self.collapsed {
                text.push_str("; waited");
            }
            if self.waiting > 0 {
                // Writing to a string does not fail.
                let _ = write!(text, "; waiting={}", self.waiting);
            }
            explain(response, text, self.reason);
        }
    }

    /// Tells of a response that another request's fill gave.
    pub(super) fn shared<B>(&self, response: &mut Response<B>, answer: &Answer<'_>) {
        tracing::debug!(target: "larder_http", "answered by another request's fill");
        if let Some(name) = &self.name {
            let status = CacheStatus::forwarded(name, self.forward);
            status.ttl(answer.ttl()).collapsed(true).append(response.headers_mut());
        }
        if self.explained {
            explain_hit(response, "", Tier::Fill, answer);
        }
    }
}

/// Tells of a hit.
pub(super) fn hit<B>(
    config: &Config,
    facts: RequestFacts,
    tier: Tier,
    response: &mut Response<B>,
    answer: &Answer<'_>,
) {
    tracing::trace!(target: "larder_http", ttl = answer.ttl(), "answered from the cache");
    if let Some(name) = &config.status_name {
        CacheStatus::hit(name).ttl(answer.ttl()).append(response.headers_mut());
    }
    if facts.any(RequestFacts::EXPLAINED) {
        explain_hit(response, config.store.backend_name(), tier, answer);
    }
}

#[cold]
fn explain_hit<B>(response: &mut Response<B>, store: &str, tier: Tier, answer: &Answer<'_>) {
    let mut text = match tier {
        Tier::Near => format!("hit; tier=near; store={store}"),
        Tier::Store => format!("hit; tier=store; store={store}"),
        Tier::Fill => "shared; tier=fill".to_owned(),
    };
    let terms = answer.terms();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "; lifetime={}; source={}; age={}; ttl={}",
        terms.lifetime.as_secs(),
        terms.source.as_str(),
        answer.seconds(),
        answer.ttl(),
    );
    let reason = if answer.refresh { Reason::StaleWhileRevalidate } else { Reason::Fresh };
    let stale = answer.ttl() <= 0 && !answer.refresh;
    explain(response, text, if stale { Reason::Expired } else { reason });
}

#[cold]
fn explain<B>(response: &mut Response<B>, mut text: String, reason: Reason) {
    let _ = write!(text, "; rule={}", reason.as_str());
    if let Some(section) = reason.section() {
        let _ = write!(text, "; section=\"{}\"", section.replace('§', ""));
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(VERDICT, value);
    }
}
