//! QUERY: requests that ask by their content (RFC 10008).
//!
//! What answers a QUERY depends on its content, and a key is made before anybody has read that. [`QueryLayer`] stands
//! outside of [`CacheLayer`](crate::CacheLayer) and reads it: up to a [limit](QueryLayer::max_content_bytes) and not for
//! [longer](QueryLayer::read_within) than a content takes that is on its way. The key is then that of the URL, the
//! method, and a hash (256 bits) of the content and of all fields that begin with `Content-`, but for `Content-Length`.
//! Contents that differ in a byte or in their type share nothing, whatever they mean. The handler gets the content as it
//! came.
//!
//! Everything else is as for GET, save that nothing is fresh by a guess: single fills, variants, conditions, ranges,
//! validation and refreshes, which send the same content, tags, purging by URL. A QUERY changes nothing, and a change of
//! the URL by an unsafe method that passes through this layer drops what is stored for its QUERYs.
//!
//! A content that is larger, slower or broken, or that has trailers, goes on as it would without the layer, and is not
//! cached: what was read of it comes before the rest. Without the layer no QUERY is cached.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use larder_cache::Cache;
//! use larder_http::query::RequestBody;
//! use larder_http::{CacheLayer, QueryLayer};
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(QueryLayer::new())
//!     .layer(CacheLayer::new(&Cache::memory()).ttl(Duration::from_secs(60)).cache_status("shop"))
//!     .service(service_fn(|request: Request<RequestBody<Full<Bytes>>>| async {
//!         let asked = request.into_body().collect().await.unwrap().to_bytes();
//!         Ok::<_, Infallible>(Response::new(Full::new(asked)))
//!     }));
//! let ask = async |content: &'static str| {
//!     let request = Request::builder().method("QUERY").uri("http://shop.example/products");
//!     let request = request.header("content-type", "application/sql").body(Full::from(content)).unwrap();
//!     let response = service.clone().oneshot(request).await.unwrap();
//!     let hit = response.headers()["cache-status"].to_str().unwrap().starts_with("shop; hit");
//!     (response.into_body().collect().await.unwrap().to_bytes(), hit)
//! };
//! assert_eq!(ask("select 1").await, ("select 1".into(), false));
//! assert_eq!(ask("select 1").await, ("select 1".into(), true));
//! assert_eq!(ask("select 2").await, ("select 2".into(), false));
//! # });
//! ```
//!
//! # Among other layers
//!
//! Outside of it belongs what rewrites contents, as decompression does; between it and `CacheLayer` nothing may change
//! them by anything else than themselves. It must see the unsafe requests to the same URLs, too: put it around the whole
//! router, or around all methods of a route.
//!
//! # Cancel safety
//!
//! Dropping the response future drops the request, as without the layer.
//!
//! # Panics
//!
//! A QUERY needs a Tokio runtime with a timer around it.

mod body;
mod future;
mod layer;
mod service;

pub use body::RequestBody;
pub use future::ResponseFuture;
pub use layer::QueryLayer;
pub use service::Queried;
