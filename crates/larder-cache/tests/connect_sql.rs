//! Caches from URLs of SQL databases.
#![cfg(all(feature = "sqlite", feature = "postgres"))]

use larder_cache::Cache;
use larder_core::ErrorKind;
use larder_testkit::servers::PostgresServer;

async fn expect_it_works(url: &str) {
    let cache = Cache::connect(url).await.unwrap();
    cache.set("name", "Ada".to_owned()).await.unwrap();
    assert_eq!(*cache.get::<String>("name").await.unwrap().expect("it was stored"), "Ada");
    let again = Cache::connect(url).await.unwrap();
    again.delete("name").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_and_postgres_are_named_by_their_urls() {
    let patient = "namespace=shop&read_budget=60s&write_budget=60s";
    let directory = std::env::temp_dir().join(format!("larder-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("cache.db");
    let sqlite = format!("sqlite://{}?{patient}&busy_timeout=60s", file.display());
    expect_it_works(&sqlite).await;
    expect_it_works(&format!("tiered:memory://?ceiling=1s|{sqlite}")).await;
    let server = PostgresServer::start().await;
    let limits = "create=true&response_timeout=60s&connect_timeout=60s";
    let postgres = format!("{}?{patient}&{limits}", server.url());
    expect_it_works(&postgres).await;
    expect_it_works(&format!("tiered:memory://?heartbeat=200ms|{postgres}")).await;
    let _ = std::fs::remove_dir_all(&directory);
}

#[tokio::test]
async fn what_is_wrong_with_them_is_said_without_the_password() {
    for (url, words) in [
        ("sqlite://canary.db", "?namespace=NAME"),
        ("postgres://u:canary@h/d", "?namespace=NAME"),
        ("postgresql://u:canary@h/d?namespace=shop&canary=1", "the known ones are"),
        ("sqlite:canary.db?namespace=shop", "sqlite://"),
        ("mysql://u:canary@h/d?namespace=shop", "postgres://"),
    ] {
        let error = Cache::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{url}: {error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(words) && !text.contains("canary"), "{url}: {text}");
    }
}
