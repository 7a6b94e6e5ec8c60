//! memcached
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
