//! Redis

mod client;
mod config;
mod generation;
mod log;
mod scripts;
mod store;
mod sweep;
mod time;
mod tls;

pub use config::Builder;
pub use store::RedisBackend;

const NAME: &str = "redis";
