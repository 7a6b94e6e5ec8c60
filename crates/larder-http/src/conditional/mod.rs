//! Entity tags for responses, and answers to conditional requests (RFC 9110 §13).
//!
//! [`ConditionalLayer`] gives successful answers to GET and QUERY an entity tag made from their body, and answers 304 to those who
//! have that body already. Where the application knows validators before the handler runs (a row's version, a file's
//! time), [`with_validators`](ConditionalLayer::with_validators) spares the handler: 304 without calling it, and 412 for
//! a change whose `If-Match` or `If-Unmodified-Since` no longer holds.
//!
//! Tags are weak unless [`strong`](ConditionalLayer::strong) is asked for: a layer outside that compresses changes the
//! bytes. A response gets none that has one already, has no body or one that is larger than a
//! [limit](ConditionalLayer::max_body_bytes) or of unknown length, or says `no-store`. Nothing else is held back: those
//! responses stream as without the layer.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use larder_http::ConditionalLayer;
//! use std::convert::Infallible;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(ConditionalLayer::new())
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from("hello"))))
//!     }));
//! let response = service.ready().await.unwrap().call(Request::new(())).await.unwrap();
//! let etag = response.headers()["etag"].clone();
//!
//! let again = Request::get("/").header("if-none-match", etag).body(()).unwrap();
//! let response = service.ready().await.unwrap().call(again).await.unwrap();
//! assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
//! # });
//! ```
//!
//! # Example: validators that are known before
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use larder_http::{ConditionalLayer, Current};
//! use std::convert::Infallible;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # async fn version_of(path: String) -> u32 { path.len() as u32 }
//! let layer = ConditionalLayer::new().with_validators(|head| {
//!     let path = head.uri().path().to_owned();
//!     async move { Some(Current::etag(version_of(path).await)) }
//! });
//! let mut service = ServiceBuilder::new().layer(layer).service(service_fn(|request: Request<()>| async move {
//!     assert_eq!(request.method(), "PUT", "the handler is not asked for what the client has");
//!     Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from("changed"))))
//! }));
//! let mut send = async |request: http::request::Builder| {
//!     service.ready().await.unwrap().call(request.body(()).unwrap()).await.unwrap().status()
//! };
//! assert_eq!(send(Request::get("/a").header("if-none-match", "\"2\"")).await, StatusCode::NOT_MODIFIED);
//! assert_eq!(send(Request::put("/a").header("if-match", "\"1\"")).await, StatusCode::PRECONDITION_FAILED);
//! assert_eq!(send(Request::put("/a").header("if-match", "\"2\"")).await, StatusCode::OK);
//! # });
//! ```
//!
//! # Among other layers
//!
//! Inside [`CacheLayer`](crate::CacheLayer) it makes stale responses cheap to validate: the cache asks, and this answers.
//! Outside it, each visitor's copy is compared with what is stored; the cache does that by itself, so there is no need.
//!
//! # Cancel safety
//!
//! Dropping the response future drops the handler's, as without the layer.

mod future;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::{ConditionalLayer, Current};
pub use service::Conditional;
