use std::time::Duration;

use larder_core::Backend;

use crate::Harness;

/// Runs one check in a runtime of its own. What the macro's tests call.
pub fn run<B: Backend>(
    harness: impl Future<Output = Harness<B>>,
    check: impl AsyncFnOnce(&Harness<B>),
) {
    let seconds = std::env::var("LARDER_LIMIT").ok().and_then(|value| value.parse().ok());
    let limit = Duration::from_secs(seconds.unwrap_or(120));
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
