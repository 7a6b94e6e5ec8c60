//! One handler call for many, whoever leaves, fails, panics or has little time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use larder_cache::{Cache, Options};
use larder_grpc::{Caching, GrpcCacheLayer};
use larder_testkit::cancel::drop_after;
use larder_tests::{settle, until};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, ServiceExt};

use crate::support::{GET, Got, Origin, Site, call, failed, framed, ok, response, send};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// Callers who wait for one another's answer.
const MANY: usize = 1000;

/// An origin whose calls wait for a permit each, and how many are inside.
fn gated(
    write: impl Fn(usize) -> http::Response<Body> + Send + Sync + 'static,
) -> (Origin, Arc<Notify>, Arc<AtomicUsize>) {
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (open, counted) = (gate.clone(), entered.clone());
    let origin = Origin::new(move |call, _| {
        let (open, response) = (open.clone(), write(call));
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            open.notified().await;
            response
        }
    });
    (origin, gate, entered)
}

/// So many callers, all of which have come.
async fn crowd(site: &Site, callers: usize, metadata: &'static [(&str, &str)]) -> JoinSet<Got> {
    let mut crowd = JoinSet::new();
    for _ in 0..callers {
        let channel = site.channel.clone();
        crowd.spawn(async move { send(&channel, call(GET, "a", metadata)).await });
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn d02_followers_share_the_fill_of_a_leader_that_went_away() {
    let (origin, gate, entered) = gated(|call| ok(&[FRESH], call.to_string()));
    let site = Site::new(origin).await;
    let leader = {
        let channel = site.channel.clone();
        tokio::spawn(async move { send(&channel, call(GET, "a", &[])).await })
    };
    until("the handler runs", || entered.load(Ordering::SeqCst) == 1).await;
    leader.abort();
    let _ = leader.await;
    let crowd = crowd(&site, 100, &[]).await;
    gate.notify_one();
    for got in crowd.join_all().await {
        assert_eq!(got.text(), "1");
    }
    assert_eq!((site.calls(), site.cache.store().flights()), (1, 0));
}

#[tokio::test]
async fn d02_a_leader_that_leaves_at_any_poll_harms_none_of_a_hundred() {
    for polls in 0..6 {
        let (origin, gate, _) = gated(|call| ok(&[FRESH], call.to_string()));
        let cache = Cache::memory();
        let layer = GrpcCacheLayer::builder(&cache).read(GET).build().unwrap();
        let service = layer.layer(origin.clone());
        let leader = tokio::spawn(drop_after(polls, service.clone().oneshot(near())));
        settle().await;
        let mut crowd = JoinSet::new();
        for _ in 0..100 {
            crowd.spawn(whole(service.clone().oneshot(near())));
        }
        settle().await;
        gate.notify_one();
        for got in crowd.join_all().await {
            assert_eq!(got.text(), "1");
        }
        leader.abort();
        let _ = leader.await;
        assert_eq!((origin.calls(), cache.store().flights()), (1, 0), "left after {polls} polls");
    }
}

/// A call without a connection.
fn near() -> http::Request<Body> {
    let mut asked = call(GET, "a", &[]);
    *asked.uri_mut() = format!("http://test.example{GET}").parse().unwrap();
    asked
}

/// Its answer, whole.
async fn whole<B>(
    answering: impl Future<Output = Result<http::Response<B>, std::convert::Infallible>>,
) -> Got
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = answering.await.unwrap().into_parts();
    Got::read(http::Response::from_parts(parts, Body::new(body))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_a_leader_of_a_millisecond_gets_deadline_exceeded_and_its_followers_the_answer() {
    let (origin, gate, entered) = gated(|call| ok(&[FRESH], call.to_string()));
    let site = Site::new(origin).await;
    // The channel counts as well, and may give up before its call has come to the server: then once more.
    while entered.load(Ordering::SeqCst) == 0 {
        let hasty = site.channel.clone().oneshot(call(GET, "a", &[("grpc-timeout", "1m")])).await;
        if let Ok(answer) = hasty {
            assert_eq!(Got::read(answer).await.code(), Some(4));
        }
    }
    let crowd = crowd(&site, 50, &[("grpc-timeout", "600S")]).await;
    gate.notify_one();
    for got in crowd.join_all().await {
        assert_eq!(got.text(), "1");
    }
    assert_eq!(site.calls(), 1);
    // A hasty follower is told so as well, and nobody else.
    assert!(site.get_with("a", &[("grpc-timeout", "600S")]).await.hit());
}

#[tokio::test]
async fn b12_without_tonics_own_timeout_the_deadline_is_the_layers() {
    use http_body_util::BodyExt;

    tokio::time::pause();
    let (origin, gate, _) = gated(|call| ok(&[FRESH], call.to_string()));
    let layer = GrpcCacheLayer::builder(&Cache::memory()).read(GET).build().unwrap();
    let service = layer.layer(origin.clone());
    let asked = |timeout: &'static str| {
        let mut request = call(GET, "a", &[("grpc-timeout", timeout)]);
        *request.uri_mut() = format!("http://test.example{GET}").parse().unwrap();
        service.clone().oneshot(request)
    };
    let hasty = asked("1m").await.unwrap();
    assert_eq!(hasty.headers()["grpc-status"], "4");
    assert_eq!(hasty.headers()["content-type"], "application/grpc");
    assert!(hasty.into_body().collect().await.unwrap().to_bytes().is_empty());
    let patient = tokio::spawn(asked("9S"));
    tokio::task::yield_now().await;
    let hasty = asked("1m").await.unwrap();
    assert_eq!(hasty.headers()["grpc-status"], "4", "a follower's deadline is its own");
    gate.notify_one();
    assert!(!patient.await.unwrap().unwrap().headers().contains_key("grpc-status"));
    assert_eq!(origin.calls(), 1);
}

/// The head of an answer and the prefix of its message; then it panics.
fn breaking() -> http::Response<Body> {
    let begun = stream::iter([Ok::<_, Status>(Frame::data(framed("2").slice(..5)))]);
    let rest = stream::once(async { panic!("as told") });
    response(&[FRESH], Body::new(StreamBody::new(begun.chain(rest))))
}

#[tokio::test(flavor = "multi_thread")]
async fn d03_followers_of_a_panic_elect_another_leader() {
    for in_the_body in [false, true] {
        let gate = Arc::new(Notify::new());
        let open = gate.clone();
        let origin = Origin::new(move |call, _| {
            let open = open.clone();
            async move {
                open.notified().await;
                match (call, in_the_body) {
                    (1, true) => breaking(),
                    (1, false) => panic!("as told"),
                    _ => ok(&[FRESH], call.to_string()),
                }
            }
        });
        let site = Site::new(origin).await;
        let crowd = crowd_of_raw(&site, 100).await;
        until("one is inside", || site.calls() == 1).await;
        gate.notify_one();
        until("another one is inside", || site.calls() == 2).await;
        gate.notify_one();
        let got = crowd.join_all().await;
        assert_eq!(got.iter().flatten().filter(|text| *text == "2").count(), 99);
        assert_eq!(got.iter().filter(|got| got.is_none()).count(), 1, "the leader's task panicked");
        assert_eq!(site.calls(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d03_a_key_that_cannot_be_made_is_its_own_callers_matter() {
    let site = Site::with(Origin::counting(&[FRESH]), |layer| {
        layer.read(GET).partition_by(|call| {
            assert!(call.metadata().get("x-odd").is_none(), "as told");
            None
        })
    })
    .await;
    for _ in 0..3 {
        let odd = site.channel.clone().oneshot(call(GET, "a", &[("x-odd", "1")])).await;
        assert!(odd.is_err(), "its task panicked");
        assert_eq!(site.get("a").await.text(), "1");
    }
    assert_eq!((site.calls(), site.cache.store().flights()), (1, 0));
}

/// Callers that may get no answer.
async fn crowd_of_raw(site: &Site, callers: usize) -> JoinSet<Option<String>> {
    let mut crowd = JoinSet::new();
    for _ in 0..callers {
        let channel = site.channel.clone();
        crowd.spawn(async move {
            let response = channel.oneshot(call(GET, "a", &[])).await.ok()?;
            let got = Got::read(response).await;
            (got.code() == Some(0)).then(|| got.text())
        });
    }
    // All of them wait for one fill.
    until("a fill is under way", || site.cache.store().flights() == 1).await;
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn d04_a_private_answer_reaches_nobody_who_waited_for_it() {
    for head in [
        &[("cache-control", "private, max-age=60")][..],
        &[("cache-control", "no-store")],
        &[FRESH, ("set-cookie", "id=1")],
    ] {
        let (origin, gate, _) = gated(move |call| ok(head, call.to_string()));
        let site = Site::new(origin).await;
        let crowd = crowd(&site, MANY, &[]).await;
        until("one is inside", || site.calls() >= 1).await;
        gate.notify_one();
        until("all others run beside each other", || site.calls() == MANY).await;
        (1..MANY).for_each(|_| gate.notify_one());
        let waiting = tokio::spawn(async move {
            let mut texts: Vec<usize> =
                crowd.join_all().await.iter().map(|got| got.text().parse().unwrap()).collect();
            texts.sort_unstable();
            texts
        });
        // One permit at a time is kept: they are given until all are through.
        while !waiting.is_finished() {
            gate.notify_waiters();
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.await.unwrap(), (1..=MANY).collect::<Vec<usize>>(), "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d05_what_cannot_be_stored_is_waited_for_once() {
    let (origin, gate, _) = gated(|call| ok(&[("cache-control", "no-store")], call.to_string()));
    let site = Site::new(origin).await;
    let (_, first) = tokio::join!(
        async {
            until("it is inside", || site.calls() == 1).await;
            gate.notify_one();
        },
        site.get("a"),
    );
    first.because("no-store");
    let crowd = crowd(&site, MANY, &[]).await;
    until("all run beside each other", || site.calls() == MANY + 1).await;
    let waiting = tokio::spawn(crowd.join_all());
    while !waiting.is_finished() {
        gate.notify_waiters();
        tokio::task::yield_now().await;
    }
    for got in waiting.await.unwrap() {
        got.because("pass-mark");
    }
    // The mark has an end, and what can be stored by then is stored again.
    site.later(121);
    let other = Site::new(Origin::says(|call| match call {
        1 => ok(&[], "1"),
        _ => ok(&[FRESH], call.to_string()),
    }))
    .await;
    other.get("a").await.because("no-freshness");
    other.get("a").await.because("pass-mark");
    other.later(121);
    assert!(other.get("a").await.told().contains("stored"));
    assert!(other.get("a").await.hit());
}

#[tokio::test]
async fn d06_a_handler_that_fails_is_asked_once_for_all_who_wait() {
    for code in [2, 5, 8, 13, 14] {
        let (origin, gate, _) = gated(move |_| failed(code));
        let layer = GrpcCacheLayer::builder(&Cache::memory()).read(GET).build().unwrap();
        let service = layer.layer(origin.clone());
        let mut crowd = JoinSet::new();
        for _ in 0..1000 {
            crowd.spawn(whole(service.clone().oneshot(near())));
        }
        settle().await;
        gate.notify_one();
        for got in crowd.join_all().await {
            assert_eq!(got.code(), Some(code));
        }
        assert_eq!(origin.calls(), 1, "{code}");
    }
}

#[tokio::test]
async fn stale_answers_stand_in_while_they_are_refreshed_and_while_the_handler_is_unavailable() {
    let origin = Origin::says(|call| match call {
        3 | 4 => failed(14),
        5 => {
            let mut proxys = response(&[], Body::empty());
            *proxys.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            proxys
        }
        6 => failed(13),
        _ => ok(
            &[("cache-control", "max-age=60, stale-while-revalidate=10, stale-if-error=600")],
            call.to_string(),
        ),
    });
    let site = Site::new(origin).await;
    assert_eq!(site.get("a").await.text(), "1");
    site.later(60);
    let stale = site.get("a").await;
    assert_eq!((stale.text().as_str(), stale.told().as_str()), ("1", "t; hit; ttl=0"));
    until("it was refreshed", || site.calls() == 2).await;
    until("it is stored", || site.cache.store().flights() == 0).await;
    let fresh = site.get("a").await;
    assert_eq!((fresh.text().as_str(), fresh.told().as_str()), ("2", "t; hit; ttl=60"));

    site.later(100);
    let stale = site.get("a").await;
    assert_eq!((stale.text().as_str(), stale.code()), ("2", Some(0)));
    stale.because("stale-on-unavailable");
    // The handler is left alone for a second.
    assert!(site.get("a").await.hit());
    assert_eq!(site.calls(), 3);
    site.later(2);
    site.get("a").await.because("stale-on-unavailable");
    site.later(2);
    site.get("a").await.because("stale-on-unavailable");
    site.later(2);
    // Another failure is told.
    assert_eq!(site.get("a").await.code(), Some(13));
    assert_eq!(site.get("a").await.text(), "7");
}

#[tokio::test]
async fn a_stale_answer_has_an_end() {
    let origin = Origin::says(|call| match call {
        1 => ok(&[("cache-control", "max-age=60, stale-if-error=60")], "1"),
        2 => ok(&[("cache-control", "max-age=60, stale-if-error=60, must-revalidate")], "2"),
        _ => failed(14),
    });
    let site = Site::new(origin).await;
    site.get("a").await;
    site.later(120);
    assert_eq!(site.get("a").await.text(), "2");
    site.later(61);
    assert_eq!(site.get("a").await.code(), Some(14), "must-revalidate");
}

#[tokio::test]
async fn tags_of_the_method_the_metadata_the_handler_and_what_it_read_drop_the_answer() {
    let (cache, _) = crate::support::cache();
    let reading = cache.clone();
    let origin = Origin::new(move |call, _| {
        let cache = reading.clone();
        async move {
            let load = || async { Ok::<_, std::io::Error>(7_u32) };
            let options = Options::ttl(Duration::from_secs(600)).tag("row:7");
            cache.get_or_compute("row", options, load).await.expect("a value");
            let mut response = ok(&[FRESH, ("cache-tag", "shelf:3, shelf:4")], call.to_string());
            response.extensions_mut().insert(Caching::new().tag("product:42"));
            response
        }
    });
    let layer = GrpcCacheLayer::builder(&cache)
        .read(larder_grpc::Read::new(GET).tag("products"))
        .tag("catalog")
        .tags_from(http::HeaderName::from_static("cache-tag"))
        .cache_status("t")
        .build()
        .unwrap();
    let (address, _serving) = crate::support::serve(origin.clone(), layer).await;
    let channel = crate::support::connect(address).await;
    let get = async || send(&channel, call(GET, "a", &[])).await;
    for tag in ["products", "catalog", "shelf:3", "shelf:4", "product:42", "row:7"] {
        get().await;
        assert!(get().await.hit());
        cache.invalidate_tag(tag).await.unwrap();
        assert!(!get().await.hit(), "{tag}");
    }
    cache.invalidate_tag("another").await.unwrap();
    assert!(get().await.hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn d01_what_was_made_while_it_was_invalidated_is_never_a_hit() {
    let (origin, gate, entered) = gated(|call| {
        let mut response = ok(&[FRESH], call.to_string());
        response.extensions_mut().insert(Caching::new().tag("own"));
        response
    });
    let site = Site::with(origin, |layer| layer.read(GET).tag("products")).await;
    for (n, tag) in ["products", "own"].into_iter().enumerate() {
        let (channel, asked) = (site.channel.clone(), call(GET, "a", &[]));
        let slow = tokio::spawn(async move { send(&channel, asked).await });
        until("it is inside", || entered.load(Ordering::SeqCst) == 2 * n + 1).await;
        site.cache.invalidate_tag(tag).await.unwrap();
        gate.notify_one();
        assert_eq!(slow.await.unwrap().text(), (2 * n + 1).to_string());
        gate.notify_one();
        let after = site.get("a").await;
        assert_eq!((after.hit(), after.text()), (false, (2 * n + 2).to_string()), "{tag}");
        site.cache.invalidate_tag(tag).await.unwrap();
    }
}

#[tokio::test]
async fn who_comes_after_another_nodes_invalidation_gets_no_older_answer() {
    for tag in ["products", "own"] {
        let (origin, gate, entered) = gated(|call| {
            let mut response = ok(&[FRESH], call.to_string());
            response.extensions_mut().insert(Caching::new().tag("own"));
            response
        });
        // Two engines over one store know nothing of each other's fills.
        let backend = larder_memory::MemoryBackend::default();
        let (here, there) = (Cache::new(backend.clone()), Cache::new(backend));
        let layer = GrpcCacheLayer::builder(&here)
            .wait(Duration::from_secs(600))
            .read(larder_grpc::Read::new(GET).tag("products"))
            .build()
            .unwrap();
        let service = layer.layer(origin);
        let ask = || tokio::spawn(whole(service.clone().oneshot(near())));
        let slow = ask();
        until("it is inside", || entered.load(Ordering::SeqCst) == 1).await;
        there.invalidate_tag(tag).await.unwrap();
        let late = ask();
        settle().await;
        gate.notify_one();
        assert_eq!(slow.await.unwrap().text(), "1");
        until("the handler is asked again", || entered.load(Ordering::SeqCst) == 2).await;
        gate.notify_one();
        assert_eq!(late.await.unwrap().text(), "2", "{tag}");
    }
}

#[tokio::test]
async fn a_handler_that_declines_is_not_stored() {
    let origin = Origin::says(|call| {
        let mut response = ok(&[FRESH], call.to_string());
        response.extensions_mut().insert(match call {
            1 => Caching::never(),
            _ => Caching::new().ttl(Duration::from_secs(5)),
        });
        response
    });
    let site = Site::new(origin).await;
    site.get("a").await.because("handler-declined");
    site.later(121);
    site.get("a").await;
    site.later(4);
    assert!(site.get("a").await.hit());
    site.later(1);
    assert!(!site.get("a").await.hit());
    let bad = Site::new(Origin::says(|_| {
        let mut response = response(&[FRESH], Body::empty());
        *response.body_mut() = ok(&[], "1").into_body();
        response.extensions_mut().insert(Caching::new().tag("x".repeat(257)));
        response
    }))
    .await;
    bad.get("a").await.because("invalid-tag");
}
