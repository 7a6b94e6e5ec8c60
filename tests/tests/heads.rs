//! What the handler's response to HEAD makes of what is stored for GET (RFC 9111 §4.3.5).

use std::sync::Arc;

use http::Response;
use larder_http::rules::Policy;
use larder_http::{Caching, SessionMark};
use larder_tests::{Origin, Site, TestBody, answer, append, request, until};
use tokio::sync::Notify;

const STORED: &[(&str, &str)] =
    &[("cache-control", "max-age=10"), ("etag", "\"v1\""), ("x-price", "7"), ("vary", "accept")];

/// GET gives what is stored; asked whether it is good, 304. HEAD gives this.
fn origin(head: impl Fn() -> Response<TestBody> + Send + Sync + 'static) -> Origin {
    Origin::says(move |call, request| match request.method().as_str() {
        "HEAD" => head(),
        "POST" => answer(204, &[], ""),
        _ if request.headers().contains_key("if-none-match") => answer(304, STORED, ""),
        _ => answer(200, STORED, call.to_string()),
    })
}

fn agreeing(fields: &[(&str, &str)]) -> Response<TestBody> {
    let mut response = answer(200, &[("etag", "\"v1\""), ("x-price", "8")], "");
    append(response.headers_mut(), fields);
    response
}

#[tokio::test]
async fn one_that_agrees_brings_what_is_stored_up_to_date() {
    let policies = [Policy::application(), Policy::rfc9111()];
    for (policy, length) in policies.into_iter().zip([&[][..], &[("content-length", "1")][..]]) {
        let site = Site::with(origin(move || agreeing(length)), |layer| layer.policy(policy));
        assert_eq!(site.get("/").await.text(), "1");
        site.later(11);
        let head = site.send(request("HEAD", "/", &[])).await;
        assert_eq!((head.status, site.calls()), (200, 2));
        // Fresh again, with the new fields and the same bytes.
        for waits in [0, 9] {
            site.later(waits);
            let got = site.get("/").await;
            assert!(got.hit(), "{}", got.told());
            assert_eq!(got.field("x-price").unwrap(), "8");
            assert_eq!(got.field("age").unwrap(), waits.to_string());
            assert_eq!(got.text(), "1");
        }
        assert_eq!(site.calls(), 2);
        // HEAD is answered from it, too.
        assert!(site.send(request("HEAD", "/", &[])).await.hit());
        site.later(1);
        assert!(!site.get("/").await.hit());
    }
}

#[tokio::test]
async fn its_own_freshness_counts_and_its_age() {
    let site = Site::new(origin(|| agreeing(&[("cache-control", "max-age=100"), ("age", "40")])));
    site.get("/").await;
    site.later(11);
    site.send(request("HEAD", "/", &[])).await;
    let got = site.get("/").await;
    assert_eq!((got.field("age").as_deref(), got.hit()), (Some("40"), true));
    assert_eq!(got.field("cache-control").unwrap(), "max-age=100");
    site.later(59);
    assert!(site.get("/").await.hit());
    site.later(1);
    assert!(!site.get("/").await.hit());
}

#[tokio::test]
async fn one_that_says_too_little_or_is_no_success_changes_nothing() {
    let said: &[(u16, &[(&str, &str)])] = &[
        (200, &[]),
        (200, &[("content-length", "1")]),
        (200, &[("last-modified", "Fri, 02 Jan 2026 00:00:00 GMT")]),
        (204, &[("etag", "\"v1\"")]),
        (206, &[("etag", "\"v1\"")]),
        (304, &[("etag", "\"v1\"")]),
        (404, &[("etag", "\"v1\"")]),
        (500, &[("etag", "\"v1\"")]),
    ];
    for &(status, fields) in said {
        let site = Site::new(origin(move || answer(status, fields, "")));
        site.get("/").await;
        site.later(11);
        site.send(request("HEAD", "/", &[])).await;
        let got = site.get("/").await;
        assert!(got.told().contains("fwd-status=304"), "{status} {fields:?}: {}", got.told());
        assert_eq!((got.text(), site.calls()), ("1".to_owned(), 3));
    }
}

