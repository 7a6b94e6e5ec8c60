//! A Redis that dies, freezes and flaps while many tasks use the cache before it.
//!
//! `cargo bench -p larder-benches --bench outage` prints for each phase how long calls took beside those without a cache,
//! how many failed (none may), what went past the breaker to the store, and after how long calls were answered from the
//! cache again. `LARDER_OUTAGE_SECONDS` says how long a phase lasts (10 unless set).
//! `tests/outage.rs` runs the same, shorter, and asserts what can be counted.

mod load;

use std::time::{Duration, Instant};

use larder::{Cache, RedisBackend};
use larder_testkit::faulty::{Faults, Faulty};
use larder_testkit::proxy::FaultProxy;
use larder_testkit::servers::RedisServer;

pub use load::Calls;
use load::Load;

/// How much, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tasks that use the cache at the same time.
    pub tasks: usize,
    /// How long each of them rests after a call.
    pub rest: Duration,
    /// How long a phase lasts.
    pub lasts: Duration,
}

/// What happened to the calls of one phase.
#[derive(Debug)]
pub struct Phase {
    /// What was wrong with the server.
    pub name: &'static str,
    /// What callers saw.
    pub calls: Calls,
    /// What the store was asked while something was wrong.
    pub asked: Option<Asked>,
    /// From the moment when nothing was wrong any more to the first call that was answered from the cache.
    pub recovered: Option<Duration>,
}

/// What went past the breaker while the server answered nothing.
#[derive(Debug)]
pub struct Asked {
    /// Operations that were sent or tried.
    pub operations: usize,
    /// Those of them that came after the first second, when the breaker had long been open.
    pub probes: usize,
    /// Connections that were tried.
    pub connections: usize,
    /// How long it lasted.
    pub lasted: Duration,
}

/// Nobody waits longer than that for a server that is there again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, the network before it, and what goes past the breaker.
struct Bench {
    server: RedisServer,
    proxy: FaultProxy,
    faults: Faults,
    load: Load,
    plan: Plan,
}

/// All phases, in turn, under one load.
///
/// # Panics
///
/// When no server can be started, or it is not used again within a minute.
pub async fn run(plan: Plan) -> Vec<Phase> {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.address()).await;
    let url = server.url_at(proxy.port());
    let redis = RedisBackend::connect(&url).await.expect("a server that was just started");
    // Nothing is injected: it counts what the engine asks.
    let backend = Faulty::new(redis);
    let faults = backend.faults();
    let cache = Cache::builder(backend).namespace("outage").expect("a namespace").build();
    let mut phases = vec![bare(plan).await];
    let load = Load::start(&plan, Some(cache));
    let mut bench = Bench { server, proxy, faults, load, plan };
    bench.used_since(Instant::now()).await;
    phases.push(bench.healthy().await);
    phases.push(bench.dead().await);
    phases.push(bench.frozen().await);
    phases.push(bench.flapping().await);
    bench.load.stop().await;
    phases
}

/// The same load, with nothing between it and what it computes.
async fn bare(plan: Plan) -> Phase {
    let load = Load::start(&plan, None);
    tokio::time::sleep(plan.lasts.min(Duration::from_secs(5))).await;
    let calls = load.take();
    load.stop().await;
    Phase { name: "no cache", calls, asked: None, recovered: None }
}

impl Bench {
    async fn healthy(&mut self) -> Phase {
        self.load.take();
        tokio::time::sleep(self.plan.lasts).await;
        Phase { name: "healthy", calls: self.load.take(), asked: None, recovered: None }
    }

    /// The process is gone; connections are refused.
    async fn dead(&mut self) -> Phase {
        self.load.take();
        self.server.kill();
        let (calls, asked) = self.silence().await;
        self.server.restart().await;
        self.phase("dead", calls, Some(asked), Instant::now()).await
    }

