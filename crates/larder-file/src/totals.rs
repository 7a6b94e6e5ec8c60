//! How much lies on each shelf, in a file that all processes share.
//!
//! Bytes and files, two 64-bit numbers for each shelf, under a lock of their own. What is to be written is counted
//! before it is written, and what was removed is uncounted afterwards: whoever is killed in between leaves too much
//! behind and never too little. Whoever counts a shelf, and holds it, puts that right.

use std::io;
use std::os::unix::fs::FileExt;

use larder_core::Result;

use crate::client::{Directory, failed};
use crate::locks::Lock;
use crate::naming::{SHELVES, Shelf};

/// Bytes and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Sum {
    pub(crate) fn plus(self, other: Sum) -> Self {
        Sum {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }

    pub(crate) fn minus(self, other: Sum) -> Self {
        Sum {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }

    pub(crate) fn one(charge: u64) -> Self {
        Sum { bytes: charge, files: 1 }
    }

    fn within(self, limit: Sum) -> bool {
        self.bytes <= limit.bytes && self.files <= limit.files
    }
}

/// What became of a wish for room.
pub(crate) enum Room {
    /// It is counted.
    Given,
    /// These shelves were never counted, or the file was lost.
    Unknown(Vec<Shelf>),
    /// There is none.
    None,
}

pub(crate) struct Totals(Lock);

/// The numbers of all shelves; `None` where nobody knows.
pub(crate) type Slots = Vec<Option<Sum>>;

impl Totals {
    pub(crate) fn new(directory: &Directory) -> Self {
        Totals(Lock::new(directory, "totals"))
    }

    pub(crate) fn slots(&self) -> Result<Slots> {
        let held = self.0.hold()?;
        held.file().and_then(read).map_err(failed)
    }

    /// Counts what is to be written to a shelf if all stays within the limit. When `settled`, shelves that nobody could
    /// count count for nothing.
    pub(crate) fn reserve(
        &self,
        shelf: Shelf,
        more: Sum,
        limit: Sum,
        settled: bool,
    ) -> Result<Room> {
        let held = self.0.hold()?;
        let reserve = |file: &std::fs::File| {
            let slots = read(file)?;
            let unknown: Vec<Shelf> =
                Shelf::all().filter(|shelf| slots[shelf.index()].is_none()).collect();
            if !settled && !unknown.is_empty() {
                return Ok(Room::Unknown(unknown));
            }
            let sum = slots.iter().flatten().fold(more, |sum, slot| sum.plus(*slot));
            if !sum.within(limit) {
                return Ok(Room::None);
            }
            let own = slots[shelf.index()].unwrap_or_default().plus(more);
            write(file, shelf, own)?;
            Ok(Room::Given)
        };
        held.file().and_then(reserve).map_err(failed)
    }

    /// Uncounts what was removed, or not written after all.
    pub(crate) fn release(&self, shelf: Shelf, less: Sum) -> Result<()> {
        let held = self.0.hold()?;
        let release = |file: &std::fs::File| match read(file)?[shelf.index()] {
            Some(sum) => write(file, shelf, sum.minus(less)),
            None => Ok(()),
        };
        held.file().and_then(release).map_err(failed)
    }

    /// Takes what somebody who holds the shelf has counted.
    pub(crate) fn set(&self, shelf: Shelf, sum: Sum) -> Result<()> {
        let held = self.0.hold()?;
        held.file().and_then(|file| write(file, shelf, sum)).map_err(failed)
    }
}

fn read(file: &std::fs::File) -> io::Result<Slots> {
    let mut bytes = [0xff; SHELVES * SLOT];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let slot = |slot: &[u8]| {
        let number = |at: usize| {
            slot.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
        };
        // Written as one more, so that the zeros of a file that has grown stand for nothing known.
        match (number(0), number(8)) {
            (0 | u64::MAX, _) => None,
            (bytes, files) => Some(Sum { bytes: bytes - 1, files }),
        }
    };
    Ok(bytes.chunks_exact(SLOT).map(slot).collect())
}

fn write(file: &std::fs::File, shelf: Shelf, sum: Sum) -> io::Result<()> {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&sum.bytes.min(u64::MAX - 2).saturating_add(1).to_be_bytes());
    slot[8..].copy_from_slice(&sum.files.to_be_bytes());
    file.write_all_at(&slot, (shelf.index() * SLOT) as u64)
}

const SLOT: usize = 16;
