//! Which node a command goes to, and how that node is found again when it has moved.
//!
//! | topology | the node | found again by |
//! | --- | --- | --- |
//! | one server ([`Place::At`]) | always the same | connecting again; its name is looked up each time |
//! | sentinels ([`Place::Told`]) | the primary | asking them before each attempt to connect, and every second |
//! | a cluster ([`Cluster`]) | the primary of the slot | the map of slots, redirections, and asking any node for a new map |
//!
//! What a node is told, and what happens when it does not answer, is the same for all of them (`node.rs`, `client.rs`).

mod cluster;
mod reader;
mod sentinel;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use redis::Cmd;
use tokio::time::Instant;

use crate::config::{Builder, Servers};
use crate::dial::{Address, Dialer};
use crate::layout::Layout;
use crate::link::Role;
use crate::node::{Common, Node, Place};
use crate::outage::Why;

use reader::Reader;

pub(crate) use cluster::Cluster;
pub(crate) use sentinel::Sentinels;

/// A primary and, where they are read, its replicas.
pub(crate) struct Shard {
    pub(crate) primary: Arc<Node>,
    reader: Option<Reader>,
}

impl Shard {
    fn new(common: &Arc<Common>, place: Place, role: Role, lag: Option<Duration>) -> Self {
        let primary = Arc::new(Node::new(common, place, role));
        let reader = lag.map(|lag| Reader::new(common, &primary, role == Role::Any, lag));
        Shard { primary, reader }
    }

    /// A replica that may be read now, if there is one.
    pub(crate) fn replica(&self) -> Option<Arc<Node>> {
        self.reader.as_ref()?.node()
    }
}

pub(crate) enum Topology {
    One(Arc<Shard>),
    Cluster(Cluster),
}

impl Topology {
    pub(crate) fn new(builder: &Builder) -> Self {
        let dialer = |login| {
            let (tls, timeout) = (builder.tls.clone(), builder.connect_timeout);
            Dialer::new(tls, login, 0, timeout)
        };
        let common = Arc::new(Common {
            dialer: Dialer::new(
                builder.tls.clone(),
                &builder.login,
                builder.database,
                builder.connect_timeout,
            ),
            clock: builder.clock.clone(),
            links: AtomicU64::new(0),
        });
        let place = match &builder.servers {
            Servers::Cluster(seeds) => {
                return Topology::Cluster(Cluster::new(common, seeds.clone(), builder.replica_lag));
            }
            Servers::One(address) => Place::At(address.clone()),
            Servers::Sentinels { addresses, primary } => {
                let dialer = dialer(&builder.sentinel_login);
                let sentinels = Sentinels::new(dialer, addresses.clone(), primary.clone());
                Place::Told(Arc::new(sentinels))
            }
        };
        Topology::One(Arc::new(Shard::new(&common, place, Role::Primary, builder.replica_lag)))
    }

    pub(crate) fn layout(&self) -> Layout {
        match self {
            Topology::One(_) => Layout::One,
            Topology::Cluster(_) => Layout::Cluster,
        }
    }

    /// Waits until it was tried to connect, and tells why it did not succeed.
    pub(crate) async fn connected(&self) -> Result<(), Why> {
        match self {
            Topology::One(shard) => shard.primary.connected().await,
            Topology::Cluster(cluster) => cluster.connected().await,
        }
    }

    /// Waits until it is known who has which slot.
    pub(crate) async fn known(&self, deadline: Instant) -> Result<(), Why> {
        match self {
            Topology::One(_) => Ok(()),
            Topology::Cluster(cluster) => cluster.known(deadline).await,
        }
    }

    /// Who has a slot.
    pub(crate) fn shard(&self, slot: u16) -> Result<Arc<Shard>, Why> {
        match self {
            Topology::One(shard) => Ok(shard.clone()),
            Topology::Cluster(cluster) => cluster.shard(slot),
        }
    }

    /// The node that every command goes to, where there is but one.
    pub(crate) fn only(&self) -> Option<&Arc<Node>> {
        match self {
            Topology::One(shard) if shard.reader.is_none() => Some(&shard.primary),
            _ => None,
        }
    }

    /// The lowest slot of each primary.
    pub(crate) fn slots(&self) -> Vec<u16> {
        match self {
            Topology::One(_) => vec![0],
            Topology::Cluster(cluster) => cluster.slots(),
        }
    }

    /// Takes what a node said about where a slot is; `None` where nobody says such things.
    pub(crate) fn redirected(&self, by: &Node, details: &str, moved: bool) -> Option<Arc<Node>> {
        match self {
            Topology::One(_) => None,
            Topology::Cluster(cluster) => cluster.redirected(by, details, moved),
        }
    }

    /// Something failed that another map of slots may heal.
    pub(crate) fn doubt(&self) {
        if let Topology::Cluster(cluster) = self {
            cluster.doubt();
        }
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command
}

/// An address out of a server's answer.
fn address(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.to_owned(), port }
}
