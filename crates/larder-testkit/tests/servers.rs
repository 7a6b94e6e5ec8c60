//! Servers start, freeze, die and come back, and leave nothing behind.

use std::time::Duration;

use larder_testkit::servers::{
    MemcachedServer, PostgresServer, RedisCluster, RedisSentinels, RedisServer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_server_answers_until_it_is_dropped() {
    let server = RedisServer::start().await;
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
    assert_eq!(server.command(&["SET", "k", "v w"]).await.unwrap(), b"+OK\r\n");
    assert_eq!(server.command(&["GET", "k"]).await.unwrap(), b"$3\r\nv w\r\n");
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_frozen_server_is_silent_and_goes_on() {
    let server = RedisServer::start().await;
    server.freeze();
    assert!(TcpStream::connect(server.address()).await.is_ok(), "the kernel still accepts");
    assert!(server.command(&["PING"]).await.is_err());
    server.thaw();
    assert_eq!(server.command(&["PING"]).await.unwrap(), b"+PONG\r\n");
}

#[tokio::test]
async fn a_restarted_server_is_empty_and_at_the_same_port() {
    let mut server = RedisServer::start().await;
    let port = server.port();
    server.command(&["SET", "k", "v"]).await.unwrap();
    server.kill();
    assert!(server.command(&["PING"]).await.is_err());
    server.restart().await;
    assert_eq!(server.port(), port);
    assert_eq!(server.command(&["GET", "k"]).await.unwrap(), b"$-1\r\n");
}

#[tokio::test]
async fn options_are_options() {
    let options = RedisServer::options().max_memory("2mb", "noeviction").password("secret").user(
        "app",
        "word",
        "~kit* &* +@all -flushall",
    );
    let server = options.start().await;
    assert_eq!(server.url(), format!("redis://app:word@127.0.0.1:{}", server.port()));
    let policy = server.command(&["CONFIG", "GET", "maxmemory-policy"]).await.unwrap();
    assert!(String::from_utf8_lossy(&policy).contains("noeviction"));
    let refused = server.command(&["FLUSHALL"]).await.unwrap();
    assert!(refused.starts_with(b"-NOPERM"), "{}", String::from_utf8_lossy(&refused));
    let refused = server.command(&["SET", "foreign", "v"]).await.unwrap();
    assert!(refused.starts_with(b"-NOPERM"), "{}", String::from_utf8_lossy(&refused));

    let server = RedisServer::options().password("secret").start().await;
    assert_eq!(server.command(&["PING"]).await.unwrap(), b"+PONG\r\n");
    let stranger = server.url();
    assert!(stranger.contains(":secret@"));
}

#[tokio::test]
async fn ten_servers_do_not_get_into_each_others_way() {
    let mut servers = Vec::new();
    for _ in 0..10 {
        servers.push(RedisServer::start().await);
    }
    for (n, server) in servers.iter().enumerate() {
        server.command(&["SET", "n", &n.to_string()]).await.unwrap();
    }
    for (n, server) in servers.iter().enumerate() {
        assert_eq!(
            server.command(&["GET", "n"]).await.unwrap(),
            format!("$1\r\n{n}\r\n").as_bytes()
        );
    }
}

#[tokio::test]
async fn a_memcached_answers_freezes_dies_and_comes_back_empty() {
    let mut server = MemcachedServer::options().memory(16).item_size("2m").start().await;
    assert_eq!(server.url(), format!("memcached://127.0.0.1:{}", server.port()));
    let settings = String::from_utf8(server.send(b"stats settings\r\n").await.unwrap()).unwrap();
    assert!(settings.contains("item_size_max 2097152") && settings.contains("maxbytes 16777216"));
    assert_eq!(server.send(b"ms k 3 T0\r\nv w\r\n").await.unwrap(), b"HD\r\n");
    assert_eq!(server.send(b"mg k v\r\n").await.unwrap(), b"VA 3\r\nv w\r\n");
    server.freeze();
    assert!(TcpStream::connect(server.address()).await.is_ok(), "the kernel still accepts");
    assert!(server.send(b"").await.is_err());
    server.thaw();
    assert_eq!(server.send(b"mg k v\r\n").await.unwrap(), b"VA 3\r\nv w\r\n");
    let port = server.port();
    server.kill();
    assert!(server.send(b"").await.is_err());
    server.restart().await;
    assert_eq!(server.port(), port);
    assert_eq!(server.send(b"mg k v\r\n").await.unwrap(), b"EN\r\n");
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_postgres_answers_freezes_dies_and_comes_back() {
    let mut server = PostgresServer::options().setting("max_connections", "20").start().await;
    let url = format!("postgres://larder:for-tests@127.0.0.1:{}/postgres", server.port());
    assert_eq!(server.url(), url);
    assert_eq!(ssl_question(&server.address()).await.unwrap(), b'N', "it speaks its protocol");
    server.freeze();
    assert!(TcpStream::connect(server.address()).await.is_ok(), "the kernel still accepts");
    let address = server.address();
    let silent = tokio::time::timeout(Duration::from_millis(200), ssl_question(&address)).await;
    assert!(silent.is_err());
    server.thaw();
    assert_eq!(ssl_question(&server.address()).await.unwrap(), b'N');
    let port = server.port();
    server.kill();
    assert!(ssl_question(&server.address()).await.is_err());
    server.restart().await;
    assert_eq!(server.port(), port);
    // Even a frozen one goes when it is dropped.
    server.freeze();
    drop(server);
    assert!(TcpStream::connect(address).await.is_err());
}

async fn ssl_question(address: &str) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    stream.read_u8().await
}

#[tokio::test]
async fn a_redis_cluster_has_its_slots_and_a_primary_that_dies_is_replaced() {
    let mut cluster = RedisCluster::options().node_timeout(Duration::from_secs(1)).start().await;
    // foo lies in slot 12182.
    assert_eq!(RedisCluster::first_owner(12_182), 2);
    let set = ["SET", "foo", "v"];
    assert_eq!(cluster.nodes()[2].command(&set).await.unwrap(), b"+OK\r\n");
    let moved = cluster.nodes()[0].command(&set).await.unwrap();
    let owner = cluster.nodes()[2].address();
    assert_eq!(String::from_utf8_lossy(&moved), format!("-MOVED 12182 {owner}\r\n"));

    cluster.move_slot(12_182, 2, 0, async || {}).await;
    assert_eq!(cluster.nodes()[0].command(&["GET", "foo"]).await.unwrap(), b"$1\r\nv\r\n");

    cluster.nodes_mut()[1].kill();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    let promoted = async || {
        let reply = cluster.nodes()[4].command(&["ROLE"]).await.unwrap();
        String::from_utf8_lossy(&reply).contains("master")
    };
    while !promoted().await {
        assert!(tokio::time::Instant::now() < until, "no replica was promoted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn sentinels_choose_another_primary() {
    let mut sentinels = RedisSentinels::start().await;
    let first = sentinels.servers()[0].port().to_string();
    let told = async |sentinels: &RedisSentinels| {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", RedisSentinels::PRIMARY];
        let reply = sentinels.sentinels()[1].command(&question).await.unwrap();
        String::from_utf8_lossy(&reply).lines().nth(4).unwrap_or_default().to_owned()
    };
    assert_eq!(told(&sentinels).await, first);
    sentinels.servers_mut()[0].kill();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while told(&sentinels).await == first {
        assert!(tokio::time::Instant::now() < until, "no replica was promoted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
