//! Memory before a real Redis, which also carries the messages between the nodes.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use larder_cache::{Cache, Options};
use larder_http::{CacheLayer, Caching};
use larder_testkit::servers::RedisServer;
use tower::{Layer, ServiceExt};

const PATIENCE: Duration = Duration::from_secs(60);

/// With time enough, so that a busy machine does not turn a slow answer into an outage.
async fn node(server: &RedisServer) -> Cache {
    node_of(server, "shop").await
}

async fn node_of(server: &RedisServer, namespace: &str) -> Cache {
    let near = "tiered:memory://?max_bytes=16MiB&ceiling=1h&heartbeat=200ms";
    let far = format!("{}/0?namespace={namespace}&response_timeout=60s", server.url());
    let url = format!("{near}|{far}&read_budget=60s&write_budget=60s");
    Cache::connect(&url).await.unwrap()
}

async fn set(cache: &Cache, key: &str, value: &str) {
    let options = Options::ttl(Duration::from_secs(3600)).tag("t");
    let begun = Instant::now();
    // A node whose connection met a server that was gone pauses before it connects again.
    while let Err(error) = cache.strict().set_with(key, value.to_owned(), options.clone()).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn read(cache: &Cache, key: &str) -> Option<String> {
    cache.get::<String>(key).await.unwrap().map(|value| value.to_string())
}

/// Waits until a node shows that; if it never does, the test says what it shows.
async fn until(cache: &Cache, key: &str, value: Option<&str>) {
    let begun = Instant::now();
    loop {
        let shown = read(cache, key).await;
        if shown.as_deref() == value {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it still shows {shown:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How often anything was read from the server.
async fn asked(server: &RedisServer) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]).await.unwrap();
    let stats = String::from_utf8(stats).unwrap();
    let reading = ["get", "mget", "eval", "evalsha"].map(|name| format!("cmdstat_{name}:calls="));
    let calls = |line: &str| {
        let count = reading.iter().find_map(|prefix| line.strip_prefix(prefix.as_str()))?;
        count.split(',').next()?.parse::<u64>().ok()
    };
    stats.lines().filter_map(calls).sum()
}

/// Reads until it costs the server nothing, and tells that it does so then.
async fn warm(cache: &Cache, server: &RedisServer, key: &str) {
    let begun = Instant::now();
    loop {
        let before = asked(server).await;
        for _ in 0..10 {
            assert!(read(cache, key).await.is_some());
        }
        if asked(server).await == before {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "every read asks the server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn reads_that_are_near_send_nothing_and_changes_arrive() {
    let server = RedisServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    set(&here, "a", "1").await;
    warm(&there, &server, "a").await;
    set(&here, "a", "2").await;
    assert_eq!(read(&here, "a").await.as_deref(), Some("2"));
    until(&there, "a", Some("2")).await;
    warm(&there, &server, "a").await;
    here.delete("a").await.unwrap();
    until(&there, "a", None).await;

    set(&here, "a", "3").await;
    warm(&there, &server, "a").await;
    here.invalidate_tag("t").await.unwrap();
    assert_eq!(read(&here, "a").await, None);
    until(&there, "a", None).await;

    set(&here, "a", "4").await;
    warm(&there, &server, "a").await;
    here.clear().await.unwrap();
    until(&there, "a", None).await;
}

// Two nodes each, so that it can be seen when what one tells has arrived; all hear from one server.
#[tokio::test]
async fn k10_two_applications_on_one_server_hear_nothing_of_each_other() {
    let server = RedisServer::start().await;
    let (shop, shop_too) = (node_of(&server, "shop").await, node_of(&server, "shop").await);
    // Its name begins with the other one's.
    let (other, other_too) = (node_of(&server, "shop-2").await, node_of(&server, "shop-2").await);
    // Each application on a channel of its own.
    let ears = ["PUBSUB", "NUMSUB", "larder:bus:shop", "larder:bus:shop-2"];
    let two_each = "*4\r\n$15\r\nlarder:bus:shop\r\n:2\r\n$17\r\nlarder:bus:shop-2\r\n:2\r\n";
    let begun = Instant::now();
    while server.command(&ears).await.unwrap() != two_each.as_bytes() {
        assert!(begun.elapsed() < PATIENCE, "two nodes each do not listen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    set(&shop, "a", "the shop's").await;
    for node in [&shop, &shop_too] {
        warm(node, &server, "a").await;
    }
    let stays_near = async || {
        let before = asked(&server).await;
        for node in [&shop, &shop_too] {
            assert_eq!(read(node, "a").await.as_deref(), Some("the shop's"));
        }
        assert_eq!(asked(&server).await, before, "it is near no more");
    };
    for round in 0..20 {
        let value = round.to_string();
        set(&other, "a", &value).await;
        until(&other_too, "a", Some(&value)).await;
        warm(&other_too, &server, "a").await;
        stays_near().await;
        match round % 3 {
            0 => other.invalidate_tag("t").await.unwrap(),
            1 => drop(other.delete("a").await.unwrap()),
            _ => other.clear().await.unwrap(),
        }
        until(&other_too, "a", None).await;
        stays_near().await;
    }
    // And the shop's own nodes do hear each other.
    shop.invalidate_tag("t").await.unwrap();
    until(&shop_too, "a", None).await;
}

#[tokio::test]
async fn responses_that_are_near_send_nothing_until_a_tag_is_dropped_elsewhere() {
    let server = RedisServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    let handler = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let given = counted.fetch_add(1, Ordering::SeqCst);
        let response = Response::builder().extension(Caching::new().tag("product:7"));
        ready(Ok::<_, Infallible>(response.body(Full::<Bytes>::from(given.to_string())).unwrap()))
    });
    let layer = CacheLayer::new(&there).ttl(Duration::from_secs(3600)).tag("products");
    let service = layer.layer(handler);
    let get = async || {
        let request = Request::get("http://shop.example/list").body(Full::default()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let begun = Instant::now();
    loop {
        let before = asked(&server).await;
        for _ in 0..10 {
            assert_eq!(get().await, "0");
        }
        if asked(&server).await == before {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "every hit asks the server");
    }
    // A tag that only the handler knows.
    here.invalidate_tag("product:7").await.unwrap();
    let begun = Instant::now();
    while get().await == "0" {
        assert!(begun.elapsed() < PATIENCE, "the message does not arrive");
        // A hit waits for nothing, so nobody else would be heard.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_is_killed_frozen_or_restarted_makes_no_old_value_readable_afterwards() {
    let mut server = RedisServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    for round in 0..3 {
        let value = format!("round {round}");
        set(&here, "a", &value).await;
        until(&there, "a", Some(&value)).await;
        warm(&there, &server, "a").await;
        match round {
            0 => {
                server.kill();
                server.restart().await;
            }
            1 => {
                server.freeze();
                tokio::time::sleep(Duration::from_secs(1)).await;
                server.thaw();
            }
            _ => {}
        }
        // By a client that tells nobody: what was near before the outage must have been given up.
        let begun = Instant::now();
        let outsider = Cache::connect(&format!(
            "{}/0?namespace=shop&response_timeout=60s&read_budget=60s&write_budget=60s",
            server.url()
        ))
        .await
        .unwrap();
        if round < 2 {
            set(&outsider, "a", "changed").await;
            until(&there, "a", Some("changed")).await;
            assert!(begun.elapsed() < PATIENCE);
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_races_of_a_reader_and_a_writer_leave_nothing_old() {
    let server = RedisServer::start().await;
    let (here, there) = (node(&server).await, node(&server).await);
    set(&here, "a", "0").await;
    let rounds: u32 = std::env::var("LARDER_RACES").map_or(2_000, |races| races.parse().unwrap());
    let reading = tokio::spawn({
        let there = there.clone();
        async move {
            loop {
                read(&there, "a").await;
                tokio::task::yield_now().await;
            }
        }
    });
    for round in 1..=rounds {
        here.set("a", round.to_string()).await.unwrap();
        if round % 100 == 0 {
            until(&there, "a", Some(&round.to_string())).await;
        }
    }
    until(&there, "a", Some(&rounds.to_string())).await;
    reading.abort();
}

#[tokio::test]
async fn three_nodes_with_ten_thousand_callers_compute_once() {
    let server = RedisServer::start().await;
    let nodes = [node(&server).await, node(&server).await, node(&server).await];
    let computed = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..10_000)
        .map(|n| {
            let (cache, computed) = (nodes[n % 3].clone(), computed.clone());
            tokio::spawn(async move {
                let options = Options::ttl(Duration::from_secs(3600)).wait(PATIENCE);
                let compute = move || async move {
                    computed.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, Infallible>("value".to_owned())
                };
                cache.get_or_compute("cold", options, compute).await.unwrap()
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(*caller.await.unwrap(), "value");
    }
    assert_eq!(computed.load(Ordering::SeqCst), 1);
}
