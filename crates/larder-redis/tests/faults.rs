//! A server and a network that fail in every way: each call ends in time, nothing wrong is read, all heals by itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{
    LONG, ask, eventually, every_verb, expect_all_work, key, raw, read, shop, store, text,
};
use larder_core::{Backend, Begin, Counter, ErrorKind, Key, Outcome, Put, Revision, When};
use larder_redis::{Builder, RedisBackend};
use larder_testkit::cancel::drop_later;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod common;

fn builder(url: &str) -> Builder {
    RedisBackend::builder()
        .url(url)
        .unwrap()
        .response_timeout(Duration::from_millis(200))
        .connect_timeout(Duration::from_millis(400))
}

async fn through_proxy() -> (RedisServer, FaultProxy, RedisBackend) {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.address()).await;
    let backend = builder(&server.url_at(proxy.port())).connect().await.unwrap();
    store(&backend, &key("there"), "there").await;
    (server, proxy, backend)
}

async fn expect_outage(backend: &RedisBackend) {
    for (verb, error) in every_verb(backend, &shop()).await {
        let error = error.unwrap_or_else(|| panic!("{verb} succeeded without a server"));
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Ambiguous];
        assert!(kinds.contains(&error.kind()), "{verb}: {error:?}");
    }
}

async fn expect_recovery(backend: &RedisBackend) {
    eventually("the recovery", async || backend.get(&key("any"), &[]).await.is_ok()).await;
    expect_all_work(backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server() {
    let mut server = RedisServer::start().await;
    let backend = builder(&server.url()).connect().await.unwrap();
    store(&backend, &key("there"), "there").await;
    server.kill();
    expect_outage(&backend).await;
    server.restart().await;
    expect_recovery(&backend).await;
    assert_eq!(read(&backend, &key("there")).await, None, "the new server is empty");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_closed_is_replaced_before_anybody_notices() {
    let (_server, proxy, backend) = through_proxy().await;
    proxy.cut();
    eventually("a new connection", async || proxy.accepted() == 2).await;
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server() {
    let server = RedisServer::start().await;
    let backend = builder(&server.url()).connect().await.unwrap();
    store(&backend, &key("there"), "there").await;
    server.freeze();
    expect_outage(&backend).await;
    server.thaw();
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_for_replies_and_for_requests() {
    for direction in [Direction::Replies, Direction::Requests] {
        for mode in [Mode::Swallow, Mode::Hold, Mode::Throttle(1), Mode::Delay(LONG)] {
            let (_server, proxy, backend) = through_proxy().await;
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
    let (_server, proxy, backend) = through_proxy().await;
    proxy.set(Direction::Replies, Mode::Swallow);
    expect_outage(&backend).await;
    proxy.set(Direction::Replies, Mode::Pass);
    // The connections from before are still open and dead; no cut tells so.
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_within_the_limit() {
    let (_server, proxy, backend) = through_proxy().await;
    proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(20)));
    expect_all_work(&backend, &shop()).await;
    assert_eq!(proxy.accepted(), 1, "slow is no reason to connect again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_nothing_after_the_first_calls() {
    let (_server, proxy, backend) = through_proxy().await;
    proxy.set(Direction::Replies, Mode::Swallow);
    eventually("the outage", async || {
        matches!(backend.get(&key("k"), &[]).await, Err(e) if e.kind() == ErrorKind::Unavailable)
    })
    .await;
    let (bytes, accepted) = (proxy.bytes(Direction::Requests), proxy.accepted());
    for _ in 0..20_000 {
        assert!(backend.get(&key("k"), &[]).await.is_err());
    }
    let attempts = proxy.accepted() - accepted;
    let bytes = proxy.bytes(Direction::Requests) - bytes;
    assert!(
        bytes <= 10_000 * (attempts as u64 + 1),
        "operations went to a dead server: {bytes} bytes"
    );

    // One attempt at a time, with pauses: at most one for each limit plus half a second once they have grown.
    let before = proxy.accepted();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let attempts = proxy.accepted() - before;
    assert!((1..=8).contains(&attempts), "{attempts} attempts in three seconds");
    assert!(proxy.open() <= 12, "{} connections are open", proxy.open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_at_the_start() {
    let mut server = RedisServer::start().await;
    server.kill();
    let error = builder(&server.url()).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let backend = builder(&server.url()).connect_later().unwrap();
    expect_outage(&backend).await;
    server.restart().await;
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_cut_at_every_byte_are_asked_for_again() {
    let (server, proxy, backend) = through_proxy().await;
    let keys: Vec<Key> = (0..4).map(|n| key(&format!("cut {n}"))).collect();
    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &format!("value {n}")).await;
    }
    // A reply has less than 200 bytes, and four of them less than 700.
    for cut in 0..250 {
        // One loss is repaired within the call; a connection that is lost again and again is not.
        let fresh = builder(&server.url_at(proxy.port())).response_timeout(Duration::from_secs(5));
        let fresh = fresh.connect().await.unwrap();
        assert_eq!(read(&fresh, &keys[0]).await.as_deref(), Some("value 0"));
        proxy.set(Direction::Replies, Mode::CutAfter(cut));
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(read(&fresh, key).await, Some(format!("value {n}")), "cut after {cut}");
        }
        proxy.heal();
        if cut % 5 > 0 {
            continue;
        }
        let fresh = builder(&server.url_at(proxy.port())).response_timeout(Duration::from_secs(5));
        let fresh = fresh.connect().await.unwrap();
        read(&fresh, &keys[0]).await;
        proxy.set(Direction::Replies, Mode::CutAfter(cut * 3));
        let found = fresh.get_many(&keys).await.unwrap();
        let found: Vec<_> = found.iter().flatten().map(common::body).collect();
        assert_eq!(found, ["value 0", "value 1", "value 2", "value 3"], "cut after {cut}");
        proxy.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_reaches_another_key_whatever_is_cut_and_dropped() {
    let (_server, proxy, backend) = through_proxy().await;
    proxy.set(Direction::Replies, Mode::Jitter(Duration::from_millis(3)));
    let drops: usize =
        std::env::var("LARDER_DROPS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let wrong = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (backend, wrong) = (backend.clone(), wrong.clone());
        tasks.push(tokio::spawn(async move {
            let mut good = 0_u64;
            for round in 0..drops / 16 {
                // Calls in an outage prove nothing.
                while backend.get(&key("there"), &[]).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let n = (round * 7 + task) % 32;
                let (k, counter) = (key(&format!("own {n}")), key(&format!("count {n}")));
                let (polls, turns) = (rand::random_range(0..6), rand::random_range(0..4));
                match round % 4 {
                    0 => {
                        let put =
                            backend.put(&k, text(&format!("own {n}")), LONG.into(), When::Always);
                        let _ = drop_later(polls, turns, put).await;
                    }
                    1 => {
                        let create =
                            Some(Counter { initial: n as i64 * 1_000_000, ttl: LONG.into() });
                        let add = backend.add(&counter, 1, create);
                        if let Some(Ok(Some(sum))) = drop_later(polls, turns, add).await {
                            wrong.fetch_add(
                                usize::from(sum / 1_000_000 != n as i64),
                                Ordering::Relaxed,
                            );
                        }
                    }
                    _ => {
                        let get = backend.get(&k, std::slice::from_ref(&counter));
                        if let Some(Ok(found)) = drop_later(polls * 3, turns, get).await {
                            let other =
                                |e: &larder_core::Entry| common::body(e) != format!("own {n}");
                            let count =
                                found.counters[0].is_some_and(|c| c / 1_000_000 != n as i64);
                            let value = found.entry.as_ref().is_some_and(other);
                            wrong.fetch_add(
                                usize::from(count) + usize::from(value),
                                Ordering::Relaxed,
                            );
                            good += 1;
                        }
                    }
                }
            }
            good
        }));
    }
    let cutter = async {
        while tasks.iter().any(|task| !task.is_finished()) {
            proxy.set(Direction::Replies, Mode::CutAfter(rand::random_range(0..2000)));
            tokio::time::sleep(Duration::from_millis(100)).await;
            proxy.set(Direction::Replies, Mode::Jitter(Duration::from_millis(3)));
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    cutter.await;
    let mut good = 0;
    for task in tasks {
        good += task.await.unwrap();
    }
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    assert!(good > drops as u64 / 100, "only {good} reads were answered");
    assert!(proxy.accepted() > 2, "the connection was cut");
    proxy.heal();
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_of_a_conditional_write_is_looked_up() {
    let (server, proxy, backend) = through_proxy().await;
    let k = key("conditional");
    // A client that loses the reply to the next request, and may connect again at once.
    let unlucky = async || {
        let fresh = builder(&server.url_at(proxy.port())).response_timeout(Duration::from_secs(5));
        let fresh = fresh.connect().await.unwrap();
        read(&fresh, &key("there")).await;
        proxy.set(Direction::Replies, Mode::CutAfter(0));
        fresh
    };
    for when in [When::Absent, When::Always, When::Present] {
        let unlucky = unlucky().await;
        let outcome = unlucky.put(&k, text(&format!("{when:?}")), LONG.into(), when).await;
        assert_eq!(outcome.unwrap(), Outcome::Stored, "{when:?}");
        assert_eq!(read(&backend, &k).await, Some(format!("{when:?}")));
    }
    let put = |when| Put { key: k.clone(), entry: text("one of two"), ttl: LONG.into(), when };
    let outcomes =
        unlucky().await.put_many(vec![put(When::Always), put(When::Absent)]).await.unwrap();
    let kinds: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Ok(Outcome::Stored), Err(ErrorKind::Ambiguous)], "each for itself");

    let refused = unlucky().await.put(&k, text("never"), LONG.into(), When::Absent).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Ambiguous, "nobody knows");
    let removed = unlucky().await.remove(&k, Some(Revision::random())).await;
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::Ambiguous, "nobody knows");

    let create = Some(Counter { initial: 0, ttl: LONG.into() });
    let added = unlucky().await.add(&key("lost"), 1, create).await;
    assert_eq!(added.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(backend.add(&key("lost"), 1, None).await.unwrap(), Some(2), "it was added once");

    let Begin::Token(token) = backend.begin(&key("held"), LONG).await.unwrap() else { panic!() };
    let renewed = unlucky().await.renew(&key("held"), token, LONG).await;
    assert!(renewed.unwrap(), "a second time is as good as one");
    let released = unlucky().await.release(&key("held"), token, None).await;
    assert_eq!(released.unwrap_err().kind(), ErrorKind::Ambiguous, "by this or by somebody else");
    assert!(!backend.renew(&key("held"), token, LONG).await.unwrap(), "it is gone");

    let unlucky = unlucky().await;
    let Begin::Token(token) = unlucky.begin(&key("fill"), LONG).await.unwrap() else {
        panic!("the first try's marker is recognised")
    };
    let filled = unlucky.put(&key("fill"), text("filled"), LONG.into(), When::Token(token)).await;
    assert_eq!(filled.unwrap(), Outcome::Stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_write_in_a_black_hole_is_ambiguous() {
    let (_server, proxy, backend) = through_proxy().await;
    proxy.set(Direction::Replies, Mode::Swallow);
    let outcome = backend.put(&key("k"), text("v"), LONG.into(), When::Absent).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Ambiguous);
    proxy.heal();
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_becomes_a_replica_and_a_primary_again() {
    let server = RedisServer::start().await;
    let other = RedisServer::start().await;
    let backend = builder(&server.url()).connect().await.unwrap();
    store(&backend, &key("there"), "there").await;
    let port = other.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
    let write = backend.put(&key("k"), text("v"), LONG.into(), When::Always).await;
    assert_eq!(write.unwrap_err().kind(), ErrorKind::Unavailable);
    // Its data may be behind: it is not read either.
    expect_outage(&backend).await;
    let error = backend.get(&key("k"), &[]).await.unwrap_err();
    assert!(error.to_string().contains("replica"), "{error}");
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    expect_recovery(&backend).await;
}

// Says the same to every command but those with which a connection begins.
async fn scripted(answer: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    let commands = text.matches("*").filter(|_| true).count();
                    let reply = match text {
                        _ if text.contains("SETINFO") => {
                            "+OK\r\n".repeat(text.matches("SETINFO").count())
                        }
                        _ if text.contains("ROLE") => {
                            let loads = text.matches("\r\nLOAD\r\n").count();
                            "*1\r\n$6\r\nmaster\r\n".to_owned() + &"+OK\r\n".repeat(loads)
                        }
                        _ if text.contains("TIME\r\n") && commands == 1 => {
                            "*2\r\n$10\r\n1767225600\r\n$1\r\n0\r\n".to_owned()
                        }
                        _ => format!("{answer}\r\n").repeat(commands),
                    };
                    if stream.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_refuse_to_work() {
    for (answer, kind) in [
        ("-LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
        ("-MASTERDOWN Link with MASTER is down", ErrorKind::Unavailable),
        ("-CLUSTERDOWN Hash slot not served", ErrorKind::Unavailable),
        ("-MOVED 3999 127.0.0.1:6381", ErrorKind::Unavailable),
        ("-READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
        ("-NOAUTH Authentication required.", ErrorKind::Unavailable),
        (
            "-NOPERM User canary has no permissions to run 'get' on key canary",
            ErrorKind::Configuration,
        ),
        ("-canary:42 somebody's data", ErrorKind::Other),
        ("+PONG", ErrorKind::Unavailable),
        (":12", ErrorKind::Unavailable),
        ("?", ErrorKind::Unavailable),
    ] {
        let backend = builder(&format!("redis://127.0.0.1:{}", scripted(answer).await));
        let backend = backend.connect().await.unwrap_or_else(|error| panic!("{answer}: {error}"));
        for _ in 0..3 {
            let error = backend.get(&key("k"), &[]).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{answer}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_writes_and_serves_the_rest() {
    let server = RedisServer::options().max_memory("3mb", "noeviction").start().await;
    let backend = builder(&server.url()).connect().await.unwrap();
    store(&backend, &key("old"), "old").await;
    store(&backend, &key("other"), "other").await;
    let counter = key("counter");
    backend.add(&counter, 1, Some(Counter { initial: 0, ttl: LONG.into() })).await.unwrap();
    let mut raw = raw(&server).await;
    ask::<()>(&mut raw, &[b"CONFIG", b"SET", b"maxmemory", b"1"]).await;

    let error = backend.put(&key("old"), text("new"), LONG.into(), When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("maxmemory"), "{error}");
    assert_eq!(
        read(&backend, &key("old")).await,
        None,
        "an old value does not outlive its replacement"
    );
    assert_eq!(read(&backend, &key("other")).await.as_deref(), Some("other"));
    for when in [When::Absent, When::Present] {
        let error = backend.put(&key("other"), text("new"), LONG.into(), when).await;
        match when {
            When::Absent => assert_eq!(error.unwrap(), Outcome::Refused),
            _ => assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable),
        }
    }
    assert_eq!(read(&backend, &key("other")).await, None);
    assert!(backend.remove(&counter, None).await.unwrap());
    // A node that does not know the generation yet can read and clear all the same.
    let second = builder(&server.url()).connect().await.unwrap();
    assert_eq!(read(&second, &key("other")).await, None);
    second.clear(&shop()).await.unwrap();
    ask::<()>(&mut raw, &[b"CONFIG", b"SET", b"maxmemory", b"0"]).await;
    expect_all_work(&backend, &shop()).await;
    expect_all_work(&second, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_lose_their_server_together() {
    let mut server = RedisServer::start().await;
    let backend = builder(&server.url()).connect().await.unwrap();
    let (stop, kinds) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(BTreeSet::new())));
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let (backend, stop, kinds) = (backend.clone(), stop.clone(), kinds.clone());
            tokio::spawn(async move {
                while stop.load(Ordering::Relaxed) == 0 {
                    let k = key(&format!("task {n}"));
                    let put =
                        backend.put(&k, text(&format!("{n}")), LONG.into(), When::Always).await;
                    match put {
                        Ok(_) => tokio::task::yield_now().await,
                        Err(error) => {
                            kinds.lock().unwrap().insert(error.kind().as_str());
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    if let Ok(found) = backend.get(&k, &[]).await {
                        let found = found.entry.as_ref().map(common::body);
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
    stop.store(1, Ordering::Relaxed);
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("nobody hangs").unwrap();
    }
    let expected = BTreeSet::from(["timeout", "unavailable"]);
    let kinds = kinds.lock().unwrap().clone();
    assert!(kinds.is_subset(&expected), "{kinds:?}");
    expect_recovery(&backend).await;
}
