//! The parameters of a URL that say how values are packed on their way to a store.

use larder_core::{Backend, Result, parse};

use super::{Opened, wrong};

/// How a URL wants values to be packed.
#[derive(Default)]
pub(super) struct PackingUrl {
    compress: Option<String>,
    above: Option<usize>,
    max_unpacked: Option<usize>,
    max_ratio: Option<usize>,
    // Names of environment variables: a URL ends in logs and lists of processes, and a key must not.
    encrypt_env: Option<String>,
    sign_env: Option<String>,
}

impl PackingUrl {
    /// Takes these parameters out of a URL; it is otherwise as it was written.
    pub(super) fn taken_from(url: &str) -> Result<(String, Self)> {
        let mut packing = PackingUrl::default();
        let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), packing)) };
        let mut others = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "compress" => packing.compress = Some(value.to_owned()),
                "compress_above" => packing.above = Some(size(name, value)?),
                "max_unpacked" => packing.max_unpacked = Some(size(name, value)?),
                "max_ratio" => packing.max_ratio = Some(ratio(name, value)?),
                "encrypt_env" => packing.encrypt_env = Some(value.to_owned()),
                "sign_env" => packing.sign_env = Some(value.to_owned()),
                "encrypt" | "sign" | "key" | "keys" => {
                    return Err(wrong(
                        "a URL holds no keys, since it is shown by too many programs; put them into an environment variable and name that one: encrypt_env=NAME or sign_env=NAME",
                    ));
                }
                _ => others.push(pair),
            }
        }
        let mark = if others.is_empty() { "" } else { "?" };
        Ok((format!("{base}{mark}{}", others.join("&")), packing))
    }

    fn is_asked_for(&self) -> bool {
        self.compress.is_some() || self.encrypt_env.is_some() || self.sign_env.is_some()
    }

    /// The store, with what was asked for before it.
    pub(super) fn given_to(self, opened: Opened) -> Result<Opened> {
        let bounds = [self.above, self.max_unpacked, self.max_ratio];
        if self.compress.is_none() && bounds.iter().any(Option::is_some) {
            return Err(wrong(
                "compress_above, max_unpacked and max_ratio belong to compress; say how: compress=zstd or compress=lz4",
            ));
        }
        if !self.is_asked_for() {
            return Ok(opened);
        }
        let abilities = opened.backend.abilities();
        // What keeps nothing stands in for any store.
        if abilities.local && !abilities.forgets {
            return Err(wrong(
                "what is in memory is kept as readers use it, so nothing is compressed, signed or encrypted there; put these parameters into the URL of the store behind it",
            ));
        }
        if self.encrypt_env.is_some() && self.sign_env.is_some() {
            return Err(wrong("what is encrypted is signed by that too; take sign_env out"));
        }
        self.packed(opened)
    }

    #[cfg(not(any(feature = "zstd", feature = "lz4", feature = "encryption")))]
    fn packed(self, _: Opened) -> Result<Opened> {
        Err(match self.compress {
            Some(_) => wrong("compress needs the feature `zstd` or `lz4`, which this build lacks"),
            None => wrong(NO_ENCRYPTION),
        })
    }

    #[cfg(any(feature = "zstd", feature = "lz4", feature = "encryption"))]
    fn packed(self, opened: Opened) -> Result<Opened> {
        use crate::erased::AnyBackend;
        use crate::{Packed, Packing};

        let mut packing = Packing::new();
        if let Some(name) = &self.compress {
            packing = compressed(packing, name)?;
        }
        if let Some(bytes) = self.above {
            packing = packing.compress_above(bytes);
        }
        if let Some(bytes) = self.max_unpacked {
            packing = packing.max_unpacked(bytes);
        }
        if let Some(ratio) = self.max_ratio {
            packing = packing.max_ratio(ratio);
        }
        packing = sealed(packing, &self)?;
        let backend = AnyBackend::new(Packed::new(opened.backend, packing)?);
        Ok(Opened { backend, ..opened })
    }
}

#[cfg(any(feature = "zstd", feature = "lz4", feature = "encryption"))]
fn compressed(packing: crate::Packing, name: &str) -> Result<crate::Packing> {
    match name {
        #[cfg(feature = "zstd")]
        "zstd" => Ok(packing.compress(crate::Compression::Zstd)),
        #[cfg(feature = "lz4")]
        "lz4" => Ok(packing.compress(crate::Compression::Lz4)),
        known if ["zstd", "lz4"].contains(&known) => Err(wrong(format!(
            "compress={name} needs the feature `{name}`, which this build lacks"
        ))),
        _ => {
            drop(packing);
            Err(wrong("unknown way to compress; there are compress=zstd and compress=lz4"))
        }
    }
}

#[allow(dead_code)]
const NO_ENCRYPTION: &str =
    "encrypt_env and sign_env need the feature `encryption`, which this build lacks";

#[cfg(feature = "encryption")]
fn sealed(packing: crate::Packing, url: &PackingUrl) -> Result<crate::Packing> {
    let keys = |name: &str| {
        let text = std::env::var(name).map_err(|_| {
            wrong(
                "the environment variable that encrypt_env or sign_env names is not set; it holds the keys: `openssl rand -hex 32` makes one",
            )
        })?;
        crate::Keys::from_hex(&text)
    };
    if let Some(name) = &url.encrypt_env {
        return Ok(packing.encrypt(keys(name)?));
    }
    if let Some(name) = &url.sign_env {
        return Ok(packing.sign(keys(name)?));
    }
    Ok(packing)
}

#[cfg(all(not(feature = "encryption"), any(feature = "zstd", feature = "lz4")))]
fn sealed(packing: crate::Packing, url: &PackingUrl) -> Result<crate::Packing> {
    if url.encrypt_env.is_some() || url.sign_env.is_some() {
        return Err(wrong(NO_ENCRYPTION));
    }
    Ok(packing)
}

fn ratio(name: &str, value: &str) -> Result<usize> {
    value.parse().map_err(|_| wrong(format!("{name} is how many times larger a value may become")))
}

fn size(name: &str, value: &str) -> Result<usize> {
    // What is more than this machine can address is as good as no limit.
    parse::size(name, value).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}
