//! A caching reverse proxy: put it before a slow site, and it helps.
//!
//! ```text
//! cargo run --release -p reverse-proxy -- --origin http://127.0.0.1:8000        # listens on http://127.0.0.1:8002
//! cargo run --release -p reverse-proxy -- --origin https://example.org --explain
//! cargo run --release -p reverse-proxy -- --origin http://127.0.0.1:8000 --cache 'redis://127.0.0.1/0?namespace=proxy'
//! ```
//!
//! HTTP/1.1 and HTTP/2 come in, HTTP/1.1 goes out. Bodies stream, nothing is tried twice, 1xx responses pass through,
//! and an origin that does not answer becomes a stale response or 504. It does not speak WebSockets. Where to start
//! reading:
//!
//! * [`proxy`], below: the whole of it, which is a `CacheLayer` over a client, and a `QueryLayer` over that.
//! * [`origin`]: what is done to a request and to a response on the way.
//! * [`hints`]: how 1xx responses get past a server library that cannot send them.

// This is a program: the terminal is where it speaks.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod hints;
pub mod options;
pub mod origin;
pub mod serve;

use std::process::ExitCode;

use larder::Cache;
use larder::http::cache::Cached;
use larder::http::query::Queried;
use larder::http::rules::Policy;
use larder::http::{CacheLayer, QueryLayer};
use tower::ServiceBuilder;

use crate::options::{Options, Profile};
use crate::origin::Origin;

/// A cache before an origin.
pub type Proxy = Queried<Cached<Origin>>;

/// Makes one.
pub fn proxy(cache: &Cache, options: &Options, origin: Origin) -> Proxy {
    let mut policy = match options.profile {
        Profile::Rfc9111 => Policy::rfc9111(),
        Profile::App => Policy::application(),
    };
    policy.contested = options.contested;
    let layer = CacheLayer::new(cache)
        .policy(policy)
        .max_body_bytes(options.max_body)
        .max_chunked_bytes(options.max_chunked)
        .cache_status("larder");
    ServiceBuilder::new().layer(QueryLayer::new()).layer(layer).service(origin)
}

/// Does what the command line says.
pub fn run(options: &Options) -> ExitCode {
    match serve::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::FAILURE
        }
    }
}
