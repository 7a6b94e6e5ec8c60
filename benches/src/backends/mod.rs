//! Operations per second of every store, beside the bare client that does the same.
//!
//! Values of 1 KiB, one and 8, 64 and 512 tasks at once, and batches of 50. Both sides are asked in turns, each for a
//! short time, and compared within a round; what is printed is the middle round's ratio. `LARDER_BENCH_MILLIS` says how
//! long a turn takes (300 unless set: some three minutes for all); words choose the stores whose names contain one of
//! them. After each store comes what was slower than it should be. One round on a busy machine says little: what is below
//! the aim in several runs is to be looked at.

mod bare;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::core::{Encoded, Entry, Key, Namespace, Put, Ttl, When};
use larder::{Cache, Store};
use larder_testkit::servers::{MemcachedServer, PostgresServer, RedisServer};

use bare::Bare;

const TASKS: [usize; 4] = [1, 8, 64, 512];
const ROUNDS: usize = 3;
const BATCH: usize = 50;

/// So many keys are used in turns.
const KEYS: usize = 1000;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Get,
    Set,
    GetMany,
    SetMany,
}

const OPS: [(Op, &str); 4] =
    [(Op::Get, "get"), (Op::Set, "set"), (Op::GetMany, "get × 50"), (Op::SetMany, "set × 50")];

// Each store with its bare client, and the least ratio that it should have: memory within 1.3 times of moka.
const STORES: [(&str, f64); 6] = [
    ("memory (moka)", 0.77),
    ("redis", 0.9),
    ("memcached (async-memcached × 8)", 0.9),
    ("sqlite", 0.9),
    ("postgres", 0.9),
    ("file", 0.9),
];

// Many requests at once on one connection of Larder's, beside one at a time on each of eight.
const PIPELINED: f64 = 4.0;

struct Ratio {
    op: Op,
    what: &'static str,
    tasks: usize,
    ratio: f64,
}

/// Measures and prints.
///
/// # Panics
///
/// When a server cannot be started or asked.
#[allow(clippy::print_stdout)]
pub fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(&**word));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let folder = std::env::temp_dir().join(format!("larder-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary directory");
        let at = |name: &str| folder.join(name).display().to_string();
        println!("operations per second of the bare client, of Larder, and the ratio");
        println!("| store | what | {} |", TASKS.map(|tasks| format!("{tasks} tasks")).join(" | "));
        println!("| --- | --- | --- | --- | --- | --- |");
        for (name, aim) in STORES {
            if !wanted(name) {
                continue;
            }
            // A server runs as long as it is asked.
            let (mut redis, mut memcached, mut postgres) = (None, None, None);
            let (bare, url) = match name.split(' ').next() {
                Some("memory") => (Bare::moka(), "memory://?max_bytes=64MiB".to_owned()),
                Some("redis") => {
                    let server = redis.insert(RedisServer::start().await);
                    let url = format!("{}/0?namespace=bench&response_timeout=60s", server.url());
                    (Bare::redis(&format!("{}/1", server.url())).await, url)
                }
                Some("memcached") => {
                    let server = memcached.insert(MemcachedServer::start().await);
                    let url = server.url();
                    let url = format!("{url}?namespace=bench&connections=1&response_timeout=60s");
                    (Bare::memcached(&server.address()).await, url)
                }
                Some("sqlite") => {
                    let url =
                        format!("sqlite://{}?namespace=bench&busy_timeout=30s", at("larder.db"));
                    (Bare::sqlite(&at("bare.db")).await, url)
                }
                Some("postgres") => {
                    let server = postgres.insert(PostgresServer::start().await);
                    let url = format!(
                        "{}?namespace=bench&create=true&response_timeout=60s&connect_timeout=60s",
                        server.url()
                    );
                    (Bare::postgres(&server.url()).await, url)
                }
                _ => (Bare::files(&at("bare")), format!("file://{}?namespace=bench", at("larder"))),
            };
            // A full machine is no outage.
            let url = format!("{url}&read_budget=60s&write_budget=60s");
            let cache = Cache::connect(&url).await.expect(name);
            let ratios = table(name, Arc::new(bare), Arc::new(Larder::new(&cache))).await;
            judge(&ratios, aim, name.starts_with("memcached"));
        }
        let _ = std::fs::remove_dir_all(&folder);
    });
}

