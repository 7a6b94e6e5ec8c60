//! QUERY, cached by its content (RFC 10008): what shares an answer, what does not, what drops it, and that the handler gets
//! every content as it came.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use larder_cache::Cache;
use larder_http::cache::ResponseBody;
use larder_http::query::RequestBody;
use larder_http::{CacheLayer, ConditionalLayer, Current, QueryLayer};
use larder_testkit::servers::{MemcachedServer, RedisServer};
use larder_tests::server::Server;
use larder_tests::{
    Failure, Got, Larder, Origin, Step, TestBody, answer, append, full, request, response,
    scripted, until,
};
use tokio::sync::Notify;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

type Stack = BoxCloneSyncService<Request<TestBody>, Response<ResponseBody<TestBody>>, Failure>;

/// An origin behind both layers.
struct Shop {
    larder: Larder,
    origin: Origin,
    layer: CacheLayer,
    stack: Stack,
}

fn stack(query: QueryLayer, layer: CacheLayer, origin: Origin) -> Stack {
    let inside = |request: Request<RequestBody<TestBody>>| request.map(BodyExt::boxed_unsync);
    let service = ServiceBuilder::new().layer(query).layer(layer).map_request(inside);
    BoxCloneSyncService::new(service.service(origin))
}

impl Shop {
    fn new(origin: Origin) -> Self {
        Shop::with(origin, QueryLayer::new(), |layer| layer)
    }

    fn with(
        origin: Origin,
        query: QueryLayer,
        configure: impl FnOnce(CacheLayer) -> CacheLayer,
    ) -> Self {
        let larder = Larder::new();
        let layer = configure(CacheLayer::new(&larder.cache)).cache_status("t");
        let stack = stack(query, layer.clone(), origin.clone());
        Shop { larder, origin, layer, stack }
    }

    async fn send(&self, request: Request<TestBody>) -> Got {
        let response = self.stack.clone().oneshot(request).await.expect("a response");
        Got::read(response).await.expect("a whole body")
    }

    async fn ask(&self, content: &str) -> Got {
        self.send(query("/p", &[JSON], content)).await
    }

    fn calls(&self) -> usize {
        self.origin.calls()
    }

