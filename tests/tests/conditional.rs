//! HEAD from GET, 304 from what is stored.

use larder_tests::server::Server;
use larder_tests::{Origin, Site, answer, request};

const FIELDS: [(&str, &str); 8] = [
    ("cache-control", "max-age=60"),
    ("etag", "W/\"v1\""),
    ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("date", "Thu, 01 Jan 2026 00:00:05 GMT"),
    ("content-location", "/p.en"),
    ("vary", "x-a"),
    ("expires", "Thu, 01 Jan 2026 00:01:05 GMT"),
    ("content-type", "text/plain"),
];

fn site() -> Site {
    Site::new(Origin::says(|_, request| {
        // As handlers do that know of conditions.
        let known = request.headers().get("if-none-match").is_some_and(|tag| tag == "\"v1\"");
        answer(if known { 304 } else { 200 }, &FIELDS, if known { "" } else { "whole" })
    }))
}

/// Conditions that what is stored meets.
const MET: [&[(&str, &str)]; 9] = [
    &[("if-none-match", "\"v1\"")],
    &[("if-none-match", "W/\"v1\"")],
    &[("if-none-match", "\"v0\", \"v1\"")],
    &[("if-none-match", "\"a,b\" ,W/\"v1\"")],
    &[("if-none-match", "\"v0\""), ("if-none-match", "\"v1\"")],
    &[("if-none-match", "*")],
    &[("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT")],
    &[("if-modified-since", "Thursday, 01-Jan-26 00:00:01 GMT")],
    &[("if-none-match", "\"v1\""), ("if-modified-since", "Mon, 01 Jan 2001 00:00:00 GMT")],
];

/// Conditions that it does not meet, or that do not count.
const UNMET: [&[(&str, &str)]; 8] = [
    &[("if-none-match", "\"v0\"")],
    &[("if-none-match", "\"V1\"")],
    &[("if-none-match", "")],
    &[("if-none-match", "v1x")],
    &[("if-modified-since", "Wed, 31 Dec 2025 23:59:59 GMT")],
    &[("if-modified-since", "yesterday")],
    // If-Modified-Since does not count beside If-None-Match.
    &[("if-none-match", "\"v0\""), ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT")],
    &[("if-modified-since", "0")],
];

#[tokio::test]
async fn c83_fresh_hits_answer_conditions_without_the_handler() {
    let site = site();
    site.get("/").await;
    for fields in MET {
        for method in ["GET", "HEAD"] {
            let got = site.send(request(method, "/", fields)).await;
            assert_eq!(got.status, 304, "{method} {fields:?}");
            assert!(got.hit() && got.body.is_empty());
            let mut names: Vec<_> = got.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            let required = [
                "age",
                "cache-control",
                "cache-status",
                "content-location",
                "date",
                "etag",
                "expires",
                "last-modified",
                "vary",
            ];
            assert_eq!(names, required);
        }
    }
    for fields in UNMET {
        let got = site.get_with("/", fields).await;
        assert_eq!((got.status, &*got.text()), (200, "whole"), "{fields:?}");
        assert!(got.hit());
    }
    assert_eq!(site.calls(), 1);
    // Preconditions are the handler's.
    for name in ["if-match", "if-unmodified-since"] {
        assert!(site.get_with("/", &[(name, "\"v1\"")]).await.because("precondition"));
    }
}

#[tokio::test]
async fn a_condition_fills_the_cache_with_the_whole_response() {
    for fields in MET {
        let site = site();
        let first = site.get_with("/", fields).await;
        assert_eq!(first.status, 304, "{fields:?}");
        assert!(first.body.is_empty());
        let second = site.get("/").await;
        assert!(second.hit(), "{fields:?}");
        assert_eq!(second.text(), "whole");
    }
    for fields in UNMET {
        let site = site();
        assert_eq!(site.get_with("/", fields).await.text(), "whole", "{fields:?}");
        assert!(site.get("/").await.hit());
    }
}

#[tokio::test]
async fn c83_on_the_wire_a_304_has_no_body_and_the_connection_goes_on() {
    let site = site();
    let server = Server::start(site.service()).await;
    let mut http1 = server.http1().await;
    for _ in 0..2 {
        let text = "GET / HTTP/1.1\r\nHost: site.example\r\nIf-None-Match: \"v1\"\r\n\r\n";
        http1.write(text).await;
        let got = http1.response().await;
        assert_eq!(got.status, 304);
        assert!(got.field("content-length").is_none_or(|length| length == "5"), "{got:?}");
        assert_eq!(http1.get("site.example", "/").await.text(), "whole");
    }
    assert_eq!(site.calls(), 1);
}

#[tokio::test]
async fn c61_head_is_answered_from_a_stored_get() {
    let site = site();
    let server = Server::start(site.service()).await;
    let (mut http1, mut http2) = (server.http1().await, server.http2().await);
    let head = "HEAD / HTTP/1.1\r\nHost: site.example\r\n\r\n";

    // A HEAD alone fills nothing.
    for calls in 1..3 {
        http1.write(head).await;
        let got = http1.try_response(true).await.unwrap();
        assert!(!got.hit());
        assert_eq!(site.calls(), calls);
    }
    assert_eq!(site.larder.entries(), 0);
    let get = http1.get("site.example", "/").await;
    assert!(!get.hit());
    assert_eq!(site.calls(), 3);

    http1.write(head).await;
    let got = http1.try_response(true).await.unwrap();
    assert!(got.hit());
    assert_eq!(got.field("content-length").as_deref(), Some("5"));
    assert_eq!(got.field("etag"), get.field("etag"));
    // The connection is in step.
    assert_eq!(http1.get("site.example", "/").await.text(), "whole");
    let got = http2.send(request("HEAD", "/", &[])).await;
    assert!(got.hit() && got.body.is_empty(), "{got:?}");
    assert_eq!(got.field("content-length").as_deref(), Some("5"));
    assert_eq!(site.calls(), 3);
}

#[tokio::test]
async fn a_handlers_own_304_is_never_given_to_a_client_that_did_not_ask() {
    let site = site();
    // A stranger's condition makes this handler answer 304; it is taken off before it is asked for everybody.
    let got = site.get_with("/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(got.status, 304);
    let others = [site.get("/").await, site.send(request("HEAD", "/", &[])).await];
    assert!(others.iter().all(|got| got.status == 200 && got.hit()));
}
