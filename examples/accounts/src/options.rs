//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::Parser;
use larder::Cache;

const EXAMPLES: &str = "\
Examples:
  accounts
  accounts --sessions 'redis://127.0.0.1:6379/0?namespace=accounts'
  accounts --sessions 'file:///var/lib/accounts?namespace=accounts' --listen 127.0.0.1:8080";

/// Accounts on Larder's sessions: register, log in, a cart, a page of devices, log out.
#[derive(Clone, Debug, Parser)]
#[command(name = "accounts", version, after_help = EXAMPLES)]
pub struct Options {
    /// Where to keep sessions: memory://, redis://, rediss://, memcached:// or file:// with ?namespace=NAME
    #[arg(long, value_name = "URL", default_value = "memory://?max_bytes=32MiB")]
    pub sessions: String,

    /// The database file of the users; made if it is not there
    #[arg(long, value_name = "PATH", default_value = "accounts.db")]
    pub database: PathBuf,

    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3001", value_parser = address)]
    pub listen: SocketAddr,

    /// Visitors come over HTTPS, through a proxy: the cookie is Secure and __Host-
    #[arg(long)]
    pub https: bool,
}

impl Options {
    /// Connects to the store that was asked for.
    ///
    /// # Errors
    ///
    /// Words that say what to write instead. They do not hold the URL, which may carry a password.
    pub async fn connect(&self) -> Result<Cache, String> {
        let advice = |error: String| {
            format!(
                "--sessions: {error}\n\n  Write for instance\n    \
                 --sessions 'memory://?max_bytes=32MiB'\n    \
                 --sessions 'redis://127.0.0.1:6379/0?namespace=accounts'\n    \
                 --sessions 'memcached://127.0.0.1:11211?namespace=accounts'\n    \
                 --sessions 'file:///tmp/accounts-sessions?namespace=accounts'"
            )
        };
        let connected = Cache::connect(&self.sessions).await;
        let cache = connected.map_err(|error| advice(error.to_string()))?;
        if cache.store().abilities().splits {
            let words = "sessions cannot live in a store that another one stands in for";
            return Err(advice(words.to_owned()));
        }
        Ok(cache)
    }

    /// The store, for people to read: without what may be secret.
    pub fn store_name(&self) -> &str {
        self.sessions.split_once(':').map_or(&self.sessions, |(scheme, _)| scheme)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let words = "write an address and a port, for instance 127.0.0.1:3001 or 0.0.0.0:8080";
    let mut addresses = text.to_socket_addrs().map_err(|_| words.to_owned())?;
    addresses.next().ok_or_else(|| words.to_owned())
}
