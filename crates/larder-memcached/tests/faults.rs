//! A server and a network that fail in every way: each call ends in time, nothing wrong is read, all heals by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{LONG, body, eventually, every_verb, expect_all_work, key, read, shop, store, text};
use larder_core::{
    Backend, Begin, Counter, Encoded, Entry, ErrorKind, Key, Outcome, Revision, Token, When,
};
use larder_memcached::{Builder, MemcachedBackend};
use larder_testkit::cancel::drop_later;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::MemcachedServer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod common;

// Short limits, for what fails.
fn hasty(url: &str) -> Builder {
    common::builder(url)
        .response_timeout(Duration::from_millis(400))
        .connect_timeout(Duration::from_millis(800))
}

// What has short limits may be late on a busy machine: it is made, and has stored an entry, when it had the time.
async fn working(builder: Builder) -> MemcachedBackend {
    let backend = builder.connect_later().unwrap();
    eventually("the first entry", async || {
        backend.put(&key("there"), text("there"), LONG.into(), When::Always).await.is_ok()
    })
    .await;
    backend
}

async fn through_proxy(
    build: impl Fn(&str) -> Builder,
) -> (MemcachedServer, FaultProxy, MemcachedBackend) {
    let server = MemcachedServer::start().await;
    let proxy = FaultProxy::start(server.address()).await;
    let backend = working(build(&server.url_at(proxy.port()))).await;
    (server, proxy, backend)
}

async fn expect_outage(backend: &MemcachedBackend) {
    for (verb, error) in every_verb(backend, &shop()).await {
        let error = error.unwrap_or_else(|| panic!("{verb} succeeded without a server"));
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Ambiguous];
        assert!(kinds.contains(&error.kind()), "{verb}: {error:?}");
    }
}

