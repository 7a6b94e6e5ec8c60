//! Configuration.

use std::sync::Arc;

use http::HeaderName;
use tower_layer::Layer;

use super::service::VarySet;
use crate::RequestHead;
use crate::mark::{ComputedBy, VaryBy};

/// Says what responses vary on; see the [module's documentation](super).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct VaryLayer {
    by: VaryBy,
}

impl VaryLayer {
    /// Varies on nothing yet.
    pub fn new() -> Self {
        VaryLayer::default()
    }

    /// Varies on these request headers.
    pub fn headers(names: impl IntoIterator<Item = HeaderName>) -> Self {
        names.into_iter().fold(VaryLayer::new(), VaryLayer::header)
    }

    /// Also varies on that request header.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.by.headers.push(name);
        self
    }

    /// Also varies on that cookie, and on no other. `Vary: Cookie` is what others are told.
    pub fn cookie(mut self, name: &str) -> Self {
        self.by.cookies.push(name.into());
        self
    }

    /// Also varies on a value that is computed from the request. The name must be this input's own: it is what the
    /// value is stored under.
    pub fn by(
        mut self,
        name: &str,
        compute: impl Fn(RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.by.values.push(ComputedBy { name: name.into(), compute: Arc::new(compute) });
        self
    }
}

impl<S> Layer<S> for VaryLayer {
    type Service = VarySet<S>;

    fn layer(&self, inner: S) -> VarySet<S> {
        VarySet::new(inner, Arc::new(self.by.clone()))
    }
}
