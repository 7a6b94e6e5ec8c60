//! What pages need: tokens for their forms, requests of their own only, messages that are shown once.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Browser, Stand, exchange};
use http::{Method, Request, Response};
use larder_session::{Error, ErrorKind, Event, KeyRing, Level, Sealed, Session, SessionLayer};
use larder_testkit::faulty::Verb;
use tower::{Layer, ServiceExt, service_fn};

/// In a store, and in the cookie.
fn layers() -> [SessionLayer; 2] {
    let key = std::array::from_fn(|at| at as u8);
    let sealed = Sealed::encrypted(KeyRing::new(&key));
    [Stand::new().layer, SessionLayer::in_cookie(sealed).unwrap()]
}

async fn token(browser: &mut Browser) -> String {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let got = browser
        .send(|session| async move {
            let _ = told.send(session.csrf_token().await?);
            Ok(())
        })
        .await;
    assert!(got.status == 200 && got.is_marked(), "a page with a token is one visitor's own");
    tells.recv().await.unwrap()
}

async fn holds(browser: &mut Browser, token: &str) -> bool {
    let token = token.to_owned();
    let got = browser.send(|session| async move { session.verify_csrf(&token).await }).await;
    assert!([200, 403].contains(&got.status.as_u16()), "{got:?}");
    assert_eq!(got.set_cookie(), None);
    got.status == 200
}

#[tokio::test]
async fn s25_a_token_holds_in_its_session_until_the_id_changes() {
    for layer in layers() {
        let mut browser = Browser::new(&layer);
        // The first token begins a session; later ones are other texts, and hold beside it.
        let first = token(&mut browser).await;
        let cookie = browser.cookie.clone().expect("a session");
        let second = token(&mut browser).await;
        assert_eq!(browser.cookie.as_ref(), Some(&cookie));
        assert_ne!(first, second);
        assert!(holds(&mut browser, &first).await && holds(&mut browser, &second).await);
        browser.send(|session| async move { session.insert("n", &1).await }).await;
        assert!(holds(&mut browser, &first).await);

        // Not in another session, and not without one: a page that was cached helps nobody.
        let mut other = Browser::new(&layer);
        assert!(!holds(&mut other, &first).await);
        let theirs = token(&mut other).await;
        assert!(!holds(&mut other, &first).await && !holds(&mut browser, &theirs).await);
        for wrong in ["", "x", &first[1..], &first.to_uppercase()] {
            assert!(!holds(&mut browser, wrong).await, "{wrong}");
        }

        let enter = |session: Session| async move { session.sign_in_as("ada", "").await };
        assert_eq!(browser.send(enter).await.status, 200);
        assert!(!holds(&mut browser, &first).await);
        let third = token(&mut browser).await;
        assert!(holds(&mut browser, &third).await);
        browser.send(|session| async move { session.destroy().await }).await;
        assert!(!holds(&mut browser, &third).await);
    }
}

#[tokio::test]
async fn s25_a_token_asked_for_with_a_sign_in_is_the_new_ids() {
    for layer in layers() {
        let mut browser = Browser::new(&layer);
        browser.send(|session| async move { session.insert("n", &1).await }).await;
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        browser
            .send(|session| async move {
                session.sign_in_as("ada", "").await?;
                let _ = told.send(session.csrf_token().await?);
                Ok(())
            })
            .await;
        assert!(holds(&mut browser, &tells.recv().await.unwrap()).await);
    }
}

#[tokio::test]
async fn requests_of_other_sites_are_refused_before_the_handler_hears_of_them() {
    let stand = Stand::new();
    let (told, tells) = std::sync::mpsc::channel();
    let called = Arc::new(AtomicUsize::new(0));
    let calls = called.clone();
    let layer = stand.layer.clone().trust_origin("https://pay.example").unwrap();
    let layer = layer.on_event(move |event| told.send(event).expect("somebody listens"));
    let service = layer.layer(service_fn(move |_: Request<()>| {
        calls.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Response::new(common::Body::new())) }
    }));
    let table = [
        (Method::POST, "sec-fetch-site", "cross-site", false),
        (Method::POST, "sec-fetch-site", "same-origin", true),
        (Method::GET, "sec-fetch-site", "cross-site", true),
        (Method::DELETE, "origin", "https://evil.example", false),
        (Method::DELETE, "origin", "https://pay.example", true),
        (Method::PUT, "origin", "https://shop.example", true),
    ];
    for (method, name, value, passes) in table {
        let before = called.load(Ordering::SeqCst);
        let request = Request::builder().method(method).header("host", "shop.example");
        let request =
            request.header(name, value).header("cookie", format!("__Host-id={}", "1".repeat(64)));
        let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
        let status = if passes { 200 } else { 403 };
        assert_eq!(response.status(), status, "{name}: {value}");
        assert_eq!(called.load(Ordering::SeqCst) - before, usize::from(passes));
        if !passes {
            let error = response.extensions().get::<Error>().unwrap();
            assert_eq!(error.kind(), ErrorKind::CrossSite);
            assert_eq!(tells.try_recv(), Ok(Event::CrossSite));
        }
    }
    assert_eq!(stand.faults.total(), 0);
    assert!(stand.layer.clone().trust_origin("pay.example").is_err());
}

async fn flashes(browser: &mut Browser) -> Vec<String> {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let got = browser
        .send(|session| async move {
            for flash in session.take_flashes().await? {
                let _ = told.send(format!("{}: {}", flash.level.as_str(), flash.text));
            }
            Ok(())
        })
        .await;
    assert_eq!(got.status, 200);
    let mut all = Vec::new();
    while let Some(one) = tells.recv().await {
        all.push(one);
    }
    all
}

#[tokio::test]
async fn messages_are_shown_once_and_those_of_requests_at_the_same_time_all() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    assert!(flashes(&mut browser).await.is_empty());
    assert_eq!(stand.faults.total(), 0);
    let say = |text: &'static str| {
        move |session: Session| async move { session.flash(Level::Success, text).await }
    };
    browser.send(say("one")).await;
    // Two requests at once, neither of which knows of the other.
    let mut other = browser.clone();
    browser
        .send(|session| async move {
            session.flash(Level::Error, "two").await?;
            assert_eq!(other.send(say("three")).await.status, 200);
            Ok(())
        })
        .await;
    assert_eq!(flashes(&mut browser).await, ["success: one", "success: three", "error: two"]);
    assert!(flashes(&mut browser).await.is_empty());

    // A page that shows them takes away none that comes meanwhile, even of the same words.
    browser.send(say("again")).await;
    let mut other = browser.clone();
    let got = browser
        .send(|session| async move {
            assert_eq!(session.take_flashes().await?.len(), 1);
            assert_eq!(other.send(say("again")).await.status, 200);
            Ok(())
        })
        .await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(flashes(&mut browser).await, ["success: again"]);
    let puts = stand.faults.count(Verb::Put);
    assert!(flashes(&mut browser).await.is_empty());
    assert_eq!(stand.faults.count(Verb::Put), puts, "nothing to take, nothing to write");
}

#[tokio::test]
async fn a_token_that_nobody_asks_for_costs_nothing() {
    let stand = Stand::new();
    let got = exchange(&stand.layer, None, |session| async move {
        let refused = session.verify_csrf("x").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::CrossSite);
        Ok(())
    })
    .await;
    assert_eq!((got.set_cookie(), stand.faults.total()), (None, 0));
}
