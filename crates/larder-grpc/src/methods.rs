//! What is declared about methods.

use std::time::Duration;

use http::HeaderName;
use larder_core::{Error, ErrorKind, Result};

/// A unary method without side effects, whose answers are cached.
///
/// ```
/// use larder_grpc::Read;
/// use http::header::ACCEPT_LANGUAGE;
/// use std::time::Duration;
///
/// let get = Read::new("/catalog.Catalog/Get")
///     .ttl(Duration::from_secs(60))
///     .tag("products")
///     .metadata(ACCEPT_LANGUAGE);
/// # let _ = get;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Read {
    pub(crate) method: String,
    pub(crate) ttl: Option<Duration>,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Vec<HeaderName>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_on_unavailable: Option<Duration>,
}

impl Read {
    /// The method of that full name, as `/package.Service/Method`.
    pub fn new(method: impl Into<String>) -> Self {
        Read {
            method: method.into(),
            ttl: None,
            tags: Vec::new(),
            metadata: Vec::new(),
            stale_while_revalidate: None,
            stale_on_unavailable: None,
        }
    }

    /// The lifetime of its answers, instead of the layer's. It comes before the answer's own `max-age`; an answer that
    /// restricts itself (`no-store`, `private`, `no-cache`, `max-age=0`) is obeyed all the same.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Its answers also carry that tag. Empty, or longer than 256 bytes, fails in
    /// [`build`](crate::GrpcCacheBuilder::build).
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// That metadata is part of the key, and the handler sees it. What is declared nowhere is taken out of calls that
    /// fill the cache. A credential that is declared here (`authorization`, …) is cached for each of its values.
    pub fn metadata(mut self, name: HeaderName) -> Self {
        self.metadata.push(name);
        self
    }

    /// For so long after its end an answer is still given, while a new one is fetched behind.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// For so long after its end an answer stands in for a handler that is `UNAVAILABLE`.
    pub fn stale_on_unavailable(mut self, window: Duration) -> Self {
        self.stale_on_unavailable = Some(window);
        self
    }
}

impl<T: Into<String>> From<T> for Read {
    fn from(method: T) -> Self {
        Read::new(method)
    }
}

/// A method that changes something: its success drops tags.
///
/// The caller sees the end of its answer when the tags are dropped. A call of which it is not known what became, since
/// its caller went away or the connection broke, drops them too; one that failed drops nothing. A handler adds tags with
/// [`Caching::drops`](crate::Caching::drops).
///
/// ```
/// use larder_grpc::Write;
///
/// let update = Write::new("/catalog.Catalog/Update").drops("products");
/// # let _ = update;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Write {
    pub(crate) method: String,
    pub(crate) drops: Vec<String>,
}

impl Write {
    /// The method of that full name, as `/package.Service/Method`.
    pub fn new(method: impl Into<String>) -> Self {
        Write { method: method.into(), drops: Vec::new() }
    }

    /// Its success drops everything that carries that tag, in the whole cache: calls, responses and values.
    pub fn drops(mut self, tag: impl Into<String>) -> Self {
        self.drops.push(tag.into());
        self
    }
}

/// A configuration that cannot work.
pub(crate) fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words)
}

/// Checks the form of a full method name.
pub(crate) fn check(method: &str) -> Result<()> {
    let word = |text: &str, dots: bool| {
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || (dots && c == b'.');
        !text.is_empty() && text.bytes().all(good)
    };
    let parts = method.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    match parts {
        Some((service, name)) if word(service, true) && word(name, false) => Ok(()),
        _ => Err(wrong(format!(
            "{method:?} is no method: write its full name as \"/package.Service/Method\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn method_names_are_whole() {
        for good in ["/catalog.Catalog/Get", "/Catalog/Get", "/a.b_2.C/D_3"] {
            super::check(good).unwrap();
        }
        for bad in [
            "",
            "/",
            "Get",
            "catalog.Catalog/Get",
            "/catalog.Catalog",
            "//Get",
            "/a.B/",
            "/a.B/C/D",
            "/a B/C",
            "/a.B/C.D",
            "/a.B/C?",
        ] {
            let words = super::check(bad).unwrap_err().to_string();
            assert!(words.contains("/package.Service/Method"), "{bad:?}: {words}");
        }
    }
}
