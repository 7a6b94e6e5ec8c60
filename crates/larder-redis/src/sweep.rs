//! Frees what a cleared namespace left behind, in the background.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Generation, Namespace};
use parking_lot::Mutex;
use redis::{Value, cmd};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::request::{Again, Request};

/// Which generations are dead, and whether somebody is sweeping.
#[derive(Default)]
pub(crate) struct Sweeper {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dead: BTreeMap<String, HashSet<Generation>>,
    // Set under the same lock under which the task takes its work, or finds none and ends.
    running: bool,
    task: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Has the names of a dead generation removed. Names with a lifetime would go by themselves; others would not.
    pub(crate) fn add(
        self: &Arc<Self>,
        client: &Arc<Client>,
        limit: Duration,
        namespace: &Namespace,
        generation: Generation,
    ) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state.lock();
        let dead = state.dead.entry(namespace.as_str().to_owned()).or_default();
        // Who clears faster than a server can be swept leaves the rest to lifetimes.
        if dead.len() < MOST_DEAD {
            dead.insert(generation);
        }
        // It may also have ended with its runtime.
        let running = state.running && state.task.as_ref().is_some_and(|task| !task.is_finished());
        if !running {
            state.running = true;
            state.task = Some(runtime.spawn(run(self.clone(), client.clone(), limit)));
        }
    }

    fn next(&self) -> Option<(String, HashSet<Generation>)> {
        let mut state = self.state.lock();
        let next = state.dead.pop_first();
        state.running = next.is_some();
        next
    }
}

// One namespace after another, one pass over each server for all dead generations of one.
async fn run(sweeper: Arc<Sweeper>, client: Arc<Client>, limit: Duration) {
    while let Some((namespace, dead)) = sweeper.next() {
        for slot in client.slots() {
            pass(&client, slot, limit, &namespace, &dead).await;
        }
    }
}

// Over the server where a slot is.
async fn pass(
    client: &Client,
    slot: u16,
    limit: Duration,
    namespace: &str,
    dead: &HashSet<Generation>,
) {
    let mut cursor = Vec::from(*b"0");
    let mut failures = 0;
    loop {
        match page(client, slot, limit, namespace, dead, &cursor).await {
            Some(next) => {
                failures = 0;
                cursor = next;
                if cursor == b"0" {
                    return;
                }
            }
            None if failures == MOST_FAILURES => {
                tracing::debug!(target: "larder::redis", "a sweep was given up; what it left ends by its lifetime");
                return;
            }
            None => {
                failures += 1;
                sleep(Duration::from_secs(1)).await;
            }
        }
        // Other work comes first.
        sleep(Duration::from_millis(1)).await;
    }
}

async fn page(
    client: &Client,
    slot: u16,
    limit: Duration,
    namespace: &str,
    dead: &HashSet<Generation>,
    cursor: &[u8],
) -> Option<Vec<u8>> {
    let pattern = match dead.iter().next() {
        Some(only) if dead.len() == 1 => only.to_string(),
        _ => "?".repeat(16),
    };
    let mut request = Request::new(Again::Yes);
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:{pattern}:*")).arg("COUNT").arg(PAGE);
    request.command(slot, scan);
    let replies = client.exchange(&request, Instant::now() + limit).await.ok()?;
    let (next, names) = scanned(replies.into_iter().next()?)?;

    let layout = client.layout();
    let ours = |name: &Vec<u8>| {
        let text = std::str::from_utf8(name).ok()?;
        let generation = text.strip_prefix(namespace)?.strip_prefix(':')?.get(..16)?;
        let ours = dead.contains(&Generation::parse(generation)?);
        ours.then(|| layout.slot_of_name(text))
    };
    let mut dead: Vec<(u16, &Vec<u8>)> =
        names.iter().filter_map(|name| Some((ours(name)?, name))).collect();
    if !dead.is_empty() {
        dead.sort_unstable();
        let mut request = Request::new(Again::Yes);
        for dead in dead.chunk_by(|one, other| one.0 == other.0) {
            let mut unlink = cmd("UNLINK");
            for (_, name) in dead {
                unlink.arg(&name[..]);
            }
            request.command(dead[0].0, unlink);
        }
        let replies = client.exchange(&request, Instant::now() + limit).await.ok()?;
        if !replies.iter().all(|reply| matches!(reply, Value::Int(_))) {
            return None;
        }
    }
    Some(next)
}

/// The answer of `SCAN`: where to go on, and names.
pub(crate) fn scanned(reply: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let Value::Array(parts) = reply else { return None };
    let Ok([Value::BulkString(next), Value::Array(names)]) = <[Value; 2]>::try_from(parts) else {
        return None;
    };
    let names = names.into_iter().filter_map(|name| match name {
        Value::BulkString(name) => Some(name),
        _ => None,
    });
    Some((next, names.collect()))
}

const PAGE: usize = 500;

const MOST_DEAD: usize = 1024;

const MOST_FAILURES: u32 = 10;
