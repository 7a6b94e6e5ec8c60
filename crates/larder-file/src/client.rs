//! The file system: everything that opens, writes, renames or removes a file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind as Io, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_core::{Error, ErrorKind};
use rustix::fs::OFlags;

use crate::naming::{self, Place, Shelf};
use crate::{NAME, config};

/// The directory under which everything of ours lies.
#[derive(Clone)]
pub(crate) struct Directory {
    root: PathBuf,
    // The paths that every operation needs.
    generations: PathBuf,
    shelves: Arc<[PathBuf]>,
    fsync: bool,
}

/// A small file that was read, and stays open.
pub(crate) struct Small {
    pub(crate) text: String,
    // Nobody else gets its inode as long as it is open.
    _file: File,
    which: Which,
}

impl Small {
    /// Whether it is what lies there, and as it was.
    pub(crate) fn lies_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|there| Which::of(&there) == self.which)
    }
}

#[derive(PartialEq, Eq)]
struct Which {
    inode: (u64, u64),
    changed: (i64, i64),
}

impl Which {
    fn of(file: &fs::Metadata) -> Self {
        Which { inode: (file.dev(), file.ino()), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

/// What lies on a shelf under a name of ours.
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) used: SystemTime,
    pub(crate) charge: u64,
}

impl Directory {
    /// Makes the directory where it is missing, and makes sure that it is ours and can be written to. Looks at no
    /// entry, however many there are.
    pub(crate) fn open(parent: &Path, fsync: bool) -> larder_core::Result<Self> {
        let wrong = |source: io::Error| {
            let words = match source.kind() {
                Io::NotADirectory | Io::AlreadyExists => {
                    "the path leads to a file, or through one; give the path of a directory"
                }
                Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                    "the directory cannot be written to; give its owner the right to, or another path"
                }
                Io::StorageFull | Io::QuotaExceeded => {
                    "there is no room on the disk of the directory; make room or give another path"
                }
                _ => "the directory cannot be used; give a path where files may be made",
            };
            config::wrong(words).with_source(source)
        };
        make_parents(parent).map_err(wrong)?;
        let root = parent.join(ROOT);
        let directory = Directory {
            generations: root.join(GENERATIONS),
            shelves: Shelf::all().map(|shelf| root.join(shelf.directory())).collect(),
            root,
            fsync,
        };
        directory.make(&directory.root).map_err(wrong)?;
        let root = fs::symlink_metadata(&directory.root).map_err(wrong)?;
        if !root.is_dir() {
            return Err(config::wrong(
                "something else than a directory is called larder-v1 under this path; remove it or give another path",
            ));
        }
        if root.uid() != rustix::process::geteuid().as_raw() {
            return Err(config::wrong(
                "what Larder keeps under this path belongs to another user; give each user a path",
            ));
        }
        if root.mode() & 0o7777 != 0o700 {
            fs::set_permissions(&directory.root, Permissions::from_mode(0o700)).map_err(wrong)?;
        }
        directory.make(&directory.root.join(LOCKS)).map_err(wrong)?;
        directory.make(directory.generations()).map_err(wrong)?;
        directory.open_or_create(&directory.lock_path("totals")).map_err(wrong)?;
        // Whether files can be made. A full disk is an outage, and what is there can still be read.
        let probe = naming::temporary();
        match directory.replace(directory.generations(), &probe, b"larder") {
            Err(error) if matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded) => {}
            written => written.map_err(wrong)?,
        }
        directory.remove_path(&directory.generations().join(&probe)).map_err(wrong)?;
        Ok(directory)
    }

    pub(crate) fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join(LOCKS).join(name)
    }

    pub(crate) fn generation_path(&self, namespace: &str) -> PathBuf {
        below(&self.generations, namespace)
    }

    pub(crate) fn generations(&self) -> &Path {
        &self.generations
    }

    pub(crate) fn shelf_path(&self, shelf: Shelf) -> &Path {
        &self.shelves[shelf.index()]
    }

    pub(crate) fn path(&self, place: &Place) -> PathBuf {
        below(self.shelf_path(place.shelf), &place.file)
    }

    /// The whole of a record, `None` where there is none: nothing, something that is no file, or more than `limit`.
    pub(crate) fn read(&self, place: &Place, limit: u64) -> io::Result<Option<Bytes>> {
        let Some((file, metadata)) = open(&self.path(place), false)? else { return Ok(None) };
        if metadata.len() > limit {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        (&file).take(metadata.len()).read_to_end(&mut bytes)?;
        // When it was used last is what eviction goes by. Writing it down at every read would be a write for a read.
        let now = SystemTime::now();
        if metadata.modified().is_ok_and(|used| apart(now, used) > USED_STEP) {
            let _ = file.set_modified(now);
        }
        Ok(Some(bytes.into()))
    }

    /// The first bytes of a record.
    pub(crate) fn read_start(
        &self,
        shelf: Shelf,
        name: &str,
        most: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        let Some((file, _)) = open(&self.shelf_path(shelf).join(name), false)? else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(most);
        (&file).take(most as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// A small file of text.
    pub(crate) fn read_small(&self, path: &Path) -> io::Result<Option<Small>> {
        let Some((file, metadata)) = open(path, false)? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(64);
        (&file).take(64).read_to_end(&mut bytes)?;
        let which = Which::of(&metadata);
        Ok(String::from_utf8(bytes).ok().map(|text| Small { text, _file: file, which }))
    }

    /// Writes a whole record beside where it belongs and renames it: whoever reads sees the old or the new one.
    pub(crate) fn write(&self, place: &Place, bytes: &[u8]) -> io::Result<()> {
        self.replace(self.shelf_path(place.shelf), &place.file, bytes)
    }

    /// The same for a file that is no record.
    pub(crate) fn replace(&self, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = below(directory, &naming::temporary());
        let mut file = match self.create(&temporary) {
            Err(error) if is_unmade(&error) => {
                self.make_all(directory)?;
                self.create(&temporary)?
            }
            created => created?,
        };
        let target = below(directory, name);
        let written = file
            .write_all(bytes)
            .and_then(|()| if self.fsync { file.sync_data() } else { Ok(()) })
            .and_then(|()| match fs::rename(&temporary, &target) {
                // An empty directory has no place there either; one with something in it is not ours to empty.
                Err(error) if error.kind() == Io::IsADirectory => {
                    fs::remove_dir(&target).and_then(|()| fs::rename(&temporary, &target))
                }
                renamed => renamed,
            });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.sync(directory)
    }

    /// Writes over some bytes of a record in place.
    pub(crate) fn write_at(&self, place: &Place, bytes: &[u8], at: u64) -> io::Result<bool> {
        let Some((file, _)) = open(&self.path(place), true)? else { return Ok(false) };
        file.write_all_at(bytes, at)?;
        if self.fsync {
            file.sync_data()?;
        }
        Ok(true)
    }

    /// Removes what lies there; what it was charged with. Something that is no file goes too, unless it is a directory
    /// with something in it.
    pub(crate) fn remove(&self, place: &Place) -> io::Result<Option<u64>> {
        self.remove_named(place.shelf, &place.file)
    }

    pub(crate) fn remove_named(&self, shelf: Shelf, name: &str) -> io::Result<Option<u64>> {
        let removed = self.discard(shelf, name)?;
        if removed.is_some() {
            self.sync(self.shelf_path(shelf))?;
        }
        Ok(removed)
    }

    /// The same for what nobody can read any more: that it is gone need not survive a failure of the power.
    pub(crate) fn discard(&self, shelf: Shelf, name: &str) -> io::Result<Option<u64>> {
        let path = below(self.shelf_path(shelf), name);
        let Some(metadata) = missing(fs::symlink_metadata(&path))? else { return Ok(None) };
        if metadata.is_dir() {
            let _ = fs::remove_dir(&path);
            return Ok(None);
        }
        let Some(()) = missing(fs::remove_file(&path))? else { return Ok(None) };
        Ok(metadata.is_file().then(|| charge(metadata.len())))
    }

    /// What the file that lies there is charged with.
    pub(crate) fn charged(&self, place: &Place) -> io::Result<Option<u64>> {
        let metadata = missing(fs::symlink_metadata(self.path(place)))?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|metadata| charge(metadata.len())))
    }

    /// When the file of that name was used last.
    pub(crate) fn used(&self, shelf: Shelf, name: &str) -> io::Result<Option<SystemTime>> {
        let metadata = missing(fs::symlink_metadata(self.shelf_path(shelf).join(name)))?;
        metadata.map(|metadata| metadata.modified()).transpose()
    }

    /// Everything of ours on a shelf. Foreign names, and what is no file, are passed over.
    pub(crate) fn list(&self, shelf: Shelf) -> io::Result<Vec<Item>> {
        self.list_in(self.shelf_path(shelf))
    }

    pub(crate) fn list_in(&self, directory: &Path) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        let Some(entries) = missing(fs::read_dir(directory))? else { return Ok(items) };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if naming::read(&name) == naming::Named::Foreign {
                continue;
            }
            let Some(metadata) = missing(entry.metadata())? else { continue };
            if !metadata.is_file() {
                continue;
            }
            let used = metadata.modified()?;
            items.push(Item { name, used, charge: charge(metadata.len()) });
        }
        Ok(items)
    }

    /// The names on a shelf that begin in a certain way.
    pub(crate) fn names(&self, shelf: Shelf, start: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let Some(entries) = missing(fs::read_dir(self.shelf_path(shelf)))? else {
            return Ok(names);
        };
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let ours = name.starts_with(start) && naming::read(&name) != naming::Named::Foreign;
            if ours {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes a file that is no record.
    pub(crate) fn remove_path(&self, path: &Path) -> io::Result<()> {
        missing(fs::remove_file(path)).map(drop)
    }

    /// Opens a file that stays, making it where it is missing.
    pub(crate) fn open_or_create(&self, path: &Path) -> io::Result<File> {
        let opened = || -> io::Result<File> {
            let file = options().read(true).write(true).create(true).open(path)?;
            if file.metadata()?.mode() & 0o7777 != 0o600 {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            Ok(file)
        };
        match opened() {
            Err(error) if is_unmade(&error) => {
                self.make_all(path.parent().unwrap_or(&self.root))?;
                if error.kind() == Io::PermissionDenied {
                    missing(fs::set_permissions(path, Permissions::from_mode(0o600)))?;
                }
                opened()
            }
            opened => opened,
        }
    }

    // The mode is given at creation, from which the umask can only take away; what it took is then given back. So it
    // does not matter what the umask is or who changes it meanwhile.
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = options().write(true).create_new(true).open(path)?;
        match file.set_permissions(Permissions::from_mode(0o600)) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn make_all(&self, directory: &Path) -> io::Result<()> {
        // Two levels below the root at most.
        let mut missing = vec![directory];
        while let Some(parent) = missing.last().and_then(|directory| directory.parent())
            && parent.starts_with(&self.root)
        {
            missing.push(parent);
        }
        missing.iter().rev().try_for_each(|directory| self.make(directory))
    }

    fn make(&self, directory: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {
                fs::set_permissions(directory, Permissions::from_mode(0o700))?;
                directory.parent().map_or(Ok(()), |parent| self.sync(parent))
            }
            // Whoever has just made it may not have come to give back what the umask took.
            Err(error) if error.kind() == Io::AlreadyExists => {
                match fs::symlink_metadata(directory) {
                    Ok(there) if there.is_dir() && there.mode() & 0o700 != 0o700 => {
                        fs::set_permissions(directory, Permissions::from_mode(0o700))
                    }
                    _ => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        if self.fsync { File::open(directory)?.sync_all() } else { Ok(()) }
    }
}

/// What a file of that length is charged with: whole blocks, as file systems give them.
pub(crate) fn charge(length: u64) -> u64 {
    length.max(1).div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// An error of the file system as one of ours. Its text holds no path.
pub(crate) fn failed(error: io::Error) -> Error {
    let words = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => "there is no room on the directory's disk",
        Io::PermissionDenied => "the directory's files may not be used by this process",
        Io::ReadOnlyFilesystem => "the directory's file system cannot be written to",
        _ => "the directory's file system failed",
    };
    Error::new(ErrorKind::Unavailable, words).with_backend(NAME).with_source(error)
}

/// How far two times are apart.
pub(crate) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

/// How far it lies back; zero for what comes.
pub(crate) fn age(of: SystemTime) -> Duration {
    SystemTime::now().duration_since(of).unwrap_or_default()
}

// `join`, which takes memory twice.
fn below(directory: &Path, name: &str) -> PathBuf {
    let mut path = PathBuf::with_capacity(directory.as_os_str().len() + 1 + name.len());
    path.push(directory);
    path.push(name);
    path
}

// Opens a file of ours, whatever lies there instead: a link is not followed, a pipe is not waited for.
fn open(path: &Path, write: bool) -> io::Result<Option<(File, fs::Metadata)>> {
    let file = match options().read(true).write(write).open(path) {
        Ok(file) => file,
        Err(error) => {
            return match error.kind() {
                Io::NotFound | Io::NotADirectory | Io::IsADirectory => Ok(None),
                // What cannot be opened is nobody's outage, unless it is a file of ours that could be.
                kind => match fs::symlink_metadata(path) {
                    Ok(there) if !there.is_file() || kind == Io::PermissionDenied => Ok(None),
                    _ => Err(error),
                },
            };
        }
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

// Missing, or being made by somebody else at this moment.
fn is_unmade(error: &io::Error) -> bool {
    matches!(error.kind(), Io::NotFound | Io::PermissionDenied)
}

fn missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Io::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

// What is missing of the path that was configured is made for its owner alone, too.
fn make_parents(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_parents(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700)),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

const ROOT: &str = "larder-v1";

const LOCKS: &str = "locks";

const GENERATIONS: &str = "generations";

const BLOCK: u64 = 4096;

// How exactly it is known when a file was used last.
const USED_STEP: Duration = Duration::from_secs(60);
