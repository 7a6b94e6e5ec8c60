//! Versions, and keys by their beginning.

mod common;

use std::time::Duration;

use common::{driven, minute, settle};
use larder_cache::{Cache, CacheKey, Options};
use larder_core::{ErrorKind, Prefix, Remaining};

async fn all(cache: &Cache, prefix: &Prefix) -> Vec<String> {
    let (mut names, mut from) = (Vec::new(), None);
    loop {
        let page = cache.keys(prefix, from, 3).await.unwrap();
        names.extend(page.keys.iter().map(ToString::to_string));
        from = page.next;
        if from.is_none() {
            names.sort();
            return names;
        }
    }
}

async fn set(cache: &Cache, key: impl CacheKey) {
    cache.set_with(key, "x".to_owned(), minute()).await.unwrap();
}

#[tokio::test]
async fn keys_are_told_by_their_leading_parts_and_letters() {
    let (cache, _) = driven();
    for n in 0..10_u32 {
        set(&cache, ("product", n)).await;
        set(&cache, ("product", n, "de")).await;
    }
    set(&cache, "product").await;
    set(&cache, "product:7").await;
    set(&cache, "product*").await;
    let product = cache.prefix().part("product");
    assert_eq!(all(&cache, &product).await.len(), 20);
    assert_eq!(all(&cache, &product.clone().part("7")).await, ["product/7/de"]);
    assert_eq!(all(&cache, &product.starting_with("7")).await, ["product/7", "product/7/de"]);
    // What is a pattern elsewhere is a letter here.
    assert_eq!(all(&cache, &cache.prefix().starting_with("product*")).await, ["product*"]);
    assert_eq!(all(&cache, &cache.prefix().starting_with("product:")).await, ["product:7"]);
    assert_eq!(all(&cache, &cache.prefix()).await.len(), 23);

    let page = cache.keys(&cache.prefix().part("product"), None, 100).await.unwrap();
    for key in &page.keys {
        assert!(cache.delete(key).await.unwrap(), "{key}");
    }
    assert_eq!(all(&cache, &cache.prefix()).await.len(), 3);
}

#[tokio::test]
async fn a_prefix_is_deleted_whole_and_alone() {
    let (cache, _) = driven();
    for n in 0..1200_u32 {
        set(&cache, ("cart", n)).await;
    }
    set(&cache, ("carts", 1)).await;
    let other = cache.namespace("other").unwrap();
    set(&other, ("cart", 1)).await;
    set(&cache.version(2), ("cart", 1)).await;
    let cart = cache.prefix().part("cart");
    assert_eq!(cache.delete_prefix(&cart).await.unwrap(), 1200);
    assert_eq!(cache.delete_prefix(&cart).await.unwrap(), 0);
    assert!(cache.contains(("carts", 1)).await.unwrap());
    assert!(other.contains(("cart", 1)).await.unwrap());
    assert!(cache.version(2).contains(("cart", 1)).await.unwrap());
}

#[tokio::test]
async fn what_is_computed_while_its_prefix_is_deleted_is_not_stored() {
    let (cache, _) = driven();
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let caller = tokio::spawn({
        let (cache, gate) = (cache.clone(), gate.clone());
        async move {
            let compute = move || async move {
                gate.notified().await;
                Ok::<_, std::io::Error>("old".to_owned())
            };
            cache.get_or_compute(("cart", 1), minute(), compute).await.unwrap()
        }
    });
    settle().await;
    cache.delete_prefix(&cache.prefix().part("cart")).await.unwrap();
    gate.notify_one();
    assert_eq!(*caller.await.unwrap(), "old");
    assert!(!cache.contains(("cart", 1)).await.unwrap());
}

#[tokio::test]
async fn a_prefix_of_another_handle_is_refused() {
    let (cache, _) = driven();
    set(&cache, "a").await;
    let foreign = [
        cache.version(1).prefix(),
        cache.namespace("other").unwrap().prefix(),
        Prefix::new(cache.store().namespace()),
        Prefix::new(cache.store().namespace()).starting_with("d"),
        Prefix::new(cache.store().namespace()).part("h"),
    ];
    for prefix in foreign {
        let error = cache.delete_prefix(&prefix).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(cache.keys(&prefix, None, 10).await.is_err());
    }
    assert!(cache.contains("a").await.unwrap());
}

#[tokio::test]
async fn versions_are_apart() {
    let (cache, _) = driven();
    let (one, two) = (cache.version(1), cache.version(2));
    set(&two, "a").await;
    assert!(two.contains("a").await.unwrap());
    for absent in [&cache, &one, &cache.version(22)] {
        assert!(!absent.contains("a").await.unwrap());
        assert!(!absent.delete("a").await.unwrap());
    }
    // Nor can a key of parts reach into one.
    set(&cache, ("dv", "2", "a")).await;
    assert!(!cache.version(3).contains("a").await.unwrap());
    assert_eq!(two.incr_or("n", 5, 0, Duration::from_secs(9)).await.unwrap(), 5);
    assert_eq!(cache.incr("n", 1).await.unwrap(), None);
    cache.clear().await.unwrap();
    assert!(!two.contains("a").await.unwrap(), "a namespace is cleared with all its versions");
}

#[tokio::test]
async fn moving_to_a_version_keeps_the_lifetime_and_the_tags() {
    let (cache, hands) = driven();
    let options = Options::ttl(Duration::from_secs(60)).tag("t").stale_for(Duration::from_secs(60));
    for key in ["a", "b"] {
        cache.set_with(key, "old".to_owned(), options.clone()).await.unwrap();
    }
    set(&cache.version(2), "a").await;
    hands.advance(Duration::from_secs(20));
    assert!(!cache.move_to_version("missing", 2).await.unwrap());
    assert!(cache.move_to_version("a", 2).await.unwrap());
    assert!(cache.move_to_version("b", 2).await.unwrap());
    assert!(!cache.move_to_version("a", 2).await.unwrap(), "it is there no more");
    assert!(!cache.contains("a").await.unwrap());
    let two = cache.version(2);
    assert_eq!(*two.get::<String>("a").await.unwrap().unwrap(), "old");
    assert_eq!(two.ttl("a").await.unwrap(), Remaining::For(Duration::from_secs(100)));
    hands.advance(Duration::from_secs(39));
    assert!(two.contains("a").await.unwrap());
    hands.advance(Duration::from_secs(2));
    assert!(!two.contains("a").await.unwrap(), "stale as it would have been");

    set(&cache, "c").await;
    two.move_to_version("c", 2).await.unwrap();
    cache.incr_or("n", 7, 0, Duration::from_secs(50)).await.unwrap();
    hands.advance(Duration::from_secs(10));
    assert!(cache.move_to_version("n", 3).await.unwrap());
    assert_eq!(cache.version(3).incr("n", 1).await.unwrap(), Some(8));
    assert_eq!(cache.version(3).ttl("n").await.unwrap(), Remaining::For(Duration::from_secs(40)));

    cache.set_with("d", "v".to_owned(), minute().tag("t")).await.unwrap();
    cache.move_to_version("d", 4).await.unwrap();
    cache.invalidate_tag("t").await.unwrap();
    assert!(!cache.version(4).contains("d").await.unwrap());
}
