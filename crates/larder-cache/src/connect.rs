//! Caches from URLs.

use std::time::Duration;

use larder_core::{Error, ErrorKind, Result, parse};
use url::Url;

#[cfg(feature = "memory")]
use crate::tiered::NearUrl;
use crate::{Builder, Cache};

impl Cache {
    /// Connects to the store that a URL names.
    ///
    /// | URL | store |
    /// | --- | --- |
    /// | `memory://` | this process's memory; `max_bytes` (64 MiB) bounds it, `default_ttl` (5 m) is what values live |
    /// | `file:///var/cache/shop?namespace=shop` | a directory, shared by the processes of one host; feature `file` |
    /// | `redis://host:port/db?namespace=shop` | Redis or Valkey; `rediss://` with TLS, `redis+unix:///path` over a socket; feature `redis` |
    /// | `sqlite://cache.db?namespace=shop` | a SQLite file, shared by the processes of one host; feature `sqlite` |
    /// | `postgres://user:password@host:port/database?namespace=shop` | a table on a PostgreSQL server (`create=true` makes it); feature `postgres` |
    /// | `memcached://h1:11211,h2:11211?namespace=shop` | one Memcached server or a ring of them; `memcached+unix:///path` over a socket; feature `memcached` |
    /// | `tiered:memory://?max_bytes=64MiB\|redis://…` | memory before another store: what is read often costs no round trip ([`Tiered`](crate::Tiered)) |
    ///
    /// Parameters for every store: `namespace`, which all but the memory need, since applications share them;
    /// `read_budget` (100ms) and `write_budget` (250ms), what [`Builder::read_budget`] and [`Builder::write_budget`] set.
    /// Sizes are written `1048576`, `512KiB`, `64MiB` or `2GiB`; durations `250ms`, `5s`, `10m` or `1h`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when the URL is none, names an unknown store or parameter, or one
    /// that this build lacks; the words say what to write. Whatever connecting to a server meets. No error holds the
    /// URL, which may carry a password.
    pub async fn connect(url: &str) -> Result<Cache> {
        let (near, url) = near(url)?;
        let (url, budgets) = Budgets::taken_from(url)?;
        // As it was written: it may name several hosts, which a URL cannot.
        if ["memcached://", "memcached+unix://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(budgets.given_to(memcached(&url, near).await?).build());
        }
        if url.starts_with("sqlite://") {
            return Ok(budgets.given_to(sqlite(&url, near).await?).build());
        }
        if ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(budgets.given_to(postgres(&url, near).await?).build());
        }
        let parsed = Url::parse(&url).map_err(|source| {
            let words = "the cache URL is not a URL; write for instance memory:// or \
                         redis://127.0.0.1:6379/0?namespace=shop";
            Error::new(ErrorKind::Configuration, words).with_source(source)
        })?;
        let builder = match parsed.scheme() {
            "memory" if near.is_some() => {
                return Err(wrong("memory before memory saves nothing; name the store behind it"));
            }
            "memory" => memory(&parsed)?,
            "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "unix" => {
                redis(&parsed, near).await?
            }
            // As it was written: the parser makes a relative path absolute.
            "file" => file(&url, near)?,
            _ => {
                return Err(wrong(
                    "unknown kind of cache URL; there are memory://, redis://, rediss://, memcached://, sqlite://, postgres:// and file://, and tiered: before one of them",
                ));
            }
        };
        Ok(budgets.given_to(builder).build())
    }
}

// A `tiered:` URL is two: what is near, and the store behind it.
fn near(url: &str) -> Result<(Option<NearUrl>, &str)> {
    let Some(both) = url.strip_prefix("tiered:") else { return Ok((None, url)) };
    let Some((near, store)) = both.split_once('|') else {
        return Err(wrong(
            "a tiered: URL names two stores with | between them: tiered:memory://?max_bytes=64MiB|redis://host/0?namespace=NAME",
        ));
    };
    NearUrl::parse(near).map(|near| (Some(near), store))
}

/// The parameters of a URL that are the cache's own: the backends do not know them.
#[derive(Default)]
struct Budgets {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl Budgets {
    /// The URL without them, otherwise as it was written.
    fn taken_from(url: &str) -> Result<(String, Self)> {
        let mut budgets = Budgets::default();
        let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), budgets)) };
        let mut others = Vec::new();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some((name @ "read_budget", value)) => {
                    budgets.read = Some(budget(name, value)?);
                }
                Some((name @ "write_budget", value)) => {
                    budgets.write = Some(budget(name, value)?);
                }
                _ => others.push(pair),
            }
        }
        let mark = if others.is_empty() { "" } else { "?" };
        Ok((format!("{base}{mark}{}", others.join("&")), budgets))
    }

    fn given_to(self, mut builder: Builder) -> Builder {
        if let Some(budget) = self.read {
            builder = builder.read_budget(budget);
        }
        if let Some(budget) = self.write {
            builder = builder.write_budget(budget);
        }
        builder
    }
}

fn budget(name: &str, value: &str) -> Result<Duration> {
    let budget = parse::duration(name, value)?;
    if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&budget) {
        return Ok(budget);
    }
    Err(wrong(format!("{name} must lie between 1ms and 1h")))
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words)
}

