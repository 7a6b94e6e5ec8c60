//! The public conformance suite, over a near store before another one. What is near is no other contract.

use larder_cache::Tiered;
use larder_core::Clock;
use larder_testkit::Harness;
use larder_testkit::bus::LocalBus;
use larder_testkit::faulty::Faulty;
use larder_testkit::reference::Reference;

async fn harness() -> Harness<Tiered<Faulty<Reference>>> {
    let (clock, hands) = Clock::manual();
    let (store, bus) = (Reference::new(clock), LocalBus::new());
    let node = move || {
        let remote = Faulty::new(store.clone());
        Tiered::builder(remote).with_bus(bus.clone()).unwrap()
    };
    let first = node();
    Harness::new(first).with_hands(hands).with_second(move || {
        let second = node();
        async move { second }
    })
}

larder_testkit::conformance!(harness());
