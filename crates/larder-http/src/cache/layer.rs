//! Configuration.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderName, StatusCode};
use larder_cache::{Cache, Passes, Store};
use larder_core::{Key, Tag, Ttl};
use larder_http_rules::authority::Scheme;
use larder_http_rules::query::QueryRule;
use larder_http_rules::{Policy, RouteRule};
use tokio::sync::Semaphore;
use tower_layer::Layer;

use super::admission::Admission;
use super::explain::Secret;
use super::key;
use super::purge::Purger;
use super::searches::Searches;
use super::service::Cached;
use super::shadow::{Difference, Report};
use super::variants::{Computed, List};
use crate::RequestHead;

/// Caches responses; see the [module's documentation](super).
#[derive(Clone)]
#[must_use]
pub struct CacheLayer {
    config: Config,
    // Made once: some routers apply a layer anew for every request.
    shared: Arc<OnceLock<Arc<Shared>>>,
}

pub(super) type Partition = Arc<dyn Fn(RequestHead<'_>) -> Option<String> + Send + Sync>;

/// What a layer was told.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) store: Store,
    /// How the keys of its responses begin.
    pub(super) room: Key,
    pub(super) policy: Policy,
    pub(super) route: RouteRule,
    pub(super) tags: Vec<Tag>,
    /// These and their lasting twins: all that an entry may depend on.
    pub(super) watched: Vec<Tag>,
    pub(super) tag_fields: Vec<HeaderName>,
    pub(super) query: QueryRule,
    pub(super) scheme: Scheme,
    pub(super) partition: Option<Partition>,
    /// What every response of the route varies on, besides its own `Vary`.
    pub(super) base: List,
    pub(super) status_name: Option<Arc<str>>,
    pub(super) explain: Option<Secret>,
    pub(super) shadow: Option<Report>,
    pub(super) admit_after: u32,
    pub(super) max_body: u64,
    pub(super) max_chunked: u64,
    pub(super) max_head: usize,
    pub(super) max_variants: usize,
    pub(super) wait: Duration,
    pub(super) max_waiting: usize,
    pub(super) max_fills: usize,
    pub(super) deadline: Duration,
    pub(super) pass_for: Duration,
}

/// What all services made by one layer share.
pub(super) struct Shared {
    pub(super) config: Config,
    /// The list of most responses: that of the route.
    pub(super) base: Arc<List>,
    pub(super) computed: Computed,
    pub(super) passes: Passes,
    /// Those that turned out to be too large on the way.
    pub(super) large: Passes,
    pub(super) searches: Searches,
    pub(super) admission: Admission,
    /// Room for so many fills.
    pub(super) fills: Arc<Semaphore>,
    /// URLs whose handler has just failed, and for which stale responses stand in.
    pub(super) resting: Passes,
}

impl CacheLayer {
    /// Caches in that cache's store and namespace, with the safe defaults of an application.
    pub fn new(cache: &Cache) -> Self {
        CacheLayer {
            config: Config {
                store: cache.store().clone(),
                room: key::room(cache.store().namespace()),
                policy: Policy::application(),
                route: RouteRule::default(),
                tags: Vec::new(),
                watched: Vec::new(),
                tag_fields: Vec::new(),
                query: QueryRule::new(),
                scheme: Scheme::Http,
                partition: None,
                base: List::default(),
                status_name: None,
                explain: None,
                shadow: None,
                admit_after: 1,
                max_body: 1024 * 1024,
                max_chunked: 0,
                max_head: 32 * 1024,
                max_variants: 32,
                wait: Duration::from_secs(3),
                max_waiting: 10_000,
                max_fills: 1_000,
                deadline: Duration::from_secs(30),
                pass_for: Duration::from_secs(120),
            },
            shared: Arc::default(),
        }
    }

    // What is told after a first use is for those services that are made from here on.
    fn change(&mut self) -> &mut Config {
        self.shared = Arc::default();
        &mut self.config
    }

