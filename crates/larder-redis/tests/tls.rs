//! TLS with real certificates: one server, sentinels, a cluster.
#![cfg(feature = "tls")]

use std::time::Duration;

use common::{eventually, expect_all_work, key, read, shop, store};
use larder_core::{Backend, Error, ErrorKind, Key};
use larder_redis::RedisBackend;
use larder_testkit::servers::{Certificates, RedisCluster, RedisSentinels, RedisServer};

mod common;

// What a URL says so that the servers are trusted, and trust us.
fn trusting(certificates: &Certificates, root: &str) -> String {
    let path = |file: &str| certificates.path(file).display().to_string();
    format!(
        "root_certificate={}&client_certificate={}&client_key={}&response_timeout=5s&connect_timeout=5s",
        path(root),
        path("client.crt"),
        path("client.key")
    )
}

async fn connect(url: &str, certificates: &Certificates) -> RedisBackend {
    let url = format!("{url}?{}", trusting(certificates, "ca.crt"));
    RedisBackend::connect(&url).await.unwrap()
}

// What is said to who trusts somebody else.
async fn distrust(url: &str, certificates: &Certificates) -> Error {
    let url = format!("{url}?{}", trusting(certificates, "stranger.crt"));
    RedisBackend::connect(&url).await.expect_err("a certificate of somebody else's")
}

fn says_what_to_look_at(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = error.to_string();
    assert!(text.contains("root_certificate"), "{text}");
    assert!(!text.contains("stranger") && !text.contains("127.0.0.1"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_root_of_ones_own() {
    let certificates = Certificates::new();
    let server = RedisServer::options().tls(&certificates).start().await;
    let tls_port = server.tls_port();
    let url = format!("rediss://localhost:{tls_port}/0");
    let pem = |name: &str| certificates.pem(name);
    let full = |root: &str| {
        let builder = RedisBackend::builder().url(&url).unwrap();
        let builder = builder.root_certificate_pem(pem(root)).unwrap();
        builder.client_certificate_pem(pem("client.crt"), pem("client.key")).unwrap()
    };
    let backend = full("ca.crt").connect().await.unwrap();
    expect_all_work(&backend, &shop()).await;

    for (builder, what) in [
        (RedisBackend::builder().url(&url).unwrap(), "the world's roots"),
        (full("stranger.crt"), "another root"),
        (
            RedisBackend::builder().url(&url).unwrap().root_certificate_pem(pem("ca.crt")).unwrap(),
            "no certificate of one's own",
        ),
        (
            RedisBackend::builder().url(&format!("rediss://localhost:{}", server.port())).unwrap(),
            "a port without TLS",
        ),
    ] {
        let error = builder.connect().await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
    }
    let plain = RedisBackend::connect(&format!("redis://localhost:{tls_port}")).await.unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::Unavailable, "no TLS where TLS is spoken");

    let builder = RedisBackend::builder().url(&url).unwrap();
    for wrong in
        [&b"canary"[..], b"", b"-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----"]
    {
        let error = builder.clone().root_certificate_pem(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let error = builder.clone().client_certificate_pem(wrong, wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_by_url_alone() {
    let certificates = Certificates::new();
    let server = RedisServer::options().tls(&certificates).start().await;
    let url = format!("rediss://localhost:{}", server.tls_port());
    expect_all_work(&connect(&url, &certificates).await, &shop()).await;
    says_what_to_look_at(&distrust(&url, &certificates).await);

    let path = |file: &str| certificates.path(file).display().to_string();
    for (query, word) in [
        (format!("root_certificate={}", path("canary.crt")), "root_certificate"),
        (format!("root_certificate={}", path("ext")), "PEM"),
        (format!("client_certificate={}", path("client.crt")), "client_key"),
        (format!("client_key={}", path("client.key")), "client_certificate"),
    ] {
        let error = RedisBackend::builder().url(&format!("{url}?{query}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{query}: {error}");
        let text = error.to_string();
        assert!(text.contains(word) && !text.contains("canary"), "{query}: {text}");
    }
    let plain = format!("{}?root_certificate={}", server.url(), path("ca.crt"));
    let error = RedisBackend::builder().url(&plain).unwrap_err();
    assert!(error.to_string().contains("rediss"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_which_one_node_dies() {
    let certificates = Certificates::new();
    let options = RedisCluster::options().tls(&certificates);
    let mut cluster = options.node_timeout(Duration::from_secs(2)).start().await;
    let backend = connect(&cluster.url(), &certificates).await;
    expect_all_work(&backend, &shop()).await;
    says_what_to_look_at(&distrust(&cluster.url(), &certificates).await);

    // Some on each node, so that all three were reached; the map names the ports that speak TLS.
    let keys: Vec<Key> = (0..60).map(|n| key(&n.to_string())).collect();
    for key in &keys {
        store(&backend, key, "v").await;
    }
    for node in &cluster.nodes()[..3] {
        let size = node.command(&["DBSIZE"]).await.unwrap();
        assert_ne!(size, b":0\r\n");
        node.replicated(1).await;
    }
    cluster.nodes_mut()[0].kill();
    // Whoever takes over is one that was never spoken to.
    eventually("another one takes over", async || {
        let found = backend.get_many(&keys).await;
        found.is_ok_and(|found| found.iter().all(Option::is_some))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_of_a_cluster_moves() {
    let certificates = Certificates::new();
    let cluster = RedisCluster::options().tls(&certificates).start().await;
    let backend = connect(&cluster.url(), &certificates).await;
    let keys: Vec<Key> = (0..60).map(|n| key(&n.to_string())).collect();
    for key in &keys {
        store(&backend, key, "v").await;
    }
    // Those that lie on the first node, wherever they are sent to.
    let reply = cluster.nodes()[0].command(&["RANDOMKEY"]).await.unwrap();
    let name = String::from_utf8(reply).unwrap().lines().nth(1).unwrap().to_owned();
    let slot = cluster.nodes()[0].command(&["CLUSTER", "KEYSLOT", &name]).await.unwrap();
    let slot = String::from_utf8(slot).unwrap()[1..].trim().parse().unwrap();
    cluster
        .move_slot(slot, 0, 1, async || {
            for key in &keys {
                assert_eq!(read(&backend, key).await.as_deref(), Some("v"));
            }
        })
        .await;
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_choose_another_primary() {
    let certificates = Certificates::new();
    let mut sentinels = RedisSentinels::start_tls(&certificates).await;
    let backend = connect(&sentinels.url(), &certificates).await;
    expect_all_work(&backend, &shop()).await;
    says_what_to_look_at(&distrust(&sentinels.url(), &certificates).await);
    store(&backend, &key("kept"), "v").await;
    sentinels.servers()[0].replicated(2).await;
    sentinels.servers_mut()[0].kill();
    eventually("the recovery", async || {
        backend.get(&key("kept"), &[]).await.is_ok_and(|found| found.entry.is_some())
    })
    .await;
    expect_all_work(&backend, &shop()).await;

    // Sentinels that speak no TLS at that port.
    let plain = sentinels.sentinels()[1].address();
    let error = distrust(&format!("rediss+sentinel://{plain}/mymaster"), &certificates).await;
    assert!(error.to_string().contains("TLS"), "{error}");
}
