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
    ] {
        let refused = Cache::connect(&url).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Configuration, "{url}");
        assert!(refused.to_string().contains(words), "{url}: {refused}");
    }
    Cache::connect("memory://?max_bytes=1MiB").await.unwrap();
    Cache::connect("memory:///?max_bytes=1MiB").await.unwrap();

    let mut none = CachesSettings::default();
    none.processes = Some(0);
    let refused = Caches::connect(&none).await.unwrap_err();
    assert!(refused.to_string().contains("processes"), "{refused}");
}

#[tokio::test]
async fn sessions_are_not_read_from_replicas() {
    let server = RedisServer::start().await;
    let url = format!("{}/0?namespace=shop&read=replica", server.url());
    let settings = CachesSettings::default().with("a", CacheSettings::new(&url).for_sessions());
    let refused = Caches::connect(&settings).await.unwrap_err();
    assert!(refused.to_string().contains("read=primary"), "{refused}");
}
