//! The README's table of stores says what the stores say.

use larder_cache::Cache;
use larder_core::Abilities;
use larder_testkit::servers::{MemcachedServer, PostgresServer, RedisServer};

fn row(name: &str, url: &str, abilities: &Abilities) -> String {
    let yes = |ability: bool| if ability { "yes" } else { "–" };
    let clear = match abilities.clear_delay.as_millis() {
        0 => "at once".to_owned(),
        millis => format!("{millis} ms"),
    };
    let precision = match abilities.precision.as_nanos() {
        nanos if nanos < 1_000_000 => "exact".to_owned(),
        nanos => format!("{} ms", nanos / 1_000_000),
    };
    let largest = match abilities.max_bytes {
        None => "any".to_owned(),
        Some(bytes) if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        Some(bytes) => format!("{} KiB", bytes >> 10),
    };
    let keeps = if abilities.forgets { "nothing" } else { yes(!abilities.evicts) };
    let marks = [abilities.shared, abilities.durable, abilities.pages].map(yes).join(" | ");
    format!("| {name} | `{url}` | {marks} | {keeps} | {precision} | {clear} | {largest} |")
}

#[tokio::test]
async fn the_readme_says_of_each_store_what_it_says_itself() {
    let (redis, memcached) = (RedisServer::start().await, MemcachedServer::start().await);
    let postgres = PostgresServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (directory, database) = (folder.path().join("files"), folder.path().join("cache.db"));
    let all = [
        ("memory", "memory://", "memory://".to_owned()),
        ("Redis, Valkey", "redis://", format!("{}/0?namespace=a", redis.url())),
        ("Memcached", "memcached://", format!("{}?namespace=a", memcached.url())),
        ("PostgreSQL", "postgres://", format!("{}?namespace=a&create=true", postgres.url())),
        ("SQLite", "sqlite://", format!("sqlite://{}?namespace=a", database.display())),
        ("files", "file://", format!("file://{}?namespace=a", directory.display())),
        ("nothing", "null://", "null://".to_owned()),
    ];
    let mut rows = vec![
        "| store | URL | other processes see it | outlives a restart | lists keys | drops nothing | lifetimes | a clear is seen | largest entry |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    for (name, scheme, url) in &all {
        let cache = Cache::connect(url).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        rows.push(row(name, scheme, cache.store().abilities()));
    }
    // The table whole: a row that is in it and of no store is as wrong as one that is not.
    let readme = include_str!("../../README.md");
    let told = readme.lines().skip_while(|line| *line != rows[0]);
    let told: Vec<&str> = told.take_while(|line| line.starts_with('|')).collect();
    assert!(told == rows, "the README's table of stores should be:\n{}", rows.join("\n"));
}
