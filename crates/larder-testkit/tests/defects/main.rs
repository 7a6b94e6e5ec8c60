//! The suite catches what it is there to catch: it is run on backends that are wrong in one way each.
//!
//! `table.rs` names the defects and the check that is there for each. Every check of the suite must fail on some
//! defect: one that cannot fail is not a check.

// The table is printed with `--nocapture`.
#![allow(clippy::print_stdout)]

mod table;
mod wrong;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::Clock;
use larder_testkit::{Harness, Sizes, suite};

use table::{Defect, TABLE};
use wrong::Wrong;

fn harness(defect: Option<Defect>) -> Harness<Wrong> {
    let (clock, hands) = Clock::manual();
    let wrong = Wrong::new(clock, defect);
    let trips = wrong.trips.clone();
    // Not by `second`: that may be what is wrong.
    let [second, plant, restart, small] = [0; 4].map(|_| Arc::new(wrong.same()));
    Harness::new(wrong)
        .with_hands(hands)
        .with_sizes(Sizes::TINY)
        .with_second(move || {
            let second = second.second();
            async move { second }
        })
        .with_plant(move |key, bytes| {
            let plant = plant.clone();
            async move { plant.plant(key, bytes) }
        })
        .with_restart(move || {
            let restart = restart.clone();
            async move { restart.restart() }
        })
        .with_small(30, move || {
            let small = small.small(30);
            async move { small }
        })
        .with_round_trips(move || trips.load(Ordering::SeqCst))
}

/// The names of the checks that fail on a defect.
fn failing(defect: Option<Defect>) -> BTreeSet<&'static str> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failing = BTreeSet::new();
    for check in suite::checks::<Wrong>() {
        let task = runtime.spawn(async move {
            let harness = harness(defect);
            let limited = tokio::time::timeout(Duration::from_secs(30), (check.run)(&harness));
            limited.await.expect("in time");
        });
        if runtime.block_on(task).is_err() {
            failing.insert(check.name);
        }
    }
    runtime.shutdown_background();
    failing
}

#[test]
fn with_no_defect_every_check_passes() {
    assert_eq!(failing(None), BTreeSet::new());
}

#[test]
fn every_defect_is_caught_and_every_check_catches_one() {
    // Thousands of panics are expected here; their texts help nobody.
    std::panic::set_hook(Box::new(|_| {}));
    let queue = Mutex::new(TABLE.iter());
    let caught = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((defect, check)) = queue.lock().unwrap().next() else { return };
                    let failing = failing(Some(*defect));
                    caught.lock().unwrap().insert(format!("{defect:?}"), (*check, failing));
                }
            });
        }
    });
    let _ = std::panic::take_hook();

    let caught = caught.into_inner().unwrap();
    let mut wrong = Vec::new();
    for (defect, (check, failing)) in &caught {
        println!("{defect}: {failing:?}");
        if !failing.contains(check) {
            wrong.push(format!("{defect} is not caught by {check}, but by {failing:?}"));
        }
    }
    let seen: BTreeSet<_> = caught.values().flat_map(|(_, failing)| failing).copied().collect();
    for check in suite::checks::<Wrong>() {
        if !seen.contains(check.name) {
            wrong.push(format!("{} fails on no defect", check.name));
        }
    }
    assert!(caught.len() >= 40, "there are {} defects", caught.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
