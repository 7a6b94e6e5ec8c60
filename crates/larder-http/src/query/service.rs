//! The service: what a QUERY asks, read before anybody looks for an answer.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use http_body::Body;
use larder_http_rules::request::is_safe;
use tower_service::Service;

use super::body::{Read, Reading, RequestBody};
use super::future::ResponseFuture;
use super::layer::Config;
use crate::mark::Queries;

/// A service whose QUERY requests may be cached; made by [`QueryLayer`](super::QueryLayer).
#[derive(Clone)]
pub struct Queried<S> {
    inner: S,
    config: Config,
}

impl<S> Queried<S> {
    pub(super) fn new(inner: S, config: Config) -> Self {
        Queried { inner, config }
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

impl<S, B> Service<Request<B>> for Queried<S>
where
    S: Service<Request<RequestBody<B>>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let query = request.method().as_str() == "QUERY";
        if !is_safe(request.method()) {
            // What it changes, QUERYs may have been stored for.
            request.extensions_mut().insert(Queries::Change);
        } else if query {
            // One that an outer layer of the same kind left may be of another content.
            request.extensions_mut().remove::<Queries>();
        }
        if !query || is_larger(&request, self.config.max_content) {
            let request = request.map(RequestBody::passed);
            return ResponseFuture::passed(self.inner.call(request));
        }
        // The service that was polled ready is the one that is called.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let config = self.config;
        ResponseFuture::boxed(Box::pin(async move {
            let request = read(config, request).await;
            ready.call(request).await
        }))
    }
}

impl<S: fmt::Debug> fmt::Debug for Queried<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queried").field("inner", &self.inner).finish_non_exhaustive()
    }
}

// Whether it says itself that its content is too large.
fn is_larger<B: Body>(request: &Request<B>, limit: usize) -> bool {
    let said = request.headers().get(CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    said.max(request.body().size_hint().lower()) > limit as u64
}

// The same request, with its content read and told if there is all of it.
async fn read<B: Body>(config: Config, request: Request<B>) -> Request<RequestBody<B>> {
    let (mut parts, body) = request.into_parts();
    let mut reading = Reading::new(body, config.max_content);
    let reads = poll_fn(|cx| reading.poll(cx));
    let read = tokio::time::timeout(config.read_within, reads).await.ok();
    if let Some(Read::Whole) = read {
        let content = Queries::Content(digest(&parts.headers, reading.content()));
        parts.extensions.insert(content);
    }
    Request::from_parts(parts, reading.into_body(read))
}

// Of the content and of what describes it, each with its length.
fn digest(headers: &HeaderMap, content: &[u8]) -> [u8; 32] {
    let described = |name: &str| name.starts_with("content-") && name != "content-length";
    let mut fields: Vec<_> = headers.iter().filter(|(name, _)| described(name.as_str())).collect();
    // Lines of one name stay in their order.
    fields.sort_by_key(|(name, _)| name.as_str());
    let mut hasher = blake3::Hasher::new();
    let mut frame = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    for (name, value) in fields {
        frame(name.as_str().as_bytes());
        frame(value.as_bytes());
    }
    frame(content);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn field() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
        let names =
            vec!["content-type", "content-t", "content-encoding", "content-length", "accept"];
        (prop::sample::select(names), prop::collection::vec(b'a'..=b'c', 0..3))
    }

    fn request() -> impl Strategy<Value = (Vec<(&'static str, Vec<u8>)>, Vec<u8>)> {
        (prop::collection::vec(field(), 0..3), prop::collection::vec(b'a'..=b'c', 0..4))
    }

    fn hash((fields, content): &(Vec<(&'static str, Vec<u8>)>, Vec<u8>)) -> [u8; 32] {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        digest(&headers, content)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn equal_hashes_are_equal_contents_and_fields(one in request(), two in request()) {
            let said = |(fields, content): &(Vec<(&'static str, Vec<u8>)>, Vec<u8>)| {
                let mut fields = fields.clone();
                fields.retain(|(name, _)| !["content-length", "accept"].contains(name));
                // Lines of one name stay in their order.
                fields.sort_by_key(|(name, _)| *name);
                (fields, content.clone())
            };
            prop_assert_eq!(hash(&one) == hash(&two), said(&one) == said(&two));
            prop_assert_eq!(hash(&one), hash(&one.clone()));
        }
    }
}
