//! A real cluster: the whole suite, slots that move, nodes that die.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, ask, eventually, expect_all_work, key, raw, read, shop, store, text};
use larder_core::{
    Backend, Begin, Counter, Entry, ErrorKind, Generation, Key, Outcome, Prefix, Put, Tag, Ttl,
    When,
};
use larder_redis::{Builder, RedisBackend};
use larder_testkit::cancel::drop_later;
use larder_testkit::servers::{RedisCluster, RedisServer};
use larder_testkit::{Harness, Sizes, suite};

mod common;

const LAG: Duration = Duration::from_millis(100);

fn builder(cluster: &RedisCluster) -> Builder {
    let builder = RedisBackend::builder().url(&cluster.url()).unwrap();
    builder.response_timeout(Duration::from_secs(20))
}

async fn connect(cluster: &RedisCluster) -> RedisBackend {
    builder(cluster).connect().await.unwrap()
}

// The hash with which a key's name ends, in whatever generation.
fn hash(key: &Key) -> String {
    let name = key.as_ref().wire_name(Generation::random());
    name.rsplit_once(':').unwrap().1.to_owned()
}

// Where a key that was stored lies: which node, and under which name.
async fn find(cluster: &RedisCluster, key: &Key) -> (usize, Vec<u8>) {
    let pattern = format!("*{}*", hash(key));
    for (at, node) in cluster.nodes()[..3].iter().enumerate() {
        let mut raw = raw(node).await;
        let mut cursor = "0".to_owned();
        loop {
            let scan: [&[u8]; 6] =
                [b"SCAN", cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", b"10000"];
            let (next, mut names): (String, Vec<Vec<u8>>) = ask(&mut raw, &scan).await;
            if let Some(name) = names.pop() {
                return (at, name);
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
    }
    panic!("the key lies nowhere");
}

async fn plant(cluster: &RedisCluster, backend: &RedisBackend, key: &Key, bytes: &[u8]) {
    let _ = backend.put(key, text("to be found"), Ttl::Forever, When::Always).await.unwrap();
    let (at, name) = find(cluster, key).await;
    ask::<()>(&mut raw(&cluster.nodes()[at]).await, &[b"SET", &name, bytes]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_on_a_cluster_without_a_command_for_two_slots() {
    let cluster = Arc::new(RedisCluster::start().await);
    let planter = builder(&cluster).generation_max_age(Duration::ZERO).connect().await.unwrap();
    let harness = async || {
        let (for_second, for_plant, planter) = (cluster.clone(), cluster.clone(), planter.clone());
        let connect = move || {
            let builder = builder(&for_second).generation_max_age(LAG);
            async move { builder.connect().await.expect("the cluster is there") }
        };
        let usual = Harness::new(connect().await);
        let set = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
        usual
            .with_second(connect)
            .with_lag(LAG * 2)
            .with_sizes(Sizes {
                races: set("LARDER_RACES").unwrap_or(300),
                drops: set("LARDER_DROPS").unwrap_or(2_000),
            })
            .with_plant(move |key, bytes| {
                let (cluster, planter) = (for_plant.clone(), planter.clone());
                async move { plant(&cluster, &planter, &key, &bytes).await }
            })
    };
    suite::run_all(8, harness).await;
    for node in cluster.nodes() {
        let errors: String = ask(&mut raw(node).await, &[b"INFO", b"errorstats"]).await;
        assert!(!errors.contains("CROSSSLOT"), "{errors}");
    }
}
