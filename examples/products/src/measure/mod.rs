//! `products measure`: the same service without and with the cache, side by side.
//!
//! Both serve the same database over real HTTP on ports of their own, each in a runtime with one thread for each core,
//! as `products` itself would. The requests come from one thread with a runtime of its own, which does as little as a
//! client can (see `load.rs`), over keep-alive connections of which each asks anew as soon as it has its answer. Server
//! and client share the machine, so what is reported is less than the server alone could do; that costs the faster
//! side more than the slower one.

mod load;
mod progress;
mod report;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use self::load::{Load, Sample};
use self::progress::Progress;
use self::report::{Measured, Report};
use crate::app;
use crate::database::Database;
use crate::options::{Measure, Options};
use crate::query::last_page;
use crate::serve::{open, serve_app};
use crate::shop::Shop;

/// Measures and prints.
///
/// # Errors
///
/// Words that say what is wrong and what to do.
pub fn run(options: &Options, how: &Measure) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let path = options.database.clone().unwrap_or_else(|| folder.path().join("products.db"));
    let before = Server::start(&path, None)?;
    let after = Server::start(&path, Some(options))?;
    let pages = pages(&after)?;

    let progress = Progress::new(pages.len() * 2, how);
    let client = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let mut measured = Vec::new();
    for page in pages {
        let sample = |server: &Server, words: &str| {
            progress.step(&format!("{}, {words}", page.name));
            let load = Load {
                address: server.address,
                paths: page.paths.clone(),
                connections: how.connections,
                warm_up: Duration::from_secs_f64((how.seconds / 5.0).min(0.5)),
                time: Duration::from_secs_f64(how.seconds),
            };
            client.block_on(load.run())
        };
        // One right after the other, so that what else happens on the machine meets both.
        let (without, with) =
            (sample(&before, "without the cache")?, sample(&after, "with the cache")?);
        if page.whole && with.hits < with.requests() {
            return Err(format!(
                "{} was answered from the cache {} times of {} only; is the cache full or gone?",
                page.name,
                with.hits,
                with.requests()
            ));
        }
        measured.push(Measured { page, before: without, after: with });
    }
    progress.done();
    let report = Report::new(measured, how, options.cache_name());
    println!("{}", if how.json { report.json() } else { report.table() });
    Ok(())
}

struct Page {
    name: String,
    paths: Vec<String>,
    /// Whether the response as a whole is cached, so that each answer must be a hit once it is warm.
    whole: bool,
}

// What is asked for. A database that somebody names may hold fewer products than usual.
fn pages(server: &Server) -> Result<Vec<Page>, String> {
    let count = server.runtime.block_on(server.database.count()).map_err(|p| p.to_string())?;
    let slice = server.runtime.block_on(server.database.list(count / 2));
    let some = slice.map_err(|problem| problem.to_string())?.products.into_iter().next();
    let some = some.ok_or("there are no products to ask for")?.id;
    let page =
        |name: &str, path: String| Page { name: name.to_owned(), paths: vec![path], whole: true };
    let list = |number: i64| format!("/api/products/?page={number}");
    let last = last_page(count);
    let far = last.min(100);
    Ok(vec![
        page("list, page 1", list(1)),
        page(&format!("list, page {far}"), list(far)),
        Page { paths: (1..=last).map(list).collect(), ..page("list, all pages", String::new()) },
        page("detail", format!("/api/products/{some}")),
        page("search", "/api/search?q=teapot".to_owned()),
        page("featured", "/api/products/featured".to_owned()),
        Page { whole: false, ..page("home page", "/".to_owned()) },
    ])
}

/// A running service, on threads of its own.
struct Server {
    address: SocketAddr,
    database: Database,
    runtime: Runtime,
}

impl Server {
    fn start(path: &Path, cache: Option<&Options>) -> Result<Server, String> {
        let database = open(path)?;
        let runtime = Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
        let address = runtime.block_on(async {
            let cache = match cache {
                None => None,
                Some(options) => Some(options.connect().await?.ok_or(
                    "measure compares without and with a cache: name one, or leave --cache away",
                )?),
            };
            let listener = TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.map_err(|error| format!("cannot listen: {error}"))?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            let app = app(Shop::new(database.clone(), cache));
            tokio::spawn(serve_app(listener, app, std::future::pending()));
            Ok::<_, String>(address)
        })?;
        Ok(Server { address, database, runtime })
    }
}
