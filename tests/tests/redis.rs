//! The same behaviour over a real Redis: records as bytes, read back by other nodes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use larder_cache::Cache;
use larder_http::cache::Cached;
use larder_http::{CacheLayer, Caching, VaryLayer};
use larder_redis::RedisBackend;
use larder_testkit::servers::RedisServer;
use larder_tests::{Got, Origin, Step, answer, append, get, request, response, scripted, until};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt};

/// One node: an origin and a cache of its own over the common server.
struct Node {
    cache: Cache,
    origin: Origin,
    service: Cached<Origin>,
}

/// With time enough, so that a busy machine does not turn a slow answer into an outage.
async fn cache(server: &RedisServer, namespace: &str) -> Cache {
    let url =
        format!("{}?namespace={namespace}&response_timeout=120s&connect_timeout=20s", server.url());
    let backend = RedisBackend::connect(&url).await.expect("a connection");
    let long = Duration::from_secs(120);
    Cache::builder(backend)
        .namespace(namespace)
        .unwrap()
        .read_budget(long)
        .write_budget(long)
        .build()
}

async fn node(
    server: &RedisServer,
    origin: &Origin,
    configure: impl FnOnce(CacheLayer) -> CacheLayer,
) -> Node {
    let cache = cache(server, "site").await;
    let layer = configure(CacheLayer::new(&cache)).cache_status("t");
    Node { service: layer.layer(origin.clone()), cache, origin: origin.clone() }
}

impl Node {
    async fn send(&self, request: http::Request<larder_tests::TestBody>) -> Got {
        let got = Got::read(self.service.clone().oneshot(request).await.unwrap()).await.unwrap();
        // The client does not wait for the store, but the next request of a test does.
        until("all fills have ended", || self.cache.store().flights() == 0).await;
        got
    }

    async fn get(&self, target: &str) -> Got {
        self.send(get(target)).await
    }

    async fn get_with(&self, target: &str, fields: &[(&str, &str)]) -> Got {
        self.send(request("GET", target, fields)).await
    }
}

