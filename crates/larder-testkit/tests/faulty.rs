//! A wrapper is a backend: with nothing injected it keeps the contract, with something injected it breaks as told.

use std::time::Duration;

use larder_core::{Backend, Clock, Entry, ErrorKind, Key, Namespace, Peek, Ttl, When};
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::reference::Reference;
use larder_testkit::{Harness, Sizes};

mod idle {
    use super::*;

    async fn harness() -> Harness<Faulty<Reference>> {
        let (clock, hands) = Clock::manual();
        Harness::new(Faulty::new(Reference::new(clock))).with_hands(hands)
    }

    larder_testkit::conformance!(harness());
}

mod slow {
    use super::*;

    // Every call waits a little, so that futures are pending when they are dropped.
    async fn harness() -> Harness<Faulty<Reference>> {
        let (clock, hands) = Clock::manual();
        let backend = Faulty::new(Reference::new(clock));
        backend.faults().inject(Fault::Delay(Duration::from_micros(1)), &Verb::ALL);
        Harness::new(backend).with_hands(hands).with_sizes(Sizes { races: 20, drops: 2_000 })
    }

    larder_testkit::conformance!(harness());
}

fn faulty() -> (Faulty<Reference>, Key) {
    let key = Key::new(&Namespace::new("faulty").unwrap(), ["key"]).unwrap();
    (Faulty::new(Reference::new(Clock::system())), key)
}

#[tokio::test]
async fn a_failed_call_does_not_happen_and_a_lost_one_does() {
    let (backend, key) = faulty();
    let put = || backend.put(&key, Entry::integer(1), Ttl::Forever, When::Always);
    backend.faults().inject(Fault::Fail(ErrorKind::Unavailable), &[Verb::Put]);
    assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(backend.get(&key, &[]).await.unwrap().entry.is_none());
    backend.faults().inject(Fault::Lose(ErrorKind::Timeout), &[Verb::Put]);
    assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(backend.get(&key, &[]).await.unwrap().entry.is_some());
}

#[tokio::test]
async fn a_number_of_calls_fails_and_the_next_ones_do_not() {
    let (backend, key) = faulty();
    backend.faults().inject_times(2, Fault::Fail(ErrorKind::Other), &[Verb::Get, Verb::Touch]);
    assert!(backend.get(&key, &[]).await.is_err());
    assert!(backend.remove(&key, None).await.is_ok());
    assert!(backend.touch(&key, Ttl::Forever).await.is_err());
    assert!(backend.get(&key, &[]).await.is_ok());
}

#[tokio::test]
async fn a_hanging_call_goes_on_when_healed_and_peek_always_asks() {
    let (backend, key) = faulty();
    let faults = backend.faults();
    faults.inject(Fault::Hang, &Verb::ALL);
    assert!(matches!(backend.peek(key.as_ref(), backend.clock().now()), Peek::Ask));
    let call = tokio::spawn({
        let (backend, key) = (backend.clone(), key.clone());
        async move { backend.remove(&key, None).await }
    });
    while faults.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!call.is_finished());
    faults.heal();
    assert!(!call.await.unwrap().unwrap());
    assert_eq!(faults.waiting(), 0);
    assert!(matches!(backend.peek(key.as_ref(), backend.clock().now()), Peek::Ask));
}

#[tokio::test]
async fn a_dropped_call_does_not_wait_any_more() {
    let (backend, key) = faulty();
    backend.faults().inject(Fault::Hang, &[Verb::Get]);
    assert!(larder_testkit::cancel::drop_after(1, backend.get(&key, &[])).await.is_none());
    assert_eq!(backend.faults().waiting(), 0);
}

#[tokio::test]
async fn calls_are_remembered() {
    let (backend, key) = faulty();
    let faults = backend.faults();
    let other = Key::new(&Namespace::new("faulty").unwrap(), ["other"]).unwrap();
    backend.get(&key, std::slice::from_ref(&other)).await.unwrap();
    backend.remove_many(&[key.clone(), other.clone()]).await.unwrap();
    let calls = faults.calls();
    assert_eq!(calls[0].verb, Verb::Get);
    assert_eq!(calls[0].keys, [key.clone(), other.clone()]);
    assert_eq!((calls[1].verb, calls[1].keys.len()), (Verb::RemoveMany, 2));
    assert_eq!((faults.total(), faults.count(Verb::Get)), (2, 1));
    faults.forget();
    assert!(faults.calls().is_empty());
}
