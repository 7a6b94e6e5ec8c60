//! The public conformance suite on SQLite, with a driven clock.
#![cfg(feature = "sqlite")]

use std::sync::Arc;
use std::time::Duration;

use larder_core::Clock;
use larder_sql::{Builder, Sqlite, SqliteBackend};
use larder_testkit::{Harness, suite};
use tempfile::TempDir;

mod common;

async fn made(builder: Builder<Sqlite>) -> Harness<SqliteBackend> {
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let builder = builder
        .path(directory.path().join("cache.db"))
        .max_value_bytes(2 << 20)
        // A busy machine is no reason to fail.
        .busy_timeout(Duration::from_secs(60));
    let open = move || {
        let builder = builder.clone();
        async move { builder.connect().await.expect("the file can be used") }
    };
    let backend = open().await;
    let planter = backend.clone();
    let small = directory.clone();
    Harness::new(backend)
        .with_second(open)
        // Nothing has to run for a file to be there.
        .with_restart(|| async {})
        .with_plant(move |key, bytes| {
            let backend = planter.clone();
            async move { common::sqlite::plant(&backend, &key, &bytes).await }
        })
        .with_small(64, move || {
            let builder = SqliteBackend::builder().path(small.path().join("small.db"));
            async move { builder.max_entries(64).connect().await.expect("there is room") }
        })
        .keep(directory)
}

async fn harness() -> Harness<SqliteBackend> {
    let (clock, hands) = Clock::manual();
    made(SqliteBackend::builder().clock(clock)).await.with_hands(hands)
}

larder_testkit::conformance!(harness());

// What has to do with time once more, by the clock that everybody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machines_clock() {
    let timed = |name: &str| {
        name.starts_with("lifetimes::") || name.starts_with("fills::") || name.contains("racing")
    };
    for check in suite::checks::<SqliteBackend>().into_iter().filter(|check| timed(check.name)) {
        let harness = made(SqliteBackend::builder()).await;
        (check.run)(&harness).await;
    }
}
