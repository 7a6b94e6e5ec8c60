//! `cargo run --release -p reverse-proxy -- --origin http://127.0.0.1:8000`

use std::process::ExitCode;

use clap::Parser;
use reverse_proxy::options::Options;

fn main() -> ExitCode {
    reverse_proxy::run(&Options::parse())
}
