//! The scenarios of `caching.rs` over a directory.

use larder::Cache;
use serde_json::json;

use crate::caching;
use crate::service::{self, Service};

async fn connect(folder: &tempfile::TempDir) -> Option<Cache> {
    let url = format!("file://{}?namespace=products", folder.path().display());
    Some(service::patient(&url).await)
}

macro_rules! over_files {
    ($($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let folder = tempfile::tempdir().unwrap();
            caching::$name(&Service::start(connect(&folder).await).await).await;
        }
    )*};
}

over_files! {
    the_second_request_is_a_hit
    pages_are_cached_apart
    an_edit_drops_exactly_what_shows_the_product
    an_edit_of_a_text_drops_searches_and_no_other_list
    creating_and_deleting_drop_the_lists
    a_refused_change_drops_nothing
    featured_and_sidebar_follow_every_change
    errors_are_never_cached
    nobody_reads_the_old_after_a_change_was_confirmed
}

#[tokio::test]
async fn a_change_in_one_process_drops_what_another_has_cached() {
    let folder = tempfile::tempdir().unwrap();
    let here = Service::start(connect(&folder).await).await;
    let there = Service::over(here.path(), connect(&folder).await).await;
    let paths = ["/api/products/?page=1", "/api/products/?page=2", "/api/products/230"];
    there.warm(&paths).await;
    here.edit(230, json!({"stock": 77})).await;
    assert_eq!(there.cached_of(&paths).await, [paths[1]]);
    assert_eq!(there.get(paths[2]).await.json()["stock"], 77);
}
