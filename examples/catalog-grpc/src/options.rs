//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};

use clap::{Args, Parser, Subcommand};
use larder::Cache;

const EXAMPLES: &str = "\
Examples:
  catalog-grpc serve
  catalog-grpc serve --cache 'redis://127.0.0.1:6379/0?namespace=catalog' --listen 127.0.0.1:8080
  catalog-grpc get 7
  catalog-grpc list Kitchen --page 1
  catalog-grpc update 7 1999
  catalog-grpc watch
  catalog-grpc bench --seconds 1";

/// A product catalogue over gRPC: a cached server, its client, and what the cache is worth.
#[derive(Clone, Debug, Parser)]
#[command(name = "catalog-grpc", version, after_help = EXAMPLES)]
pub struct Options {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve the catalogue until Ctrl-C
    Serve(Serve),
    /// Serve without and with the cache, call both, and compare
    Bench(Bench),
    /// Ask a server for one product
    Get(Get),
    /// Ask a server for a page of a category, cheapest first
    List(List),
    /// Print every product that changes, until Ctrl-C
    Watch(Watch),
    /// Give a product a new price
    Update(Update),
}

/// How to serve.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Where to keep what is cached: memory://, redis://HOST/0?namespace=NAME, tiered:memory://|redis://…, or none
    #[arg(long, value_name = "URL", default_value = "memory://?max_bytes=64MiB")]
    pub cache: String,

    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051", value_parser = address)]
    pub listen: SocketAddr,
}

/// How to measure.
#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// How long each method is called, in seconds, without and with the cache each
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,

    /// How many connections call at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
}

/// Which server to ask.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", value_parser = url)]
    pub server: String,
}

/// `get`
#[derive(Clone, Debug, Args)]
pub struct Get {
    /// The product's number
    pub id: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
}

/// `list`
#[derive(Clone, Debug, Args)]
pub struct List {
    /// The category
    pub category: String,
    /// The page; the first one is 0
    #[arg(long, default_value_t = 0)]
    pub page: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
}

/// `watch`
#[derive(Clone, Debug, Args)]
pub struct Watch {
    /// Of this category only
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
}

/// `update`
#[derive(Clone, Debug, Args)]
pub struct Update {
    /// The product's number
    pub id: u32,
    /// Its new price, in cents
    pub price_cents: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
}

impl Serve {
    /// Connects to the cache that was asked for, if one was.
    ///
    /// # Errors
    ///
    /// Words that say what to write instead. They do not hold the URL, which may carry a password.
    pub async fn connect(&self) -> Result<Option<Cache>, String> {
        if self.cache == "none" {
            return Ok(None);
        }
        Cache::connect(&self.cache).await.map(Some).map_err(|error| {
            format!(
                "--cache: {error}\n\n  Write for instance\n    \
                 --cache 'memory://?max_bytes=64MiB'\n    \
                 --cache 'redis://127.0.0.1:6379/0?namespace=catalog'\n    \
                 --cache none"
            )
        })
    }

    /// The cache, for people to read: without what may be secret.
    pub fn cache_name(&self) -> &str {
        self.cache.split_once(':').map_or(&self.cache, |(scheme, _)| scheme)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let words = "write an address and a port, for instance 127.0.0.1:50051 or 0.0.0.0:8080";
    let mut addresses = text.to_socket_addrs().map_err(|_| words.to_owned())?;
    addresses.next().ok_or_else(|| words.to_owned())
}

fn url(text: &str) -> Result<String, String> {
    let words = "write a URL with a port, for instance http://127.0.0.1:50051";
    match text.parse::<tonic::transport::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.port().is_some() => Ok(text.to_owned()),
        _ => Err(words.to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if (0.01..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("write a number of seconds from 0.01 to 600".to_owned())
    }
}
