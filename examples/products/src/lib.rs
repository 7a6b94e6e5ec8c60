//! A JSON API and a home page over 10,000 products in SQLite, cached by Larder.
//!
//! ```text
//! cargo run --release -p products              # serves on http://127.0.0.1:3000
//! cargo run --release -p products -- measure   # without and with the cache, side by side
//! cargo run --release -p products -- --help
//! ```
//!
//! Nothing has to be installed: the cache is in memory, and the database is a file that is made and filled the first
//! time. Where to start reading:
//!
//! * [`app`], below: which routes there are, and the one place where [`CacheLayer`] is put on them.
//! * [`tags`]: which tag is on what, and which change drops what.
//! * [`api`]: the handlers. [`pages`]: pages by Askama and MiniJinja, with cached fragments. [`shop`]: data through the cache.
//!
//! `RUST_LOG=larder_http=debug` tells of every request that was not answered from the cache, and why.

// This is a program: the terminal is where it speaks.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod database;
pub mod errors;
pub mod measure;
pub mod options;
pub mod pages;
pub mod product;
pub mod query;
pub mod serve;
pub mod shop;
pub mod tags;

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get};
use larder::http::CacheLayer;

use crate::options::{Command, Options};
use crate::shop::Shop;

/// How long anything is cached, unless a change drops it before.
pub const TTL: Duration = Duration::from_secs(300);

/// The service.
pub fn app(shop: Shop) -> Router {
    let products = get(api::list).post(api::create);
    let product = get(api::detail).put(api::update).delete(api::remove);
    let mut api = Router::new()
        .route("/api/products", products.clone())
        .route("/api/products/", products)
        .route("/api/products/featured", get(api::featured))
        .route("/api/products/{id}", product)
        .route("/api/search", get(api::search))
        .route("/api/{*unknown}", any(errors::unknown_path))
        .method_not_allowed_fallback(errors::wrong_method)
        .layer(DefaultBodyLimit::max(64 * 1024));
    if let Some(cache) = shop.cache() {
        let layer = CacheLayer::new(cache)
            .ttl(TTL)
            // Nobody logs in here. Without this line, a cookie that another program on the same host has set in the
            // visitor's browser would keep the visitor from being answered from the cache.
            .shared_despite_cookies()
            .cache_status("products");
        api = api.layer(layer);
    }
    Router::new()
        .route("/", get(pages::home))
        .route("/products/{id}", get(pages::detail))
        .method_not_allowed_fallback(errors::wrong_method)
        .merge(api)
        .fallback(errors::unknown_path)
        .with_state(shop)
}

/// Does what the command line says.
pub fn run(options: Options) -> ExitCode {
    let done = match &options.command {
        None => serve::run(&options),
        Some(Command::Measure(how)) => measure::run(&options, how),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::FAILURE
        }
    }
}
