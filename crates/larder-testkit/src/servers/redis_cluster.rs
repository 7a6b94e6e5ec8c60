use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use super::certificates::Certificates;
use super::port::Port;
use super::redis::{RedisOptions, RedisServer};

/// How a [`RedisCluster`] is started.
#[derive(Clone, Debug)]
pub struct RedisClusterOptions {
    node: RedisOptions,
    timeout: Duration,
}

impl RedisClusterOptions {
    /// After how much silence a node is taken for dead, and a replica of it made the primary. 15 s unless set: a busy
    /// machine is no reason for a failover.
    #[must_use]
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// One more directive for every node: `directive("maxmemory", &["1mb"])`.
    #[must_use]
    pub fn directive(mut self, name: &str, values: &[&str]) -> Self {
        self.node = self.node.directive(name, values);
        self
    }

    /// The password of the default user, which the nodes use among themselves too.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.node = self.node.password(password).directive("masterauth", &[password]);
        self
    }

    /// Speaks TLS, as [`RedisOptions::tls`] has it; [`RedisCluster::url`] says so.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.node = self.node.tls(certificates).directive("tls-cluster", &["yes"]);
        self
    }

    /// Starts a cluster so.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start(self) -> RedisCluster {
        for _ in 0..10 {
            let mut cluster = RedisCluster::prepare(&self);
            if cluster.run().await {
                cluster.ready().await;
                return cluster;
            }
        }
        panic!("somebody takes every port before the servers do");
    }
}

/// A Redis cluster of one's own: three primaries with a third of the slots each, and a replica of each.
///
/// The nodes are told of each other by the file in which a node keeps what it knows of its cluster, so they need not meet
/// first: it takes two seconds to start, for which a node that has just come up does not answer. A node that is down takes
/// no others along (`cluster-require-full-coverage no`).
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() {
/// use larder_testkit::servers::RedisCluster;
///
/// let cluster = RedisCluster::start().await;
/// println!("{}", cluster.url());
/// # }
/// ```
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    // For what the nodes say to each other.
    buses: Vec<Port>,
    ids: Vec<String>,
}

impl RedisCluster {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// Starts with options.
    pub fn options() -> RedisClusterOptions {
        let node = RedisServer::options()
            .directive("cluster-enabled", &["yes"])
            .directive("cluster-config-file", &["nodes.conf"])
            .directive("cluster-require-full-coverage", &["no"])
            .directive("cluster-replica-validity-factor", &["0"])
            .directive("repl-diskless-sync-delay", &["0"])
            .directive("repl-ping-replica-period", &["1"]);
        RedisClusterOptions { node, timeout: Duration::from_secs(15) }
    }

    /// Where it is: `redis+cluster://127.0.0.1:40000,127.0.0.1:40001,127.0.0.1:40002`, the primaries, credentials
    /// included; `rediss+cluster` where it speaks TLS.
    pub fn url(&self) -> String {
        let first = self.nodes[0].url();
        let login = first.rsplit_once('@').map(|(login, _)| login.trim_start_matches("redis://"));
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        let nodes = &self.nodes[..PRIMARIES];
        format!("{}+cluster://{login}{}", nodes[0].scheme(), known(nodes).join(","))
    }

    /// Its nodes: three that began as primaries, then the replica of each, in the same order.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The same, to kill and restart them. A node that is restarted is empty and knows its cluster.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// Which of the nodes that began as primaries began with a slot.
    pub fn first_owner(slot: u16) -> usize {
        (0..PRIMARIES).find(|at| slots(*at).1 >= slot).unwrap_or(0)
    }

