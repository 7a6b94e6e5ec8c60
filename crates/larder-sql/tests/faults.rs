//! A server and a network that fail in every way: each call ends in time, nothing wrong is read, all heals by itself.
#![cfg(feature = "postgres")]

use std::time::Duration;

use common::{LONG, eventually, every_verb, expect_all_work, key, read, shop, store, text};
use larder_core::{Backend, Counter, ErrorKind, Key, Outcome, When};
use larder_sql::{Builder, Postgres, PostgresBackend};
use larder_testkit::cancel::drop_later;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::PostgresServer;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

mod common;

fn builder(url: &str) -> Builder<Postgres> {
    PostgresBackend::builder()
        .url(url)
        .unwrap()
        .create(true)
        .max_connections(2)
        .response_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(2))
}

// The table is made by one who has time.
async fn prepared() -> PostgresServer {
    let server = PostgresServer::start().await;
    let patient = builder(&server.url()).connect_timeout(Duration::from_secs(60));
    let patient = patient.response_timeout(Duration::from_secs(60)).connect().await.unwrap();
    store(&patient, &key("there"), "there").await;
    server
}

async fn through_proxy() -> (PostgresServer, FaultProxy, PostgresBackend) {
    let server = prepared().await;
    let proxy = FaultProxy::start(server.address()).await;
    // Each call of an outage takes as long.
    let limit = Duration::from_millis(500);
    let builder = builder(&server.url_at(proxy.port())).response_timeout(limit);
    let backend = builder.connect_timeout(limit).connect_later().unwrap();
    eventually("a connection", async || backend.get(&key("there"), &[]).await.is_ok()).await;
    (server, proxy, backend)
}

async fn expect_outage(backend: &PostgresBackend) {
    for (verb, error) in every_verb(backend, &shop()).await {
        let error = error.unwrap_or_else(|| panic!("{verb} succeeded without a server"));
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Ambiguous];
        assert!(kinds.contains(&error.kind()), "{verb}: {error:?}");
    }
}

async fn expect_recovery(backend: &PostgresBackend) {
    eventually("the recovery", async || {
        every_verb(backend, &shop()).await.iter().all(|(_, error)| error.is_none())
    })
    .await;
}

