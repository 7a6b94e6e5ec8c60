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

macro_rules! over_memcached {
    ($($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let server = MemcachedServer::start().await;
            caching::$name(&Service::start(connect(&server).await).await).await;
        }
    )*};
}

over_memcached! {
    the_second_request_is_a_hit
    pages_are_cached_apart
    an_edit_drops_exactly_what_shows_the_product
    an_edit_of_a_text_drops_searches_and_no_other_list
    creating_and_deleting_drop_the_lists
    a_refused_change_drops_nothing
    featured_and_sidebar_follow_every_change
    errors_are_never_cached
    nobody_reads_the_old_after_a_change_was_confirmed
}

#[tokio::test]
async fn a_change_on_one_node_drops_what_another_has_cached() {
    let server = MemcachedServer::start().await;
    let here = Service::start(connect(&server).await).await;
    let there = Service::over(here.path(), connect(&server).await).await;
    let paths = ["/api/products/?page=1", "/api/products/?page=2", "/api/products/230"];
    there.warm(&paths).await;
    there.warm(&["/api/products/featured"]).await;
    here.edit(230, json!({"stock": 77})).await;
    assert_eq!(there.cached_of(&paths).await, [paths[1]]);
    assert_eq!(there.get(paths[2]).await.json()["stock"], 77);
    assert!(!there.get("/api/products/featured").await.is_hit());
}

#[tokio::test]
async fn a_server_that_dies_costs_hits_and_not_answers() {
    let mut server = MemcachedServer::start().await;
    let service = Service::start(connect(&server).await).await;
    service.warm(&["/api/products/?page=1"]).await;
    server.kill();
    let list = service.get("/api/products/?page=1").await;
    assert_eq!(list.json()["count"], 230);
    assert!(!list.is_hit());
    assert_eq!(service.get("/").await.status, 200);
    service.edit(230, json!({"stock": 77})).await;
    let list = service.get("/api/products/?page=1").await;
    assert_eq!(list.json()["results"][0]["stock"], 77);
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
