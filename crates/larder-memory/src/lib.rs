//! The in-memory backend: one process, bounded in bytes, hits without decoding or copying.
//!
//! Entries are kept in the form in which readers use them ([`Live`](larder_core::Live)); the map is [quick_cache],
//! which evicts by frequency and recency (a variant of S3-FIFO). A hit is one look-up under a shard's read lock, one
//! reference count and one atomic load for each tag; it allocates nothing and decodes nothing.
//!
//! Nothing that has expired is ever read. Its memory is freed when the room is needed, or at the latest when as many
//! entries were put as there are.
//!
//! # Defaults
//!
//! 64 MiB in all, 4 MiB for one entry, 300 s for entries without a lifetime of their own.
//!
//! ```
//! use larder_core::{Backend, Encoded, Entry, Key, Namespace, Ttl, When};
//! use larder_memory::MemoryBackend;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let memory = MemoryBackend::default();
//! let key = Key::new(&Namespace::new("shop")?, ["greeting"])?;
//! let hello = Entry::wire(Encoded { body: "hello".into(), ..Encoded::default() });
//! let _ = memory.put(&key, hello, Ttl::Default, When::Always).await?;
//! assert!(memory.get(&key, &[]).await?.entry.is_some());
//! # Ok::<(), larder_core::Error>(()) }).unwrap();
//! ```
//!
//! # Configured
//!
//! ```
//! use larder_core::Ttl;
//! use larder_memory::MemoryBackend;
//! use std::time::Duration;
//!
//! let memory = MemoryBackend::builder()
//!     .max_bytes(16 * 1024 * 1024)
//!     .max_entry_bytes(1024 * 1024)
//!     .default_ttl(Ttl::For(Duration::from_secs(60)))
//!     .build()?;
//! assert_eq!(memory.usage().entries, 0);
//! # Ok::<(), larder_core::Error>(())
//! ```
//!
//! # What it does not do
//!
//! Other processes do not see it, and a restart empties it. Under pressure a new entry may soon make room for one that
//! is used more often.
//!
//! [quick_cache]: https://docs.rs/quick_cache

mod client;
mod config;
mod store;
mod sweep;
mod tags;

pub use client::Usage;
pub use config::Builder;
pub use store::MemoryBackend;
