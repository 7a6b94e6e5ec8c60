//! A cluster: the map of its slots, and the nodes that it names.
//!
//! The map is asked of any node that answers, at the start, when something did not go as the map said, as long as a node
//! is gone, and now and then. In between, redirections correct it slot by slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use redis::{Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Shard, address, command};
use crate::dial::Address;
use crate::layout::SLOTS;
use crate::link::{Link, Role};
use crate::node::{Common, Node, Place, pause};
use crate::outage::Why;
use crate::task::Tended;

pub(crate) struct Cluster {
    shared: Arc<Shared>,
    keeper: Tended,
}

struct Shared {
    common: Arc<Common>,
    // How far behind a replica that is read may be; none unless they are read.
    lag: Option<Duration>,
    seeds: Vec<Address>,
    map: RwLock<Map>,
    state: watch::Sender<State>,
    // Somebody has seen that the map is wrong, or suspects it.
    doubted: Notify,
}

#[derive(Default)]
struct Map {
    nodes: HashMap<Address, Arc<Shard>>,
    // Who has each slot; empty as long as nobody was asked.
    slots: Vec<Option<Arc<Shard>>>,
}

#[derive(Clone)]
enum State {
    /// Nobody has answered so far: those who come wait, within their limits.
    Asking,
    Known,
    /// An attempt has failed, more are made in the background.
    Unknown(Why),
}

impl Cluster {
    pub(crate) fn new(common: Arc<Common>, seeds: Vec<Address>, lag: Option<Duration>) -> Self {
        let shared = Arc::new(Shared {
            common,
            lag,
            seeds,
            map: RwLock::default(),
            state: watch::Sender::new(State::Asking),
            doubted: Notify::new(),
        });
        let cluster = Cluster { shared, keeper: Tended::default() };
        cluster.tend();
        cluster
    }

    fn tend(&self) {
        self.keeper.tend(|| keep(self.shared.clone()));
    }

    /// Waits until the map is known and its nodes were tried; one that can be reached is enough.
    pub(crate) async fn connected(&self) -> Result<(), Why> {
        self.known(Instant::now() + self.shared.common.dialer.connect_timeout * 2).await?;
        let shards: Vec<Arc<Shard>> = self.shared.map.read().nodes.values().cloned().collect();
        let outcomes = join_all(shards.iter().map(|shard| shard.primary.connected())).await;
        let mut last = Err(no_owner());
        for outcome in outcomes {
            if outcome.is_ok() {
                return Ok(());
            }
            last = outcome;
        }
        last
    }

    pub(crate) async fn known(&self, deadline: Instant) -> Result<(), Why> {
        match self.shared.state.borrow().clone() {
            State::Known => {
                self.tend();
                return Ok(());
            }
            State::Unknown(why) => {
                self.tend();
                return Err(why);
            }
            State::Asking => self.tend(),
        }
        let mut states = self.shared.state.subscribe();
        let settled = states.wait_for(|state| !matches!(state, State::Asking));
        match timeout_at(deadline, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Unknown(why) => Err(why.clone()),
                _ => Ok(()),
            },
            _ => Err(Why::unreachable("no node of the cluster answered within the time limit")),
        }
    }

    pub(crate) fn shard(&self, slot: u16) -> Result<Arc<Shard>, Why> {
        let map = self.shared.map.read();
        match map.slots.get(usize::from(slot)) {
            Some(Some(shard)) => Ok(shard.clone()),
            _ => {
                drop(map);
                self.doubt();
                Err(no_owner())
            }
        }
    }

    pub(crate) fn slots(&self) -> Vec<u16> {
        let map = self.shared.map.read();
        let mut seen: Vec<&Arc<Shard>> = Vec::new();
        let mut slots = Vec::new();
        let owned = (0..SLOTS).zip(&map.slots).filter_map(|(n, owner)| Some((n, owner.as_ref()?)));
        for (slot, owner) in owned {
            if !seen.iter().any(|shard| Arc::ptr_eq(shard, owner)) {
                seen.push(owner);
                slots.push(slot);
            }
        }
        slots
    }

    /// Reads `3999 127.0.0.1:6381`. A slot that has moved stays there; one that is only asked for is still on its way.
    pub(crate) fn redirected(&self, by: &Node, details: &str, moved: bool) -> Option<Arc<Node>> {
        let (slot, place) = details.split_once(' ')?;
        let slot: u16 = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
        let (host, port) = place.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = match (host, by.place()) {
            ("" | "?", Place::At(Address::Tcp { host, .. })) => host,
            _ => host.trim_start_matches('[').trim_end_matches(']'),
        };
        let address = address(host, port);
        let mut map = self.shared.map.write();
        if map.nodes.len() >= MOST_NODES && !map.nodes.contains_key(&address) {
            return None;
        }
        let shard = self.shared.shard(&mut map, address);
        if moved {
            if let Some(owner) = map.slots.get_mut(usize::from(slot)) {
                *owner = Some(shard.clone());
            }
            drop(map);
            self.doubt();
        }
        Some(shard.primary.clone())
    }

    pub(crate) fn doubt(&self) {
        self.tend();
        self.shared.doubted.notify_one();
    }
}

