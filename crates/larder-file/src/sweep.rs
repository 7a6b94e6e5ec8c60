//! Frees what nobody can read any more, in the background.
//!
//! One shelf after another, a second apart: what has expired, what cleared namespaces left, what was begun by processes
//! that died. After a `clear` it goes round once without such pauses.

use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::Result;
use parking_lot::{Condvar, Mutex};

use crate::client::{Item, failed};
use crate::generation::Lives;
use crate::naming::{self, Named, SHELVES, Shelf};
use crate::room::{Worth, forgotten};
use crate::store::Inner;
use crate::time::Time;
use crate::totals::Sum;

/// Wakes the sweeper.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    // Shelves to be swept without a pause.
    hurry: usize,
    over: bool,
}

impl Bell {
    /// Has every shelf swept soon.
    pub(crate) fn ring(&self) {
        self.state.lock().hurry = SHELVES;
        self.rung.notify_one();
    }

    /// Ends the sweeper.
    pub(crate) fn end(&self) {
        self.state.lock().over = true;
        self.rung.notify_one();
    }

    // Waits until the next shelf is due; false at the end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if state.hurry == 0 && !state.over {
            self.rung.wait_for(&mut state, CALM);
        }
        state.hurry = state.hurry.saturating_sub(1);
        !state.over
    }
}

/// Starts the sweeper. Without one (there may be no more threads) what has expired stays until it makes way.
pub(crate) fn start(inner: &Arc<Inner>) {
    let (weak, bell) = (Arc::downgrade(inner), inner.bell.clone());
    let thread = std::thread::Builder::new().name("larder-file-sweep".into());
    if thread.spawn(move || run(&weak, &bell)).is_err() {
        tracing::warn!(target: "larder::file", "there is no thread for sweeping; what has expired stays until it makes way");
    }
}

fn run(inner: &Weak<Inner>, bell: &Bell) {
    // Many processes may sweep one directory: each begins elsewhere.
    let mut at = rand::random::<u16>() as usize % SHELVES;
    while bell.wait() {
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.sweep_shelf(Shelf::at(at)) {
            tracing::debug!(target: "larder::file", %error, "a part of the directory could not be swept");
        }
        drop(inner);
        at = (at + 1) % SHELVES;
        // Other work comes first.
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Inner {
    /// Sweeps everything, now.
    pub(crate) fn sweep(&self) -> Result<()> {
        Shelf::all().try_for_each(|shelf| self.sweep_shelf(shelf))
    }

    fn sweep_shelf(&self, shelf: Shelf) -> Result<()> {
        if shelf.index() == 0 {
            self.sweep_generations()?;
        }
        if !self.directory.shelf_path(shelf).is_dir() {
            return Ok(());
        }
        let _hold = self.stripes.hold(shelf)?;
        let items = self.directory.list(shelf).map_err(failed)?;
        let mut lives = Lives::new(self);
        let time = Time::of(&self.clock);
        let mut left = Sum::default();
        for item in items {
            let gone = self.is_done(&mut lives, shelf, &item, &time)?
                && self.directory.discard(shelf, &item.name).map_err(failed)?.is_some();
            if !gone {
                left = left.plus(Sum::one(item.charge));
            }
        }
        self.totals.set(shelf, left)
    }

    fn is_done(
        &self,
        lives: &mut Lives<'_>,
        shelf: Shelf,
        item: &Item,
        time: &Time,
    ) -> Result<bool> {
        Ok(match self.worth(lives, shelf, item)? {
            Worth::Nothing => true,
            Worth::Entry => {
                let start = self.directory.read_start(shelf, &item.name, END_AT.end);
                start.map_err(failed)?.is_some_and(|start| expired(&start, time))
            }
            Worth::Tag => forgotten(item.used),
            Worth::Sequence => naming::read(&item.name) != Named::Temporary && forgotten(item.used),
        })
    }

    // What was begun there by processes that died.
    fn sweep_generations(&self) -> Result<()> {
        let directory = self.directory.generations();
        let mut lives = Lives::new(self);
        for item in self.directory.list_in(directory).map_err(failed)? {
            let temporary = naming::read(&item.name) == Named::Temporary;
            if temporary && self.worth(&mut lives, Shelf::at(0), &item)? == Worth::Nothing {
                self.directory.remove_path(&directory.join(&item.name)).map_err(failed)?;
            }
        }
        Ok(())
    }
}

// Entries and markers tell their end at the same place. What is no record of ours, though it is called like one, stays
// until it makes way or is written over.
fn expired(start: &[u8], time: &Time) -> bool {
    let end = start.get(END_AT).and_then(|end| end.try_into().ok()).map(u64::from_be_bytes);
    let ours = start.starts_with(larder_core::envelope::MAGIC);
    end.is_some_and(|end| ours && end != u64::MAX && time.over(end))
}

// Where a record's end lies, in the envelope.
const END_AT: std::ops::Range<usize> = 24..32;

const CALM: Duration = Duration::from_secs(1);
