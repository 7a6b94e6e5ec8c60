//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use larder::Cache;

const EXAMPLES: &str = "\
Examples:
  products
  products --cache 'redis://127.0.0.1:6379/0?namespace=products'
  products --cache none --listen 127.0.0.1:8080
  products measure
  products measure --json --seconds 1";

/// A cached products service: a JSON API and a home page over 10,000 products in SQLite.
#[derive(Clone, Debug, Parser)]
#[command(name = "products", version, after_help = EXAMPLES, args_conflicts_with_subcommands = false)]
pub struct Options {
    /// Where to keep what is cached: memory://, redis://, rediss://, redis+sentinel://, redis+cluster://, memcached://, sqlite://, postgres:// or file:// with ?namespace=NAME, tiered:memory://|redis://…, failover:, writethrough: or migrating: and two of them, null://, or none
    #[arg(long, global = true, value_name = "URL", default_value = "memory://?max_bytes=64MiB")]
    pub cache: String,

    /// The database file; made and filled if it is not there [default: products.db; measure: a temporary one]
    #[arg(long, global = true, value_name = "PATH")]
    pub database: Option<PathBuf>,

    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000", value_parser = address)]
    pub listen: SocketAddr,

    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve without and with the cache on the same data, send requests to both, and compare
    Measure(Measure),
}

/// How to measure.
#[derive(Clone, Debug, Args)]
pub struct Measure {
    /// How long each page is measured, in seconds, without and with the cache each
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,

    /// How many keep-alive connections ask at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Options {
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
                 --cache 'redis://127.0.0.1:6379/0?namespace=products'\n    \
                 --cache 'memcached://127.0.0.1:11211?namespace=products'\n    \
                 --cache 'sqlite://products-cache.db?namespace=products'\n    \
                 --cache 'postgres://user:password@127.0.0.1/products?namespace=products&create=true'\n    \
                 --cache 'file:///tmp/products-cache?namespace=products'\n    \
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
    let words = "write an address and a port, for instance 127.0.0.1:3000 or 0.0.0.0:8080";
    let mut addresses = text.to_socket_addrs().map_err(|_| words.to_owned())?;
    addresses.next().ok_or_else(|| words.to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if (0.01..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("write a number of seconds from 0.01 to 600".to_owned())
    }
}
