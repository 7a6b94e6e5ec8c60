//! What entries occupy: `cargo bench -p larder-benches --bench memory`.
//!
//! Resident memory, as the system counts it, of a process of its own for each row: 100,000 entries with bodies of 1 KiB
//! in `memory://`, and a store that is given many times more than its budget. Linux only.

use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use larder::http::CacheLayer;
use larder::{Cache, Options};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::runtime;

/// Entries that fit.
const ENTRIES: usize = 100_000;

/// The budget of a store that overflows.
const BUDGET: usize = 64 << 20;

/// A store that overflows is given so many times its budget.
const TIMES: usize = 8;

const BODY: usize = 1024;

/// What entries occupy beside their bodies should be so many bytes each at most.
const OVER_BODY: f64 = 1700.0;

/// A store's memory should be so many times its budget at most.
const GROWTH: f64 = 1.15;

/// What is stored.
const KINDS: [&str; 4] = ["values", "tagged values", "responses", "varying responses"];

/// What a process grew by.
#[derive(Clone, Copy, Debug)]
pub struct Grown {
    /// What was stored.
    pub kind: &'static str,
    /// Of each entry that fits, bytes beside its body.
    pub over_body: f64,
    /// Of a store that overflows, as a part of its budget.
    pub growth: f64,
}

/// Measures all kinds, each in processes of this program's own.
///
/// # Panics
///
/// When a process does not say what it grew by.
pub fn measure(program: &std::path::Path) -> Vec<Grown> {
    let grown = |kind: &str, mode: &str| -> f64 {
        let output = Command::new(program).args(["--fill", mode, kind]).output();
        let output = output.expect("this program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("grown: "));
        line.and_then(|bytes| bytes.parse().ok())
            .unwrap_or_else(|| panic!("{kind}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let row = |kind| Grown {
        kind,
        over_body: grown(kind, "fitting") / ENTRIES as f64 - BODY as f64,
        growth: grown(kind, "overflowing") / BUDGET as f64,
    };
    KINDS.into_iter().map(row).collect()
}

/// A bench program: without arguments it measures, with `--fill` it is what is measured.
///
/// # Panics
///
/// As [`measure`].
#[allow(clippy::print_stdout)]
pub fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, mode, kind] = &arguments[..]
        && flag == "--fill"
    {
        println!("grown: {}", fill(mode, kind));
        return;
    }
    let rows = measure(&std::env::current_exe().expect("this program's path"));
    println!(
        "{ENTRIES} entries of {BODY} bytes; a budget of {} MiB filled {TIMES} times\n",
        BUDGET >> 20
    );
    println!(
        "| what | bytes an entry over its body (aim: ≤ {OVER_BODY}) | growth / budget (aim: ≤ {GROWTH}) |"
    );
    println!("| --- | ---: | ---: |");
    for row in rows {
        println!("| {} | {:.0} | {:.2} |", row.kind, row.over_body, row.growth);
    }
}

/// Fills a store and gives what this process has grown by.
fn fill(mode: &str, kind: &str) -> usize {
    let (budget, entries) = match mode {
        "fitting" => (1 << 30, ENTRIES),
        _ => (BUDGET, TIMES * BUDGET / BODY),
    };
    runtime().block_on(async {
        let url = format!("memory://?max_bytes={budget}");
        let cache = Cache::connect(&url).await.expect("a store in memory");
        let service = CacheLayer::new(&cache).layer(service_fn(answer));
        // Tables and buffers that every process has exist then.
        for n in 0..100 {
            store(&cache, service.clone(), kind, n).await;
        }
        let before = resident();
        for n in 100..100 + entries {
            store(&cache, service.clone(), kind, n).await;
        }
        let grown = resident().saturating_sub(before);
        if mode == "fitting" {
            assert!(stored(&cache, service.clone(), kind, 100).await, "the first is there");
        }
        assert!(stored(&cache, service.clone(), kind, 99 + entries).await, "the last is there");
        grown
    })
}

async fn store<S>(cache: &Cache, service: S, kind: &str, n: usize)
where
    S: Service<Request<Empty<Bytes>>, Error = Infallible, Response: Answered>,
{
    let options = || Options::ttl(Duration::from_secs(3600));
    match kind {
        "values" => cache.set_with(("entry", n), text(n), options()).await.expect("stored"),
        "tagged values" => {
            let options = options().tag("products").tag(format!("product:{}", n % 1000));
            cache.set_with(("entry", n), text(n), options).await.expect("stored");
        }
        _ => {
            let Ok(answer) = service.oneshot(request(kind, n)).await;
            assert!(!answer.read().await, "a miss");
            // It is stored in a task.
            while cache.store().flights() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn stored<S>(cache: &Cache, service: S, kind: &str, n: usize) -> bool
where
    S: Service<Request<Empty<Bytes>>, Error = Infallible, Response: Answered>,
{
    match kind {
        "values" | "tagged values" => cache.contains(("entry", n)).await.expect("an answer"),
        _ => {
            let Ok(answer) = service.oneshot(request(kind, n)).await;
            answer.read().await
        }
    }
}

/// A response that is read to its end.
trait Answered {
    /// Whether it came from the cache.
    fn read(self) -> impl Future<Output = bool>;
}

impl<B: http_body::Body<Error: std::fmt::Debug>> Answered for Response<B> {
    async fn read(self) -> bool {
        let hit = self.headers().contains_key(header::AGE);
        let body = self.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.len(), BODY);
        hit
    }
}

fn request(kind: &str, n: usize) -> Request<Empty<Bytes>> {
    let path = if kind == "responses" { "products" } else { "varying" };
    Request::get(format!("http://shop.example.com/{path}/{n}"))
        .header("accept-encoding", "gzip, deflate, br")
        .body(Empty::new())
        .expect("a request")
}

/// A body of its own for each response, and the usual headers.
async fn answer(request: Request<Empty<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let n = request.uri().path().len();
    let mut response = Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "public, max-age=3600")
        .header(header::ETAG, "\"5f2b8c1d9e3a4f60\"")
        .header(header::LAST_MODIFIED, "Mon, 01 Jun 2026 10:00:00 GMT")
        .header(header::CONTENT_LENGTH, BODY);
    if request.uri().path().starts_with("/varying") {
        response = response.header(header::VARY, "accept-encoding");
    }
    Ok(response.body(Full::new(Bytes::from(text(n)))).expect("a response"))
}

fn text(n: usize) -> String {
    format!("{n:0>BODY$}")
}

/// What the system says this process has in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells of processes");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.expect("a number of KiB") * 1024
}
