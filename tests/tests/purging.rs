//! Purging from outside: by URL and by tag, hard and soft.

use std::time::Duration;

use http::Uri;
use larder_cache::Cache;
use larder_core::ErrorKind;
use larder_http::rules::Policy;
use larder_http::{CacheLayer, Caching, Purger};
use larder_testkit::servers::{MemcachedServer, RedisServer};
use larder_tests::{Origin, Site, answer, request};
use tower::{Layer, ServiceExt};

const PLAIN: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "accept")];
const SWR: &[(&str, &str)] =
    &[("cache-control", "max-age=60, stale-while-revalidate=600"), ("etag", "\"1\"")];

fn numbered(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::says(move |call, _| answer(200, fields, call.to_string()))
}

fn site(origin: Origin, configure: impl FnOnce(CacheLayer) -> CacheLayer) -> (Site, Purger) {
    let site = Site::with(origin, configure);
    let purger = site.purger();
    (site, purger)
}

fn url(text: &str) -> Uri {
    format!("http://site.example{text}").parse().unwrap()
}

#[tokio::test]
async fn a_url_goes_with_all_its_variants_and_nothing_else() {
    let (site, purger) = site(numbered(PLAIN), |layer| layer);
    for target in ["/p", "/p?x=1", "/p/q", "/pp"] {
        for accept in ["a", "b", "c"] {
            site.get_with(target, &[("accept", accept)]).await;
        }
    }
    // Under another name that a proxy forwarded it is the same URL.
    site.get_with("/p", &[("accept", "a"), ("x-forwarded-host", "shop.test")]).await;
    assert_eq!(purger.remove(&url("/p")).await.unwrap(), 4);
    assert_eq!(purger.remove(&url("/p")).await.unwrap(), 0);
    for accept in ["a", "b", "c"] {
        assert!(!site.get_with("/p", &[("accept", accept)]).await.hit());
        for spared in ["/p?x=1", "/p/q", "/pp"] {
            assert!(site.get_with(spared, &[("accept", accept)]).await.hit(), "{spared}");
        }
    }
    assert!(
        !site.get_with("/p", &[("accept", "a"), ("x-forwarded-host", "shop.test")]).await.hit()
    );
    assert_eq!(purger.remove(&url("/nothing")).await.unwrap(), 0);
}

#[tokio::test]
async fn all_partitions_and_the_rules_for_queries_are_covered() {
    let configure = |layer: CacheLayer| {
        let tenant = |head: larder_http::RequestHead<'_>| {
            head.headers().get("x-tenant").map(|tenant| tenant.to_str().unwrap().to_owned())
        };
        layer.partition_by(tenant).ignore_query(["utm_*"]).sort_query()
    };
    let (site, purger) = site(numbered(PLAIN), configure);
    for tenant in ["red", "blue"] {
        site.get_with("/p?b=2&a=1", &[("x-tenant", tenant)]).await;
        assert!(site.get_with("/p?a=1&b=2", &[("x-tenant", tenant)]).await.hit());
    }
    assert_eq!(purger.remove(&url("/p?b=2&utm_x=1&a=1")).await.unwrap(), 2);
    for tenant in ["red", "blue"] {
        assert!(!site.get_with("/p?a=1&b=2", &[("x-tenant", tenant)]).await.hit());
    }
}

#[tokio::test]
async fn what_is_purged_while_it_is_filled_is_not_stored() {
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let origin =
        Origin::gated(&gate, |call| call == 1, |call| answer(200, PLAIN, call.to_string()));
    let (site, purger) = site(origin, |layer| layer);
    let site = std::sync::Arc::new(site);
    let filling = tokio::spawn({
        let site = site.clone();
        async move { site.get("/p").await }
    });
    larder_tests::until("the fill", || site.calls() == 1).await;
    purger.remove(&url("/p")).await.unwrap();
    gate.notify_one();
    assert_eq!(filling.await.unwrap().text(), "1");
    assert_eq!(site.get("/p").await.text(), "2");
}

#[tokio::test]
async fn a_soft_purge_leaves_what_may_stand_in() {
    // The newest variant and the others alike.
    let fields: &[(&str, &str)] =
        &[("cache-control", "max-age=60, stale-while-revalidate=600"), ("vary", "accept")];
    let (site, purger) = site(numbered(fields), |layer| layer);
    let ask = async |accept: &'static str| site.get_with("/p", &[("accept", accept)]).await;
    for accept in ["a", "b"] {
        ask(accept).await;
    }
    assert_eq!(purger.expire(&url("/p")).await.unwrap(), 2);
    for accept in ["a", "b"] {
        let before = site.calls();
        let got = ask(accept).await;
        assert!(got.hit() && got.told().contains("ttl=0"), "{got:?}");
        larder_tests::until("the refresh", || site.calls() == before + 1).await;
        larder_tests::until("its end", || site.larder.flights() == 0).await;
        assert_eq!(ask(accept).await.text(), site.calls().to_string());
    }
    // What is of no use as a stale one goes.
    let (hard, purger) = self::site(numbered(PLAIN), |layer| layer);
    hard.get("/p").await;
    assert_eq!(purger.expire(&url("/p")).await.unwrap(), 1);
    assert!(!hard.get("/p").await.hit());
    assert_eq!(hard.larder.entries(), 1);
}

