//! Hits of responses on a server: `cargo bench -p larder-benches --bench remote_hit`.
#![allow(clippy::print_stdout)]

use larder_benches::measure::{self, Suite};
use larder_benches::remote;

fn main() {
    let suite =
        Suite { name: "remote", cases: remote::CASES, baseline: remote::BASELINE, served: &[] };
    measure::main(suite, env!("CARGO_BIN_EXE_allocations"));
    // Not for the runs that are measured.
    if !std::env::args().any(|argument| argument == "--spin") {
        let [without, with] = remote::DECODED;
        println!("\nWhat decoding costs is the difference of \"{with}\" and \"{without}\".");
    }
}
