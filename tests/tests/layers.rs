//! Among other layers: Axum's routers, service builders, and tower-http's on either side.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{any, get};
use http::{HeaderValue, Method, Response};
use larder_http::rules::CacheControl;
use larder_http::{CacheControlLayer, CacheLayer, Caching, VaryLayer};
use larder_tests::server::Server;
use larder_tests::{Failure, Got, Larder, Origin, TestBody, answer, append, request, response};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::decompression::Decompression;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

async fn ask(app: &Router, method: &str, target: &str, fields: &[(&str, &str)]) -> Got {
    let request = request(method, target, fields).map(|_| Body::empty());
    Got::read(app.clone().oneshot(request).await.unwrap()).await.unwrap()
}

/// Counts its calls, and tells the path that it sees itself.
fn counted(calls: &Arc<AtomicUsize>) -> axum::routing::MethodRouter {
    let calls = calls.clone();
    any(async move |request: Request| {
        let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
        format!("{call} {}", request.uri().path())
    })
}

#[tokio::test]
async fn axum_routers_cache_whole_and_route_by_route() {
    let calls = Arc::new(AtomicUsize::new(0));
    let larder = Larder::new();
    let layer = || CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60)).cache_status("t");
    for app in [
        Router::new().route("/a", counted(&calls)).layer(layer()),
        Router::new().route("/a", counted(&calls)).route_layer(layer()),
        Router::new().route("/a", counted(&calls).layer(layer())),
        Router::new().merge(Router::new().route("/a", counted(&calls)).layer(layer())),
        Router::new().route("/a", counted(&calls)).layer(ServiceBuilder::new().layer(layer())),
    ] {
        calls.store(0, Ordering::SeqCst);
        for hit in [false, true, true] {
            let got = ask(&app, "GET", "/a", &[]).await;
            assert_eq!((got.hit(), &*got.text()), (hit, "1 /a"));
        }
        assert!(ask(&app, "HEAD", "/a", &[]).await.hit());
        // A route of its own layer, an unknown path, another method.
        assert_eq!(ask(&app, "GET", "/unknown", &[]).await.status, 404);
        assert_eq!(ask(&app, "POST", "/a", &[]).await.text(), "2 /a");
        assert_eq!(ask(&app, "GET", "/a", &[]).await.text(), "3 /a");
        larder.cache.clear().await.unwrap();
    }
}

#[tokio::test]
async fn axum_nested_routers_keep_their_prefixes_apart() {
    let calls = Arc::new(AtomicUsize::new(0));
    let larder = Larder::new();
    let layer = CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60)).cache_status("t");
    let inner = Router::new().route("/x", counted(&calls)).layer(layer);
    let app = Router::new()
        .nest("/a", inner.clone())
        .nest("/b", Router::new().nest("/c", inner.clone()))
        .nest_service("/d", inner.clone())
        .route("/x", counted(&calls));
    let targets = ["/a/x", "/b/c/x", "/d/x"];
    for (at, target) in targets.iter().enumerate() {
        assert_eq!(
            ask(&app, "GET", target, &[]).await.text(),
            format!("{} /x", at + 1),
            "{target}"
        );
    }
    for (at, target) in targets.iter().enumerate() {
        let got = ask(&app, "GET", target, &[]).await;
        assert!(got.hit() && got.text() == format!("{} /x", at + 1), "{target}: {got:?}");
    }
    // An unsafe method invalidates by the client's path, too, and nothing else.
    ask(&app, "POST", "/a/x", &[]).await;
    assert!(!ask(&app, "GET", "/a/x", &[]).await.hit());
    assert!(ask(&app, "GET", "/b/c/x", &[]).await.hit());
}

