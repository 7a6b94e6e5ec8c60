//! What the cache is worth: the same calls without and with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::Cache;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::options::Bench;
use crate::proto::catalog_client::CatalogClient;
use crate::proto::{GetRequest, ListRequest};
use crate::serve::{filled, serve_shelf};
use crate::shelf::{CATEGORIES, PRODUCTS};

/// What is called. The calls are spread over so many different messages.
#[derive(Clone, Copy, Debug)]
enum Method {
    Get,
    List,
}

const DIFFERENT: u32 = 100;

struct Measured {
    calls_per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Measures and prints a table.
///
/// # Errors
///
/// Words that say what went wrong.
pub fn run(options: &Bench) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        println!(
            "{} connections, {} s for each figure; server and clients share this machine.\n",
            options.connections, options.seconds
        );
        println!("| method | before calls/s | after calls/s | ratio | p50 ms | p99 ms |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: |");
        for method in [Method::Get, Method::List] {
            let before = measured(options, method, None).await?;
            let cache = Cache::connect("memory://?max_bytes=64MiB").await;
            let cache = cache.map_err(|error| error.to_string())?;
            let after = measured(options, method, Some(cache)).await?;
            let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
            println!(
                "| {method:?} | {:.0} | {:.0} | {:.1} × | {:.2} → {:.2} | {:.2} → {:.2} |",
                before.calls_per_second,
                after.calls_per_second,
                after.calls_per_second / before.calls_per_second,
                milliseconds(before.p50),
                milliseconds(after.p50),
                milliseconds(before.p99),
                milliseconds(after.p99),
            );
        }
        Ok(())
    })
}

async fn measured(
    options: &Bench,
    method: Method,
    cache: Option<Cache>,
) -> Result<Measured, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let shelf = filled()?;
    let serving = tokio::spawn(async move {
        serve_shelf(listener, shelf, cache.as_ref(), std::future::pending()).await
    });
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for connection in 0..options.connections {
        let client = CatalogClient::connect(format!("http://{address}")).await;
        let client = client.map_err(|error| format!("cannot connect: {error}"))?;
        callers.spawn(call(client, method, u32::from(connection), stop.clone()));
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for caller in callers.join_all().await {
        times.extend(caller.map_err(|status| format!("a call failed: {status}"))?);
    }
    let elapsed = began.elapsed();
    serving.abort();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    Ok(Measured {
        calls_per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50: at(50),
        p99: at(99),
    })
}

async fn call(
    mut client: CatalogClient<Channel>,
    method: Method,
    first: u32,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Duration>, Status> {
    let mut times = Vec::new();
    for n in first.. {
        let n = n % DIFFERENT;
        let began = Instant::now();
        match method {
            Method::Get => {
                client.get(GetRequest { id: 1 + n * (PRODUCTS / DIFFERENT) }).await?;
            }
            Method::List => {
                let category = CATEGORIES[(n % 5) as usize].to_owned();
                let request = ListRequest { category, page: n / 5 };
                client.list(request).await?;
            }
        }
        times.push(began.elapsed());
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(times)
}
