//! Hits of caches of values: `cargo bench -p larder-benches --bench data_hit`.

use larder_benches::data;
use larder_benches::measure::{self, Suite};

fn main() {
    let suite = Suite { name: "data", cases: data::CASES, baseline: data::BASELINE, served: &[] };
    measure::main(suite, env!("CARGO_BIN_EXE_allocations"));
}