fn plain() -> Origin {
    Origin::says(|call, request| {
        let fields = [
            ("cache-control", "max-age=600"),
            ("etag", "\"1\""),
            ("vary", "x-a"),
            ("x-two", "1"),
            ("x-two", "2"),
            ("content-type", "text/plain"),
        ];
        match request.method().as_str() {
            "POST" => answer(200, &[("location", "/other")], ""),
            _ => answer(200, &fields, format!("{call}\0\u{ff}")),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_hits_are_what_the_handler_said_on_every_node() {
    let server = RedisServer::start().await;
    let origin = plain();
    let (one, two) =
        (node(&server, &origin, |layer| layer).await, node(&server, &origin, |layer| layer).await);
    let mut miss = one.get("/").await;
    assert!(!miss.hit());
    for node in [&one, &two] {
        let mut hit = node.get("/").await;
        assert!(hit.hit(), "{hit:?}");
        assert!(hit.field("age").unwrap().parse::<u64>().unwrap() < 100);
        for name in ["age", "cache-status", "date"] {
            hit.headers.remove(name);
            miss.headers.remove(name);
        }
        assert_eq!(hit, miss);
        // HEAD and conditions.
        let head = node.send(request("HEAD", "/", &[])).await;
        assert!(head.hit() && head.body.is_empty());
        assert_eq!(head.field("content-length"), Some(miss.body.len().to_string()));
        let known = node.get_with("/", &[("if-none-match", "W/\"1\"")]).await;
        assert_eq!(known.status, 304);
    }
    assert_eq!(origin.calls(), 1);
    // A HEAD alone fills nothing.
    one.send(request("HEAD", "/h", &[])).await;
    assert!(!two.get("/h").await.hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_variants_of_one_url_stand_side_by_side() {
    let server = RedisServer::start().await;
    let origin = plain();
    let (one, two) =
        (node(&server, &origin, |layer| layer).await, node(&server, &origin, |layer| layer).await);
    let mut bodies = Vec::new();
    for variant in 0..5 {
        bodies.push(one.get_with("/", &[("x-a", &variant.to_string())]).await.body);
    }
    bodies.push(two.get("/").await.body);
    for node in [&two, &one] {
        for (variant, body) in bodies[..5].iter().enumerate() {
            let got = node.get_with("/", &[("x-a", &variant.to_string())]).await;
            assert!(got.hit(), "{variant}: {got:?}");
            assert_eq!(got.body, body);
        }
        assert_eq!(node.get("/").await.body, bodies[5]);
    }
    assert_eq!(origin.calls(), 6);

    // A computed value: a node that does not know it yet asks its handler, which tells it.
    let told = VaryLayer::new().cookie("theme").by("tenant", |head| {
        head.headers().get("x-tenant").map(|tenant| tenant.to_str().unwrap_or_default().to_owned())
    });
    let origin = Origin::says(|_, request| {
        let seen = |name: &str| {
            request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned()
        };
        response("max-age=600", format!("{} {}", seen("x-tenant"), seen("cookie")))
    });
    let mut services = Vec::new();
    for _ in 0..2 {
        let cache = cache(&server, "computed").await;
        services.push((
            CacheLayer::new(&cache).cache_status("t").layer(told.clone().layer(origin.clone())),
            cache,
        ));
    }
    for round in 0..3 {
        for (service, cache) in &services {
            for tenant in ["blue", "red"] {
                for theme in ["theme=dark", "theme=light"] {
                    let fields = [("x-tenant", tenant), ("cookie", theme)];
                    let response =
                        service.clone().oneshot(request("GET", "/c", &fields)).await.unwrap();
                    let got = Got::read(response).await.unwrap();
                    until("all fills have ended", || cache.store().flights() == 0).await;
                    assert_eq!(got.text(), format!("{tenant} {theme}"));
                    assert!(round == 0 || got.hit(), "{got:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_tags_and_unsafe_methods_invalidate_on_every_node() {
    let server = RedisServer::start().await;
    let origin = Origin::says(|call, request| match request.method().as_str() {
        "POST" => answer(200, &[("location", "/other")], ""),
        _ => {
            let mut response = response("", call.to_string());
            response
                .extensions_mut()
                .insert(Caching::new().tag(format!("page:{}", request.uri().path())));
            response
        }
    });
    let tagged = |layer: CacheLayer| layer.ttl(Duration::from_secs(600)).tag("pages");
    let (one, two) = (node(&server, &origin, tagged).await, node(&server, &origin, tagged).await);
    let fill = async || {
        for path in ["/a", "/other"] {
            one.get(path).await;
            assert!(one.get(path).await.hit());
            assert!(two.get(path).await.hit());
        }
    };
    fill().await;
    two.cache.invalidate_tag("page:/a").await.unwrap();
    for node in [&one, &two] {
        assert!(node.get("/other").await.hit());
    }
    assert!(!one.get("/a").await.hit());
    assert!(two.get("/a").await.hit(), "what was stored after the invalidation holds");

    two.cache.invalidate_tag("pages").await.unwrap();
    assert!(!one.get("/a").await.hit());
    assert!(!two.get("/other").await.hit());

    fill().await;
    two.send(request("POST", "/a", &[])).await;
    assert!(!one.get("/a").await.hit());
    assert!(!one.get("/other").await.hit(), "Location is invalidated, too");

    fill().await;
    one.cache.clear().await.unwrap();
    assert!(!one.get("/a").await.hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_trailers_and_large_bodies_and_no_broken_ones() {
    let server = RedisServer::start().await;
    let mut trailers = HeaderMap::new();
    append(&mut trailers, &[("x-sum", "1"), ("x-sum", "2")]);
    let sent = trailers.clone();
    let origin = Origin::says(move |_, request| {
        let (steps, body) = scripted();
        let large = vec![7_u8; 700 << 10];
        let mut response = response("max-age=600", "");
        *response.body_mut() = body;
        steps.send(Step::Data("some ".into())).unwrap();
        match request.uri().path() {
            "/trailers" => drop(steps.send(Step::Trailers(sent.clone()))),
            "/large" => drop(steps.send(Step::Data(large.into()))),
            _ => drop(steps.send(Step::Fail)),
        }
        response
    });
    let (one, two) =
        (node(&server, &origin, |layer| layer).await, node(&server, &origin, |layer| layer).await);
    for node in [&one, &two] {
        let got = node.get("/trailers").await;
        assert_eq!((got.text(), got.trailers), ("some ".to_owned(), Some(trailers.clone())));
        let got = node.get("/large").await;
        assert_eq!(got.body.len(), 5 + (700 << 10));
        assert!(got.body[5..].iter().all(|byte| *byte == 7));
    }
    assert_eq!(origin.calls(), 2);
    for _ in 0..3 {
        let head = one.service.clone().oneshot(get("/broken")).await.unwrap();
        assert!(Got::read(head).await.is_err());
        until("the fill has ended", || one.cache.store().flights() == 0).await;
    }
    assert_eq!(origin.calls(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_ten_thousand_callers_of_a_cold_url_make_one_call() {
    let server = RedisServer::start().await;
    let gate = Arc::new(Notify::new());
    let (inside, open) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let counted = inside.clone();
    let origin = Origin::new(move |call, _| {
        let (counted, open) = (counted.clone(), open.clone());
        async move {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                open.notified().await;
            }
            Ok(response("max-age=600", call.to_string()))
        }
    });
    let patient = |layer: CacheLayer| {
        layer.wait(Duration::from_secs(120)).fill_deadline(Duration::from_secs(120))
    };
    let node = Arc::new(node(&server, &origin, patient).await);
    let polls = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> = (0..10_000)
        .map(|_| {
            let (service, polls) = (node.service.clone(), polls.clone());
            tokio::spawn(async move {
                let mut answer = pin!(service.oneshot(get("/")));
                let counting = poll_fn(|cx| {
                    polls.fetch_add(1, Ordering::SeqCst);
                    answer.as_mut().poll(cx)
                });
                Got::read(counting.await.unwrap()).await.unwrap()
            })
        })
        .collect();
    until("the handler runs", || inside.load(Ordering::SeqCst) == 1).await;
    until("all have asked", || polls.load(Ordering::SeqCst) >= 10_000).await;
    // Most wait by now. Whoever looks only later finds what is stored.
    gate.notify_one();
    for one in crowd {
        assert_eq!(one.await.unwrap().text(), "1");
    }
    assert_eq!(node.origin.calls(), 1);
    until("the fill has ended", || node.cache.store().flights() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_an_invalidation_during_a_fill_wins_on_every_node() {
    let server = RedisServer::start().await;
    for how in ["route tag", "handler tag", "unsafe", "clear"] {
        let (entered, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let data = Arc::new(AtomicUsize::new(0));
        let (counted, open, shown) = (entered.clone(), gate.clone(), data.clone());
        let origin = Origin::new(move |_, request| {
            let (counted, open, shown) = (counted.clone(), open.clone(), shown.clone());
            async move {
                if request.method() == "POST" {
                    shown.store(1, Ordering::SeqCst);
                    return Ok(answer(200, &[], ""));
                }
                let read = shown.load(Ordering::SeqCst);
                if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                    open.notified().await;
                }
                let mut response = response("max-age=600", read.to_string());
                response.extensions_mut().insert(Caching::new().tag("handler"));
                Ok(response)
            }
        });
        let configure = |layer: CacheLayer| layer.tag("route").wait(Duration::from_millis(200));
        let one = Arc::new(node(&server, &origin, configure).await);
        let two = node(&server, &origin, configure).await;
        let target = format!("/{}", how.replace(' ', "-"));
        let (filling, path) = (one.clone(), target.clone());
        let leader = tokio::spawn(async move { filling.get(&path).await });
        until("the handler runs", || entered.load(Ordering::SeqCst) == 1).await;
        match how {
            "unsafe" => drop(
                Got::read(
                    two.service.clone().oneshot(request("POST", &target, &[])).await.unwrap(),
                )
                .await,
            ),
            _ => {
                data.store(1, Ordering::SeqCst);
                match how {
                    "route tag" => two.cache.invalidate_tag("route").await.unwrap(),
                    "handler tag" => two.cache.invalidate_tag("handler").await.unwrap(),
                    _ => two.cache.clear().await.unwrap(),
                }
            }
        }
        gate.notify_one();
        assert_eq!(leader.await.unwrap().text(), "0");
        if how == "clear" {
            // Other nodes see that the namespace was emptied within a second: the documented bound.
            let old = async || one.get(&target).await.text() == "0";
            let begun = std::time::Instant::now();
            while old().await {
                assert!(begun.elapsed() < Duration::from_secs(3), "the old answer stays");
            }
        }
        for node in [&*one, &two, &*one, &two] {
            assert_eq!(node.get(&target).await.text(), "1", "{how}");
        }
    }
}
