//! Set-ups whose parts do not fit together: refused where they are connected, or told as a risk.
#![cfg(all(
    feature = "memory",
    feature = "redis",
    feature = "file",
    feature = "encryption",
    feature = "lz4"
))]

use larder_cache::{Cache, CacheSettings, Caches, CachesSettings, Risk};
use larder_core::ErrorKind;
use larder_testkit::servers::RedisServer;

async fn risks(url: &str, processes: u32) -> Vec<Risk> {
    let mut settings = CachesSettings::default().with("a", CacheSettings::new(url));
    settings.processes = Some(processes);
    let caches = Caches::connect(&settings).await.unwrap();
    caches.advice().iter().map(|advice| advice.risk).collect()
}

async fn refuses(url: &str, words: &str) {
    let refused = Cache::connect(url).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Configuration, "{url}");
    assert!(refused.to_string().contains(words), "{url}: {refused}");
}

#[tokio::test]
async fn several_processes_with_memory_of_their_own() {
    let server = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = format!("file://{}?namespace=shop", folder.path().display());
    let redis = format!("{}/0?namespace=shop", server.url());
    for (url, of_several) in [
        (format!("writethrough:memory://|{file}"), vec![Risk::CopiesInSeveralProcesses]),
        (format!("writethrough:{redis}|{file}"), vec![]),
        // What stands in for a server does so for a while, and with a ceiling.
        (format!("failover:{redis}|memory://"), vec![]),
    ] {
        assert_eq!(risks(&url, 1).await, [], "{url}");
        assert_eq!(risks(&url, 4).await, of_several, "{url}");
    }
}

#[tokio::test]
async fn parameters_that_would_not_count_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("file://{}?namespace=shop", folder.path().display());
    for (url, words) in [
        ("memory://max_bytes=1GiB".to_owned(), "question mark"),
        ("memory:///var/cache".to_owned(), "question mark"),
        ("null://nowhere?namespace=a".to_owned(), "question mark"),
        (format!("tiered:memory://max_bytes=1GiB|{file}"), "question mark"),
        (format!("{file}&sign_env=HOME&compress_above=1KiB"), "compress"),
        (format!("writethrough:{file}&read_budget=1s|{file}&read_budget=2s"), "say it once"),
        (format!("{file}&failover_patience=1s"), "belong to failover:"),
        (format!("failover:{file}|memory://?writethrough_ceiling=1s"), "belong to writethrough:"),
    ] {
        refuses(&url, words).await;
    }
    Cache::connect("memory://?max_bytes=1MiB").await.unwrap();
    Cache::connect("memory:///?max_bytes=1MiB").await.unwrap();

    let mut none = CachesSettings::default();
    none.processes = Some(0);
    let refused = Caches::connect(&none).await.unwrap_err();
    assert!(refused.to_string().contains("processes"), "{refused}");
}

// Each reaches its builder, which refuses what cannot be.
#[tokio::test]
async fn the_words_before_two_stores_are_configured_by_the_url_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("file://{}?namespace=shop", folder.path().display());
    let failover = |parameters: &str| format!("failover:{file}&{parameters}|memory://");
    let write_through = |parameters: &str| format!("writethrough:memory://?{parameters}|{file}");
    for url in [
        failover("failover_patience=80ms&failover_threshold=2&failover_probe=1s"),
        failover("failover_settled=5&failover_ceiling=forever"),
        format!("failover:{file}|memory://?failover_ceiling=1m"),
        write_through("writethrough_patience=80ms&writethrough_ceiling=5s"),
        format!("{file}&compress=lz4&max_ratio=1000"),
    ] {
        Cache::connect(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    for (url, words) in [
        (failover("failover_patience=1ms"), "patience"),
        (failover("failover_threshold=0"), "threshold"),
        (failover("failover_probe=1ms"), "probe"),
        (failover("failover_settled=0"), "settled"),
        (failover("failover_ceiling=1ms"), "ceiling"),
        (failover("failover_settled=often"), "failover_settled is a number"),
        (write_through("writethrough_patience=1ms"), "patience"),
        (write_through("writethrough_ceiling=1ms"), "ceiling"),
        (format!("{file}&compress=lz4&max_ratio=0"), "max_ratio"),
        (format!("{file}&max_ratio=5"), "belong to compress"),
        (format!("{file}&strict=perhaps"), "true or false"),
    ] {
        refuses(&url, words).await;
    }
}

#[tokio::test]
async fn a_url_makes_a_cache_strict() {
    let server = RedisServer::start().await;
    let url = format!("{}/0?namespace=shop", server.url());
    let usual = Cache::connect(&url).await.unwrap();
    let strict = Cache::connect(&format!("{url}&strict=true")).await.unwrap();
    drop(server);
    assert!(usual.get::<u64>("k").await.unwrap().is_none());
    assert!(strict.get::<u64>("k").await.unwrap_err().is_outage());
}

#[tokio::test]
async fn sessions_are_not_read_from_replicas() {
    let server = RedisServer::start().await;
    let url = format!("{}/0?namespace=shop&read=replica", server.url());
    let settings = CachesSettings::default().with("a", CacheSettings::new(&url).for_sessions());
    let refused = Caches::connect(&settings).await.unwrap_err();
    assert!(refused.to_string().contains("read=primary"), "{refused}");
}
