//! The public conformance suite, over a cache before a durable store: with the cache, and with it gone.

use std::time::Duration;

use larder_cache::WriteThrough;
use larder_core::{Clock, ErrorKind};
use larder_memory::MemoryBackend;
use larder_testkit::Harness;
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::reference::Reference;

// A busy machine is no outage.
const PATIENCE: Duration = Duration::from_secs(60);

mod with_a_shared_cache {
    use super::*;

    async fn harness() -> Harness<WriteThrough<Faulty<Reference>, Reference>> {
        let (clock, hands) = Clock::manual();
        let (cache, durable) = (Reference::new(clock.clone()), Reference::new(clock));
        let node = move || {
            let cache = Faulty::new(cache.clone());
            WriteThrough::builder(cache, durable.clone()).patience(PATIENCE).build().unwrap()
        };
        Harness::new(node()).with_hands(hands).with_second(move || {
            let node = node();
            async move { node }
        })
    }

    larder_testkit::conformance!(harness());
}

mod with_a_cache_in_memory {
    use super::*;

    // Without a second node: for as long as the ceiling it may show what was.
    async fn harness() -> Harness<WriteThrough<MemoryBackend, Reference>> {
        let (clock, hands) = Clock::manual();
        let cache = MemoryBackend::builder().clock(clock.clone()).build().unwrap();
        let node = WriteThrough::builder(cache, Reference::new(clock)).patience(PATIENCE);
        Harness::new(node.build().unwrap()).with_hands(hands)
    }

    larder_testkit::conformance!(harness());
}

mod with_the_cache_gone {
    use super::*;

    // What removes is an error then, so only what the cache need not confirm is asked of it.
    const LOST: [Verb; 6] =
        [Verb::Peek, Verb::Get, Verb::GetMany, Verb::Put, Verb::Begin, Verb::Release];

    async fn harness() -> Harness<WriteThrough<Faulty<Reference>, Reference>> {
        let (clock, hands) = Clock::manual();
        let (cache, durable) = (Faulty::new(Reference::new(clock.clone())), Reference::new(clock));
        cache.faults().inject(Fault::Fail(ErrorKind::Other), &LOST);
        let node = WriteThrough::builder(cache, durable).patience(PATIENCE);
        Harness::new(node.build().unwrap()).with_hands(hands)
    }

    larder_testkit::conformance!(harness());
}
