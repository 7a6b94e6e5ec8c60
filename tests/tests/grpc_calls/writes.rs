//! Methods that change something, and the one tag space of a cache.

use std::sync::Arc;
use std::time::Duration;

use http_body::Frame;
use larder_grpc::{Caching, Read, Write};
use larder_http::CacheLayer;
use larder_tests::server::Server;
use tokio::sync::Notify;
use tonic::body::Body;
use tower::{Layer, ServiceExt};

use crate::support::{GET, Got, Origin, Site, body, call, failed, framed, ok, response};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const UPDATE: &str = "/test.Test/Update";

/// A site whose `Update` answers with what is written.
async fn site(write: impl Fn() -> http::Response<Body> + Send + Sync + 'static) -> Site {
    let write = Arc::new(write);
    let origin = Origin::new(move |call, request| {
        let response = match request.uri().path() {
            UPDATE => write(),
            _ => ok(&[FRESH], call.to_string()),
        };
        async move { response }
    });
    Site::with(origin, |layer| {
        layer.read(Read::new(GET).tag("products")).write(Write::new(UPDATE).drops("products"))
    })
    .await
}

#[tokio::test]
async fn a_write_that_succeeds_has_dropped_its_tags_when_its_answer_is_there() {
    let site = site(|| ok(&[], "done")).await;
    for _ in 0..20 {
        site.get("a").await;
        assert!(site.get("a").await.hit());
        let done = site.send(call(UPDATE, "x", &[])).await;
        assert_eq!((done.text().as_str(), done.code()), ("done", Some(0)));
        done.because("writes");
        assert!(!site.get("a").await.hit());
    }
}

#[tokio::test]
async fn a_write_that_fails_drops_nothing() {
    let in_head = || response(&[("grpc-status", "9")], Body::empty());
    let in_trailers: fn() -> http::Response<Body> = || failed(9);
    let site_of = [site(in_head).await, site(in_trailers).await];
    for site in site_of {
        site.get("a").await;
        assert_eq!(site.send(call(UPDATE, "x", &[])).await.code(), Some(9));
        assert!(site.get("a").await.hit());
    }
}

#[tokio::test]
async fn a_write_of_which_nobody_knows_what_became_drops_its_tags() {
    let without_end = || response(&[], body(vec![Frame::data(framed("done"))]));
    let only_status = || response(&[("grpc-status", "0")], Body::empty());
    for site in [site(without_end).await, site(only_status).await] {
        site.get("a").await;
        site.send(call(UPDATE, "x", &[])).await;
        assert!(!site.get("a").await.hit());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d18_a_caller_that_leaves_in_the_middle_of_a_write_leaves_nothing_old_behind() {
    let entered = Arc::new(Notify::new());
    let inside = entered.clone();
    let origin = Origin::new(move |call, request| {
        let (inside, path) = (inside.clone(), request.uri().path().to_owned());
        async move {
            if path == UPDATE {
                inside.notify_one();
                std::future::pending::<()>().await;
            }
            ok(&[FRESH], call.to_string())
        }
    });
    let site = Site::with(origin, |layer| {
        layer.read(Read::new(GET).tag("products")).write(Write::new(UPDATE).drops("products"))
    })
    .await;
    site.get("a").await;
    assert!(site.get("a").await.hit());
    let channel = site.channel.clone();
    let writing =
        tokio::spawn(async move { channel.oneshot(call(UPDATE, "x", &[])).await.is_ok() });
    entered.notified().await;
    writing.abort();
    for _ in 0..10_000 {
        if !site.get("a").await.hit() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the tags were never dropped");
}

#[tokio::test]
async fn a_handler_adds_what_it_has_changed() {
    let site = site(|| {
        let mut response = ok(&[], "done");
        response.extensions_mut().insert(Caching::new().drops("product:7"));
        response
    })
    .await;
    site.cache.set_with("7", 7_i64, larder_cache::Options::new().tag("product:7")).await.unwrap();
    site.send(call(UPDATE, "x", &[])).await;
    assert!(!site.cache.contains("7").await.unwrap());
}

#[tokio::test]
async fn one_tag_drops_the_answer_over_grpc_and_the_page_over_http() {
    let site = site(|| ok(&[], "done")).await;
    // The other server: pages, and a form that changes what both show.
    let cache = site.cache.clone();
    let pages = larder_tests::Origin::new(move |call, request| {
        let cache = cache.clone();
        async move {
            if request.method() == http::Method::POST {
                cache.invalidate_tag("products").await.expect("an invalidation");
            }
            Ok(larder_tests::response("max-age=60", call.to_string()))
        }
    });
    let layer = CacheLayer::new(&site.cache).tag("products").cache_status("t");
    let server = Server::start(layer.layer(pages)).await;
    let page = async || server.http1().await.get("site.example", "/").await;

    page().await;
    site.get("a").await;
    assert!(page().await.hit() && site.get("a").await.hit());
    site.send(call(UPDATE, "x", &[])).await;
    assert!(!page().await.hit() && !site.get("a").await.hit());

    assert!(page().await.hit() && site.get("a").await.hit());
    let mut client = server.http1().await;
    client.write("POST /form HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\n\r\n").await;
    client.response().await;
    assert!(!site.get("a").await.hit() && !page().await.hit());
}

#[tokio::test]
async fn answers_that_are_one_visitors_own_are_never_shared() {
    let origin = Origin::says(|call| {
        let mark = larder_grpc::SessionMark::new();
        mark.touch();
        let mut response = ok(&[FRESH], call.to_string());
        response.extensions_mut().insert(mark);
        response
    });
    let site = Site::new(origin).await;
    site.get("a").await.because("session-touched");
    let got: Got = site.get("a").await;
    got.because("pass-mark");
}
