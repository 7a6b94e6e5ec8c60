//! The parameters of a URL that are no store's: the cache's own, and those of the words before two stores.

use std::time::Duration;

use larder_core::{Backend, Result, Ttl, parse};

use super::wrong;
use crate::{Builder, Codec, FailoverBuilder, WriteThroughBuilder};

/// The parameters of a URL that the stores do not know. They may stand in any part of it, once.
#[derive(Default)]
pub(super) struct Parameters {
    read: Option<Duration>,
    write: Option<Duration>,
    codec: Option<Codec>,
    strict: Option<bool>,
    failover: FailoverUrl,
    write_through: WriteThroughUrl,
}

#[derive(Default, PartialEq)]
struct FailoverUrl {
    patience: Option<Duration>,
    threshold: Option<u32>,
    probe: Option<Duration>,
    settled: Option<u32>,
    ceiling: Option<Ttl>,
}

#[derive(Default, PartialEq)]
struct WriteThroughUrl {
    patience: Option<Duration>,
    ceiling: Option<Duration>,
}

impl Parameters {
    /// Takes them out of a URL; it is otherwise as it was written.
    pub(super) fn taken_from(&mut self, url: &str) -> Result<String> {
        let Some((base, query)) = url.split_once('?') else { return Ok(url.to_owned()) };
        let mut others = Vec::new();
        for pair in query.split('&') {
            let taken = match pair.split_once('=') {
                Some((name, value)) => self.take(name, value)?,
                None => false,
            };
            if !taken {
                others.push(pair);
            }
        }
        let mark = if others.is_empty() { "" } else { "?" };
        Ok(format!("{base}{mark}{}", others.join("&")))
    }

    fn take(&mut self, name: &str, value: &str) -> Result<bool> {
        let (failover, write_through) = (&mut self.failover, &mut self.write_through);
        match name {
            "read_budget" => once(name, &mut self.read, budget(name, value)?)?,
            "write_budget" => once(name, &mut self.write, budget(name, value)?)?,
            "codec" => once(name, &mut self.codec, codec(value)?)?,
            "strict" => once(name, &mut self.strict, parse::flag(name, value)?)?,
            "failover_patience" => {
                once(name, &mut failover.patience, parse::duration(name, value)?)?;
            }
            "failover_threshold" => once(name, &mut failover.threshold, times(name, value)?)?,
            "failover_probe" => once(name, &mut failover.probe, parse::duration(name, value)?)?,
            "failover_settled" => once(name, &mut failover.settled, times(name, value)?)?,
            "failover_ceiling" => once(name, &mut failover.ceiling, parse::lifetime(name, value)?)?,
            "writethrough_patience" => {
                once(name, &mut write_through.patience, parse::duration(name, value)?)?;
            }
            "writethrough_ceiling" => {
                once(name, &mut write_through.ceiling, parse::duration(name, value)?)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Configures what stands in for a store.
    pub(super) fn failover<P: Backend, S: Backend>(
        &mut self,
        mut builder: FailoverBuilder<P, S>,
    ) -> FailoverBuilder<P, S> {
        let FailoverUrl { patience, threshold, probe, settled, ceiling } =
            std::mem::take(&mut self.failover);
        if let Some(patience) = patience {
            builder = builder.patience(patience);
        }
        if let Some(threshold) = threshold {
            builder = builder.threshold(threshold);
        }
        if let Some(probe) = probe {
            builder = builder.probe(probe);
        }
        if let Some(settled) = settled {
            builder = builder.settled(settled);
        }
        if let Some(ceiling) = ceiling {
            builder = builder.ceiling(ceiling);
        }
        builder
    }

    /// Configures copies before a durable store.
    pub(super) fn write_through<C: Backend, D: Backend>(
        &mut self,
        mut builder: WriteThroughBuilder<C, D>,
    ) -> WriteThroughBuilder<C, D> {
        let WriteThroughUrl { patience, ceiling } = std::mem::take(&mut self.write_through);
        if let Some(patience) = patience {
            builder = builder.patience(patience);
        }
        if let Some(ceiling) = ceiling {
            builder = builder.ceiling(ceiling);
        }
        builder
    }

    /// Configures the cache. What no word has taken is a mistake.
    pub(super) fn given_to(self, mut builder: Builder) -> Result<Builder> {
        if self.failover != FailoverUrl::default() {
            return Err(wrong("failover_ parameters belong to failover:, once for each of them"));
        }
        if self.write_through != WriteThroughUrl::default() {
            return Err(wrong(
                "writethrough_ parameters belong to writethrough:, once for each of them",
            ));
        }
        if let Some(budget) = self.read {
            builder = builder.read_budget(budget);
        }
        if let Some(budget) = self.write {
            builder = builder.write_budget(budget);
        }
        if let Some(codec) = self.codec {
            builder = builder.codec(codec);
        }
        if let Some(strict) = self.strict {
            builder = builder.strict(strict);
        }
        Ok(builder)
    }
}

// Of two that say the same thing one would not count.
fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<()> {
    if place.replace(value).is_some() {
        return Err(wrong(format!("{name} stands in the URL more than once; say it once")));
    }
    Ok(())
}

fn times(name: &str, value: &str) -> Result<u32> {
    value.parse().map_err(|_| wrong(format!("{name} is a number of times, at least 1")))
}

pub(crate) fn codec(name: &str) -> Result<Codec> {
    match name {
        "messagepack" => Ok(Codec::MessagePack),
        #[cfg(feature = "json")]
        "json" => Ok(Codec::Json),
        #[cfg(feature = "postcard")]
        "postcard" => Ok(Codec::Postcard),
        known if ["json", "postcard"].contains(&known) => {
            Err(wrong(format!("codec={name} needs the feature `{name}`, which this build lacks")))
        }
        _ => Err(wrong("unknown codec; there are messagepack, json and postcard")),
    }
}

pub(crate) fn budget(name: &str, value: &str) -> Result<Duration> {
    let budget = parse::duration(name, value)?;
    if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&budget) {
        return Ok(budget);
    }
    Err(wrong(format!("{name} must lie between 1ms and 1h")))
}
