//! Room for what is to be written: the bounds, and who makes way.

use std::time::{Duration, SystemTime};

use larder_core::{Error, ErrorKind, Result};

use crate::NAME;
use crate::client::{Item, age, failed};
use crate::generation::Lives;
use crate::locks::Hold;
use crate::naming::{self, ENTRIES, MARKS, Named, SHELVES, Shelf};
use crate::store::Inner;
use crate::totals::{Room, Slots, Sum};

/// Who makes way first. Within one kind it is who was used least recently.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// Of a life that is over, or left behind by somebody who died while writing.
    Nothing,
    /// An entry, a counter or a marker.
    Entry,
    /// A tag's last invalidation: without it, what carries the tag is a miss.
    Tag,
    /// A namespace's sequence: without it, everything with a tag is a miss. It never makes way.
    Sequence,
}

struct Candidate {
    worth: Worth,
    shelf: Shelf,
    item: Item,
}

impl Inner {
    /// Counts a file that is to be written to a shelf that is held. Others make way for it.
    pub(crate) fn reserve(&self, hold: &Hold<'_>, shelf: Shelf, charge: u64) -> Result<()> {
        let mut settled = false;
        let mut failures = 0;
        loop {
            match self.totals.reserve(shelf, Sum::one(charge), self.limit, settled)? {
                Room::Given => return Ok(()),
                Room::Unknown(shelves) => {
                    // Those that somebody else holds are counted by whoever holds them.
                    for shelf in shelves {
                        if let Some(_held) = self.also_hold(hold, shelf)? {
                            self.count(shelf)?;
                        }
                    }
                    settled = true;
                }
                Room::None if self.put_right(hold)? => {}
                Room::None if self.evict(hold, failures < PATIENCE)? => failures = 0,
                Room::None if failures == FAILURES => {
                    let words = "the directory is full, and nothing in it can make way";
                    return Err(Error::new(ErrorKind::Unavailable, words).with_backend(NAME));
                }
                Room::None => {
                    // Whatever could go is held by others just now.
                    failures += 1;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Removes a file from a shelf that is held, and uncounts it.
    pub(crate) fn remove_counted(&self, shelf: Shelf, name: &str) -> Result<Option<u64>> {
        let charge = self.directory.remove_named(shelf, name).map_err(failed)?;
        if let Some(charge) = charge {
            // It is gone, and that is what was asked for: when this fails, too much is counted until the next sweep.
            let _ = self.totals.release(shelf, Sum::one(charge));
        }
        Ok(charge)
    }

    /// What an item is worth, and whether it is of a life that is over: the namespaces' generations must be read after
    /// the item was seen.
    pub(crate) fn worth(&self, lives: &mut Lives<'_>, shelf: Shelf, item: &Item) -> Result<Worth> {
        Ok(match naming::read(&item.name) {
            Named::Temporary if age(item.used) > LEFT_BEHIND => Worth::Nothing,
            // Somebody may be writing it.
            Named::Temporary | Named::Foreign => Worth::Sequence,
            Named::Record { namespace, generation, sequence } => {
                match (lives.of(namespace)? == Some(generation), shelf.is_marks()) {
                    (false, _) => Worth::Nothing,
                    (true, false) => Worth::Entry,
                    (true, true) if sequence => Worth::Sequence,
                    (true, true) => Worth::Tag,
                }
            }
        })
    }

    /// Counts a shelf that is held.
    pub(crate) fn count(&self, shelf: Shelf) -> Result<Vec<Item>> {
        let items = self.directory.list(shelf).map_err(failed)?;
        self.totals.set(shelf, sum(&items))?;
        Ok(items)
    }

    // Shelves that claim more than there can be were not counted so: nobody makes way for that. True when it helped.
    fn put_right(&self, hold: &Hold<'_>) -> Result<bool> {
        let mut helped = false;
        for (shelf, claimed) in Shelf::all().zip(self.totals.slots()?) {
            let Some(claimed) = claimed.filter(|claimed| !claimed.within(self.limit)) else {
                continue;
            };
            if let Some(_held) = self.also_hold(hold, shelf)? {
                helped |= sum(&self.count(shelf)?) != claimed;
            }
        }
        Ok(helped)
    }

    // Removes the least recently used eighth of a sample. False when there was nothing that could go; when patient, also
    // when somebody who may just be making room was in the way.
    fn evict(&self, hold: &Hold<'_>, patient: bool) -> Result<bool> {
        let (mut candidates, busy) = self.sample(hold)?;
        if busy && patient && candidates.iter().all(|c| c.worth != Worth::Nothing) {
            return Ok(false);
        }
        candidates.sort_by_key(|candidate| (candidate.worth, candidate.item.used));
        let most = candidates.len().div_ceil(EIGHTH);
        let worthless = |candidate: &Candidate| candidate.worth == Worth::Nothing;
        let most = most.max(candidates.iter().filter(|c| worthless(c)).count());
        let mut gone = false;
        for Candidate { shelf, item, .. } in candidates.into_iter().take(most) {
            if let Some(_held) = self.also_hold(hold, shelf)? {
                gone |= self.remove_unused(shelf, &item)?;
            }
        }
        Ok(gone)
    }

    // Removes it unless it was written or used since it was looked at.
    fn remove_unused(&self, shelf: Shelf, item: &Item) -> Result<bool> {
        match self.directory.used(shelf, &item.name).map_err(failed)? {
            Some(used) if used != item.used => Ok(false),
            None => Ok(false),
            Some(_) => Ok(self.remove_counted(shelf, &item.name)?.is_some()),
        }
    }

    // So many files that the least recently used of them are among the least recently used of all. A large directory
    // has as many on one shelf, a small one is looked through. Also tells whether a shelf was passed over.
    fn sample(&self, hold: &Hold<'_>) -> Result<(Vec<Candidate>, bool)> {
        let (mut candidates, mut busy) = (Vec::new(), false);
        for shelf in order(&self.totals.slots()?) {
            let enough = if shelf.is_marks() { 1 } else { SAMPLE };
            if candidates.len() >= enough {
                break;
            }
            let Some(_held) = self.also_hold(hold, shelf)? else {
                busy = true;
                continue;
            };
            let items = self.count(shelf)?;
            let mut lives = Lives::new(self);
            for item in items {
                let worth = self.worth(&mut lives, shelf, &item)?;
                if worth < Worth::Sequence {
                    candidates.push(Candidate { worth, shelf, item });
                }
            }
        }
        Ok((candidates, busy))
    }

    // A second shelf beside the one that is held: without waiting, so that nobody waits for anybody in a circle.
    fn also_hold<'a>(&'a self, hold: &Hold<'_>, shelf: Shelf) -> Result<Option<Option<Hold<'a>>>> {
        if hold.covers(shelf) {
            return Ok(Some(None));
        }
        Ok(self.stripes.try_hold(shelf)?.map(Some))
    }

    /// What the directory holds. Shelves that nobody has counted are counted.
    pub(crate) fn usage(&self) -> Result<Sum> {
        let mut all = Sum::default();
        for (shelf, claimed) in Shelf::all().zip(self.totals.slots()?) {
            all = all.plus(match claimed {
                Some(claimed) => claimed,
                None => {
                    let _hold = self.stripes.hold(shelf)?;
                    sum(&self.count(shelf)?)
                }
            });
        }
        Ok(all)
    }
}

// First the shelf that claims the most, so that a number that is wrong is put right; then the others from a random one
// on, so that each has its turn. Marks come last: entries make way before them.
fn order(slots: &Slots) -> impl Iterator<Item = Shelf> {
    let largest = (0..ENTRIES).max_by_key(|at| slots[*at].unwrap_or_default().bytes);
    let start = rand::random::<u16>() as usize;
    let entries = (0..ENTRIES).map(move |at| (start + at) % ENTRIES);
    let marks = (0..MARKS).map(move |at| ENTRIES + (start + at) % MARKS);
    // A shelf that claims nothing is not looked into.
    let claims: Vec<bool> =
        slots.iter().map(|slot| slot.is_none_or(|sum| sum != Sum::default())).collect();
    let rest = entries.filter(move |at| Some(*at) != largest).chain(marks);
    largest.into_iter().chain(rest).filter(move |at| claims[at % SHELVES]).map(Shelf::at)
}

fn sum(items: &[Item]) -> Sum {
    items.iter().fold(Sum::default(), |sum, item| sum.plus(Sum::one(item.charge)))
}

/// Whether a mark was last asked for so long ago that nobody needs it.
pub(crate) fn forgotten(used: SystemTime) -> bool {
    age(used) > MARK_LIFE
}

// Files that are compared with each other.
const SAMPLE: usize = 64;

const EIGHTH: usize = 8;

const FAILURES: u32 = 100;

const PATIENCE: u32 = 5;

const PAUSE: Duration = Duration::from_millis(1);

// What was begun so long ago is not being written any more.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);

const MARK_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
