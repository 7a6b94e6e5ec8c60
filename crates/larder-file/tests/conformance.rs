//! The public conformance suite, with a driven clock.

use std::sync::Arc;

use larder_core::Clock;
use larder_file::{Builder, FileBackend};
use larder_testkit::{Harness, suite};
use tempfile::TempDir;

mod common;

fn made(builder: Builder) -> Harness<FileBackend> {
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let builder = builder.path(directory.path()).max_value_bytes(2 << 20);
    let open = move || builder.clone().build().expect("the directory can be used");
    let (planted, small) = (directory.clone(), directory.clone());
    Harness::new(open())
        .with_second(move || std::future::ready(open()))
        // Nothing has to run for a directory to be there.
        .with_restart(|| async {})
        .with_plant(move |key, bytes| {
            let directory = planted.clone();
            async move { common::plant(directory.path(), &key, &bytes) }
        })
        .with_small(64, move || {
            // Each entry of the suite is one block.
            let builder = FileBackend::builder().path(small.path().join("small"));
            async move { builder.max_bytes(64 * 4096).build().expect("there is room") }
        })
        .keep(directory)
}

async fn harness() -> Harness<FileBackend> {
    let (clock, hands) = Clock::manual();
    made(FileBackend::builder().clock(clock)).with_hands(hands)
}

larder_testkit::conformance!(harness());

// What has to do with time once more, by the clock that everybody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machines_clock() {
    let timed = |name: &str| {
        name.starts_with("lifetimes::") || name.starts_with("fills::") || name.contains("racing")
    };
    for check in suite::checks::<FileBackend>().into_iter().filter(|check| timed(check.name)) {
        let harness = made(FileBackend::builder());
        (check.run)(&harness).await;
    }
}
