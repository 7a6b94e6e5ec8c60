//! A cache in the shadow of its handler: nobody is served by it, and what it would have done wrong is told.

use std::sync::{Arc, Mutex};

use larder_http::CacheLayer;
use larder_http::cache::{Difference, Differs};
use larder_tests::{Origin, Site, Step, answer, request, scripted, until};

type Told = Arc<Mutex<Vec<Difference>>>;

fn shadowed(origin: Origin, configure: impl FnOnce(CacheLayer) -> CacheLayer) -> (Site, Told) {
    let told = Told::default();
    let tells = told.clone();
    let site = Site::with(origin, |layer| {
        configure(layer).shadow(move |difference| tells.lock().unwrap().push(difference.clone()))
    });
    (site, told)
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60, stale-while-revalidate=60")];

#[tokio::test]
async fn everybody_gets_the_handlers_own_and_what_agrees_is_not_told() {
    let (site, told) = shadowed(Origin::says(|_, _| answer(200, FRESH, "same")), |layer| layer);
    for calls in 1..=5 {
        let got = site.get("/p").await;
        assert!(!got.hit() && got.field("age").is_none(), "{got:?}");
        assert_eq!(site.calls(), calls);
    }
    assert_eq!(site.larder.entries(), 1, "it is stored as in earnest");
    // Stale, within its window: as good as a hit.
    site.later(70);
    site.get("/p").await;
    for method in ["HEAD", "GET"] {
        site.send(request(method, "/p", &[("if-none-match", "*"), ("range", "bytes=0-1")])).await;
    }
    let only = site.get_with("/new", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(only.status, 200, "nobody is refused");
    assert!(told.lock().unwrap().is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_hit_that_would_have_been_wrong_is_told_where() {
    let expect = async |path: &str, what: Differs| {
        let (site, told) = shadowed(changing(), |layer| layer);
        let first = site.get(path).await;
        assert!(told.lock().unwrap().is_empty());
        let second = site.get(path).await;
        assert_ne!((first.status, first.text()), (second.status, second.text()));
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1, "{path}");
        assert_eq!((told[0].what, told[0].uri.path()), (what, path));
    };
    let (stored, handler) = (200.try_into().unwrap(), 301.try_into().unwrap());
    expect("/status", Differs::Status { stored, handler }).await;
    expect("/longer", Differs::Body { at: 10 }).await;
    expect("/shorter", Differs::Body { at: 28 }).await;
    expect("/empty", Differs::Body { at: 0 }).await;
    expect("/other", Differs::Body { at: 6 }).await;
}

/// Answers that are others with every call.
fn changing() -> Origin {
    Origin::says(|call, request| match request.uri().path() {
        "/status" => answer(if call == 1 { 200 } else { 301 }, FRESH, "x"),
        "/longer" => answer(200, FRESH, "x".repeat(9 + call)),
        "/shorter" => answer(200, FRESH, "x".repeat(30 - call)),
        "/empty" => answer(200, FRESH, if call % 2 == 1 { "full" } else { "" }),
        _ => answer(200, FRESH, format!("hello {call}")),
    })
}

#[tokio::test]
async fn those_who_come_together_each_get_their_own() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waits = gate.clone();
    let origin = Origin::new(move |call, _| {
        let waits = waits.clone();
        async move {
            let _permit = waits.acquire().await;
            Ok(answer(200, FRESH, call.to_string()))
        }
    });
    let (site, _) = shadowed(origin, |layer| layer);
    let site = Arc::new(site);
    let crowd = site.asked_by(10).await;
    until("all of them", || site.calls() == 10).await;
    gate.add_permits(10);
    let mut own = Vec::new();
    for client in crowd {
        own.push(client.await.unwrap().parse::<usize>().unwrap());
    }
    own.sort_unstable();
    assert_eq!(own, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failing_handler_fails_and_nothing_stands_in() {
    let fields: &[(&str, &str)] =
        &[("cache-control", "max-age=60, stale-if-error=600"), ("etag", "\"1\"")];
    let origin = Origin::says(move |call, request| {
        assert!(!request.headers().contains_key("if-none-match"), "nobody asked on a condition");
        answer(if call == 1 { 200 } else { 500 }, fields, "x")
    });
    let (site, told) = shadowed(origin, |layer| layer);
    site.get("/p").await;
    site.later(70);
    assert_eq!(site.get("/p").await.status, 500);
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_are_compared_as_they_stream() {
    let origin = Origin::new(|call, _| async move {
        let (steps, body) = scripted();
        tokio::spawn(async move {
            for part in ["one ", "two ", if call == 1 { "three" } else { "four" }] {
                steps.send(Step::Data(part.into())).unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut response = larder_tests::response("max-age=60", "");
        *response.body_mut() = body;
        Ok(response)
    });
    let (site, told) = shadowed(origin, |layer| layer);
    assert_eq!(site.get("/p").await.text(), "one two three");
    until("the fill's end", || site.larder.flights() == 0).await;
    assert_eq!(site.get("/p").await.text(), "one two four");
    let told = told.lock().unwrap();
    assert_eq!(told[0].to_string(), "GET /p: the bodies differ from byte 8 on");
}
