//! Frees what nobody can read any more, and what is too much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::Result;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep, timeout};

use crate::database::{Argument, Database};
use crate::log;
use crate::statements::Statement;
use crate::store::Inner;

/// How much room there is, and how much of it was written to since somebody looked.
///
/// What is there is counted only when a thirty-second part of the room has been written, and then it is brought so far
/// below the bound that twice as much may be written until it is counted again: so counting costs each write little,
/// and the bound holds in between.
pub(crate) struct Room {
    entries: Bound,
    bytes: Bound,
    culling: Arc<Mutex<()>>,
    bell: Arc<Notify>,
}

struct Bound {
    most: u64,
    slack: u64,
    written: AtomicU64,
}

impl Bound {
    fn new(most: u64) -> Self {
        Bound { most, slack: (most / 32).max(1), written: AtomicU64::new(0) }
    }

    // True when it is time to look.
    fn add(&self, written: u64) -> bool {
        self.written.fetch_add(written, Ordering::Relaxed) + written >= self.slack
    }

    fn target(&self) -> u64 {
        self.most - 2 * self.slack
    }
}

impl Room {
    pub(crate) fn new(entries: u64, bytes: u64) -> Self {
        Room {
            entries: Bound::new(entries),
            bytes: Bound::new(bytes),
            culling: Arc::default(),
            bell: Arc::default(),
        }
    }

    /// Has the next sweep begin now.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }
}

/// Sweeps now and then, for as long as the backend is there.
pub(crate) fn start<D: Database>(inner: &Arc<Inner<D>>, every: Duration) {
    let bell = inner.room.bell.clone();
    let inner: Weak<Inner<D>> = Arc::downgrade(inner);
    tokio::spawn(async move {
        loop {
            // Nodes that were started together do not sweep together.
            let pause = every.mul_f64(rand::random_range(0.5..=1.0));
            // A backend that is gone must not be waited for by its task for long.
            let until = Instant::now() + pause;
            loop {
                let step = until.saturating_duration_since(Instant::now()).min(STEP);
                let rung = timeout(step, bell.notified()).await.is_ok();
                if inner.strong_count() == 0 {
                    return;
                }
                if rung || Instant::now() >= until {
                    break;
                }
            }
            let Some(inner) = inner.upgrade() else { return };
            if let Err(error) = inner.sweep().await {
                log::sweep(D::NAME, &error);
            }
        }
    });
}

impl<D: Database> Inner<D> {
    pub(crate) async fn sweep(&self) -> Result<()> {
        let [expired, cleared, tags] = &self.statements.sweep;
        self.all_of(expired, None).await?;
        self.all_of(cleared, None).await?;
        self.all_of(tags, Some(MARKS)).await?;
        let _turn = self.room.culling.lock().await;
        self.cull().await
    }

    /// Notes what was stored, and has what is too much removed.
    ///
    /// Who writes so fast that the last removal is still under way waits for it.
    pub(crate) async fn stored(self: &Arc<Self>, entries: u64, bytes: u64) {
        let room = &self.room;
        if !(room.entries.add(entries) | room.bytes.add(bytes)) {
            return;
        }
        room.entries.written.store(0, Ordering::Relaxed);
        room.bytes.written.store(0, Ordering::Relaxed);
        let Ok(turn) = timeout(self.limit, room.culling.clone().lock_owned()).await else { return };
        let inner = self.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.cull().await {
                log::sweep(D::NAME, &error);
            }
            drop(turn);
        });
    }

    // Whoever holds the lock counts, and removes what was not used for longest.
    async fn cull(&self) -> Result<()> {
        let statement = &self.statements.totals;
        let answer = self.sweeper.fetch(statement, Vec::new(), true, self.patient()).await?;
        let Some(row) = answer.rows.first() else { return Ok(()) };
        let number = |at: usize| row[at].integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let (entries, bytes) = (number(0), number(1));
        let mut many = entries.saturating_sub(self.room.entries.target());
        let mut much = bytes.saturating_sub(self.room.bytes.target());
        while many > 0 || much > 0 {
            // As many as hold that much if they are of the usual size.
            let usual = (bytes / entries.max(1)).max(1);
            let limit = many.max(much / usual).clamp(1, PAGE);
            let arguments = vec![Argument::Integer(i64::try_from(limit).ok())];
            let answer =
                self.sweeper.fetch(&self.statements.cull, arguments, true, self.patient()).await?;
            if answer.rows.is_empty() {
                break;
            }
            many = many.saturating_sub(answer.rows.len() as u64);
            let freed: i64 = answer.rows.iter().filter_map(|row| row[0].integer()).sum();
            much = much.saturating_sub(u64::try_from(freed).unwrap_or(0));
        }
        Ok(())
    }

    // A page at a time, so that others get their turn.
    async fn all_of(&self, statement: &Statement, age: Option<i64>) -> Result<()> {
        loop {
            let mut arguments = vec![Argument::Integer(Some(PAGE as i64))];
            arguments.extend(age.map(|age| Argument::Integer(Some(age))));
            let answer = self.sweeper.fetch(statement, arguments, true, self.patient()).await?;
            if (answer.rows.len() as u64) < PAGE {
                return Ok(());
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

const PAGE: u64 = 500;

// Tags that nobody asked for in 30 days.
const MARKS: i64 = 30 * 24 * 60 * 60 * 1000;

const STEP: Duration = Duration::from_secs(1);
