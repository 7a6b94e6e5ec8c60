//! What stays behind in memory: nothing.

mod common;

use std::io;
use std::time::Duration;

use common::driven;
use larder_cache::{Cache, Options};
use larder_testkit::cancel::drop_after;

/// Callers that go away, each with a key of its own. Their computations go on, and keep nothing.
async fn cancelled(cache: &Cache, from: u64, count: u64) {
    for key in from..from + count {
        let options = Options::ttl(Duration::ZERO).tag("t");
        let caller = cache.get_or_compute(("k", key), options, || async {
            tokio::task::yield_now().await;
            Ok::<_, io::Error>("value".to_owned())
        });
        assert!(drop_after(1, caller).await.is_none());
        if key % 100 == 0 {
            common::settle().await;
        }
    }
    common::settle().await;
}

#[test]
fn cancelled_callers_on_distinct_keys_leave_memory_flat() {
    // `scripts/soak` runs this with a million.
    let count = std::env::var("LARDER_CANCELLED").map_or(20_000, |n| n.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cache, _) = driven();
    // Tables have the size that they keep then.
    runtime.block_on(cancelled(&cache, 0, 5_000));
    let info = allocation_counter::measure(|| runtime.block_on(cancelled(&cache, 5_000, count)));
    assert_eq!(cache.store().flights(), 0);
    assert!(info.count_total > count, "they have done something");
    // Tables grow in steps, and another thread may free what this one has made: 80 KB after a million. A key alone that
    // stays for each caller is more than this.
    let left = info.bytes_current;
    assert!(left < 256 << 10, "{left} bytes are left of {count} callers");
}
