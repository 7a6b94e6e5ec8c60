//! `cargo run --release -p catalog-grpc -- serve`

use std::process::ExitCode;

use catalog_grpc::options::Options;
use clap::Parser;

fn main() -> ExitCode {
    catalog_grpc::run(&Options::parse())
}
