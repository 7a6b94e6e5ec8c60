//! Replicas that are read: who is asked, and how old what they say may be.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, calls, eventually, expect_all_work, key, raw, read, shop, store, text};
use larder_core::{Backend, Begin, Key, Tag, When};
use larder_redis::{Builder, RedisBackend};
use larder_testkit::servers::{RedisCluster, RedisSentinels, RedisServer};

mod common;

fn builder(url: &str, lag: Duration) -> Builder {
    let builder = RedisBackend::builder().url(url).unwrap().read_replicas(lag);
    // Generations are the primary's; here they are asked for once.
    builder.generation_max_age(LONG).response_timeout(Duration::from_secs(5))
}

async fn gets(server: &RedisServer) -> u64 {
    let calls = calls(&mut raw(server).await).await;
    calls.get("get").copied().unwrap_or(0) + calls.get("mget").copied().unwrap_or(0)
}

// Waits until a read is answered by one of these.
async fn read_by(replicas: &[RedisServer], backend: &RedisBackend, key: &Key) {
    eventually("a read of a replica", async || {
        let mut before = 0;
        for replica in replicas {
            before += gets(replica).await;
        }
        read(backend, key).await;
        let mut after = 0;
        for replica in replicas {
            after += gets(replica).await;
        }
        after > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_read_from_a_replica_and_all_else_from_the_primary() {
    let servers = RedisSentinels::start().await;
    let (primary, replicas) = servers.servers().split_first().unwrap();
    for url in [servers.url(), primary.url()] {
        let backend = builder(&url, Duration::from_secs(2)).connect().await.unwrap();
        assert_eq!(backend.abilities().read_delay, Duration::from_secs(2));
        store(&backend, &key("k"), "v").await;
        primary.replicated(replicas.len()).await;
        read_by(replicas, &backend, &key("k")).await;

        let before = gets(primary).await;
        for _ in 0..50 {
            assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"));
            assert!(backend.get_many(&[key("k")]).await.unwrap()[0].is_some());
        }
        assert_eq!(gets(primary).await, before, "the primary has other things to do");

        let mut there = 0;
        for replica in replicas {
            there += gets(replica).await;
        }
        let tags = [Tag::new("t").unwrap()];
        backend.marks(&shop(), &tags).await.unwrap();
        let counter = Key::tag(&shop(), &tags[0]);
        for _ in 0..50 {
            let found = backend.get(&key("k"), std::slice::from_ref(&counter)).await.unwrap();
            assert!(found.entry.is_some() && found.counters[0].is_some());
            let invalidated = backend.invalidate(&shop(), &tags).await.unwrap();
            let found = backend.get(&key("k"), std::slice::from_ref(&counter)).await.unwrap();
            assert_eq!(found.counters[0], Some(invalidated.get()), "tags are never behind");
            assert!(matches!(backend.begin(&key("k"), LONG).await.unwrap(), Begin::Found(_)));
        }
        let mut after = 0;
        for replica in replicas {
            after += gets(replica).await;
        }
        assert_eq!(after, there, "replicas are asked for entries alone");
        expect_all_work(&backend, &shop()).await;
    }
    let usual = RedisBackend::connect(&servers.url()).await.unwrap();
    assert!(usual.abilities().read_delay.is_zero());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_never_older_than_the_bound() {
    const LAG: Duration = Duration::from_millis(300);
    let servers = RedisSentinels::start().await;
    let (primary, replicas) = servers.servers().split_first().unwrap();
    let backend = builder(&primary.url(), LAG).connect().await.unwrap();
    let writer = RedisBackend::connect(&primary.url()).await.unwrap();
    store(&writer, &key("clock"), "0").await;
    read_by(replicas, &backend, &key("clock")).await;
    // That was one of them; the others have it, too.
    primary.replicated(replicas.len()).await;

    // Each value is the time since the start at which it was begun to be written.
    let start = Instant::now();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let written = acknowledged.clone();
    let writing = tokio::spawn(async move {
        loop {
            let value = start.elapsed().as_micros() as u64;
            store(&writer, &key("clock"), &value.to_string()).await;
            written.store(value, Ordering::SeqCst);
        }
    });
    let mut oldest = Duration::ZERO;
    for round in 0..4 {
        // Without its primary for longer than the bound.
        let until = Instant::now() + Duration::from_millis([300, 1500][round % 2]);
        while Instant::now() < until {
            let asked = start.elapsed();
            let newest = acknowledged.load(Ordering::SeqCst);
            let found: u64 = read(&backend, &key("clock")).await.unwrap().parse().unwrap();
            if found < newest {
                // It was replaced; since when is not known exactly, but not before it was written.
                oldest = oldest.max(asked.saturating_sub(Duration::from_micros(found)));
            }
        }
        // They lose their primary and go on answering, later they find it again.
        for replica in replicas {
            let port = if round % 2 == 0 { "1".to_owned() } else { primary.port().to_string() };
            replica.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
        }
    }
    writing.abort();
    println!("the oldest value that was read was {oldest:?} old; the bound is {LAG:?}");
    // The time that an answer takes is not the replica's.
    assert!(oldest < LAG + Duration::from_millis(500), "{oldest:?}");
    read_by(replicas, &backend, &key("clock")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_gone_or_silent_costs_no_read() {
    let mut servers = RedisSentinels::start().await;
    let primary = servers.servers()[0].url();
    let backend = builder(&primary, Duration::from_secs(1)).connect().await.unwrap();
    store(&backend, &key("k"), "v").await;
    read_by(&servers.servers()[1..], &backend, &key("k")).await;
    for replica in &servers.servers()[1..] {
        replica.freeze();
    }
    for _ in 0..20 {
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"), "the primary answers");
    }
    for replica in &servers.servers()[1..] {
        replica.thaw();
    }
    read_by(&servers.servers()[1..], &backend, &key("k")).await;
    servers.servers_mut()[1].kill();
    servers.servers_mut()[2].kill();
    for _ in 0..20 {
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"));
    }
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_a_cluster_are_read() {
    let cluster = RedisCluster::start().await;
    let backend = builder(&cluster.url(), Duration::from_secs(2)).connect().await.unwrap();
    let keys: Vec<Key> = (0..30).map(|n| key(&n.to_string())).collect();
    for key in &keys {
        let _ = backend.put(key, text("v"), LONG.into(), When::Always).await.unwrap();
    }
    for replica in cluster.nodes()[3..].iter() {
        let replica = std::slice::from_ref(replica);
        eventually("reads of each replica", async || {
            let before = gets(&replica[0]).await;
            assert_eq!(backend.get_many(&keys).await.unwrap().iter().flatten().count(), 30);
            gets(&replica[0]).await > before
        })
        .await;
    }
    expect_all_work(&backend, &shop()).await;
}
