//! The backend that keeps its entries in a directory: one file for each, shared by all processes of one host.
//!
//! What one process writes, the others see at once: every operation is one step under a lock that they share, reading
//! takes none, and nothing that another process may change is believed without a look at it. The directory outlives
//! them all.
//!
//! # Defaults
//!
//! 1 GiB and 100,000 files, 64 MiB for one entry, 300 s for entries without a lifetime of their own, no `fsync`.
//!
//! ```
//! use larder_core::{Backend, Encoded, Entry, Key, Namespace, Ttl, When};
//! use larder_file::FileBackend;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! let files = FileBackend::builder().path(path).build()?;
//! let key = Key::new(&Namespace::new("shop")?, ["greeting"])?;
//! let hello = Entry::wire(Encoded { body: "hello".into(), ..Encoded::default() });
//! let _ = files.put(&key, hello, Ttl::Default, When::Always).await?;
//!
//! // Another handle, in this process or another one.
//! let again = FileBackend::builder().path(path).build()?;
//! assert!(again.get(&key, &[]).await?.entry.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! # Configured
//!
//! In the URL, with the builder, or both; [`Builder::url`] tells what a URL can say.
//!
//! ```
//! use larder_core::Ttl;
//! use larder_file::FileBackend;
//!
//! let builder = FileBackend::builder()
//!     .url("file:///var/cache/app?max_bytes=256MiB&namespace=shop")?
//!     .max_files(20_000)
//!     .default_ttl(Ttl::Forever);
//! assert_eq!(builder.namespace().map(|namespace| namespace.as_str()), Some("shop"));
//! # Ok::<(), larder_core::Error>(())
//! ```
//!
//! # What lies in the directory
//!
//! | below `larder-v1/` | what |
//! | --- | --- |
//! | `entries/00` to `entries/ff` | a file for each entry, counter and marker, by the hash of its key |
//! | `marks/0` to `marks/f` | sequences and tags, by their namespace |
//! | `generations/` | for each namespace, which life it is in: what `clear` changes |
//! | `locks/` | empty files that are locked, and `totals`, which tells how much lies where |
//!
//! Files have mode 0600 and directories 0700, whatever the umask is and whoever changes it meanwhile. A key is never a
//! path: names are at most 200 characters of `a-z`, `0-9`, `_`, `.` and `-`. A file is written beside its place and
//! renamed, and its checksums (of the body too) are verified by every read: what is damaged, foreign, a link, a pipe or
//! too large is a miss. Files of other names are never read, changed or removed, nor is anything outside `larder-v1`.
//!
//! # Bounds
//!
//! [`max_bytes`](Builder::max_bytes) and [`max_files`](Builder::max_files) hold at every moment and for all processes
//! together. Every file below `entries` and `marks` counts, with its length rounded up to 4 KiB: values, counters,
//! markers, tags, what has expired and was not freed yet, what a killed process left half-written. A file is counted
//! before it is written, so a new value and the one that it replaces count both for a moment. Beside that there are at
//! most 276 directories, 82 small files of locks, and a small file for each namespace.
//!
//! Who writes into a full directory makes room first. It looks at one shelf, or at as many as it takes to see 64 files,
//! and removes what cleared namespaces left there and then the eighth that was used least recently. When a file was
//! used is its modification time, which a read sets at most once a minute. Tags make way only when there are no
//! entries, sequences never; without its tag's record an entry is a miss, never stale. An entry may make way for its
//! own replacement. When nothing can go, writing fails with [`Unavailable`], and what should have been replaced is gone.
//!
//! Each process should set the same bounds: each makes room by its own.
//!
//! In the background, one shelf each second (and all of them at once after a [`clear`]), every process frees what has
//! expired, what cleared namespaces left, files that were begun more than an hour ago, and tags that nobody asked for
//! in 30 days. Opening looks at no entry.
//!
//! # What it costs
//!
//! A read looks whether the namespace's generation is still the file that was read last, and opens the record: five
//! system calls, as many as reading any file takes. A write takes a lock (one of 64 for
//! entries, one of 16 for marks), writes one file and renames it; a touch writes 40 bytes in place. Paging lists the 256
//! directories of entries, a few for each page. A handle keeps at most 98 files open, and has a thread for sweeping.
//! The first write into a directory whose `totals` are missing counts what is there.
//!
//! # When something fails
//!
//! | what happens | what callers see |
//! | --- | --- |
//! | a process is killed while it writes | nothing: the old value or the new one is there, and its locks are free |
//! | a process is stopped while it holds a lock | [`Timeout`] after 5 s, for the keys of that lock |
//! | the disk is full | [`Unavailable`], and what should have been replaced is gone; removing and clearing work, and an invalidation that cannot be recorded makes everything with a tag a miss |
//! | the power fails | without [`fsync`](Builder::fsync), the last seconds may be undone: values, removals, invalidations and clears alike |
//! | the directory is removed | it is empty, and made again |
//!
//! # What it does not do
//!
//! * It needs Unix, and a local file system: on NFS, locks and renames do not keep what is promised here. Lifetimes go
//!   by the host's wall clock; who sets it back prolongs them.
//! * It works inside a Tokio runtime, on its threads for blocking work: 16 of them at most for each backend.
//! * A process that forks without starting another program opens the directory anew: the locks would be shared.
//! * It does not page what lies under the keys of sequences and tags.
//! * A user's files are that user's alone: two users cannot share a directory.
//!
//! # Cancel safety
//!
//! Every future may be dropped at any time. An operation that has begun comes to its end, and one that has not never
//! begins.
//!
//! [`clear`]: larder_core::Backend::clear
//! [`Timeout`]: larder_core::ErrorKind::Timeout
//! [`Unavailable`]: larder_core::ErrorKind::Unavailable

mod client;
mod config;
mod generation;
mod locks;
mod log;
mod marks;
mod naming;
mod paging;
mod room;
mod store;
mod sweep;
mod time;
mod totals;

pub use config::Builder;
pub use store::FileBackend;

/// What a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Files: entries, counters, markers, tags.
    pub files: u64,
    /// Bytes that they occupy, in blocks of 4 KiB.
    pub bytes: u64,
}

const NAME: &str = "file";
