//! The public conformance suite over wrappers of real servers: what packs, moves and copies keeps the contract there too.
//! The crate's own tests run it in memory, with larger figures.

use std::time::Duration;

use larder_cache::{Compression, Keys, Migrating, Packed, Packing, WriteThrough};
use larder_core::Backend;
use larder_memcached::MemcachedBackend;
use larder_redis::RedisBackend;
use larder_sql::SqliteBackend;
use larder_testkit::servers::{MemcachedServer, RedisServer};
use larder_testkit::{Harness, Sizes, suite};

// A second node may see a cleared namespace for as long as it trusts its copy of the generation.
const LAG: Duration = Duration::from_millis(100);

// A busy machine is no outage.
const PATIENCE: Duration = Duration::from_secs(60);

// Most of the checks wait for time to pass.
const AT_ONCE: usize = 16;

async fn redis(server: &RedisServer) -> RedisBackend {
    let builder = RedisBackend::builder().url(&server.url()).expect("the URL is right");
    let builder = builder.generation_max_age(LAG).response_timeout(PATIENCE);
    builder.connect().await.expect("the server is there")
}

async fn memcached(server: &MemcachedServer) -> MemcachedBackend {
    let builder = MemcachedBackend::builder().url(&server.url()).expect("the URL is right");
    let builder = builder.generation_max_age(LAG).response_timeout(PATIENCE);
    builder.connect_timeout(PATIENCE).connect().await.expect("the server is there")
}

fn packed<B: Backend>(store: B) -> Packed<B> {
    let keys = Keys::from_hex(&"7c11".repeat(16)).expect("32 bytes");
    let packing = Packing::new().compress(Compression::Zstd).compress_above(0).encrypt(keys);
    // The suite's large values are a few bytes over and over, which are no bombs here.
    Packed::new(store, packing.max_ratio(1 << 20)).expect("a packing")
}

/// The whole suite over two nodes. They stay connected: each check has namespaces of its own.
async fn keep_the_contract<B: Backend>(
    here: impl Fn() -> B,
    there: impl Fn() -> B + Clone + Send + Sync + 'static,
) {
    suite::run_all(AT_ONCE, async || {
        let there = there.clone();
        let second = move || std::future::ready(there());
        let harness = Harness::new(here()).with_sizes(Sizes::TINY).with_second(second);
        // What is durable here is a file: nothing has to run for it to be there.
        harness.with_lag(LAG * 2).with_restart(|| async {})
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_values_on_a_real_redis() {
    let server = RedisServer::start().await;
    let (here, there) = (redis(&server).await, redis(&server).await);
    keep_the_contract(|| packed(here.clone()), move || packed(there.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_values_on_a_real_memcached() {
    let server = MemcachedServer::start().await;
    let (here, there) = (memcached(&server).await, memcached(&server).await);
    keep_the_contract(|| packed(here.clone()), move || packed(there.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_from_a_real_redis_to_a_real_memcached() {
    let (old, new) = (RedisServer::start().await, MemcachedServer::start().await);
    let node = async || {
        let (old, new) = (redis(&old).await, memcached(&new).await);
        move || Migrating::new(new.clone(), old.clone()).expect("they can be moved between")
    };
    keep_the_contract(node().await, node().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_memcached_before_a_real_database() {
    let server = MemcachedServer::start().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let node = async || {
        let durable = SqliteBackend::builder().path(folder.path().join("cache.db"));
        let durable = durable.busy_timeout(PATIENCE).connect().await.expect("the file can be used");
        let cache = memcached(&server).await;
        move || {
            let pair = WriteThrough::builder(cache.clone(), durable.clone());
            pair.patience(PATIENCE).build().expect("they go together")
        }
    };
    keep_the_contract(node().await, node().await).await;
}
