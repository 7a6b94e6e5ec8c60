//! Caches from URLs.

mod packing;
mod parameters;
mod stores;

#[cfg(feature = "memory")]
pub(crate) use stores::nowhere;

use std::future::Future;
use std::pin::Pin;

use larder_core::{Error, ErrorKind, Namespace, Result};

use crate::erased::AnyBackend;
#[cfg(feature = "memory")]
use crate::tiered::NearUrl;
use crate::{Builder, Cache, Failover, Migrating, WriteThrough};
use packing::PackingUrl;
use parameters::Parameters;
pub(crate) use parameters::{budget, codec};

impl Cache {
    /// Connects to the store that a URL names.
    ///
    /// | URL | store |
    /// | --- | --- |
    /// | `memory://` | this process's memory; `max_bytes` (64 MiB) bounds it, `default_ttl` (5 m) is what values live |
    /// | `file:///var/cache/shop?namespace=shop` | a directory, shared by the processes of one host; feature `file` |
    /// | `redis://host:port/db?namespace=shop` | Redis or Valkey; `rediss://` with TLS, `redis+unix:///path` over a socket; feature `redis` |
    /// | `redis+sentinel://h1,h2,h3/mymaster/0?namespace=shop` | the primary that sentinels tell, wherever it is; feature `redis` |
    /// | `redis+cluster://h1,h2,h3?namespace=shop` | a Redis or Valkey cluster, of which these are some nodes; feature `redis` |
    /// | `sqlite://cache.db?namespace=shop` | a SQLite file, shared by the processes of one host; feature `sqlite` |
    /// | `postgres://user:password@host:port/database?namespace=shop` | a table on a PostgreSQL server (`create=true` makes it); feature `postgres` |
    /// | `memcached://h1:11211,h2:11211?namespace=shop` | one Memcached server or a ring of them; `memcached+unix:///path` over a socket; feature `memcached` |
    /// | `null://` | nothing, for development and tests; `max_entry_bytes` (1 MiB) is checked ([`NullBackend`](crate::NullBackend)) |
    /// | `tiered:memory://?max_bytes=64MiB\|redis://…` | memory before another store: what is read often costs no round trip ([`Tiered`](crate::Tiered)) |
    /// | `failover:redis://…\|memory://` | the second one stands in while the first one is gone ([`Failover`](crate::Failover)) |
    /// | `writethrough:redis://…\|postgres://…` | copies in the first one of what the second one keeps ([`WriteThrough`](crate::WriteThrough)) |
    /// | `migrating:redis://…\|memcached://…` | the first one, and what is still in the second is moved there ([`Migrating`](crate::Migrating)) |
    ///
    /// The last four take any of the others, one another included, each word the two that follow it:
    /// `tiered:memory://|failover:redis://…|memcached://…` is memory before Redis, for which Memcached stands in. All
    /// parts are in one namespace.
    ///
    /// Parameters for every store: `namespace`, which all but the memory and nothing need, since applications share them;
    /// `read_budget` (100ms) and `write_budget` (250ms), what [`Builder::read_budget`] and [`Builder::write_budget`] set;
    /// `codec` (`messagepack`, `json`, `postcard`), what [`Builder::codec`] sets; `strict` (`true` or `false`), what
    /// [`Builder::strict`] sets. For every store but memory: `compress`, `compress_above`, `max_unpacked`, `max_ratio`,
    /// `encrypt_env` and `sign_env`, which say how values are packed on their way there (`Packed`, with a feature for
    /// each). With `failover:`, in either part: `failover_patience`, `failover_threshold`, `failover_probe`,
    /// `failover_settled` and `failover_ceiling`, named after the methods of [`FailoverBuilder`](crate::FailoverBuilder);
    /// with `writethrough:`, `writethrough_patience` and `writethrough_ceiling`. Each stands once.
    /// Sizes are written `1048576`, `512KiB`, `64MiB` or `2GiB`; durations `250ms`, `5s`, `10m` or `1h`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when the URL is none, names an unknown store or parameter, or one
    /// that this build lacks; the words say what to write. Whatever connecting to a server meets. No error holds the
    /// URL, which may carry a password.
    pub async fn connect(url: &str) -> Result<Cache> {
        Ok(Cache::builder_at(url).await?.0.build())
    }

