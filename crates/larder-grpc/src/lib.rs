//! Cached gRPC calls for Tower services and channels.
//!
//! [`GrpcCacheLayer`] is a Tower layer. It stands under Tonic's `Server::builder().layer(…)`, before one service, or
//! around a client's channel, and answers unary calls from a [`Cache`](larder_cache::Cache):
//!
//! * Nothing is cached unless it is declared free of side effects: by [name](GrpcCacheBuilder::read), by a
//!   [closure](GrpcCacheBuilder::reads_if), or by the protobuf option `idempotency_level = NO_SIDE_EFFECTS` in a
//!   [descriptor set](#features). Everything else passes as it comes, streams unbuffered.
//! * The key is authority, method, the message, the codings that the caller takes, and the
//!   [metadata that are declared](Read::metadata). What is declared nowhere the handler of a fill does not see, so that it
//!   cannot change what others get.
//! * A call with credentials (`authorization`, `cookie`, `x-api-key` and their like) shares nothing, whatever the answer
//!   says, unless the layer [partitions](GrpcCacheBuilder::partition_by) by identity, the credential is
//!   [keyed](Read::metadata), or the layer [believes `public`](GrpcCacheBuilder::shared_when_public). An answer that sets a
//!   cookie or whose session was used is never shared.
//! * Stored is one complete message followed by `grpc-status: 0`, for as long as the [method](Read::ttl), the handler
//!   ([`Caching`]) or its `cache-control` metadata say. Message, metadata and trailers come back as they were, with `age`
//!   where `cache-control` is told to others. The rest passes and leaves a mark, so that nobody waits for it again.
//! * One call fills, in a task of its own; those that come meanwhile share what it gets, a failure included. A caller's
//!   `grpc-timeout` bounds that caller and never the fill, which has a [limit](GrpcCacheBuilder::fill_deadline) of its own.
//! * Stale answers are given [while they are refreshed](Read::stale_while_revalidate), and
//!   [while the handler is `UNAVAILABLE`](Read::stale_on_unavailable).
//! * A [`Write`] drops tags when it has succeeded, before its caller sees the end of the answer. Tags are those of the whole
//!   cache: values, HTTP responses and calls that carry one are dropped together, and what a handler reads from the cache
//!   hands its tags up.
//! * A store that fails costs a miss, never an answer.
//!
//! Every call that is not answered from the cache says why in a `tracing` event of the target `larder_grpc`, and in
//! `cache-status` metadata where that is [switched on](GrpcCacheBuilder::cache_status).
//!
//! # Example: a server
//!
//! ```
//! use larder_cache::Cache;
//! use larder_grpc::{GrpcCacheLayer, Read, Write};
//! use std::time::Duration;
//! use tonic::transport::Server;
//!
//! # fn main() -> larder_core::Result<()> {
//! let layer = GrpcCacheLayer::builder(&Cache::memory())
//!     .read(Read::new("/catalog.Catalog/Get").ttl(Duration::from_secs(60)).tag("products"))
//!     .write(Write::new("/catalog.Catalog/Update").drops("products"))
//!     .build()?;
//! let server = Server::builder().layer(layer);
//! # let _ = server;
//! # Ok(()) }
//! ```
//!
//! # Example: what it does
//!
//! ```
//! use bytes::Bytes;
//! use http::{HeaderMap, Request, Response};
//! use http_body::Frame;
//! use http_body_util::{BodyExt, Full, StreamBody};
//! use larder_cache::Cache;
//! use larder_grpc::{GrpcCacheLayer, Read};
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! let layer = GrpcCacheLayer::builder(&cache)
//!     .read(Read::new("/shop.Shop/Price").ttl(Duration::from_secs(60)).tag("prices"))
//!     .cache_status("shop")
//!     .build()?;
//! // What a generated server does at the level of HTTP/2: a message, then the status.
//! let mut service = ServiceBuilder::new().layer(layer).service(service_fn(|_: Request<_>| async {
//!     let mut status = HeaderMap::new();
//!     status.insert("grpc-status", "0".parse().unwrap());
//!     let message = Bytes::from_static(b"\0\0\0\0\x02\x08\x07");
//!     let frames = [Frame::data(message), Frame::trailers(status)].map(Ok::<_, Infallible>);
//!     let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
//!     response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
//!     Ok::<_, Infallible>(response)
//! }));
//! let mut told = async || {
//!     let request = Request::post("http://shop.example/shop.Shop/Price")
//!         .header("content-type", "application/grpc")
//!         .body(Full::new(Bytes::from_static(b"\0\0\0\0\x02\x08\x01")));
//!     let response = service.ready().await.unwrap().call(request.unwrap()).await.unwrap();
//!     let told = response.headers()["cache-status"].to_str().unwrap().to_owned();
//!     let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
//!     assert_eq!(trailers.unwrap()["grpc-status"], "0");
//!     told
//! };
//! assert_eq!(told().await, "shop; fwd=uri-miss; stored; detail=miss");
//! assert_eq!(told().await, "shop; hit; ttl=60");
//! cache.invalidate_tag("prices").await?;
//! assert!(told().await.starts_with("shop; fwd=uri-miss"));
//! # Ok::<(), larder_core::Error>(()) }).unwrap();
//! ```
//!
//! # Where it stands among other layers
//!
//! A layer that is outside runs for every call, one that is inside runs when the handler does. gRPC-Web (`tonic-web`)
//! belongs outside: then its calls and plain ones share answers; inside, its calls pass by. Put sessions and
//! authentication outside, with [`partition_by`](GrpcCacheBuilder::partition_by) where answers differ by identity;
//! **identities that are in no metadata, like a client's certificate, are not seen otherwise**. Compression is the
//! handler's: what it compresses is stored so, for callers that take the same codings.
//!
//! A [client's layer](GrpcCacheLayer::client) keeps its keys under the server's name and apart from what servers store,
//! and is as strict with credentials. Several clients with one cache share answers.
//!
//! # Deadlines
//!
//! In a fill the handler sees the fill's limit as its `grpc-timeout`. A caller whose time is over gets
//! `DEADLINE_EXCEEDED`, from Tonic's server or from here, and the fill goes on for the others. A call that passes by
//! keeps its own.
//!
//! # Limits
//!
//! Messages up to 4 MiB are read for a key and [stored](GrpcCacheBuilder::max_message_bytes); the cache's store may allow
//! less for an entry (`memory://` 4 MiB with everything in it). A declared method is unary: the message of a streaming one
//! that is declared by mistake waits for the second one or for the fill's limit, and then passes for two minutes.
//!
//! # Cancel safety
//!
//! Dropping the response future leaves a fill that was begun running up to its limit. A [`Write`] whose future or body is
//! dropped before its end drops its tags: nobody knows whether it happened.
//!
//! # Panics
//!
//! A call that is not answered from memory needs a Tokio runtime around it. A handler that panics does so in its caller's
//! task; those that waited for it try again, one for all.
//!
//! # Features
//!
//! * `tonic`: services keep their names (`NamedService`), and `TonicBodyLayer` and `GrpcCacheLayer::channel` are there
//!   for what takes Tonic's own body only.
//! * `descriptor`: `descriptor_set` and `canonical` of [`GrpcCacheBuilder`].
//!
//! Without them only `http` and `http-body` are needed, and any gRPC server or client over Tower will do whose request
//! bodies are `Unpin`, as hyper's and Tonic's are.
//!
//! # Does not (yet)
//!
//! Store one identity message for callers of different codings, cache streams, revalidate.

mod body;
mod builder;
mod commit;
#[cfg(feature = "descriptor")]
mod descriptor;
mod fill;
mod future;
mod gather;
mod key;
mod layer;
mod mark;
mod methods;
mod miss;
mod plan;
mod record;
mod service;
mod status;
#[cfg(feature = "tonic")]
mod tonic;
mod verdict;
mod wire;
mod writes;

#[cfg(feature = "tonic")]
pub use crate::tonic::{TonicBodies, TonicBodyLayer};
pub use body::{RequestBody, ResponseBody};
pub use builder::GrpcCacheBuilder;
pub use future::ResponseFuture;
pub use larder_http_rules::SessionMark;
pub use layer::{CallHead, GrpcCacheLayer};
pub use mark::Caching;
pub use methods::{Read, Write};
pub use service::Cached;
