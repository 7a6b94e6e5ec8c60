//! How a cache is configured.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Backend, Namespace, Result};

use crate::cache::Inner;
use crate::erased::{AnyBackend, Erased};
use crate::store::{Core, Store};
use crate::{Cache, Codec};

/// Configures a [`Cache`] over a backend.
///
/// ```
/// use larder_cache::Cache;
/// use larder_memory::MemoryBackend;
/// use std::time::Duration;
///
/// let cache = Cache::builder(MemoryBackend::default())
///     .namespace("shop")?
///     .read_budget(Duration::from_millis(50))
///     .build();
/// # let _ = cache;
/// # Ok::<(), larder_core::Error>(())
/// ```
#[must_use]
pub struct Builder {
    backend: Box<dyn Erased>,
    namespace: Option<Namespace>,
    codec: Codec,
    read_budget: Duration,
    write_budget: Duration,
    strict: bool,
}

impl Builder {
    pub(crate) fn new(backend: impl Backend) -> Self {
        Builder::erased(AnyBackend::new(backend))
    }

    pub(crate) fn erased(backend: AnyBackend) -> Self {
        Builder {
            backend: backend.into_inner(),
            namespace: None,
            codec: Codec::default(),
            read_budget: Duration::from_millis(100),
            write_budget: Duration::from_millis(250),
            strict: false,
        }
    }

    /// The namespace: `larder` unless set. Applications that share a server must not share one.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](larder_core::ErrorKind::InvalidKey) when it is none.
    pub fn namespace(mut self, name: &str) -> Result<Self> {
        self.namespace = Some(Namespace::new(name)?);
        Ok(self)
    }

    /// How values are written when they leave the process.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How long one reading operation may take in all. 100 ms unless set. Local stores need none.
    pub fn read_budget(mut self, budget: Duration) -> Self {
        self.read_budget = budget;
        self
    }

    /// How long one writing operation may take in all. 250 ms unless set.
    pub fn write_budget(mut self, budget: Duration) -> Self {
        self.write_budget = budget;
        self
    }

    /// Whether every error is told, as [`Cache::strict`] does.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Makes the cache.
    pub fn build(self) -> Cache {
        let namespace = self.namespace.unwrap_or_else(default_namespace);
        let core = Core::new(self.backend, self.read_budget, self.write_budget);
        Cache::from(Inner {
            store: Store::new(Arc::new(core), namespace),
            codec: self.codec,
            strict: self.strict,
            version: None,
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

fn default_namespace() -> Namespace {
    // The literal is a namespace.
    Namespace::new("larder").unwrap_or_else(|_| unreachable!())
}
