//! The Redis and Valkey backend.
//!
//! Everything that Larder keeps lies on one server, under names of its own, and every node sees what the others write.
//! One multiplexed connection carries it all; it is replaced by itself when it is lost, and no operation waits longer
//! than its time limit, whatever the server or the network does.
//!
//! # Defaults
//!
//! `127.0.0.1:6379`, 300 s for entries without a lifetime of their own, 1 s to connect, 250 ms for an operation.
//!
//! ```no_run
//! use larder_core::{Backend, Encoded, Entry, Key, Namespace, Ttl, When};
//! use larder_redis::RedisBackend;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_core::Result<()> {
//! let redis = RedisBackend::connect("redis://127.0.0.1:6379/0").await?;
//! let key = Key::new(&Namespace::new("shop")?, ["greeting"])?;
//! let hello = Entry::wire(Encoded { body: "hello".into(), ..Encoded::default() });
//! let _ = redis.put(&key, hello, Ttl::Default, When::Always).await?;
//! assert!(redis.get(&key, &[]).await?.entry.is_some());
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
//! use larder_redis::RedisBackend;
//! use std::time::Duration;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # let _guard = runtime.enter();
//! let redis = RedisBackend::builder()
//!     .url("redis://app@cache.internal:6380/2?response_timeout=100ms")?
//!     .credentials(Some("app"), "from a file")
//!     .default_ttl(Ttl::For(Duration::from_secs(60)))
//!     .connect_later()?;
//! # Ok::<(), larder_core::Error>(())
//! ```
//!
//! # What it costs
//!
//! Every operation is one round trip, a batch too (in parts of 1,000 keys or 8 MiB). Reading, storing without a
//! condition and removing are one plain command each (`GET`, `SET`, `GETDEL`); counters that come with a read make it
//! an `MGET`. What has a condition is a short script, called by its hash. Removing brings the value back once: it is
//! the only single command that tells an entry from a fill marker; [`remove_many`] does not.
//!
//! A namespace's generation is part of every name. A node asks for it once a second, along with whatever it does then;
//! so another node's `clear` is seen a second later at most ([`Builder::generation_max_age`]), and by the node that
//! clears at once. What a cleared namespace held is removed in the background, a page at a time.
//!
//! # When the server fails
//!
//! | what happens | what callers see |
//! | --- | --- |
//! | the connection is lost | reads, removals and the like are sent again over a new one, within the same limit |
//! | a reply does not come in time | [`Timeout`], and the connection is replaced: no late reply is ever read |
//! | the reply to a conditional write is lost | it is looked up, for as long again: the outcome, or [`Ambiguous`] |
//! | the server cannot be reached | [`Unavailable`] at once; one attempt after another in the background, with pauses of up to a second |
//! | it has become a replica, is loading, has left its cluster | the same: its data may be behind, so it is not read either |
//! | it is out of memory and may not evict | [`Unavailable`], and what should have been replaced is gone |
//!
//! # What a user may do
//!
//! An ACL for one namespace, as `ACL SETUSER` takes it:
//!
//! ```text
//! ~shop:* -@all +get +set +mget +getdel +getrange +unlink +scan +evalsha +eval +script|load +time +role +client|setinfo
//! +select +setrange +incrby +incr +pexpire +persist +pttl
//! ```
//!
//! # What it does not do
//!
//! * Redis 7 or later is needed, or Valkey. Redis Cluster and Sentinel are not spoken.
//! * What is acknowledged may be lost when a primary fails over before its replica has it. That is Redis' promise, and
//!   Larder adds none: values, invalidations and cleared namespaces alike.
//! * A plain counter is its decimal text. So it has no revision and no times ([`remaining`] tells its end), and paging
//!   does not report it, because its key stands nowhere.
//! * The servers' times are compared across a failover only as well as their clocks agree.
//!
//! # Cancel safety
//!
//! Every future may be dropped at any time. A command that was written is carried out once or not at all; its reply is
//! read and thrown away.
//!
//! [`remove_many`]: larder_core::Backend::remove_many
//! [`remaining`]: larder_core::Backend::remaining
//! [`Timeout`]: larder_core::ErrorKind::Timeout
//! [`Ambiguous`]: larder_core::ErrorKind::Ambiguous
//! [`Unavailable`]: larder_core::ErrorKind::Unavailable

mod bus;
mod client;
mod config;
mod dial;
mod generation;
mod layout;
mod link;
mod log;
mod naming;
mod node;
mod outage;
mod paging;
mod reply;
mod request;
mod scripts;
mod store;
mod sweep;
mod task;
mod time;
mod tls;
mod topology;
mod writing;

pub use bus::RedisBus;
pub use config::Builder;
pub use store::RedisBackend;

const NAME: &str = "redis";