    /// Moves a slot with all its keys from one primary to another, as a reshard does, `step` by step: it is called before
    /// the move, after each key, and when the new owner is told and the others are not yet.
    ///
    /// # Panics
    ///
    /// When a node does not answer, or refuses.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize, step: impl AsyncFn()) {
        let (source, target, text) = (&self.nodes[from], &self.nodes[to], slot.to_string());
        let (old, new) = (&self.ids[from], &self.ids[to]);
        ok(target, &["CLUSTER", "SETSLOT", &text, "IMPORTING", old]).await;
        ok(source, &["CLUSTER", "SETSLOT", &text, "MIGRATING", new]).await;
        step().await;
        let port = target.known_port().to_string();
        loop {
            let reply = source.command(&["CLUSTER", "GETKEYSINSLOT", &text, "1"]).await;
            let reply = reply.expect("the node answers");
            let Some(key) = String::from_utf8_lossy(&reply).lines().nth(2).map(str::to_owned)
            else {
                break;
            };
            let migrate = ["MIGRATE", "127.0.0.1", &port, &key, "0", "10000"];
            let reply = source.command(&migrate).await.expect("the node answers");
            // It may have ended by itself.
            assert!(reply.starts_with(b"+"), "{}", String::from_utf8_lossy(&reply));
            step().await;
        }
        ok(target, &["CLUSTER", "SETSLOT", &text, "NODE", new]).await;
        step().await;
        for (at, node) in self.nodes[..PRIMARIES].iter().enumerate() {
            if at != to {
                ok(node, &["CLUSTER", "SETSLOT", &text, "NODE", new]).await;
            }
        }
    }

    fn prepare(options: &RedisClusterOptions) -> Self {
        let buses: Vec<Port> = (0..NODES).map(|_| Port::reserve()).collect();
        let timeout = options.timeout.as_millis().to_string();
        let node = |bus: &Port| {
            let node = options.node.clone().directive("cluster-node-timeout", &[&timeout]);
            node.directive("cluster-port", &[&bus.number().to_string()]).prepare()
        };
        let nodes: Vec<RedisServer> = buses.iter().map(node).collect();
        let id = |_| format!("{:020x}{:020x}", rand::random::<u64>(), rand::random::<u64>());
        let ids: Vec<String> = (0..NODES).map(id).collect();
        let cluster = RedisCluster { nodes, buses, ids };
        for at in 0..NODES {
            let file = cluster.nodes[at].directory().join("nodes.conf");
            fs::write(file, cluster.known_to(at)).expect("the node's file can be written");
        }
        cluster
    }

    // What a node knows at its start: every node, who is whose replica, and who has which slots.
    fn known_to(&self, myself: usize) -> String {
        let mut text = String::new();
        for at in 0..NODES {
            let (id, port, bus) =
                (&self.ids[at], self.nodes[at].known_port(), self.buses[at].number());
            let me = if at == myself { "myself," } else { "" };
            let (flags, of) = match at.checked_sub(PRIMARIES) {
                None => ("master", "-"),
                Some(primary) => ("slave", &*self.ids[primary]),
            };
            let epoch = 1 + at % PRIMARIES;
            let _ =
                write!(text, "{id} 127.0.0.1:{port}@{bus} {me}{flags} {of} 0 0 {epoch} connected");
            if at < PRIMARIES {
                let (first, last) = slots(at);
                let _ = write!(text, " {first}-{last}");
            }
            text.push('\n');
        }
        let _ = writeln!(text, "vars currentEpoch {PRIMARIES} lastVoteEpoch 0");
        text
    }

    async fn run(&mut self) -> bool {
        for node in &mut self.nodes {
            if !node.run().await {
                return false;
            }
        }
        true
    }

    async fn ready(&self) {
        let until = Instant::now() + START;
        for (at, node) in self.nodes.iter().enumerate() {
            let wanted =
                if at < PRIMARIES { "connected_slaves:1" } else { "master_link_status:up" };
            while !(says(node, &["CLUSTER", "INFO"], "cluster_state:ok").await
                && says(node, &["INFO", "replication"], wanted).await)
            {
                assert!(Instant::now() < until, "the cluster did not come up within {START:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

pub(super) async fn says(server: &RedisServer, command: &[&str], text: &str) -> bool {
    let reply = server.command(command).await;
    reply.is_ok_and(|reply| String::from_utf8_lossy(&reply).contains(text))
}

/// The addresses that other servers know them by.
pub(super) fn known(servers: &[RedisServer]) -> Vec<String> {
    servers.iter().map(|server| format!("127.0.0.1:{}", server.known_port())).collect()
}

async fn ok(node: &RedisServer, command: &[&str]) {
    let reply = node.command(command).await.expect("the node answers");
    assert_eq!(reply, b"+OK\r\n", "{command:?}: {}", String::from_utf8_lossy(&reply));
}

// The first and the last slot of a primary.
fn slots(at: usize) -> (u16, u16) {
    [(0, 5460), (5461, 10_922), (10_923, 16_383)][at]
}

const PRIMARIES: usize = 3;

const NODES: usize = 2 * PRIMARIES;

const START: Duration = Duration::from_secs(60);
