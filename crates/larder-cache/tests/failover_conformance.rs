//! The public conformance suite, over a store and the one that stands in for it, with either of them in charge.

use std::time::Duration;

use larder_cache::Failover;
use larder_core::{Clock, ErrorKind, Ttl};
use larder_testkit::Harness;
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::reference::Reference;

type Pair = Failover<Faulty<Reference>, Reference>;

fn pair(first: &Reference, second: &Reference) -> Pair {
    let builder = Failover::builder(Faulty::new(first.clone()), second.clone());
    // A busy machine is no outage, and what stands in lives as long as it is told to.
    let builder = builder.patience(Duration::from_secs(60)).ceiling(Ttl::Forever).threshold(1);
    builder.build().unwrap()
}

mod with_the_first_in_charge {
    use super::*;

    async fn harness() -> Harness<Pair> {
        let (clock, hands) = Clock::manual();
        let (first, second) = (Reference::new(clock.clone()), Reference::new(clock));
        Harness::new(pair(&first, &second)).with_hands(hands).with_second(move || {
            let node = pair(&first, &second);
            async move { node }
        })
    }

    larder_testkit::conformance!(harness());
}

mod with_the_second_in_charge {
    use super::*;

    // Without a second node: one that goes over later empties the store for both, and that is no part of the suite.
    async fn harness() -> Harness<Pair> {
        let (clock, hands) = Clock::manual();
        let pair = pair(&Reference::new(clock.clone()), &Reference::new(clock));
        pair.primary().faults().inject(Fault::Fail(ErrorKind::Unavailable), &Verb::ALL);
        Harness::new(pair).with_hands(hands)
    }

    larder_testkit::conformance!(harness());
}
