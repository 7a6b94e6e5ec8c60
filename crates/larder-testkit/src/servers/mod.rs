//! Real servers for tests: on a free port, with nothing kept on disk, gone when they are dropped.
//!
//! A server is also killed when the test's process ends without dropping it. A missing binary is a panic with words
//! saying what to install: a test that was skipped looks like one that passed.

mod certificates;
mod chrome;
mod daemon;
mod memcached;
mod port;
mod postgres;
mod process;
mod recorder;
mod redis;
mod redis_cluster;
mod redis_sentinels;

pub use certificates::Certificates;
pub use chrome::ChromeDriver;
pub use memcached::{MemcachedOptions, MemcachedServer};
pub use postgres::{PostgresOptions, PostgresServer};
pub use recorder::recorder;
pub use redis::{RedisOptions, RedisServer};
pub use redis_cluster::{RedisCluster, RedisClusterOptions};
pub use redis_sentinels::RedisSentinels;