    async fn quiet(&self) {
        until("all fills have ended", || self.larder.flights() == 0).await;
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn query(target: &str, fields: &[(&str, &str)], content: &str) -> Request<TestBody> {
    request("QUERY", target, fields).map(|_| full(content.to_owned()))
}

/// One that answers with its call's number, the method and the content.
fn echo(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::new(move |call, request| async move {
        let (parts, body) = request.into_parts();
        let content = body.collect().await?.to_bytes();
        let said = format!("{call} {} {}", parts.method, String::from_utf8_lossy(&content));
        Ok(answer(200, fields, said))
    })
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test]
async fn other_contents_types_and_targets_are_other_entries_and_the_same_is_one_call() {
    let shop = Shop::new(echo(FRESH));
    let server = Server::start(shop.stack.clone()).await;
    let mut client = server.http2().await;
    type Asked<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let asked: &[Asked<'_>] = &[
        ("/p", &[JSON], "{}"),
        ("/p", &[JSON], "{} "),
        ("/p", &[JSON], "{}{}"),
        ("/p", &[JSON], ""),
        ("/p", &[("content-type", "application/sql")], "{}"),
        ("/p", &[("content-type", "application/json;charset=utf-8")], "{}"),
        ("/p", &[], "{}"),
        ("/p", &[JSON, ("content-encoding", "gzip")], "{}"),
        ("/p", &[JSON, ("content-language", "de")], "{}"),
        ("/p", &[("content-type", "application/jso"), ("content-x", "n")], "{}"),
        ("/p", &[JSON, JSON], "{}"),
        ("/p?a", &[JSON], "{}"),
        ("/q", &[JSON], "{}"),
        ("http://other.example/p", &[JSON], "{}"),
    ];
    for round in 0..3 {
        for (nth, (target, fields, content)) in asked.iter().enumerate() {
            let got = client.send(query(target, fields, content)).await;
            assert_eq!(got.text(), format!("{} QUERY {content}", nth + 1), "{target} {fields:?}");
            assert_eq!(got.hit(), round > 0, "{}", got.told());
        }
    }
    assert_eq!(shop.calls(), asked.len());
}

/// How a content is framed on its way is no part of it.
#[tokio::test]
async fn one_content_in_chunks_or_with_its_length_or_in_frames_is_the_same() {
    let shop = Shop::new(echo(FRESH));
    let server = Server::start(shop.stack.clone()).await;
    let mut client = server.http1().await;
    let head = "QUERY /p HTTP/1.1\r\nhost: site.example\r\ncontent-type: application/json\r\n";
    client.write(format!("{head}content-length: 6\r\n\r\nabcdef")).await;
    assert_eq!(client.response().await.text(), "1 QUERY abcdef");
    client
        .write(format!(
            "{head}transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n3\r\ndef\r\n0\r\n\r\n"
        ))
        .await;
    assert!(client.response().await.hit());
    // On the same connection: all of the content was taken off it.
    client.write(format!("{head}content-length: 6\r\n\r\nabcdeX")).await;
    assert_eq!(client.response().await.text(), "2 QUERY abcdeX");
    assert!(server.http2().await.send(query("/p", &[JSON], "abcdef")).await.hit());
}

#[tokio::test]
async fn many_at_once_are_one_call_for_each_content() {
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    let origin = Origin::new(move |_, request| {
        let waits = waits.clone();
        async move {
            let content = request.into_body().collect().await?.to_bytes();
            waits.notified().await;
            Ok(answer(200, FRESH, content))
        }
    });
    let shop = Shop::new(origin);
    let server = Server::start(shop.stack.clone()).await;
    let client = async |nth: usize| {
        let content = if nth.is_multiple_of(2) { "even" } else { "odd" };
        let got = server.http2().await.send(query("/p", &[JSON], content)).await;
        assert_eq!(got.text(), content);
    };
    let opened = async {
        until("both contents are asked for", || shop.calls() == 2).await;
        for _ in 0..2 {
            gate.notify_one();
        }
    };
    tokio::join!(join_all((0..40).map(client)), opened);
    assert_eq!(shop.calls(), 2);
}

#[tokio::test]
async fn a_content_that_is_too_large_goes_whole_to_the_handler_and_is_not_cached() {
    let shop = Shop::new(echo(FRESH));
    let server = Server::start(shop.stack.clone()).await;
    let largest = "x".repeat(64 << 10);
    let mut client = server.http2().await;
    for round in 1..=2 {
        let got = client.send(query("/p", &[JSON], &largest)).await;
        assert_eq!((got.text(), got.hit()), (format!("1 QUERY {largest}"), round == 2));
    }
    let larger = format!("{largest}y");
    let mut client = server.http1().await;
    for call in 2..=3 {
        let head = "QUERY /p HTTP/1.1\r\nhost: site.example\r\n";
        client.write(format!("{head}content-length: {}\r\n\r\n{larger}", larger.len())).await;
        let got = client.response().await;
        assert_eq!(got.text(), format!("{call} QUERY {larger}"));
        assert!(got.because("query-content"), "{}", got.told());
    }
    // Nobody says beforehand how long it will be.
    for call in 4..=5 {
        let head = "QUERY /p HTTP/1.1\r\nhost: site.example\r\ntransfer-encoding: chunked\r\n\r\n";
        client.write(format!("{head}10000\r\n{largest}\r\n1\r\ny\r\n0\r\n\r\n")).await;
        let got = client.response().await;
        assert_eq!(got.text(), format!("{call} QUERY {larger}"));
        assert!(got.because("query-content"), "{}", got.told());
    }
}

#[tokio::test]
async fn a_flood_of_tiny_frames_is_none_that_is_cached_and_loses_nothing() {
    let shop = Shop::new(echo(FRESH));
    for call in 1..=2 {
        let (steps, body) = scripted();
        for _ in 0..10_000 {
            steps.send(Step::Data(Bytes::from_static(b"z"))).unwrap();
        }
        drop(steps);
        let got = shop.send(request("QUERY", "/p", &[JSON]).map(|_| body)).await;
        assert_eq!(got.text(), format!("{call} QUERY {}", "z".repeat(10_000)));
        assert!(got.because("query-content"), "{}", got.told());
    }
}

/// The handler tells what it got, to the end.
fn witness() -> Origin {
    Origin::new(|call, request| async move {
        let (mut body, mut seen) = (request.into_body(), Vec::new());
        let mut end = "whole".to_owned();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => seen.extend_from_slice(&data),
                    Err(frame) => end = format!("trailers {}", frame.into_trailers().is_ok()),
                },
                Err(error) => end = error.to_string(),
            }
        }
        let seen = String::from_utf8(seen).unwrap();
        Ok(answer(200, FRESH, format!("{call} {seen} {end}")))
    })
}

