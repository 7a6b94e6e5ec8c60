//! The whole conformance suite on a real server.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Server;
use larder_core::Key;
use larder_redis::RedisBackend;
use larder_testkit::Harness;

// A second node may see a cleared namespace for as long as it trusts its copy of the generation.
const LAG: Duration = Duration::from_millis(100);

async fn harness() -> Harness<RedisBackend> {
    let server = Arc::new(Server::start().await);
    let connect = {
        let server = server.clone();
        move || {
            let builder = server.builder().generation_max_age(LAG);
            // A busy machine is no reason to fail.
            let builder = builder.response_timeout(Duration::from_secs(10));
            async move { builder.connect().await.expect("the server is there") }
        }
    };
    let backend = connect().await;
    let planter = server.clone();
    Harness::new(backend)
        .with_second(connect)
        .with_lag(LAG)
        .with_plant(move |key, bytes| {
            let server = planter.clone();
            async move { plant(&server, key, bytes).await }
        })
        .keep(server)
}

async fn plant(server: &Server, key: Key, bytes: Bytes) {
    let mut raw = server.raw().await;
    let name = common::wire_name(&mut raw, &key).await;
    let () = redis::cmd("SET").arg(name).arg(&bytes[..]).query_async(&mut raw).await.unwrap();
}

larder_testkit::conformance!(harness());
