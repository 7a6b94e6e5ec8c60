//! One store from its URL.

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Bus, Error, ErrorKind, Heard, Namespace, Result, parse};
use url::Url;

use super::{Opened, wrong};
use crate::NullBackend;
use crate::erased::AnyBackend;

pub(super) async fn open(url: &str) -> Result<Opened> {
    // As it was written: Memcached's and Redis' may name several hosts, which a URL cannot, and a file's path may be
    // relative, which the parser makes absolute.
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("memcached" | "memcached+unix") => return memcached(url).await,
        Some(scheme) if speaks_redis(scheme) => return redis(url).await,
        Some("sqlite") => return sqlite(url).await,
        Some("postgres" | "postgresql") => return postgres(url).await,
        _ => {}
    }
    let parsed = Url::parse(url).map_err(|source| {
        let words = "the cache URL is not a URL; write for instance memory:// or \
                     redis://127.0.0.1:6379/0?namespace=shop";
        Error::new(ErrorKind::Configuration, words).with_source(source)
    })?;
    match parsed.scheme() {
        "memory" => memory(&parsed),
        "file" => file(url),
        "null" => null(&parsed),
        _ => Err(wrong(
            "unknown kind of cache URL; there are memory://, redis://, rediss://, redis+sentinel://, redis+cluster://, memcached://, sqlite://, postgres://, file:// and null://, and tiered:, failover:, writethrough: and migrating: before two of them",
        )),
    }
}

// `rediss+sentinel` and the like: what is behind the plus is the backend's to read.
fn speaks_redis(scheme: &str) -> bool {
    let speaks = scheme.split_once('+').map_or(scheme, |(speaks, _)| speaks);
    matches!(speaks, "redis" | "rediss" | "valkey" | "valkeys" | "unix")
}

impl Opened {
    // One that others may use too.
    #[allow(dead_code)]
    fn shared(backend: AnyBackend, namespace: Namespace) -> Self {
        Opened { backend, namespace: Some(namespace), bus: None, near_without_bus: false }
    }
}

#[allow(dead_code)]
fn named(namespace: Option<&Namespace>, scheme: &str, place: &str) -> Result<Namespace> {
    namespace.cloned().ok_or_else(|| {
        wrong(format!(
            "a {scheme}:// URL needs a namespace, since others may use the {place} too: add ?namespace=NAME"
        ))
    })
}

#[allow(dead_code)]
fn lacks(scheme: &str, feature: &str) -> Result<Opened> {
    Err(wrong(format!("{scheme}:// needs the feature `{feature}`, which this build lacks")))
}

fn null(url: &Url) -> Result<Opened> {
    let mut builder = NullBackend::builder();
    let mut namespace = None;
    for (name, value) in url.query_pairs() {
        match &*name {
            "max_entry_bytes" => builder = builder.max_entry_bytes(parse::size(&name, &value)?),
            "default_ttl" => builder = builder.default_ttl(parse::lifetime(&name, &value)?),
            "namespace" => namespace = Some(Namespace::new(&value)?),
            _ => {
                return Err(wrong(
                    "unknown parameter in a null:// URL; there are max_entry_bytes, default_ttl and namespace",
                ));
            }
        }
    }
    Ok(Opened {
        backend: AnyBackend::new(builder.build()),
        namespace,
        bus: None,
        near_without_bus: false,
    })
}

#[cfg(feature = "memory")]
fn memory(url: &Url) -> Result<Opened> {
    let mut builder = larder_memory::MemoryBackend::builder();
    let mut namespace = None;
    for (name, value) in url.query_pairs() {
        match &*name {
            "max_bytes" => builder = builder.max_bytes(parse::size(&name, &value)?),
            "max_entry_bytes" => builder = builder.max_entry_bytes(parse::size(&name, &value)?),
            "default_ttl" => builder = builder.default_ttl(parse::lifetime(&name, &value)?),
            "namespace" => namespace = Some(Namespace::new(&value)?),
            _ => {
                return Err(wrong(
                    "unknown parameter in a memory:// URL; there are max_bytes, max_entry_bytes, default_ttl and namespace",
                ));
            }
        }
    }
    Ok(Opened {
        backend: AnyBackend::new(builder.build()?),
        namespace,
        bus: None,
        near_without_bus: false,
    })
}

