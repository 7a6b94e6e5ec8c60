//! Cached gRPC calls for Tower services.

#![forbid(unsafe_code)]

mod body;
mod builder;
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
