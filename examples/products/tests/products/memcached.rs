//! The scenarios of `caching.rs` over a real Memcached, over a ring, and two services that share one.

use larder::Cache;
use larder_testkit::servers::MemcachedServer;
use serde_json::json;

use crate::caching;
use crate::service::{self, Service};

async fn connect(server: &MemcachedServer) -> Option<Cache> {
    let url = format!("{}?namespace=products&response_timeout=60s", server.url());
    Some(service::patient(&url).await)
}

caching::scenarios!(MemcachedServer::start().await, connect);

#[tokio::test]
async fn a_change_on_one_node_drops_what_another_has_cached() {
    let server = MemcachedServer::start().await;
    let here = Service::start(connect(&server).await).await;
    let there = Service::over(here.path(), connect(&server).await).await;
    caching::a_change_here_drops_what_is_cached_there(&here, &there).await;
}

#[tokio::test]
async fn a_server_that_dies_costs_hits_and_not_answers() {
    let mut server = MemcachedServer::start().await;
    let service = Service::start(connect(&server).await).await;
    caching::a_server_that_dies_costs_hits_and_not_answers(&service, || server.kill()).await;
}

#[tokio::test]
async fn one_server_of_a_ring_that_dies_costs_its_share() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(MemcachedServer::start().await);
    }
    let addresses: Vec<String> = servers.iter().map(MemcachedServer::address).collect();
    let ring = addresses.join(",");
    let url = format!("memcached://{ring}?namespace=products&response_timeout=60s");
    let cache = service::patient(&url).await;
    let keys: Vec<String> = (0..60).map(|n| format!("key {n}")).collect();
    for key in &keys {
        cache.set(key, 1_i64).await.unwrap();
    }
    servers.pop();
    let mut hits = 0;
    for key in &keys {
        hits += usize::from(matches!(cache.get::<i64>(key).await, Ok(Some(value)) if *value == 1));
    }
    assert!((1..60).contains(&hits), "{hits} of 60 are there still");
    let service = Service::start(Some(cache)).await;
    service.edit(230, json!({"stock": 77})).await;
    assert_eq!(service.get("/api/products/?page=1").await.json()["results"][0]["stock"], 77);
}
