//! How much lies on each shelf, in a file that all processes share.
//!
//! Bytes and files, two 64-bit numbers for each shelf, under a lock of their own. What is to be written is counted
//! before it is written, and what was removed is uncounted afterwards: whoever is killed in between leaves too much
//! behind and never too little. Whoever counts a shelf, and holds it, puts that right.

use std::fs::File;
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

    pub(crate) fn within(self, limit: Sum) -> bool {
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
        let bytes = held.file().and_then(read).map_err(failed)?;
        Ok(bytes.as_chunks().0.iter().map(sum).collect())
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
        let reserve = |file: &File| {
            let bytes = read(file)?;
            let (mut all, mut own, mut unknown) = (more, more, Vec::new());
            for (index, slot) in bytes.as_chunks().0.iter().enumerate() {
                match sum(slot) {
                    Some(sum) => {
                        all = all.plus(sum);
                        if index == shelf.index() {
                            own = own.plus(sum);
                        }
                    }
                    None => unknown.push(Shelf::at(index)),
                }
            }
            if !settled && !unknown.is_empty() {
                return Ok(Room::Unknown(unknown));
            }
            if !all.within(limit) {
                return Ok(Room::None);
            }
            write(file, shelf, own)?;
            Ok(Room::Given)
        };
        held.file().and_then(reserve).map_err(failed)
    }

    /// Uncounts what was removed, or not written after all.
    pub(crate) fn release(&self, shelf: Shelf, less: Sum) -> Result<()> {
        let held = self.0.hold()?;
        let release = |file: &File| {
            let mut slot = [0; SLOT];
            let length = file.read_at(&mut slot, (shelf.index() * SLOT) as u64)?;
            match sum(&slot).filter(|_| length == SLOT) {
                Some(sum) => write(file, shelf, sum.minus(less)),
                None => Ok(()),
            }
        };
        held.file().and_then(release).map_err(failed)
    }

    /// Takes what somebody who holds the shelf has counted.
    pub(crate) fn set(&self, shelf: Shelf, sum: Sum) -> Result<()> {
        let held = self.0.hold()?;
        held.file().and_then(|file| write(file, shelf, sum)).map_err(failed)
    }
}

// Zeros where the file is too short.
fn read(file: &File) -> io::Result<[u8; SHELVES * SLOT]> {
    let mut bytes = [0; SHELVES * SLOT];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

// Bytes are written as one more than they are, so that zeros stand for nothing known.
fn sum(slot: &[u8; SLOT]) -> Option<Sum> {
    let number = u128::from_be_bytes(*slot);
    let (bytes, files) = ((number >> 64) as u64, number as u64);
    bytes.checked_sub(1).map(|bytes| Sum { bytes, files })
}

fn write(file: &File, shelf: Shelf, sum: Sum) -> io::Result<()> {
    let number = u128::from(sum.bytes.saturating_add(1)) << 64 | u128::from(sum.files);
    file.write_all_at(&number.to_be_bytes(), (shelf.index() * SLOT) as u64)
}

const SLOT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_nothing_is_unknown() {
        let file = tempfile::tempfile().unwrap();
        let (first, last) = (Shelf::at(0), Shelf::at(SHELVES - 1));
        let some = Sum { bytes: 8192, files: 2 };
        write(&file, last, some).unwrap();
        write(&file, first, Sum::default()).unwrap();
        let bytes = read(&file).unwrap();
        let sums: Vec<_> = bytes.as_chunks().0.iter().map(sum).collect();
        assert_eq!((sums[0], sums[1], sums[SHELVES - 1]), (Some(Sum::default()), None, Some(some)));
        write(&file, last, Sum { bytes: u64::MAX, files: u64::MAX }).unwrap();
        assert!(sum(&read(&file).unwrap().as_chunks().0[SHELVES - 1]).is_some());
    }
}
