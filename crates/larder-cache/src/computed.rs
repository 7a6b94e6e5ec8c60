//! What a computation gives.

use std::sync::Arc;

use larder_core::Ttl;

/// A computed value, and what the computation decides about it. For
/// [`get_or_compute_with`](crate::Cache::get_or_compute_with).
///
/// ```
/// use larder_cache::Computed;
/// use std::time::Duration;
///
/// let found = Computed::new(vec!["Teapot"]).ttl(Duration::from_secs(60)).tag("product:7");
/// let nothing = Computed::new(Vec::<&str>::new()).unstored();
/// # let _ = (found, nothing);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Computed<T> {
    // `None`: the previous value, unchanged.
    pub(crate) value: Option<Arc<T>>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) tags: Vec<String>,
    pub(crate) stored: bool,
}

impl<T> Computed<T> {
    /// That value.
    pub fn new(value: T) -> Self {
        Computed { value: Some(Arc::new(value)), ttl: None, tags: Vec::new(), stored: true }
    }

    /// The previous value still holds: it gets a new lifetime. An error when there was none.
    pub fn unchanged() -> Self {
        Computed { value: None, ttl: None, tags: Vec::new(), stored: true }
    }

    /// With that lifetime instead of the options'.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Under that tag too, beside the options'.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Under these tags too.
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Not stored: those who wait for it get it, and the next caller computes anew.
    pub fn unstored(mut self) -> Self {
        self.stored = false;
        self
    }
}

impl<T> From<T> for Computed<T> {
    fn from(value: T) -> Self {
        Computed::new(value)
    }
}
