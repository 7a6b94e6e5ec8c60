//! The public conformance suite on a real PostgreSQL server, by the server's clock.
#![cfg(feature = "postgres")]

use std::sync::Arc;
use std::time::Duration;

use larder_sql::PostgresBackend;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::PostgresServer;
use larder_testkit::{Harness, suite};
use tokio::sync::Mutex;

mod common;

async fn harness() -> Harness<PostgresBackend> {
    let server = PostgresServer::start().await;
    let url = server.url();
    made(server, url, 8).await
}

async fn made(server: PostgresServer, url: String, connections: usize) -> Harness<PostgresBackend> {
    let builder = PostgresBackend::builder().url(&url).expect("the URL is right");
    let builder = builder
        .create(true)
        .max_connections(connections)
        .max_value_bytes(8 << 20)
        // A busy machine is no reason to fail.
        .connect_timeout(Duration::from_secs(60))
        .response_timeout(Duration::from_secs(60));
    let small = builder.clone().table("small").expect("the name is right").max_entries(64);
    let connect = move || {
        let builder = builder.clone();
        async move { builder.connect().await.expect("the server is there") }
    };
    let backend = connect().await;
    let planter = backend.clone();
    let server = Arc::new(Mutex::new(server));
    let restarted = server.clone();
    Harness::new(backend)
        .with_second(connect)
        .with_plant(move |key, bytes| {
            let backend = planter.clone();
            async move { common::postgres::plant(&backend, &key, &bytes).await }
        })
        .with_restart(move || {
            let server = restarted.clone();
            // Its future is not one that may change threads.
            let restart = move || {
                let restart = async { server.lock().await.restart().await };
                tokio::runtime::Handle::current().block_on(restart);
            };
            async move { tokio::task::spawn_blocking(restart).await.expect("it restarts") }
        })
        .with_small(64, move || {
            let small = small.clone();
            async move { small.connect().await.expect("there is room") }
        })
        .keep(server)
}

larder_testkit::conformance!(harness());

// Through a proxy, everything takes several times as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_one_round_trip_each() {
    let batches = suite::checks::<PostgresBackend>().into_iter();
    for check in batches.filter(|check| check.name.starts_with("batches::")) {
        let server = PostgresServer::start().await;
        let proxy = FaultProxy::start(server.address()).await;
        proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(5)));
        let url = server.url_at(proxy.port());
        // One connection: statements are prepared on each.
        let harness = made(server, url, 1).await.with_round_trips(proxy.exchange_count());
        (check.run)(&harness).await;
    }
}
