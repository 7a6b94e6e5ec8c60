//! The scenarios of `caching.rs` over a directory.

use larder::Cache;

use crate::caching;
use crate::service::Service;

async fn connect(folder: &tempfile::TempDir) -> Option<Cache> {
    let url = format!("file://{}?namespace=products", folder.path().display());
    Some(Cache::connect(&url).await.unwrap())
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
async fn what_was_cached_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::start(connect(&folder).await).await;
    first.warm(&["/api/products/?page=1"]).await;
    let second = Service::over(first.path(), connect(&folder).await).await;
    assert_eq!(second.cached_of(&["/api/products/?page=1"]).await, ["/api/products/?page=1"]);
}
