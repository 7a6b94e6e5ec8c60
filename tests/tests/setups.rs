//! A store that is not there, or turns one down, says which setting to look at, and never the password.

use larder_cache::Cache;
use larder_core::ErrorKind::{self, Configuration, Unavailable};
use larder_testkit::servers::{PostgresServer, RedisServer};

// What is not as it should be in the answer to a URL, if anything.
async fn look(url: &str, kind: ErrorKind, words: &[&str]) -> Option<String> {
    let error = match Cache::connect(url).await {
        Ok(_) => return Some(format!("{url}: it connected")),
        Err(error) => error,
    };
    let text = format!("{error} / {error:?}");
    let fit = error.kind() == kind
        && words.iter().any(|words| text.contains(words))
        && !text.contains("canary");
    (!fit).then(|| format!("{url}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_absent_server_name_the_setting() {
    let absent = "127.0.0.1:1";
    let redis = RedisServer::options().password("right").start().await;
    let at = redis.address();
    let postgres = PostgresServer::start().await;
    let there = postgres.url();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary");
    std::fs::write(&file, "no folder").unwrap();
    let file = file.display();

    let login = ["password"];
    let address = ["its address", "host and port"];
    let mut unfit = Vec::new();
    for (url, kind, words) in [
        (format!("redis://:canary@{at}/0?namespace=shop"), Configuration, &login[..]),
        (format!("redis://canary:canary@{at}/0?namespace=shop"), Configuration, &login),
        (format!("redis://{at}/0?namespace=shop"), Configuration, &login),
        (format!("redis://:right@{at}/99?namespace=shop"), Configuration, &["database"]),
        (format!("redis://:canary@{absent}/0?namespace=shop"), Unavailable, &address),
        (format!("redis+cluster://:canary@{absent}?namespace=shop"), Unavailable, &address),
        (format!("redis+sentinel://:canary@{absent}/main?namespace=shop"), Unavailable, &address),
        (format!("rediss://:right@{at}/0?namespace=shop"), Unavailable, &["TLS", "rediss"]),
        (format!("memcached://{absent}?namespace=shop"), Unavailable, &address),
        (format!("memcached://{at}?namespace=shop"), Unavailable, &["memcached"]),
        (there.replace("for-tests", "canary") + "?namespace=shop", Configuration, &login),
        (format!("postgres://u:canary@{absent}/d?namespace=shop"), Unavailable, &address),
        (
            "sqlite:///canary/of/nowhere.db?namespace=shop".to_owned(),
            Configuration,
            &["folder", "directory"],
        ),
        (format!("file://{file}?namespace=shop"), Configuration, &["folder", "directory"]),
    ] {
        unfit.extend(look(&url, kind, words).await);
    }
    assert!(unfit.is_empty(), "{unfit:#?}");
}
