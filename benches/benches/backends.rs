//! Every store beside its bare client: `cargo bench -p larder-benches --bench backends`. It starts the servers itself.

fn main() {
    larder_benches::backends::main();
}
