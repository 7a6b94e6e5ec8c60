//! The service over every kind of store: the URL is all that changes.

use larder_testkit::servers::{MemcachedServer, PostgresServer, RedisServer};
use serde_json::json;

use crate::service::{self, Service};

const PAGES: [&str; 4] =
    ["/api/products/?page=1", "/api/products/?page=2", "/api/products/230", "/api/search?q=lamp"];

// Links on pages name the address where the service listens.
async fn page(service: &Service, path: &str) -> (bool, String) {
    let answer = service.get(path).await;
    (answer.is_hit(), answer.text().replace(service.base(), "http://shop"))
}

// The same pages as without a cache, hits where something is kept, and a change that is seen at once.
async fn works(url: &str) {
    let plain = Service::start(None).await;
    // As long as it takes: a busy machine is no outage.
    let cached = Service::over(plain.path(), Some(service::patient(url).await)).await;
    let keeps = !url.contains("null://");
    for path in PAGES {
        assert_eq!(page(&cached, path).await, page(&plain, path).await, "{url}: {path}");
    }
    if keeps {
        cached.warm(&PAGES).await;
        assert_eq!(cached.cached_of(&PAGES).await, PAGES, "{url}");
        for path in PAGES {
            let (_, expected) = page(&plain, path).await;
            assert_eq!(page(&cached, path).await, (true, expected), "{url}: {path}");
        }
    } else {
        assert_eq!(cached.cached_of(&PAGES).await, [""; 0], "{url}");
    }
    // Product 230 is on the first page.
    cached.edit(230, json!({"stock": 77})).await;
    for path in [PAGES[0], PAGES[2]] {
        let changed = page(&cached, path).await;
        assert_eq!(changed, page(&plain, path).await, "{url}: {path}");
        assert!(changed.1.contains("\"stock\":77"), "{url}: {path}");
    }
    let others = [PAGES[1], PAGES[3]];
    assert_eq!(cached.cached_of(&others).await, if keeps { &others[..] } else { &[] }, "{url}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_url_is_all_that_changes() {
    let (redis, memcached) = (RedisServer::start().await, MemcachedServer::start().await);
    let postgres = PostgresServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let slow = "response_timeout=60s";
    let redis = |namespace: &str| format!("{}/0?namespace={namespace}&{slow}", redis.url());
    let memcached = |namespace: &str| format!("{}?namespace={namespace}&{slow}", memcached.url());
    let postgres = |namespace: &str| {
        format!("{}?namespace={namespace}&create=true&connect_timeout=60s&{slow}", postgres.url())
    };
    let file = |name: &str| format!("file://{}?namespace=products", at(name));
    for url in [
        "memory://?max_bytes=16MiB".to_owned(),
        "null://?namespace=products".to_owned(),
        file("files"),
        format!("sqlite://{}?namespace=products&busy_timeout=60s", at("cache.db")),
        postgres("products"),
        redis("products"),
        memcached("products"),
        format!("tiered:memory://?max_bytes=16MiB|{}", redis("tiered")),
        format!("failover:{}|memory://?max_bytes=16MiB", redis("failover")),
        format!("writethrough:{}|{}", memcached("writethrough"), postgres("writethrough")),
        format!("migrating:{}|{}", redis("migrating"), memcached("migrating")),
    ] {
        works(&url).await;
    }
}
