//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use http::Uri;
use larder::Cache;

const EXAMPLES: &str = "\
Examples:
  reverse-proxy --origin http://127.0.0.1:8000
  reverse-proxy --origin https://example.org --listen 127.0.0.1:8080 --explain
  reverse-proxy --origin http://127.0.0.1:8000 --cache 'tiered:memory://?max_bytes=64MiB|redis://127.0.0.1/0?namespace=proxy'";

/// A caching reverse proxy on Larder: put it before a slow site, and it helps.
#[derive(Clone, Debug, Parser)]
#[command(name = "reverse-proxy", version, after_help = EXAMPLES)]
pub struct Options {
    /// The server to put it before: scheme, host and port
    #[arg(long, value_name = "URL", value_parser = origin)]
    pub origin: Uri,

    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8002", value_parser = address)]
    pub listen: SocketAddr,

    /// Where to keep responses: any URL that `Cache::connect` takes
    #[arg(long, value_name = "URL", default_value = "memory://?max_bytes=256MiB")]
    pub cache: String,

    /// The rules: a shared cache to the letter of the RFC, or the safer ones for inside an application
    #[arg(long, value_enum, default_value = "rfc9111")]
    pub profile: Profile,

    /// The largest body that is stored in one piece, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024)]
    pub max_body: u64,

    /// The largest body that is stored at all, in bytes: in chunks of 512 KiB where it is larger than `--max-body`. For a
    /// cache of files or on a server; others pass through
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub max_chunked: u64,

    /// How many seconds the origin has to begin its answer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,

    /// Sends the client's Host to the origin, which must know that name; otherwise the origin's own is sent
    #[arg(long)]
    pub preserve_host: bool,

    /// Also does what the public cache tests ask for against reason; see `Policy::contested`
    #[arg(long, hide = true)]
    pub contested: bool,

    /// Tells on the terminal what was done with each request, and why
    #[arg(long)]
    pub explain: bool,
}

/// Which rules to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A shared cache to the letter of RFC 9111
    Rfc9111,
    /// The safe defaults of a cache inside an application
    App,
}

impl Options {
    /// Connects to the cache that was asked for.
    ///
    /// # Errors
    ///
    /// Words that say what to write instead. They do not hold the URL, which may carry a password.
    pub async fn connect(&self) -> Result<Cache, String> {
        Cache::connect(&self.cache).await.map_err(|error| {
            format!(
                "--cache: {error}\n\n  Write for instance\n    \
                 --cache 'memory://?max_bytes=256MiB'\n    \
                 --cache 'redis://127.0.0.1:6379/0?namespace=proxy'\n    \
                 --cache 'file:///tmp/proxy-cache?namespace=proxy'"
            )
        })
    }

    /// The store, for people to read: without what may be secret.
    pub fn store_name(&self) -> &str {
        self.cache.split_once(':').map_or(&self.cache, |(scheme, _)| scheme)
    }
}

fn origin(text: &str) -> Result<Uri, String> {
    let words = "write scheme, host and port of a server, for instance http://127.0.0.1:8000";
    let uri: Uri = text.parse().map_err(|_| words.to_owned())?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let known = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if scheme && bare && known { Ok(uri) } else { Err(words.to_owned()) }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let words = "write an address and a port, for instance 127.0.0.1:8002 or 0.0.0.0:8080";
    let mut addresses = text.to_socket_addrs().map_err(|_| words.to_owned())?;
    addresses.next().ok_or_else(|| words.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("write whole seconds, from 1 to 86400".to_owned()),
    }
}