#[cfg(feature = "memory")]
fn memory(url: &Url) -> Result<Builder> {
    let mut builder = larder_memory::MemoryBackend::builder();
    let mut namespace = None;
    for (name, value) in url.query_pairs() {
        match &*name {
            "max_bytes" => builder = builder.max_bytes(parse::size(&name, &value)?),
            "max_entry_bytes" => builder = builder.max_entry_bytes(parse::size(&name, &value)?),
            "default_ttl" => builder = builder.default_ttl(parse::lifetime(&name, &value)?),
            "namespace" => namespace = Some(value.into_owned()),
            _ => {
                return Err(wrong(
                    "unknown parameter in a memory:// URL; there are max_bytes, max_entry_bytes, default_ttl and namespace",
                ));
            }
        }
    }
    let builder = Cache::builder(builder.build()?);
    match namespace {
        Some(name) => builder.namespace(&name),
        None => Ok(builder),
    }
}

#[cfg(not(feature = "memory"))]
fn memory(_: &Url) -> Result<Builder> {
    Err(wrong("memory:// needs the feature `memory`, which this build lacks"))
}

#[cfg(not(feature = "redis"))]
async fn redis(_: &Url, _: Option<NearUrl>) -> Result<Builder> {
    Err(wrong("redis:// needs the feature `redis`, which this build lacks"))
}

#[cfg(feature = "redis")]
async fn redis(url: &Url, near: Option<NearUrl>) -> Result<Builder> {
    let builder = larder_redis::RedisBackend::builder().url(url.as_str())?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a redis:// URL needs a namespace, since others may use the server too: add ?namespace=NAME",
        ));
    };
    let backend = builder.connect().await?;
    let builder = match near {
        Some(near) => {
            let bus = backend.bus(&namespace);
            Cache::builder(near.with_bus(backend, bus)?)
        }
        None => Cache::builder(backend),
    };
    builder.namespace(namespace.as_str())
}

#[cfg(not(feature = "memcached"))]
async fn memcached(_: &str, _: Option<NearUrl>) -> Result<Builder> {
    Err(wrong("memcached:// needs the feature `memcached`, which this build lacks"))
}

#[cfg(feature = "memcached")]
async fn memcached(url: &str, near: Option<NearUrl>) -> Result<Builder> {
    let builder = larder_memcached::MemcachedBackend::builder().url(url)?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a memcached:// URL needs a namespace, since others may use the servers too: add ?namespace=NAME",
        ));
    };
    without_bus(builder.connect().await?, near)?.namespace(namespace.as_str())
}

#[cfg(not(feature = "file"))]
fn file(_: &str, _: Option<NearUrl>) -> Result<Builder> {
    Err(wrong("file:// needs the feature `file`, which this build lacks"))
}

#[cfg(feature = "file")]
fn file(url: &str, near: Option<NearUrl>) -> Result<Builder> {
    let builder = larder_file::FileBackend::builder().url(url)?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a file:// URL needs a namespace, since others may use the directory too: add ?namespace=NAME",
        ));
    };
    without_bus(builder.build()?, near)?.namespace(namespace.as_str())
}

#[cfg(not(feature = "sqlite"))]
async fn sqlite(_: &str, _: Option<NearUrl>) -> Result<Builder> {
    Err(wrong("sqlite:// needs the feature `sqlite`, which this build lacks"))
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str, near: Option<NearUrl>) -> Result<Builder> {
    let builder = larder_sql::SqliteBackend::builder().url(url)?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a sqlite:// URL needs a namespace, since others may use the file too: add ?namespace=NAME",
        ));
    };
    without_bus(builder.connect().await?, near)?.namespace(namespace.as_str())
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &str, _: Option<NearUrl>) -> Result<Builder> {
    Err(wrong("postgres:// needs the feature `postgres`, which this build lacks"))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str, near: Option<NearUrl>) -> Result<Builder> {
    let builder = larder_sql::PostgresBackend::builder().url(url)?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a postgres:// URL needs a namespace, since others may use the table too: add ?namespace=NAME",
        ));
    };
    without_bus(builder.connect().await?, near)?.namespace(namespace.as_str())
}

#[cfg(any(feature = "file", feature = "memcached", feature = "sqlite", feature = "postgres"))]
fn without_bus(backend: impl larder_core::Backend, near: Option<NearUrl>) -> Result<Builder> {
    Ok(match near {
        Some(near) => Cache::builder(near.without_bus(backend)?),
        None => Cache::builder(backend),
    })
}

#[cfg(not(feature = "memory"))]
use without_memory::NearUrl;

#[cfg(not(feature = "memory"))]
mod without_memory {
    use larder_core::{Backend, Error, ErrorKind, Result};

    /// Cannot be had: this build has no memory to keep anything near in.
    pub(super) enum NearUrl {}

    impl NearUrl {
        pub(super) fn parse(_: &str) -> Result<Self> {
            let words = "tiered: needs the feature `memory`, which this build lacks";
            Err(Error::new(ErrorKind::Configuration, words))
        }

        #[allow(dead_code)]
        pub(super) fn with_bus<B: Backend>(self, _: B, _: impl larder_core::Bus) -> Result<B> {
            match self {}
        }

        #[allow(dead_code)]
        pub(super) fn without_bus<B: Backend>(self, _: B) -> Result<B> {
            match self {}
        }
    }
}
