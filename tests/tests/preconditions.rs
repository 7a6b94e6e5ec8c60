//! Entity tags and conditions at the origin: `ConditionalLayer`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use larder_http::conditional::Conditional;
use larder_http::{CacheLayer, ConditionalLayer, Current};
use larder_tests::{Got, Larder, Origin, Step, TestBody, answer, request, scripted};
use tower::{Layer, ServiceExt};

async fn send(service: &Conditional<Origin>, request: Request<TestBody>) -> Got {
    Got::read(service.clone().oneshot(request).await.unwrap()).await.unwrap()
}

fn origin(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::says(move |_, _| answer(200, fields, "hello"))
}

// 100
#[tokio::test]
async fn c100_a_body_gets_a_tag_that_is_its_own() {
    let plain = ConditionalLayer::new().layer(origin(&[]));
    let tag = send(&plain, request("GET", "/", &[])).await.field("etag").unwrap();
    assert!(tag.starts_with("W/\"") && tag.ends_with('"') && tag.len() == 36, "{tag}");
    assert_eq!(send(&plain, request("GET", "/", &[])).await.field("etag").unwrap(), tag);
    let strong = ConditionalLayer::new().strong().layer(origin(&[]));
    let strong = send(&strong, request("GET", "/", &[])).await.field("etag").unwrap();
    assert_eq!(format!("W/{strong}"), tag);
    // A QUERY reads, too (RFC 10008), and is told by 304 that nothing has changed.
    assert_eq!(send(&plain, request("QUERY", "/", &[])).await.field("etag").unwrap(), tag);
    let again = send(&plain, request("QUERY", "/", &[("if-none-match", &tag)])).await;
    assert_eq!((again.status, again.text()), (304, String::new()));
    // Other bytes, another coding of the same bytes: another tag.
    let other = ConditionalLayer::new().layer(Origin::says(|_, _| answer(200, &[], "hallo")));
    let coded = ConditionalLayer::new().layer(origin(&[("content-encoding", "gzip")]));
    for service in [other, coded] {
        assert_ne!(send(&service, request("GET", "/", &[])).await.field("etag").unwrap(), tag);
    }
}

// 100
#[tokio::test]
async fn c100_what_must_not_have_a_tag_has_none() {
    let none = |layer: ConditionalLayer, origin: Origin, method: &'static str| async move {
        let got = send(&layer.layer(origin), request(method, "/", &[])).await;
        assert_eq!(got.field("etag"), None, "{method} {got:?}");
        got
    };
    let layer = ConditionalLayer::new;
    none(layer(), origin(&[("cache-control", "no-store")]), "GET").await;
    none(layer(), Origin::says(|_, _| answer(200, &[], "")), "GET").await;
    none(layer(), Origin::says(|_, _| answer(404, &[], "hello")), "GET").await;
    none(layer(), Origin::says(|_, _| answer(201, &[], "hello")), "GET").await;
    none(layer(), origin(&[]), "POST").await;
    none(layer(), origin(&[]), "HEAD").await;
    none(layer().without_etags(), origin(&[]), "GET").await;
    let large = none(layer().max_body_bytes(4), origin(&[]), "GET").await;
    assert_eq!(large.text(), "hello");
    let got = send(&layer().layer(origin(&[("etag", "\"own\"")])), request("GET", "/", &[])).await;
    assert_eq!(got.field("etag").as_deref(), Some("\"own\""), "the handler's own stays");
}

// 100
#[tokio::test]
async fn c100_a_stream_is_not_held_back() {
    let (steps, body) = scripted();
    let body = std::sync::Mutex::new(Some(body));
    let origin = Origin::says(move |_, _| {
        let mut response = answer(200, &[], "");
        *response.body_mut() = body.lock().unwrap().take().unwrap();
        response
    });
    let service = ConditionalLayer::new().layer(origin);
    // The head is there before the first byte.
    let response = service.oneshot(request("GET", "/", &[])).await.unwrap();
    assert!(!response.headers().contains_key("etag"));
    steps.send(Step::Data("late".into())).unwrap();
    drop(steps);
    assert_eq!(Got::read(response).await.unwrap().text(), "late");
}

