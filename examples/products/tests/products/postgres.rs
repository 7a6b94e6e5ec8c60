//! The scenarios of `caching.rs` over a real PostgreSQL, and two services that share one.

use larder::Cache;
use larder_testkit::servers::PostgresServer;

use crate::caching;
use crate::service::{self, Service};

async fn connect(server: &PostgresServer) -> Option<Cache> {
    let limits = "response_timeout=60s&connect_timeout=60s";
    let url = format!("{}?namespace=products&create=true&{limits}", server.url());
    Some(service::patient(&url).await)
}

caching::scenarios!(PostgresServer::start().await, connect);

#[tokio::test]
async fn a_change_on_one_node_drops_what_another_has_cached() {
    let server = PostgresServer::start().await;
    let here = Service::start(connect(&server).await).await;
    let there = Service::over(here.path(), connect(&server).await).await;
    caching::a_change_here_drops_what_is_cached_there(&here, &there).await;
}

#[tokio::test]
async fn a_server_that_dies_costs_hits_and_not_answers() {
    let mut server = PostgresServer::start().await;
    let service = Service::start(connect(&server).await).await;
    caching::a_server_that_dies_costs_hits_and_not_answers(&service, || server.kill()).await;
}
