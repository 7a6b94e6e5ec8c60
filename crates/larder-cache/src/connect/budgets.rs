//! The parameters of a URL that are the cache's own.

use std::time::Duration;

use larder_core::{Result, parse};

use super::wrong;
use crate::{Builder, Codec};

/// The parameters of a URL that are the cache's own: the backends do not know them.
#[derive(Default)]
pub(super) struct Budgets {
    read: Option<Duration>,
    write: Option<Duration>,
    codec: Option<Codec>,
}

impl Budgets {
    /// Takes them out of a URL; it is otherwise as it was written.
    pub(super) fn taken_from(&mut self, url: &str) -> Result<String> {
        let Some((base, query)) = url.split_once('?') else { return Ok(url.to_owned()) };
        let mut others = Vec::new();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some((name @ "read_budget", value)) => {
                    once(name, &mut self.read, budget(name, value)?)?;
                }
                Some((name @ "write_budget", value)) => {
                    once(name, &mut self.write, budget(name, value)?)?;
                }
                Some((name @ "codec", value)) => once(name, &mut self.codec, codec(value)?)?,
                _ => others.push(pair),
            }
        }
        let mark = if others.is_empty() { "" } else { "?" };
        Ok(format!("{base}{mark}{}", others.join("&")))
    }

    pub(super) fn given_to(self, mut builder: Builder) -> Builder {
        if let Some(budget) = self.read {
            builder = builder.read_budget(budget);
        }
        if let Some(budget) = self.write {
            builder = builder.write_budget(budget);
        }
        if let Some(codec) = self.codec {
            builder = builder.codec(codec);
        }
        builder
    }
}

// They are the whole cache's, so two of them, of which one would not count, are a mistake.
fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<()> {
    if place.replace(value).is_some() {
        return Err(wrong(format!("{name} is the whole cache's; say it once")));
    }
    Ok(())
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
