//! Caches from URLs.

#[cfg(feature = "memory")]
use larder_core::parse;
use larder_core::{Error, ErrorKind, Result};
use url::Url;

use crate::Cache;

impl Cache {
    /// Connects to the store that a URL names.
    ///
    /// | URL | store |
    /// | --- | --- |
    /// | `memory://` | this process's memory; `max_bytes` (64 MiB) bounds it, `default_ttl` (5 m) is what values live |
    /// | `file:///var/cache/shop?namespace=shop` | a directory, shared by the processes of one host; feature `file` |
    /// | `redis://host:port/db?namespace=shop` | Redis or Valkey; `rediss://` with TLS, `redis+unix:///path` over a socket; feature `redis` |
    /// | `memcached://h1:11211,h2:11211?namespace=shop` | one Memcached server or a ring of them; `memcached+unix:///path` over a socket; feature `memcached` |
    ///
    /// Parameters for every store: `namespace`, which all but the memory need, since applications share them.
    /// Sizes are written `1048576`, `512KiB`, `64MiB` or `2GiB`; durations `250ms`, `5s`, `10m` or `1h`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when the URL is none, names an unknown store or parameter, or one
    /// that this build lacks; the words say what to write. Whatever connecting to a server meets. No error holds the
    /// URL, which may carry a password.
    pub async fn connect(url: &str) -> Result<Cache> {
        // As it was written: it may name several hosts, which a URL cannot.
        if ["memcached://", "memcached+unix://"].iter().any(|scheme| url.starts_with(scheme)) {
            return memcached(url).await;
        }
        let parsed = Url::parse(url).map_err(|source| {
            let words = "the cache URL is not a URL; write for instance memory:// or \
                         redis://127.0.0.1:6379/0?namespace=shop";
            Error::new(ErrorKind::Configuration, words).with_source(source)
        })?;
        match parsed.scheme() {
            "memory" => memory(&parsed),
            "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "unix" => {
                redis(&parsed).await
            }
            // As it was written: the parser makes a relative path absolute.
            "file" => file(url),
            _ => Err(wrong(
                "unknown kind of cache URL; there are memory://, redis://, rediss://, memcached:// and file://",
            )),
        }
    }
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words)
}

#[cfg(feature = "memory")]
fn memory(url: &Url) -> Result<Cache> {
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
    Ok(match namespace {
        Some(name) => builder.namespace(&name)?.build(),
        None => builder.build(),
    })
}

#[cfg(not(feature = "memory"))]
fn memory(_: &Url) -> Result<Cache> {
    Err(wrong("memory:// needs the feature `memory`, which this build lacks"))
}

#[cfg(not(feature = "redis"))]
async fn redis(_: &Url) -> Result<Cache> {
    Err(wrong("redis:// needs the feature `redis`, which this build lacks"))
}

#[cfg(feature = "redis")]
async fn redis(url: &Url) -> Result<Cache> {
    let builder = larder_redis::RedisBackend::builder().url(url.as_str())?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a redis:// URL needs a namespace, since others may use the server too: add ?namespace=NAME",
        ));
    };
    let backend = builder.connect().await?;
    Ok(Cache::builder(backend).namespace(namespace.as_str())?.build())
}

#[cfg(not(feature = "memcached"))]
async fn memcached(_: &str) -> Result<Cache> {
    Err(wrong("memcached:// needs the feature `memcached`, which this build lacks"))
}

#[cfg(feature = "memcached")]
async fn memcached(url: &str) -> Result<Cache> {
    let builder = larder_memcached::MemcachedBackend::builder().url(url)?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a memcached:// URL needs a namespace, since others may use the servers too: add ?namespace=NAME",
        ));
    };
    let backend = builder.connect().await?;
    Ok(Cache::builder(backend).namespace(namespace.as_str())?.build())
}

#[cfg(not(feature = "file"))]
fn file(_: &str) -> Result<Cache> {
    Err(wrong("file:// needs the feature `file`, which this build lacks"))
}

#[cfg(feature = "file")]
fn file(url: &str) -> Result<Cache> {
    let builder = larder_file::FileBackend::builder().url(url)?;
    let Some(namespace) = builder.namespace().cloned() else {
        return Err(wrong(
            "a file:// URL needs a namespace, since others may use the directory too: add ?namespace=NAME",
        ));
    };
    Ok(Cache::builder(builder.build()?).namespace(namespace.as_str())?.build())
}