    // The same before it is built, and whether other nodes do not tell this one what has changed.
    pub(crate) async fn builder_at(url: &str) -> Result<(Builder, bool)> {
        let mut parameters = Parameters::default();
        let mut parts = url.split('|');
        let opened = open(&mut parts, &mut parameters).await?;
        if parts.next().is_some() {
            return Err(wrong(
                "there are more stores than words for them; tiered:, failover:, writethrough: and migrating: stand each before two: failover:redis://…|memory://",
            ));
        }
        let mut builder = Builder::erased(opened.backend);
        if let Some(namespace) = opened.namespace {
            builder = builder.namespace(namespace.as_str())?;
        }
        Ok((parameters.given_to(builder)?, opened.near_without_bus))
    }
}

/// A store that a URL named.
struct Opened {
    backend: AnyBackend,
    // All that others may use too has one.
    namespace: Option<Namespace>,
    // What carries messages between the nodes, if the store does.
    bus: Option<stores::AnyBus>,
    // Whether something is near that nobody says is outdated.
    near_without_bus: bool,
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened>> + Send + 'a>>;

// The store that begins with the next part: a word takes the two stores that follow it. Boxed, since either may be
// such a word again.
fn open<'a>(
    parts: &'a mut std::str::Split<'_, char>,
    parameters: &'a mut Parameters,
) -> Opening<'a> {
    Box::pin(async move {
        let part = parts.next().unwrap_or_default().to_owned();
        open_part(&part, parts, parameters).await
    })
}

async fn open_part(
    part: &str,
    parts: &mut std::str::Split<'_, char>,
    parameters: &mut Parameters,
) -> Result<Opened> {
    if let Some(near) = part.strip_prefix("tiered:") {
        let near = NearUrl::parse(near)?;
        let Opened { backend, namespace, bus, .. } = second(parts, parameters).await?;
        let near_without_bus = bus.is_none();
        if backend.is_local() {
            return Err(wrong("memory before memory saves nothing; name the store behind it"));
        }
        let backend = match bus {
            Some(bus) => AnyBackend::new(near.with_bus(backend, bus)?),
            None => AnyBackend::new(near.without_bus(backend)?),
        };
        return Ok(Opened { backend, namespace, bus: None, near_without_bus });
    }
    if let Some(first) = part.strip_prefix("failover:") {
        let first = Box::pin(open_part(first, parts, parameters)).await?;
        let second = second(parts, parameters).await?;
        let namespace = common(&first, &second)?;
        let pair = parameters.failover(Failover::builder(first.backend, second.backend)).build()?;
        let near_without_bus = first.near_without_bus || second.near_without_bus;
        let backend = AnyBackend::new(pair);
        return Ok(Opened { backend, namespace, bus: first.bus, near_without_bus });
    }
    if let Some(first) = part.strip_prefix("writethrough:") {
        let first = Box::pin(open_part(first, parts, parameters)).await?;
        let second = second(parts, parameters).await?;
        let namespace = common(&first, &second)?;
        let pair = WriteThrough::builder(first.backend, second.backend);
        let pair = parameters.write_through(pair).build()?;
        let near_without_bus = second.near_without_bus || first.near_without_bus;
        let backend = AnyBackend::new(pair);
        return Ok(Opened { backend, namespace, bus: second.bus, near_without_bus });
    }
    if let Some(first) = part.strip_prefix("migrating:") {
        let new = Box::pin(open_part(first, parts, parameters)).await?;
        let old = second(parts, parameters).await?;
        let namespace = common(&new, &old)?;
        let pair = Migrating::new(new.backend, old.backend)?;
        let near_without_bus = new.near_without_bus || old.near_without_bus;
        let backend = AnyBackend::new(pair);
        return Ok(Opened { backend, namespace, bus: new.bus, near_without_bus });
    }
    let (url, packing) = PackingUrl::taken_from(&parameters.taken_from(part)?)?;
    packing.given_to(stores::open(&url).await?)
}

async fn second(
    parts: &mut std::str::Split<'_, char>,
    parameters: &mut Parameters,
) -> Result<Opened> {
    if parts.clone().next().is_none() {
        return Err(wrong(
            "tiered:, failover:, writethrough: and migrating: name two stores with | between them: tiered:memory://?max_bytes=64MiB|redis://host/0?namespace=NAME",
        ));
    }
    open(parts, parameters).await
}

// Two stores that stand for one another hold the same keys.
fn common(first: &Opened, second: &Opened) -> Result<Option<Namespace>> {
    match (&first.namespace, &second.namespace) {
        (Some(one), Some(other)) if one != other => {
            Err(wrong("the two stores have different namespaces; name the same one in both URLs"))
        }
        (one, other) => Ok(one.clone().or_else(|| other.clone())),
    }
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words)
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
