//! One handler call for many requests, whoever leaves, fails or panics; and none shared that may not be.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_http::VaryLayer;
use larder_testkit::cancel::drop_after;
use larder_tests::server::Server;
use larder_tests::{
    Got, Larder, Origin, Site, Step, get, request, response, scripted, settle, until,
};
use tokio::sync::{Barrier, Notify};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

/// Starts so many requests and lets each run until it waits for something.
async fn crowd(site: &Arc<Site>, n: usize, field: Option<&'static str>) -> Vec<JoinHandle<Got>> {
    let crowd = (0..n).map(|n| {
        let site = site.clone();
        tokio::spawn(async move {
            match field {
                None => site.get("/").await,
                Some(name) => site.get_with("/", &[(name, &n.to_string())]).await,
            }
        })
    });
    let crowd = crowd.collect();
    settle().await;
    crowd
}

async fn all(crowd: Vec<JoinHandle<Got>>) -> Vec<Got> {
    let mut answers = Vec::with_capacity(crowd.len());
    for one in crowd {
        // The paused clock jumps ahead when nothing can go on, so that what hangs is seen at once.
        let got = tokio::time::timeout(Duration::from_secs(3600), one).await.expect("nobody hangs");
        answers.push(got.unwrap());
    }
    answers
}

/// An origin whose calls wait for that many permits of a gate before the head and before each frame.
fn slow(gate: Arc<Notify>) -> Origin {
    Origin::new(move |call, _| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            yield_now().await;
            let (steps, body) = scripted();
            let mut response = response("max-age=60", "");
            *response.body_mut() = body;
            tokio::spawn(async move {
                for n in 0..3 {
                    gate.notified().await;
                    let _ = steps.send(Step::Data(format!("{call}-{n} ").into()));
                }
            });
            Ok(response)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn d02_a_leader_that_leaves_at_any_poll_harms_none_of_a_thousand() {
    // Polls of the leader's future, then frames of its body, then it is gone.
    for (polls, frames) in [(0, 0), (1, 0), (2, 0), (3, 0), (9, 0), (9, 1), (9, 2), (9, 3), (9, 4)]
    {
        let gate = Arc::new(Notify::new());
        let site = Arc::new(Site::new(slow(gate.clone())));
        let leading = site.clone();
        let leader = tokio::spawn(async move {
            let Some(head) = drop_after(polls, leading.head_of(get("/"))).await else { return };
            let mut body = head.unwrap().into_body();
            for _ in 0..frames {
                let frame = http_body_util::BodyExt::frame(&mut body).await;
                assert!(frame.is_none_or(|frame| frame.is_ok()));
            }
        });
        settle().await;
        let crowd = crowd(&site, 1000, None).await;
        for _ in 0..4 {
            gate.notify_one();
            settle().await;
        }
        for got in all(crowd).await {
            assert_eq!(got.text(), "1-0 1-1 1-2 ");
        }
        leader.await.unwrap();
        assert_eq!(site.calls(), 1, "left after {polls} polls and {frames} frames");
        assert_eq!(site.larder.flights(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn d02_followers_that_leave_at_any_poll_harm_nobody() {
    for polls in 0..4 {
        let gate = Arc::new(Notify::new());
        let site = Arc::new(Site::new(slow(gate.clone())));
        let leader = crowd(&site, 1, None).await;
        let leaving: Vec<_> = (0..1000)
            .map(|_| {
                let site = site.clone();
                tokio::spawn(async move {
                    drop(drop_after(polls, site.head_of(get("/"))).await);
                })
            })
            .collect();
        settle().await;
        let staying = crowd(&site, 100, None).await;
        for _ in 0..4 {
            gate.notify_one();
            settle().await;
        }
        assert!(
            all(leader).await.into_iter().chain(all(staying).await).all(|got| got.body.len() == 12)
        );
        for one in leaving {
            one.await.unwrap();
        }
        assert_eq!((site.calls(), site.larder.flights()), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d02_a_client_that_disconnects_harms_nobody() {
    for http2 in [false, true] {
        let (entered, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, open) = (entered.clone(), gate.clone());
        let origin = Origin::new(move |call, _| {
            let (counted, open) = (counted.clone(), open.clone());
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                open.notified().await;
                Ok(response("max-age=60", call.to_string()))
            }
        });
        // On a busy machine a hundred followers take longer to come than they would wait.
        let long = Duration::from_secs(600);
        let site = Site::with(origin, |layer| layer.wait(long).fill_deadline(long));
        let server = Server::start(site.service()).await;
        if http2 {
            let mut leader = server.http2().await;
            let asked = tokio::spawn(async move { leader.head_of(get("/")).await.map(drop) });
            until("the handler runs", || entered.load(Ordering::SeqCst) == 1).await;
            asked.abort();
            let _ = asked.await;
        } else {
            let mut leader = server.http1().await;
            leader.write("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n").await;
            until("the handler runs", || entered.load(Ordering::SeqCst) == 1).await;
        }
        let mut followers = Vec::new();
        for _ in 0..100 {
            let mut http1 = server.http1().await;
            followers.push(tokio::spawn(async move { http1.get("site.example", "/").await }));
        }
        gate.notify_one();
        for follower in followers {
            assert_eq!(follower.await.unwrap().text(), "1");
        }
        assert_eq!(site.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn d03_panics_free_those_who_wait() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum When {
        InCall,
        BeforeHead,
        MidBody,
        AtOnceInBody,
    }
    for when in [When::InCall, When::BeforeHead, When::MidBody, When::AtOnceInBody] {
        let gate = Arc::new(Notify::new());
        let (open, panics) = (gate.clone(), Arc::new(AtomicUsize::new(1)));
        let origin = Origin::new(move |call, _| {
            let bad = panics.fetch_sub(1, Ordering::SeqCst) == 1;
            panics.store(0, Ordering::SeqCst);
            assert!(!(bad && when == When::InCall), "as told");
            let open = open.clone();
            async move {
                let mut response = response("max-age=60", call.to_string());
                if !bad {
                    return Ok(response);
                }
                if when != When::MidBody {
                    open.notified().await;
                }
                assert!(when != When::BeforeHead, "as told");
                let (steps, body) = scripted();
                *response.body_mut() = body;
                steps.send(Step::Data("half".into())).unwrap();
                if when == When::AtOnceInBody {
                    steps.send(Step::Panic).unwrap();
                } else {
                    tokio::spawn(async move {
                        open.notified().await;
                        let _ = steps.send(Step::Panic);
                    });
                }
                Ok(response)
            }
        });
        let site = Arc::new(Site::new(origin));
        let leading = site.clone();
        let leader = tokio::spawn(async move { leading.get("/").await });
        settle().await;
        let crowd = crowd(&site, 1000, None).await;
        gate.notify_one();
        let answers = all(crowd).await;
        assert!(
            leader.await.unwrap_err().is_panic(),
            "{when:?}: the leader's own task panics as without a cache"
        );
        assert!(answers.iter().all(|got| got.status == 200 && got.text() != "half"), "{when:?}");
        assert_eq!(site.larder.flights(), 0, "{when:?}");
        site.get("/").await;
        assert!(site.get("/").await.hit(), "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn d03_a_panic_in_a_partition_is_its_own_requests_alone() {
    let site = Arc::new(Site::with(Origin::counting("max-age=60"), |layer| {
        layer.partition_by(|head| {
            assert!(!head.headers().contains_key("x-bad"), "as told");
            None
        })
    }));
    let bad = site.clone();
    let bad = tokio::spawn(async move { bad.get_with("/", &[("x-bad", "1")]).await });
    assert!(bad.await.unwrap_err().is_panic());
    assert_eq!(all(crowd(&site, 100, None).await).await.len(), 100);
    assert_eq!((site.calls(), site.larder.flights()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn d03_a_panic_in_a_computed_value_frees_those_who_wait() {
    // It panics at its n-th call: where the layer stands, where the page is looked at, or inside the fill.
    for nth in 1..8 {
        for inside in [true, false] {
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = calls.clone();
            let vary = VaryLayer::new().by("value", move |_| {
                assert!(counted.fetch_add(1, Ordering::SeqCst) + 1 != nth, "as told");
                None
            });
            let gate = Arc::new(Notify::new());
            let origin = Origin::gated(
                &gate,
                |call| call == 1,
                |call| response("max-age=60", call.to_string()),
            );
            let larder = Larder::new();
            let cache = larder_http::CacheLayer::new(&larder.cache).cache_status("t");
            let service = if inside {
                tower::util::BoxCloneSyncService::new(cache.layer(vary.layer(origin)))
            } else {
                tower::util::BoxCloneSyncService::new(vary.layer(cache.layer(origin)))
            };
            let ask = || {
                let service = service.clone();
                tokio::spawn(async move {
                    Got::read(service.oneshot(get("/")).await.unwrap()).await.unwrap()
                })
            };
            let leader = ask();
            settle().await;
            let crowd: Vec<_> = (0..50).map(|_| ask()).collect();
            settle().await;
            gate.notify_one();
            let mut panicked = usize::from(leader.await.is_err());
            for one in crowd {
                let got = tokio::time::timeout(Duration::from_secs(3600), one)
                    .await
                    .expect("nobody hangs");
                panicked += usize::from(got.is_err());
            }
            assert!(panicked <= 1, "{panicked} of them panicked because of one value");
            assert_eq!(larder.flights(), 0);
            // The marker of the fill that panicked is gone, too.
            ask().await.unwrap();
            assert!(ask().await.unwrap().hit(), "nth: {nth}, inside: {inside}");
        }
    }
}

/// An origin whose first answer waits for a gate, and whose others wait until so many of them run at once.
fn together(gate: Arc<Notify>, others: usize, cache_control: &'static str) -> Origin {
    let barrier = Arc::new(Barrier::new(others));
    Origin::new(move |call, request| {
        let (gate, barrier) = (gate.clone(), barrier.clone());
        async move {
            if call == 1 {
                gate.notified().await;
            } else {
                barrier.wait().await;
            }
            let who =
                request.headers().get("authorization").or(request.headers().get("x-who")).cloned();
            Ok(response(cache_control, format!("{call} {who:?}")))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn d04_a_private_answer_is_its_own_clients_alone_and_the_others_run_in_parallel() {
    for (field, cache_control) in [
        ("authorization", "max-age=60"),
        ("authorization", "private, max-age=60"),
        ("cookie", "max-age=60"),
        ("x-who", "private"),
    ] {
        let gate = Arc::new(Notify::new());
        let site = Arc::new(Site::new(together(gate.clone(), 999, cache_control)));
        let crowd = crowd(&site, 1000, Some(field)).await;
        assert_eq!(site.calls(), 1, "the others wait for what comes of it");
        gate.notify_one();
        let answers = all(crowd).await;
        let bodies: HashSet<_> = answers.iter().map(|got| got.body.clone()).collect();
        assert_eq!(bodies.len(), 1000, "{field}, {cache_control}");
        for (n, got) in answers.iter().enumerate().filter(|_| field != "cookie") {
            assert!(got.text().ends_with(&format!("Some(\"{n}\")")), "{got:?}");
        }
        assert_eq!((site.calls(), site.larder.entries(), site.larder.flights()), (1000, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn d04_a_follower_gets_only_the_variant_that_it_selects() {
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    let site = Arc::new(Site::new(Origin::new(move |call, request| {
        let open = open.clone();
        async move {
            if call == 1 {
                open.notified().await;
            }
            let who = request.headers()["x-who"].to_str().unwrap().to_owned();
            let mut response = response("max-age=60", who);
            larder_tests::append(response.headers_mut(), &[("vary", "x-who")]);
            Ok(response)
        }
    })));
    let mut crowd = crowd(&site, 10, Some("x-who")).await;
    for n in 0..10 {
        let site = site.clone();
        crowd.push(tokio::spawn(
            async move { site.get_with("/", &[("x-who", &n.to_string())]).await },
        ));
    }
    settle().await;
    gate.notify_one();
    for (n, got) in all(crowd).await.into_iter().enumerate() {
        assert_eq!(got.text(), (n % 10).to_string());
    }
    assert_eq!(site.calls(), 10, "one for each variant");
}

#[tokio::test(start_paused = true)]
async fn c59_no_more_than_so_many_wait_and_the_others_ask_for_themselves() {
    for most in [0, 1, 5] {
        let gate = Arc::new(Notify::new());
        let origin =
            Origin::gated(&gate, |call| call == 1, |call| response("max-age=60", call.to_string()));
        let site = Arc::new(Site::with(origin, |layer| layer.max_waiting(most)));
        let leader = crowd(&site, 1, None).await;
        let others = crowd(&site, 9, None).await;
        assert_eq!(site.calls(), 10 - most, "the first one's, and theirs who may not wait");
        gate.notify_one();
        let answers = all(leader.into_iter().chain(others).collect()).await;
        let beyond = answers.iter().filter(|got| got.because("too-many-wait"));
        assert_eq!(beyond.count(), 9 - most);
        assert_eq!(answers.iter().filter(|got| got.text() == "1").count(), 1 + most);
        assert!(site.get("/").await.hit());
    }
}

#[tokio::test(start_paused = true)]
async fn d05_what_cannot_be_stored_is_never_queued_for() {
    for cache_control in ["no-store", "private", "", "no-cache", "max-age=0"] {
        let gate = Arc::new(Notify::new());
        // 999 that waited for the first, and 1,000 that come afterwards: each group at once.
        let site = Arc::new(Site::new(together(gate.clone(), 999, cache_control)));
        let first = crowd(&site, 1000, None).await;
        gate.notify_one();
        all(first).await;
        assert_eq!(site.calls(), 1000);
        let later = crowd(&site, 999, None).await;
        assert!(all(later).await.iter().all(|got| got.because("pass-mark")), "{cache_control}");
        assert_eq!((site.calls(), site.larder.flights()), (1999, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn d05_a_pass_mark_ends_by_time_or_when_the_response_becomes_storable() {
    let site = Site::with(
        Origin::says(|call, _| {
            response(if call < 3 { "no-store" } else { "max-age=6000" }, call.to_string())
        }),
        |layer| layer.pass_for(Duration::from_secs(10)),
    );
    assert!(site.get("/").await.because("no-store"));
    assert!(site.get("/").await.because("pass-mark"));
    assert!(site.get("/").await.because("pass-mark"), "3 is storable and lifts the mark");
    assert!(site.get("/").await.told().contains("stored"));
    assert_eq!(site.get("/").await.text(), "4");

    let site =
        Site::with(Origin::counting("no-store"), |layer| layer.pass_for(Duration::from_secs(10)));
    site.get("/").await;
    site.later(9);
    assert!(site.get("/").await.because("pass-mark"));
    site.later(1);
    assert!(site.get("/").await.because("no-store"));
}

#[tokio::test(start_paused = true)]
async fn d07_nobody_waits_longer_than_they_may() {
    let site = Arc::new(Site::with(
        Origin::new(|call, _| async move {
            if call == 1 {
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
            Ok(response("max-age=60", call.to_string()))
        }),
        |layer| layer.wait(Duration::from_secs(3)),
    ));
    let begun = Instant::now();
    let leader = crowd(&site, 1, None).await;
    let followers = all(crowd(&site, 100, None).await).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    assert!(followers.iter().all(|got| got.because("wait-too-long")));
    assert_eq!(all(leader).await[0].text(), "1");
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    // The one that took so long is stored all the same: its own deadline is longer.
    assert!(site.get("/").await.hit());
    assert_eq!(site.larder.flights(), 0);
}

#[tokio::test(start_paused = true)]
async fn d07_one_wait_is_all_however_many_fills_come_to_nothing() {
    // Each fill takes two seconds and makes a variant that the others cannot use.
    let site = Arc::new(Site::with(
        Origin::new(|call, request| async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let who = request.headers().get("x-who").cloned();
            let mut response = response("max-age=60", format!("{call} {who:?}"));
            // Every answer has another list, so that nobody's selector says in advance who flies apart.
            larder_tests::append(response.headers_mut(), &[("vary", &format!("x-{call}, x-who"))]);
            Ok(response)
        }),
        |layer| layer.wait(Duration::from_secs(3)),
    ));
    let begun = Instant::now();
    let ask = |fields: &'static [(&'static str, &'static str)]| {
        let site = site.clone();
        tokio::spawn(async move {
            let got = site.get_with("/", fields).await;
            (got, Instant::now())
        })
    };
    let mut tasks = vec![ask(&[("x-who", "a")])];
    settle().await;
    for _ in 0..5 {
        // The same selector for the lists of 1 and 2, and different ones for the fills that they wait for.
        tasks.push(ask(&[("x-who", "b")]));
    }
    settle().await;
    for task in tasks {
        let (_, at) = task.await.unwrap();
        // Three seconds of waiting at most, and two for a call of one's own.
        assert!(at - begun <= Duration::from_secs(5), "{:?}", at - begun);
    }
}

#[tokio::test(start_paused = true)]
async fn d07_invalidations_do_not_make_anybody_wait_anew() {
    let site = Arc::new(Site::with(
        Origin::new(|call, request| async move {
            if request.method() == "GET" {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Ok(response("max-age=60", call.to_string()))
        }),
        |layer| layer.wait(Duration::from_secs(3)),
    ));
    let begun = Instant::now();
    let leader = crowd(&site, 1, None).await;
    let follower = site.clone();
    let follower = tokio::spawn(async move {
        follower.get("/").await;
        begun.elapsed()
    });
    // Whatever it waits for is voided every second and a half, and somebody else begins anew.
    let mut others = leader;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        site.send(request("POST", "/", &[])).await;
        others.extend(crowd(&site, 1, None).await);
    }
    let waited = follower.await.unwrap();
    assert!(waited <= Duration::from_secs(5), "{waited:?}");
    all(others).await;
    assert_eq!(site.larder.flights(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fill_past_its_deadline_is_its_clients_alone() {
    let site = Arc::new(Site::with(
        Origin::new(|call, _| async move {
            if call == 1 {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Ok(response("max-age=600", call.to_string()))
        }),
        |layer| layer.wait(Duration::from_secs(1000)).fill_deadline(Duration::from_secs(10)),
    ));
    let begun = Instant::now();
    let leader = crowd(&site, 1, None).await;
    let followers = all(crowd(&site, 100, None).await).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert!(followers.iter().all(|got| got.because("wait-too-long") && got.text() != "1"));
    assert_eq!(site.larder.flights(), 0);
    // A new one may fill meanwhile, and the late one does not overwrite it.
    let new = site.get("/").await;
    assert!(new.told().contains("stored"), "{new:?}");
    assert_eq!(all(leader).await[0].text(), "1");
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
    assert_eq!(site.get("/").await.text(), new.text());
    // A client that has left does not keep the handler's future alive for ever.
    let site = Site::with(Origin::new(|_, _| std::future::pending()), |layer| {
        layer.fill_deadline(Duration::from_secs(10))
    });
    drop(drop_after(1, site.head_of(get("/"))).await);
    settle().await;
    assert_eq!(site.larder.flights(), 1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(site.larder.flights(), 0);
    assert_eq!(Arc::strong_count(&Arc::new(())), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_cold_url_make_one_call() {
    let gate = Arc::new(Notify::new());
    let site = Arc::new(Site::new(slow(gate.clone())));
    let crowd = crowd(&site, 10_000, None).await;
    for _ in 0..4 {
        gate.notify_one();
        settle().await;
    }
    assert!(all(crowd).await.iter().all(|got| got.text() == "1-0 1-1 1-2 "));
    assert_eq!((site.calls(), site.larder.flights()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_callers_on_all_threads_make_one_call() {
    let (inside, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, open) = (inside.clone(), gate.clone());
    let site = Arc::new(Site::with(
        Origin::new(move |call, _| {
            let (counted, open) = (counted.clone(), open.clone());
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                open.notified().await;
                Ok(response("max-age=60", call.to_string()))
            }
        }),
        |layer| layer.wait(Duration::from_secs(600)).fill_deadline(Duration::from_secs(600)),
    ));
    let started = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> = (0..10_000)
        .map(|_| {
            let (site, started) = (site.clone(), started.clone());
            tokio::spawn(async move {
                started.fetch_add(1, Ordering::SeqCst);
                site.get("/").await
            })
        })
        .collect();
    until("all have asked", || started.load(Ordering::SeqCst) == 10_000).await;
    until("the handler runs", || inside.load(Ordering::SeqCst) == 1).await;
    gate.notify_waiters();
    gate.notify_one();
    for one in crowd {
        assert_eq!(one.await.unwrap().text(), "1");
    }
    assert_eq!((site.calls(), site.larder.flights()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn d06_an_error_is_its_own_clients_and_the_others_run_at_once() {
    for failing in ["error", "500"] {
        let (gate, barrier) = (Arc::new(Notify::new()), Arc::new(Barrier::new(99)));
        let open = gate.clone();
        let site = Arc::new(Site::with(
            Origin::new(move |call, _| {
                let (open, barrier) = (open.clone(), barrier.clone());
                async move {
                    if call == 1 {
                        open.notified().await;
                        if failing == "error" {
                            return Err("the origin failed".into());
                        }
                        return Ok(larder_tests::answer(
                            500,
                            &[("cache-control", "max-age=60")],
                            "broken",
                        ));
                    }
                    if call <= 100 {
                        barrier.wait().await;
                    }
                    Ok(response("max-age=60", call.to_string()))
                }
            }),
            |layer| layer.ttl(Duration::from_secs(60)),
        ));
        let leading = site.clone();
        let leader = tokio::spawn(async move { leading.head_of(get("/")).await });
        settle().await;
        let crowd = crowd(&site, 99, None).await;
        gate.notify_one();
        assert!(all(crowd).await.iter().all(|got| got.status == 200));
        match leader.await.unwrap() {
            Err(error) => assert_eq!(error.to_string(), "the origin failed"),
            Ok(response) => assert_eq!(response.status(), 500),
        }
        assert_eq!(
            (site.calls(), site.larder.entries(), site.larder.flights()),
            (100, 0, 0),
            "{failing}"
        );
        site.get("/").await;
        assert!(site.get("/").await.hit(), "{failing}: an error leaves no mark behind");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_cancelled_requests_leave_nothing_behind() {
    let site = Site::new(Origin::new(|call, _| async move {
        for _ in 0..call % 4 {
            yield_now().await;
        }
        Ok(response("max-age=60", call.to_string()))
    }));
    for n in 0..100_000_usize {
        drop(drop_after(n % 3, site.head_of(get(&format!("/{n}")))).await);
        if n % 64 == 0 {
            yield_now().await;
        }
    }
    until("all fills have ended", || site.larder.flights() == 0).await;

    // Handlers that never answer end at the deadline.
    let never = Origin::new(|_, _| std::future::pending());
    let site = Site::with(never, |layer| layer.max_fills(10_000));
    for n in 0..10_000 {
        drop(drop_after(1, site.head_of(get(&format!("/{n}")))).await);
    }
    settle().await;
    assert!(site.larder.flights() > 9_000);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(site.larder.flights(), 0);
}

#[tokio::test(start_paused = true)]
async fn head_requests_neither_wait_nor_are_waited_for() {
    let gate = Arc::new(Notify::new());
    let site = Arc::new(Site::new(slow(gate.clone())));
    let crowd = crowd(&site, 10, None).await;
    let heading = site.clone();
    let head =
        tokio::spawn(
            async move { heading.head_of(request("HEAD", "/", &[])).await.unwrap().status() },
        );
    settle().await;
    assert_eq!(site.calls(), 2);
    for _ in 0..12 {
        gate.notify_one();
        settle().await;
    }
    assert_eq!(head.await.unwrap(), 200);
    all(crowd).await;
    assert_eq!(site.calls(), 2);
}
