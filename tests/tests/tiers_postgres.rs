//! Memory before a real PostgreSQL, which also carries the messages between the nodes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use larder_cache::{Cache, Options};
use larder_testkit::servers::PostgresServer;

const PATIENCE: Duration = Duration::from_secs(60);

const LIMITS: &str = "namespace=shop&create=true&response_timeout=60s&connect_timeout=60s&read_budget=60s&write_budget=60s";

async fn node(server: &PostgresServer) -> Cache {
    let near = "tiered:memory://?max_bytes=16MiB&ceiling=1h&heartbeat=200ms";
    Cache::connect(&format!("{near}|{}?{LIMITS}", server.url())).await.unwrap()
}

/// One that tells nobody what it changes.
async fn outsider(server: &PostgresServer) -> Cache {
    Cache::connect(&format!("{}?{LIMITS}", server.url())).await.unwrap()
}

async fn set(cache: &Cache, value: &str) {
    let options = Options::ttl(Duration::from_secs(3600)).tag("t");
    cache.strict().set_with("a", value.to_owned(), options).await.unwrap();
}

async fn ask(cache: &Cache) -> larder_core::Result<Option<String>> {
    Ok(cache.strict().get::<String>("a").await?.map(|value| value.to_string()))
}

async fn read(cache: &Cache) -> Option<String> {
    ask(cache).await.unwrap()
}

/// Waits until a node shows that; if it never does, the test says what it shows.
///
/// A node whose connections met a server that was gone pauses before it connects again, and says so to whoever asks
/// meanwhile: that is no answer yet.
async fn until(cache: &Cache, value: Option<&str>) {
    let begun = Instant::now();
    loop {
        let shown = ask(cache).await;
        if shown.as_ref().is_ok_and(|shown| shown.as_deref() == value) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it still shows {shown:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the node has it near: what an outsider changes then is not seen.
async fn near(cache: &Cache, outsider: &Cache) {
    let begun = Instant::now();
    for round in 0.. {
        let before = read(cache).await;
        // It is kept with the second read, since it carries a tag.
        read(cache).await;
        set(outsider, &format!("outside {round}")).await;
        if read(cache).await == before {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is kept near");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_near_is_used_until_another_node_tells_of_a_change() {
    let server = PostgresServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    let outsider = outsider(&server).await;
    for round in 0..3 {
        set(&here, "1").await;
        until(&there, Some("1")).await;
        near(&there, &outsider).await;
        match round {
            0 => {
                set(&here, "2").await;
                until(&there, Some("2")).await;
            }
            1 => {
                here.invalidate_tag("t").await.unwrap();
                until(&there, None).await;
            }
            _ => {
                here.clear().await.unwrap();
                until(&there, None).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_many_long_keys_arrive() {
    let server = PostgresServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    let key = |n: usize| format!("{n} {}", "x".repeat(20_000));
    let items = || (0..20).map(|n| (key(n), "old".to_owned()));
    let failed = here.set_many(items(), Options::ttl(Duration::from_secs(3600))).await.unwrap();
    assert!(failed.is_empty());
    for _ in 0..3 {
        for n in 0..20 {
            assert!(there.strict().contains(key(n)).await.unwrap());
        }
    }
    // One message of 400 KB.
    assert_eq!(here.delete_many((0..20).map(key)).await.unwrap(), 20);
    let begun = Instant::now();
    for n in 0..20 {
        while there.strict().contains(key(n)).await.unwrap() {
            assert!(begun.elapsed() < PATIENCE, "{n} is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_killed_and_a_server_that_is_restarted_or_frozen_are_gaps() {
    let mut server = PostgresServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    for round in 0..3 {
        set(&here, "old").await;
        until(&there, Some("old")).await;
        near(&there, &outsider(&server).await).await;
        match round {
            0 => {
                // Those that listen; nobody else notices.
                let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'";
                let mut psql = Command::new("psql");
                psql.args(["--no-psqlrc", "-c", kill, &server.url()]).stdout(Stdio::null());
                assert!(psql.status().unwrap().success());
            }
            1 => {
                server.kill();
                server.restart().await;
            }
            _ => {
                server.freeze();
                tokio::time::sleep(Duration::from_secs(1)).await;
                server.thaw();
            }
        }
        // By one who tells nobody: what was near before must have been given up.
        set(&outsider(&server).await, "changed").await;
        until(&there, Some("changed")).await;
        until(&here, Some("changed")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_of_a_reader_and_a_writer_leave_nothing_old() {
    let server = PostgresServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    set(&here, "0").await;
    let rounds: u32 = std::env::var("LARDER_RACES").map_or(500, |races| races.parse().unwrap());
    let reading = tokio::spawn({
        let there = there.clone();
        async move {
            loop {
                read(&there).await;
                tokio::task::yield_now().await;
            }
        }
    });
    for round in 1..=rounds {
        set(&here, &round.to_string()).await;
        if round % 50 == 0 {
            until(&there, Some(&round.to_string())).await;
        }
    }
    until(&there, Some(&rounds.to_string())).await;
    reading.abort();
}
