//! What is told to the outside, and what is not.

use std::time::Duration;

use larder_http::CacheLayer;
use larder_tests::{Got, Larder, Origin, Site, answer, get, request, scripted};
use tower::{Layer, ServiceExt};

#[tokio::test]
async fn c86_cache_status_says_what_happened() {
    let site = Site::new(Origin::says(|call, request| {
        let cache_control = match request.uri().path() {
            "/private" => "private",
            "/none" => "",
            _ => "max-age=60",
        };
        answer(200, &[("cache-control", cache_control), ("vary", "x-a")], call.to_string())
    }));
    let told = async |method: &str, target: &str, fields: &[(&str, &str)]| {
        site.send(request(method, target, fields)).await.told()
    };
    assert_eq!(told("GET", "/", &[]).await, "t; fwd=uri-miss; fwd-status=200; stored; detail=miss");
    assert_eq!(told("GET", "/", &[]).await, "t; hit; ttl=60");
    site.later(7);
    assert_eq!(told("HEAD", "/", &[]).await, "t; hit; ttl=53");
    assert_eq!(
        told("GET", "/", &[("x-a", "1")]).await,
        "t; fwd=vary-miss; fwd-status=200; stored; detail=variant-miss"
    );
    assert_eq!(
        told("POST", "/x", &[]).await,
        "t; fwd=method; fwd-status=200; detail=unsafe-method"
    );
    assert_eq!(told("OPTIONS", "/", &[]).await, "t; fwd=method; fwd-status=200; detail=method");
    assert_eq!(
        told("GET", "/", &[("x-original-url", "/")]).await,
        "t; fwd=bypass; fwd-status=200; detail=override-header"
    );
    assert_eq!(
        told("GET", "/private", &[]).await,
        "t; fwd=uri-miss; fwd-status=200; detail=private"
    );
    assert_eq!(
        told("GET", "/private", &[]).await,
        "t; fwd=uri-miss; fwd-status=200; detail=pass-mark"
    );
    assert_eq!(
        told("GET", "/none", &[]).await,
        "t; fwd=uri-miss; fwd-status=200; detail=no-freshness"
    );
    assert_eq!(
        told("GET", "/", &[("cookie", "a=1")]).await,
        "t; fwd=request; fwd-status=200; detail=cookie-not-shared"
    );
}

#[tokio::test]
async fn c86_the_status_of_the_handler_is_told_though_the_client_gets_304() {
    let site = Site::new(Origin::with(&[("cache-control", "max-age=60"), ("etag", "\"1\"")]));
    let got = site.get_with("/", &[("if-none-match", "\"1\"")]).await;
    assert_eq!(got.status, 304);
    assert_eq!(got.told(), "t; fwd=uri-miss; fwd-status=200; stored; detail=miss");
}

#[tokio::test]
async fn c86_members_of_other_caches_stay_and_nothing_is_told_unless_asked_for() {
    let fields = &[("cache-control", "max-age=60"), ("cache-status", "origin; hit; ttl=9")];
    let larder = Larder::new();
    let quiet = CacheLayer::new(&larder.cache).layer(Origin::with(fields));
    for _ in 0..2 {
        let got = Got::read(quiet.clone().oneshot(get("/")).await.unwrap()).await.unwrap();
        assert_eq!(got.told(), "origin; hit; ttl=9");
        assert!(!format!("{:?}", got.headers).contains("site.example"));
    }
    let site = Site::new(Origin::with(fields));
    assert!(site.get("/").await.told().starts_with("origin; hit; ttl=9, t; fwd=uri-miss"));
    assert_eq!(site.get("/").await.told(), "origin; hit; ttl=9, t; hit; ttl=60");
    // A stack of two caches.
    let (near, far) = (Larder::new(), Larder::new());
    let origin = Origin::counting("max-age=60");
    let service = CacheLayer::new(&near.cache)
        .cache_status("near")
        .layer(CacheLayer::new(&far.cache).cache_status("far").layer(origin));
    let told =
        async || Got::read(service.clone().oneshot(get("/")).await.unwrap()).await.unwrap().told();
    let first = told().await;
    assert!(
        first.starts_with("far; fwd=uri-miss") && first.contains(", near; fwd=uri-miss"),
        "{first}"
    );
    near.cache.clear().await.unwrap();
    assert!(told().await.starts_with("far; hit; ttl=60, near; fwd=uri-miss"));
}

#[tokio::test]
async fn c78_only_if_cached_is_obeyed_and_no_other_directive_of_a_stranger() {
    let site = Site::new(Origin::counting("max-age=60"));
    let only = [("cache-control", "only-if-cached")];
    let got = site.get_with("/", &only).await;
    assert_eq!((got.status, got.told()), (504, String::new()));
    assert_eq!(site.calls(), 0);
    site.get("/").await;
    assert_eq!(site.get_with("/", &only).await.status, 200);
    for directive in ["no-cache", "no-store", "max-age=0", "min-fresh=999", "max-stale"] {
        site.later(1);
        assert!(site.get_with("/", &[("cache-control", directive)]).await.hit(), "{directive}");
        assert!(site.get_with("/", &[("pragma", directive)]).await.hit(), "{directive}");
    }
    assert_eq!(site.calls(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_told_as_such() {
    let site = Site::with(
        Origin::says(|_, request| match request.uri().path() {
            "/body" => answer(200, &[("cache-control", "max-age=60")], vec![b'x'; 101]),
            _ => answer(200, &[("cache-control", "max-age=60"), ("x-big", &"h".repeat(400))], ""),
        }),
        |layer| layer.max_body_bytes(100).max_head_bytes(300),
    );
    assert!(site.get("/body").await.because("body-too-large"));
    assert!(site.get("/head").await.because("head-too-large"));
    assert_eq!(site.larder.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_too_long_is_told_as_such_to_those_who_waited() {
    let (steps, body) = scripted();
    let body = std::sync::Mutex::new(Some(body));
    let site = Site::with(
        Origin::says(move |_, _| {
            let body = body.lock().unwrap().take();
            let mut response = larder_tests::response("max-age=60", "later");
            if let Some(body) = body {
                *response.body_mut() = body;
            }
            response
        }),
        |layer| layer.fill_deadline(Duration::from_secs(1)).wait(Duration::from_secs(100)),
    );
    let slow = site.head_of(get("/")).await.unwrap();
    let waiting = site.get("/").await;
    assert!(waiting.because("wait-too-long"), "{waiting:?}");
    drop(steps);
    assert_eq!(Got::read(slow).await.unwrap().text(), "");
}
