//! Layered caching for Rust services.
//!
//! One dependency, one line for a cache, one more for each thing it does:
//!
//! ```
//! use axum::{Router, routing::get};
//! use larder::http::{CacheControlLayer, CacheLayer};
//! use larder::{Cache, Options};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::connect("memory://?max_bytes=64MiB").await?;
//!
//! // responses
//! let app: Router = Router::new()
//!     .route("/hello", get(|| async { "hello" }))
//!     .layer(CacheControlLayer::public().max_age(Duration::from_secs(60)))
//!     .layer(CacheLayer::new(&cache).ttl(Duration::from_secs(300)).tag("greetings"));
//! # let _ = app;
//!
//! // data: one computation however many callers, hits share the value without decoding it
//! let options = Options::ttl(Duration::from_secs(300)).tag("greetings");
//! let names = cache
//!     .get_or_compute("names", options, || async { Ok::<_, std::io::Error>(vec!["Ada".to_owned()]) })
//!     .await?;
//! assert_eq!(names.len(), 1);
//!
//! // one call drops every value and every response that carries the tag
//! cache.invalidate_tag("greetings").await?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! * [`Cache`] is the data cache; [`Cache::connect`] lists the stores that a URL can name.
//! * [`http`] has the layers for responses.
//! * `grpc` (with the feature of that name) has the layer for Tonic.
//! * `session` (with the feature of that name) has `SessionLayer`.
//! * [`core`] has the contract that a store of your own would implement.
//!
//! Tests of what you build drive the clock, let the store fail and count computations with `larder-testkit`: see the last of
//! the [`recipes`].
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `http` | yes | response caching |
//! | `memory` | yes | the in-memory backend |
//! | `redis` | no | Redis and Valkey |
//! | `memcached` | no | Memcached, one server or a ring of them |
//! | `session` | no | sessions |
//! | `grpc` | no | cached gRPC calls, for Tonic |
//! | `grpc-descriptor` | no | which gRPC methods are cached, from a descriptor set |
//! | `axum` | no | keys by the client's URL inside nested routers; sessions as extractors |
//! | `askama`, `minijinja` | no | fragments in templates as they are |
//! | `file` | no | a directory as the store |
//! | `sqlite` | no | a SQLite file as the store; caches that follow what is changed in one |
//! | `postgres` | no | a table on a PostgreSQL server as the store; caches that follow what is changed in one |
//! | `json`, `postcard` | no | values as JSON or postcard, where asked for |
//! | `toml` | no | named caches from a TOML file |
//! | `zstd`, `lz4` | no | values compressed, where asked for |
//! | `encryption` | no | values signed or encrypted, where asked for |
//!
pub use larder_cache::{
    Advice, Builder, Cache, CacheKey, CacheSettings, Caches, CachesSettings, Codec, Computed,
    Failure, Found, Fragment, KeyName, KeyPage, Lock, Lookup, Migrating, NullBackend, Options,
    Rendering, Risk, Store, Subscription, Value, collect, recipes, untracked,
};
pub use larder_core as core;
pub use larder_core::{Error, ErrorKind, Remaining, Result, Ttl};

#[cfg(any(feature = "zstd", feature = "lz4"))]
pub use larder_cache::Compression;
#[cfg(feature = "encryption")]
pub use larder_cache::Keys;
#[cfg(any(feature = "zstd", feature = "lz4", feature = "encryption"))]
pub use larder_cache::{Packed, Packing};

#[cfg(feature = "http")]
pub use larder_http as http;

#[cfg(feature = "grpc")]
pub use larder_grpc as grpc;

#[cfg(feature = "session")]
pub use larder_session as session;

#[cfg(feature = "file")]
pub use larder_file::FileBackend;

#[cfg(feature = "memcached")]
pub use larder_memcached::MemcachedBackend;

#[cfg(feature = "memory")]
pub use larder_cache::{Tiered, TieredBuilder};
#[cfg(feature = "memory")]
pub use larder_memory::MemoryBackend;

#[cfg(feature = "redis")]
pub use larder_redis::{RedisBackend, RedisBus};

#[cfg(feature = "sqlite")]
pub use larder_sql::{SqliteBackend, SqliteOutbox};

#[cfg(feature = "postgres")]
pub use larder_sql::{PostgresBackend, PostgresBus, PostgresOutbox};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use larder_cache::Following;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use larder_sql::{Watch, outbox};

/// The README, so that its programs are compiled and run with the tests.
#[cfg(all(
    doctest,
    feature = "http",
    feature = "memory",
    feature = "session",
    feature = "axum",
    feature = "grpc"
))]
#[doc = include_str!("../../../README.md")]
pub mod readme {}
