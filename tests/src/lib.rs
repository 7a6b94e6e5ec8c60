//! What the behaviour tests share: an origin that counts, a cache with a clock in hand, a real server and its clients.

pub mod rows;
pub mod server;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use larder_cache::Cache;
use larder_core::{Clock, ManualClock};
use larder_http::cache::{Cached, ResponseBody};
use larder_http::{CacheLayer, Purger};
use larder_memory::MemoryBackend;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tower::{Layer, Service, ServiceExt};

/// What goes wrong in a test's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<&str> for Failure {
    fn from(words: &str) -> Self {
        Failure(words.to_owned())
    }
}

/// The bodies of requests and of origins' responses.
pub type TestBody = UnsyncBoxBody<Bytes, Failure>;

/// An exchange that is under way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<TestBody>, Failure>> + Send>>;

type Answer = Arc<dyn Fn(usize, Request<TestBody>) -> Answering + Send + Sync>;

/// A whole body.
pub fn full(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> TestBody {
    full("")
}

/// What a scripted body does next.
#[derive(Debug)]
pub enum Step {
    /// Gives these bytes.
    Data(Bytes),
    /// Gives trailers, and ends.
    Trailers(HeaderMap),
    /// Fails.
    Fail,
    /// Panics.
    Panic,
}

/// The hand that steers a scripted body. Dropping it ends the body.
pub type Steps = mpsc::UnboundedSender<Step>;

/// A body that does what it is told, as it is told.
pub fn scripted() -> (Steps, TestBody) {
    let (sender, steps) = mpsc::unbounded_channel();
    (sender, Scripted(steps).boxed_unsync())
}

struct Scripted(mpsc::UnboundedReceiver<Step>);

impl Body for Scripted {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.0.poll_recv(cx).map(|step| {
            Some(Ok(match step? {
                Step::Data(bytes) => Frame::data(bytes),
                Step::Trailers(trailers) => Frame::trailers(trailers),
                Step::Fail => return Some(Err("the body failed, as it was told to".into())),
                Step::Panic => panic!("the body panicked, as it was told to"),
            }))
        })
    }
}

/// A response with that `Cache-Control` and that body.
pub fn response(cache_control: &str, body: impl Into<Bytes>) -> Response<TestBody> {
    let mut response = Response::new(full(body));
    if !cache_control.is_empty() {
        let value = cache_control.try_into().expect("a header value");
        response.headers_mut().insert("cache-control", value);
    }
    response
}

/// A response with these fields, a status and a body.
pub fn answer(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Response<TestBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    append(response.headers_mut(), fields);
    response
}

/// Adds fields to a map.
pub fn append(headers: &mut HeaderMap, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, value.parse().expect("a header value"));
    }
}

/// A request without content, for `http://site.example` unless the target is absolute.
pub fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<TestBody> {
    let mut request = Request::new(empty());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
    let absolute = target.contains("://");
    let uri = if absolute { target.to_owned() } else { format!("http://site.example{target}") };
    *request.uri_mut() = uri.parse().expect("a target");
    append(request.headers_mut(), fields);
    request
}

/// GET.
pub fn get(target: &str) -> Request<TestBody> {
    request("GET", target, &[])
}

/// A handler that counts its calls; they are numbered from 1.
#[derive(Clone)]
pub struct Origin {
    calls: Arc<AtomicUsize>,
    answer: Answer,
}

impl Origin {
    /// One that needs time, or fails.
    pub fn new<F>(answer: impl Fn(usize, Request<TestBody>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<TestBody>, Failure>> + Send + 'static,
    {
        Origin {
            calls: Arc::default(),
            answer: Arc::new(move |call, request| Box::pin(answer(call, request))),
        }
    }

    /// One that answers at once.
    pub fn says(
        answer: impl Fn(usize, Request<TestBody>) -> Response<TestBody> + Send + Sync + 'static,
    ) -> Self {
        Origin::new(move |call, request| {
            let response = answer(call, request);
            async move { Ok(response) }
        })
    }

    /// One whose bodies are the numbers of its calls, with that `Cache-Control`.
    pub fn counting(cache_control: &'static str) -> Self {
        Origin::says(move |call, _| response(cache_control, call.to_string()))
    }

    /// One whose bodies are the numbers of its calls, with these fields.
    pub fn with(fields: &'static [(&'static str, &'static str)]) -> Self {
        Origin::says(move |call, _| answer(200, fields, call.to_string()))
    }

    /// One whose calls of these numbers wait for a permit of the gate before they answer.
    pub fn gated(
        gate: &Arc<Notify>,
        waits: impl Fn(usize) -> bool + Send + Sync + 'static,
        answer: impl Fn(usize) -> Response<TestBody> + Send + Sync + 'static,
    ) -> Self {
        let (gate, answer) = (gate.clone(), Arc::new(answer));
        Origin::new(move |call, _| {
            let (gate, answer, waits) = (gate.clone(), answer.clone(), waits(call));
            async move {
                if waits {
                    gate.notified().await;
                }
                Ok(answer(call))
            }
        })
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({} calls)", self.calls())
    }
}

impl Service<Request<TestBody>> for Origin {
    type Response = Response<TestBody>;
    type Error = Failure;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TestBody>) -> Answering {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (self.answer)(call, request)
    }
}

/// A cache in memory whose clock stands still. A clone is another node's handle of the same.
#[derive(Clone, Debug)]
pub struct Larder {
    /// The cache.
    pub cache: Cache,
    /// What it stores in.
    pub memory: MemoryBackend,
    /// Moves its clock.
    pub hands: ManualClock,
}

impl Larder {
    /// A new one.
    pub fn new() -> Self {
        let (clock, hands) = Clock::manual();
        let memory = MemoryBackend::builder().clock(clock).build().expect("a configuration");
        Larder { cache: Cache::builder(memory.clone()).build(), memory, hands }
    }

