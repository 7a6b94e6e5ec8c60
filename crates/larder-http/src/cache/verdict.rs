//! Telling what was decided, and why: a tracing event always, `Cache-Status` (RFC 9211) where it is switched on.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use larder_http_rules::Reason;
use larder_http_rules::cache_status::{CacheStatus, Forward};

/// A request that went forward, and why.
pub(super) struct Told {
    name: Option<Arc<str>>,
    forward: Forward,
    reason: Reason,
    collapsed: bool,
    status: Option<StatusCode>,
}

impl Told {
    pub(super) fn new(name: &Option<Arc<str>>, forward: Forward, reason: Reason) -> Self {
        Told { name: name.clone(), forward, reason, collapsed: false, status: None }
    }

    /// It waited for another request's fill.
    pub(super) fn collapsed(&mut self) {
        self.collapsed = true;
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
            stored,
            collapsed = self.collapsed,
            "not answered from the cache: {}",
            self.reason,
        );
        if let Some(name) = &self.name {
            CacheStatus::forwarded(name, self.forward)
                .forward_status(self.status.unwrap_or(response.status()).as_u16())
                .stored(stored)
                .collapsed(self.collapsed)
                .detail(self.reason)
                .append(response.headers_mut());
        }
    }

    /// Tells of a response that another request's fill gave.
    pub(super) fn shared(&self, headers: &mut HeaderMap, ttl: i64) {
        tracing::debug!(target: "larder_http", "answered by another request's fill");
        if let Some(name) = &self.name {
            CacheStatus::forwarded(name, self.forward).ttl(ttl).collapsed(true).append(headers);
        }
    }
}

/// Tells of a hit.
pub(super) fn hit(name: &Option<Arc<str>>, headers: &mut HeaderMap, ttl: impl Fn() -> i64) {
    tracing::trace!(target: "larder_http", ttl = ttl(), "answered from the cache");
    if let Some(name) = name {
        CacheStatus::hit(name).ttl(ttl()).append(headers);
    }
}
