//! Which of the two stores is in charge.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::missed::{Change, Missed};

pub(super) struct Switch {
    // What the state says, for those who only want to know.
    over: AtomicBool,
    // In a row, while the first one is in charge.
    failures: AtomicU32,
    threshold: u32,
    state: Mutex<State>,
}

enum State {
    First,
    Second { missed: Missed, emptied: HashMap<Box<str>, Emptied> },
}

/// Whether a namespace of the second store was emptied since that took over.
pub(super) type Emptied = Arc<OnceCell<()>>;

/// To whom an operation goes.
pub(super) enum Route {
    First,
    /// To the second store, when these namespaces of it are empty.
    Second(Vec<(Box<str>, Emptied)>),
}

impl Switch {
    pub(super) fn new(threshold: u32) -> Self {
        Switch {
            over: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            threshold,
            state: Mutex::new(State::First),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Where an operation goes on these namespaces that changes that. What the first store misses by it is noted in the
    /// same step: whoever makes that one the first again has told it before.
    pub(super) fn route<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a str>,
        change: Change<'_>,
    ) -> Route {
        if !self.is_over() {
            return Route::First;
        }
        let mut state = self.state.lock();
        let State::Second { missed, emptied } = &mut *state else { return Route::First };
        missed.note(change);
        let mut needed: Vec<(Box<str>, Emptied)> = Vec::new();
        for name in namespaces {
            if needed.iter().all(|(known, _)| **known != *name) {
                needed.push((name.into(), emptied.entry(name.into()).or_default().clone()));
            }
        }
        Route::Second(needed)
    }

    /// Whether a namespace may be read from the second store at once.
    pub(super) fn is_ready(&self, namespace: &str) -> bool {
        match &*self.state.lock() {
            State::First => false,
            State::Second { emptied, .. } => {
                emptied.get(namespace).is_some_and(|emptied| emptied.initialized())
            }
        }
    }

    /// Takes note of how an operation of the first store ended. True when the second one has taken over by it, or had.
    pub(super) fn report(&self, failed: bool) -> bool {
        if !failed {
            // Hardly ever anything else than zero: what is only read is shared by all cores.
            if self.failures.load(Ordering::Relaxed) > 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            return false;
        }
        let mut state = self.state.lock();
        if let State::Second { .. } = *state {
            return true;
        }
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < self.threshold {
            return false;
        }
        *state = State::Second { missed: Missed::default(), emptied: HashMap::new() };
        self.over.store(true, Ordering::Release);
        true
    }

    /// What the first store has missed since it was last asked; `None` when there was nothing, and the first one is in
    /// charge again.
    pub(super) fn back(&self) -> Option<Missed> {
        let mut state = self.state.lock();
        let State::Second { missed, .. } = &mut *state else { return None };
        if !missed.is_empty() {
            return Some(std::mem::take(missed));
        }
        *state = State::First;
        self.failures.store(0, Ordering::Relaxed);
        self.over.store(false, Ordering::Release);
        None
    }

    /// Takes back what could not be told.
    pub(super) fn restore(&self, earlier: Missed) {
        if let State::Second { missed, .. } = &mut *self.state.lock() {
            missed.restore(earlier);
        }
    }
}
