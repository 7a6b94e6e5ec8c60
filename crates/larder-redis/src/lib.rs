//! The Redis and Valkey backend.
//!
//! Everything that Larder keeps lies there under names of its own, and every node sees what the others write. One
//! multiplexed connection to each server carries it all; it is replaced by itself when it is lost, and no operation waits
//! longer than its time limit, whatever the servers or the network do.
//!
//! # One server, or several
//!
//! | URL | what it is | when the primary dies |
//! | --- | --- | --- |
//! | `redis://host:6379/0` | one server, or an address that always leads to the primary | operations fail until it is back, or the address leads elsewhere |
//! | `redis+unix:///path/to/socket` | one server on this machine | the same |
//! | `redis+sentinel://h1,h2,h3/mymaster/0` | a primary that sentinels watch | the one that they choose is found by itself, within some two seconds of its promotion |
//! | `redis+cluster://h1,h2,h3` | a cluster: each server has a part of the keys | its part fails until its replica takes over, which is noticed within half a second; the others go on |
//!
//! `rediss` speaks TLS in all of them but the socket. `valkey` means the same as `redis`: the tests are the same for both.
//! What differs in a cluster stands [below](#in-a-cluster), and what reading replicas means [there](#reading-replicas).
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
//! | a slot of a cluster is somewhere else | what was not carried out is sent there, within the same limit |
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
//! A cluster needs `+cluster|slots +asking` besides, reading replicas `+info`, and their users in a cluster `+readonly`.
//!
//! # In a cluster
//!
//! * Entries are spread evenly over all slots. The sequence and the tags of a namespace lie in one slot, since they are
//!   changed together by one script; many namespaces spread them. Each script touches one slot only.
//! * A batch is one round trip to each node that has a part of it, all of them at the same time. Entry and tags are read
//!   together, but from two nodes; that is as good, since who was invalidated before the question is invalid in any order.
//! * A namespace has 256 generations instead of one, each for 64 slots beside each other and kept in one of these. So a node
//!   that is down takes no other's entries along, and `clear` is a command for each: on nodes that cannot be reached it
//!   fails, and has cleared the rest.
//! * A node that is down costs its share of the hits in `get_many`; `put_many` answers for each; `remove_many` and paging
//!   fail. While the node with a namespace's tags is down, nothing tagged is valid there, and nothing can be invalidated.
//! * While a slot moves, what lies there is read and written as usual. The tags' own slot is the exception: what needs
//!   several of its names waits until all of them have moved, or for its time limit.
//! * A cluster keeps what was stored on one server no better than another server would: names differ, so all of it is absent
//!   at first.
//! * The nodes must be reachable at the addresses by which they know each other (`cluster-announce-ip`). There is one
//!   database, 0.
//! * A paging goes from node to node. What moves from one to another meanwhile may be left out.
//!
//! # Reading replicas
//!
//! With `read=replica` ([`Builder::read_replicas`]), entries are read from a replica as long as it is known to be behind by
//! no more than `replica_lag` (1 s): the primary is asked how far its changes go, and a replica that says afterwards that it
//! has come as far may be read for that long from the question on. So for at most that long a value may be read after it
//! was replaced or removed, and a value that was just stored may be missed. What says whether a value is valid is never
//! behind: tags, sequences and generations are read from the primary, so an invalidated tag or a cleared namespace is seen
//! as without replicas. All that is conditional, counts or fills goes to the primary.
//!
//! [`Abilities::read_delay`](larder_core::Abilities::read_delay) tells of it. Sessions refuse such a store,
//! and so do `tiered:`, `migrating:` for the old store and `writethrough:` for the durable one.
//! Its reads do not keep all that the public suite checks, since a node may not see its own write; without replicas the
//! whole suite holds in every topology.
//!
//! # What it does not do
//!
//! * Redis 7 or later is needed, or Valkey.
//! * What is acknowledged may be lost when another primary takes over before it has it. That is Redis' promise, and Larder
//!   adds none: values, invalidations, signed-out sessions and cleared namespaces alike. A primary that is cut off from its
//!   sentinels or its cluster may acknowledge for some seconds what is lost afterwards (`min-replicas-to-write` shortens
//!   that). What must never be lost belongs on PostgreSQL, with this before it if need be (`writethrough:`).
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
mod escape;
mod generation;
mod layout;
mod link;
mod log;
mod naming;
mod node;
mod outage;
mod paging;
mod parts;
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
/// The client that [`RedisBackend::connection`] speaks with.
pub use redis;
pub use store::RedisBackend;

const NAME: &str = "redis";
