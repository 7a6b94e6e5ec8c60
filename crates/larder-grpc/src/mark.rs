//! What handlers tell the cache.

use std::time::Duration;

/// A response extension by which a handler says how its answer is cached, or what it has made out of date.
///
/// ```
/// use larder_grpc::Caching;
/// use std::time::Duration;
///
/// let mut response = tonic::Response::new("a message");
/// response.extensions_mut().insert(Caching::new().ttl(Duration::from_secs(60)).tag("product:42"));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Caching {
    pub(crate) ttl: Option<Duration>,
    pub(crate) tags: Vec<String>,
    pub(crate) drops: Vec<String>,
    pub(crate) never: bool,
}

impl Caching {
    /// Nothing special: what the layer and the metadata say.
    pub fn new() -> Self {
        Caching::default()
    }

    /// Do not store it.
    pub fn never() -> Self {
        Caching { never: true, ..Caching::default() }
    }

    /// With that lifetime instead of the method's.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Also under that tag. An answer with an unusable tag (empty, or more than 256 bytes) is not stored.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Also under these tags.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// The call has changed what carries that tag: for methods that are declared as a [`Write`](crate::Write).
    pub fn drops(mut self, tag: impl Into<String>) -> Self {
        self.drops.push(tag.into());
        self
    }
}
