//! Hits of response caches, in process: a request is cloned, the service is cloned and called, the body is collected.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use larder::Cache;
use larder::http::CacheLayer;
use larder::http::cache::Cached;
use larder_http_rules::date;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};

use crate::{Case, Run, WARM_UP, runtime};

/// The rows, in the table's order. The first is the harness itself.
pub const CASES: &[Case] = &[
    Case { name: "harness only, empty response", make: harness_only },
    Case { name: "bare inner service", make: bare },
    Case { name: "hand-written moka look-up", make: hand_written },
    Case { name: "Larder", make: larder },
    Case { name: "Larder, one Vary header", make: larder_vary },
    Case { name: "Larder, Cache-Status", make: larder_status },
    Case { name: "Larder, 304", make: larder_304 },
    Case { name: "axum-response-cache", make: axum_response_cache },
    Case { name: "tower-http-cache", make: tower_http_cache },
    Case { name: "Axum handler", make: axum_bare },
    Case { name: "Axum, Larder on the route", make: axum_on_route },
    Case { name: "Axum, Larder outside the router", make: axum_outside },
];

/// The row that others are compared with.
pub const BASELINE: &str = "bare inner service";

const TARGET: &str = "http://shop.example.com/api/v1/products?category=books&page=3&sort=price";
const PATH: &str = "/api/v1/products";

/// The request: six headers.
pub fn request<B>(body: B) -> Request<B> {
    Request::get(TARGET)
        .header("host", "shop.example.com")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        )
        .header("accept", "application/json, text/plain, */*")
        .header("accept-language", "en-GB,en;q=0.7")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("referer", "http://shop.example.com/books")
        .body(body)
        .expect("a request")
}

/// The handler's answer, and how often it was given.
#[derive(Clone, Debug)]
pub struct Origin {
    headers: HeaderMap,
    body: Bytes,
    given: Arc<AtomicU64>,
}

impl Origin {
    /// Eight headers; one of them is `Vary: Accept-Encoding`, or else a second one of the application's own.
    pub fn new(size: usize, vary: bool) -> Self {
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, value: &str| {
            headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        };
        add(header::CONTENT_TYPE, "application/json");
        add(header::CACHE_CONTROL, "public, max-age=3600");
        add(header::ETAG, "\"5f2b8c1d9e3a4f60\"");
        add(header::LAST_MODIFIED, "Mon, 01 Jun 2026 10:00:00 GMT");
        add(header::CONTENT_LENGTH, &size.to_string());
        add(HeaderName::from_static("x-shop-region"), "eu-central");
        if vary {
            add(header::VARY, "Accept-Encoding");
        } else {
            add(HeaderName::from_static("x-shop-shard"), "17");
        }
        // Of today: with an old one the response would look stale.
        headers.insert(header::DATE, date::header_value(SystemTime::now()));
        Origin { headers, body: Bytes::from(vec![b'x'; size]), given: Arc::default() }
    }

    /// The answer.
    pub fn answer<B: From<Bytes>>(&self) -> Response<B> {
        self.given.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(B::from(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }

    /// How often it was given.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

/// The inner service: ready at once, no boxing.
#[derive(Clone, Debug)]
pub struct Inner(pub Arc<Origin>);

impl<ReqB> Service<Request<ReqB>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<ReqB>) -> Self::Future {
        ready(Ok(self.0.answer()))
    }
}

/// What a caller gets back, checked once.
struct Expected {
    status: StatusCode,
    size: usize,
    // How often the handler may have been asked; `None`: every time.
    given: Option<(Arc<Origin>, u64)>,
}

impl Expected {
    fn whole(size: usize) -> Self {
        Expected { status: StatusCode::OK, size, given: None }
    }

    fn hit(size: usize, origin: &Arc<Origin>) -> Self {
        Expected { given: Some((origin.clone(), 1)), ..Expected::whole(size) }
    }
}

fn drive<S, ReqB, ResB>(
    service: S,
    expected: Expected,
    request: impl Fn() -> Request<ReqB> + 'static,
) -> Run
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone + 'static,
    S::Error: Debug,
    ReqB: 'static,
    ResB: Body<Error: Debug>,
{
    drive_in(runtime(), service, expected, request)
}

fn drive_in<S, ReqB, ResB>(
    runtime: Runtime,
    service: S,
    expected: Expected,
    request: impl Fn() -> Request<ReqB> + 'static,
) -> Run
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone + 'static,
    S::Error: Debug,
    ReqB: 'static,
    ResB: Body<Error: Debug>,
{
    let once = {
        let service = service.clone();
        async move |request| {
            let response = service.clone().oneshot(request).await.expect("a response");
            let status = response.status();
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            (status, body.len())
        }
    };
    for round in 0..WARM_UP {
        let (status, size) = runtime.block_on(once(request()));
        // The first one fills.
        assert!(round == 0 || status == expected.status, "answered {status}");
        assert!(round == 0 || size == expected.size, "a body of {size} bytes");
        // A fill is stored by a task of its own.
        runtime.block_on(async { tokio::task::yield_now().await });
    }
    if let Some((origin, most)) = expected.given {
        assert_eq!(origin.given(), most, "the handler was asked for what should be a hit");
    }
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                let response = service.clone().oneshot(request()).await.expect("a response");
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                black_box(body);
            }
        });
    })
}

