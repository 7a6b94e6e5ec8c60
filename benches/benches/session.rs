//! Sessions beside those of tower-sessions: `cargo bench -p larder-benches --bench session`.

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
}
