//! A layer over a store that counts and fails as it is told, a clock in hand, and a browser's memory for cookies.
#![allow(dead_code)]

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Empty;
use larder_cache::Cache;
use larder_core::{Backend, Clock, ManualClock};
use larder_memory::MemoryBackend;
use larder_session::{Result, Session, SessionLayer};
use larder_testkit::faulty::{Faults, Faulty};
use tower::{Layer, ServiceExt, service_fn};

pub(crate) type Body = Empty<bytes::Bytes>;

/// A store in memory that goes wrong on request, with a clock that stands still.
pub(crate) struct Stand {
    pub(crate) cache: Cache,
    pub(crate) memory: MemoryBackend,
    pub(crate) faults: Faults,
    pub(crate) hands: ManualClock,
    pub(crate) layer: SessionLayer,
}

/// With time enough, so that a busy machine does not turn a slow answer into an outage.
pub(crate) fn patient(backend: impl Backend, namespace: &str) -> Cache {
    let long = Duration::from_secs(600);
    let builder = Cache::builder(backend).namespace(namespace).expect("a namespace");
    builder.read_budget(long).write_budget(long).build()
}

impl Stand {
    pub(crate) fn new() -> Self {
        Stand::with(|layer| layer)
    }

    pub(crate) fn with(configure: impl FnOnce(SessionLayer) -> SessionLayer) -> Self {
        let (clock, hands) = Clock::manual();
        let memory = MemoryBackend::builder().clock(clock).build().expect("a configuration");
        let backend = Faulty::new(memory.clone());
        let faults = backend.faults();
        let cache = patient(backend, "shop");
        let layer = configure(SessionLayer::new(&cache).evictable());
        Stand { cache, memory, faults, hands, layer }
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(&self.layer)
    }

    pub(crate) fn later(&self, duration: Duration) {
        self.hands.advance(duration);
    }
}

/// Sends requests, and keeps the cookie as browsers do.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) layer: SessionLayer,
    pub(crate) cookie: Option<String>,
}

/// A response's head.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) error: Option<larder_session::ErrorKind>,
}

impl Got {
    pub(crate) fn set_cookie(&self) -> Option<&str> {
        let mut all = self.headers.get_all(SET_COOKIE).iter();
        let first = all.next().map(|value| value.to_str().expect("text"));
        assert!(all.next().is_none(), "more than one cookie");
        first
    }

    pub(crate) fn field(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// Whether the response says that it is one visitor's own.
    pub(crate) fn is_marked(&self) -> bool {
        let vary = self.field(VARY).is_some_and(|vary| vary.contains("cookie"));
        let private = self.field(CACHE_CONTROL).is_some_and(|said| said.contains("private"));
        assert_eq!(vary, private);
        vary
    }
}

impl Browser {
    pub(crate) fn new(layer: &SessionLayer) -> Self {
        Browser { layer: layer.clone(), cookie: None }
    }

    pub(crate) fn with_cookie(layer: &SessionLayer, cookie: &str) -> Self {
        Browser { layer: layer.clone(), cookie: Some(cookie.to_owned()) }
    }

    /// Sends a request, and obeys `Set-Cookie`.
    pub(crate) async fn send<F, Fut>(&mut self, handler: F) -> Got
    where
        F: FnOnce(Session) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let got = exchange(&self.layer, self.cookie.as_deref(), handler).await;
        if let Some(line) = got.set_cookie() {
            let pair = line.split("; ").next().expect("a pair");
            self.cookie = (!line.contains("Max-Age=0")).then(|| pair.to_owned());
        }
        got
    }
}

pub(crate) fn request(cookie: Option<&str>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(cookie) = cookie {
        request.headers_mut().insert(COOKIE, cookie.parse().expect("a header value"));
    }
    request
}

/// One request, whose handler's error becomes its status.
pub(crate) async fn exchange<F, Fut>(layer: &SessionLayer, cookie: Option<&str>, handler: F) -> Got
where
    F: FnOnce(Session) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let mut handler = Some(handler);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let session = request.extensions().get::<Session>().cloned().expect("a session");
        let answer = handler.take().expect("one request")(session);
        async move {
            let mut response = Response::new(Body::new());
            if let Err(error) = answer.await {
                *response.status_mut() = error.status();
            }
            Ok::<_, Infallible>(response)
        }
    }));
    let response = service.oneshot(request(cookie)).await.expect("a response");
    let (parts, _) = response.into_parts();
    let error = parts.extensions.get::<larder_session::Error>().map(|error| error.kind());
    Got { status: parts.status, headers: parts.headers, error }
}
