//! The whole conformance suite, over one real server, over several connections to one, and over a ring of three.

use std::sync::Arc;
use std::time::Duration;

use larder_memcached::MemcachedBackend;
use larder_testkit::Harness;
use larder_testkit::servers::MemcachedServer;

mod common;

// A second node may see a cleared namespace for as long as it trusts its copy of the generation.
const LAG: Duration = Duration::from_millis(100);

async fn made(servers: Vec<MemcachedServer>, url: String) -> Harness<MemcachedBackend> {
    let servers = Arc::new(servers);
    let connect = move || {
        let builder = common::builder(&url).generation_max_age(LAG);
        async move { builder.connect().await.expect("the servers are there") }
    };
    let backend = connect().await;
    let (planter, planted) = (backend.clone(), servers.clone());
    Harness::new(backend)
        .with_second(connect)
        // The copy's age is counted by a clock of its own.
        .with_lag(LAG * 2)
        .with_plant(move |key, bytes| {
            let (backend, servers) = (planter.clone(), planted.clone());
            async move {
                let servers: Vec<&MemcachedServer> = servers.iter().collect();
                common::plant(&backend, &servers, &key, bytes).await;
            }
        })
        .keep(servers)
}

mod one_server {
    use super::*;

    async fn harness() -> Harness<MemcachedBackend> {
        let server = MemcachedServer::start().await;
        let url = server.url();
        made(vec![server], url).await
    }

    larder_testkit::conformance!(harness());
}

mod several_connections {
    use super::*;

    async fn harness() -> Harness<MemcachedBackend> {
        let server = MemcachedServer::start().await;
        let url = format!("{}?connections=4", server.url());
        made(vec![server], url).await
    }

    larder_testkit::conformance!(harness());
}

mod a_ring {
    use super::*;

    async fn harness() -> Harness<MemcachedBackend> {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(MemcachedServer::start().await);
        }
        let url = common::ring_url(&servers.iter().collect::<Vec<_>>());
        made(servers, url).await
    }

    larder_testkit::conformance!(harness());
}
