//! Sessions beside those of tower-sessions: `cargo bench -p larder-benches --bench session`.
#![allow(clippy::print_stdout)]

use larder_benches::measure::{self, Suite};
use larder_benches::sessions;

fn main() {
    let suite = Suite {
        name: "session",
        cases: sessions::CASES,
        baseline: sessions::BASELINE,
        served: &[],
    };
    measure::main(suite, env!("CARGO_BIN_EXE_allocations"));
    // Not for the runs that are measured.
    if !std::env::args().any(|argument| argument == "--spin") {
        println!("\n| commands to Redis for a request  |      |");
        println!("|----------------------------------|-----:|");
        for (name, commands) in sessions::round_trips() {
            println!("| {name:32} | {commands:>4.2} |");
        }
    }
}