#[tokio::test]
async fn what_was_read_of_a_broken_content_comes_before_its_error() {
    let shop = Shop::new(witness());
    for call in 1..=2 {
        let (steps, body) = scripted();
        for step in [Step::Data("ab".into()), Step::Data("cd".into()), Step::Fail] {
            steps.send(step).unwrap();
        }
        drop(steps);
        let got = shop.send(request("QUERY", "/p", &[JSON]).map(|_| body)).await;
        assert_eq!(got.text(), format!("{call} abcd the body failed, as it was told to"));
        assert!(got.because("query-content"), "{}", got.told());
    }
    // A whole one that is what was read of the broken one is another.
    assert_eq!(shop.ask("abcd").await.text(), "3 abcd whole");
}

/// Over the wire, a client that goes away in the middle.
#[tokio::test]
async fn what_a_client_cut_off_is_not_stored() {
    let shop = Shop::new(witness());
    let server = Server::start(shop.stack.clone()).await;
    let mut client = server.http1().await;
    client
        .write("QUERY /p HTTP/1.1\r\nhost: site.example\r\ncontent-length: 100\r\n\r\nabcd")
        .await;
    drop(client);
    let got = server.http2().await.send(query("/p", &[], "abcd")).await;
    assert!(got.text().ends_with("abcd whole") && !got.hit(), "{}", got.text());
    assert!(shop.larder.entries() <= 1, "only the whole one is stored");
}