fn plain() -> impl Fn() -> Request<Empty<Bytes>> + 'static {
    let request = request(Empty::new());
    move || request.clone()
}

fn axum_request() -> impl Fn() -> Request<axum::body::Body> + 'static {
    let request = plain();
    move || request().map(|_| axum::body::Body::empty())
}

fn harness_only(_: usize) -> Run {
    let service =
        tower::service_fn(|_| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    drive(service, Expected::whole(0), plain())
}

/// The service without anything before it.
pub fn bare(size: usize) -> Run {
    drive(Inner(Arc::new(Origin::new(size, true))), Expected::whole(size), plain())
}

fn hand_written(size: usize) -> Run {
    type Page = (HeaderMap, Bytes);
    let origin = Arc::new(Origin::new(size, true));
    let cache: moka::sync::Cache<String, Page> = moka::sync::Cache::new(10_000);
    let asked = origin.clone();
    let service = tower::service_fn(move |request: Request<Empty<Bytes>>| {
        let uri = request.uri();
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let mut key = String::with_capacity(path.len() + query.len() + 1);
        key.push_str(path);
        key.push('?');
        key.push_str(query);
        let (headers, body) = cache.get(&key).unwrap_or_else(|| {
            let (parts, body) = asked.answer::<Bytes>().into_parts();
            cache.insert(key, (parts.headers.clone(), body.clone()));
            (parts.headers, body)
        });
        let mut response = Response::new(Full::new(body));
        *response.headers_mut() = headers;
        ready(Ok::<_, Infallible>(response))
    });
    drive(service, Expected::hit(size, &origin), plain())
}

/// Larder over a service: what the budget test measures too.
pub fn larder_over(origin: &Arc<Origin>, layer: CacheLayer) -> Run {
    let size = origin.body.len();
    drive(layer.layer(Inner(origin.clone())), Expected::hit(size, origin), plain())
}

/// The same where storing takes a while: every one of its operations is a hit.
pub fn larder_on_server(runtime: Runtime, size: usize, layer: CacheLayer) -> Run {
    let fills = layer.layer(Inner(Arc::new(Origin::new(size, false))));
    // The client of a miss does not wait for the store.
    runtime.block_on(async {
        loop {
            let filled = fills.clone().oneshot(request(Empty::<Bytes>::new())).await;
            if filled.expect("a response").headers().contains_key(header::AGE) {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let origin = Arc::new(Origin::new(size, false));
    let expected = Expected { given: Some((origin.clone(), 0)), ..Expected::whole(size) };
    drive_in(runtime, layer.layer(Inner(origin)), expected, plain())
}

fn layer() -> CacheLayer {
    CacheLayer::new(&Cache::memory())
}

/// A hit.
pub fn larder(size: usize) -> Run {
    larder_over(&Arc::new(Origin::new(size, false)), layer())
}

/// A hit on a response with `Vary: Accept-Encoding`.
pub fn larder_vary(size: usize) -> Run {
    larder_over(&Arc::new(Origin::new(size, true)), layer())
}

/// A hit that tells itself in `Cache-Status`.
pub fn larder_status(size: usize) -> Run {
    larder_over(&Arc::new(Origin::new(size, false)), layer().cache_status("shop"))
}

/// A hit for a client that has the response already.
pub fn larder_304(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, false));
    let etag = origin.headers[header::ETAG].clone();
    let request = plain();
    let conditional = move || {
        let mut request = request();
        request.headers_mut().insert(header::IF_NONE_MATCH, etag.clone());
        request
    };
    let expected =
        Expected { status: StatusCode::NOT_MODIFIED, size: 0, given: Some((origin.clone(), 1)) };
    drive(layer().layer(Inner(origin)), expected, conditional)
}

/// A hit for a client that wants the head alone.
pub fn larder_head(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, false));
    let service = layer().layer(Inner(origin.clone()));
    filled(&service);
    let asked = with(|request| *request.method_mut() = Method::HEAD);
    drive(service, Expected { size: 0, ..Expected::hit(size, &origin) }, asked)
}

/// A hit for a client that wants a hundred bytes.
pub fn larder_range(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, false));
    let service = layer().layer(Inner(origin.clone()));
    filled(&service);
    let asked = with(|request| {
        let range = HeaderValue::from_static("bytes=100-199");
        request.headers_mut().insert(header::RANGE, range);
    });
    let status = StatusCode::PARTIAL_CONTENT;
    drive(service, Expected { status, size: 100, ..Expected::hit(size, &origin) }, asked)
}

