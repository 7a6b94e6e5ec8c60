//! The structure that names caches, and where it is read from.

use std::collections::BTreeMap;
use std::fmt;

use larder_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::within;
use crate::Builder;
use crate::connect::{budget, codec};

/// Every cache of an application. Any format that serde reads will do; TOML (feature `toml`) and the environment are
/// here.
///
/// In TOML:
///
/// ```toml
/// processes = 4 # that use these caches at the same time; unknown unless set
///
/// [caches.default]
/// url = "tiered:memory://?max_bytes=64MiB|redis://cache.internal/0?namespace=shop"
/// read_budget = "50ms"
///
/// [caches.sessions]
/// url_env = "SESSIONS_URL" # where the URL has a password
/// sessions = true
/// ```
///
/// In the environment: `LARDER_PROCESSES=4`, `LARDER_CACHE_DEFAULT=redis://…` is the URL of `default`, and
/// `LARDER_CACHE_DEFAULT__READ_BUDGET=50ms` one of its other settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CachesSettings {
    /// How many processes use these caches at the same time. Unknown unless set; advice depends on it.
    #[serde(default)]
    pub processes: Option<u32>,
    /// The caches by their names: lower-case letters, digits and `_`.
    #[serde(default)]
    pub caches: BTreeMap<String, CacheSettings>,
}

/// One cache.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheSettings {
    /// What [`Cache::connect`](crate::Cache::connect) takes. Each cache has this or `url_env`.
    #[serde(default)]
    pub url: Option<String>,
    /// The name of an environment variable that holds the URL: for one with a password.
    #[serde(default)]
    pub url_env: Option<String>,
    /// How values are written: `messagepack`, `json` or `postcard`. As the URL says unless set.
    #[serde(default)]
    pub codec: Option<String>,
    /// How long one reading operation may take in all, as `100ms`. As the URL says unless set.
    #[serde(default)]
    pub read_budget: Option<String>,
    /// How long one writing operation may take in all, as `250ms`. As the URL says unless set.
    #[serde(default)]
    pub write_budget: Option<String>,
    /// Whether every error is told, as [`Cache::strict`](crate::Cache::strict) does. No unless set.
    #[serde(default)]
    pub strict: bool,
    /// Whether sessions are kept there: such a store is looked at more closely. No unless set.
    #[serde(default)]
    pub sessions: bool,
}

const PREFIX: &str = "LARDER_CACHE_";

impl CachesSettings {
    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is none or names an unknown setting. The words name the line
    /// and never repeat it, since it may hold a password.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            // What the parser quotes of an unknown name stands between backquotes; what it says of a value may be one.
            let message = error.message().lines().next().unwrap_or_default();
            let told =
                if message.starts_with("unknown field") || message.starts_with("missing field") {
                    format!("line {line} of the caches' TOML: {message}")
                } else {
                    format!("line {line} of the caches' TOML is not what is expected there")
                };
            wrong(told)
        })
    }

    /// With what the environment says: its variables come before what was there.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when one of ours cannot be; the words name it.
    pub fn with_environment(self) -> Result<Self> {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("LARDER_"))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        self.with_variables(ours)
    }

    /// The same from any list of variables.
    ///
    /// # Errors
    ///
    /// As [`with_environment`](CachesSettings::with_environment).
    pub fn with_variables(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        for (variable, value) in variables {
            if variable == "LARDER_PROCESSES" {
                let processes = value.parse().ok().filter(|count| *count > 0);
                let words = || wrong("LARDER_PROCESSES is a number of processes, at least 1");
                self.processes = Some(processes.ok_or_else(words)?);
                continue;
            }
            let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
            let (name, setting) = rest.split_once("__").unwrap_or((rest, "URL"));
            let one = self.caches.entry(name.to_ascii_lowercase()).or_default();
            let flag = || value.parse().map_err(|_| wrong(format!("{variable} is true or false")));
            match setting {
                "URL" => (one.url, one.url_env) = (Some(value), None),
                "URL_ENV" => (one.url, one.url_env) = (None, Some(value)),
                "CODEC" => one.codec = Some(value),
                "READ_BUDGET" => one.read_budget = Some(value),
                "WRITE_BUDGET" => one.write_budget = Some(value),
                "STRICT" => one.strict = flag()?,
                "SESSIONS" => one.sessions = flag()?,
                _ => {
                    return Err(wrong(format!(
                        "{variable} names an unknown setting; after {PREFIX}{name}__ there are URL, URL_ENV, CODEC, READ_BUDGET, WRITE_BUDGET, STRICT and SESSIONS"
                    )));
                }
            }
        }
        Ok(self)
    }

    /// With a cache of that name, in the place of another one.
    #[must_use]
    pub fn with(mut self, name: &str, cache: CacheSettings) -> Self {
        self.caches.insert(name.to_owned(), cache);
        self
    }
}

impl CacheSettings {
    /// A cache at a URL, and nothing else said.
    pub fn new(url: &str) -> Self {
        CacheSettings { url: Some(url.to_owned()), ..CacheSettings::default() }
    }

    /// For sessions.
    #[must_use]
    pub fn for_sessions(mut self) -> Self {
        self.sessions = true;
        self
    }

    // Which of the two settings is to blame.
    pub(super) fn url_setting(&self) -> &'static str {
        if self.url_env.is_some() { "url_env" } else { "url" }
    }

    /// The URL itself.
    pub(super) fn resolved(&self, name: &str) -> Result<String> {
        let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        if name.is_empty() || !name.bytes().all(letters) {
            return Err(wrong("the name of a cache has lower-case letters, digits and _"));
        }
        match (&self.url, &self.url_env) {
            (Some(url), None) => Ok(url.clone()),
            (None, Some(variable)) => std::env::var(variable).map_err(|_| {
                within(name, "url_env", wrong("the environment variable that it names is not set"))
            }),
            (Some(_), Some(_)) => {
                Err(within(name, "url_env", wrong("there is a url too; take one of them out")))
            }
            (None, None) => Err(within(
                name,
                "url",
                wrong("it is missing; write for instance url = \"memory://\""),
            )),
        }
    }

    /// The settings beside the URL.
    pub(super) fn given_to(&self, name: &str, mut builder: Builder) -> Result<Builder> {
        if let Some(value) = &self.codec {
            builder = builder.codec(codec(value).map_err(|error| within(name, "codec", error))?);
        }
        if let Some(value) = &self.read_budget {
            let time = budget("read_budget", value);
            builder =
                builder.read_budget(time.map_err(|error| within(name, "read_budget", error))?);
        }
        if let Some(value) = &self.write_budget {
            let time = budget("write_budget", value);
            builder =
                builder.write_budget(time.map_err(|error| within(name, "write_budget", error))?);
        }
        Ok(builder.strict(self.strict))
    }
}

// The URL may hold a password.
impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheSettings")
            .field("url", &self.url.as_ref().map(|_| "…"))
            .field("url_env", &self.url_env)
            .field("codec", &self.codec)
            .field("read_budget", &self.read_budget)
            .field("write_budget", &self.write_budget)
            .field("strict", &self.strict)
            .field("sessions", &self.sessions)
            .finish()
    }
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words)
}
