//! A Tonic server whose answers a test writes byte by byte, and clients over real HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use larder_cache::Cache;
use larder_core::{Clock, ManualClock};
use larder_grpc::{GrpcCacheBuilder, GrpcCacheLayer};
use larder_memory::MemoryBackend;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tower::{Service, ServiceExt};

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A message with its prefix.
pub(crate) fn framed(payload: impl AsRef<[u8]>) -> Bytes {
    let payload = payload.as_ref();
    let length = (payload.len() as u32).to_be_bytes();
    [&[0], &length[..], payload].concat().into()
}

pub(crate) fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    map
}

/// A body of these frames.
pub(crate) fn body(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = frames.into_iter().map(Ok::<_, Status>);
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

/// A response of these leading metadata and this body.
pub(crate) fn response(head: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = fields(&[("content-type", "application/grpc")]);
    response.headers_mut().extend(fields(head));
    response
}

/// An answer as it should be.
pub(crate) fn ok(head: &[(&str, &str)], payload: impl AsRef<[u8]>) -> Response<Body> {
    let trailers = Frame::trailers(fields(&[("grpc-status", "0")]));
    response(head, body(vec![Frame::data(framed(payload)), trailers]))
}

/// A status and nothing else, in the trailers.
pub(crate) fn failed(code: u32) -> Response<Body> {
    let code = code.to_string();
    response(&[], body(vec![Frame::trailers(fields(&[("grpc-status", &code)]))]))
}

/// A service of every method; it counts its calls.
#[derive(Clone)]
pub(crate) struct Origin {
    answer: Arc<dyn Fn(usize, Request<Body>) -> Answering + Send + Sync>,
    calls: Arc<AtomicUsize>,
}

impl Origin {
    pub(crate) fn new<F>(answer: impl Fn(usize, Request<Body>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let answer = move |call, request| -> Answering { Box::pin(answer(call, request)) };
        Origin { answer: Arc::new(answer), calls: Arc::default() }
    }

    /// One that reads the request and answers `write(call)`.
    pub(crate) fn says(write: impl Fn(usize) -> Response<Body> + Send + Sync + 'static) -> Self {
        Origin::new(move |call, request| {
            let response = write(call);
            async move {
                let _ = request.into_body().collect().await;
                response
            }
        })
    }

    /// One that answers with the number of its call.
    pub(crate) fn counting(head: &'static [(&'static str, &'static str)]) -> Self {
        Origin::says(move |call| ok(head, call.to_string()))
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl<B> Service<Request<B>> for Origin
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let answering = (self.answer)(call, request.map(Body::new));
        Box::pin(async move { Ok(answering.await) })
    }
}

impl NamedService for Origin {
    const NAME: &'static str = "test.Test";
}

/// The method that tests cache.
pub(crate) const GET: &str = "/test.Test/Get";

/// A cache whose clock is in the test's hand.
pub(crate) fn cache() -> (Cache, ManualClock) {
    let (clock, hands) = Clock::manual();
    let memory =
        MemoryBackend::builder().clock(clock).max_entry_bytes(16 << 20).max_bytes(256 << 20);
    (Cache::builder(memory.build().expect("a configuration")).build(), hands)
}

/// A server on a free port, cached, and a connection to it.
pub(crate) struct Site {
    pub(crate) origin: Origin,
    pub(crate) cache: Cache,
    pub(crate) hands: ManualClock,
    pub(crate) address: SocketAddr,
    pub(crate) channel: Channel,
    serving: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A server with that origin under that layer.
pub(crate) async fn serve(origin: Origin, layer: GrpcCacheLayer) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serving = Server::builder()
        .max_concurrent_streams(4096)
        .layer(layer)
        .add_service(origin)
        .serve_with_incoming(TcpIncoming::from(listener));
    (address, tokio::spawn(async move { serving.await.expect("a server") }))
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("a connection")
}

impl Site {
    pub(crate) async fn new(origin: Origin) -> Self {
        Self::with(origin, |layer| layer.read(GET)).await
    }

    pub(crate) async fn with(
        origin: Origin,
        configure: impl FnOnce(GrpcCacheBuilder) -> GrpcCacheBuilder,
    ) -> Self {
        let (cache, hands) = cache();
        // Time enough on a busy machine, unless a test says otherwise.
        let builder = GrpcCacheLayer::builder(&cache).wait(std::time::Duration::from_secs(600));
        let layer = configure(builder.cache_status("t")).build().expect("a configuration");
        let (address, serving) = serve(origin.clone(), layer).await;
        Site { origin, cache, hands, address, channel: connect(address).await, serving }
    }

    pub(crate) fn calls(&self) -> usize {
        self.origin.calls()
    }

    pub(crate) fn later(&self, seconds: u64) {
        self.hands.advance(std::time::Duration::from_secs(seconds));
    }

    pub(crate) async fn get(&self, message: &str) -> Got {
        self.get_with(message, &[]).await
    }

    pub(crate) async fn get_with(&self, message: &str, metadata: &[(&str, &str)]) -> Got {
        self.send(call(GET, message, metadata)).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Got {
        send(&self.channel, request).await
    }
}

/// A call of one message.
pub(crate) fn call(method: &str, message: &str, metadata: &[(&str, &str)]) -> Request<Body> {
    request(method, body(vec![Frame::data(framed(message))]), metadata)
}

pub(crate) fn request(method: &str, body: Body, metadata: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(method).body(body).expect("a request");
    *request.headers_mut() = fields(&[("te", "trailers"), ("content-type", "application/grpc")]);
    for (name, value) in fields(metadata).iter() {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    request
}

pub(crate) async fn send(channel: &Channel, request: Request<Body>) -> Got {
    Got::read(channel.clone().oneshot(request).await.expect("an answer")).await
}

/// What a client got, whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// The body failed.
    pub(crate) broken: bool,
}

impl Got {
    pub(crate) async fn read(response: Response<Body>) -> Got {
        let (head, mut body) = response.into_parts();
        let (mut data, mut trailers, mut broken) = (Vec::new(), None, false);
        while let Some(frame) = body.frame().await {
            match frame {
                Err(_) => {
                    broken = true;
                    break;
                }
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => data.extend_from_slice(&bytes),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        Got { headers: head.headers, data: data.into(), trailers, broken }
    }

    /// The payload of the first message.
    pub(crate) fn text(&self) -> String {
        let payload = self.data.get(5..).unwrap_or_default();
        String::from_utf8_lossy(payload).into_owned()
    }

    /// The status, wherever it stands.
    pub(crate) fn code(&self) -> Option<u32> {
        let from = |fields: &HeaderMap| fields.get("grpc-status")?.to_str().ok()?.parse().ok();
        from(&self.headers).or_else(|| from(self.trailers.as_ref()?))
    }

    /// What the cache told.
    pub(crate) fn told(&self) -> String {
        let told = self.headers.get("cache-status").expect("a verdict");
        told.to_str().expect("text").to_owned()
    }

    pub(crate) fn hit(&self) -> bool {
        self.told().starts_with("t; hit")
    }

    #[track_caller]
    pub(crate) fn because(&self, reason: &str) {
        let told = self.told();
        assert!(told.ends_with(&format!("detail={reason}")), "{told}");
    }
}
