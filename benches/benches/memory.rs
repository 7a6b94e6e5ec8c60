//! What entries occupy: `cargo bench -p larder-benches --bench memory`.

fn main() {
    larder_benches::memory::main();
}