    /// How many entries are stored.
    pub fn entries(&self) -> u64 {
        self.memory.usage().entries
    }

    /// How many fills are running.
    pub fn flights(&self) -> usize {
        self.cache.store().flights()
    }
}

impl Default for Larder {
    fn default() -> Self {
        Larder::new()
    }
}

/// An origin behind a `CacheLayer` that tells its `Cache-Status` as `t`.
#[derive(Debug)]
pub struct Site {
    /// The cache.
    pub larder: Larder,
    /// The handler.
    pub origin: Origin,
    layer: CacheLayer,
    service: Cached<Origin>,
}

impl Site {
    /// With the layer's defaults.
    pub fn new(origin: Origin) -> Self {
        Site::with(origin, |layer| layer)
    }

    /// With a configured layer.
    pub fn with(origin: Origin, configure: impl FnOnce(CacheLayer) -> CacheLayer) -> Self {
        Site::over(Larder::new(), origin, configure)
    }

    /// Over a cache that the origin knows too.
    pub fn over(
        larder: Larder,
        origin: Origin,
        configure: impl FnOnce(CacheLayer) -> CacheLayer,
    ) -> Self {
        let layer = configure(CacheLayer::new(&larder.cache)).cache_status("t");
        Site { service: layer.layer(origin.clone()), larder, origin, layer }
    }

    /// Purges what the layer stores.
    pub fn purger(&self) -> Purger {
        self.layer.purger()
    }

    /// The service.
    pub fn service(&self) -> Cached<Origin> {
        self.service.clone()
    }

    /// Sends a request and reads the response's head.
    ///
    /// # Errors
    ///
    /// The origin's own.
    pub async fn head_of(
        &self,
        request: Request<TestBody>,
    ) -> Result<Response<ResponseBody<TestBody>>, Failure> {
        self.service.clone().oneshot(request).await
    }

    /// Sends a request and reads the response to its end.
    pub async fn send(&self, request: Request<TestBody>) -> Got {
        let response = self.head_of(request).await.expect("a response");
        Got::read(response).await.expect("a whole body")
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Got {
        self.send(get(target)).await
    }

    /// GET with fields.
    pub async fn get_with(&self, target: &str, fields: &[(&str, &str)]) -> Got {
        self.send(request("GET", target, fields)).await
    }

    /// So many clients at once who want `/`, each as far as it gets; they come to what they read.
    pub async fn asked_by(self: &Arc<Self>, clients: usize) -> Vec<JoinHandle<String>> {
        let client = |_| {
            let site = self.clone();
            tokio::spawn(async move { site.get("/").await.text() })
        };
        let asking = (0..clients).map(client).collect();
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        asking
    }

    /// How often the origin was called.
    pub fn calls(&self) -> usize {
        self.origin.calls()
    }

    /// Moves the clock.
    pub fn later(&self, seconds: u64) {
        self.larder.hands.advance(Duration::from_secs(seconds));
    }
}

/// A response that was read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Got {
    /// Reads a response.
    ///
    /// # Errors
    ///
    /// The body's own.
    pub async fn read<B: Body<Data = Bytes>>(response: Response<B>) -> Result<Got, B::Error> {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok(Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field's value; the lines of several joined by commas.
    pub fn field(&self, name: &str) -> Option<String> {
        let lines: Vec<_> = self
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// What the cache told.
    pub fn told(&self) -> String {
        self.field("cache-status").unwrap_or_default()
    }

    /// Whether the cache answered.
    pub fn hit(&self) -> bool {
        self.told().contains("; hit")
    }

    /// Whether the cache told that reason.
    pub fn because(&self, reason: &str) -> bool {
        self.told().ends_with(&format!("detail={reason}"))
    }
}

/// Lets everything run until it waits for something. Between two turns a runtime polls 61 tasks.
pub async fn settle() {
    for _ in 0..1500 {
        tokio::task::yield_now().await;
    }
}

/// Lets everything else run until a condition holds. A condition that never comes true is a test that fails.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for turn in 0..2_000_000_u32 {
        if holds() {
            return;
        }
        if turn < 1_000 {
            tokio::task::yield_now().await;
        } else {
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_micros(500)))
                .await
                .expect("a thread");
            assert!(turn < 200_000, "never came true: {what}");
        }
    }
}