#[tokio::test]
async fn a_client_that_has_it_gets_304_with_what_the_handler_said_besides() {
    let fields = &[
        ("content-type", "text/plain"),
        ("content-length", "5"),
        ("set-cookie", "seen=1"),
        ("cache-control", "max-age=5"),
        ("access-control-allow-origin", "*"),
    ];
    let service = ConditionalLayer::new().layer(origin(fields));
    let tag = send(&service, request("GET", "/", &[])).await.field("etag").unwrap();
    let got = send(&service, request("GET", "/", &[("if-none-match", &tag)])).await;
    assert_eq!((got.status, got.body.len()), (304, 0));
    assert_eq!(got.field("etag"), Some(tag));
    for (name, kept) in [
        ("set-cookie", true),
        ("cache-control", true),
        ("access-control-allow-origin", true),
        ("content-type", false),
        ("content-length", false),
    ] {
        assert_eq!(got.field(name).is_some(), kept, "{name}");
    }
    let got = send(&service, request("GET", "/", &[("if-none-match", "\"other\"")])).await;
    assert_eq!((got.status, got.text().as_str()), (200, "hello"));
    let got = send(&service, request("GET", "/", &[("if-match", "\"other\"")])).await;
    assert_eq!(got.status, 412);
}

/// A service whose validators are known, and how often its handler was called.
fn known(current: Option<Current>) -> (Conditional<Origin>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = calls.clone();
    let origin = Origin::says(move |_, _| {
        counting.fetch_add(1, Ordering::SeqCst);
        answer(200, &[], "hello")
    });
    let layer = ConditionalLayer::new().with_validators(move |_| {
        let current = current.clone();
        async move { current }
    });
    (layer.layer(origin), calls)
}

// 99, 101
#[tokio::test]
async fn c99_and_c101_known_validators_spare_the_handler() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_999);
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let before = "Wed, 31 Dec 2025 23:59:59 GMT";
    let current = Some(Current::etag(7).and_modified(at));
    for (method, field, value, status) in [
        ("GET", "if-none-match", "\"7\"", 304),
        ("HEAD", "if-none-match", "W/\"7\"", 304),
        ("GET", "if-modified-since", date, 304),
        ("PUT", "if-none-match", "*", 412),
        ("PUT", "if-match", "\"6\"", 412),
        ("DELETE", "if-unmodified-since", before, 412),
        ("GET", "if-match", "\"6\"", 412),
    ] {
        let (service, calls) = known(current.clone());
        let got = send(&service, request(method, "/", &[(field, value)])).await;
        assert_eq!((got.status, got.body.len()), (status, 0), "{method} {field}");
        assert_eq!(calls.load(Ordering::SeqCst), 0, "{method} {field}");
        assert_eq!(got.field("etag").is_some(), status == 304);
    }
    for (method, field, value) in [
        ("GET", "if-none-match", "\"6\""),
        ("GET", "if-modified-since", before),
        ("PUT", "if-match", "\"7\""),
        ("PUT", "if-unmodified-since", date),
        ("POST", "if-modified-since", date),
    ] {
        let (service, calls) = known(current.clone());
        let got = send(&service, request(method, "/", &[(field, value)])).await;
        assert_eq!((got.status, calls.load(Ordering::SeqCst)), (200, 1), "{method} {field}");
        // Validators go on answers to reading alone: what a change made has others.
        let read = method == "GET";
        assert_eq!(got.field("etag").as_deref(), read.then_some("\"7\""), "{method}");
        assert_eq!(got.field("last-modified").as_deref(), read.then_some(date), "{method}");
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_known() {
    let (absent, _) = known(Some(Current::absent()));
    assert_eq!(send(&absent, request("PUT", "/", &[("if-match", "*")])).await.status, 412);
    assert_eq!(send(&absent, request("PUT", "/", &[("if-none-match", "*")])).await.status, 200);
    let (unknown, calls) = known(None);
    assert_eq!(send(&unknown, request("PUT", "/", &[("if-match", "\"x\"")])).await.status, 200);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "the handler decides");
}

#[test]
fn tags_can_be_made_of_anything() {
    let tags: Vec<Current> =
        ["a", "", "a b", "a%b", "a\"b", "ä", "a\nb", "%20;"].map(Current::etag).into();
    for (at, tag) in tags.iter().enumerate() {
        assert_ne!(*tag, Current::default(), "there is one");
        assert!(!tags[..at].contains(tag), "{tag:?}");
    }
    assert_ne!(Current::etag("a"), Current::weak_etag("a"));
}

#[tokio::test]
async fn a_cache_outside_validates_by_it() {
    let larder = Larder::new();
    let inner = ConditionalLayer::new()
        .layer(Origin::says(|_, _| answer(200, &[("cache-control", "max-age=10")], "same")));
    let service = CacheLayer::new(&larder.cache).cache_status("t").layer(inner);
    let get = || async {
        let response: Response<_> =
            service.clone().oneshot(request("GET", "/", &[])).await.unwrap();
        Got::read(response).await.unwrap()
    };
    get().await;
    larder.hands.advance(Duration::from_secs(10));
    let got = get().await;
    assert_eq!(got.text(), "same");
    assert!(got.told().contains("fwd-status=304; stored"), "{}", got.told());
}
