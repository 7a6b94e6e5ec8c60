//! The Memcached backend: one server, or a ring of them.
//!
//! Everything that Larder keeps lies there under names of its own, and every node sees what the others write. One
//! connection to each server carries all requests at the same time; it is replaced by itself when it is lost, and no
//! operation waits longer than its time limit, whatever the server or the network does.
//!
//! # Defaults
//!
//! `127.0.0.1:11211`, 300 s for entries without a lifetime of their own, 1 s to connect, 250 ms for an operation, one
//! connection to each server.
//!
//! ```
//! use larder_core::{Backend, Encoded, Entry, Key, Namespace, Ttl, When};
//! use larder_memcached::MemcachedBackend;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_core::Result<()> {
//! # let server = larder_testkit::servers::MemcachedServer::start().await;
//! # let url = format!("{}?response_timeout=60s", server.url());
//! # let url = &url;
//! # if false {
//! let url = "memcached://cache1:11211,cache2:11211";
//! # }
//! let memcached = MemcachedBackend::connect(url).await?;
//! let key = Key::new(&Namespace::new("shop")?, ["greeting"])?;
//! let hello = Entry::wire(Encoded { body: "hello".into(), ..Encoded::default() });
//! let _ = memcached.put(&key, hello, Ttl::Default, When::Always).await?;
//! assert!(memcached.get(&key, &[]).await?.entry.is_some());
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
//! use larder_memcached::MemcachedBackend;
//! use std::time::Duration;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # let _guard = runtime.enter();
//! let memcached = MemcachedBackend::builder()
//!     .url("memcached://cache1,cache2?response_timeout=100ms")?
//!     .default_ttl(Ttl::For(Duration::from_secs(60)))
//!     .connect_later()?;
//! assert_eq!(memcached.servers(), ["cache1:11211", "cache2:11211"]);
//! # Ok::<(), larder_core::Error>(())
//! ```
//!
//! # A ring
//!
//! A key lies on one of the servers, by rendezvous hashing of the key and the server's name as it is written: adding a
//! server moves only the keys that it takes over. Every node must name the same servers in the same words; their order
//! does not matter. There are no copies.
//!
//! | a server is down | what callers see |
//! | --- | --- |
//! | its share of the keys | [`Unavailable`]; in a batch of reads, no entry; in a batch of writes, the error of each |
//! | the other keys | nothing |
//! | `clear`, and `remove_many` of one of its keys | [`Unavailable`], and the others' share is done |
//! | tags, if a namespace's sequence lies there | no tagged entry of that namespace is valid until it is back |
//!
//! A server that comes back with what it had, rather than empty, has it still: what could not be removed while it was away
//! was told as an error.
//!
//! # What it costs
//!
//! | operation | round trips |
//! | --- | --- |
//! | reads, single or many, counters with them; puts without a condition or [`Absent`]; beginning a fill; marks | 1 |
//! | other puts, removals, touches, additions, invalidations | 2, and more while others change the same key |
//!
//! Conditions are compared here and written if the item is still the same (Memcached's CAS), so each is one atomic step;
//! where the condition is on an entry, the entry comes along once. A touch brings the value here and back. Removing does
//! not bring it, unless it is about to end. All requests that are ready at one moment leave in one write.
//!
//! A namespace's generation is part of every name. A node asks for it once a second, along with whatever it does then;
//! so another node's `clear` is seen a second later at most ([`Builder::generation_max_age`]), and by the node that
//! clears at once. What a cleared namespace held has no name any more and is evicted in time.
//!
//! # Time
//!
//! An entry ends by its own record, to the millisecond. The server is told a lifetime that is a second or two longer, so
//! nothing lives longer than that whatever anybody's clock says; lifetimes over 30 days are told as dates of the server's
//! own clock, and those beyond January 2038, where its calendar ends, as "for ever".
//!
//! The times in a record are the server's. It tells whole seconds only, so a node looks for the moment at which one begins
//! when it connects, and every ten seconds from then on; in between it counts by its own monotonic clock. Two nodes
//! therefore agree to the length of a round trip and a few milliseconds, whatever their wall clocks say: those are never
//! read. The server's own count of seconds falls behind by up to one and catches up every quarter of an hour or so; what
//! lives that long may end by as much too early or too late. A record that seems to come from the future is taken for one
//! of now.
//!
//! # Counters
//!
//! A counter is text, `#<value> <end>`; it is read, added to and stored if it is still the same. The server's own
//! arithmetic would wrap, has no sign, and ends at whole seconds. Those of one process take turns.
//!
//! # When a server fails
//!
//! | what happens | what callers see |
//! | --- | --- |
//! | the connection is lost | reads, removals and the like are sent again over a new one, within the same limit |
//! | a reply does not come in time | [`Timeout`], and the connection is replaced: no late reply is ever read |
//! | a reply is not what was asked for | [`Unavailable`] for all who wait on that connection, and it is replaced |
//! | the reply to a conditional write is lost | it is looked up, for as long again: the outcome, or [`Ambiguous`] |
//! | the server cannot be reached | [`Unavailable`] at once; one attempt after another in the background, with pauses of up to a second |
//! | it is out of memory and may not evict (`-M`) | [`Unavailable`], and what should have been replaced is gone |
//! | it evicts the record of a tag, or the sequence | what depends on it is a miss, never valid |
//!
//! # What it does not do
//!
//! * Memcached 1.6 or later is needed. There is no log-in (SASL) and no TLS: let it listen where only your services are.
//! * It cannot list keys: `page` is [`Unsupported`].
//! * Nothing survives a server's restart.
//! * Values are at most as large as the server's items (`-I`, 1 MiB unless set), less 512 bytes; more is [`TooLarge`].
//!
//! # Looking at it
//!
//! [`MemcachedBackend::place`] tells on which server and under which name a key lies, for a client of your own.
//!
//! # Cancel safety
//!
//! Every future may be dropped at any time. A request that was written is carried out once or not at all; its reply is
//! read and thrown away.
//!
//! [`Absent`]: larder_core::When::Absent
//! [`Timeout`]: larder_core::ErrorKind::Timeout
//! [`Ambiguous`]: larder_core::ErrorKind::Ambiguous
//! [`Unavailable`]: larder_core::ErrorKind::Unavailable
//! [`Unsupported`]: larder_core::ErrorKind::Unsupported
//! [`TooLarge`]: larder_core::ErrorKind::TooLarge

mod client;
mod config;
mod counting;
mod filling;
mod generation;
mod link;
mod log;
mod marking;
mod naming;
mod outage;
mod protocol;
mod record;
mod removing;
mod ring;
mod server;
mod store;
mod time;
mod writing;

pub use config::Builder;
pub use store::MemcachedBackend;

const NAME: &str = "memcached";
