//! The layer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::{Extensions, HeaderMap, HeaderName};
use larder_cache::{Cache, Passes, Store};
use larder_core::{Key, Tag};
use larder_http_rules::{CredentialRule, Policy};
use tower_layer::Layer;

use crate::GrpcCacheBuilder;
use crate::service::Cached;

/// Caches calls; see the [crate's documentation](crate).
#[derive(Clone)]
#[must_use]
pub struct GrpcCacheLayer(pub(crate) Arc<Shared>);

/// A call as closures see it.
#[derive(Clone, Copy, Debug)]
pub struct CallHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) metadata: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
}

impl<'a> CallHead<'a> {
    /// The full method name, as `/package.Service/Method`.
    pub fn method(self) -> &'a str {
        self.method
    }

    /// The metadata.
    pub fn metadata(self) -> &'a HeaderMap {
        self.metadata
    }

    /// What outer layers put there.
    pub fn extensions(self) -> &'a Extensions {
        self.extensions
    }
}

pub(crate) type Partition = Arc<dyn Fn(CallHead<'_>) -> Option<String> + Send + Sync>;
pub(crate) type Choose = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What is known of a method that is cached.
pub(crate) struct Rule {
    pub(crate) ttl: Option<Duration>,
    pub(crate) tags: Vec<Tag>,
    /// Metadata that are parts of the key.
    pub(crate) keyed: Vec<HeaderName>,
    pub(crate) credentials: CredentialRule,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_on_unavailable: Duration,
    #[cfg(feature = "descriptor")]
    pub(crate) input: Option<prost_reflect::MessageDescriptor>,
}

/// What a layer was told.
pub(crate) struct Config {
    pub(crate) store: Store,
    /// How the keys of its calls begin.
    pub(crate) room: Key,
    /// It is around a client's channel.
    pub(crate) client: bool,
    /// What counts as a credential, and as an override.
    pub(crate) policy: Policy,
    pub(crate) reads: HashMap<Box<str>, Arc<Rule>, RandomState>,
    pub(crate) chosen: Option<(Choose, Arc<Rule>)>,
    pub(crate) writes: HashMap<Box<str>, Vec<Tag>, RandomState>,
    pub(crate) partition: Option<Partition>,
    /// An answer that says `public` or `s-maxage` is shared by callers with credentials.
    pub(crate) public: bool,
    /// Metadata that the handler sees and that are no parts of the key.
    pub(crate) seen: Vec<HeaderName>,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) tag_fields: Vec<HeaderName>,
    pub(crate) status_name: Option<Arc<str>>,
    pub(crate) max_message: usize,
    pub(crate) max_head: usize,
    pub(crate) wait: Duration,
    pub(crate) deadline: Duration,
    pub(crate) pass_for: Duration,
}

/// What all services made by one layer share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) passes: Passes,
    /// Calls whose handler was not available a moment ago, and for which something stale stands in.
    pub(crate) resting: Passes,
}

impl GrpcCacheLayer {
    /// A layer for services, in that cache's store and namespace.
    pub fn builder(cache: &Cache) -> GrpcCacheBuilder {
        GrpcCacheBuilder::new(cache, None)
    }

    /// A layer for clients of a server. Their keys are under the server's name and apart from those of
    /// [`builder`](GrpcCacheLayer::builder): what a server stores for its callers is not what a client stores of a server.
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use larder_grpc::{GrpcCacheLayer, Read};
    /// use std::time::Duration;
    ///
    /// let layer = GrpcCacheLayer::client(&Cache::memory(), "catalog.internal")
    ///     .read(Read::new("/catalog.Catalog/Get").ttl(Duration::from_secs(60)))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), larder_core::Error>(())
    /// ```
    pub fn client(cache: &Cache, server: &str) -> GrpcCacheBuilder {
        GrpcCacheBuilder::new(cache, Some(server))
    }
}

impl<S> Layer<S> for GrpcCacheLayer {
    type Service = Cached<S>;

    fn layer(&self, inner: S) -> Cached<S> {
        Cached::new(inner, self.0.clone())
    }
}

impl fmt::Debug for GrpcCacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.0.config;
        f.debug_struct("GrpcCacheLayer")
            .field("store", &config.store)
            .field("reads", &config.reads.keys())
            .field("writes", &config.writes.keys())
            .finish_non_exhaustive()
    }
}