/// A hit on one of a URL's older variants.
pub fn larder_older_variant(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, true));
    let service = layer().layer(Inner(origin.clone()));
    filled(&service);
    let newer = with(|request| {
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br"));
    });
    runtime().block_on(service.clone().oneshot(newer())).expect("a response");
    let expected = Expected { given: Some((origin, 2)), ..Expected::whole(size) };
    drive(service, expected, plain())
}

fn with(change: impl FnOnce(&mut Request<Empty<Bytes>>)) -> impl Fn() -> Request<Empty<Bytes>> {
    let mut request = request(Empty::new());
    change(&mut request);
    move || request.clone()
}

fn filled(service: &Cached<Inner>) {
    runtime()
        .block_on(service.clone().oneshot(request(Empty::<Bytes>::new())))
        .expect("a response");
}

/// A miss whose response is stored: every request is for another URL.
pub fn larder_miss(size: usize) -> Run {
    let cache = Cache::memory();
    drive_misses(CacheLayer::new(&cache).layer(Inner(Arc::new(Origin::new(size, false)))))
}

/// A miss whose response is larger than anything that is stored.
pub fn larder_unstorable(size: usize) -> Run {
    let layer = CacheLayer::new(&Cache::memory()).max_body_bytes(100);
    drive_misses(layer.layer(Inner(Arc::new(Origin::new(size, false)))))
}

/// The same requests, answered by the handler.
pub fn bare_misses(size: usize) -> Run {
    drive_misses(Inner(Arc::new(Origin::new(size, false))))
}

fn drive_misses<S, ResB>(service: S) -> Run
where
    S: Service<Request<Empty<Bytes>>, Response = Response<ResB>> + Clone + 'static,
    S::Error: Debug,
    ResB: Body<Error: Debug>,
{
    let (runtime, request) = (runtime(), plain());
    let mut number = 0_u64;
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                number += 1;
                let mut request = request();
                let target = format!("http://shop.example.com/api/v1/products/{number:08}");
                *request.uri_mut() = target.parse().expect("a target");
                let response = service.clone().oneshot(request).await.expect("a response");
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                black_box(body);
            }
        });
    })
}

/// The harness alone, empty response: its share of what is counted.
pub fn harness(size: usize) -> Run {
    harness_only(size)
}

fn axum_response_cache(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, true));
    let inner = tower::service_fn(move |_: Request<axum::body::Body>| ready(Ok(origin.answer())));
    let layer = axum_response_cache::CacheLayer::with_lifespan(Duration::from_secs(3600));
    // It asks the inner service on every hit and drops the future unpolled, so the handler's calls cannot be counted.
    let expected = Expected::whole(size);
    drive(layer.layer(inner), expected, axum_request())
}

fn tower_http_cache(size: usize) -> Run {
    use tower_http_cache::backend::memory::InMemoryBackend;
    let origin = Arc::new(Origin::new(size, true));
    let layer = tower_http_cache::layer::CacheLayer::builder(InMemoryBackend::new(10_000))
        .ttl(Duration::from_secs(3600))
        .build();
    drive(layer.layer(Inner(origin.clone())), Expected::hit(size, &origin), plain())
}

// `with_state` turns handlers into routes once, as `axum::serve` does; without it, they are made for every request.

/// The handler alone on a route.
pub fn axum_router(origin: &Arc<Origin>) -> Router {
    Router::new().route(PATH, get(handler(origin))).with_state(())
}

/// The handler with Larder on its route.
pub fn axum_router_on_route(origin: &Arc<Origin>) -> Router {
    Router::new().route(PATH, get(handler(origin)).layer(layer())).with_state(())
}

/// The handler with another cache on its route.
pub fn axum_router_with_peer(origin: &Arc<Origin>) -> Router {
    let layer = axum_response_cache::CacheLayer::with_lifespan(Duration::from_secs(3600));
    Router::new().route(PATH, get(handler(origin)).layer(layer)).with_state(())
}

/// Larder around the whole router.
pub fn axum_router_outside(origin: &Arc<Origin>) -> Cached<Router> {
    layer().layer(axum_router(origin))
}

// The cheapest handler that there is: what is in front of it counts.
fn handler(
    origin: &Arc<Origin>,
) -> impl Fn() -> Ready<Response<axum::body::Body>> + Clone + Send + Sync + 'static {
    let origin = origin.clone();
    move || ready(origin.answer())
}

fn axum_bare(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, true));
    drive(axum_router(&origin), Expected::whole(size), axum_request())
}

fn axum_on_route(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, true));
    drive(axum_router_on_route(&origin), Expected::hit(size, &origin), axum_request())
}

fn axum_outside(size: usize) -> Run {
    let origin = Arc::new(Origin::new(size, true));
    drive(axum_router_outside(&origin), Expected::hit(size, &origin), axum_request())
}
