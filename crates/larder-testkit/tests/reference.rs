//! The reference backend keeps the contract, by a clock that is moved and by the machine's.

use larder_core::Clock;
use larder_testkit::Harness;
use larder_testkit::reference::Reference;

async fn harness(reference: Reference) -> Harness<Reference> {
    let store = reference.clone();
    Harness::new(reference).with_plant(move |key, bytes| {
        let store = store.clone();
        async move { store.plant(key, bytes) }
    })
}

mod with_a_clock_that_is_moved {
    use super::*;

    async fn moved() -> Harness<Reference> {
        let (clock, hands) = Clock::manual();
        harness(Reference::new(clock).with_max_bytes(1 << 20)).await.with_hands(hands)
    }

    larder_testkit::conformance!(moved());
}

mod with_the_machines_clock {
    use super::*;

    larder_testkit::conformance!(harness(Reference::new(Clock::system())));
}
