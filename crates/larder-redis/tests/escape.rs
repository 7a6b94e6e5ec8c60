//! What Larder does not wrap, by a connection of one's own.

use std::time::Duration;

use common::{LONG, eventually, key, read, store};
use larder_core::{Backend, Counter, ErrorKind, Ttl};
use larder_redis::{RedisBackend, redis};
use larder_testkit::servers::{RedisCluster, RedisServer};

mod common;

#[tokio::test]
async fn a_connection_of_ones_own_sees_what_lies_there_and_holds_nobody_up() {
    let server = RedisServer::options().password("s3cret").start().await;
    let backend = RedisBackend::connect(&format!("{}/3", server.url())).await.unwrap();
    let (entry, count) = (key("entry"), key("count"));
    store(&backend, &entry, "v").await;
    let counter = Counter { initial: 41, ttl: Ttl::from(LONG) };
    assert_eq!(backend.add(&count, 1, Some(counter)).await.unwrap(), Some(42));
    let name = backend.place(&entry).await.unwrap();

    let mut own = backend.connection(&entry).await.unwrap();
    let bytes: Vec<u8> = redis::cmd("GET").arg(&name).query_async(&mut own).await.unwrap();
    assert!(bytes.ends_with(b"v"), "the envelope ends with the value");
    let text: String = redis::cmd("GET")
        .arg(backend.place(&count).await.unwrap())
        .query_async(&mut own)
        .await
        .unwrap();
    assert_eq!(text, "42");
    let left: i64 = redis::cmd("TTL").arg(&name).query_async(&mut own).await.unwrap();
    assert!(left > 0);

    // It waits in the server, on its own connection only.
    let (mut waiting, mut waker) = (own.clone(), backend.connection(&entry).await.unwrap());
    let waited = tokio::spawn(async move {
        let wait = redis::cmd("BLPOP").arg("queue").arg(0).take();
        wait.query_async::<Vec<String>>(&mut waiting).await.unwrap()
    });
    assert_eq!(read(&backend, &entry).await.as_deref(), Some("v"));
    let _: () = redis::cmd("RPUSH").arg("queue").arg("job").query_async(&mut waker).await.unwrap();
    assert_eq!(waited.await.unwrap(), ["queue", "job"]);

    // The name is another one as soon as the namespace was cleared.
    backend.clear(&common::shop()).await.unwrap();
    assert_ne!(backend.place(&entry).await.unwrap(), name);

    let clients = async || {
        let status = server.command(&["CLIENT", "LIST"]).await.unwrap();
        String::from_utf8(status).unwrap().matches("name=").count()
    };
    drop((own, waker));
    // The backend's own, and the one that asks.
    eventually("the end of both", async || clients().await == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_it_leads_to_the_keys_own_node() {
    let cluster = RedisCluster::start().await;
    let backend = RedisBackend::connect(&cluster.url()).await.unwrap();
    for part in ["a", "b", "c", "d", "e", "f"] {
        let key = key(part);
        store(&backend, &key, part).await;
        let (name, mut own) =
            (backend.place(&key).await.unwrap(), backend.connection(&key).await.unwrap());
        // Any other node would answer MOVED.
        let there: bool = redis::cmd("EXISTS").arg(&name).query_async(&mut own).await.unwrap();
        assert!(there);
    }
}

#[tokio::test]
async fn without_a_server_there_is_none_and_the_words_say_so() {
    let mut server = RedisServer::start().await;
    let builder = RedisBackend::builder().url(&server.url()).unwrap();
    let builder = builder.connect_timeout(Duration::from_secs(2));
    let backend = builder.connect().await.unwrap();
    server.kill();
    for error in [
        backend.connection(&key("k")).await.map(drop).unwrap_err(),
        backend.place(&key("k")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
