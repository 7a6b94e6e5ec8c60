//! A Redis that dies, freezes and flaps under load: `cargo bench -p larder-benches --bench outage`. It starts it itself.

fn main() {
    larder_benches::outage::main();
}
