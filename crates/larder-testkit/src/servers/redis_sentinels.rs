use std::fs;
use std::time::{Duration, Instant};

use super::certificates::Certificates;
use super::redis::{RedisOptions, RedisServer};
use super::redis_cluster::{known, says};

/// A primary, two replicas of it, and three sentinels that choose another primary half a second after it has gone.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() {
/// use larder_testkit::servers::RedisSentinels;
///
/// let mut sentinels = RedisSentinels::start().await;
/// println!("{}", sentinels.url());
/// sentinels.servers_mut()[0].kill(); // one of the others becomes the primary
/// # }
/// ```
#[derive(Debug)]
pub struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    // What all of them have.
    options: RedisOptions,
}

impl RedisSentinels {
    /// What the sentinels call the primary.
    pub const PRIMARY: &'static str = "mymaster";

    /// Starts them.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(RedisServer::options()).await
    }

    /// Starts them speaking TLS, as [`RedisOptions::tls`] has it; [`RedisSentinels::url`] says so.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start_tls(certificates: &Certificates) -> Self {
        Self::start_with(RedisServer::options().tls(certificates)).await
    }

    async fn start_with(options: RedisOptions) -> Self {
        let server = || {
            let server = options.clone().directive("repl-diskless-sync-delay", &["0"]);
            server.directive("repl-ping-replica-period", &["1"])
        };
        let primary = server().start().await;
        let port = primary.known_port().to_string();
        let replica = || server().directive("replicaof", &["127.0.0.1", &port]).start();
        let servers = vec![primary, replica().await, replica().await];
        let mut all = RedisSentinels { servers, sentinels: Vec::new(), options };
        for _ in 0..10 {
            if all.watch().await {
                all.ready().await;
                return all;
            }
        }
        panic!("somebody takes every port before the servers do");
    }

    /// Where the sentinels are: `redis+sentinel://127.0.0.1:40000,127.0.0.1:40001,127.0.0.1:40002/mymaster`, or
    /// `rediss+sentinel` where they speak TLS.
    pub fn url(&self) -> String {
        let hosts = known(&self.sentinels).join(",");
        format!("{}+sentinel://{hosts}/{}", self.sentinels[0].scheme(), Self::PRIMARY)
    }

    /// The servers: the one that began as the primary, and its replicas.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The same, to kill and restart them.
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The sentinels.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The same, to kill and restart them.
    pub fn sentinels_mut(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    // False when a port was taken.
    async fn watch(&mut self) -> bool {
        let new = |_| self.options.clone().sentinel().prepare();
        self.sentinels = (0..SENTINELS).map(new).collect();
        let id = |_| format!("{:020x}{:020x}", rand::random::<u64>(), rand::random::<u64>());
        let ids: Vec<String> = (0..SENTINELS).map(id).collect();
        for at in 0..SENTINELS {
            let file = self.sentinels[at].directory().join("sentinel.conf");
            fs::write(file, self.known_to(at, &ids)).expect("the sentinel's file can be written");
        }
        for sentinel in &mut self.sentinels {
            if !sentinel.run().await {
                return false;
            }
        }
        true
    }

    // What a sentinel knows at its start: everybody, so that they need not hear of each other first.
    fn known_to(&self, myself: usize, ids: &[String]) -> String {
        let (me, name) = (&self.sentinels[myself], Self::PRIMARY);
        let mut lines = vec![
            format!("port {}", me.port()),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", me.directory().display()),
            format!("sentinel myid {}", ids[myself]),
            self.options.as_lines(),
            format!("sentinel monitor {name} 127.0.0.1 {} 2", self.servers[0].known_port()),
            format!("sentinel down-after-milliseconds {name} 500"),
            format!("sentinel failover-timeout {name} 5000"),
            format!("sentinel parallel-syncs {name} 2"),
        ];
        if self.options.speaks_tls() {
            lines.push(format!("tls-port {}", me.tls_port()));
        }
        for replica in &self.servers[1..] {
            lines.push(format!("sentinel known-replica {name} 127.0.0.1 {}", replica.known_port()));
        }
        for at in (0..SENTINELS).filter(|at| *at != myself) {
            let (port, id) = (self.sentinels[at].known_port(), &ids[at]);
            lines.push(format!("sentinel known-sentinel {name} 127.0.0.1 {port} {id}"));
        }
        lines.join("\n") + "\n"
    }

    async fn ready(&self) {
        let until = Instant::now() + START;
        let well = async || {
            for replica in &self.servers[1..] {
                if !says(replica, &["INFO", "replication"], "master_link_status:up").await {
                    return false;
                }
            }
            for sentinel in &self.sentinels {
                let quorum = ["SENTINEL", "CKQUORUM", Self::PRIMARY];
                let replicas = ["INFO", "sentinel"];
                if !says(sentinel, &quorum, "+OK 3 usable").await
                    || !says(sentinel, &replicas, "status=ok").await
                    || !says(sentinel, &replicas, "slaves=2").await
                {
                    return false;
                }
                // Without it, it would find no replica to choose for a while.
                let known = sentinel.command(&["SENTINEL", "REPLICAS", Self::PRIMARY]).await;
                let known = String::from_utf8_lossy(&known.unwrap_or_default()).into_owned();
                if known.matches("master-link-status\r\n$2\r\nok").count() < 2 {
                    return false;
                }
            }
            true
        };
        while !well().await {
            assert!(Instant::now() < until, "the sentinels did not come up within {START:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const SENTINELS: usize = 3;

const START: Duration = Duration::from_secs(60);