// With limits as short as these, a busy machine may make one verb of many late.
async fn expect_recovery(backend: &MemcachedBackend) {
    eventually("the recovery", async || {
        every_verb(backend, &shop()).await.iter().all(|(_, error)| error.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server() {
    let mut server = MemcachedServer::start().await;
    let backend = working(hasty(&server.url())).await;
    server.kill();
    expect_outage(&backend).await;
    server.restart().await;
    expect_recovery(&backend).await;
    eventually("a look at the new server", async || {
        let found = backend.get(&key("there"), &[]).await;
        assert!(found.as_ref().is_ok_and(|found| found.entry.is_none()) || found.is_err());
        found.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server() {
    let server = MemcachedServer::start().await;
    let backend = working(hasty(&server.url())).await;
    server.freeze();
    expect_outage(&backend).await;
    server.thaw();
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_closed_is_replaced_before_anybody_notices() {
    let (_server, proxy, backend) = through_proxy(common::builder).await;
    proxy.cut();
    eventually("a new connection", async || proxy.accepted() == 2).await;
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_for_replies_and_for_requests() {
    for direction in [Direction::Replies, Direction::Requests] {
        for mode in [Mode::Swallow, Mode::Hold, Mode::Throttle(1), Mode::Delay(LONG)] {
            let (_server, proxy, backend) = through_proxy(hasty).await;
            proxy.set(direction, mode);
            expect_outage(&backend).await;
            proxy.heal();
            proxy.cut();
            expect_recovery(&backend).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_connection_that_is_never_closed() {
    let (_server, proxy, backend) = through_proxy(hasty).await;
    proxy.set(Direction::Replies, Mode::Swallow);
    expect_outage(&backend).await;
    proxy.set(Direction::Replies, Mode::Pass);
    // The connections from before are still open and dead; no cut tells so.
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_within_the_limit() {
    let (_server, proxy, backend) = through_proxy(common::builder).await;
    proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(20)));
    expect_all_work(&backend, &shop()).await;
    assert_eq!(proxy.accepted(), 1, "slow is no reason to connect again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_at_the_start() {
    let mut server = MemcachedServer::start().await;
    server.kill();
    let error = hasty(&server.url()).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let backend = hasty(&server.url()).connect_later().unwrap();
    expect_outage(&backend).await;
    server.restart().await;
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_cut_at_every_byte_are_asked_for_again() {
    let (_server, proxy, backend) = through_proxy(common::builder).await;
    let keys: Vec<Key> = (0..4).map(|n| key(&format!("cut {n}"))).collect();
    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &format!("value {n}")).await;
    }
    // Four replies have some 700 bytes. A replacement without a pause is due every two seconds only.
    for at in (0..800).step_by(13) {
        proxy.set(Direction::Replies, Mode::CutAfter(at));
        let found = eventually_read(&backend, &keys).await;
        for (n, value) in found.iter().enumerate() {
            assert_eq!(value.as_deref(), Some(&*format!("value {n}")), "cut after {at}");
        }
        proxy.set(Direction::Replies, Mode::Pass);
    }
}

async fn eventually_read(backend: &MemcachedBackend, keys: &[Key]) -> Vec<Option<String>> {
    for _ in 0..6000 {
        if let Ok(found) = backend.get_many(keys).await {
            return found.iter().map(|entry| entry.as_ref().map(body)).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection does not come back");
}

// The reply to a conditional write is lost: what became of it is looked up, and found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_looked_up() {
    let server = MemcachedServer::start().await;
    let proxy = FaultProxy::start(server.address()).await;
    for when in ["absent", "revision", "token"] {
        let mut found_out = 0;
        // A question for the time may come in between, and then it is something else that is cut.
        for n in 0..10 {
            // A new backend each time, whose lost connection is replaced at once.
            let builder = common::builder(&server.url_at(proxy.port())).generation_max_age(LONG);
            let backend = builder.connect().await.unwrap();
            let (key, revision) = (key(&format!("{when} {n}")), Revision::random());
            assert_eq!(read(&backend, &key).await, None);
            let condition = match when {
                "absent" => When::Absent,
                "revision" => {
                    let old = text("old").with_revision(revision);
                    let _ = backend.put(&key, old, LONG.into(), When::Always).await.unwrap();
                    When::Revision(revision)
                }
                _ => match backend.begin(&key, LONG).await.unwrap() {
                    Begin::Token(token) => When::Token(token),
                    other => panic!("{other:?}"),
                },
            };
            // An `Absent` is one reply; the others read what is there first, as this does.
            let before = proxy.bytes(Direction::Replies);
            if when != "absent" {
                assert!(!backend.renew(&key, Token::random(), LONG).await.unwrap());
            }
            let reading = proxy.bytes(Direction::Replies) - before;
            let connections = proxy.accepted();
            proxy.set(Direction::Replies, Mode::CutAfter(reading + 2));
            let outcome = backend.put(&key, text("new"), LONG.into(), condition).await;
            proxy.heal();
            match outcome {
                Ok(outcome) => {
                    assert_eq!(outcome, Outcome::Stored, "{when}");
                    assert_eq!(read(&backend, &key).await.as_deref(), Some("new"), "{when}");
                    found_out += usize::from(proxy.accepted() > connections);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Ambiguous, "{when}: {error:?}"),
            }
            if found_out > 0 {
                break;
            }
        }
        assert!(found_out > 0, "{when}: nothing was found out");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_reply_was_lost_is_not_told_to_have_been_somebody_elses() {
    let (_server, proxy, backend) = through_proxy(common::builder).await;
    // Questions for the time come in between, and then it is something else that is cut.
    for n in 0..200 {
        let key = key(&format!("held {n}"));
        eventually("a connection", async || backend.get(&key, &[]).await.is_ok()).await;
        let Ok(Begin::Token(token)) = backend.begin(&key, LONG).await else { continue };
        // A release reads the marker, as this does, and takes it away then.
        let before = proxy.bytes(Direction::Replies);
        let _ = backend.renew(&key, Token::random(), LONG).await;
        let reading = proxy.bytes(Direction::Replies) - before;
        proxy.set(Direction::Replies, Mode::CutAfter(reading + 2));
        let released = backend.release(&key, token, None).await;
        proxy.heal();
        match released.map_err(|error| error.kind()) {
            Ok(true) | Err(ErrorKind::Unavailable) => {}
            Err(ErrorKind::Ambiguous) => return,
            told => panic!("{told:?}"),
        }
    }
    panic!("no reply was lost");
}

// How many requests are dropped.
fn drops(usual: usize) -> usize {
    std::env::var("LARDER_DROPS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

// Large values under many keys, and requests that are dropped at any poll, through a network that loses its pace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_reaches_another_request() {
    let (_server, proxy, backend) = through_proxy(common::builder).await;
    let value = |n: usize| Bytes::from(vec![n as u8 + 1; 1000 + n * 40_000]);
    let entry = |n| Entry::wire(Encoded { codec: 200, head: Bytes::new(), body: value(n) });
    for n in 0..20 {
        let put = backend.put(&key(&format!("{n}")), entry(n), LONG.into(), When::Always).await;
        assert_eq!(put.unwrap(), Outcome::Stored);
    }
    proxy.set(Direction::Replies, Mode::Jitter(Duration::from_millis(2)));
    let drops = drops(2_000);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let backend = backend.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(task);
                let (mut dropped, mut read) = (0, 0);
                while dropped < drops / 8 {
                    let n = random.random_range(0..20);
                    let key = key(&format!("{n}"));
                    let (polls, turns) = (random.random_range(1..4), random.random_range(0..4));
                    let found = if dropped % 10 == 0 {
                        Some(backend.get(&key, &[]).await)
                    } else {
                        drop_later(polls, turns, backend.get(&key, &[])).await
                    };
                    let Some(found) = found else {
                        dropped += 1;
                        continue;
                    };
                    dropped += 1;
                    read += 1;
                    let entry = found.unwrap().entry.expect("it is there");
                    assert!(entry.encoded().unwrap().body == value(n), "another request's reply");
                }
                read
            })
        })
        .collect();
    let mut read = 0;
    for task in tasks {
        read += task.await.unwrap();
    }
    assert!(read > drops / 20, "{read} were read to the end");
    proxy.heal();
    assert_eq!(proxy.accepted(), 1, "dropping requests costs no connection");
    expect_all_work(&backend, &shop()).await;
}

// Reads and changes of values and counters that are dropped at any poll, and connections that are cut at any byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_reaches_another_key_whatever_is_cut_and_dropped() {
    let (_server, proxy, backend) = through_proxy(common::builder).await;
    proxy.set(Direction::Replies, Mode::Jitter(Duration::from_millis(3)));
    let drops = drops(10_000);
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let backend = backend.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(task as u64);
                let mut good = 0;
                for round in 0..drops / 16 {
                    // Calls in an outage prove nothing.
                    while backend.get(&key("there"), &[]).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    let n = (round * 7 + task) % 32;
                    let (own, counter) = (format!("own {n}"), key(&format!("count {n}")));
                    let (polls, turns) = (random.random_range(0..6), random.random_range(0..4));
                    let counts_here = |sum: i64| sum / 1_000_000 == n as i64;
                    match round % 4 {
                        0 => {
                            let (key, value) = (key(&own), text(&own));
                            let put = backend.put(&key, value, LONG.into(), When::Always);
                            let _ = drop_later(polls, turns, put).await;
                        }
                        1 => {
                            let create =
                                Some(Counter { initial: n as i64 * 1_000_000, ttl: LONG.into() });
                            // It looks first, and stores then.
                            let add = backend.add(&counter, 1, create);
                            if let Some(Ok(sum)) = drop_later(polls * 2, turns, add).await {
                                assert!(sum.is_some_and(counts_here), "{n}: {sum:?}");
                            }
                        }
                        _ => {
                            let (key, counters) = (key(&own), [counter]);
                            let get = backend.get(&key, &counters);
                            if let Some(Ok(found)) = drop_later(polls * 3, turns, get).await {
                                let sum = found.counters[0];
                                assert!(sum.is_none_or(counts_here), "{n}: {sum:?}");
                                let value = found.entry.as_ref().map(body);
                                good += usize::from(value.is_some() && sum.is_some());
                                assert!(value.is_none() || value == Some(own), "{n}: {value:?}");
                            }
                        }
                    }
                }
                good
            })
        })
        .collect();
    while tasks.iter().any(|task| !task.is_finished()) {
        proxy.set(Direction::Replies, Mode::CutAfter(rand::random_range(0..2000)));
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.set(Direction::Replies, Mode::Jitter(Duration::from_millis(3)));
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let mut good = 0;
    for task in tasks {
        good += task.await.unwrap();
    }
    assert!(good > drops / 100, "only {good} reads found both");
    assert!(proxy.accepted() > 2, "the connection was cut");
    proxy.heal();
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_lose_their_server_together() {
    let mut server = MemcachedServer::start().await;
    let backend = working(hasty(&server.url()).connections(2)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let (backend, stop) = (backend.clone(), stop.clone());
            tokio::spawn(async move {
                let k = key(&format!("task {n}"));
                while !stop.load(Ordering::Relaxed) {
                    let put =
                        backend.put(&k, text(&format!("{n}")), LONG.into(), When::Always).await;
                    if let Err(error) = put {
                        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
                        assert!(kinds.contains(&error.kind()), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    if let Ok(found) = backend.get(&k, &[]).await {
                        let found = found.entry.as_ref().map(body);
                        assert!(found.is_none() || found == Some(n.to_string()));
                    }
                }
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("nobody hangs").unwrap();
    }
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_nothing_after_the_first_calls() {
    let (_server, proxy, backend) = through_proxy(hasty).await;
    proxy.set(Direction::Replies, Mode::Swallow);
    eventually("the outage", async || {
        matches!(backend.get(&key("k"), &[]).await, Err(e) if e.kind() == ErrorKind::Unavailable)
    })
    .await;
    let (bytes, accepted) = (proxy.bytes(Direction::Requests), proxy.accepted());
    for _ in 0..20_000 {
        assert!(backend.get(&key("k"), &[]).await.is_err());
    }
    let attempts = (proxy.accepted() - accepted) as u64;
    let bytes = proxy.bytes(Direction::Requests) - bytes;
    assert!(bytes <= 1000 * (attempts + 1), "operations went to a dead server: {bytes} bytes");
}

#[test]
fn a_backend_outlives_the_runtime_that_made_it() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (first, second) = (runtime(), runtime());
    let server = first.block_on(MemcachedServer::start());
    let backend = first.block_on(common::builder(&server.url()).connect()).unwrap();
    first.block_on(store(&backend, &key("k"), "v"));
    drop(first);
    second.block_on(async {
        eventually("a connection of the other runtime", async || {
            backend.get(&key("k"), &[]).await.is_ok()
        })
        .await;
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"));
    });
}
