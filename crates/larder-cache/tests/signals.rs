//! Signals: what happens in the application reaches whoever caches something of it.

mod common;

use std::sync::Arc;

use common::{Calls, driven, minute, settle};
use larder_cache::Cache;
use larder_core::{Error, ErrorKind};
use larder_testkit::cancel::drop_after;
use parking_lot::Mutex;
use tokio::sync::Notify;

struct ProductSaved(u64);
struct ProductDeleted(u64);

fn drops_tag(cache: &Cache) {
    cache.on(|cache, saved: &ProductSaved| {
        let tag = format!("product:{}", saved.0);
        async move { cache.invalidate_tag(&tag).await }
    });
}

#[tokio::test]
async fn an_event_reaches_the_receivers_of_its_type_and_no_others() {
    let (cache, _) = driven();
    drops_tag(&cache);
    for id in [7, 8] {
        cache.set_with(id, 1_i64, minute().tag(format!("product:{id}"))).await.unwrap();
    }
    cache.send(ProductDeleted(7)).await.unwrap();
    assert!(cache.contains(7).await.unwrap());
    // Through any handle on the store.
    cache.version(3).strict().send(ProductSaved(7)).await.unwrap();
    assert!(!cache.contains(7).await.unwrap());
    assert!(cache.contains(8).await.unwrap());
    // Another store's receivers are its own.
    driven().0.send(ProductSaved(8)).await.unwrap();
    assert!(cache.contains(8).await.unwrap());
}

#[tokio::test]
async fn a_receiver_works_in_the_namespace_and_version_that_it_was_registered_with() {
    let (cache, _) = driven();
    let users = cache.namespace("users").unwrap().version(2);
    users.on(|cache, event: &ProductDeleted| {
        let id = event.0;
        async move { cache.delete(id).await.map(drop) }
    });
    for handle in [&cache, &users] {
        handle.set(7_u64, 1_i64).await.unwrap();
    }
    cache.send(ProductDeleted(7)).await.unwrap();
    assert!(cache.contains(7).await.unwrap());
    assert!(!users.contains(7).await.unwrap());
}

#[tokio::test]
async fn all_run_in_their_order_although_one_fails_or_panics() {
    let (cache, _) = driven();
    let order = Arc::new(Mutex::new(Vec::new()));
    let register = |number: u32, result: fn() -> larder_core::Result<()>| {
        let order = order.clone();
        cache.on(move |_, _: &ProductSaved| {
            let order = order.clone();
            async move {
                tokio::task::yield_now().await;
                order.lock().push(number);
                result()
            }
        })
    };
    register(1, || Ok(()));
    register(2, || Err(Error::new(ErrorKind::Unavailable, "the second")));
    register(3, || panic!("on purpose"));
    let fourth = register(4, || Ok(()));
    let error = cache.send(ProductSaved(1)).await.unwrap_err();
    assert!(error.to_string().contains("the second"), "{error}");
    assert_eq!(*order.lock(), [1, 2, 3, 4]);
    fourth.remove();
    cache.send(ProductSaved(1)).await.unwrap_err();
    assert_eq!(*order.lock(), [1, 2, 3, 4, 1, 2, 3]);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_the_receivers_running() {
    let (cache, _) = driven();
    let (gate, calls) = (Arc::new(Notify::new()), Calls::default());
    let (opened, counted) = (gate.clone(), calls.clone());
    cache.on(move |_, _: &ProductSaved| {
        let (opened, counted) = (opened.clone(), counted.clone());
        async move {
            opened.notified().await;
            counted.add();
            Ok(())
        }
    });
    assert!(drop_after(1, cache.send(ProductSaved(1))).await.is_none());
    settle().await;
    gate.notify_one();
    settle().await;
    assert_eq!(calls.get(), 1);
}

#[tokio::test]
async fn receivers_do_not_keep_their_cache_alive() {
    let alive = Arc::new(());
    let (cache, _) = driven();
    let held = alive.clone();
    cache.on(move |_, _: &ProductSaved| {
        let _held = held.clone();
        async { Ok(()) }
    });
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(cache);
    assert_eq!(Arc::strong_count(&alive), 1);
}
