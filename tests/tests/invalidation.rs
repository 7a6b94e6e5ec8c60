//! What is invalidated is not read again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_http::Caching;
use larder_tests::server::Server;
use larder_tests::{Got, Larder, Origin, Site, answer, get, request, response, until};
use proptest::prelude::*;
use tokio::sync::Notify;

/// Reads are numbered; the answers to everything else are as the request asks.
fn shop() -> Origin {
    Origin::says(|call, request| {
        if matches!(request.method().as_str(), "GET" | "HEAD" | "QUERY" | "OPTIONS") {
            return answer(
                200,
                &[("cache-control", "max-age=600"), ("vary", "x-a")],
                call.to_string(),
            );
        }
        let asked =
            |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let status = asked("x-status").map_or(200, |status| status.parse().unwrap());
        let (location, content_location) = (asked("x-location"), asked("x-content-location"));
        let fields: Vec<_> = [("location", &location), ("content-location", &content_location)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect();
        answer(status, &fields, "done")
    })
}

async fn fill(site: &Site, targets: &[&str]) {
    for target in targets {
        for variant in ["1", "2"] {
            site.get_with(target, &[("x-a", variant)]).await;
            assert!(site.get_with(target, &[("x-a", variant)]).await.hit(), "{target}");
        }
    }
}

async fn gone(site: &Site, target: &str) -> bool {
    let mut hits = Vec::new();
    for variant in ["1", "2"] {
        hits.push(site.get_with(target, &[("x-a", variant)]).await.hit());
    }
    assert_eq!(hits[0], hits[1], "{target}: all variants or none");
    !hits[0]
}

#[tokio::test]
async fn c76_unsafe_methods_invalidate_every_variant_of_their_target() {
    let site = Site::new(shop());
    for method in ["POST", "PUT", "PATCH", "DELETE", "MKCOL", "BREW", "post"] {
        for status in [200, 201, 202, 204, 299, 301, 303, 307] {
            fill(&site, &["/p", "/p?q=1", "/other"]).await;
            let status = status.to_string();
            site.send(request(method, "/p?q=1", &[("x-status", &status)])).await;
            assert!(gone(&site, "/p?q=1").await, "{method} {status}");
            assert!(!gone(&site, "/p").await, "another query is another URI");
            assert!(!gone(&site, "/other").await);
            // Another site's is another's.
            site.send(request(method, "http://b.example/p", &[("x-status", &status)])).await;
            assert!(!gone(&site, "/p").await);
        }
    }
}

#[tokio::test]
async fn c76_errors_and_safe_methods_invalidate_nothing() {
    let site = Site::new(shop());
    fill(&site, &["/p", "/q"]).await;
    for method in ["POST", "PUT", "DELETE", "BREW"] {
        for status in ["400", "401", "404", "409", "412", "500", "503", "600"] {
            let fields = [("x-status", status), ("x-location", "/q"), ("x-content-location", "/q")];
            site.send(request(method, "/p", &fields)).await;
        }
    }
    for method in ["HEAD", "OPTIONS", "QUERY", "TRACE", "GET"] {
        let fields = [("x-location", "/q"), ("x-content-location", "/q"), ("x-status", "200")];
        site.send(request(method, "/p", &fields)).await;
        site.send(request(method, "/p", &fields).map(|_| larder_tests::full("content"))).await;
    }
    assert!(!gone(&site, "/p").await && !gone(&site, "/q").await);
}

#[tokio::test]
async fn c76_what_could_not_be_stored_before_is_filled_after_an_unsafe_method() {
    let made = Arc::new(AtomicBool::new(false));
    let origin = Origin::says({
        let made = made.clone();
        move |call, request| {
            if request.method() != "GET" {
                made.store(true, Ordering::Relaxed);
                return answer(201, &[], "made");
            }
            match made.load(Ordering::Relaxed) {
                true => response("max-age=600", call.to_string()),
                false => answer(404, &[], "not yet"),
            }
        }
    });
    let site = Site::new(origin);
    for target in ["/p", "/p/other"] {
        site.get(target).await;
        assert!(
            site.get(target).await.because("pass-mark"),
            "nobody queues for what is not stored"
        );
    }
    site.send(request("PUT", "/p", &[])).await;
    assert!(site.get("/p").await.told().contains("stored"), "the mark went with the old state");
    assert!(site.get("/p").await.hit());
    assert!(site.get("/p/other").await.because("pass-mark"), "another URL's mark stays");
}

#[tokio::test]
async fn p27_no_method_or_header_purges() {
    let site = Site::new(Origin::says(|call, request| match request.method().as_str() {
        "GET" => answer(200, &[("cache-control", "max-age=600")], call.to_string()),
        _ => answer(405, &[], ""),
    }));
    site.get("/p").await;
    for method in ["PURGE", "BAN", "REFRESH", "INVALIDATE", "DELETE"] {
        site.send(request(method, "/p", &[])).await;
    }
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("pragma", "no-cache"),
        ("x-purge", "1"),
        ("surrogate-key", "p"),
        ("cache-group-invalidation", "\"p\""),
    ] {
        assert!(site.get_with("/p", &[(name, value)]).await.hit(), "{name}");
    }
}