#[tokio::test]
async fn a_content_with_trailers_passes_with_them() {
    let shop = Shop::new(witness());
    for call in 1..=2 {
        let (steps, body) = scripted();
        let mut trailers = HeaderMap::new();
        append(&mut trailers, &[("x-sum", "1")]);
        steps.send(Step::Data("ab".into())).unwrap();
        steps.send(Step::Trailers(trailers)).unwrap();
        drop(steps);
        let got = shop.send(request("QUERY", "/p", &[JSON]).map(|_| body)).await;
        assert_eq!(got.text(), format!("{call} ab trailers true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_content_that_is_slow_goes_on_as_it_comes() {
    let query = QueryLayer::new().read_within(Duration::from_secs(5));
    let shop = Shop::with(witness(), query, |layer| layer);
    for call in 1..=2 {
        let (steps, body) = scripted();
        steps.send(Step::Data("ab".into())).unwrap();
        let asking = shop.send(request("QUERY", "/p", &[JSON]).map(|_| body));
        let rest = async {
            // The clock goes on when nothing else is left to do.
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert_eq!(shop.calls(), call);
            steps.send(Step::Data("cd".into())).unwrap();
            drop(steps);
        };
        let (got, ()) = tokio::join!(asking, rest);
        assert_eq!(got.text(), format!("{call} abcd whole"));
        assert!(got.because("query-content"), "{}", got.told());
    }
}

#[tokio::test]
async fn no_other_method_has_part_in_what_is_stored_for_a_query() {
    let shop = Shop::new(echo(FRESH));
    assert_eq!(shop.ask("a").await.text(), "1 QUERY a");
    // Not even with the same content, and a HEAD or a GET without.
    let with = |method: &str| request(method, "/p", &[JSON, ("content-length", "1")]);
    assert!(shop.send(with("GET").map(|_| full("a"))).await.because("request-content"));
    for method in ["HEAD", "GET", "OPTIONS", "REPORT", "SEARCH", "PROPFIND"] {
        let got = shop.send(request(method, "/p", &[])).await;
        assert!(!got.hit() && got.text().starts_with(&shop.calls().to_string()), "{method}");
    }
    assert!(shop.ask("a").await.hit(), "safe methods drop nothing");
    // The GET's own answer is stored apart, and no QUERY drops or has it.
    assert_eq!(shop.send(request("GET", "/p", &[])).await.text(), "4 GET ");
    assert_eq!(shop.ask("").await.text(), format!("{} QUERY ", shop.calls()));
    assert!(shop.send(request("GET", "/p", &[])).await.hit());
}

#[tokio::test]
async fn without_the_layer_every_query_passes() {
    let larder = Larder::new();
    let layer = CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60)).cache_status("t");
    let service = ServiceBuilder::new().layer(layer).service(echo(FRESH));
    let server = Server::start(service).await;
    let mut client = server.http2().await;
    for call in 1..=3 {
        let got = client.send(query("/p", &[JSON], "a")).await;
        assert_eq!(got.text(), format!("{call} QUERY a"));
        assert!(got.because("query-content"), "{}", got.told());
    }
    assert_eq!(larder.entries(), 0);
}

/// The content is told by an extension, which nobody sends.
#[tokio::test]
async fn no_field_makes_one_content_pass_for_another() {
    let shop = Shop::new(echo(FRESH));
    let server = Server::start(shop.stack.clone()).await;
    let mut client = server.http2().await;
    let clean = client.send(query("/p", &[JSON], "a")).await.text();
    let forged = [
        ("content-digest", "sha-256=:AAAA:"),
        ("larder-content", "a"),
        ("larder-key", "a"),
        ("content-length", "1"),
        ("content", "a"),
        ("contents", "a"),
        ("x-content", "a"),
        ("x-http-method-override", "GET"),
        ("x-original-method", "QUERY"),
        ("x-original-url", "/q"),
    ];
    for (name, value) in forged {
        let evil = client.send(query("/p", &[JSON, (name, value)], "b")).await;
        assert!(evil.text().ends_with("QUERY b"), "{name}: {}", evil.text());
        for method in ["POST", "GET"] {
            let request = request(method, "/other", &[JSON, (name, value)]).map(|_| full("a"));
            assert!(!client.send(request).await.hit(), "{method} {name}");
        }
        let got = client.send(query("/p", &[JSON], "a")).await;
        assert_eq!((got.text(), got.hit()), (clean.clone(), true), "{name}");
    }
    assert!(client.send(query("/p", &[JSON], "b")).await.text().ends_with("QUERY b"));
}

#[tokio::test]
async fn a_change_of_the_url_drops_what_is_stored_for_all_its_contents() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
        let shop = Shop::new(echo(FRESH));
        let all = async || {
            let mut hits = Vec::new();
            for content in ["a", "b", "c"] {
                hits.push(shop.ask(content).await.hit());
            }
            for target in ["/p?x", "/p/q"] {
                hits.push(shop.send(query(target, &[JSON], "a")).await.hit());
            }
            hits.push(shop.send(request("GET", "/p", &[])).await.hit());
            hits
        };
        assert_eq!(all().await, [false; 6]);
        assert_eq!(all().await, [true; 6]);
        shop.send(request(method, "/p", &[]).map(|_| full("new"))).await;
        assert_eq!(all().await, [false, false, false, true, true, false], "{method}");
    }
}

