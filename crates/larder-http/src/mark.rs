//! What handlers and other layers tell `CacheLayer` through extensions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::RequestHead;

/// A response extension by which a handler says how its response is cached.
///
/// ```
/// use larder_http::Caching;
/// use std::time::Duration;
///
/// let mut response = http::Response::new("[]");
/// response.extensions_mut().insert(Caching::new().ttl(Duration::from_secs(60)).tag("product:42"));
/// ```
///
/// With Axum: `(Extension(Caching::new().tag("product:42")), Json(product))`.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Caching {
    pub(crate) ttl: Option<Duration>,
    pub(crate) tags: Vec<String>,
    pub(crate) never: bool,
}

impl Caching {
    /// Nothing special: what the layer and the headers say.
    pub fn new() -> Self {
        Caching::default()
    }

    /// Do not store it.
    pub fn never() -> Self {
        Caching { never: true, ..Caching::default() }
    }

    /// With that lifetime instead of the layer's.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Also under that tag. A response with an unusable tag (empty, or more than 256 bytes) is not stored.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Also under these tags.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }
}

pub(crate) type Compute = Arc<dyn Fn(RequestHead<'_>) -> Option<String> + Send + Sync>;

/// What [`VaryLayer`](crate::VaryLayer) tells `CacheLayer` beyond the `Vary` header: one cookie instead of all, and
/// values that are computed.
#[derive(Clone, Default)]
pub(crate) struct VaryBy {
    pub(crate) headers: Vec<HeaderName>,
    pub(crate) cookies: Vec<Box<str>>,
    pub(crate) values: Vec<ComputedBy>,
}

#[derive(Clone)]
pub(crate) struct ComputedBy {
    pub(crate) name: Box<str>,
    pub(crate) compute: Compute,
}

/// In a request's extensions: the `VaryLayer`s that stand outside `CacheLayer`.
#[derive(Clone, Default)]
pub(crate) struct VaryOutside(pub(crate) Vec<Arc<VaryBy>>);

/// In a response's extensions: the `VaryLayer`s that stand inside, and the values that each computed from the request
/// that it saw itself.
#[derive(Clone, Default)]
pub(crate) struct VaryInside(pub(crate) Vec<(Arc<VaryBy>, Vec<Option<String>>)>);

/// In a request's extensions, from a [`QueryLayer`](crate::QueryLayer) outside.
#[derive(Clone, Copy)]
pub(crate) enum Queries {
    /// A hash of this QUERY's content and of what describes it.
    Content([u8; 32]),
    /// The request may change what QUERYs of its URL are answered.
    Change,
}

impl fmt::Debug for VaryBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaryBy")
            .field("headers", &self.headers)
            .field("cookies", &self.cookies)
            .field("values", &self.values.iter().map(|value| &value.name).collect::<Vec<_>>())
            .finish()
    }
}
