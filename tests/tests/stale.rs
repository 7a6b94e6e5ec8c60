//! Stale responses: refreshed behind the client's back, and in place of a handler that fails (RFC 5861, RFC 9111 §4.2.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_http::rules::Policy;
use larder_tests::{Failure, Origin, Site, answer, get, request, response, until};
use tokio::sync::Notify;
use tokio::task::yield_now;

#[tokio::test]
async fn stale_while_revalidate_answers_at_once_and_asks_once() {
    let gate = Arc::new(Notify::new());
    let opening = gate.clone();
    let origin = Origin::new(move |call, _| {
        let gate = gate.clone();
        async move {
            if call > 1 {
                gate.notified().await;
            }
            Ok(response("max-age=10, stale-while-revalidate=10", call.to_string()))
        }
    });
    let site = Site::new(origin);
    site.get("/").await;
    site.later(10);
    // The handler is stuck, and nobody notices.
    for _ in 0..20 {
        let got = site.get("/").await;
        assert_eq!(got.text(), "1");
        assert_eq!(got.told(), "t; hit; ttl=0");
    }
    until("the refresh runs", || site.calls() == 2).await;
    opening.notify_waiters();
    until("it is stored", || site.larder.flights() == 0).await;
    assert_eq!(site.get("/").await.text(), "2");
    assert_eq!(site.calls(), 2, "one refresh for twenty requests");
    // Behind the window the handler is waited for.
    site.later(20);
    opening.notify_one();
    assert_eq!(site.get("/").await.text(), "3");
}

#[tokio::test]
async fn a_refresh_validates_too_and_goes_on_when_the_client_has_left() {
    let origin = Origin::says(|call, request| {
        let known = request.headers().contains_key("if-none-match");
        assert_eq!(known, call > 1);
        let fields =
            [("cache-control", "max-age=10, stale-while-revalidate=10"), ("etag", "\"v\"")];
        answer(if known { 304 } else { 200 }, &fields, if known { "" } else { "one" })
    });
    let site = Site::new(origin);
    site.get("/").await;
    site.later(15);
    drop(site.head_of(get("/")).await);
    until("it is refreshed", || site.calls() == 2 && site.larder.flights() == 0).await;
    let got = site.get("/").await;
    assert_eq!((got.text().as_str(), got.told().as_str()), ("one", "t; hit; ttl=10"));
}

#[tokio::test]
async fn a_refresh_that_fails_is_tried_again_after_a_second() {
    for status in [None, Some(503)] {
        let origin = Origin::new(move |call, _| async move {
            match status {
                _ if call == 1 => Ok(response("max-age=10, stale-while-revalidate=60", "1")),
                Some(status) => Ok(answer(status, &[], "down")),
                None => Err(Failure::from("no connection")),
            }
        });
        let site = Site::new(origin);
        site.get("/").await;
        site.later(10);
        for calls in 2..5 {
            for _ in 0..10 {
                assert_eq!(site.get("/").await.text(), "1");
                until("the refresh has failed", || site.larder.flights() == 0).await;
            }
            assert_eq!(site.calls(), calls, "{status:?}");
            site.later(1);
        }
    }
}

#[tokio::test]
async fn a_range_or_a_head_of_something_stale_refreshes_all_of_it_or_nothing() {
    let origin = Origin::says(|call, request| {
        assert!(call == 1 || !request.headers().contains_key("range"));
        assert_eq!(request.method(), "GET");
        response("max-age=10, stale-while-revalidate=1000", format!("body {call}"))
    });
    let site = Site::new(origin);
    site.get("/").await;
    site.later(10);
    let head = site.send(request("HEAD", "/", &[])).await;
    assert!(head.hit());
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(site.calls(), 1, "a HEAD refreshes nothing");
    let part = site.get_with("/", &[("range", "bytes=0-3")]).await;
    assert_eq!((part.status, part.text().as_str()), (206, "body"));
    until("it is refreshed", || site.calls() == 2 && site.larder.flights() == 0).await;
    assert_eq!(site.get("/").await.text(), "body 2");
}