/// What would keep a 304 from being stored keeps a response to HEAD from it.
#[tokio::test]
async fn one_that_must_not_be_stored_changes_nothing() {
    type Head = fn() -> Response<TestBody>;
    let unfit: &[(&str, Head)] = &[
        ("set-cookie", || agreeing(&[("set-cookie", "a=b")])),
        ("private", || agreeing(&[("cache-control", "private, max-age=100")])),
        ("no-store", || agreeing(&[("cache-control", "no-store")])),
        ("vary", || agreeing(&[("vary", "*")])),
        ("tag", || {
            let mut response = agreeing(&[]);
            response.extensions_mut().insert(Caching::new().tag("x".repeat(300)));
            response
        }),
        ("declined", || {
            let mut response = agreeing(&[]);
            response.extensions_mut().insert(Caching::never());
            response
        }),
        ("session", || {
            let mut response = agreeing(&[]);
            let mark = SessionMark::new();
            mark.touch();
            response.extensions_mut().insert(mark);
            response
        }),
    ];
    for (what, head) in unfit {
        let site = Site::new(origin(head));
        site.get("/").await;
        site.later(11);
        assert_eq!(site.send(request("HEAD", "/", &[])).await.status, 200);
        let got = site.get("/").await;
        assert!(got.told().contains("fwd-status=304"), "{what}: {}", got.told());
        assert!(!got.headers.contains_key("set-cookie"));
    }
    // Nor one to somebody's own request.
    for (name, value) in [("authorization", "Bearer t"), ("cookie", "id=1")] {
        let site = Site::new(origin(|| agreeing(&[])));
        site.get("/").await;
        site.later(11);
        site.send(request("HEAD", "/", &[(name, value)])).await;
        assert!(!site.get("/").await.hit(), "{name}");
    }
}

#[tokio::test]
async fn only_the_variant_that_was_asked_for_is_brought_up_to_date() {
    let site = Site::new(origin(|| agreeing(&[("vary", "accept")])));
    for accept in ["a", "b"] {
        site.get_with("/", &[("accept", accept)]).await;
    }
    site.later(11);
    site.send(request("HEAD", "/", &[("accept", "a")])).await;
    let got = site.get_with("/", &[("accept", "a")]).await;
    assert_eq!((got.hit(), got.text()), (true, "1".to_owned()));
    let got = site.get_with("/", &[("accept", "b")]).await;
    assert_eq!((got.hit(), got.text()), (false, "2".to_owned()));
    assert_eq!(got.field("x-price").unwrap(), "7");
}

/// The tags of what is stored stay, and those that the response names come to them.
#[tokio::test]
async fn tags_stay_and_come_to_what_is_brought_up_to_date() {
    for tag in ["stored", "new", "route"] {
        let origin = Origin::says(|call, request| {
            let get = request.method() == "GET";
            let mut response =
                if get { answer(200, STORED, call.to_string()) } else { agreeing(&[]) };
            let own = Caching::new().tag(if get { "stored" } else { "new" });
            response.extensions_mut().insert(own);
            response
        });
        let site = Site::with(origin, |layer| layer.tag("route"));
        site.get("/").await;
        site.later(11);
        site.send(request("HEAD", "/", &[])).await;
        assert!(site.get("/").await.hit());
        site.larder.cache.invalidate_tag(tag).await.unwrap();
        assert_eq!(site.get("/").await.text(), "3", "{tag}");
    }
}

#[tokio::test]
async fn what_was_invalidated_meanwhile_stays_so() {
    for how in ["post", "tag", "new tag", "purge", "clear"] {
        let gate = Arc::new(Notify::new());
        let waits = gate.clone();
        let origin = Origin::new(move |call, request| {
            let waits = waits.clone();
            async move {
                Ok(match request.method().as_str() {
                    "HEAD" => {
                        waits.notified().await;
                        let mut response = agreeing(&[("cache-control", "max-age=100")]);
                        response.extensions_mut().insert(Caching::new().tag("new"));
                        response
                    }
                    "POST" => answer(204, &[], ""),
                    _ => answer(200, STORED, call.to_string()),
                })
            }
        });
        let site = Arc::new(Site::with(origin, |layer| layer.tag("route")));
        site.get("/").await;
        site.later(11);
        let asking = {
            let site = site.clone();
            tokio::spawn(async move { site.send(request("HEAD", "/", &[])).await.status })
        };
        until("the handler is asked", || site.calls() == 2).await;
        match how {
            "post" => drop(site.send(request("POST", "/", &[])).await),
            "tag" => site.larder.cache.invalidate_tag("route").await.unwrap(),
            "new tag" => site.larder.cache.invalidate_tag("new").await.unwrap(),
            "purge" => {
                let url = "http://site.example/".parse().unwrap();
                assert_eq!(site.purger().remove(&url).await.unwrap(), 1);
            }
            _ => site.larder.cache.clear().await.unwrap(),
        }
        gate.notify_one();
        assert_eq!(asking.await.unwrap(), 200);
        let got = site.get("/").await;
        assert!(!got.hit() && got.text() != "1", "{how}: {}", got.told());
    }
}
