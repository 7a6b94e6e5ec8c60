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

// Nothing is ignored: `memory://max_bytes=1GiB` would be memory with 64 MiB.
pub(crate) fn nowhere(url: &Url) -> Result<()> {
    let somewhere = url.host_str().is_some_and(|host| !host.is_empty())
        || !["", "/"].contains(&url.path())
        || url.fragment().is_some();
    if somewhere {
        return Err(wrong(format!(
            "{0}:// has no place; parameters come after a question mark: {0}://?name=value",
            url.scheme()
        )));
    }
    Ok(())
}

fn null(url: &Url) -> Result<Opened> {
    nowhere(url)?;
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
    nowhere(url)?;
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

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_parameter_of_memory_is_taken_and_an_unknown_one_is_answered_with_them() {
        let opened = |place: &str| memory(&Url::parse(place).unwrap()).map(drop);
        let mut taken = BTreeSet::new();
        for parameter in
            ["max_bytes=1MiB", "max_entry_bytes=4KiB", "default_ttl=5m", "namespace=shop"]
        {
            opened(&format!("memory://?{parameter}")).unwrap();
            taken.extend(parameter.split('=').next());
        }
        for url in ["memory://?canary=canary", "memory://?max_bytes=1MiB&password=canary"] {
            let error = opened(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            let (_, list) = text.rsplit_once("there are ").unwrap();
            let names = list.split([',', ' ']).filter(|word| !["", "and"].contains(word));
            assert_eq!(names.collect::<BTreeSet<_>>(), taken);
            let told = format!("{text} {error:?}");
            assert!(!told.contains("canary") && !told.contains("password"), "{told}");
        }
    }
}