#[tokio::test]
async fn axum_handlers_say_how_they_are_cached() {
    let larder = Larder::new();
    let tagged = async || (axum::Extension(Caching::new().tag("product:1")), "one");
    let app = Router::new()
        .route("/1", get(tagged))
        .route("/2", get(async || (axum::Extension(Caching::never()), "two")))
        .layer(CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60)).cache_status("t"));
    ask(&app, "GET", "/1", &[]).await;
    assert!(ask(&app, "GET", "/1", &[]).await.hit());
    larder.cache.invalidate_tag("product:1").await.unwrap();
    assert!(!ask(&app, "GET", "/1", &[]).await.hit());
    assert!(ask(&app, "GET", "/2", &[]).await.because("handler-declined"));

    let server =
        Server::start(tower::util::MapRequest::new(app, |request: http::Request<TestBody>| {
            request.map(Body::new)
        }))
        .await;
    assert!(server.http1().await.get("site.example", "/1").await.hit());
}

/// Long enough to be worth compressing, and another one for each call.
fn page(call: usize) -> String {
    format!("<p>{call}</p>").repeat(200)
}

fn pages() -> Origin {
    Origin::says(|call, _| {
        answer(200, &[("content-type", "text/html"), ("cache-control", "max-age=60")], page(call))
    })
}

type Boxed = BoxCloneSyncService<http::Request<TestBody>, Response<TestBody>, Failure>;

/// A service with its body in a box.
fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<http::Request<TestBody>, Response = Response<B>, Error = Failure>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    use http_body_util::BodyExt;
    let boxing = |response: Response<B>| {
        response.map(|body| body.map_err(|error| Failure(error.to_string())).boxed_unsync())
    };
    BoxCloneSyncService::new(service.map_response(boxing))
}

async fn through(service: &Boxed, fields: &[(&str, &str)]) -> Got {
    let response = service.clone().oneshot(request("GET", "/", fields)).await.unwrap();
    Got::read(response).await.unwrap()
}

