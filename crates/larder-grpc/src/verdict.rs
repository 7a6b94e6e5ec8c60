//! Telling what was decided, and why: a tracing event always, `cache-status` metadata where it is switched on.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use larder_http_rules::Reason as HttpReason;
use larder_http_rules::cache_status::{CACHE_STATUS, Forward};

macro_rules! reasons {
    ($($name:ident $code:literal $text:literal;)*) => {
        /// Why a call was not answered from the cache, or its answer not stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Reason {
            $($name,)*
            /// As for HTTP.
            Http(HttpReason),
        }

        impl Reason {
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)*
                    Reason::Http(reason) => reason.as_str(),
                }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Reason::$name => f.write_str($text),)*
                    Reason::Http(reason) => reason.fmt(f),
                }
            }
        }
    };
}

reasons! {
    // calls that never reach the store
    NotDeclared "not-declared" "the method is not declared to be free of side effects";
    NotGrpc "not-grpc" "only POST with a content type of plain gRPC is cached; where gRPC-Web comes in, its layer belongs outside of this one";
    Writes "writes" "the method is declared to change something; when it has succeeded, its tags are dropped";
    SeveralMessages "several-messages" "the call sends more than one message, or none";
    RequestTooLarge "request-too-large" "the request's message is larger than what is read for a key; raise max_message_bytes if it should be";
    RequestFailed "request-failed" "the request ended before its message did";

    // what the store has
    Miss "miss" "nothing is stored for this call";
    Expired "expired" "what is stored is no longer fresh";
    StaleUnavailable "stale-on-unavailable" "the handler is not available, and something stale stands in for its answer";
    StoreUnavailable "store-unavailable" "the cache's store could not be asked";
    PassMark "pass-mark" "an earlier answer to this call could not be stored, so nobody waits for this one";
    WaitTooLong "wait-too-long" "another call's fill took longer than this one waits";
    FillTooLong "fill-too-long" "the answer took longer than a fill may take";
    FillFailed "fill-failed" "another call's fill, which this one waited for, came to nothing";

    // answers that are not storable
    Status "status" "only answers with the status OK are stored";
    TrailersOnly "trailers-only" "the answer has no message";
    NoTrailers "no-trailers" "the answer ended without a status";
    Truncated "truncated" "the answer ended in the middle of its message";
    Stream "stream" "the answer has more than one message, so the method is a streaming one and should not be declared";
    AnswerTooLarge "answer-too-large" "the answer's message is larger than what is stored; raise max_message_bytes if it should be";
    HeadTooLarge "head-too-large" "the answer's metadata are larger than what is stored";
    NoCache "no-cache" "the answer says cache-control: no-cache, and there is no way to ask whether it is still good";
}

impl From<HttpReason> for Reason {
    fn from(reason: HttpReason) -> Self {
        Reason::Http(reason)
    }
}

/// A call that went forward, and why.
#[derive(Clone)]
pub(crate) struct Told {
    name: Option<Arc<str>>,
    forward: Forward,
    reason: Reason,
    collapsed: bool,
}

impl Told {
    pub(crate) fn new(name: &Option<Arc<str>>, forward: Forward, reason: Reason) -> Self {
        Told { name: name.clone(), forward, reason, collapsed: false }
    }

    /// It waited for another call's fill.
    pub(crate) fn collapsed(&mut self) {
        self.collapsed = true;
    }

    pub(crate) fn because(&mut self, reason: Reason) {
        self.reason = reason;
    }

    pub(crate) fn forward_because(&mut self, forward: Forward, reason: Reason) {
        (self.forward, self.reason) = (forward, reason);
    }

    /// Tells of the handler's answer.
    pub(crate) fn forwarded<B>(&self, response: &mut Response<B>, stored: bool) {
        tracing::debug!(
            target: "larder_grpc",
            forward = self.forward.as_str(),
            reason = self.reason.as_str(),
            stored,
            collapsed = self.collapsed,
            "not answered from the cache: {}",
            self.reason,
        );
        let Some(name) = &self.name else { return };
        let mut member = format!("{name}; fwd={}", self.forward.as_str());
        if stored {
            member.push_str("; stored");
        }
        if self.collapsed {
            member.push_str("; collapsed");
        }
        let _ = write!(member, "; detail={}", self.reason.as_str());
        append(response.headers_mut(), &member);
    }

    /// Tells of an answer that another call's fill gave.
    pub(crate) fn shared(&self, headers: &mut HeaderMap, left: Duration) {
        tracing::debug!(target: "larder_grpc", "answered by another call's fill");
        let Some(name) = &self.name else { return };
        let ttl = left.as_secs();
        append(headers, &format!("{name}; fwd={}; ttl={ttl}; collapsed", self.forward.as_str()));
    }
}

/// Tells of a hit. `left` is negative when it is stale.
pub(crate) fn hit(name: &Option<Arc<str>>, headers: &mut HeaderMap, left: impl Fn() -> i64) {
    tracing::trace!(target: "larder_grpc", ttl = left(), "answered from the cache");
    if let Some(name) = name {
        append(headers, &format!("{name}; hit; ttl={}", left()));
    }
}

// Behind those of the caches nearer to the handler.
fn append(headers: &mut HeaderMap, member: &str) {
    let mut joined = Vec::new();
    for line in headers.get_all(CACHE_STATUS) {
        joined.extend_from_slice(line.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(member.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(CACHE_STATUS, value);
    }
}
