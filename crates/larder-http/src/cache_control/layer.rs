//! Configuration.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use larder_core::Clock;
use larder_http_rules::CacheControl;
use tower_layer::Layer;

use super::service::ControlSet;

/// Says how others may cache; see the [module's documentation](super).
#[derive(Clone, Debug)]
#[must_use]
pub struct CacheControlLayer {
    value: CacheControl,
    targeted: Vec<(HeaderName, CacheControl)>,
    clock: Clock,
}

impl CacheControlLayer {
    /// Adds these directives.
    pub fn new(value: CacheControl) -> Self {
        CacheControlLayer { value, targeted: Vec::new(), clock: Clock::system() }
    }

    /// `public`: everybody may keep it, whatever credentials the request carried.
    pub fn public() -> Self {
        CacheControlLayer::new(CacheControl::new().public())
    }

    /// `private`: only the visitor's own cache may keep it.
    pub fn private() -> Self {
        CacheControlLayer::new(CacheControl::new().private())
    }

    /// `no-store`: nobody may keep it.
    pub fn no_store() -> Self {
        CacheControlLayer::new(CacheControl::new().no_store())
    }

    /// Everything that keeps caches of all ages from keeping it.
    pub fn never_cache() -> Self {
        CacheControlLayer::new(CacheControl::never())
    }

    fn with(mut self, change: impl FnOnce(CacheControl) -> CacheControl) -> Self {
        self.value = change(self.value);
        self
    }

    /// `max-age`: fresh for so long. Whole seconds count.
    pub fn max_age(self, lifetime: Duration) -> Self {
        self.with(|value| value.max_age(lifetime))
    }

    /// `s-maxage`: fresh for so long in shared caches.
    pub fn s_maxage(self, lifetime: Duration) -> Self {
        self.with(|value| value.s_maxage(lifetime))
    }

    /// `no-cache`: ask before every use.
    pub fn no_cache(self) -> Self {
        self.with(CacheControl::no_cache)
    }

    /// `must-revalidate`: never use it stale.
    pub fn must_revalidate(self) -> Self {
        self.with(CacheControl::must_revalidate)
    }

    /// `immutable` (RFC 8246): it does not change while it is fresh.
    pub fn immutable(self) -> Self {
        self.with(CacheControl::immutable)
    }

    /// `stale-while-revalidate` (RFC 5861): to be used so long past its lifetime while it is fetched anew.
    pub fn stale_while_revalidate(self, window: Duration) -> Self {
        self.with(|value| value.stale_while_revalidate(window))
    }

    /// `stale-if-error` (RFC 5861): to be used so long past its lifetime when fetching it anew fails.
    pub fn stale_if_error(self, window: Duration) -> Self {
        self.with(|value| value.stale_if_error(window))
    }

    /// Says something else to one kind of cache, in a field of its own (RFC 9213): `CDN-Cache-Control` for all CDNs, or the
    /// one that a CDN calls its own. Caches that know the field obey it alone.
    ///
    /// Where the handler set that field itself, it stays. Where the response forbids others to keep or to use it
    /// (`no-store`, `private`, `no-cache`, a lifetime of zero) nothing is added, or the CDN would be allowed what the
    /// handler denied everybody.
    ///
    /// ```
    /// use http::{HeaderName, Request, Response};
    /// use larder_http::CacheControlLayer;
    /// use larder_http::rules::CacheControl;
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let day = CacheControl::new().max_age(Duration::from_secs(86_400));
    /// let service = CacheControlLayer::public()
    ///     .max_age(Duration::from_secs(60))
    ///     .targeted(HeaderName::from_static("cdn-cache-control"), day)
    ///     .layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new("hello")) }));
    /// let response = service.oneshot(Request::new(())).await.unwrap();
    /// assert_eq!(response.headers()["cache-control"], "public, max-age=60");
    /// assert_eq!(response.headers()["cdn-cache-control"], "max-age=86400");
    /// # });
    /// ```
    pub fn targeted(mut self, field: HeaderName, value: CacheControl) -> Self {
        self.targeted.push((field, value));
        self
    }

    /// The clock, for tests: a handler's `Expires` is compared with it.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

impl<S> Layer<S> for CacheControlLayer {
    type Service = ControlSet<S>;

    fn layer(&self, inner: S) -> ControlSet<S> {
        ControlSet::new(
            inner,
            Arc::new(Control {
                value: self.value.clone(),
                targeted: self.targeted.clone(),
                clock: self.clock.clone(),
            }),
        )
    }
}

/// What all services made by one layer share.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) value: CacheControl,
    pub(super) targeted: Vec<(HeaderName, CacheControl)>,
    pub(super) clock: Clock,
}