/// An origin that can be broken, and how it breaks.
fn breakable(how: &'static str, cache_control: &'static str) -> (Site, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let breaking = broken.clone();
    let origin = Origin::new(move |call, _| {
        let broken = breaking.load(Ordering::SeqCst);
        async move {
            match how {
                _ if !broken => Ok(response(cache_control, call.to_string())),
                "error" => Err(Failure::from("no connection")),
                "503" => Ok(answer(503, &[("x-of", "the failure")], "down")),
                "panic" => panic!("the handler panicked, as it was told to"),
                _ => std::future::pending().await,
            }
        }
    });
    let site = Site::with(origin, |layer| layer.fill_deadline(Duration::from_secs(5)));
    (site, broken)
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_stands_in_for_every_kind_of_failure() {
    for how in ["error", "503", "panic", "silence"] {
        let (site, broken) = breakable(how, "max-age=10, stale-if-error=60");
        site.get("/").await;
        site.later(10);
        broken.store(true, Ordering::SeqCst);
        let got = site.get("/").await;
        assert_eq!((got.status, got.text().as_str()), (200, "1"), "{how}");
        assert!(got.because("stale-if-error"), "{how}: {}", got.told());
        assert_eq!(got.field("age").as_deref(), Some("10"));
        // A handler that has just failed is left alone for a second, and then asked again.
        for _ in 0..10 {
            assert!(site.get("/").await.hit(), "{how}");
        }
        assert_eq!(site.calls(), 2, "{how}");
        site.later(1);
        assert_eq!(site.get("/").await.text(), "1");
        assert_eq!(site.calls(), 3, "{how}");
        broken.store(false, Ordering::SeqCst);
        site.later(1);
        assert_eq!(site.get("/").await.text(), "4", "{how}: it is back");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_handler_that_fails_get_what_is_stale() {
    let gate = Arc::new(Notify::new());
    let opening = gate.clone();
    let origin = Origin::new(move |call, _| {
        let gate = gate.clone();
        async move {
            if call > 1 {
                gate.notified().await;
                return Err(Failure::from("no connection"));
            }
            Ok(response("max-age=10, stale-if-error=60", "1"))
        }
    });
    let site = Arc::new(Site::new(origin));
    site.get("/").await;
    site.later(10);
    let asking = site.asked_by(50).await;
    opening.notify_waiters();
    for one in asking {
        assert_eq!(one.await.unwrap(), "1");
    }
    assert_eq!(site.calls(), 2, "nobody else asked the handler");
}

#[tokio::test]
async fn what_forbids_stale_use_is_obeyed() {
    for said in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
        let said: &'static str = format!("max-age=10, stale-if-error=60, {said}").leak();
        let (site, broken) = breakable("error", said);
        site.get("/").await;
        site.later(10);
        broken.store(true, Ordering::SeqCst);
        assert!(site.head_of(get("/")).await.is_err(), "{said}");
    }
}

#[tokio::test]
async fn an_error_is_an_error_where_nothing_allows_stale_use() {
    for (how, said) in
        [("error", "max-age=10"), ("503", "max-age=10"), ("503", "max-age=10, stale-if-error=5")]
    {
        let (site, broken) = breakable(how, said);
        site.get("/").await;
        site.later(16);
        broken.store(true, Ordering::SeqCst);
        match site.head_of(get("/")).await {
            Ok(response) => assert_eq!((how, response.status().as_u16()), ("503", 503)),
            Err(_) => assert_eq!(how, "error"),
        }
    }
}

#[tokio::test]
async fn a_proxy_stands_in_for_an_origin_that_gives_no_response() {
    for (how, stands_in) in [("error", true), ("503", false)] {
        let (_, broken) = breakable(how, "max-age=10");
        let breaking = broken.clone();
        let origin = Origin::new(move |call, _| {
            let broken = breaking.load(Ordering::SeqCst);
            async move {
                match how {
                    _ if !broken => Ok(response("max-age=10", call.to_string())),
                    "error" => Err(Failure::from("no connection")),
                    _ => Ok(answer(503, &[], "down")),
                }
            }
        });
        let site = Site::with(origin, |layer| layer.policy(Policy::rfc9111()));
        site.get("/").await;
        broken.store(true, Ordering::SeqCst);
        site.later(10 + 3599);
        let got = site.get("/").await;
        assert_eq!((got.status == 200, got.text() == "1"), (stands_in, stands_in), "{how}");
        site.later(1);
        assert_eq!(site.head_of(get("/")).await.is_err(), how == "error", "an hour at most");
    }
}
