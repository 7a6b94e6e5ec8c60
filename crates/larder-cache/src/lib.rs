//! The cache engine of Larder: typed values over any backend.
//!
//! [`Cache`] is what users hold: `get`, `set`, `get_or_compute`, tags. [`Store`] is what layers and sessions stand on:
//! entries, strictly. Both are cheap clones without a type parameter; the backend is chosen where the cache is made.
//!
//! * One computation for a key, however many callers, whoever is cancelled or panics ([`Cache::get_or_compute`]).
//! * Values that were invalidated while they were made are never readable afterwards, on this node or another.
//! * What is read while a value is computed hands its tags up: what drops the one drops the other ([`untracked`]
//!   reads do not).
//! * Tags are ordered by numbers that the store issues, never by clocks.
//! * A store that is down costs milliseconds, and no value ([`Cache#when-the-store-fails`]).
//! * A memory hit decodes and copies nothing: all readers share one value.
//!
//! # Example
//!
//! ```
//! use larder_cache::{Cache, Options};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::connect("memory://?max_bytes=8MiB&namespace=shop").await?;
//! cache.set_with("price", 1999_i64, Options::ttl(Duration::from_secs(60))).await?;
//! assert_eq!(cache.incr("price", 1).await?, Some(2000));
//! # Ok::<(), larder_core::Error>(()) }).unwrap();
//! ```
//!
//! The [`recipes`] show the classic patterns. `Tiered` puts memory before another store.

mod barred;
mod batch;
mod breaker;
mod builder;
mod cache;
mod caches;
mod codec;
mod compute;
mod computed;
mod computing;
mod connect;
mod counters;
mod erased;
mod failover;
mod failure;
mod fill;
mod flight;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod following;
mod fragment;
mod here;
mod invalidating;
mod key;
mod lock;
mod many;
mod migrating;
mod nested;
mod null;
mod options;
mod owned;
#[cfg(any(feature = "zstd", feature = "lz4", feature = "encryption"))]
mod packed;
mod passes;
mod reach;
pub mod recipes;
mod sharing;
mod signals;
mod store;
#[cfg(feature = "memory")]
mod tiered;
mod value;
mod versions;
mod write_through;

pub use builder::Builder;
pub use cache::{Cache, Found};
pub use caches::{Advice, CacheSettings, Caches, CachesSettings, Risk};
pub use codec::Codec;
pub use computed::Computed;
pub use failover::{Failover, FailoverBuilder};
pub use failure::Failure;
pub use flight::{Closed, Heard, Joined, Landed, Passenger, Pilot};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use following::Following;
pub use fragment::{Fragment, Rendering};
pub use invalidating::KeyPage;
pub use key::{CacheKey, KeyName};
pub use lock::Lock;
pub use migrating::{Migrating, Progress};
pub use nested::{collect, untracked};
pub use null::{NullBackend, NullBuilder};
pub use options::Options;
#[cfg(any(feature = "zstd", feature = "lz4"))]
pub use packed::Compression;
#[cfg(feature = "encryption")]
pub use packed::Keys;
#[cfg(any(feature = "zstd", feature = "lz4", feature = "encryption"))]
pub use packed::{Packed, Packing};
pub use passes::Passes;
pub use signals::Subscription;
pub use store::{Lookup, Store};
#[cfg(feature = "memory")]
pub use tiered::{Tiered, TieredBuilder};
pub use value::Value;
pub use write_through::{WriteThrough, WriteThroughBuilder};