// Asks for the map at the start and whenever there is a reason to, as long as the cluster's handle lives.
async fn keep(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        match shared.ask().await {
            Ok(slots) => {
                shared.take(slots);
                shared.state.send_replace(State::Known);
                failures = 0;
            }
            Err(why) => {
                crate::log::outage(failures == 0, &why.words);
                failures += 1;
                // An old map is better than none: most of it will still be right.
                shared.state.send_if_modified(|state| {
                    let known = matches!(state, State::Known);
                    if !known {
                        *state = State::Unknown(why);
                    }
                    !known
                });
            }
        }
        // Not more often than this, whoever doubts it.
        sleep(pause(failures.max(3))).await;
        let gone = shared.map.read().nodes.values().any(|shard| shard.primary.is_down());
        if failures == 0 && !gone {
            let _ = timeout(EVERY, shared.doubted.notified()).await;
        } else {
            let _ = timeout(AGAIN, shared.doubted.notified()).await;
        }
    }
}

// Slots from the first to the second, and who has them.
struct Range {
    first: u16,
    last: u16,
    owner: Address,
}

impl Shared {
    // The one at an address; a new one, if it is not known.
    fn shard(&self, map: &mut Map, address: Address) -> Arc<Shard> {
        let new = |address: &Address| {
            Arc::new(Shard::new(&self.common, Place::At(address.clone()), Role::Any, self.lag))
        };
        map.nodes.entry(address).or_insert_with_key(new).clone()
    }

    // What any node says: first those that are connected, in a random order, then those that the configuration names.
    async fn ask(&self) -> Result<Vec<Range>, Why> {
        let limit = self.common.dialer.connect_timeout;
        let mut up: Vec<(Address, Arc<Node>)> = {
            let map = self.map.read();
            let nodes =
                map.nodes.iter().map(|(place, shard)| (place.clone(), shard.primary.clone()));
            nodes.filter(|(_, node)| node.is_up()).collect()
        };
        up.shuffle(&mut rand::rng());
        for (place, node) in up {
            let mut question = Pipeline::new();
            question.add_command(command(&["CLUSTER", "SLOTS"]));
            let Ok(replies) = node.send(&question, Instant::now() + limit).await else { continue };
            if let Some(Ok(ranges)) = replies.into_iter().next().map(|reply| ranges(reply, &place))
            {
                return Ok(ranges);
            }
        }
        let mut last = Why::closed();
        for seed in &self.seeds {
            let asked = async {
                let (link, _) = Link::open(&self.common.dialer, seed.clone(), 0).await?;
                ranges(link.ask(command(&["CLUSTER", "SLOTS"])).await?, seed)
            };
            match timeout(limit, asked).await {
                Ok(Ok(ranges)) => return Ok(ranges),
                Ok(Err(why)) => last = why,
                Err(_) => last = self.common.dialer.silence(),
            }
        }
        Err(last)
    }

    // Nodes that are named again keep their connections.
    fn take(&self, ranges: Vec<Range>) {
        let mut map = self.map.write();
        let mut slots = vec![None; usize::from(SLOTS)];
        let mut named = HashMap::new();
        for Range { first, last, owner } in ranges {
            let shard = self.shard(&mut map, owner.clone());
            slots[usize::from(first)..=usize::from(last)].fill(Some(shard.clone()));
            named.insert(owner, shard);
        }
        map.slots = slots;
        map.nodes = named;
    }
}

// The answer to `CLUSTER SLOTS`, which `by` gave.
fn ranges(reply: Value, by: &Address) -> Result<Vec<Range>, Why> {
    let items = match reply {
        Value::Array(items) => items,
        Value::ServerError(error) if error.code() == "ERR" => {
            return Err(Why::configuration(
                "the server is in no cluster; write redis:// for one server, redis+sentinel:// where there are sentinels",
            ));
        }
        other => {
            return Err(crate::reply::refusal(&other).map_or_else(Why::garbled, |why| why.why()));
        }
    };
    let range = |item: Value| {
        let Value::Array(parts) = item else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = &parts[..] else {
            return None;
        };
        let slot = |number: &i64| u16::try_from(*number).ok().filter(|slot| *slot < SLOTS);
        let (first, last) = (slot(first)?, slot(last)?);
        let Some(Value::Int(port)) = owner.get(1) else { return None };
        let port = u16::try_from(*port).ok()?;
        let owner = match (&owner[0], by) {
            (Value::BulkString(host), _) if !host.is_empty() && host != b"?" => {
                address(std::str::from_utf8(host).ok()?, port)
            }
            // It does not know its own name: it has the one by which it was reached.
            (_, Address::Tcp { host, .. }) => address(host, port),
            _ => return None,
        };
        (first <= last).then_some(Range { first, last, owner })
    };
    let ranges: Vec<Range> = items.into_iter().filter_map(range).take(usize::from(SLOTS)).collect();
    if ranges.is_empty() { Err(no_owner()) } else { Ok(ranges) }
}

fn no_owner() -> Why {
    Why::unreachable("no node of the cluster serves that part of the keys")
}

// How often the map is asked for when nothing is wrong: a cluster that has grown sends nobody to its new nodes' replicas.
const EVERY: Duration = Duration::from_secs(30);

// And while a node is gone, or nobody has answered.
const AGAIN: Duration = Duration::from_millis(250);

// A cluster has at most so many primaries; a server that makes some up costs no more connections than these.
const MOST_NODES: usize = 1000;
