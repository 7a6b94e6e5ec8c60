//! The scenarios of `caching.rs` over a SQLite file.

use larder::Cache;

use crate::caching;
use crate::service::{self, Service};

async fn connect(folder: &tempfile::TempDir) -> Option<Cache> {
    let path = folder.path().join("cache.db");
    let url = format!("sqlite://{}?namespace=products&busy_timeout=60s", path.display());
    Some(service::patient(&url).await)
}

caching::scenarios!(tempfile::tempdir().unwrap(), connect);

#[tokio::test]
async fn a_change_in_one_process_drops_what_another_has_cached() {
    let folder = tempfile::tempdir().unwrap();
    let here = Service::start(connect(&folder).await).await;
    let there = Service::over(here.path(), connect(&folder).await).await;
    caching::a_change_here_drops_what_is_cached_there(&here, &there).await;
}
