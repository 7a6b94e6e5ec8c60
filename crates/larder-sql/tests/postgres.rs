//! What only a real server can show: log-in, the table, hostile rows, several nodes, the server's clock.
#![cfg(feature = "postgres")]

use std::time::Duration;

use common::{LONG, eventually, expect_all_work, key, read, shop, store, tag, text};
use larder_core::{
    Backend, Clock, Counter, ErrorKind, Key, Namespace, Outcome, Prefix, Remaining, Ttl, When,
};
use larder_sql::{Builder, Postgres, PostgresBackend};
use larder_testkit::servers::PostgresServer;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

mod common;

fn patient(url: &str) -> Builder<Postgres> {
    let builder = PostgresBackend::builder().url(url).unwrap().create(true);
    builder.connect_timeout(Duration::from_secs(60)).response_timeout(Duration::from_secs(60))
}

async fn connect(server: &PostgresServer) -> PostgresBackend {
    patient(&server.url()).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_while_connecting() {
    let server = PostgresServer::start().await;
    let url = server.url();
    let limits = "?response_timeout=60s&connect_timeout=60s";
    for (wrong, kind, words) in [
        (url.replace("for-tests", "canary"), ErrorKind::Configuration, "user or the password"),
        (url.replace("larder:", "canary:"), ErrorKind::Configuration, "user or the password"),
        (
            url.replace("/postgres", "/canary").replace("canary:/", "postgres:/"),
            ErrorKind::Configuration,
            "database",
        ),
        (
            format!("postgres://canary:canary@127.0.0.1:{}/postgres", server.port()),
            ErrorKind::Configuration,
            "user or the password",
        ),
        (url.clone(), ErrorKind::Configuration, "create=true"),
    ] {
        let error = PostgresBackend::connect(&format!("{wrong}{limits}")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        let told = format!("{error:?}");
        assert!(!told.contains("canary") && !told.contains("for-tests"), "{told}");
    }
    let tls = format!("{url}{limits}&sslmode=require");
    let error = PostgresBackend::connect(&tls).await.unwrap_err();
    assert!(error.to_string().contains("sslmode"), "{error}");
    // Nobody listens there.
    let nobody = PostgresServer::start().await.url();
    let error = PostgresBackend::connect(&nobody).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("check host and port"), "{error}");

    // A table of another make, and a user who may not.
    let mut raw = PgConnection::connect(&url).await.unwrap();
    for statement in [
        "CREATE TABLE others (id bigint)",
        "CREATE ROLE guest LOGIN PASSWORD 'for-tests'",
        "CREATE SCHEMA app",
    ] {
        sqlx::query(statement).execute(&mut raw).await.unwrap();
    }
    let error = PostgresBackend::connect(&format!("{url}{limits}&table=others")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    let own = format!("{url}{limits}&table=app.cache&create=true");
    expect_all_work(&PostgresBackend::connect(&own).await.unwrap(), &shop()).await;
    let guest = format!("{}{limits}&table=app.cache", url.replace("larder:", "guest:"));
    let error = PostgresBackend::connect(&guest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    assert!(error.to_string().contains("SELECT, INSERT, UPDATE and DELETE"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_schema_is_the_one_that_is_made() {
    let server = PostgresServer::start().await;
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    let builder = patient(&server.url()).create(false);
    let schema = sqlx::AssertSqlSafe(builder.schema());
    sqlx::raw_sql(schema).execute(&mut raw).await.unwrap();
    let backend = builder.connect().await.unwrap();
    expect_all_work(&backend, &shop()).await;
    // Twice, and by several at once, is as good.
    let nodes = (0..8).map(|_| patient(&server.url()).table("fresh").unwrap().connect());
    for node in futures_util::future::join_all(nodes).await {
        expect_all_work(&node.unwrap(), &shop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_skewed_clocks_agree() {
    let server = PostgresServer::start().await;
    let (clock, hands) = Clock::manual();
    let skewed = patient(&server.url()).clock(clock).connect().await.unwrap();
    let node = connect(&server).await;
    hands.skew_wall(Duration::from_secs(10 * 365 * 24 * 3600), true);
    let _ = skewed.put(&key("k"), text("v"), LONG.into(), When::Always).await.unwrap();
    let Remaining::For(left) = node.remaining(&key("k")).await.unwrap() else { panic!("an end") };
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    hands.advance(LONG * 2);
    let entry = skewed.get(&key("k"), &[]).await.unwrap().entry.expect("the server's clock counts");
    let left = entry.remaining(skewed.clock().now()).unwrap();
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    let short = Ttl::For(Duration::from_millis(300));
    let _ = skewed.put(&key("short"), text("v"), short, When::Always).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(read(&skewed, &key("short")).await, None);
    assert_eq!(read(&node, &key("short")).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_rows_are_a_miss() {
    let server = PostgresServer::start().await;
    let backend = connect(&server).await;
    store(&backend, &key("other"), "other").await;
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    for (kind, number, value) in [
        (0_i64, None, None),
        (0, Some(7_i64), Some(vec![0xff; 300_000])),
        (1, None, Some(b"7".to_vec())),
        (2, Some(1), None),
        (4, Some(7), None),
        (99, Some(7), Some(b"LRDR\x01\x01".to_vec())),
        (-1, None, Some(b"LRDR\x01\x01".to_vec())),
    ] {
        common::postgres::plant(&backend, &key("k"), b"").await;
        sqlx::query("UPDATE larder SET kind = $1, number = $2, value = $3 WHERE name = $4")
            .bind(kind)
            .bind(number)
            .bind(value)
            .bind(common::name(&key("k")))
            .execute(&mut raw)
            .await
            .unwrap();
        let found = backend.get(&key("k"), &[key("k")]).await.unwrap();
        assert!(found.entry.is_none(), "kind {kind}");
        backend.page(&Prefix::new(&shop()), None, 10).await.unwrap();
        store(&backend, &key("k"), "v").await;
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"), "kind {kind}");
    }
    // A sequence that is none.
    backend.marks(&shop(), &[tag("t")]).await.unwrap();
    sqlx::query("DELETE FROM larder WHERE name = 'sequence'").execute(&mut raw).await.unwrap();
    expect_all_work(&backend, &shop()).await;
    assert_eq!(read(&backend, &key("other")).await, None, "it was cleared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_the_same_keys_see_neither_deadlocks_nor_errors() {
    let server = PostgresServer::start().await;
    let mut tasks = Vec::new();
    for node in 0..4 {
        let backend = connect(&server).await;
        for writer in 0..8_usize {
            let backend = backend.clone();
            tasks.push(tokio::spawn(async move {
                let mut keys: Vec<_> = (0..20).map(|n| key(&format!("{n}"))).collect();
                for round in 0..20 {
                    // In another order each time.
                    keys.rotate_left((writer * 7 + node + round) % 20);
                    let when = [When::Always, When::Absent, When::Present][(round + writer) % 3];
                    let items = keys.iter().map(|key| larder_core::Put {
                        key: key.clone(),
                        entry: text("v"),
                        ttl: LONG.into(),
                        when,
                    });
                    for outcome in backend.put_many(items.collect()).await.unwrap() {
                        let _ = outcome.unwrap();
                    }
                    if round % 4 == 0 {
                        backend.remove_many(&keys).await.unwrap();
                    }
                    let tags: Vec<_> =
                        (0..5).map(|n| tag(&format!("{}", (n + writer) % 7))).collect();
                    backend.marks(&shop(), &tags).await.unwrap();
                    backend.invalidate(&shop(), &tags).await.unwrap();
                    let create = Some(Counter { initial: 0, ttl: LONG.into() });
                    backend.add(&key("counter"), 1, create).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let backend = connect(&server).await;
    assert_eq!(backend.add(&key("counter"), 0, None).await.unwrap(), Some(4 * 8 * 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeping_removes_what_nobody_can_read() {
    let server = PostgresServer::start().await;
    let backend = patient(&server.url()).sweep_every(LONG).connect().await.unwrap();
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    let mut rows = async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM larder");
        count.fetch_one(&mut raw).await.unwrap()
    };
    let other = Namespace::new("other").unwrap();
    let short = Ttl::For(Duration::from_millis(50));
    let items = (0..700).map(|n| larder_core::Put {
        key: key(&format!("{n}")),
        entry: text("v"),
        ttl: short,
        when: When::Always,
    });
    for outcome in backend.put_many(items.collect()).await.unwrap() {
        assert_eq!(outcome.unwrap(), Outcome::Stored);
    }
    store(&backend, &key("kept"), "v").await;
    store(&backend, &Key::new(&other, ["cleared"]).unwrap(), "v").await;
    assert_eq!(rows().await, 702);
    tokio::time::sleep(Duration::from_millis(60)).await;
    backend.sweep().await.unwrap();
    assert_eq!(rows().await, 2);
    backend.clear(&other).await.unwrap();
    // The entry goes, and the namespace's generation has come.
    eventually("the sweep", async || {
        let sql = "SELECT count(*) FROM larder WHERE generation > 0";
        let mut connection = backend.acquire().await.unwrap();
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await.unwrap() == 1
    })
    .await;
    assert_eq!(read(&backend, &key("kept")).await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_lately_is_kept_when_room_is_made() {
    let server = PostgresServer::start().await;
    let backend = patient(&server.url()).max_entries(320).connect().await.unwrap();
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    for n in 0..290 {
        store(&backend, &key(&format!("{n:03}")), "v").await;
    }
    // The clock is the server's, so the rows are made old instead.
    sqlx::query("UPDATE larder SET used = used - 120000").execute(&mut raw).await.unwrap();
    // By key, the first ones would go, or the last ones; by age, any of them.
    let used: Vec<Key> = (0..290).step_by(29).map(|n| key(&format!("{n:03}"))).collect();
    for key in &used {
        // Noted in the background, and not when too much of it is under way.
        eventually("the note", async || {
            assert!(read(&backend, key).await.is_some());
            let mut connection = backend.acquire().await.unwrap();
            let query = "SELECT used >= written FROM larder WHERE name = $1 AND generation > 0";
            let query = sqlx::query_scalar::<_, bool>(query).bind(common::name(key));
            query.fetch_one(&mut *connection).await.unwrap()
        })
        .await;
    }
    for n in 0..200 {
        store(&backend, &key(&format!("new {n}")), "v").await;
    }
    backend.sweep().await.unwrap();
    for key in &used {
        assert!(read(&backend, key).await.is_some(), "it was used lately");
    }
    let keys = backend.page(&Prefix::new(&shop()), None, 1000).await.unwrap().keys;
    assert!((200..=320).contains(&keys.len()), "{} are there", keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_in_bytes_is_kept() {
    const ROOM: i64 = 1 << 20;
    const VALUE: i64 = 5_000;
    let server = PostgresServer::start().await;
    let builder = patient(&server.url()).max_bytes(ROOM as u64).max_value_bytes(256 << 10);
    let backend = builder.connect().await.unwrap();
    let mut raw = PgConnection::connect(&server.url()).await.unwrap();
    let mut bytes = async || {
        let query = "SELECT sum(size)::bigint FROM larder WHERE generation > 0";
        sqlx::query_scalar::<_, i64>(query).fetch_one(&mut raw).await.unwrap()
    };
    for n in 0..600 {
        store(&backend, &key(&format!("{n}")), &"x".repeat(VALUE as usize)).await;
        if n % 50 == 49 {
            // What is written while somebody counts comes in whole values, twice.
            let there = bytes().await;
            assert!(there <= ROOM + 2 * (VALUE + 1000), "{there} bytes after {n}");
        }
    }
    backend.sweep().await.unwrap();
    let there = bytes().await;
    assert!(there > ROOM / 2 && there <= ROOM, "the room is used: {there} bytes");
    assert!(read(&backend, &key("599")).await.is_some(), "the newest is there");
    assert_eq!(read(&backend, &key("0")).await, None, "the oldest made way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_up_to_the_limit_are_stored_and_not_a_byte_more() {
    let server = PostgresServer::start().await;
    for limit in [1 << 10, 100_000, 4 << 20] {
        let backend = patient(&server.url()).max_value_bytes(limit).connect().await.unwrap();
        common::expect_exact_limit(&backend).await;
    }
}
