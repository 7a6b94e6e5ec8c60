//! A primary that sentinels tell: the whole suite, and what happens when another one is chosen.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, eventually, expect_all_work, key, read, shop, store, text};
use larder_core::{Backend, Bus, ErrorKind, Heard, When};
use larder_redis::{Builder, RedisBackend};
use larder_testkit::servers::RedisSentinels;
use larder_testkit::{Harness, suite};

mod common;

fn builder(url: &str) -> Builder {
    RedisBackend::builder().url(url).unwrap().response_timeout(Duration::from_secs(2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_on_a_primary_that_sentinels_tell() {
    const LAG: Duration = Duration::from_millis(100);
    let sentinels = Arc::new(RedisSentinels::start().await);
    let harness = async || {
        let url = sentinels.url();
        let connect = move || {
            let builder = builder(&url).generation_max_age(LAG);
            let builder = builder.response_timeout(Duration::from_secs(20));
            async move { builder.connect().await.expect("the primary is there") }
        };
        let planted = sentinels.clone();
        Harness::new(connect().await)
            .with_second(connect)
            .with_lag(LAG * 2)
            .with_sizes(common::small_sizes())
            .with_plant(move |key, bytes| {
                let sentinels = planted.clone();
                async move {
                    let mut raw = common::raw(&sentinels.servers()[0]).await;
                    let name = common::wire_name(&mut raw, &key).await;
                    common::ask::<()>(&mut raw, &[b"SET", name.as_bytes(), &bytes]).await;
                }
            })
    };
    suite::run_all(8, harness).await;
}

// Writes until it is told to stop; the longest time without one that was acknowledged.
async fn longest_gap(backend: RedisBackend, stop: Arc<AtomicBool>) -> (Duration, usize) {
    let (mut last, mut longest, mut refused) = (Instant::now(), Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        match backend.put(&key("beat"), text("v"), LONG.into(), When::Always).await {
            Ok(_) => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) => {
                assert!(error.is_outage(), "{error:?}");
                refused += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (longest, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_replaced_and_found_without_a_restart() {
    let mut sentinels = RedisSentinels::start().await;
    let backend = builder(&sentinels.url()).connect().await.unwrap();
    store(&backend, &key("kept"), "v").await;
    sentinels.servers()[0].replicated(2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let beats = tokio::spawn(longest_gap(backend.clone(), stop.clone()));
    // The bus finds the new one as well.
    let (bus, heard) = (backend.bus(&shop()), Arc::new(AtomicBool::new(false)));
    let hears = heard.clone();
    let listener = bus.clone();
    let listening = tokio::spawn(async move {
        let silence = Duration::from_secs(3600);
        listener
            .listen(silence, |what| {
                if let Heard::Message(bytes) = what {
                    hears.store(&*bytes == b"after", Ordering::Relaxed);
                }
            })
            .await;
    });
    sentinels.servers_mut()[0].kill();
    let began = Instant::now();
    // Right after the death an operation may still be sent to nobody.
    eventually("the outage", async || backend.get(&key("kept"), &[]).await.is_err()).await;
    let replicas = &sentinels.servers()[1..];
    let found = common::writes_soon_after_the_election(&backend, &key("new"), replicas).await;
    eventually("the recovery", async || backend.get(&key("kept"), &[]).await.is_ok()).await;
    let recovered = began.elapsed();
    assert_eq!(read(&backend, &key("kept")).await.as_deref(), Some("v"));
    eventually("every verb", async || {
        common::every_verb(&backend, &shop()).await.iter().all(|(_, error)| error.is_none())
    })
    .await;
    eventually("the message", async || {
        let _ = bus.publish("after".into()).await;
        heard.load(Ordering::Relaxed)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let (longest, refused) = beats.await.unwrap();
    listening.abort();
    println!(
        "a dead primary with sentinels: {found:?} after the election, {recovered:?} to read, {longest:?} without a write, {refused} refusals"
    );

    // The old one comes back, as a replica that nobody reads.
    store(&backend, &key("kept"), "newer").await;
    sentinels.servers_mut()[0].restart().await;
    let fresh = builder(&sentinels.url()).connect().await.unwrap();
    for backend in [&backend, &fresh] {
        assert_eq!(read(backend, &key("kept")).await.as_deref(), Some("newer"));
        expect_all_work(backend, &shop()).await;
        store(backend, &key("kept"), "newer").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_cut_off_is_left_when_another_one_is_chosen() {
    let sentinels = RedisSentinels::start().await;
    let backend = builder(&sentinels.url()).response_timeout(Duration::from_millis(300));
    let backend = backend.connect().await.unwrap();
    store(&backend, &key("k"), "old").await;
    sentinels.servers()[0].freeze();
    eventually("the recovery", async || {
        backend.put(&key("k"), text("new"), LONG.into(), When::Always).await.is_ok()
    })
    .await;
    // It still believes that it is the primary; nobody listens to it any more.
    sentinels.servers()[0].thaw();
    for _ in 0..50 {
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("new"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_failover_is_followed_while_the_old_primary_still_takes_writes() {
    let sentinels = RedisSentinels::start().await;
    let backend = builder(&sentinels.url()).connect().await.unwrap();
    store(&backend, &key("k"), "first").await;
    let order = ["SENTINEL", "FAILOVER", RedisSentinels::PRIMARY];
    eventually("the order", async || {
        sentinels.sentinels()[0].command(&order).await.unwrap().starts_with(b"+OK")
    })
    .await;
    let first = sentinels.servers()[0].port().to_string();
    eventually("the choice", async || {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", RedisSentinels::PRIMARY];
        let told = sentinels.sentinels()[0].command(&question).await.unwrap();
        !String::from_utf8_lossy(&told).contains(&first)
    })
    .await;
    let chosen = Instant::now();
    // It is told some seconds later that it is a replica now; whoever waits for that loses what is written until then.
    let fresh = builder(&sentinels.url()).connect().await.unwrap();
    let mut round = 0;
    eventually("the change", async || {
        round += 1;
        let value = round.to_string();
        let put = backend.put(&key("k"), text(&value), LONG.into(), When::Always).await;
        put.is_ok() && read(&fresh, &key("k")).await == Some(value)
    })
    .await;
    let role = sentinels.servers()[0].command(&["ROLE"]).await.unwrap_or_default();
    let believes = String::from_utf8_lossy(&role).contains("master");
    assert!(believes || chosen.elapsed() > Duration::from_secs(5), "nobody else told us");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_are_gone_matter_only_to_those_who_ask_them() {
    let mut sentinels = RedisSentinels::start().await;
    let backend = builder(&sentinels.url()).connect().await.unwrap();
    sentinels.sentinels_mut()[0].kill();
    sentinels.sentinels()[1].freeze();
    // The third one answers; a dead one and a silent one cost a share of the time to connect.
    let second = builder(&sentinels.url()).connect_timeout(Duration::from_secs(3));
    expect_all_work(&second.connect().await.unwrap(), &shop()).await;
    sentinels.sentinels_mut()[2].kill();
    // What is connected stays so.
    expect_all_work(&backend, &shop()).await;
    let error = builder(&sentinels.url()).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("sentinel"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sentinels_do_not_know_is_said() {
    let sentinels = RedisSentinels::start().await;
    let wrong = sentinels.url().replace(RedisSentinels::PRIMARY, "canary");
    let plain = format!("redis+sentinel://{}/canary", sentinels.servers()[0].address());
    for (url, word) in [(wrong, "name"), (plain, "no sentinel")] {
        let error = RedisBackend::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}