// No session of ours waits inside a transaction.
async fn expect_no_open_transaction(server: &PostgresServer) {
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'larder' AND state LIKE 'idle in%'";
    let open: i64 = sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap();
    assert_eq!(open, 0, "idle in transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server() {
    let mut server = prepared().await;
    let backend = builder(&server.url()).connect().await.unwrap();
    server.kill();
    expect_outage(&backend).await;
    server.restart().await;
    eventually("the recovery", async || backend.get(&key("there"), &[]).await.is_ok()).await;
    assert_eq!(read(&backend, &key("there")).await.as_deref(), Some("there"), "it is durable");
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server() {
    let server = prepared().await;
    let backend = builder(&server.url()).response_timeout(Duration::from_millis(300));
    let backend = backend.connect_later().unwrap();
    eventually("a connection", async || backend.get(&key("there"), &[]).await.is_ok()).await;
    server.freeze();
    expect_outage(&backend).await;
    server.thaw();
    expect_recovery(&backend).await;
    expect_no_open_transaction(&server).await;
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
    let (server, proxy, _) = through_proxy().await;
    let backend = builder(&server.url_at(proxy.port())).max_connections(1);
    let backend = backend.response_timeout(Duration::from_secs(60)).connect().await.unwrap();
    let before = proxy.accepted();
    proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(20)));
    expect_all_work(&backend, &shop()).await;
    assert_eq!(proxy.accepted(), before, "slow is no reason to connect again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_nothing_after_the_first_calls() {
    let (_server, proxy, backend) = through_proxy().await;
    proxy.refuse(true);
    // A connection that was just being made is not there yet for the first cut.
    let failing = async || {
        proxy.cut();
        backend.get(&key("k"), &[]).await.is_err()
    };
    eventually("the outage", failing).await;
    let mut quick = 0;
    for _ in 0..2_000 {
        let error = backend.get(&key("k"), &[]).await.unwrap_err();
        quick += usize::from(error.to_string().contains("after a pause"));
    }
    assert!(quick > 1_000, "{quick} of 2000 calls asked nobody");
    proxy.refuse(false);
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_at_the_start() {
    let mut server = prepared().await;
    server.kill();
    let error = builder(&server.url()).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let backend = builder(&server.url()).connect_later().unwrap();
    expect_outage(&backend).await;
    server.restart().await;
    expect_recovery(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_cut_at_every_byte_are_asked_for_again() {
    let (server, proxy, _) = through_proxy().await;
    let keys: Vec<Key> = (0..4).map(|n| key(&format!("cut {n}"))).collect();
    let patient = || {
        let builder = builder(&server.url_at(proxy.port())).max_connections(1);
        builder.response_timeout(Duration::from_secs(60)).connect_timeout(Duration::from_secs(60))
    };
    let backend = patient().connect().await.unwrap();
    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &format!("value {n}")).await;
    }
    let mut repaired = 0;
    for cut in (0..).step_by(7) {
        assert_eq!(read(&backend, &keys[0]).await.as_deref(), Some("value 0"));
        // The first loss is repaired within the call; what connects anew is not cut again.
        let before = proxy.accepted();
        proxy.set(Direction::Replies, Mode::CutAfter(cut));
        let found = backend.get_many(&keys).await.unwrap();
        let whole = proxy.accepted() == before;
        proxy.heal();
        let found: Vec<_> = found.iter().flatten().map(common::body).collect();
        assert_eq!(found, ["value 0", "value 1", "value 2", "value 3"], "cut after {cut}");
        if whole {
            break;
        }
        repaired += 1;
    }
    assert!(repaired > 50, "{repaired} replies were cut, each in another place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_write_whose_answer_is_lost_is_looked_up() {
    let (server, proxy, _) = through_proxy().await;
    let builder = builder(&server.url_at(proxy.port())).max_connections(1);
    let builder = builder.connect_timeout(Duration::from_secs(60));
    let backend = builder.response_timeout(Duration::from_secs(3)).connect().await.unwrap();
    let (mut stored, mut ambiguous) = (0, 0);
    for round in 0..6 {
        let k = key(&format!("lost {round}"));
        eventually("a connection", async || backend.get(&k, &[]).await.is_ok()).await;
        // Prepared before, so that only the answer is missing.
        let _ = backend.put(&key("warm"), text("v"), LONG.into(), When::Absent).await.unwrap();
        backend.remove(&key("warm"), None).await.unwrap();
        proxy.set(Direction::Replies, Mode::CutAfter(0));
        let write = tokio::spawn({
            let (backend, k) = (backend.clone(), k.clone());
            async move { backend.put(&k, text("mine"), LONG.into(), When::Absent).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.heal();
        match write.await.unwrap() {
            Ok(Outcome::Stored) => stored += 1,
            Ok(Outcome::Refused) => panic!("nobody else writes it"),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Other, "{error:?}");
                ambiguous += 1;
            }
        }
    }
    assert!(stored > 0, "{stored} were looked up, {ambiguous} could not be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_are_dropped_leave_connections_whole_and_no_transaction() {
    let server = prepared().await;
    let backend = builder(&server.url()).max_connections(1);
    let backend = backend.response_timeout(Duration::from_secs(60)).connect().await.unwrap();
    let keys: Vec<Key> = (0..8).map(|n| key(&format!("own {n}"))).collect();
    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &format!("own {n}")).await;
    }
    let counter = key("counter");
    for round in 0..400 {
        let n = round % keys.len();
        let (polls, turns) = (round % 4, round % 7);
        drop_later(polls, turns, backend.get(&keys[n], &[])).await;
        let create = Some(Counter { initial: 0, ttl: LONG.into() });
        drop_later(polls, turns, backend.add(&counter, 1, create)).await;
        drop_later(polls, turns, backend.get_many(&keys)).await;
        drop_later(polls, turns, backend.invalidate(&shop(), &[common::tag("t")])).await;
        // The next caller, on the only connection there is, reads its own answer.
        let next = (round + 3) % keys.len();
        assert_eq!(read(&backend, &keys[next]).await, Some(format!("own {next}")));
    }
    expect_no_open_transaction(&server).await;
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'larder'";
    let open: i64 = sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap();
    assert!(open <= 2, "{open} connections are open");

    // One that its user drops with a transaction open is closed, and its locks are free.
    let mut connection = backend.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    backend.invalidate_in(&mut transaction, &shop(), &[common::tag("t")]).await.unwrap();
    drop(transaction);
    drop(connection);
    backend.invalidate(&shop(), &[common::tag("t")]).await.unwrap();
    eventually("the end of it", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut raw).await.unwrap() == 0
    })
    .await;
}