#[tokio::test]
async fn a_change_that_failed_drops_nothing_and_what_an_answer_names_goes_too() {
    let origin = Origin::says(|call, request| match (request.method().as_str(), call) {
        ("POST", 2) => answer(500, &[], "failed"),
        ("POST", 4) => answer(201, &[("location", "/p")], "done"),
        _ => answer(200, FRESH, call.to_string()),
    });
    let shop = Shop::new(origin);
    assert_eq!(shop.ask("a").await.text(), "1");
    shop.send(request("POST", "/p", &[])).await;
    assert!(shop.ask("a").await.hit());
    shop.send(query("/p", &[JSON], "b")).await;
    shop.send(request("POST", "/elsewhere", &[])).await;
    assert_eq!(shop.ask("a").await.text(), "5");
    // By the other letter, which stores answers to POST.
    let rfc9111 = larder_http::rules::Policy::rfc9111();
    let shop = Shop::with(echo(FRESH), QueryLayer::new(), |layer| layer.policy(rfc9111));
    assert!(!shop.ask("a").await.hit() && shop.ask("a").await.hit());
    shop.send(request("POST", "/p", &[])).await;
    assert!(!shop.ask("a").await.hit());
}

#[tokio::test]
async fn what_is_changed_while_it_is_asked_for_is_not_shared_and_not_stored() {
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    let origin = Origin::new(move |call, _| {
        let waits = waits.clone();
        async move {
            if call == 1 {
                waits.notified().await;
            }
            Ok(response("max-age=60", call.to_string()))
        }
    });
    let shop = Arc::new(Shop::new(origin));
    let asking = |shop: &Arc<Shop>| {
        let shop = shop.clone();
        tokio::spawn(async move { shop.ask("a").await.text() })
    };
    let first = asking(&shop);
    until("the handler is called", || shop.calls() == 1).await;
    shop.send(request("POST", "/p", &[])).await;
    // Who comes after the change has no part in what was begun before it.
    assert_eq!(asking(&shop).await.unwrap(), "3");
    gate.notify_one();
    assert_eq!(first.await.unwrap(), "1");
    shop.quiet().await;
    assert_ne!(shop.ask("a").await.text(), "1");
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_as_for_get() {
    let fields: &[_] = &[("cache-control", "max-age=60"), ("etag", "\"v1\"")];
    let shop = Shop::new(Origin::says(move |_, _| answer(200, fields, "0123456789")));
    let server = Server::start(shop.stack.clone()).await;
    let mut client = server.http2().await;
    client.send(query("/p", &[JSON], "a")).await;
    let got = client.send(query("/p", &[JSON, ("if-none-match", "\"v1\"")], "a")).await;
    assert_eq!((got.status, got.text()), (304, String::new()));
    let got = client.send(query("/p", &[JSON, ("if-none-match", "\"v2\"")], "a")).await;
    assert_eq!((got.status, got.hit()), (200, true));
    let got = client.send(query("/p", &[JSON, ("range", "bytes=2-4")], "a")).await;
    assert_eq!((got.status, got.text(), got.hit()), (206, "234".to_owned(), true));
    let got = client.send(query("/p", &[JSON, ("range", "bytes=99-")], "a")).await;
    assert_eq!(got.status, 416);
    assert_eq!(shop.calls(), 1);
    // A condition that is met is no answer to another content.
    let got = client.send(query("/p", &[JSON, ("if-none-match", "\"v1\"")], "b")).await;
    assert_eq!((got.status, shop.calls()), (304, 2));
}

/// The handler is asked with the content, and its 304 brings the entry up to date.
#[tokio::test]
async fn a_stale_answer_is_validated_with_its_content() {
    let origin = Origin::new(|_, request| async move {
        let asked = request.headers().get("if-none-match").cloned();
        let content = request.into_body().collect().await?.to_bytes();
        let etag = format!("\"{}\"", String::from_utf8_lossy(&content));
        let fields = [("cache-control", "max-age=60"), ("etag", &*etag)];
        Ok(match asked {
            Some(asked) if asked.as_bytes() == etag.as_bytes() => answer(304, &fields, ""),
            _ => answer(200, &fields, content),
        })
    });
    let shop = Shop::new(origin);
    for content in ["a", "b"] {
        assert_eq!(shop.ask(content).await.text(), content);
    }
    shop.larder.hands.advance(Duration::from_secs(61));
    for content in ["a", "b"] {
        let got = shop.ask(content).await;
        assert_eq!(got.text(), content);
        assert!(got.told().contains("fwd-status=304"), "{}", got.told());
        assert!(shop.ask(content).await.hit());
    }
    assert_eq!(shop.calls(), 4);
}

/// A layer that knows validators takes a QUERY for the reading that it is: the cache's condition comes to 304, not to 412.
#[tokio::test]
async fn validators_that_are_known_beforehand_serve_a_query_too() {
    let origin = echo(&[("cache-control", "no-cache")]);
    let larder = Larder::new();
    let inside = |request: Request<RequestBody<TestBody>>| request.map(BodyExt::boxed_unsync);
    let known = ConditionalLayer::new().with_validators(|_| async { Some(Current::etag(7)) });
    let service = ServiceBuilder::new()
        .layer(QueryLayer::new())
        .layer(CacheLayer::new(&larder.cache))
        .layer(known)
        .map_request(inside)
        .service(origin.clone());
    for _ in 0..3 {
        let response = service.clone().oneshot(query("/p", &[JSON], "a")).await.unwrap();
        let got = Got::read(response).await.unwrap();
        assert_eq!((got.status, got.text()), (200, "1 QUERY a".to_owned()));
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn a_refresh_behind_the_clients_back_sends_the_content_again() {
    let shop = Shop::new(echo(&[("cache-control", "max-age=60, stale-while-revalidate=600")]));
    assert_eq!(shop.ask("a").await.text(), "1 QUERY a");
    shop.larder.hands.advance(Duration::from_secs(61));
    let got = shop.ask("a").await;
    assert_eq!((got.text(), got.hit()), ("1 QUERY a".to_owned(), true));
    until("it is refreshed", || shop.calls() == 2).await;
    shop.quiet().await;
    assert_eq!(shop.ask("a").await.text(), "2 QUERY a");
    assert_eq!(shop.ask("b").await.text(), "3 QUERY b");
}

#[tokio::test]
async fn variants_credentials_and_directives_rule_a_query_as_a_get() {
    let shop = Shop::new(echo(&[("cache-control", "max-age=60"), ("vary", "accept")]));
    for (accept, said) in [("x", "1"), ("y", "2"), ("x", "1"), ("y", "2")] {
        let got = shop.send(query("/p", &[JSON, ("accept", accept)], "a")).await;
        assert_eq!(got.text(), format!("{said} QUERY a"));
    }
    for (name, value) in [("authorization", "Bearer t"), ("cookie", "a=b")] {
        for _ in 0..2 {
            let got = shop.send(query("/p", &[JSON, ("accept", "x"), (name, value)], "a")).await;
            assert!(!got.hit(), "{name}: {}", got.told());
        }
    }
    for said in ["no-store", "private, max-age=60", "max-age=0"] {
        let shop = Shop::new(Origin::counting(said));
        for call in 1..=3 {
            assert_eq!(shop.ask("a").await.text(), call.to_string(), "{said}");
        }
    }
    let told = [("only-if-cached", 504), ("max-age=0", 200)];
    for (said, status) in told {
        let got = shop.send(query("/new", &[JSON, ("cache-control", said)], "a")).await;
        assert_eq!(got.status, status);
    }
}

#[tokio::test]
async fn an_explanation_names_the_content() {
    let shop = Shop::with(echo(FRESH), QueryLayer::new(), |layer| layer.explain("secret"));
    let told = async |content: &str| {
        let got = shop.send(query("/p?q", &[JSON, ("larder-explain", "secret")], content)).await;
        got.field("larder-key").unwrap()
    };
    let (one, other) = (told("a").await, told("b").await);
    let begins = "authority=\"http site.example\"; path=\"/p\"; query=\"q\"; content=\"";
    let same = one.split("content=").next();
    assert_eq!(same, other.split("content=").next());
    assert!(
        one.ends_with('"') && one.len() == same.unwrap().len() + "content=".len() + 66,
        "{one}"
    );
    assert!(one.contains("path=\"/p\"; query=\"q\"; content=\""), "{one}, and not like {begins}");
    assert_ne!(one, other);
}

#[tokio::test]
async fn purging_a_url_counts_what_is_stored_for_its_contents() {
    let shop = Shop::new(echo(FRESH));
    let purger = shop.layer.purger();
    let url = "http://site.example/p".parse().unwrap();
    for content in ["a", "b", "c"] {
        shop.ask(content).await;
    }
    shop.send(request("GET", "/p", &[])).await;
    shop.send(query("/q", &[JSON], "a")).await;
    assert_eq!(purger.remove(&url).await.unwrap(), 4);
    assert!(!shop.ask("a").await.hit());
    assert!(shop.send(query("/q", &[JSON], "a")).await.hit());
}

#[tokio::test]
async fn each_partition_has_its_contents_and_its_changes() {
    let tenant = |head: larder_http::RequestHead<'_>| {
        Some(head.headers().get("x-tenant")?.to_str().ok()?.to_owned())
    };
    let shop = Shop::with(echo(FRESH), QueryLayer::new(), |layer| layer.partition_by(tenant));
    let ask =
        async |tenant: &str| shop.send(query("/p", &[JSON, ("x-tenant", tenant)], "a")).await.hit();
    assert!(!ask("red").await && !ask("blue").await && ask("red").await && ask("blue").await);
    shop.send(request("POST", "/p", &[("x-tenant", "red")])).await;
    assert!(!ask("red").await && ask("blue").await);
}

/// Under Axum's router, where every layer turns the body into the router's own.
#[tokio::test]
async fn axums_router_takes_the_layers_in_their_order() {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::any;

    let larder = Larder::new();
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    let handler = any(move |content: String| {
        let call = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move { format!("{call} {content}") }
    });
    let cache = CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60));
    let inner = Router::new().route("/p", handler).layer(cache);
    let app = Router::new().nest("/api", inner).layer(QueryLayer::new());
    let send = async |method: &str, content: &str| {
        let request = Request::builder().method(method).uri("/api/p").header("host", "a.example");
        let request = request.body(Body::from(content.to_owned())).unwrap();
        Got::read(app.clone().oneshot(request).await.unwrap()).await.unwrap().text()
    };
    assert_eq!(send("QUERY", "a").await, "1 a");
    assert_eq!(send("QUERY", "b").await, "2 b");
    assert_eq!(send("QUERY", "a").await, "1 a");
    assert_eq!(send("POST", "a").await, "3 a");
    assert_eq!(send("QUERY", "a").await, "4 a");
}

