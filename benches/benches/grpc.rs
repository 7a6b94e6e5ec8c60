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
    println!(
        "\nOver HTTP/2, 1 KiB, 4 connections of 16 calls at once; ns: the processor's, in the server's thread\n"
    );
    println!(
        "| round | bare Tonic, calls/s | Larder | ratio | bare Tonic, ns/call | Larder | ratio |"
    );
    println!(
        "|------:|--------------------:|-------:|------:|--------------------:|-------:|------:|"
    );
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    for (n, (bare, larder)) in grpc::served(1024, 9, Duration::from_secs(1)).iter().enumerate() {
        let ratio = larder.calls / bare.calls;
        ratios.push(ratio);
        print!("| {:>5} | {:>19.0} | {:>6.0} | {ratio:>5.2} ", n + 1, bare.calls, larder.calls);
        if let (Some(bare), Some(larder)) = (bare.processor, larder.processor) {
            // As calls a second of one core.
            let ratio = bare.as_secs_f64() / larder.as_secs_f64();
            times.push(ratio);
            println!("| {:>19} | {:>6} | {ratio:>5.2} |", bare.as_nanos(), larder.as_nanos());
        } else {
            println!("| {:>19} | {:>6} | {:>5} |", "", "", "");
        }
    }
    println!(
        "\nThe middle ratio of calls is {:.2}, of what a core can do {:.2}.",
        middle(ratios),
        middle(times)
    );
}

fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}
