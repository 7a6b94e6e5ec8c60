//! Many tasks that use a cache, and what they see.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::{Cache, Options};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::Plan;

const KEYS: u64 = 1000;

/// What callers saw in a while.
#[derive(Debug, Default)]
pub struct Calls {
    /// How long each call took, shortest first.
    pub took: Vec<Duration>,
    /// Calls that ended with an error.
    pub failed: usize,
    /// Calls that were given what belongs to another key.
    pub wrong: usize,
}

impl Calls {
    /// What half of the calls took at most.
    pub fn median(&self) -> Duration {
        self.part(0.5)
    }

    /// What that part of the calls took at most.
    pub fn part(&self, part: f64) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get((last as f64 * part) as usize).copied().unwrap_or_default()
    }
}

/// Tasks that call until they are stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Calls>,
    // When the last reads that found something began and ended.
    answered: Mutex<Option<(Instant, Instant)>>,
    stop: AtomicBool,
}

impl Load {
    /// Without a cache, calls compute and nothing else.
    pub(super) fn start(plan: &Plan, cache: Option<Cache>) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for task in 0..plan.tasks as u64 {
            let (cache, shared, rest) = (cache.clone(), shared.clone(), plan.rest);
            tasks.spawn(async move {
                let mut n = task;
                while !shared.stop.load(Ordering::Relaxed) {
                    n += 1;
                    // Far from each other, so that tasks seldom ask for the same at once.
                    shared.call(cache.as_ref(), n, (task * 131 + n * 7) % KEYS).await;
                    tokio::time::sleep(rest).await;
                }
            });
        }
        Load { shared, tasks }
    }

    /// What was seen since this was asked last.
    pub(super) fn take(&self) -> Calls {
        let mut calls = std::mem::take(&mut *self.shared.calls.lock());
        calls.took.sort_unstable();
        calls
    }

    /// When a call was answered from the cache that began since then.
    pub(super) fn answered_since(&self, moment: Instant) -> Option<Instant> {
        let answered = *self.shared.answered.lock();
        answered.filter(|(began, _)| *began >= moment).map(|(_, ended)| ended)
    }

    pub(super) async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    // Eight of ten calls compute what is missing, one reads, one writes.
    async fn call(&self, cache: Option<&Cache>, n: u64, key: u64) {
        let began = Instant::now();
        let value = match (cache, n % 10) {
            (None, _) => Ok(Some(compute(key).await)),
            (Some(cache), 0) => match cache.get::<String>(key).await {
                Ok(None) => Ok(None),
                Ok(Some(value)) => {
                    *self.answered.lock() = Some((began, Instant::now()));
                    Ok(Some((*value).clone()))
                }
                Err(_) => Err(()),
            },
            (Some(cache), 1) => {
                let set = cache.set_with(key, compute(key).await, options()).await;
                set.map(|()| None).map_err(drop)
            }
            (Some(cache), _) => {
                let compute = move || async move { Ok::<_, Infallible>(compute(key).await) };
                let value = cache.get_or_compute(key, options(), compute).await;
                value.map(|value| Some((*value).clone())).map_err(drop)
            }
        };
        let took = began.elapsed();
        let mut calls = self.calls.lock();
        calls.took.push(took);
        match value {
            Err(()) => calls.failed += 1,
            Ok(Some(value)) if !value.starts_with(&format!("{key}:")) => calls.wrong += 1,
            Ok(_) => {}
        }
    }
}

fn options() -> Options {
    Options::ttl(Duration::from_secs(3600))
}

// A KiB that names its key.
async fn compute(key: u64) -> String {
    format!("{key}:{}", "x".repeat(1024))
}
