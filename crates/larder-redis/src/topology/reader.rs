//! A replica that may be read: only as long as it is known how far it can be behind.
//!
//! The primary says how far its stream of changes has come. A replica that says afterwards that it has come as far has
//! everything that the primary had acknowledged when it was asked, so for a bounded time from then on it is read. A
//! replica that falls behind, loses its primary, or cannot be asked is simply no longer read.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::IndexedRandom;
use redis::{Pipeline, Value, cmd};
use tokio::time::{Instant, sleep};

use super::address;
use crate::dial::Address;
use crate::link::Role;
use crate::node::{Common, Node, Place};
use crate::task::Tended;

pub(crate) struct Reader {
    shared: Arc<Shared>,
    keeper: Tended,
}

struct Shared {
    common: Arc<Common>,
    primary: Arc<Node>,
    clustered: bool,
    lag: Duration,
    // Who may be read, and until when.
    current: Mutex<Option<(Arc<Node>, Instant)>>,
}

impl Reader {
    pub(crate) fn new(
        common: &Arc<Common>,
        primary: &Arc<Node>,
        clustered: bool,
        lag: Duration,
    ) -> Self {
        let shared = Shared {
            common: common.clone(),
            primary: primary.clone(),
            clustered,
            lag,
            current: Mutex::new(None),
        };
        let reader = Reader { shared: Arc::new(shared), keeper: Tended::default() };
        reader.tend();
        reader
    }

    /// A replica that is behind by no more than the lag that is allowed.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.tend();
        let current = self.shared.current.lock();
        let (node, until) = current.as_ref()?;
        (Instant::now() < *until && node.is_up()).then(|| node.clone())
    }

    fn tend(&self) {
        self.keeper.tend(|| keep(self.shared.clone()));
    }
}

async fn keep(shared: Arc<Shared>) {
    let mut replica: Option<(Address, Arc<Node>)> = None;
    let every = shared.lag / 4;
    loop {
        let asked = Instant::now();
        let primary = report(&shared.primary, every).await;
        if let Some(primary) = primary.filter(|report| report.primary) {
            let there = |(address, _): &(Address, Arc<Node>)| primary.replicas.contains(address);
            if !replica.as_ref().is_some_and(there) {
                // Nodes choose for themselves, so that all replicas are read.
                replica = primary.replicas.choose(&mut rand::rng()).map(|address| {
                    let role = Role::Replica { clustered: shared.clustered };
                    let node = Node::new(&shared.common, Place::At(address.clone()), role);
                    (address.clone(), Arc::new(node))
                });
            }
            if let Some((_, node)) = &replica {
                let until = asked + shared.lag;
                if shared.follows(node, &primary, until).await {
                    *shared.current.lock() = Some((node.clone(), until));
                }
            }
        }
        sleep(every).await;
    }
}

impl Shared {
    // Whether a replica has everything that the primary had. It may need a moment.
    async fn follows(&self, replica: &Node, primary: &Report, until: Instant) -> bool {
        while Instant::now() < until {
            match report(replica, self.lag / 4).await {
                Some(report) if report.follows && report.stream == primary.stream => {
                    if report.offset >= primary.offset {
                        return true;
                    }
                }
                _ => return false,
            }
            sleep(self.lag / 50).await;
        }
        false
    }
}

// What a server says of its replication.
struct Report {
    primary: bool,
    // A replica that hears its primary.
    follows: bool,
    // Offsets of different streams say nothing about each other.
    stream: String,
    offset: u64,
    replicas: Vec<Address>,
}

async fn report(node: &Node, limit: Duration) -> Option<Report> {
    let mut info = Pipeline::new();
    let mut question = cmd("INFO");
    question.arg("replication");
    info.add_command(question);
    let replies = node.send(&info, Instant::now() + limit).await.ok()?;
    let Some(Value::BulkString(text)) = replies.first() else { return None };
    read(std::str::from_utf8(text).ok()?)
}

fn read(text: &str) -> Option<Report> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let primary = field("role")? == "master";
    let offset = if primary { "master_repl_offset" } else { "slave_repl_offset" };
    let replica = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        name.strip_prefix("slave")?.parse::<u32>().ok()?;
        let part =
            |name: &str| fields.split(',').find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
        (part("state")? == "online").then_some(())?;
        Some(address(part("ip")?, part("port")?.parse().ok()?))
    };
    Some(Report {
        primary,
        follows: !primary
            && field("master_link_status") == Some("up")
            && field("master_sync_in_progress") == Some("0"),
        stream: field("master_replid")?.to_owned(),
        offset: field(offset)?.parse().ok()?,
        replicas: text.lines().filter_map(replica).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=10.0.0.1,port=6380,state=online,offset=70,lag=1\r\n\
            slave1:ip=10.0.0.2,port=6380,state=wait_bgsave,offset=0,lag=0\r\n\
            master_replid:abc\r\nmaster_repl_offset:70\r\n";
        let report = read(text).unwrap();
        assert!(report.primary && !report.follows);
        assert_eq!((report.offset, report.stream.as_str()), (70, "abc"));
        assert!(report.replicas == [address("10.0.0.1", 6380)], "only those that are in step");

        let text = "role:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\n\
            slave_repl_offset:69\r\nmaster_replid:abc\r\nmaster_repl_offset:69\r\n";
        let report = read(text).unwrap();
        assert!(report.follows && report.offset == 69);
        assert!(!read(&text.replace(":up", ":down")).unwrap().follows);
        assert!(!read(&text.replace("progress:0", "progress:1")).unwrap().follows);
        for nonsense in ["", "role:master", "role:slave\r\nmaster_replid:x\r\nslave_repl_offset:y"]
        {
            assert!(read(nonsense).is_none(), "{nonsense}");
        }
    }
}