#[tokio::test]
async fn c76_locations_of_the_same_origin_are_invalidated_and_no_others() {
    let site = Site::new(shop());
    let same = [
        "/q",
        "q",
        "./q",
        "../q",
        "/a/../q",
        "//site.example/q",
        "http://site.example/q",
        "HTTP://SITE.EXAMPLE:80/q",
        "/q#part",
        "http://site.example:/q",
    ];
    let other = [
        "//b.example/q",
        "http://b.example/q",
        "https://site.example/q",
        "http://site.example:81/q",
        "/q?x",
        "/Q",
        "/q/",
        "mailto:q",
        "http://site.example@b.example/q",
        "http://b.example/http://site.example/q",
        "/q ",
    ];
    for name in ["x-location", "x-content-location"] {
        for status in ["201", "303"] {
            for location in same {
                fill(&site, &["/q"]).await;
                site.send(request("POST", "/p", &[(name, location), ("x-status", status)])).await;
                assert!(gone(&site, "/q").await, "{name}: {location}");
            }
            for location in other.iter().filter(|location| !location.ends_with(' ')) {
                fill(&site, &["/q"]).await;
                site.send(request("POST", "/p", &[(name, location), ("x-status", status)])).await;
                assert!(!gone(&site, "/q").await, "{name}: {location}");
            }
        }
    }
}