    /// The rules: [`Policy::application`] unless set, [`Policy::rfc9111`] for a proxy, or any of their parts changed.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.change().policy = policy;
        self
    }

    /// The lifetime of this route's responses. It comes before the response's own `max-age`; a response that restricts
    /// itself (`no-store`, `private`, `no-cache`, `max-age=0`, …) is obeyed all the same.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.change().route.ttl = Some(ttl);
        self
    }

    /// The lifetime of responses that do not state one.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.change().route.default_ttl = Some(ttl);
        self
    }

    /// Every response of this route also carries that tag.
    ///
    /// # Panics
    ///
    /// When the tag is empty or longer than 256 bytes.
    pub fn tag(mut self, tag: &str) -> Self {
        let tag = Tag::new(tag).unwrap_or_else(|error| panic!("CacheLayer::tag: {error}"));
        self.change().watched.extend([tag.lasting(), tag.clone()]);
        self.change().tags.push(tag);
        self
    }

    /// Responses also carry the tags that they name in this field, apart by white space or commas: `Surrogate-Key` or
    /// `Cache-Tag`, as CDNs read them. A response with an unusable tag (more than 256 bytes) is not stored. The field
    /// goes to the client as it came.
    ///
    /// ```
    /// use http::HeaderName;
    /// use larder_cache::Cache;
    /// use larder_http::CacheLayer;
    ///
    /// let field = HeaderName::from_static("surrogate-key");
    /// let layer = CacheLayer::new(&Cache::memory()).tags_from(field);
    /// # let _ = layer;
    /// ```
    pub fn tags_from(mut self, field: HeaderName) -> Self {
        self.change().tag_fields.push(field);
        self
    }

    /// Also stores responses of these statuses, of those that the policy leaves to routes: 204, 302, 303 and 307, and
    /// for at most ten seconds 404, 405 and 410.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.change().route.statuses.extend(statuses);
        self
    }

    /// No cookie changes this route's responses: requests with cookies share what is stored.
    pub fn shared_despite_cookies(mut self) -> Self {
        self.change().route.credentials.shared_cookies = true;
        self
    }

    /// These cookies change nothing: they are removed before the handler runs. A final `*` matches any ending.
    pub fn ignore_cookies<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Self {
        for pattern in patterns {
            self.change().route.credentials =
                self.change().route.credentials.clone().ignore_cookie(pattern);
        }
        self
    }

    /// This cookie's value is part of the key, and no other cookie may change the response.
    pub fn cookie(mut self, name: &str) -> Self {
        self.change().route.credentials = self.config.route.credentials.clone().keyed_cookie(name);
        self.change().base.cookies.push(name.into());
        self.change().base.normalise();
        self
    }

    /// Keeps a cache for each identity that `identify` finds in a request, for instance in an extension that an outer
    /// layer made. With this, requests that carry credentials are stored and answered, each identity for itself;
    /// `None` is an identity too. It must tell apart everybody whose answers differ.
    pub fn partition_by(
        mut self,
        identify: impl Fn(RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.change().route.credentials = self.config.route.credentials.clone().partition();
        self.change().partition = Some(Arc::new(identify));
        self
    }

    /// Only these parameters of a query matter: all others are taken out before the handler runs, so nobody can make it
    /// answer, or the cache store, anything else by them. A final `*` matches any ending.
    pub fn only_query<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let rule = std::mem::take(&mut self.change().query);
        self.change().query = rule.only(names);
        self
    }

    /// These parameters of a query change nothing: they are taken out before the handler runs. A final `*` matches any
    /// ending.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Full};
    /// use larder_cache::Cache;
    /// use larder_http::CacheLayer;
    /// use std::convert::Infallible;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let layer = CacheLayer::new(&Cache::memory()).ignore_query(["utm_*", "fbclid"]).sort_query();
    /// let service = layer.layer(service_fn(|request: Request<Full<bytes::Bytes>>| async move {
    ///     let seen = request.uri().to_string();
    ///     Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(seen))))
    /// }));
    /// let request = Request::get("http://shop.example/list?sort=price&page=2&utm_source=mail");
    /// let response = service.oneshot(request.body(Full::default()).unwrap()).await.unwrap();
    /// let body = response.into_body().collect().await.unwrap().to_bytes();
    /// assert_eq!(body, "http://shop.example/list?page=2&sort=price");
    /// # });
    /// ```
    pub fn ignore_query<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let rule = std::mem::take(&mut self.change().query);
        self.change().query = rule.ignore(names);
        self
    }

    /// The order of a query's parameters changes nothing: the handler sees them sorted by name, those of one name in
    /// their order.
    pub fn sort_query(mut self) -> Self {
        let rule = std::mem::take(&mut self.change().query);
        self.change().query = rule.sorted();
        self
    }

    /// The service is reached by `https`: the scheme of requests whose target does not name one. It is part of the
    /// key, and decides which port goes without saying.
    pub fn https(mut self) -> Self {
        self.change().scheme = Scheme::Https;
        self
    }

    /// Tells every client in `Cache-Status` (RFC 9211), under that name, whether its answer came from here, and why
    /// not. Off unless set: it tells strangers too.
    pub fn cache_status(mut self, name: &str) -> Self {
        self.change().status_name = Some(name.into());
        self
    }

    /// Shows how a request was decided to whoever sends this secret in `Larder-Explain`: `Larder-Verdict` says what was
    /// decided and by which rule, with its section of the RFC, the sum of the freshness, where the answer came from and
    /// how many others waited for it; `Larder-Key`, what it was looked up by. The secret does not reach the handler, and
    /// nobody else sees either field. Off unless set.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use larder_cache::Cache;
    /// use larder_http::CacheLayer;
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let layer = CacheLayer::new(&Cache::memory()).ttl(Duration::from_secs(60)).explain("s3cret");
    /// let service = layer.layer(service_fn(|_: Request<Full<&[u8]>>| async {
    ///     Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from("[]"))))
    /// }));
    /// let verdict = async || {
    ///     let request = Request::get("http://shop.example/list").header("larder-explain", "s3cret");
    ///     let response = service.clone().oneshot(request.body(Full::default()).unwrap()).await.unwrap();
    ///     response.headers()["larder-verdict"].to_str().unwrap().to_owned()
    /// };
    /// assert_eq!(
    ///     verdict().await,
    ///     r#"forward=uri-miss; handler=200; stored; rule=miss; section="RFC 9111 4""#
    /// );
    /// assert!(verdict().await.starts_with("hit; tier=near; store=memory; lifetime=60; source=route; age=0; ttl=60"));
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// When the secret is empty, which everybody would know.
    pub fn explain(mut self, secret: &str) -> Self {
        assert!(
            !secret.is_empty(),
            "CacheLayer::explain: the secret is empty; give one, or leave the call out"
        );
        self.change().explain = Some(Secret::new(secret));
        self
    }

    /// Runs in the shadow of the handler: everything is stored and looked up as in earnest, but every request gets the
    /// handler's own answer. A hit whose status or body differs from it is told to `report`, and to the log: a `Vary`
    /// that is missing, a cookie that was not declared, a lifetime that is too long show themselves before anybody is
    /// hurt by them.
    ///
    /// Bodies are compared as they pass. What the route ignores is taken out of requests as in earnest. Answers to
    /// conditions and ranges, and to HEAD but for the status, are not compared.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Full};
    /// use larder_cache::Cache;
    /// use larder_http::CacheLayer;
    /// use std::convert::Infallible;
    /// use std::sync::{Arc, Mutex};
    /// use std::time::Duration;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let found = Arc::new(Mutex::new(Vec::new()));
    /// let finding = found.clone();
    /// let layer = CacheLayer::new(&Cache::memory())
    ///     .ttl(Duration::from_secs(60))
    ///     .shadow(move |difference| finding.lock().unwrap().push(difference.to_string()));
    /// // It greets in the visitor's language and does not say so.
    /// let service = layer.layer(service_fn(|request: Request<Full<bytes::Bytes>>| async move {
    ///     let language = request.headers()["accept-language"].as_bytes().to_vec();
    ///     Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(language))))
    /// }));
    /// for language in ["de", "fr"] {
    ///     let request = Request::get("http://shop.example/hi").header("accept-language", language);
    ///     let response = service.clone().oneshot(request.body(Full::default()).unwrap()).await.unwrap();
    ///     assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), language);
    /// }
    /// assert_eq!(*found.lock().unwrap(), ["GET /hi: the bodies differ from byte 0 on"]);
    /// # });
    /// ```
    pub fn shadow(mut self, report: impl Fn(&Difference) + Send + Sync + 'static) -> Self {
        self.change().shadow = Some(Arc::new(report));
        self
    }

    /// A response is stored only when its URL is asked for that often: what is asked for once is not worth the room.
    /// 1, so at once, unless set. Those who wait for the same fill have it anyway. Counted on this node, for the
    /// 16,384 URLs asked for last.
    pub fn admit_after(mut self, requests: u32) -> Self {
        self.change().admit_after = requests;
        self
    }

    /// The largest body that is stored in one entry, 1 MiB unless set. A larger one is passed on as it comes, unless it
    /// may be stored in [chunks](CacheLayer::max_chunked_bytes).
    pub fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.change().max_body = bytes;
        self
    }

    /// The largest body that is stored in chunks of 512 KiB, each an entry of its own, where it is too large for
    /// [one entry](CacheLayer::max_body_bytes). 0 unless set: none. For stores that have more room than memory: files,
    /// databases, servers.
    ///
    /// Neither storing nor serving has more than a few chunks of it in memory. While it is stored, the client that began
    /// the fill gets it at the store's pace, and all others go to the handler; a store that fails or takes longer than
    /// [`fill_deadline`](CacheLayer::fill_deadline) in all is left out, and the client served on. Hits, HEAD, conditions
    /// and single ranges are answered from the chunks, a request for several ranges with the whole.
    ///
    /// A chunk that the store has lost makes a miss; one that is lost while it is served breaks the response off
    /// ([`BrokenOff`](super::BrokenOff)), and the next request is a miss. Such a response is kept for a day at most, from
    /// when it was stored or validated. What is invalidated or purged meanwhile is not served any more, but its chunks
    /// take room in the store until then.
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use larder_http::CacheLayer;
    /// use std::time::Duration;
    ///
    /// let cache = Cache::memory();
    /// let films = CacheLayer::new(&cache)
    ///     .ttl(Duration::from_secs(3600))
    ///     .max_chunked_bytes(4 << 30)
    ///     .fill_deadline(Duration::from_secs(600));
    /// # let _ = films;
    /// ```
    pub fn max_chunked_bytes(mut self, bytes: u64) -> Self {
        self.change().max_chunked = bytes;
        self
    }

    /// The largest response head that is stored, 32 KiB unless set.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.change().max_head = bytes;
        self
    }

    /// How many variants of one URL are kept, 32 unless set; the oldest goes.
    pub fn max_variants(mut self, variants: usize) -> Self {
        self.change().max_variants = variants.max(1);
        self
    }

    /// How long a request waits for another one's fill before it asks the handler itself, or, where the body has begun to
    /// come and does not say how long it will be, reads along. 3 s unless set.
    ///
    /// A body that then turns out to be larger than [what is stored](CacheLayer::max_body_bytes) is sent on to all who
    /// read it. Those who are that many bytes behind the first of them are waited for, all in all that long, and then
    /// get an error ([`BrokenOff`](super::BrokenOff)).
    pub fn wait(mut self, wait: Duration) -> Self {
        self.change().wait = wait.min(Ttl::MAX);
        self
    }

    /// How many requests wait for one fill; those beyond ask the handler themselves. 10,000 unless set.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.change().max_waiting = requests;
        self
    }

    /// How many fills run at once, refreshes behind clients' backs included; requests beyond that which nobody fills for
    /// ask the handler themselves, and what they get is not stored. 1,000 unless set. Each holds its copy of a body, so
    /// this times [`max_body_bytes`](CacheLayer::max_body_bytes) is what fills may hold in memory.
    pub fn max_fills(mut self, fills: usize) -> Self {
        self.change().max_fills = fills;
        self
    }

    /// How long a fill may take, from the handler's call to the body's end, to be stored and waited for. 30 s unless
    /// set. A client that is still there gets its response however long it takes, unless something stale may stand in
    /// for it.
    pub fn fill_deadline(mut self, deadline: Duration) -> Self {
        self.change().deadline = deadline.min(Ttl::MAX);
        self
    }

    /// For how long a URL whose response could not be stored is not waited for (hit-for-miss). 2 minutes unless set.
    pub fn pass_for(mut self, hold: Duration) -> Self {
        self.change().pass_for = hold;
        self
    }
}

impl CacheLayer {
    /// Purges what this layer stores, by URL. What is configured on the layer afterwards, the purger does not know of.
    pub fn purger(&self) -> Purger {
        Purger::new(self.shared().clone())
    }

    fn shared(&self) -> &Arc<Shared> {
        let make = || {
            Arc::new(Shared {
                config: self.config.clone(),
                base: Arc::new(self.config.base.clone()),
                computed: Computed::default(),
                passes: Passes::default(),
                large: Passes::default(),
                searches: Searches::default(),
                admission: Admission::default(),
                fills: Arc::new(Semaphore::new(self.config.max_fills.min(Semaphore::MAX_PERMITS))),
                resting: Passes::default(),
            })
        };
        self.shared.get_or_init(make)
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = Cached<S>;

    fn layer(&self, inner: S) -> Cached<S> {
        Cached::new(inner, self.shared().clone())
    }
}

impl fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("store", &self.config.store)
            .field("route", &self.config.route)
            .finish_non_exhaustive()
    }
}