/// What a client reads that undoes the coding.
async fn decoded(got: &Got) -> String {
    let got = got.clone();
    let service = Decompression::new(tower::service_fn(move |_: http::Request<TestBody>| {
        let mut response = Response::new(larder_tests::full(got.body.clone()));
        if let Some(coding) = got.headers.get("content-encoding") {
            response.headers_mut().insert("content-encoding", coding.clone());
        }
        async move { Ok::<_, Failure>(response) }
    }));
    let response = service.oneshot(request("GET", "/", &[])).await.unwrap();
    let body =
        http_body_util::BodyExt::collect(response.into_body()).await.expect("the coding is whole");
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn b08_compression_on_either_side_gives_everybody_what_they_take() {
    let clients = [
        "gzip",
        "br",
        "zstd",
        "identity",
        "gzip, br, zstd",
        "",
        "*",
        "gzip;q=0.1, br;q=0.9",
        "br;q=0, gzip",
        "odd",
    ];
    for order in ["inside", "outside", "both"] {
        for first in clients {
            let larder = Larder::new();
            let cache = CacheLayer::new(&larder.cache).cache_status("t");
            let origin = pages();
            let service = match order {
                "inside" => boxed(cache.layer(CompressionLayer::new().layer(origin.clone()))),
                "outside" => boxed(CompressionLayer::new().layer(cache.layer(origin.clone()))),
                _ => boxed(
                    CompressionLayer::new()
                        .layer(cache.layer(CompressionLayer::new().layer(origin.clone()))),
                ),
            };
            let mut bodies: Vec<(String, String)> = Vec::new();
            for (at, client) in std::iter::once(first).chain(clients).chain(clients).enumerate() {
                let got = through(&service, &[("accept-encoding", client)]).await;
                let what = format!("{order}, first {first:?}, {client:?}: {:?}", got.headers);
                let coding = got.field("content-encoding");
                let taken = |coding: &str| {
                    client == "*"
                        || client.split(',').any(|one| {
                            one.trim().split(';').next() == Some(coding)
                                && !one.contains("q=0,")
                                && !one.ends_with("q=0")
                        })
                };
                assert!(coding.as_deref().is_none_or(taken), "{what}");
                let compresses = ["gzip", "br", "zstd"].into_iter().any(taken);
                assert_eq!(coding.is_some(), compresses, "{what}");
                assert!(
                    got.field("vary").is_some_and(|vary| vary.contains("accept-encoding"))
                        || !compresses,
                    "{what}"
                );
                let text = decoded(&got).await;
                assert!((1..=8).any(|call| text == page(call)), "{what}");
                let known = bodies.iter().find(|(known, _)| known == client);
                match known {
                    // The second time round everybody gets the same as the first time.
                    Some((_, before)) => assert_eq!(*before, text, "{what}"),
                    None => bodies.push((client.to_owned(), text)),
                }
                assert!(at <= clients.len() || got.hit(), "{what}");
            }
            let none = through(&service, &[]).await;
            assert_eq!(none.field("content-encoding"), None);
            assert_eq!(origin.calls() == 1, order == "outside");
        }
    }
}

#[tokio::test]
async fn c92_a_vary_that_an_inner_layer_adds_is_obeyed() {
    let larder = Larder::new();
    let service = boxed(
        ServiceBuilder::new()
            .layer(CacheLayer::new(&larder.cache).cache_status("t"))
            .layer(VaryLayer::headers([http::header::ACCEPT_LANGUAGE]))
            .layer(CompressionLayer::new())
            .layer(CorsLayer::new().allow_origin(AllowOrigin::mirror_request()))
            .layer(CacheControlLayer::public().max_age(Duration::from_secs(30)))
            .service(Origin::says(|call, _| response("", call.to_string()))),
    );
    for round in 0..2 {
        let mut bodies = std::collections::HashSet::new();
        for language in ["en", "de"] {
            for origin in ["http://a.example", "http://b.example"] {
                let got =
                    through(&service, &[("accept-language", language), ("origin", origin)]).await;
                assert_eq!(got.field("access-control-allow-origin").as_deref(), Some(origin));
                assert_eq!(got.hit(), round == 1, "{got:?}");
                assert!(bodies.insert(got.body));
            }
        }
    }
}

#[tokio::test]
async fn cors_on_either_side_tells_every_origin_its_own() {
    let allowed = ["http://a.example", "http://b.example"].map(HeaderValue::from_static);
    let cors = || CorsLayer::new().allow_origin(allowed.clone()).allow_methods([Method::GET]);
    for inside in [true, false] {
        let larder = Larder::new();
        let cache = CacheLayer::new(&larder.cache).cache_status("t");
        let origin = pages();
        let service = if inside {
            boxed(cache.layer(cors().layer(origin.clone())))
        } else {
            boxed(cors().layer(cache.layer(origin.clone())))
        };
        for round in 0..2 {
            for (who, told) in [
                (Some("http://a.example"), Some("http://a.example")),
                (Some("http://b.example"), Some("http://b.example")),
                (Some("http://evil.example"), None),
                (None, None),
            ] {
                let fields: Vec<_> = who.map(|who| ("origin", who)).into_iter().collect();
                let got = through(&service, &fields).await;
                assert_eq!(
                    got.field("access-control-allow-origin").as_deref(),
                    told,
                    "{who:?}, inside: {inside}"
                );
                assert!(round == 0 || got.hit());
            }
        }
        // A preflight is never answered from the cache, nor stored.
        let entries = larder.entries();
        let fields = [("origin", "http://a.example"), ("access-control-request-method", "GET")];
        let response = service.clone().oneshot(request("OPTIONS", "/", &fields)).await.unwrap();
        assert_eq!(response.headers()["access-control-allow-origin"], "http://a.example");
        assert_eq!(larder.entries(), entries);
    }
}

#[tokio::test(start_paused = true)]
async fn time_limits_on_either_side_leave_nothing_wrong_behind() {
    let slow = || {
        Origin::new(|call, _| async move {
            if call == 1 {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            Ok(response("public, max-age=60", call.to_string()))
        })
    };
    let limit = || {
        TimeoutLayer::with_status_code(http::StatusCode::REQUEST_TIMEOUT, Duration::from_secs(1))
    };
    // Outside: the client is told, and the fill goes on.
    let larder = Larder::new();
    let origin = slow();
    let service = boxed(
        limit().layer(CacheLayer::new(&larder.cache).cache_status("t").layer(origin.clone())),
    );
    assert_eq!(through(&service, &[]).await.status, 408);
    assert_eq!(larder.flights(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let got = through(&service, &[]).await;
    assert!(got.hit() && got.text() == "1", "{got:?}");

    // Inside: its answer is an error like any other.
    let larder = Larder::new();
    let service = boxed(
        CacheLayer::new(&larder.cache)
            .ttl(Duration::from_secs(60))
            .cache_status("t")
            .layer(limit().layer(slow())),
    );
    assert!(through(&service, &[]).await.because("status"));
    assert_eq!(larder.entries(), 0);
    assert_eq!(through(&service, &[]).await.text(), "2");
}

#[tokio::test]
async fn tracing_on_either_side_changes_nothing() {
    for inside in [true, false] {
        let larder = Larder::new();
        let cache = CacheLayer::new(&larder.cache).cache_status("t");
        let service = if inside {
            boxed(cache.layer(TraceLayer::new_for_http().layer(pages())))
        } else {
            boxed(TraceLayer::new_for_http().layer(cache.layer(pages())))
        };
        for hit in [false, true] {
            let got = through(&service, &[]).await;
            assert_eq!((got.hit(), got.text()), (hit, page(1)));
        }
    }
}

async fn controlled(
    layer: CacheControlLayer,
    status: u16,
    fields: &'static [(&'static str, &'static str)],
) -> Vec<String> {
    let origin = Origin::says(move |_, _| answer(status, fields, ""));
    let got = through(&boxed(layer.layer(origin)), &[]).await;
    let said = got.field("cache-control").unwrap_or_default();
    let mut said: Vec<_> =
        said.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    said.sort();
    said
}

#[tokio::test]
async fn c96_directives_are_merged_and_never_weaken_the_handlers_own() {
    let minute = || CacheControlLayer::public().max_age(Duration::from_secs(60));
    for (layer, said, merged) in [
        (minute(), &[][..], &["max-age=60", "public"][..]),
        (minute(), &[("cache-control", "max-age=30")], &["max-age=30", "public"]),
        (minute(), &[("cache-control", "MAX-AGE=90")], &["max-age=60", "public"]),
        (minute(), &[("cache-control", "private")], &["max-age=60", "private"]),
        (
            CacheControlLayer::private(),
            &[("cache-control", "public, max-age=9")],
            &["max-age=9", "private"],
        ),
        (
            CacheControlLayer::new(CacheControl::new()),
            &[("cache-control", "immutable")],
            &["immutable"],
        ),
        (
            minute().must_revalidate(),
            &[("cache-control", "x-own=\"1, 2\"")],
            &["2\"", "max-age=60", "must-revalidate", "public", "x-own=\"1"],
        ),
    ] {
        assert_eq!(controlled(layer, 200, said).await, merged, "{said:?}");
    }
    for said in
        [&[("cache-control", "no-store")][..], &[("cache-control", "public, no-store, max-age=9")]]
    {
        let merged = controlled(minute(), 200, said).await;
        assert!(merged.contains(&"no-store".to_owned()), "{merged:?}");
    }
    // Errors are not made cacheable, and what forbids holds for them too.
    for status in [400, 404, 500] {
        assert!(controlled(minute(), status, &[]).await.is_empty(), "{status}");
        assert!(
            controlled(CacheControlLayer::no_store(), status, &[])
                .await
                .contains(&"no-store".to_owned())
        );
        assert!(
            controlled(CacheControlLayer::private(), status, &[])
                .await
                .contains(&"private".to_owned())
        );
    }
    // A 304 of the handler gets its fields too (check 73).
    assert_eq!(controlled(minute(), 304, &[]).await, ["max-age=60", "public"]);
}

#[tokio::test]
async fn c97_never_cache_says_everything_that_keeps_caches_away() {
    for said in [&[][..], &[("cache-control", "public, max-age=600, s-maxage=9")]] {
        let merged = controlled(CacheControlLayer::never_cache(), 200, said).await;
        for directive in ["no-store", "no-cache", "private", "must-revalidate", "max-age=0"] {
            assert!(merged.contains(&directive.to_owned()), "{directive}: {merged:?}");
        }
        assert!(!merged.contains(&"public".to_owned()), "{merged:?}");
    }
}

#[tokio::test]
async fn c98_vary_is_added_to_without_repetition() {
    for (own, layer, vary) in [
        (
            &[][..],
            VaryLayer::headers([http::header::ACCEPT, http::header::COOKIE]),
            Some("accept, cookie"),
        ),
        (
            &[("vary", "COOKIE, Origin")],
            VaryLayer::headers([http::header::ACCEPT, http::header::COOKIE]),
            Some("COOKIE, Origin, accept"),
        ),
        (
            &[("vary", "a"), ("vary", "b")],
            VaryLayer::headers([http::header::ACCEPT]),
            Some("a, b, accept"),
        ),
        (&[("vary", "*")], VaryLayer::headers([http::header::ACCEPT]), Some("*")),
        (&[], VaryLayer::new().cookie("a").cookie("b"), Some("cookie")),
        (&[], VaryLayer::new(), None),
        (&[], VaryLayer::new().by("computed", |_| None), None),
    ] {
        let own = own.to_vec();
        let origin = Origin::says(move |_, _| {
            let mut response = response("", "");
            append(response.headers_mut(), &own);
            response
        });
        assert_eq!(through(&boxed(layer.layer(origin)), &[]).await.field("vary").as_deref(), vary);
    }
}

#[tokio::test]
async fn cache_control_inside_makes_storable_and_outside_only_tells_others() {
    for inside in [true, false] {
        let larder = Larder::new();
        let cache = CacheLayer::new(&larder.cache).cache_status("t");
        let control = CacheControlLayer::public().max_age(Duration::from_secs(60));
        let origin = Origin::counting("");
        let service = if inside {
            boxed(cache.layer(control.layer(origin)))
        } else {
            boxed(control.layer(cache.layer(origin)))
        };
        for round in 0..2 {
            let got = through(&service, &[]).await;
            assert_eq!(got.field("cache-control").as_deref(), Some("public, max-age=60"));
            assert_eq!(got.hit(), inside && round == 1);
        }
        // What forbids always wins.
        let cache = CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60)).cache_status("t");
        let never =
            boxed(cache.layer(
                CacheControlLayer::never_cache().layer(Origin::counting("public, max-age=60")),
            ));
        larder.cache.clear().await.unwrap();
        for _ in 0..2 {
            assert!(!through(&never, &[]).await.hit());
        }
    }
}

/// Some routers apply a layer anew for every request: what it has learned must not be lost with that.
#[tokio::test]
async fn a_layer_that_is_applied_anew_for_every_request_remembers() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let handler = tower::service_fn(move |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            Ok::<_, Infallible>(Response::new(http_body_util::Full::<bytes::Bytes>::default()))
        }
    });
    let layer = CacheLayer::new(&larder_cache::Cache::memory()).cache_status("t");
    let mut told = Vec::new();
    for _ in 0..2 {
        let request = http::Request::get("http://shop.example/")
            .body(http_body_util::Full::default())
            .unwrap();
        let response = layer.layer(handler.clone()).oneshot(request).await.unwrap();
        told.push(response.headers()["cache-status"].to_str().unwrap().to_owned());
    }
    assert!(told[0].ends_with("detail=no-freshness"), "{told:?}");
    assert!(told[1].ends_with("detail=pass-mark"), "{told:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
