//! What is read while a value is made hands its tags up.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::{Calls, driven, faulty, minute, settle};
use larder_cache::{Cache, Options, collect, untracked};
use tokio::sync::Notify;

fn stores() -> Vec<Cache> {
    vec![driven().0, faulty().0]
}

async fn row(cache: &Cache, id: u64) -> Arc<String> {
    let options = minute().tag(format!("row:{id}"));
    let load = move || async move { Ok::<_, Infallible>(format!("row {id}")) };
    cache.get_or_compute(format!("row:{id}"), options, load).await.unwrap()
}

async fn page(cache: &Cache, calls: &Calls) -> Arc<String> {
    let (own, calls) = (cache.clone(), calls.clone());
    let make = move || async move {
        calls.add();
        let (one, two) = (row(&own, 1).await, row(&own, 2).await);
        Ok::<_, Infallible>(format!("{one}, {two}"))
    };
    cache.get_or_compute("page", minute(), make).await.unwrap()
}

#[tokio::test]
async fn what_drops_a_part_drops_the_whole_and_nothing_else() {
    for cache in stores() {
        let calls = Calls::default();
        for (round, tag) in ["row:1", "row:2", "row:1"].into_iter().enumerate() {
            for _ in 0..3 {
                assert_eq!(*page(&cache, &calls).await, "row 1, row 2");
                assert_eq!(calls.get(), round + 1);
            }
            cache.invalidate_tag("row:3").await.unwrap();
            page(&cache, &calls).await;
            assert_eq!(calls.get(), round + 1, "a tag that nothing carries");
            cache.invalidate_tag(tag).await.unwrap();
            assert!(!cache.contains("page").await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_part_that_was_made_after_another_was_invalidated_does_not_keep_the_whole_out() {
    // The rows are of very different age; the page is as young as its own making.
    for cache in stores() {
        row(&cache, 1).await;
        for _ in 0..5 {
            cache.invalidate_tag("row:2").await.unwrap();
        }
        let calls = Calls::default();
        page(&cache, &calls).await;
        page(&cache, &calls).await;
        assert_eq!(calls.get(), 1);
    }
}

#[tokio::test]
async fn tags_go_up_through_every_floor_and_every_verb() {
    for cache in stores() {
        let tagged = |tag: &str| minute().tag(tag);
        cache.set_with("got", 1_u64, tagged("get")).await.unwrap();
        cache.set_with("tagged", 2_u64, tagged("get_tagged")).await.unwrap();
        cache.set_with("many", 3_u64, tagged("get_many")).await.unwrap();
        cache.set_with("looked", 4_u64, tagged("lookup")).await.unwrap();
        cache.set_with("hidden", 5_u64, tagged("untracked")).await.unwrap();
        let make = |cache: Cache| async move {
            let inner = cache.clone();
            let middle = move || async move {
                inner.get::<u64>("got").await?;
                inner.get_tagged::<u64>("tagged", &["get_tagged"]).await?;
                inner.get_many::<u64, _>(["many"]).await?;
                inner.lookup::<u64>("looked").await?;
                untracked(inner.get::<u64>("hidden")).await?;
                Ok::<_, larder_core::Error>(vec![1_u64])
            };
            let outer = cache.clone();
            let whole = move || async move {
                outer
                    .get_or_compute("middle", minute().tag("own"), middle)
                    .await
                    .map(|middle| vec![middle.len()])
            };
            cache.get_or_compute("whole", minute(), whole).await.unwrap();
        };
        for tag in ["get", "get_tagged", "get_many", "lookup", "own"] {
            make(cache.clone()).await;
            cache.invalidate_tag(tag).await.unwrap();
            assert!(!cache.contains("whole").await.unwrap(), "{tag}");
            let again = [("got", "get"), ("tagged", "get_tagged"), ("many", "get_many")];
            for (key, tag) in again.into_iter().chain([("looked", "lookup")]) {
                cache.set_with(key, 1_u64, tagged(tag)).await.unwrap();
            }
        }
        make(cache.clone()).await;
        cache.invalidate_tag("untracked").await.unwrap();
        assert!(cache.contains("whole").await.unwrap());
    }
}

#[tokio::test]
async fn a_part_that_another_caller_makes_hands_its_tags_up_as_well() {
    for cache in stores() {
        let gate = Arc::new(Notify::new());
        let (own, opens) = (cache.clone(), gate.clone());
        let maker = tokio::spawn(async move {
            let load = move || async move {
                opens.notified().await;
                Ok::<_, Infallible>("row 1".to_owned())
            };
            own.get_or_compute("row:1", minute().tag("row:1"), load).await
        });
        settle().await;
        let (own, calls) = (cache.clone(), Calls::default());
        let counted = calls.clone();
        let whole = tokio::spawn(async move { page(&own, &counted).await });
        settle().await;
        gate.notify_one();
        maker.await.unwrap().unwrap();
        whole.await.unwrap();
        assert!(cache.contains("page").await.unwrap());
        cache.invalidate_tag("row:1").await.unwrap();
        assert!(!cache.contains("page").await.unwrap());
    }
}

#[tokio::test]
async fn a_part_invalidated_after_it_was_read_voids_the_whole_that_is_being_made() {
    for cache in stores() {
        let (read, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (own, says, waits) = (cache.clone(), read.clone(), gate.clone());
        let making = tokio::spawn(async move {
            let inner = own.clone();
            let make = move || async move {
                let part = row(&inner, 1).await;
                says.notify_one();
                waits.notified().await;
                Ok::<_, Infallible>((*part).clone())
            };
            own.get_or_compute("page", minute(), make).await
        });
        read.notified().await;
        cache.invalidate_tag("row:1").await.unwrap();
        gate.notify_one();
        making.await.unwrap().unwrap();
        assert!(cache.get::<String>("page").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn other_namespaces_and_stores_hand_nothing_up() {
    let cache = driven().0;
    let users = cache.namespace("users").unwrap();
    let elsewhere = driven().0;
    for other in [&users, &elsewhere] {
        other.set_with("k", 1_u64, minute().tag("t")).await.unwrap();
        let (value, tags) = collect(cache.store(), other.get::<u64>("k")).await;
        assert_eq!((value.unwrap().as_deref(), tags.len()), (Some(&1), 0));
    }
    let options = Options::ttl(Duration::from_secs(9)).tag("t");
    cache.set_with("k", 1_u64, options).await.unwrap();
    let (_, tags) = collect(cache.store(), cache.get::<u64>("k")).await;
    assert_eq!(tags.len(), 1);
}
