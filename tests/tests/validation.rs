//! Asking the handler whether what is stored is still good, and what its answer changes (RFC 9111 §4.3).

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request};
use larder_http::Caching;
use larder_http::rules::Policy;
use larder_tests::{Origin, Site, TestBody, answer, request};
use tokio::sync::Notify;

const ETAG: &str = "\"v1\"";
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// What the origin saw.
type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// An origin that answers 304 with these fields once it is asked on a condition, and 200 with its call's number else.
fn validating(
    fields: &'static [(&'static str, &'static str)],
    confirmed: &'static [(&'static str, &'static str)],
) -> (Origin, Seen) {
    let seen = Seen::default();
    let seeing = seen.clone();
    let origin = Origin::says(move |call, request: Request<TestBody>| {
        let asked = request.headers();
        seeing.lock().unwrap().push(asked.clone());
        let conditional =
            asked.contains_key("if-none-match") || asked.contains_key("if-modified-since");
        if conditional { answer(304, confirmed, "") } else { answer(200, fields, call.to_string()) }
    });
    (origin, seen)
}

#[tokio::test]
async fn a_stale_response_that_is_confirmed_answers_and_is_fresh_again() {
    let (origin, seen) = validating(
        &[
            ("cache-control", "max-age=10"),
            ("etag", ETAG),
            ("last-modified", MODIFIED),
            ("x-kept", "first"),
            ("x-changed", "one"),
            ("x-changed", "two"),
            ("content-encoding", "gzip"),
        ],
        &[
            ("x-changed", "three"),
            ("etag", ETAG),
            ("content-length", "77"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ],
    );
    let site = Site::new(origin);
    let encoded = [("accept-encoding", "gzip")];
    assert_eq!(site.get_with("/", &encoded).await.text(), "1");
    site.later(10);
    let got = site.get_with("/", &encoded).await;
    assert_eq!((got.status, got.text().as_str()), (200, "1"));
    assert_eq!(got.told(), "t; fwd=stale; fwd-status=304; stored; detail=expired");
    {
        let asked = seen.lock().unwrap();
        assert_eq!(asked[1]["if-none-match"], ETAG);
        assert_eq!(asked[1]["if-modified-since"], MODIFIED);
    }
    // What the 304 says replaces all lines of its name; what it does not say, and what describes the bytes, stays.
    for got in [got, site.get_with("/", &encoded).await] {
        assert_eq!(got.field("x-changed").as_deref(), Some("three"));
        assert_eq!(got.field("x-kept").as_deref(), Some("first"));
        assert_eq!(got.field("content-encoding").as_deref(), Some("gzip"));
        assert_eq!(got.field("content-length"), None);
        assert_eq!(got.field("x-hop"), None);
        assert_eq!(got.field("age").as_deref(), Some("0"));
    }
    site.later(9);
    assert!(site.get_with("/", &encoded).await.hit());
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn validators_go_out_byte_for_byte_and_the_clients_own_do_not() {
    let (origin, seen) = validating(
        &[("cache-control", "max-age=10"), ("etag", "W/\"a b,\\\""), ("vary", "x-a")],
        &[],
    );
    let site = Site::new(origin);
    site.get_with("/", &[("x-a", "1")]).await;
    site.later(10);
    let own = [("x-a", "1"), ("if-none-match", "\"mine\""), ("if-modified-since", MODIFIED)];
    let got = site.get_with("/", &own).await;
    assert_eq!((got.status, got.text().as_str()), (200, "1"), "the client's condition is not met");
    let asked = seen.lock().unwrap()[1].clone();
    assert_eq!(asked["if-none-match"], "W/\"a b,\\\"");
    assert_eq!(asked.get("if-modified-since"), None);
    assert_eq!(asked["x-a"], "1", "what Vary names goes along");
    // And one that is met is answered with 304 by what was confirmed.
    site.later(10);
    let got = site.get_with("/", &[("x-a", "1"), ("if-none-match", "\"a b,\\\"")]).await;
    assert_eq!((got.status, got.body.len()), (304, 0));
    assert_eq!(site.calls(), 3);
}

#[tokio::test]
async fn another_answer_than_304_replaces_what_was_stored() {
    let origin = Origin::says(|call, request| {
        assert_eq!(request.headers().contains_key("if-none-match"), call == 2);
        answer(200, &[("cache-control", "max-age=10"), ("etag", ETAG)], call.to_string())
    });
    let site = Site::new(origin);
    site.get("/").await;
    site.later(10);
    assert_eq!(site.get("/").await.text(), "2");
    assert_eq!(site.get("/").await.text(), "2");
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn no_cache_is_stored_and_validated_for_every_use() {
    let (origin, _) = validating(
        &[("cache-control", "no-cache, max-age=60"), ("etag", ETAG)],
        &[("cache-control", "no-cache, max-age=60")],
    );
    let site = Site::new(origin);
    for call in 1..=4 {
        let got = site.get("/").await;
        assert_eq!(got.text(), "1", "the first body, confirmed {} times", call - 1);
        assert!(!got.hit());
        assert_eq!(site.calls(), call);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_queues_for_what_must_be_validated_for_every_use() {
    let gate = Arc::new(Notify::new());
    let opening = gate.clone();
    let origin = Origin::new(move |call, _| {
        let gate = gate.clone();
        async move {
            if call > 1 {
                gate.notified().await;
            }
            let fields = [("cache-control", "no-cache"), ("etag", ETAG)];
            Ok(answer(if call > 1 { 304 } else { 200 }, &fields, if call > 1 { "" } else { "1" }))
        }
    });
    let site = Arc::new(Site::new(origin));
    site.get("/").await;
    let asking = site.asked_by(50).await;
    assert_eq!(site.calls(), 51, "all of them ask at once");
    opening.notify_waiters();
    for one in asking {
        assert_eq!(one.await.unwrap(), "1");
    }
}

#[tokio::test(start_paused = true)]
async fn one_validation_serves_all_who_wait() {
    let gate = Arc::new(Notify::new());
    let opening = gate.clone();
    let origin = Origin::new(move |call, _| {
        let gate = gate.clone();
        async move {
            if call > 1 {
                gate.notified().await;
            }
            let fields = [("cache-control", "max-age=10"), ("etag", ETAG)];
            Ok(answer(if call > 1 { 304 } else { 200 }, &fields, if call > 1 { "" } else { "1" }))
        }
    });
    let site = Arc::new(Site::new(origin));
    site.get("/").await;
    site.later(10);
    let asking = site.asked_by(50).await;
    assert_eq!(site.calls(), 2);
    opening.notify_waiters();
    for one in asking {
        assert_eq!(one.await.unwrap(), "1");
    }
    assert_eq!(site.calls(), 2);
}

// RFC 9111 §4.3.4: a 304 that names another representation by a strong validator must not update this one.
#[tokio::test]
async fn a_304_for_another_entity_tag_updates_nothing() {
    let (origin, _) = validating(
        &[("cache-control", "max-age=10"), ("etag", ETAG), ("x-of", "one")],
        &[("cache-control", "max-age=10"), ("etag", "\"v2\""), ("x-of", "two")],
    );
    let site = Site::new(origin);
    site.get("/").await;
    site.later(10);
    let got = site.get("/").await;
    assert_eq!((got.text().as_str(), got.field("x-of").as_deref()), ("1", Some("one")));
    assert!(got.because("not-modified"));
    // It is gone, so that the next request gets to the bottom of it.
    assert_eq!(site.get("/").await.text(), "3");
}

#[tokio::test]
async fn what_a_304_forbids_is_obeyed() {
    for forbidden in [
        &[("cache-control", "no-store")],
        &[("cache-control", "private")],
        &[("set-cookie", "a=b")],
    ] {
        let (origin, _) = validating(&[("cache-control", "max-age=10"), ("etag", ETAG)], forbidden);
        let site = Site::new(origin);
        site.get("/").await;
        site.later(10);
        let got = site.get("/").await;
        assert_eq!(got.text(), "1");
        assert_eq!(got.field(forbidden[0].0).as_deref(), Some(forbidden[0].1), "its client has it");
        let again = site.get("/").await;
        assert!(!again.hit() && site.calls() == 3, "{forbidden:?}: nobody else has");
    }
}

#[tokio::test]
async fn a_304_to_somebody_with_credentials_changes_nothing_for_others() {
    let mut policy = Policy::rfc9111();
    policy.credentials_may_read = true;
    let (origin, _) = validating(
        &[("cache-control", "max-age=10"), ("etag", ETAG)],
        &[("cache-control", "max-age=10"), ("x-for", "alice")],
    );
    let site = Site::with(origin, |layer| layer.policy(policy));
    site.get("/").await;
    site.later(10);
    let got = site.get_with("/", &[("cookie", "user=alice")]).await;
    assert_eq!((got.text().as_str(), got.field("x-for").as_deref()), ("1", Some("alice")));
    site.later(1);
    let got = site.get("/").await;
    assert_eq!(site.calls(), 3, "what is stored is as stale as it was");
    assert_eq!(got.text(), "1");
}

#[tokio::test]
async fn tags_outlive_a_validation_and_an_invalidation_during_one_wins() {
    let gate = Arc::new(Notify::new());
    let opening = gate.clone();
    let origin = Origin::new(move |call, request| {
        let gate = gate.clone();
        async move {
            let conditional = request.headers().contains_key("if-none-match");
            if call == 3 {
                gate.notified().await;
            }
            let fields = [("cache-control", "max-age=10"), ("etag", ETAG)];
            let body = if conditional { String::new() } else { call.to_string() };
            let mut response = answer(if conditional { 304 } else { 200 }, &fields, body);
            if call == 1 {
                response.extensions_mut().insert(Caching::new().tag("product:42"));
            }
            Ok(response)
        }
    });
    let site = Arc::new(Site::new(origin));
    site.get("/").await;
    site.later(10);
    assert_eq!(site.get("/").await.text(), "1");
    assert!(site.get("/").await.hit());
    // The tag came with the first response only.
    site.later(10);
    let validating = {
        let site = site.clone();
        tokio::spawn(async move { site.get("/").await })
    };
    larder_tests::until("the validation runs", || site.calls() == 3).await;
    site.larder.cache.invalidate_tag("product:42").await.unwrap();
    opening.notify_waiters();
    assert_eq!(validating.await.unwrap().text(), "1", "its own client asked before");
    assert_eq!(site.get("/").await.text(), "4", "what was confirmed was out of date by then");
}

#[tokio::test]
async fn a_response_is_kept_for_its_validation_as_long_as_the_policy_says() {
    let (origin, seen) = validating(&[("cache-control", "max-age=10"), ("etag", ETAG)], &[]);
    let site = Site::new(origin);
    site.get("/").await;
    site.later(10 + 3599);
    site.get("/").await;
    assert!(seen.lock().unwrap()[1].contains_key("if-none-match"));
    // Confirmed without a word about freshness: as it was stored, for ten seconds.
    site.later(10 + 3600);
    site.get("/").await;
    assert!(!seen.lock().unwrap()[2].contains_key("if-none-match"), "it is gone");
}

#[tokio::test]
async fn a_head_that_shows_another_representation_drops_what_is_stored() {
    for (shown, drops) in [
        (&[("etag", "\"v2\"")], true),
        (&[("last-modified", "Fri, 02 Jan 2026 00:00:00 GMT")], true),
        (&[("content-length", "2")], true),
        (&[("etag", ETAG)], false),
        (&[("content-length", "1")], false),
    ] {
        let origin = Origin::says(move |call, request| {
            if request.method() == "HEAD" {
                return answer(200, shown, "");
            }
            let conditional = request.headers().contains_key("if-none-match");
            let fields =
                [("cache-control", "max-age=10"), ("etag", ETAG), ("last-modified", MODIFIED)];
            let body = if conditional { String::new() } else { call.to_string() };
            answer(if conditional { 304 } else { 200 }, &fields, body)
        });
        let site = Site::new(origin);
        site.get("/").await;
        site.later(10);
        let head = site.send(request("HEAD", "/", &[])).await;
        assert_eq!((head.status, site.calls()), (200, 2));
        assert_eq!(site.get("/").await.text(), if drops { "3" } else { "1" }, "{shown:?}");
    }
}
