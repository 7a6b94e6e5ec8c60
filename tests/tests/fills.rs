//! How many fills run at once, and what becomes of those beyond.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use larder_http::rules::Policy;
use larder_tests::{Got, Origin, Site, answer, get, request, response, until};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

fn asking(site: &Arc<Site>, target: String) -> JoinHandle<Got> {
    let site = site.clone();
    tokio::spawn(async move { site.send(get(&target)).await })
}

/// So many calls wait until all may go on.
fn held(gate: &Arc<Notify>, calls: usize) -> Origin {
    Origin::gated(gate, move |call| call <= calls, |call| response("max-age=60", call.to_string()))
}

#[tokio::test]
async fn beyond_so_many_fills_the_handler_is_asked_and_nothing_is_stored() {
    for most in [0, 1, 5] {
        let gate = Arc::new(Notify::new());
        let site = Arc::new(Site::with(held(&gate, most), |layer| layer.max_fills(most)));
        let filling: Vec<_> = (0..most).map(|nth| asking(&site, format!("/{nth}"))).collect();
        until("all fills run", || site.calls() == most).await;
        // They come back at once: nobody waits for room.
        for round in 0..2 {
            for nth in 0..3 {
                let got = site.get(&format!("/beyond/{nth}")).await;
                assert!(got.because("too-many-fills"), "{round}: {}", got.told());
            }
        }
        assert_eq!((site.calls(), site.larder.flights()), (most + 6, most));
        // Who wants what is being filled waits for it, as ever.
        let waiting: Vec<_> = (0..most).map(|nth| asking(&site, format!("/{nth}"))).collect();
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        gate.notify_waiters();
        for task in filling.into_iter().chain(waiting) {
            assert!(!task.await.unwrap().because("too-many-fills"));
        }
        assert_eq!(site.calls(), most + 6);
        // There is room again.
        for nth in 0..most {
            assert!(site.get(&format!("/{nth}")).await.hit());
            assert!(!site.get(&format!("/beyond/{nth}")).await.hit());
            assert!(site.get(&format!("/beyond/{nth}")).await.hit());
        }
    }
}

/// However it ends: with a failure, a panic, a client that leaves, a response that is not stored.
#[tokio::test]
async fn every_fill_gives_its_room_back() {
    let origin = Origin::new(|_, request| async move {
        match request.uri().path() {
            "/fails" => Err("failed".into()),
            "/panics" => panic!("as it was told to"),
            "/private" => Ok(response("private", "")),
            "/large" => Ok(response("max-age=60", "x".repeat(2 << 20))),
            _ => Ok(response("max-age=60", "good")),
        }
    });
    let site = Arc::new(Site::with(origin, |layer| layer.max_fills(1)));
    for path in ["/fails", "/panics", "/private", "/large"] {
        let (target, asked) = (path.to_owned(), site.clone());
        let _ = tokio::spawn(async move { asked.head_of(get(&target)).await.is_ok() }).await;
        until("it has ended", || site.larder.flights() == 0).await;
        let target = format!("/after{path}");
        assert!(site.get(&target).await.told().contains("stored"), "{path}");
        assert!(site.get(&target).await.hit());
    }
}

tokio::task_local! {
    static CALLER: &'static str;
}

/// A fill runs in its client's future, as the handler would without a cache.
#[tokio::test]
async fn the_handler_sees_what_its_caller_has_in_its_task() {
    let origin = Origin::says(|_, _| response("max-age=60", CALLER.with(|caller| *caller)));
    let got = CALLER.scope("the caller", Site::new(origin).get("/")).await;
    assert_eq!(got.text(), "the caller");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_polling_holds_others_up_for_as_long_as_they_wait_and_no_longer() {
    let gate = Arc::new(Notify::new());
    let site = Site::with(held(&gate, 1), |layer| layer.wait(Duration::from_secs(3)));
    let mut begun = Box::pin(site.head_of(get("/")));
    assert!(poll_fn(|cx| Poll::Ready(begun.as_mut().poll(cx).is_pending())).await);
    let before = tokio::time::Instant::now();
    let got = site.get("/").await;
    assert!(got.because("wait-too-long"), "{}", got.told());
    assert_eq!((got.text(), before.elapsed().as_secs()), ("2".to_owned(), 3));
    gate.notify_one();
    assert_eq!(Got::read(begun.await.unwrap()).await.unwrap().text(), "1");
    assert_eq!(site.get("/").await.text(), "1");
    assert_eq!(site.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_slower_than_the_deadline_holds_no_room() {
    let gate = Arc::new(Notify::new());
    let configure =
        |layer: larder_http::CacheLayer| layer.max_fills(1).fill_deadline(Duration::from_secs(5));
    let site = Arc::new(Site::with(held(&gate, 1), configure));
    let slow = asking(&site, "/slow".to_owned());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(site.get("/other").await.because("too-many-fills"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(site.get("/other").await.told().contains("stored"));
    gate.notify_waiters();
    assert_eq!(slow.await.unwrap().text(), "1");
}

#[tokio::test]
async fn a_refresh_for_which_there_is_no_room_is_left_for_later() {
    let gate = Arc::new(Notify::new());
    let origin = Origin::gated(
        &gate,
        |call| call == 2,
        |call| response("max-age=60, stale-while-revalidate=600", call.to_string()),
    );
    let site = Arc::new(Site::with(origin, |layer| layer.max_fills(1)));
    assert_eq!(site.get("/").await.text(), "1");
    site.later(61);
    let filling = asking(&site, "/other".to_owned());
    until("it is filled", || site.calls() == 2).await;
    for _ in 0..3 {
        assert_eq!(site.get("/").await.text(), "1", "what is stale answers all the same");
    }
    assert_eq!(site.calls(), 2);
    gate.notify_one();
    filling.await.unwrap();
    until("there is room", || site.larder.flights() == 0).await;
    assert_eq!(site.get("/").await.text(), "1");
    until("it is refreshed", || site.calls() == 3 && site.larder.flights() == 0).await;
    assert_eq!(site.get("/").await.text(), "3");
}

#[tokio::test]
async fn an_answer_to_post_for_which_there_is_no_room_is_not_stored() {
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    let origin = Origin::new(move |call, request| {
        let waits = waits.clone();
        async move {
            if request.method() == "GET" && call == 1 {
                waits.notified().await;
            }
            let fields = [("cache-control", "max-age=60"), ("content-location", "/p")];
            Ok(answer(200, &fields, call.to_string()))
        }
    });
    let configure = |layer: larder_http::CacheLayer| layer.policy(Policy::rfc9111()).max_fills(1);
    let site = Arc::new(Site::with(origin, configure));
    let filling = asking(&site, "/other".to_owned());
    until("it is filled", || site.calls() == 1).await;
    let got = site.send(request("POST", "/p", &[])).await;
    assert!(got.because("too-many-fills"), "{}", got.told());
    gate.notify_one();
    filling.await.unwrap();
    site.send(request("POST", "/p", &[])).await;
    assert_eq!(site.get("/p").await.text(), "3");
}
