//! Several nodes in any weather, from a seed: every read is held against what the table of `Tiered` allows.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_cache::{Cache, Options, Tiered};
use larder_core::{Clock, ManualClock};
use larder_testkit::bus::{LocalBus, Weather};
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use larder_testkit::reference::Reference;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const KEYS: usize = 3;
const NODES: usize = 3;
const STEPS: usize = 60;
const CEILING: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(100);

struct World {
    random: StdRng,
    store: Reference,
    bus: LocalBus,
    hands: ManualClock,
    nodes: Vec<Node>,
    incarnations: usize,
    keys: Vec<Key>,
    // For how long another node may show the old.
    bound: Duration,
    slow: Vec<JoinHandle<()>>,
}

struct Node {
    cache: Cache,
    faults: Faults,
    incarnation: usize,
}

/// What happened to a key: each version, when its change had been confirmed, and by whom. Even keys are written; odd
/// ones are computed from a source, and invalidated by their tag when the source has changed.
#[derive(Clone, Default)]
struct Key {
    source: Arc<AtomicU64>,
    changes: Vec<Change>,
}

#[derive(Clone, Copy)]
struct Change {
    version: u64,
    at: Instant,
    by: usize,
}

impl Key {
    // The oldest version that this node may still show at that moment.
    fn oldest(&self, node: usize, now: Instant, bound: Duration) -> u64 {
        let seen = |change: &&Change| change.by == node || change.at + bound < now;
        self.changes.iter().filter(seen).map(|change| change.version).max().unwrap_or(0)
    }
}

pub(crate) async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let pick = |random: &mut StdRng, of: &[u64]| of[random.random_range(0..of.len())];
    let late = Duration::from_millis(pick(&mut random, &[0, 0, 5, 300]));
    let weather = Weather {
        lost: [0.0, 0.0, 0.05, 0.5][random.random_range(0..4)],
        doubled: [0.0, 0.2][random.random_range(0..2)],
        late,
    };
    let (clock, hands) = Clock::manual();
    let mut world = World {
        store: Reference::new(clock),
        bus: LocalBus::with_weather(seed, weather),
        hands,
        nodes: Vec::new(),
        incarnations: 0,
        keys: vec![Key::default(); KEYS],
        // What is lost without a word is noticed at the latest when the ceiling is reached.
        bound: if weather.lost > 0.0 { CEILING } else { late + Duration::from_millis(1) },
        slow: Vec::new(),
        random,
    };
    world.keys = (0..KEYS).map(|_| Key::default()).collect();
    for _ in 0..NODES {
        let node = world.node();
        world.nodes.push(node);
    }
    settle().await;
    for _ in 0..STEPS {
        world.step(seed).await;
    }
    // In good weather all are of one mind soon.
    world.bus.set_weather(Weather::default());
    world.bus.mend();
    for _ in 0..20 {
        world.pass(HEARTBEAT).await;
    }
    for slow in std::mem::take(&mut world.slow) {
        slow.await.unwrap();
    }
    world.bound = Duration::ZERO;
    for node in 0..NODES {
        for key in 0..KEYS {
            world.read(seed, node, key).await;
        }
    }
}

impl World {
    fn node(&mut self) -> Node {
        let remote = Faulty::new(self.store.clone());
        let faults = remote.faults();
        let builder = Tiered::builder(remote).ceiling(CEILING).heartbeat(HEARTBEAT);
        let tiered = builder.with_bus(self.bus.clone()).unwrap();
        // With time enough: a write that was given up is no change.
        let budget = Duration::from_secs(60);
        let cache = Cache::builder(tiered).read_budget(budget).write_budget(budget).build();
        self.incarnations += 1;
        Node { cache, faults, incarnation: self.incarnations }
    }

    async fn step(&mut self, seed: u64) {
        let (node, key) = (self.random.random_range(0..NODES), self.random.random_range(0..KEYS));
        match self.random.random_range(0..100) {
            0..50 => self.read(seed, node, key).await,
            50..58 => self.read_slowly(seed, node, key).await,
            58..78 => self.change(node, key).await,
            78..81 => {
                self.nodes[node].cache.delete(key).await.unwrap();
            }
            81..94 => {
                let time = Duration::from_millis(self.random.random_range(0..400));
                self.pass(time).await;
            }
            94..96 => self.bus.cut(),
            96..98 => self.bus.mend(),
            98 => self.pass(CEILING).await,
            _ => self.nodes[node] = self.node(),
        }
        // Not always: what follows may come before the news.
        if self.random.random_bool(0.7) {
            settle().await;
        }
    }

    // Both clocks go on together.
    async fn pass(&mut self, time: Duration) {
        self.hands.advance(time);
        tokio::time::sleep(time).await;
        settle().await;
    }

    async fn read(&mut self, seed: u64, node: usize, key: usize) {
        let oldest =
            self.keys[key].oldest(self.nodes[node].incarnation, Instant::now(), self.bound);
        let newest = self.keys[key].source.load(Ordering::SeqCst);
        let version = read(&self.nodes[node].cache, key, &self.keys[key].source).await;
        let allowed = version.is_none_or(|version| (oldest..=newest).contains(&version));
        assert!(allowed, "seed {seed}: node {node} shows {version:?} of {oldest}..={newest}");
    }

    // Its answer is on its way while other things happen.
    async fn read_slowly(&mut self, seed: u64, node: usize, key: usize) {
        let late = Duration::from_millis(self.random.random_range(1..300));
        self.nodes[node].faults.inject_times(1, Fault::Late(late), &[Verb::Get, Verb::GetMany]);
        let oldest =
            self.keys[key].oldest(self.nodes[node].incarnation, Instant::now(), self.bound);
        let (cache, source) = (self.nodes[node].cache.clone(), self.keys[key].source.clone());
        self.slow.push(tokio::spawn(async move {
            let version = read(&cache, key, &source).await;
            assert!(version.is_none_or(|version| version >= oldest), "seed {seed}: {version:?}");
        }));
        tokio::task::yield_now().await;
    }

    async fn change(&mut self, node: usize, key: usize) {
        let version = self.keys[key].source.fetch_add(1, Ordering::SeqCst) + 1;
        let Node { cache, incarnation, .. } = &self.nodes[node];
        if is_computed(key) {
            cache.invalidate_tag(&format!("tag {key}")).await.unwrap();
        } else {
            cache.set_with(key, version, options(key)).await.unwrap();
        }
        self.keys[key].changes.push(Change { version, at: Instant::now(), by: *incarnation });
    }
}

fn is_computed(key: usize) -> bool {
    key % 2 == 1
}

fn options(key: usize) -> Options {
    Options::ttl(Duration::from_secs(600)).tag(format!("tag {key}"))
}

async fn read(cache: &Cache, key: usize, source: &Arc<AtomicU64>) -> Option<u64> {
    if is_computed(key) {
        let source = source.clone();
        let compute = move || async move { Ok::<_, Infallible>(source.load(Ordering::SeqCst)) };
        return Some(*cache.get_or_compute(key, options(key), compute).await.unwrap());
    }
    cache.get::<u64>(key).await.unwrap().as_deref().copied()
}

// Lets messages arrive and tasks run until they wait.
async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}
