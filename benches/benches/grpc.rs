//! Cached gRPC calls beside bare Tonic: `cargo bench -p larder-benches --bench grpc`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use larder_benches::grpc;
use larder_benches::measure::{self, Suite};

fn main() {
    let suite = Suite { name: "grpc", cases: grpc::CASES, baseline: grpc::BASELINE, served: &[] };
    measure::main(suite, env!("CARGO_BIN_EXE_allocations"));
    // Not for the runs that are measured.
    if std::env::args().any(|argument| argument == "--spin") {
        return;
    }
    println!("\nCalls a second over HTTP/2, 1 KiB, 4 connections of 16 calls at once:\n");
    println!("| round | bare Tonic | Larder | ratio |");
    println!("|------:|-----------:|-------:|------:|");
    let rounds = grpc::served(1024, 7, Duration::from_secs(1));
    let mut ratios: Vec<f64> = rounds.iter().map(|round| round.larder / round.bare).collect();
    for (n, (round, ratio)) in rounds.iter().zip(&ratios).enumerate() {
        println!("| {:>5} | {:>10.0} | {:>6.0} | {ratio:>5.2} |", n + 1, round.bare, round.larder);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("\nThe middle ratio is {:.2}.", ratios[ratios.len() / 2]);
}