#[cfg(not(feature = "memory"))]
fn memory(_: &Url) -> Result<Opened> {
    lacks("memory", "memory")
}

#[cfg(feature = "redis")]
async fn redis(url: &str) -> Result<Opened> {
    let builder = larder_redis::RedisBackend::builder().url(url)?;
    let namespace = named(builder.namespace(), "redis", "server")?;
    let backend = builder.connect().await?;
    let bus = Some(AnyBus::Redis(backend.bus(&namespace)));
    Ok(Opened { bus, ..Opened::shared(AnyBackend::new(backend), namespace) })
}

#[cfg(not(feature = "redis"))]
async fn redis(_: &str) -> Result<Opened> {
    lacks("redis", "redis")
}

#[cfg(feature = "memcached")]
async fn memcached(url: &str) -> Result<Opened> {
    let builder = larder_memcached::MemcachedBackend::builder().url(url)?;
    let namespace = named(builder.namespace(), "memcached", "servers")?;
    Ok(Opened::shared(AnyBackend::new(builder.connect().await?), namespace))
}

#[cfg(not(feature = "memcached"))]
async fn memcached(_: &str) -> Result<Opened> {
    lacks("memcached", "memcached")
}

#[cfg(feature = "file")]
fn file(url: &str) -> Result<Opened> {
    let builder = larder_file::FileBackend::builder().url(url)?;
    let namespace = named(builder.namespace(), "file", "directory")?;
    Ok(Opened::shared(AnyBackend::new(builder.build()?), namespace))
}

#[cfg(not(feature = "file"))]
fn file(_: &str) -> Result<Opened> {
    lacks("file", "file")
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str) -> Result<Opened> {
    let builder = larder_sql::SqliteBackend::builder().url(url)?;
    let namespace = named(builder.namespace(), "sqlite", "file")?;
    Ok(Opened::shared(AnyBackend::new(builder.connect().await?), namespace))
}

#[cfg(not(feature = "sqlite"))]
async fn sqlite(_: &str) -> Result<Opened> {
    lacks("sqlite", "sqlite")
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<Opened> {
    let builder = larder_sql::PostgresBackend::builder().url(url)?;
    let namespace = named(builder.namespace(), "postgres", "table")?;
    let backend = builder.connect().await?;
    let bus = Some(AnyBus::Postgres(backend.bus(&namespace)));
    Ok(Opened { bus, ..Opened::shared(AnyBackend::new(backend), namespace) })
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &str) -> Result<Opened> {
    lacks("postgres", "postgres")
}

/// What carries messages between the nodes.
pub(super) enum AnyBus {
    #[cfg(feature = "redis")]
    Redis(larder_redis::RedisBus),
    #[cfg(feature = "postgres")]
    Postgres(larder_sql::PostgresBus),
}

impl Bus for AnyBus {
    async fn publish(&self, message: Bytes) -> Result<()> {
        match self {
            #[cfg(feature = "redis")]
            AnyBus::Redis(bus) => bus.publish(message).await,
            #[cfg(feature = "postgres")]
            AnyBus::Postgres(bus) => bus.publish(message).await,
            #[cfg(not(any(feature = "redis", feature = "postgres")))]
            _ => unreachable!("no store of this build carries messages: {message:?}"),
        }
    }

    async fn listen(&self, silence: Duration, hear: impl FnMut(Heard) + Send) {
        match self {
            #[cfg(feature = "redis")]
            AnyBus::Redis(bus) => bus.listen(silence, hear).await,
            #[cfg(feature = "postgres")]
            AnyBus::Postgres(bus) => bus.listen(silence, hear).await,
            #[cfg(not(any(feature = "redis", feature = "postgres")))]
            _ => drop((silence, hear)),
        }
    }
}
