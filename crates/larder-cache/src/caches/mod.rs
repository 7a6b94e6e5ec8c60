//! Several caches by their names.

mod advice;
mod settings;

use std::collections::BTreeMap;
use std::fmt;

use larder_core::{Error, ErrorKind, Result};

pub use advice::{Advice, Risk};
pub use settings::{CacheSettings, CachesSettings};

use crate::Cache;

/// An application's caches, each under its name: `default`, `sessions`, `fragments`, whatever it needs. What Django's
/// `CACHES` is.
///
/// ```
/// # #[cfg(all(feature = "memory", feature = "toml"))]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use larder_cache::{Caches, CachesSettings};
///
/// let settings = CachesSettings::from_toml(
///     r#"
///     processes = 1
///
///     [caches.default]
///     url = "memory://?max_bytes=64MiB"
///
///     [caches.sessions]
///     url = "memory://?max_bytes=32MiB"
///     sessions = true
///     "#,
/// )?;
/// let caches = Caches::connect(&settings.with_environment()?).await?;
/// caches.get("default")?.set("greeting", "hello".to_owned()).await?;
/// for advice in caches.advice() {
///     println!("{advice}"); // here: that sessions end with the process
/// }
/// # Ok::<(), larder_core::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Caches {
    caches: BTreeMap<String, Cache>,
    advice: Vec<Advice>,
}

impl Caches {
    /// Connects to all of them, and looks at what the set-up risks: see [`advice`](Caches::advice).
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) and whatever [`Cache::connect`] meets, with the name of the cache and
    /// of the setting before it. No error holds a URL, which may carry a password.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, what was connected is closed.
    pub async fn connect(settings: &CachesSettings) -> Result<Caches> {
        let (mut caches, mut advice) = (BTreeMap::new(), Vec::new());
        if settings.processes == Some(0) {
            let words = "the setting `processes` is how many there are, at least 1";
            return Err(Error::new(ErrorKind::Configuration, words));
        }
        for (name, one) in &settings.caches {
            let url = one.resolved(name)?;
            let opened = Cache::builder_at(&url).await;
            let (builder, near_without_bus) =
                opened.map_err(|error| within(name, one.url_setting(), error))?;
            let cache = one.given_to(name, builder)?.build();
            if one.sessions {
                let abilities = cache.store().abilities();
                if abilities.splits || abilities.forgets || !abilities.read_delay.is_zero() {
                    let words = "sessions cannot live in a store that another one stands in for, that keeps nothing, or that is read from replicas; name another one, or read=primary";
                    let error = Error::new(ErrorKind::Configuration, words);
                    return Err(within(name, "sessions", error));
                }
            }
            advice::look(&mut advice, settings, name, &url, &cache, near_without_bus);
            caches.insert(name.clone(), cache);
        }
        advice::compare(&mut advice, settings);
        advice.iter().for_each(Advice::trace);
        Ok(Caches { caches, advice })
    }

    /// The cache of that name.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is none; the words say which there are.
    pub fn get(&self, name: &str) -> Result<&Cache> {
        self.caches.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            let words = match known[..] {
                [] => format!("there is no cache `{name}`: the configuration names none"),
                _ => format!("there is no cache `{name}`; there are {}", known.join(", ")),
            };
            Error::new(ErrorKind::Configuration, words)
        })
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.caches.keys().map(String::as_str)
    }

    /// What this set-up risks. It was written to the log once, as warnings, when the caches were connected.
    pub fn advice(&self) -> &[Advice] {
        &self.advice
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("names", &self.caches.keys().collect::<Vec<_>>())
            .field("advice", &self.advice)
            .finish()
    }
}

// Says of which cache and which setting it is.
fn within(name: &str, setting: &str, error: Error) -> Error {
    let words = format!("cache `{name}`, setting `{setting}`: {error}");
    Error::new(error.kind(), words).with_source(error)
}
