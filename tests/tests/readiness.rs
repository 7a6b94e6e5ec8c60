//! Tower's contract: the service that was polled ready is the one that is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use larder_http::{CacheControlLayer, CacheLayer, VaryLayer};
use larder_tests::{
    Answering, Failure, Got, Larder, Origin, Site, TestBody, get, request, response,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

/// Fails when it is called without having been polled ready. A clone is not ready.
struct Strict {
    inner: Origin,
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Strict { inner: self.inner.clone(), ready: false }
    }
}

impl Service<Request<TestBody>> for Strict {
    type Response = Response<TestBody>;
    type Error = Failure;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TestBody>) -> Answering {
        if !std::mem::take(&mut self.ready) {
            return Box::pin(async { Err("called without being ready".into()) });
        }
        self.inner.call(request)
    }
}

fn strict(origin: Origin) -> Strict {
    Strict { inner: origin, ready: false }
}

/// Every way through the cache: miss, hit, bypass, unsafe, HEAD, refused, too long, not storable, passed by.
async fn every_way<S, B>(mut service: S, what: &str)
where
    S: Service<Request<TestBody>, Response = Response<B>, Error = Failure>,
    B: http_body::Body<Data = bytes::Bytes>,
    B::Error: std::fmt::Debug,
{
    for (method, target, fields) in [
        ("HEAD", "/", &[][..]),
        ("GET", "/", &[]),
        ("GET", "/", &[]),
        ("HEAD", "/", &[]),
        ("GET", "/", &[("x-a", "1")]),
        ("GET", "/", &[("range", "bytes=0-")]),
        ("GET", "/", &[("cookie", "a=1")]),
        ("GET", "/", &[("cookie", "a=1")]),
        ("POST", "/", &[]),
        ("GET", "/", &[]),
        ("OPTIONS", "/", &[]),
        ("GET", "/private", &[]),
        ("GET", "/private", &[]),
        ("GET", "/", &[("x-original-url", "/")]),
    ] {
        // The same service again and again, as a connection does; and each a clone, as a router does.
        let ready = service.ready().await.unwrap();
        let got = Got::read(ready.call(request(method, target, fields)).await.unwrap()).await;
        // What is stored gives a part, and the origin knows of none.
        let ranged = fields.iter().any(|(name, _)| *name == "range");
        let status = got.unwrap().status;
        let right = status == 200 || (ranged && status == 206);
        assert!(right, "{what}: {method} {target} {fields:?}: {status}");
    }
}

#[tokio::test]
async fn d17_the_service_that_is_called_was_polled_ready() {
    let origin = || {
        strict(Origin::says(|call, request| {
            let private = request.uri().path() == "/private";
            let mut response =
                response(if private { "private" } else { "max-age=60" }, call.to_string());
            larder_tests::append(response.headers_mut(), &[("vary", "x-a")]);
            response
        }))
    };
    let larder = Larder::new();
    let cache = || CacheLayer::new(&larder.cache);
    let vary = || VaryLayer::new().header("x-b".parse().unwrap()).by("value", |_| None);
    let control =
        || CacheControlLayer::new(larder_http::rules::CacheControl::new().must_revalidate());
    let clear = async || larder.cache.clear().await.unwrap();

    every_way(cache().layer(origin()), "cache").await;
    clear().await;
    every_way(vary().layer(origin()), "vary").await;
    every_way(control().layer(origin()), "control").await;
    every_way(cache().layer(vary().layer(control().layer(origin()))), "cache, vary, control").await;
    clear().await;
    every_way(vary().layer(cache().layer(control().layer(origin()))), "vary, cache, control").await;
    clear().await;
    every_way(control().layer(vary().layer(cache().layer(origin()))), "control, vary, cache").await;
    clear().await;
    let other = Larder::new();
    every_way(cache().layer(CacheLayer::new(&other.cache).layer(origin())), "cache, cache").await;
    clear().await;
    let built = ServiceBuilder::new()
        .layer(cache())
        .layer(vary())
        .concurrency_limit(1)
        .layer(control())
        .service(origin());
    every_way(built, "a builder with a limit of one").await;
}

#[tokio::test(start_paused = true)]
async fn d17_those_who_waited_call_the_service_that_was_ready_for_them() {
    // The leader's answer is private, so that a hundred others run on their own.
    let gate = Arc::new(tokio::sync::Notify::new());
    let open = gate.clone();
    let origin = strict(Origin::new(move |call, _| {
        let open = open.clone();
        async move {
            if call == 1 {
                open.notified().await;
            }
            Ok(response("private", call.to_string()))
        }
    }));
    let larder = Larder::new();
    let service = CacheLayer::new(&larder.cache).layer(origin);
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move {
                service.ready().await.unwrap();
                let response = service.call(get("/")).await.unwrap();
                Got::read(response).await.unwrap().status
            })
        })
        .collect();
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    for one in asked {
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), one).await.unwrap().unwrap(), 200);
    }
}

/// Not ready, or failing, as it is told.
#[derive(Clone)]
struct Moody {
    fails: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    polls: Arc<AtomicUsize>,
    inner: Origin,
}

impl Service<Request<TestBody>> for Moody {
    type Response = Response<TestBody>;
    type Error = Failure;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Poll::Ready(Err("the service is gone".into()));
        }
        if self.ready.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<TestBody>) -> Answering {
        assert!(self.ready.load(Ordering::SeqCst), "called though it was not ready");
        self.inner.call(request)
    }
}

#[tokio::test]
async fn d17_what_the_service_says_of_its_readiness_comes_through() {
    let moody = Moody {
        fails: Arc::default(),
        ready: Arc::default(),
        polls: Arc::default(),
        inner: Origin::counting("max-age=60"),
    };
    let larder = Larder::new();
    let mut service = VaryLayer::new().layer(
        CacheLayer::new(&larder.cache).layer(CacheControlLayer::public().layer(moody.clone())),
    );
    let mut context = Context::from_waker(std::task::Waker::noop());
    for polls in 1..4 {
        assert!(service.poll_ready(&mut context).is_pending());
        assert_eq!(moody.polls.load(Ordering::SeqCst), polls);
    }
    moody.ready.store(true, Ordering::SeqCst);
    assert!(service.poll_ready(&mut context).is_ready());
    assert_eq!(Got::read(service.call(get("/")).await.unwrap()).await.unwrap().text(), "1");

    moody.fails.store(true, Ordering::SeqCst);
    match service.poll_ready(&mut context) {
        Poll::Ready(Err(error)) => assert_eq!(error, Failure("the service is gone".to_owned())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn d17_errors_of_the_service_come_through_unchanged() {
    let site = Site::new(Origin::new(|call, request| async move {
        let _ = call;
        Err(Failure(format!("no {} today", request.method())))
    }));
    for (method, fields) in [
        ("GET", &[][..]),
        ("HEAD", &[]),
        ("POST", &[]),
        ("OPTIONS", &[]),
        ("GET", &[("range", "bytes=0-")]),
    ] {
        let error = site.head_of(request(method, "/", fields)).await.unwrap_err();
        assert_eq!(error, Failure(format!("no {method} today")));
    }
    assert_eq!((site.larder.entries(), site.larder.flights()), (0, 0));
}