#[tokio::test]
async fn what_answers_several_queries_is_purged_as_softly() {
    let fields: &[(&str, &str)] = &[
        ("cache-control", "max-age=60, stale-while-revalidate=600"),
        ("no-vary-search", "params=(\"utm\")"),
    ];
    let (site, purger) = site(numbered(fields), |layer| layer.policy(Policy::rfc9111()));
    site.get("/p?a=1").await;
    site.get("/p?a=1").await;
    assert!(site.get("/p?utm=1&a=1").await.told().contains("ttl=60"));
    purger.expire(&url("/p?a=1&utm=2")).await.unwrap();
    let got = site.get("/p?utm=1&a=1").await;
    assert!(got.hit() && !got.told().contains("ttl=60"), "{got:?}");
    purger.remove(&url("/p?a=1&utm=3")).await.unwrap();
    assert!(!site.get("/p?utm=1&a=1").await.hit());
}

#[tokio::test]
async fn a_soft_purge_lets_validators_be_asked_about() {
    let origin = Origin::says(|call, request| {
        let known = request.headers().get("if-none-match").is_some();
        let fields = [("cache-control", "max-age=60"), ("etag", "\"1\"")];
        if known { answer(304, &fields, "") } else { answer(200, &fields, call.to_string()) }
    });
    let (site, purger) = site(origin, |layer| layer);
    site.get("/p").await;
    purger.expire(&url("/p")).await.unwrap();
    let got = site.get("/p").await;
    assert_eq!((got.text().as_str(), site.calls()), ("1", 2), "it was asked about, and is good");
    assert!(site.get("/p").await.hit());
}

#[tokio::test]
async fn a_tag_removes_or_makes_stale() {
    for soft in [false, true] {
        let origin = Origin::says(|call, _| {
            let mut response = answer(200, SWR, call.to_string());
            response.extensions_mut().insert(Caching::new().tag("own"));
            response
        });
        let (site, _) = site(origin, |layer| layer.tag("route"));
        for tag in ["own", "route"] {
            site.get("/p").await;
            larder_tests::until("the fill's end", || site.larder.flights() == 0).await;
            assert!(site.get("/p").await.told().contains("ttl=60"));
            match soft {
                true => site.larder.cache.expire_tag(tag).await.unwrap(),
                false => site.larder.cache.invalidate_tag(tag).await.unwrap(),
            }
            let before = site.calls();
            let got = site.get("/p").await;
            assert_eq!(got.hit(), soft, "{tag}: {got:?}");
            larder_tests::until("the new one", || site.calls() == before + 1).await;
            larder_tests::until("its end", || site.larder.flights() == 0).await;
            let got = site.get("/p").await;
            assert_eq!(got.text(), site.calls().to_string());
            assert!(got.told().contains("ttl=60"), "{got:?}");
        }
    }
}

/// The same over servers: one that pages, one that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis_and_memcached() {
    let (redis, memcached) = (RedisServer::start().await, MemcachedServer::start().await);
    for (store, pages) in [(redis.url() + "/0", true), (memcached.url(), false)] {
        let limits = "read_budget=60s&write_budget=60s";
        let cache = Cache::connect(&format!("{store}?namespace=shop&{limits}")).await.unwrap();
        let layer = CacheLayer::new(&cache).cache_status("t").tag("route");
        let purger = layer.purger();
        let service = layer.layer(numbered(SWR));
        let get = async || {
            let response = service.clone().oneshot(request("GET", "/p", &[])).await.unwrap();
            larder_tests::Got::read(response).await.unwrap()
        };
        let stored = async || {
            while !get().await.told().contains("ttl=60") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        stored().await;
        assert_eq!(purger.expire(&url("/p")).await.unwrap(), 1, "{store}");
        assert!(get().await.told().contains("hit; ttl=0"), "{store}");
        stored().await;
        cache.expire_tag("route").await.unwrap();
        assert!(get().await.told().contains("hit; ttl=0"), "{store}");
        stored().await;
        assert_eq!(purger.remove(&url("/p")).await.unwrap(), 1);
        assert!(!get().await.hit());
        assert_eq!(cache.store().abilities().pages, pages);
    }
}

#[tokio::test]
async fn a_url_without_a_host_is_refused_with_words() {
    let (_, purger) = site(numbered(PLAIN), |layer| layer.policy(Policy::rfc9111()));
    let error = purger.remove(&"/p".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(error.to_string().contains("https://host/path"), "{error}");
}
