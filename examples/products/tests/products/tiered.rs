//! The scenarios of `caching.rs` over memory before a real Redis, and two services that share one.

use std::time::{Duration, Instant};

use larder::Cache;
use larder_testkit::servers::RedisServer;
use serde_json::json;

use crate::caching;
use crate::service::{self, Service};

async fn connect(server: &RedisServer) -> Option<Cache> {
    let redis = format!("{}/0?namespace=products&response_timeout=60s", server.url());
    Some(service::patient(&format!("tiered:memory://?max_bytes=16MiB|{redis}")).await)
}

caching::scenarios!(RedisServer::start().await, connect);

#[tokio::test]
async fn a_change_on_one_node_drops_what_another_has_near() {
    let server = RedisServer::start().await;
    let here = Service::start(connect(&server).await).await;
    let there = Service::over(here.path(), connect(&server).await).await;
    let paths = ["/api/products/?page=1", "/api/products/?page=2", "/api/products/230"];
    // Until it is near.
    for _ in 0..5 {
        there.warm(&paths).await;
    }
    here.edit(230, json!({"stock": 77})).await;
    // One message's delay, however long that is on a busy machine.
    let begun = Instant::now();
    while there.cached_of(&paths).await != [paths[1]] {
        assert!(begun.elapsed() < Duration::from_secs(60), "the message does not arrive");
    }
    assert_eq!(there.get(paths[2]).await.json()["stock"], 77);
}
