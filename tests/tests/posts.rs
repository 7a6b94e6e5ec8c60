//! Answers to POST that a proxy stores for GET (RFC 9110 §9.3.3).

use std::sync::Arc;

use larder_http::rules::Policy;
use larder_tests::{Origin, Site, answer, request, until};
use tokio::sync::Notify;

const OWN: [(&str, &str); 2] = [("cache-control", "max-age=60"), ("content-location", "/p?q=1")];

fn site(fields: &'static [(&'static str, &'static str)]) -> Site {
    let origin = Origin::says(move |call, request| {
        let plain = [("cache-control", "max-age=60")];
        let fields = if request.method() == "POST" { fields } else { &plain };
        answer(200, fields, format!("{} {call}", request.method()))
    });
    Site::with(origin, |layer| layer.policy(Policy::rfc9111()))
}

#[tokio::test]
async fn an_answer_that_is_what_a_get_would_give_is_stored_for_it() {
    let site = site(&OWN);
    assert_eq!(site.get("/p?q=1").await.text(), "GET 1");
    let got = site.send(request("POST", "/p?q=1", &[])).await;
    assert_eq!(got.text(), "POST 2");
    assert_eq!(got.told(), "t; fwd=method; fwd-status=200; stored; detail=unsafe-method");
    let got = site.get("/p?q=1").await;
    assert_eq!((got.text().as_str(), got.hit()), ("POST 2", true));
    assert_eq!(
        site.send(request("POST", "/p?q=1", &[])).await.text(),
        "POST 3",
        "no POST is answered by it"
    );
    assert_eq!(site.get("/p?q=1").await.text(), "POST 3");
}

#[tokio::test]
async fn any_other_answer_only_invalidates() {
    for fields in [
        &[("cache-control", "max-age=60")][..],
        &[("cache-control", "max-age=60"), ("content-location", "/p")],
        &[("cache-control", "max-age=60"), ("content-location", "http://other.example/p?q=1")],
        &[("content-location", "/p?q=1")],
        &[("content-location", "/p?q=1"), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")],
        &[("cache-control", "no-store, max-age=60"), ("content-location", "/p?q=1")],
        &[("cache-control", "private, max-age=60"), ("content-location", "/p?q=1")],
    ] {
        let site = site(fields);
        site.get("/p?q=1").await;
        assert_eq!(site.send(request("POST", "/p?q=1", &[])).await.text(), "POST 2");
        assert_eq!(site.get("/p?q=1").await.text(), "GET 3", "{fields:?}");
    }
}

#[tokio::test]
async fn inside_an_application_none_is_stored() {
    let origin = Origin::says(|call, _| answer(200, &OWN, call.to_string()));
    let site = Site::new(origin);
    site.send(request("POST", "/p?q=1", &[])).await;
    assert_eq!(site.get("/p?q=1").await.text(), "2");
}

// Whichever of two changes ends last has invalidated what the other one stored, or kept it from storing.
#[tokio::test]
async fn an_answer_that_was_overtaken_by_another_change_is_not_stored() {
    for (method, status) in [("POST", 200), ("PUT", 200), ("DELETE", 204)] {
        let gate = Arc::new(Notify::new());
        let opening = gate.clone();
        let origin = Origin::new(move |call, request| {
            let gate = gate.clone();
            async move {
                if call == 1 {
                    gate.notified().await;
                }
                let status = if call == 2 { status } else { 200 };
                let body = if status == 204 { String::new() } else { call.to_string() };
                let fields: &[_] = if request.method() == "GET" { &OWN[..1] } else { &OWN };
                Ok(answer(status, fields, body))
            }
        });
        let site = Arc::new(Site::with(origin, |layer| layer.policy(Policy::rfc9111())));
        let slow = site.clone();
        let slow = tokio::spawn(async move { slow.send(request("POST", "/p?q=1", &[])).await });
        until("the first change runs", || site.calls() == 1).await;
        site.send(request(method, "/p?q=1", &[])).await;
        opening.notify_one();
        assert_eq!(slow.await.unwrap().text(), "1");
        assert_eq!(site.get("/p?q=1").await.text(), "3", "{method}");
    }
}

#[tokio::test]
async fn a_slow_post_delays_no_get() {
    let gate = Arc::new(Notify::new());
    let opening = gate.clone();
    let origin = Origin::new(move |call, request| {
        let gate = gate.clone();
        async move {
            if request.method() == "POST" {
                gate.notified().await;
            }
            Ok(answer(200, &OWN, call.to_string()))
        }
    });
    let site = Arc::new(Site::with(origin, |layer| layer.policy(Policy::rfc9111())));
    let slow = site.clone();
    let slow = tokio::spawn(async move { slow.send(request("POST", "/p?q=1", &[])).await });
    until("it runs", || site.calls() == 1).await;
    assert_eq!(site.get("/p?q=1").await.text(), "2");
    assert!(site.get("/p?q=1").await.hit());
    opening.notify_one();
    slow.await.unwrap();
    assert_eq!(site.get("/p?q=1").await.text(), "1");
}
