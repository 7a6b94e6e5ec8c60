//! The whole conformance suite, over one real server, over several connections to one, and over a ring of three.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use larder_memcached::MemcachedBackend;
use larder_testkit::servers::MemcachedServer;
use larder_testkit::{Harness, Sizes, suite};

mod common;

// A second node may see a cleared namespace for as long as it trusts its copy of the generation.
const LAG: Duration = Duration::from_millis(100);

fn at(url: &str) -> impl Fn() -> Connecting + Clone + Send + Sync + 'static {
    let url = url.to_owned();
    move || {
        let builder = common::builder(&url).generation_max_age(LAG);
        Box::pin(async move { builder.connect().await.expect("the servers are there") })
    }
}

type Connecting = Pin<Box<dyn Future<Output = MemcachedBackend> + Send>>;

async fn made(servers: Vec<MemcachedServer>, url: String) -> Harness<MemcachedBackend> {
    let connect = at(&url);
    planted(Harness::new(connect().await).with_second(connect), Arc::new(servers))
}

fn planted(
    harness: Harness<MemcachedBackend>,
    servers: Arc<Vec<MemcachedServer>>,
) -> Harness<MemcachedBackend> {
    let (planter, planted) = (harness.shared(), servers.clone());
    // The copy's age is counted by a clock of its own.
    let harness = harness.with_lag(LAG * 2).with_plant(move |key, bytes| {
        let (backend, servers) = (planter.clone(), planted.clone());
        async move {
            let servers: Vec<&MemcachedServer> = servers.iter().collect();
            common::plant(&backend, &servers, &key, bytes).await;
        }
    });
    harness.keep(servers)
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

// Two nodes that stay connected, since connecting takes the better part of a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_over_several_connections() {
    let server = MemcachedServer::start().await;
    let connect = at(&format!("{}?connections=4", server.url()));
    let (here, there, servers) = (connect().await, connect().await, Arc::new(vec![server]));
    suite::run_all(16, async || {
        let there = there.clone();
        let harness = Harness::new(here.clone()).with_sizes(Sizes::TINY);
        let harness = harness.with_second(move || std::future::ready(there.clone()));
        planted(harness, servers.clone())
    })
    .await;
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