#[tokio::test]
async fn c76_every_form_of_the_target_invalidates_the_same_entry() {
    let site = Site::new(shop());
    let server = Server::start(site.service()).await;
    let mut http1 = server.http1().await;
    for (get, post) in [
        ("/", "http://site.example"),
        ("/", "http://site.example/"),
        ("/?a", "http://site.example?a"),
        ("/?", "http://site.example/?"),
        ("/p", "http://SITE.example:80/p"),
    ] {
        fill(&site, &[get]).await;
        http1
            .write(format!(
                "POST {post} HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        assert_eq!(http1.response().await.status, 200);
        assert!(gone(&site, get).await, "POST {post}");
    }
}

/// A handler whose n-th call of a path waits until it is let go.
struct Gate {
    entered: Arc<AtomicUsize>,
    open: Arc<Notify>,
}

fn gated(tag: Option<&'static str>) -> (Gate, Origin, Arc<Mutex<u64>>) {
    let gate = Gate { entered: Arc::default(), open: Arc::default() };
    let data = Arc::new(Mutex::new(0_u64));
    let (entered, open, shown) = (gate.entered.clone(), gate.open.clone(), data.clone());
    let origin = Origin::new(move |_, request| {
        let (entered, open, shown) = (entered.clone(), open.clone(), shown.clone());
        async move {
            if request.method() != "GET" {
                *shown.lock().unwrap() += 1;
                return Ok(answer(200, &[], ""));
            }
            let read = *shown.lock().unwrap();
            entered.fetch_add(1, Ordering::SeqCst);
            open.notified().await;
            let mut response = response("max-age=600", read.to_string());
            if let Some(tag) = tag {
                response.extensions_mut().insert(Caching::new().tag(tag));
            }
            Ok(response)
        }
    });
    (gate, origin, data)
}

/// How something is made known to have changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Unsafe,
    RouteTag,
    HandlerTag,
    Clear,
}

async fn change(how: How, site: &Site, data: &Mutex<u64>) {
    match how {
        How::Unsafe => drop(site.send(request("POST", "/p", &[])).await),
        _ => {
            *data.lock().unwrap() += 1;
            match how {
                How::RouteTag => site.larder.cache.invalidate_tag("route").await.unwrap(),
                How::HandlerTag => site.larder.cache.invalidate_tag("handler").await.unwrap(),
                _ => site.larder.cache.clear().await.unwrap(),
            }
        }
    }
}

#[tokio::test]
async fn d01_what_was_read_before_an_invalidation_is_not_given_after_it() {
    for how in [How::Unsafe, How::RouteTag, How::HandlerTag, How::Clear] {
        let (gate, origin, data) = gated(Some("handler"));
        let site = Arc::new(Site::with(origin, |layer| layer.tag("route")));
        let ask = |site: &Arc<Site>| {
            let site = site.clone();
            tokio::spawn(async move { site.get("/p").await })
        };
        // One is reading, one waits for it.
        let leader = ask(&site);
        until("the first fill runs", || gate.entered.load(Ordering::SeqCst) == 1).await;
        let early = ask(&site);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        change(how, &site, &data).await;
        // Who asks after that must see the change, though the fill is still running.
        let late = ask(&site);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        // All reading calls go on until everybody has an answer.
        let (gate_open, finish) = (gate.open.clone(), Arc::new(Notify::new()));
        let done = finish.clone();
        let opener = tokio::spawn(async move {
            loop {
                gate_open.notify_waiters();
                tokio::select! {
                    () = tokio::task::yield_now() => {}
                    () = done.notified() => return,
                }
            }
        });
        assert_eq!(leader.await.unwrap().text(), "0", "{how:?}");
        assert_eq!(late.await.unwrap().text(), "1", "{how:?}: an answer from before the change");
        early.await.unwrap();
        assert_eq!(site.get("/p").await.text(), "1", "{how:?}");
        finish.notify_one();
        opener.await.unwrap();
        assert_eq!(site.larder.flights(), 0);
    }
}

/// One step of a random interleaving.
#[derive(Clone, Copy, Debug)]
enum Move {
    Ask,
    Open,
    Change(How),
    Turns(u8),
    Later,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let how = prop::sample::select(vec![How::Unsafe, How::RouteTag, How::HandlerTag, How::Clear]);
    let one = prop_oneof![
        3 => Just(Move::Ask),
        3 => Just(Move::Open),
        2 => how.prop_map(Move::Change),
        3 => (0_u8..12).prop_map(Move::Turns),
        1 => Just(Move::Later),
    ];
    prop::collection::vec(one, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    // I5 on one node: no answer is older than the last change that was confirmed before its request came.
    #[test]
    fn d01_no_interleaving_brings_an_old_answer_back(moves in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (gate, origin, data) = gated(Some("handler"));
            let site = Arc::new(Site::with(origin, |layer| layer.tag("route")));
            let mut asked = Vec::new();
            for one in moves {
                match one {
                    Move::Ask => {
                        let (site, known) = (site.clone(), *data.lock().unwrap());
                        let task = tokio::spawn(async move { site.get("/p").await });
                        asked.push((known, task));
                    }
                    Move::Open => gate.open.notify_one(),
                    Move::Change(how) => change(how, &site, &data).await,
                    Move::Turns(turns) => {
                        for _ in 0..turns {
                            tokio::task::yield_now().await;
                        }
                    }
                    Move::Later => site.later(400),
                }
            }
            for (known, task) in asked {
                while !task.is_finished() {
                    gate.open.notify_waiters();
                    tokio::task::yield_now().await;
                }
                let got = task.await.unwrap();
                let read: u64 = got.text().parse().unwrap();
                prop_assert!(read >= known, "{read} was given to one who knew of {known}: {}", got.told());
            }
            prop_assert_eq!(site.larder.flights(), 0);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_take_its_invalidation_along() {
    // The handler has answered; whoever drops the future now, the removal goes on or was never begun by anybody.
    for polls in 0..6 {
        let site = Site::new(shop());
        fill(&site, &["/p"]).await;
        let calls = site.calls();
        let _ = larder_testkit::cancel::drop_after(polls, site.head_of(request("POST", "/p", &[])))
            .await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if site.calls() > calls {
            assert!(gone(&site, "/p").await, "dropped after {polls} polls");
        }
    }
}

#[tokio::test]
async fn tags_and_ttl_of_the_route_and_the_handler_go_together() {
    let site = Site::with(
        Origin::says(|call, request| {
            let mut response = response("", call.to_string());
            let path = request.uri().path().trim_start_matches('/').to_owned();
            response.extensions_mut().insert(Caching::new().tags([format!("product:{path}")]));
            response
        }),
        |layer| layer.ttl(Duration::from_secs(60)).tag("products"),
    );
    for path in ["/1", "/2"] {
        site.get(path).await;
    }
    site.larder.cache.invalidate_tag("product:1").await.unwrap();
    assert!(!site.get("/1").await.hit());
    assert!(site.get("/2").await.hit());
    site.larder.cache.invalidate_tag("products").await.unwrap();
    assert!(!site.get("/1").await.hit());
    assert!(!site.get("/2").await.hit());
    let _: Got = site.send(get("/1")).await;
}

/// Answers from rows in the same cache, a tag for each.
fn rows(cache: larder_cache::Cache) -> Origin {
    Origin::new(move |_, request| {
        let cache = cache.clone();
        async move {
            let mut body = String::new();
            for id in request.uri().path().trim_matches('/').split('-') {
                let options = larder_cache::Options::new().tag(format!("row:{id}"));
                let load = || async { Ok::<_, std::io::Error>("row ".to_owned()) };
                body += &cache.get_or_compute(format!("row:{id}"), options, load).await.unwrap();
            }
            Ok(response("max-age=600", body))
        }
    })
}

#[tokio::test]
async fn rows_that_a_handler_reads_drop_the_responses_that_show_them() {
    let store = Larder::new();
    let cache = store.cache.clone();
    let site = Site::over(store, rows(cache.clone()), |layer| layer);
    for target in ["/1-2", "/2-3", "/3-4"] {
        site.get(target).await;
        assert!(site.get(target).await.hit(), "{target}");
    }
    cache.invalidate_tag("row:2").await.unwrap();
    assert!(!site.get("/1-2").await.hit());
    assert!(!site.get("/2-3").await.hit());
    assert!(site.get("/3-4").await.hit(), "it shows no such row");
    assert!(site.get("/1-2").await.hit(), "and it is stored anew");

    // More than an entry may carry: said, and not left to be wondered about.
    let many: Vec<String> = (0..513).map(|id| id.to_string()).collect();
    let target = format!("/{}", many.join("-"));
    assert!(site.get(&target).await.because("too-many-tags"));
    assert!(site.get(&format!("/{}", many[1..].join("-"))).await.told().contains("stored"));
}

#[tokio::test]
async fn tags_come_from_fields_that_the_layer_was_told_of() {
    let origin = Origin::says(|call, request| {
        let tags = if request.uri().path() == "/long" { "x".repeat(300) } else { "a,b  c".into() };
        let fields =
            [("cache-control", "max-age=60"), ("surrogate-key", &*tags), ("cache-tag", "d")];
        answer(200, &fields, call.to_string())
    });
    let site =
        Site::with(origin, |layer| layer.tags_from(http::HeaderName::from_static("surrogate-key")));
    let first = site.get("/").await;
    assert_eq!(first.field("surrogate-key").as_deref(), Some("a,b  c"), "the client has it");
    for tag in ["a", "b", "c"] {
        assert!(site.get("/").await.hit());
        site.larder.cache.invalidate_tag(tag).await.unwrap();
        assert!(!site.get("/").await.hit(), "{tag}");
    }
    site.larder.cache.invalidate_tag("d").await.unwrap();
    assert!(site.get("/").await.hit(), "nobody named that field");
    assert!(site.get("/long").await.because("invalid-tag"));
}

// RFC 9875.
#[tokio::test]
async fn cache_groups_fall_together_within_their_origin() {
    let origin = Origin::says(|call, request| {
        let fields = [("cache-control", "max-age=60"), ("cache-groups", r#""prices", "shop";x"#)];
        match (request.method().as_str(), request.uri().path()) {
            ("GET", _) => answer(200, &fields, call.to_string()),
            (_, "/fails") => answer(500, &[("cache-group-invalidation", r#""prices""#)], ""),
            (_, "/malformed") => answer(200, &[("cache-group-invalidation", "\"prices")], ""),
            (_, "/other") => answer(200, &[("cache-group-invalidation", r#""others", 7"#)], ""),
            _ => answer(200, &[("cache-group-invalidation", r#""shop""#)], ""),
        }
    });
    let site = Site::new(origin);
    let elsewhere = "http://elsewhere.example/a";
    for target in ["/a", "/b", elsewhere] {
        site.get(target).await;
    }
    for target in ["/fails", "/malformed", "/other"] {
        site.send(request("POST", target, &[])).await;
        assert!(site.get("/a").await.hit(), "{target}");
    }
    site.send(request("POST", "/change", &[])).await;
    assert!(!site.get("/a").await.hit());
    assert!(!site.get("/b").await.hit());
    assert!(site.get(elsewhere).await.hit(), "another origin's group of that name");
}
