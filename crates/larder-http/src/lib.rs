//! Response caching for Tower services.
//!
//! | layer | job |
//! | --- | --- |
//! | [`CacheLayer`] | answers from what is stored; see [`cache`] |
//! | [`VaryLayer`] | says what responses vary on; see [`vary`] |
//! | [`QueryLayer`] | reads the content of QUERY requests, so that they can be cached; see [`query`] |
//! | [`ConditionalLayer`] | makes entity tags and answers conditions; see [`conditional`] |
//! | [`CacheControlLayer`] | says how others may cache; see [`cache_control`] |
//!
//! The rules they follow are those of RFC 9110 and RFC 9111, as `larder-http-rules` decides them. They work in any
//! Tower stack: under Axum's `Router::layer` and `route_layer`, in a `ServiceBuilder`, beside other middleware.
//!
//! # Features
//!
//! * `axum`: keys on `axum::extract::OriginalUri`, since nested routers take the prefix off the path. Needed when
//!   `CacheLayer` is inside a nested router.

pub mod cache;
pub mod cache_control;
pub mod conditional;
mod head;
mod mark;
pub mod query;
pub mod vary;

pub use cache::{CacheLayer, Purger};
pub use cache_control::CacheControlLayer;
pub use conditional::{ConditionalLayer, Current};
pub use head::RequestHead;
pub use larder_http_rules::SessionMark;
pub use mark::Caching;
pub use query::QueryLayer;
pub use vary::VaryLayer;

pub use larder_http_rules as rules;
