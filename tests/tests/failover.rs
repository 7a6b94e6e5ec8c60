//! Memory stands in for a real Redis that is killed, frozen and restarted under load.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_cache::{Cache, Failover, Options};
use larder_memory::MemoryBackend;
use larder_redis::RedisBackend;
use larder_testkit::servers::RedisServer;

const PATIENCE: Duration = Duration::from_secs(60);

type Pair = Failover<RedisBackend, MemoryBackend>;

async fn node(server: &RedisServer) -> (Pair, Cache) {
    let redis = RedisBackend::builder().url(&server.url()).unwrap();
    let redis = redis.response_timeout(Duration::from_millis(500)).connect().await.unwrap();
    let pair = Failover::builder(redis, MemoryBackend::default())
        .patience(Duration::from_millis(500))
        .probe(Duration::from_millis(50))
        .build()
        .unwrap();
    let cache = Cache::builder(pair.clone())
        .namespace("shop")
        .unwrap()
        .read_budget(PATIENCE)
        .write_budget(PATIENCE)
        .build();
    (pair, cache)
}

async fn until(what: &str, come: impl Fn() -> bool) {
    let begun = Instant::now();
    while !come() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn hour() -> Options {
    Options::ttl(Duration::from_secs(3600)).tag("t")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_while_redis_was_frozen_is_gone_when_it_thaws() {
    let server = RedisServer::start().await;
    let (pair, cache) = node(&server).await;
    cache.set_with("tagged", "old".to_owned(), hour()).await.unwrap();
    cache.set("deleted", "old".to_owned()).await.unwrap();
    cache.set("untouched", "old".to_owned()).await.unwrap();
    server.freeze();
    // Until the memory takes over, nothing is confirmed.
    let begun = Instant::now();
    while cache.invalidate_tag("t").await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "nobody takes over");
    }
    assert!(pair.is_over());
    cache.delete("deleted").await.unwrap();
    assert!(cache.get::<String>("untouched").await.unwrap().is_none());
    server.thaw();
    until("Redis in charge", || !pair.is_over()).await;
    assert!(cache.get::<String>("tagged").await.unwrap().is_none());
    assert!(cache.get::<String>("deleted").await.unwrap().is_none());
    assert_eq!(cache.get::<String>("untouched").await.unwrap().as_deref(), Some(&"old".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_and_nothing_old_is_read_while_redis_comes_and_goes() {
    let mut server = RedisServer::start().await;
    let (pair, cache) = node(&server).await;
    let truth = Arc::new(AtomicU64::new(0));
    // What every reader that begins now must see at least.
    let known = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let (cache, truth, known, done) =
                (cache.clone(), truth.clone(), known.clone(), done.clone());
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !done.load(Ordering::SeqCst) {
                    let least = known.load(Ordering::SeqCst);
                    let truth = truth.clone();
                    let compute =
                        move || async move { Ok::<_, Infallible>(truth.load(Ordering::SeqCst)) };
                    let key = ("page", reader % 4);
                    let read = cache.get_or_compute(key, hour(), compute).await;
                    let read = *read.expect("no call fails because of the store");
                    assert!(read >= least, "read {read} after {least} was told");
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    for round in 0..6_u64 {
        match round % 3 {
            0 => server.freeze(),
            1 => server.kill(),
            _ => {}
        }
        for _ in 0..5 {
            let now = truth.fetch_add(1, Ordering::SeqCst) + 1;
            let begun = Instant::now();
            while cache.invalidate_tag("t").await.is_err() {
                assert!(begun.elapsed() < PATIENCE, "nobody takes over");
            }
            known.store(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match round % 3 {
            0 => server.thaw(),
            1 => server.restart().await,
            _ => {}
        }
        until("Redis in charge", || !pair.is_over()).await;
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_url_alone_and_behind_a_near_store() {
    for near in ["", "tiered:memory://?heartbeat=200ms|"] {
        let mut server = RedisServer::start().await;
        let redis = format!("{}/0?namespace=shop", server.url());
        let url = format!("{near}failover:{redis}&read_budget=60s&write_budget=60s|memory://");
        let cache = Cache::connect(&url).await.unwrap();
        cache.set_with("a", "old".to_owned(), hour()).await.unwrap();
        let read = async || cache.get::<String>("a").await.unwrap().map(|value| value.to_string());
        for _ in 0..10 {
            assert_eq!(read().await.as_deref(), Some("old"));
        }
        server.kill();
        let begun = Instant::now();
        while cache.strict().set_with("a", "new".to_owned(), hour()).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "nobody takes over");
        }
        assert_eq!(read().await.as_deref(), Some("new"));
        while cache.invalidate_tag("t").await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "nobody takes over");
        }
        assert_eq!(read().await, None);
        server.restart().await;
        let begun = Instant::now();
        loop {
            assert_ne!(read().await.as_deref(), Some("old"));
            cache.set_with("b", "back".to_owned(), hour()).await.unwrap();
            let keys = server.command(&["DBSIZE"]).await.unwrap();
            // What is written reaches Redis again, where a restart has left nothing.
            if !keys.starts_with(b":0") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "Redis is not in charge again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
