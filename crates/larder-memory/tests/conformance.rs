//! The public conformance suite, with a driven clock.

use larder_core::Clock;
use larder_memory::MemoryBackend;
use larder_testkit::Harness;

async fn harness() -> Harness<MemoryBackend> {
    let (clock, hands) = Clock::manual();
    let memory = MemoryBackend::builder().clock(clock);
    let backend = memory.clone().max_entry_bytes(2 << 20).build().unwrap();
    Harness::new(backend).with_hands(hands).with_small(64, move || {
        // Room for 64 entries of the suite: their bodies, and what each weighs beside.
        let small = memory.clone().max_bytes(64 * 2048).build().unwrap();
        async move { small }
    })
}

larder_testkit::conformance!(harness());
