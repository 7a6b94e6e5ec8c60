//! A product catalogue over gRPC, cached by Larder.
//!
//! ```text
//! cargo run --release -p catalog-grpc -- serve     # on http://127.0.0.1:50051
//! cargo run --release -p catalog-grpc -- get 7
//! cargo run --release -p catalog-grpc -- bench     # without and with the cache, side by side
//! cargo run --release -p catalog-grpc -- --help
//! ```
//!
//! Where to start reading: [`layer`], below, which is all that the cache takes; `proto/catalog.proto`, which says what
//! has no side effects; [`service`], where the handlers name their tags.
//!
//! `RUST_LOG=larder_grpc=debug` tells of every call that was not answered from the cache, and why.

// This is a program: the terminal is where it speaks.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod client;
pub mod options;
pub mod serve;
pub mod service;
pub mod shelf;

use std::process::ExitCode;
use std::time::Duration;

use larder::Cache;
use larder::grpc::{GrpcCacheLayer, Write};

use crate::options::{Command, Options};

/// What the build script makes of `proto/catalog.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod proto {
    tonic::include_proto!("catalog");
}

/// `proto/catalog.proto` as descriptors.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/catalog.bin"));

/// The cache before the service: what the descriptors call free of side effects is cached for five minutes, and an
/// update drops what its handler says that it has changed.
///
/// # Errors
///
/// When the descriptors and what is said here contradict each other.
pub fn layer(cache: &Cache) -> larder::Result<GrpcCacheLayer> {
    GrpcCacheLayer::builder(cache)
        .descriptor_set(DESCRIPTORS)
        .canonical()
        .ttl(Duration::from_secs(300))
        .write(Write::new("/catalog.Catalog/Update"))
        .cache_status("catalog")
        .build()
}

/// Does what the command line says.
pub fn run(options: &Options) -> ExitCode {
    let done = match &options.command {
        Command::Serve(serve) => serve::run(serve),
        Command::Bench(bench) => bench::run(bench),
        Command::Get(get) => client::get(get),
        Command::List(list) => client::list(list),
        Command::Watch(watch) => client::watch(watch),
        Command::Update(update) => client::update(update),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::FAILURE
        }
    }
}