#[allow(clippy::print_stdout)]
async fn table(name: &str, bare: Arc<Bare>, larder: Arc<Larder>) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    // All that is read is there, on both sides.
    for first in (0..KEYS).step_by(BATCH) {
        bare.run(Op::SetMany, first).await;
        larder.run(Op::SetMany, first).await;
    }
    for (op, what) in OPS {
        let mut cells = Vec::new();
        for tasks in TASKS {
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let bare = bare.clone();
                let one = rate(tasks, move |n| {
                    let bare = bare.clone();
                    async move { bare.run(op, n).await }
                });
                let one = one.await;
                let larder = larder.clone();
                let other = rate(tasks, move |n| {
                    let larder = larder.clone();
                    async move { larder.run(op, n).await }
                });
                let other = other.await;
                rounds.push((other / one, one, other));
            }
            rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (ratio, one, other) = rounds[ROUNDS / 2];
            ratios.push(Ratio { op, what, tasks, ratio });
            cells.push(format!("{one:.0} / {other:.0} = {ratio:.2}"));
        }
        println!("| {name} | {what} | {} |", cells.join(" | "));
    }
    ratios
}

// What a store's part of the table says, beside its aim.
#[allow(clippy::print_stdout)]
fn judge(ratios: &[Ratio], aim: f64, pipelines: bool) {
    let below = ratios.iter().filter(|one| one.ratio < aim);
    let below: Vec<String> =
        below.map(|one| format!("{} of {} tasks {:.2}", one.what, one.tasks, one.ratio)).collect();
    let below = if below.is_empty() { "nothing".to_owned() } else { below.join(", ") };
    println!("below {aim} of the bare client: {below}");
    let many = ratios.iter().find(|one| one.op == Op::Get && one.tasks == 64);
    if let Some(many) = many.filter(|_| pipelines) {
        println!(
            "64 concurrent gets on one connection: {:.2} × the bare client's 8 connections; the aim is {PIPELINED}",
            many.ratio
        );
    }
}

/// Operations per second of so many tasks together.
async fn rate<F: Future<Output = ()> + Send>(
    tasks: usize,
    operation: impl Fn(usize) -> F + Clone + Send + 'static,
) -> f64 {
    let millis = std::env::var("LARDER_BENCH_MILLIS").ok().and_then(|text| text.parse().ok());
    let (done, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let end = begun + Duration::from_millis(millis.unwrap_or(300));
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (operation, done) = (operation.clone(), done.clone());
            tokio::spawn(async move {
                let mut n = task * 7;
                while Instant::now() < end {
                    operation(n % KEYS).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                    // What is ready at once would keep the others from their turn.
                    if n.is_multiple_of(16) {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("an operation panicked");
    }
    done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// What lies under all keys: 1 KiB that does not compress to nothing.
fn value() -> bytes::Bytes {
    (0..1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Larder's side.
struct Larder {
    store: Store,
    keys: Vec<Key>,
    value: bytes::Bytes,
}

impl Larder {
    fn new(cache: &Cache) -> Self {
        let namespace: &Namespace = cache.store().namespace();
        let key = |n: usize| Key::new(namespace, ["d", &format!("key-{n}")]).expect("a short key");
        Larder { store: cache.store().clone(), keys: (0..KEYS).map(key).collect(), value: value() }
    }

    fn entry(&self) -> Entry {
        Entry::wire(Encoded { codec: 200, body: self.value.clone(), ..Encoded::default() })
    }

    fn batch(&self, n: usize) -> impl Iterator<Item = Key> + '_ {
        (n..n + BATCH).map(|n| self.keys[n % KEYS].clone())
    }

    async fn run(&self, op: Op, n: usize) {
        let (key, hour) = (&self.keys[n], Ttl::For(Duration::from_secs(3600)));
        match op {
            Op::Get => {
                let found = self.store.get(key, &[]).await.expect("a store that answers");
                assert!(found.entry.is_some(), "what was stored is there");
            }
            Op::Set => {
                let put = self.store.put(key, self.entry(), hour, When::Always).await;
                let _ = put.expect("a store that answers");
            }
            Op::GetMany => {
                let keys: Vec<Key> = self.batch(n).collect();
                let found = self.store.lookup_many(&keys).await.expect("a store that answers");
                assert_eq!(found.iter().flatten().count(), BATCH);
            }
            Op::SetMany => {
                let put = |key| Put { key, entry: self.entry(), ttl: hour, when: When::Always };
                let put = self.store.put_many(self.batch(n).map(put).collect()).await;
                assert!(put.expect("a store that answers").iter().all(Result::is_ok));
            }
        }
    }
}
