//! Locks between processes, and between the threads of this one.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use larder_core::{Error, ErrorKind, Result};
use parking_lot::{Mutex, MutexGuard};

use crate::NAME;
use crate::client::{Directory, failed};
use crate::naming::{ENTRIES, MARKS, Shelf};

/// One lock file.
///
/// An advisory lock belongs to an open file, not to a thread: the mutex in front keeps this process's threads apart.
/// The kernel frees it when its process dies, however it dies.
pub(crate) struct Lock {
    path: PathBuf,
    directory: Directory,
    file: Mutex<Option<File>>,
}

impl Lock {
    pub(crate) fn new(directory: &Directory, name: &str) -> Self {
        let path = directory.lock_path(name);
        Lock { path, directory: directory.clone(), file: Mutex::default() }
    }

    /// Waits for the lock, but not for ever: its holder may have been stopped.
    pub(crate) fn hold(&self) -> Result<Held<'_>> {
        let deadline = Instant::now() + LIMIT;
        let guard = self.file.try_lock_until(deadline).ok_or_else(late)?;
        self.settle(guard, Some(deadline))?.ok_or_else(late)
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_hold(&self) -> Result<Option<Held<'_>>> {
        match self.file.try_lock() {
            Some(guard) => self.settle(guard, None),
            None => Ok(None),
        }
    }

    fn settle<'a>(
        &'a self,
        mut guard: MutexGuard<'a, Option<File>>,
        deadline: Option<Instant>,
    ) -> Result<Option<Held<'a>>> {
        loop {
            let file = match guard.take() {
                Some(file) => file,
                None => self.directory.open_or_create(&self.path).map_err(failed)?,
            };
            if !lock(&file, deadline).map_err(failed)? {
                *guard = Some(file);
                return Ok(None);
            }
            if self.is_there(&file).map_err(failed)? {
                *guard = Some(file);
                return Ok(Some(Held(guard)));
            }
            // Somebody has removed it since it was opened: others would lock another one.
        }
    }

    fn is_there(&self, file: &File) -> io::Result<bool> {
        let here = file.metadata()?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A lock that is held; free again when it is dropped.
pub(crate) struct Held<'a>(MutexGuard<'a, Option<File>>);

impl Held<'_> {
    /// The lock file, for what is kept in it.
    pub(crate) fn file(&self) -> io::Result<&File> {
        self.0.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Said, not left to closing: a program that this process has just started may still share the open file.
        if let Some(file) = &*self.0
            && file.unlock().is_err()
        {
            *self.0 = None;
        }
    }
}

/// The locks of all shelves: 64 for entries, one for each shelf of marks.
pub(crate) struct Stripes(Box<[Lock]>);

/// The right to write to a shelf.
pub(crate) struct Hold<'a> {
    stripe: usize,
    _held: Held<'a>,
}

impl Stripes {
    pub(crate) fn new(directory: &Directory) -> Self {
        let lock = |stripe: usize| Lock::new(directory, &format!("{stripe:02x}"));
        Stripes((0..STRIPES + MARKS).map(lock).collect())
    }

    /// Waits for a shelf. Nobody waits for a second one while holding a first.
    pub(crate) fn hold(&self, shelf: Shelf) -> Result<Hold<'_>> {
        let stripe = stripe(shelf);
        Ok(Hold { stripe, _held: self.0[stripe].hold()? })
    }

    /// Takes a shelf if it is free.
    pub(crate) fn try_hold(&self, shelf: Shelf) -> Result<Option<Hold<'_>>> {
        let stripe = stripe(shelf);
        Ok(self.0[stripe].try_hold()?.map(|held| Hold { stripe, _held: held }))
    }
}

impl Hold<'_> {
    pub(crate) fn covers(&self, shelf: Shelf) -> bool {
        self.stripe == stripe(shelf)
    }
}

fn stripe(shelf: Shelf) -> usize {
    match shelf.index().checked_sub(ENTRIES) {
        None => shelf.index() % STRIPES,
        Some(marks) => STRIPES + marks,
    }
}

// Whether it could be taken in time.
fn lock(file: &File, deadline: Option<Instant>) -> io::Result<bool> {
    let mut pause = Duration::from_micros(20);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
}

pub(crate) fn late() -> Error {
    let words = "another process holds a lock of the directory and does not go on";
    Error::new(ErrorKind::Timeout, words).with_backend(NAME)
}

const STRIPES: usize = 64;

pub(crate) const LIMIT: Duration = Duration::from_secs(5);
