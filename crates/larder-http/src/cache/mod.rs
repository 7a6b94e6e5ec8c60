//! Answering from what is stored.
//!
//! [`CacheLayer`] is an HTTP cache (RFC 9111) as a Tower layer, safe by default inside an application:
//!
//! * A response is stored only when something says how long it is fresh: its own headers, or the route's
//!   [`ttl`](CacheLayer::ttl). `no-store`, `private`, `Set-Cookie` and `Vary: *` are never stored.
//! * A request that carries credentials (`Authorization`, `Cookie`, `X-Api-Key` and their like) shares responses only
//!   where the response says `public` or `s-maxage`, or where the route declares it:
//!   [`shared_despite_cookies`](CacheLayer::shared_despite_cookies), [`ignore_cookies`](CacheLayer::ignore_cookies),
//!   [`cookie`](CacheLayer::cookie), [`partition_by`](CacheLayer::partition_by). A response whose session was used is
//!   never shared.
//! * The key is scheme, authority, raw path and raw query. Several variants of a URL stand side by side.
//! * One request fills; those that come meanwhile share what it gets, if they may have it. Nobody waits for a response
//!   that cannot be shared, and a client that goes away harms nobody.
//! * Bodies stream to their client while a bounded copy is made. Only complete ones are stored. Those who wait read along,
//!   each at its own pace: at once where the response says how long it is (`Content-Length`), else when they have
//!   [waited](CacheLayer::wait) for its end. A body that breaks off breaks off for all of them. Where a session might yet
//!   be used, they wait for the end, which is when that is known.
//! * A stale response with a validator is not fetched anew: the handler is asked whether it is still good. Within
//!   `stale-while-revalidate` it answers and is refreshed behind; within `stale-if-error` it stands in for a handler that
//!   fails.
//! * Conditions, ranges and HEAD are answered from what is stored.
//! * QUERY requests are looked up by their content where a [`QueryLayer`](crate::QueryLayer) stands outside.
//! * Unsafe methods that succeed remove what is stored for their URL.
//! * A store that fails costs a miss, never a response.
//!
//! The file `WHAT_IS_CACHED.md` of this crate has all of it in tables, for both profiles: [`Policy::application`] and
//! [`Policy::rfc9111`].
//!
//! [`Policy::application`]: crate::rules::Policy::application
//! [`Policy::private`]: crate::rules::Policy::private
//! [`Policy::rfc9111`]: crate::rules::Policy::rfc9111
//!
//! What is new on a route can run in its [shadow](CacheLayer::shadow) first: everything is stored and looked up, nobody is
//! served, and every hit that would have been wrong is told.
//!
//! Every request that is not answered from the cache says why in a `tracing` event of the target `larder_http`, and in
//! `Cache-Status` where that is [switched on](CacheLayer::cache_status); whoever has the secret may see
//! [all of it](CacheLayer::explain).
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use larder_cache::Cache;
//! use larder_http::CacheLayer;
//! use std::convert::Infallible;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let calls = Arc::new(AtomicU32::new(0));
//! let counted = calls.clone();
//! let mut service = ServiceBuilder::new()
//!     .layer(CacheLayer::new(&Cache::memory()))
//!     .service(service_fn(move |_: Request<Full<&[u8]>>| {
//!         counted.fetch_add(1, Ordering::Relaxed);
//!         let response = Response::builder().header("cache-control", "max-age=60");
//!         async { Ok::<_, Infallible>(response.body(Full::new(bytes::Bytes::from("hello"))).unwrap()) }
//!     }));
//! for _ in 0..2 {
//!     let request = Request::get("http://shop.example/").body(Full::default()).unwrap();
//!     let response = service.ready().await.unwrap().call(request).await.unwrap();
//!     assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//! }
//! assert_eq!(calls.load(Ordering::Relaxed), 1);
//! # });
//! ```
//!
//! # Example: a lifetime and tags from the route
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use larder_cache::Cache;
//! use larder_http::{CacheLayer, Caching};
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! let layer = CacheLayer::new(&cache)
//!     .ttl(Duration::from_secs(300))
//!     .tag("products")
//!     .ignore_cookies(["_ga*"])
//!     .cache_status("shop");
//! let mut service = ServiceBuilder::new().layer(layer).service(service_fn(|_: Request<Full<&[u8]>>| async {
//!     let mut response = Response::new(Full::new(bytes::Bytes::from("[]")));
//!     response.extensions_mut().insert(Caching::new().tag("product:42"));
//!     Ok::<_, Infallible>(response)
//! }));
//! let mut status = async || {
//!     let request = Request::get("http://shop.example/api").body(Full::default()).unwrap();
//!     let response = service.ready().await.unwrap().call(request).await.unwrap();
//!     response.headers()["cache-status"].to_str().unwrap().to_owned()
//! };
//! assert_eq!(status().await, "shop; fwd=uri-miss; fwd-status=200; stored; detail=miss");
//! assert_eq!(status().await, "shop; hit; ttl=300");
//! cache.invalidate_tag("product:42").await.unwrap();
//! assert!(status().await.starts_with("shop; fwd=uri-miss"));
//! # });
//! ```
//!
//! # Policies for many routes
//!
//! A layer is a policy: make one, keep it under a name, and give its clones to the routes. What is told to a clone
//! afterwards is that route's alone.
//!
//! ```
//! # use larder_cache::Cache;
//! # use larder_http::CacheLayer;
//! # use std::time::Duration;
//! # let cache = Cache::memory();
//! let catalogue = CacheLayer::new(&cache).ttl(Duration::from_secs(300)).tag("products").ignore_query(["utm_*"]);
//! let search = catalogue.clone().ttl(Duration::from_secs(30)).admit_after(2);
//! ```
//!
//! # On the client's side
//!
//! Over an outgoing client, any that is a Tower service, the layer is the cache of one user with [`Policy::private`]:
//! `CacheLayer::new(&cache).policy(Policy::private()).layer(client)`. Requests have absolute targets there.
//!
//! # Where it stands among other layers
//!
//! A layer that is outside of `CacheLayer` runs for every request; one that is inside runs when the handler does, and
//! what it does to responses is stored. Put compression inside (stored once for each coding, by the `Vary` that it
//! sets) or outside (done anew for each hit); tracing, time limits and CORS outside; authentication outside, with
//! [`partition_by`](CacheLayer::partition_by) where answers differ by identity.
//!
//! # Cancel safety
//!
//! Dropping the response future, or the body, leaves a fill that was begun running up to its
//! [deadline](CacheLayer::fill_deadline).
//!
//! # Panics
//!
//! A request that is not answered from memory needs a Tokio runtime around it.

mod admission;
mod answer;
mod body;
mod chunks;
mod commit;
mod content;
mod copy;
mod explain;
mod fill;
mod finish;
mod future;
mod heads;
mod invalidate;
mod kept;
mod key;
mod layer;
mod look;
mod miss;
mod plan;
mod post;
mod purge;
mod query;
mod reading;
mod record;
mod searches;
mod service;
mod shadow;
mod spill;
mod stream;
mod tee;
mod validate;
mod variants;
mod verdict;
mod wire;

pub use body::ResponseBody;
pub(crate) use body::shared;
pub(crate) use copy::longer;
pub use future::ResponseFuture;
pub use layer::CacheLayer;
pub use purge::Purger;
pub(crate) use reading::Reading;
pub use service::Cached;
pub use shadow::{Difference, Differs};
pub use stream::BrokenOff;
