//! Saying how others may cache.
//!
//! [`CacheControlLayer`] adds directives to the responses' `Cache-Control` by Django's merge rules: what the handler
//! said is never weakened, of two lifetimes the smaller counts, `private` and `no-store` win. Directives that allow
//! caching are added to successful responses and redirects only; those that forbid it, to all.
//!
//! # Example
//!
//! ```
//! use http::header::CACHE_CONTROL;
//! use http::{Request, Response};
//! use larder_http::CacheControlLayer;
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(CacheControlLayer::public().max_age(Duration::from_secs(60)))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new("hello")) }));
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=60");
//! # });
//! ```
//!
//! # Example: never
//!
//! ```
//! use http::header::CACHE_CONTROL;
//! use http::{Request, Response};
//! use larder_http::CacheControlLayer;
//! use std::convert::Infallible;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(CacheControlLayer::never_cache())
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new("yours")) }));
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert!(response.headers()[CACHE_CONTROL].to_str().unwrap().starts_with("no-store"));
//! # });
//! ```

mod future;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::CacheControlLayer;
pub use service::ControlSet;
