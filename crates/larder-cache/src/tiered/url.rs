//! The near part of a `tiered:` URL.

use std::time::Duration;

use larder_core::{Backend, Bus, Error, ErrorKind, Result, parse};
use larder_memory::MemoryBackend;
use url::Url;

use super::{Tiered, TieredBuilder};

/// What `memory://?max_bytes=…&ceiling=…` says of the near store.
pub(crate) struct NearUrl {
    memory: larder_memory::Builder,
    ceiling: Option<Duration>,
    heartbeat: Option<Duration>,
}

// A build with fewer stores needs less of it.
#[cfg_attr(
    not(all(feature = "redis", any(feature = "memcached", feature = "file"))),
    allow(dead_code)
)]
impl NearUrl {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let url = Url::parse(url).ok().filter(|url| url.scheme() == "memory").ok_or_else(|| {
            wrong("what is near is in memory; write tiered:memory://?max_bytes=64MiB|redis://…")
        })?;
        crate::connect::nowhere(&url)?;
        let mut near = NearUrl { memory: MemoryBackend::builder(), ceiling: None, heartbeat: None };
        for (name, value) in url.query_pairs() {
            match &*name {
                "max_bytes" => near.memory = near.memory.max_bytes(parse::size(&name, &value)?),
                "max_entry_bytes" => {
                    near.memory = near.memory.max_entry_bytes(parse::size(&name, &value)?);
                }
                "ceiling" => near.ceiling = Some(parse::duration(&name, &value)?),
                "heartbeat" => near.heartbeat = Some(parse::duration(&name, &value)?),
                _ => {
                    return Err(wrong(
                        "unknown parameter of a near memory://; there are max_bytes, max_entry_bytes, ceiling and heartbeat, and all others stand in the second URL",
                    ));
                }
            }
        }
        Ok(near)
    }

    /// Before a store that also carries messages.
    pub(crate) fn with_bus<B: Backend>(self, remote: B, bus: impl Bus) -> Result<Tiered<B>> {
        self.builder(remote).with_bus(bus)
    }

    /// Before one that does not.
    pub(crate) fn without_bus<B: Backend>(self, remote: B) -> Result<Tiered<B>> {
        if self.ceiling.is_none() {
            return Err(wrong(
                "this store carries no messages, so other nodes do not learn what has changed; say how old what is near may become: memory://?ceiling=1s",
            ));
        }
        if self.heartbeat.is_some() {
            return Err(wrong("this store carries no messages, so there is no heartbeat"));
        }
        self.builder(remote).without_bus()
    }

    fn builder<B: Backend>(self, remote: B) -> TieredBuilder<B> {
        let mut builder = Tiered::builder(remote).near(self.memory);
        if let Some(ceiling) = self.ceiling {
            builder = builder.ceiling(ceiling);
        }
        if let Some(heartbeat) = self.heartbeat {
            builder = builder.heartbeat(heartbeat);
        }
        builder
    }
}

fn wrong(words: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, words)
}
