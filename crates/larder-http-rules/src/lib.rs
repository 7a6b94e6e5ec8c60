//! HTTP caching rules (RFC 9110, RFC 9111, RFC 5861, RFC 8246, RFC 9211, RFC 9213, RFC 9875, RFC 10008) as pure
//! functions.
//!
//! This crate decides and does nothing else: it stores nothing, opens nothing, reads no clock (time is an
//! argument) and needs no runtime. Every decision tells its [`Reason`]. Hostile input never panics, sums
//! saturate, and what runs for every request allocates nothing.
//!
//! # The questions, in the order a cache asks them
//!
//! | question | answer |
//! | --- | --- |
//! | Which of this request's headers matter? | [`RequestFacts::scan`], one pass |
//! | Look it up, pass it by, or let it invalidate? | [`request::handling`] |
//! | Which parameters of its query matter? | [`query`], [`no_vary_search`] |
//! | Whose site is it? | [`authority::effective`] |
//! | What may a proxy have said about it? | [`overrides::write_key_part`] |
//! | Does it carry credentials, and does the route cover them? | [`credentials::assess`], [`cookies`] |
//! | Which variant does it select? | [`vary::select`] |
//! | May the stored response answer it? | [`reuse::decide`], [`reuse::on_failure`] |
//! | Is 304 enough? | [`conditional::evaluate`]; for an origin, [`conditional::preconditions`] |
//! | Is a part enough? | [`range`] |
//! | How is the handler asked whether it is still good? | [`validation`] |
//! | May the handler's response be stored, and on which terms? | [`storable`] → [`Stored`] |
//! | Which fields are not stored? | [`headers::remove_hop_by_hop`] |
//! | What does an unsafe method invalidate? | [`invalidate`], [`groups`] |
//! | How is all that told to the outside? | [`cache_status`], [`age`], [`date`] |
//! | Did a session layer say that the response is one visitor's own? | [`SessionMark`] |
//!
//! Where the RFCs leave a choice the [`Policy`] decides: [`Policy::application`] (the default) is safe
//! inside an application, [`Policy::rfc9111`] is a shared cache to the letter. [`CacheControl`] builds
//! and merges what a response says to other caches.
//!
//! # Example
//!
//! ```
//! use http::{HeaderMap, Method, StatusCode, Uri, header};
//! use larder_http_rules::authority::{self, Scheme};
//! use larder_http_rules::{
//!     Handling, Policy, RequestFacts, RequestView, Reuse, RouteRule, Times, credentials, request, reuse,
//!     storable,
//! };
//! use std::time::{Duration, SystemTime};
//!
//! # fn main() -> Result<(), larder_http_rules::Reason> {
//! let policy = Policy::application();
//! let route = RouteRule { ttl: Some(Duration::from_secs(300)), ..RouteRule::default() };
//!
//! // a request
//! let (method, uri) = (Method::GET, Uri::from_static("/products"));
//! let mut asked = HeaderMap::new();
//! asked.insert(header::HOST, "shop.example".parse().unwrap());
//! let facts = RequestFacts::scan(&policy, &asked);
//! let authority = authority::effective(&uri, &asked, Scheme::Https)?;
//! assert_eq!(authority.to_string(), "shop.example");
//! let handling = request::handling(&policy, &method, facts, &asked);
//! assert_eq!(handling, Handling::Lookup { only_if_cached: false });
//! let credentials = credentials::assess(&policy, &route.credentials, facts, &asked);
//! let view = RequestView { method: &method, uri: &uri, headers: &asked, facts, credentials };
//!
//! // its response, stored on these terms
//! let answer = HeaderMap::new();
//! let times = Times::at(SystemTime::now());
//! let stored = storable(&policy, &route, &view, StatusCode::OK, &answer, times)?;
//! assert_eq!(stored.terms.lifetime, Duration::from_secs(300));
//!
//! // four minutes later
//! let reuse = reuse::decide(&policy, &stored.terms, Duration::from_secs(240), &view);
//! assert_eq!(reuse, Reuse::Fresh);
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

pub mod age;
pub mod authority;
pub mod cache_control;
pub mod cache_status;
pub mod conditional;
pub mod cookies;
pub mod credentials;
pub mod date;
pub mod freshness;
pub mod groups;
pub mod headers;
pub mod invalidate;
mod mark;
mod names;
pub mod no_vary_search;
pub mod overrides;
mod pattern;
mod policy;
pub mod query;
pub mod range;
mod reason;
pub mod request;
pub mod reuse;
mod selector;
mod store;
pub mod validation;
pub mod vary;

pub use cache_control::CacheControl;
pub use credentials::{CredentialRule, CredentialState};
pub use freshness::FreshnessSource;
pub use mark::SessionMark;
pub use pattern::NamePattern;
pub use policy::{ClientDirectives, Heuristics, Policy, RouteRule};
pub use reason::Reason;
pub use request::{Handling, RequestFacts, RequestView};
pub use reuse::Reuse;
pub use store::{Stored, Terms, Times, storable};
pub use vary::Vary;