    /// Connections stay open and new ones are accepted; nothing is answered.
    async fn frozen(&mut self) -> Phase {
        self.load.take();
        self.server.freeze();
        let (calls, asked) = self.silence().await;
        self.server.thaw();
        self.phase("frozen", calls, Some(asked), Instant::now()).await
    }

    /// Half of the time the network refuses and cuts, or nothing is answered, in turns of less than a second.
    async fn flapping(&mut self) -> Phase {
        self.load.take();
        let begun = Instant::now();
        while begun.elapsed() < self.plan.lasts {
            self.proxy.refuse(true);
            self.proxy.cut();
            self.turn().await;
            self.proxy.heal();
            self.turn().await;
            self.server.freeze();
            self.turn().await;
            self.server.thaw();
            self.turn().await;
        }
        let calls = self.load.take();
        self.phase("flapping", calls, None, Instant::now()).await
    }

    async fn turn(&self) {
        tokio::time::sleep(Duration::from_millis(700)).await;
    }

    /// Lets an outage last, and counts what the store is asked.
    async fn silence(&self) -> (Calls, Asked) {
        self.faults.forget();
        let (begun, connected) = (Instant::now(), self.proxy.accepted());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = self.faults.total();
        tokio::time::sleep(self.plan.lasts.saturating_sub(begun.elapsed())).await;
        let operations = self.faults.total();
        let connections = self.proxy.accepted() - connected;
        let lasted = begun.elapsed();
        let asked = Asked { operations, probes: operations - first, connections, lasted };
        (self.load.take(), asked)
    }

    async fn phase(
        &mut self,
        name: &'static str,
        calls: Calls,
        asked: Option<Asked>,
        healed: Instant,
    ) -> Phase {
        let recovered = self.used_since(healed).await;
        // What was computed meanwhile is stored again before the next phase.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = self.load.take();
        let calls = Calls {
            failed: calls.failed + after.failed,
            wrong: calls.wrong + after.wrong,
            ..calls
        };
        Phase { name, calls, asked, recovered: Some(recovered) }
    }

    /// Waits for the first call that began since then and was answered from the cache.
    async fn used_since(&self, moment: Instant) -> Duration {
        loop {
            if let Some(answered) = self.load.answered_since(moment) {
                return answered - moment;
            }
            assert!(moment.elapsed() < PATIENCE, "the server answers, and is not asked");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Measures and prints.
///
/// # Panics
///
/// As [`run`].
#[allow(clippy::print_stdout)]
pub fn main() {
    let seconds = std::env::var("LARDER_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    let lasts = Duration::from_secs(seconds.unwrap_or(10));
    let plan = Plan { tasks: 64, rest: Duration::from_millis(10), lasts };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let phases = runtime.expect("a runtime").block_on(run(plan));
    println!(
        "{} tasks, one call each {} ms; a phase lasts {} s; ms; what is added is beside \"no cache\"\n",
        plan.tasks,
        plan.rest.as_millis(),
        lasts.as_secs()
    );
    println!(
        "| server | calls | failed | median | added | p99 | longest | past the breaker | after 1 s | connections | recovered after |"
    );
    println!("| --- |{}", " ---: |".repeat(10));
    let floor = phases[0].calls.median();
    for phase in &phases {
        let Phase { name, calls, asked, recovered } = phase;
        assert_eq!(calls.wrong, 0, "calls that were given another key's value");
        let asked = asked.as_ref().map_or("| | ".to_owned(), |asked| {
            format!("{} | {} | {}", asked.operations, asked.probes, asked.connections)
        });
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} | {asked} | {} |",
            calls.took.len(),
            calls.failed,
            ms(calls.median()),
            ms(calls.median().saturating_sub(floor)),
            ms(calls.part(0.99)),
            ms(calls.part(1.0)),
            recovered.map(ms).unwrap_or_default()
        );
    }
    let failed: usize = phases.iter().map(|phase| phase.calls.failed).sum();
    assert_eq!(failed, 0, "calls that failed because of the cache");
}

fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}
