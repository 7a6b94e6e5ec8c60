//! The whole conformance suite on a real server.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use larder_redis::RedisBackend;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::RedisServer;
use larder_testkit::{Harness, suite};

mod common;

// A second node may see a cleared namespace for as long as it trusts its copy of the generation.
const LAG: Duration = Duration::from_millis(100);

async fn harness() -> Harness<RedisBackend> {
    let server = Arc::new(RedisServer::start().await);
    let url = server.url();
    made(server, url).await
}

async fn made(server: Arc<RedisServer>, url: String) -> Harness<RedisBackend> {
    let connect = move || {
        let url = url.clone();
        async move {
            let builder = RedisBackend::builder().url(&url).expect("the URL is right");
            builder
                .generation_max_age(LAG)
                // A busy machine is no reason to fail.
                .response_timeout(Duration::from_secs(20))
                .connect()
                .await
                .expect("the server is there")
        }
    };
    let planter = server.clone();
    Harness::new(connect().await)
        .with_second(connect)
        // The copy's age is counted by a clock of its own.
        .with_lag(LAG * 2)
        .with_plant(move |key, bytes| {
            let server = planter.clone();
            async move {
                let mut raw = common::raw(&server).await;
                let name = common::wire_name(&mut raw, &key).await;
                common::ask::<()>(&mut raw, &[b"SET", name.as_bytes(), &bytes]).await;
            }
        })
        .keep(server)
}

larder_testkit::conformance!(harness());

// Through a proxy, everything takes several times as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_one_round_trip_each() {
    let batches = suite::checks::<RedisBackend>().into_iter();
    for check in batches.filter(|check| check.name.starts_with("batches::")) {
        let server = Arc::new(RedisServer::start().await);
        let proxy = FaultProxy::start(server.address()).await;
        proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(5)));
        let url = server.url_at(proxy.port());
        let harness = made(server, url).await.with_round_trips(proxy.exchange_count());
        (check.run)(&harness).await;
    }
}

// `scripts/test` fetches Valkey where it can be had; `LARDER_REDIS_SERVER=valkey-server` runs all tests of the crate on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_on_valkey_too_where_it_is_installed() {
    let Some(valkey) = RedisServer::options().valkey() else {
        let fetched = std::env::var_os("LARDER_VALKEY").is_some();
        assert!(!fetched, "scripts/test has put valkey-server on the path");
        return println!("valkey-server is not on the path");
    };
    let server = Arc::new(valkey.start().await);
    suite::run_all(4, async || made(server.clone(), server.url()).await).await;
}
