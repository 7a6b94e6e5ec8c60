//! `cargo run --release -p products`

use std::process::ExitCode;

use clap::Parser;
use products::options::Options;

fn main() -> ExitCode {
    products::run(Options::parse())
}
