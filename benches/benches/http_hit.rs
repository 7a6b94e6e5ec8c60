//! Hits of response caches: `cargo bench -p larder-benches --bench http_hit`.

use larder_benches::measure::{self, Suite};
use larder_benches::{http, served};

fn main() {
    let suite =
        Suite { name: "http", cases: http::CASES, baseline: http::BASELINE, served: served::CASES };
    measure::main(suite, env!("CARGO_BIN_EXE_allocations"));
}
