//! `cargo run --release -p accounts`

use std::process::ExitCode;

use accounts::options::Options;
use clap::Parser;

fn main() -> ExitCode {
    accounts::run(&Options::parse())
}
