//! The service: conditions that are known before the handler, and those that its response tells.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use larder_http_rules::cache_control::ResponseDirectives;
use larder_http_rules::conditional::{self, Precondition, Validators};
use larder_http_rules::date;
use tower_service::Service;

use super::future::ResponseFuture;
use super::layer::{Config, Current, Tags};
use crate::RequestHead;
use crate::cache::{Reading, ResponseBody};
use crate::head::Snapshot;

/// A service whose conditional requests are answered; made by [`ConditionalLayer`](super::ConditionalLayer).
#[derive(Clone)]
pub struct Conditional<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> Conditional<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Conditional { inner, config }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Conditional<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    ReqB: Send + 'static,
    ResB: Body + Send + 'static,
    ResB::Data: Send,
    ResB::Error: Send,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        if self.config.find.is_none() && !is_read(request.method()) {
            return ResponseFuture::passed(self.inner.call(request));
        }
        // The service that was polled ready is the one that is called.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let config = self.config.clone();
        let asked = Snapshot::from(&request);
        ResponseFuture::boxed(Box::pin(async move {
            let known = match &config.find {
                Some(find) => {
                    let finding = find(RequestHead::from(&asked));
                    finding.await
                }
                None => None,
            };
            if let Some(known) = &known
                && let Some(response) = decided(&config, &asked, known)
            {
                return Ok(response);
            }
            let response = ready.call(request).await?;
            Ok(answer(&config, &asked, known.as_ref(), response).await)
        }))
    }
}

impl<S: fmt::Debug> fmt::Debug for Conditional<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conditional").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn is_read(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "QUERY")
}

// What needs no handler.
fn decided<B: Body>(
    config: &Config,
    asked: &Snapshot,
    known: &Current,
) -> Option<Response<ResponseBody<B>>> {
    let head = RequestHead::from(asked);
    let now = config.clock.wall();
    let outcome =
        conditional::preconditions(head.method(), head.headers(), known.validators(), now);
    let status = match outcome {
        Precondition::Holds => return None,
        Precondition::NotModified => StatusCode::NOT_MODIFIED,
        Precondition::Failed => StatusCode::PRECONDITION_FAILED,
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    if status == StatusCode::NOT_MODIFIED {
        set_validators(response.headers_mut(), known);
    }
    Some(response)
}

async fn answer<B>(
    config: &Config,
    asked: &Snapshot,
    known: Option<&Current>,
    mut response: Response<B>,
) -> Response<ResponseBody<B>>
where
    B: Body,
{
    let head = RequestHead::from(asked);
    if response.status() != StatusCode::OK || !is_read(head.method()) {
        return response.map(ResponseBody::passed);
    }
    if let Some(known) = known {
        set_validators(response.headers_mut(), known);
    }
    let length = response.body().size_hint().exact();
    let readable = length.is_some_and(|length| (1..=config.max_body).contains(&length));
    let tags = config.tags != Tags::None
        && *head.method() != Method::HEAD
        && !response.headers().contains_key(ETAG)
        && !ResponseDirectives::from_headers(response.headers()).no_store;
    let mut response = if tags && readable {
        tagged(config, response).await
    } else {
        response.map(ResponseBody::passed)
    };

    let now = config.clock.wall();
    let validators = Validators::from_headers(response.headers(), now);
    match conditional::preconditions(head.method(), head.headers(), Some(validators), now) {
        Precondition::Holds => response,
        Precondition::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            // What describes the body goes with it (RFC 9110 §15.4.5); what the handler said besides stays.
            for name in
                [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE]
            {
                response.headers_mut().remove(name);
            }
            response.map(|_| ResponseBody::empty())
        }
        Precondition::Failed => {
            let mut failed = Response::new(ResponseBody::empty());
            *failed.status_mut() = StatusCode::PRECONDITION_FAILED;
            failed
        }
    }
}

fn set_validators(headers: &mut HeaderMap, known: &Current) {
    if let Some(etag) = &known.etag {
        headers.entry(ETAG).or_insert_with(|| etag.clone());
    }
    if let Some(modified) = known.modified {
        headers.entry(LAST_MODIFIED).or_insert_with(|| date::header_value(modified));
    }
}

// Reads the body, and gives it back with its tag; without one where it ends otherwise than it said.
async fn tagged<B: Body>(config: &Config, response: Response<B>) -> Response<ResponseBody<B>> {
    let (mut parts, body) = response.into_parts();
    let mut reading = Reading::new(body, config.max_body);
    let read = poll_fn(|cx| reading.poll(cx)).await;
    let (body, whole) = reading.into_body(read);
    if let Some(whole) = whole {
        parts.headers.insert(ETAG, tag(config.tags, &parts.headers, &whole));
    }
    Response::from_parts(parts, body)
}

fn tag(tags: Tags, headers: &HeaderMap, body: &Bytes) -> HeaderValue {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body);
    // Another coding of the same bytes is another representation.
    for coding in headers.get_all(CONTENT_ENCODING) {
        hasher.update(b"\0");
        hasher.update(coding.as_bytes());
    }
    let digest = hasher.finalize().to_hex();
    let digest = &digest[..32];
    let weak = if tags == Tags::Weak { "W/" } else { "" };
    let tag = HeaderValue::try_from(format!("{weak}\"{digest}\""));
    tag.unwrap_or_else(|_| unreachable!("letters and digits"))
}
