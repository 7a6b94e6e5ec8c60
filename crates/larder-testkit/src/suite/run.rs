use std::sync::Arc;
use std::time::Duration;

use larder_core::Backend;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::checks;
use crate::Harness;

/// Runs one check in a runtime of its own. What the macro's tests call.
pub fn run<B: Backend>(
    harness: impl Future<Output = Harness<B>>,
    check: impl AsyncFnOnce(&Harness<B>),
) {
    let limit = limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let harness = harness.await;
        // A panic drops the harness, and with it its servers.
        if tokio::time::timeout(limit, check(&harness)).await.is_err() {
            panic!("the check did not end within {limit:?}: some operation hangs");
        }
    });
    // Blocking work that was left behind must not keep the test from ending.
    runtime.shutdown_background();
}

/// Runs every check, a few at a time, on harnesses that share one store: for what is too dear to start for each check,
/// such as a cluster. [`conformance!`](crate::conformance) says better which check failed, so use that where you can.
///
/// # Panics
///
/// When checks fail, with their names.
pub async fn run_all<B: Backend>(at_once: usize, harness: impl AsyncFn() -> Harness<B>) {
    let turns = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    let mut names = Vec::new();
    for check in checks::<B>() {
        let turn = turns.clone().acquire_owned().await.expect("nobody closes it");
        let harness = harness().await;
        let task = running.spawn(async move {
            let _turn = turn;
            tokio::time::timeout(limit(), (check.run)(&harness)).await.expect("it hangs");
        });
        names.push((task.id(), check.name));
    }
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            let name = names.iter().find(|(id, _)| *id == error.id()).map(|(_, name)| *name);
            failed.push(name.unwrap_or("a check"));
        }
    }
    assert!(failed.is_empty(), "{} of {} checks failed: {failed:?}", failed.len(), names.len());
}

fn limit() -> Duration {
    let seconds = std::env::var("LARDER_LIMIT").ok().and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}
