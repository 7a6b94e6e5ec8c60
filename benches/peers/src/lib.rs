//! The same work done by Larder and by other caches of values, one row each.
//!
//! Every cache is in memory, has room for what is asked, and a lifetime of five minutes; what it gives is shared, not
//! copied. Where a cache can make concurrent callers share a computation, it does.

mod rows;

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use rows::JOBS;

/// Does that many operations.
pub type Run = Box<dyn FnMut(u64)>;

/// What is to be done, and who does it.
pub struct Job {
    /// The table's title.
    pub name: &'static str,
    /// The first row is what the others are compared with.
    pub rows: &'static [Row],
}

/// What it is called, and what makes it ready.
pub type Row = (&'static str, fn() -> Run);

/// What one operation of the hot key computed, at most: 1 where callers share a computation.
pub static MOST_COMPUTED: AtomicU64 = AtomicU64::new(0);

pub(crate) const TTL: Duration = Duration::from_secs(300);
pub(crate) const ROOM: u64 = 100_000;
pub(crate) const TASKS: usize = 64;

/// A row of a shop's list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Product {
    id: u64,
    name: String,
    price: f64,
    tags: Vec<String>,
}

pub(crate) type List = Arc<Vec<Product>>;

pub(crate) fn list() -> Vec<Product> {
    let product = |id| Product {
        id,
        name: format!("Teapot number {id}"),
        price: 34.9,
        tags: ["kitchen", "tea"].map(str::to_owned).into(),
    };
    (0..50).map(product).collect()
}

pub(crate) fn keys() -> Vec<String> {
    (0..50).map(|n| format!("product:{n}")).collect()
}

/// One operation after the other, each with its number, on one thread.
pub(crate) fn drive<C, F, Fut>(made: impl Future<Output = C>, operation: F) -> Run
where
    C: 'static,
    F: Fn(&'static C, u64) -> Fut + 'static,
    Fut: Future,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // For the program's life, so that operations can borrow it.
    let cache: &'static C = Box::leak(Box::new(runtime.block_on(made)));
    let mut number = 0;
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                number += 1;
                black_box(operation(cache, number).await);
            }
        });
    })
}

/// Tasks that want one cold key at once, and what is computed for them.
pub(crate) async fn crowd<F, Fut>(ask: impl Fn(Counted) -> F)
where
    F: FnOnce() -> Fut,
    Fut: Future + Send + 'static,
    Fut::Output: Send,
{
    let computed = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> =
        (0..TASKS).map(|_| tokio::spawn(ask(Counted(computed.clone()))())).collect();
    for task in tasks {
        task.await.expect("a value");
    }
    MOST_COMPUTED.fetch_max(computed.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Counts computations.
pub(crate) struct Counted(Arc<AtomicU64>);

impl Counted {
    /// Takes a moment, in which everybody else comes.
    pub(crate) async fn compute(self) -> String {
        self.0.fetch_add(1, Ordering::Relaxed);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        "value".to_owned()
    }
}