/// Over servers, where another node changes the URL, and where nobody can list what is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_servers_another_node_drops_all_contents() {
    let (redis, memcached) = (RedisServer::start().await, MemcachedServer::start().await);
    let limits = "read_budget=60s&write_budget=60s";
    for (store, pages) in [(redis.url() + "/0", true), (memcached.url(), false)] {
        let origin = echo(&[("cache-control", "max-age=600")]);
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let cache = Cache::connect(&format!("{store}?namespace=shop&{limits}")).await.unwrap();
            let layer = CacheLayer::new(&cache).cache_status("t");
            nodes.push((stack(QueryLayer::new(), layer.clone(), origin.clone()), cache, layer));
        }
        let send = async |node: usize, request: Request<TestBody>| {
            let (stack, cache, _) = &nodes[node];
            let got = Got::read(stack.clone().oneshot(request).await.unwrap()).await.unwrap();
            // The client does not wait for the store, but the next request of a test does.
            until("all fills have ended", || cache.store().flights() == 0).await;
            got
        };
        let ask = async |node: usize, content: &str| {
            let got = send(node, query("/p", &[JSON], content)).await;
            assert!(got.text().ends_with(&format!(" QUERY {content}")), "{}", got.text());
            got.hit()
        };
        for content in ["a", "b"] {
            assert!(!ask(0, content).await && ask(1, content).await, "{store} {content}");
        }
        send(1, request("POST", "/p", &[])).await;
        for content in ["a", "b"] {
            assert!(!ask(0, content).await && ask(1, content).await, "{store} {content}");
        }
        let (_, cache, layer) = &nodes[0];
        assert_eq!(cache.store().abilities().pages, pages);
        let url = "http://site.example/p".parse().unwrap();
        let counted = layer.purger().remove(&url).await.unwrap();
        assert_eq!(counted, if pages { 2 } else { 0 });
        assert!(!ask(1, "a").await, "{store}");
    }
}
