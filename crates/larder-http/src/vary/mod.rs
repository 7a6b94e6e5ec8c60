//! Saying what responses vary on.
//!
//! [`VaryLayer`] adds request headers to the responses' `Vary`, as Django's `vary_on_headers` and `vary_on_cookie` do,
//! and tells [`CacheLayer`](crate::CacheLayer) what `Vary` cannot say: that one cookie matters and the others do not,
//! or that a value matters which is computed from the request, such as a tenant, a locale or a set of permissions.
//!
//! It works on either side of `CacheLayer`. Inside is where it belongs (`CacheLayer` is then the outer one and sees the
//! `Vary`); outside, what it tells reaches `CacheLayer` with the request.
//!
//! # Example
//!
//! ```
//! use http::header::{ACCEPT_LANGUAGE, VARY};
//! use http::{Request, Response};
//! use larder_http::VaryLayer;
//! use std::convert::Infallible;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(VaryLayer::headers([ACCEPT_LANGUAGE]))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new("hallo")) }));
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(response.headers()[VARY], "accept-language");
//! # });
//! ```
//!
//! # Example: one cookie and a tenant
//!
//! Visitors with the same theme and the same tenant share a stored response, whatever the layer outside knows of
//! cookies. Computed inputs do not show in `Vary`: caches on the way do not know them.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use larder_cache::Cache;
//! use larder_http::{CacheLayer, RequestHead, VaryLayer};
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let tenant = |head: RequestHead<'_>| {
//!     head.headers().get("x-tenant").and_then(|tenant| tenant.to_str().ok()).map(str::to_owned)
//! };
//! let mut service = ServiceBuilder::new()
//!     .layer(CacheLayer::new(&Cache::memory()).ttl(Duration::from_secs(60)))
//!     .layer(VaryLayer::new().cookie("theme").by("tenant", tenant))
//!     .service(service_fn(|request: Request<Full<bytes::Bytes>>| async move {
//!         let tenant = request.headers()["x-tenant"].to_str().unwrap().to_owned();
//!         Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(tenant))))
//!     }));
//! for tenant in ["blue", "red", "blue"] {
//!     let request = Request::get("http://shop.example/")
//!         .header("x-tenant", tenant)
//!         .header("cookie", "theme=dark")
//!         .body(Full::default())
//!         .unwrap();
//!     let response = service.ready().await.unwrap().call(request).await.unwrap();
//!     assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), tenant);
//! }
//! # });
//! ```

mod future;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::VaryLayer;
pub use service::VarySet;
