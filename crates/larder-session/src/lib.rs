//! Sessions for Tower services, over any store of Larder.
//!
//! [`SessionLayer`] gives every request a [`Session`]: an extension for Tonic and plain Tower, an extractor for Axum
//! (feature `axum`). What is in it lives on the server; the browser has a random id, and the store only a hash of it.
//! Native gRPC clients may have theirs [in metadata](SessionLayer::metadata).
//!
//! * **Nothing is lost.** Requests at the same time merge what they change in different keys;
//!   [`update`](Session::update) counts exactly; two writes of one key conflict loudly.
//! * **Nothing comes back.** A session that was destroyed, or whose id was rotated, is never brought back by a slower
//!   request.
//! * **Nothing is done for nothing.** No cookie and no write: no call of the store. Reading: one round trip. What is
//!   not changed is not written.
//! * **Nobody gets another's.** The cookie is `__Host-`, `Secure`, `HttpOnly`, `SameSite=Lax`; a client's id is never
//!   adopted; every response that used its session says `Vary: Cookie` and `Cache-Control: private`, and is never
//!   stored by a `CacheLayer`, on whichever side of it the session layer stands.
//! * **No silent strangers.** A store that cannot be asked is 503, without any cookie.
//!
//! # Example
//!
//! ```
//! use http::header::{COOKIE, SET_COOKIE};
//! use http::{Request, Response};
//! use larder_cache::Cache;
//! use larder_session::{Session, SessionLayer};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! async fn visits(request: Request<()>) -> Result<Response<String>, larder_session::Error> {
//!     let session = request.extensions().get::<Session>().expect("the layer is there");
//!     let visits = session.update("visits", |visits: &mut u32| *visits += 1).await?;
//!     Ok(Response::new(format!("visit {visits}")))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::connect("memory://").await?;
//! let service = SessionLayer::new(&cache).evictable().layer(service_fn(visits));
//!
//! let first = service.clone().oneshot(Request::new(())).await?;
//! let cookie = first.headers()[SET_COOKIE].to_str()?.split(';').next().unwrap().to_owned();
//! assert!(cookie.starts_with("__Host-id="));
//!
//! let again = Request::builder().header(COOKIE, cookie).body(())?;
//! let second = service.oneshot(again).await?;
//! let body = http_body_util::BodyExt::collect(second.into_body()).await?.to_bytes();
//! assert_eq!(body, "visit 2");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Example: configured, with Axum
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::{Router, http::Request, routing::post};
//! use larder_cache::Cache;
//! use larder_session::{Expiry, Refresh, Result, SameSite, Session, SessionCookie, SessionLayer};
//! use std::time::Duration;
//! use tower::ServiceExt;
//!
//! async fn login(session: Session) -> Result<&'static str> {
//!     // a change of rights is a change of ids
//!     session.sign_in("user", &7).await?;
//!     Ok("welcome")
//! }
//!
//! async fn logout(session: Session) -> Result<&'static str> {
//!     session.destroy().await?;
//!     Ok("bye")
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::connect("memory://?max_bytes=32MiB").await?;
//! let sessions = SessionLayer::new(&cache)
//!     .evictable()
//!     .cookie(SessionCookie::new("shop").same_site(SameSite::Strict))?
//!     .expiry(Expiry::idle(Duration::from_secs(1800)).at_most(Duration::from_secs(12 * 3600)))
//!     .refresh(Refresh::AfterFraction(0.1));
//! let app: Router = Router::new().route("/login", post(login)).route("/logout", post(logout)).layer(sessions);
//!
//! let response = app.oneshot(Request::post("/login").body(axum::body::Body::empty())?).await?;
//! let cookie = response.headers()["set-cookie"].to_str()?;
//! assert!(cookie.starts_with("__Host-shop="));
//! assert!(cookie.ends_with("; Max-Age=1800; Path=/; Secure; HttpOnly; SameSite=Strict"));
//! assert_eq!(response.headers()["cache-control"], "no-store, private");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # When what happens
//!
//! The session is read at its first use. What handlers change is saved when they have returned, before the response's
//! head goes out, in a task of its own: a client that leaves then changes nothing any more. A handler that is dropped
//! before that, panics, fails with the service's error or answers 5xx has saved nothing
//! ([`SessionLayer::save_on_server_errors`]). If saving fails, the response is replaced by an empty one that says so,
//! with the [`Error`] in its extensions: 503, 409 for conflicts, 500 for what the program got wrong.
//!
//! Two requests of one browser may both begin a session, when neither brought a cookie: the browser keeps the id that
//! came last.
//!
//! # Lifetimes
//!
//! Idle time is counted in the store's own time, and kept alive without writing data. The absolute end is counted from
//! when the session began, by wall clocks: nodes whose clocks differ by a second disagree by a second. Both are
//! [checked when a session is read](Expiry), whatever the store does. There is nothing to purge: servers drop what has
//! ended by themselves, and the stores in files and in SQL sweep in the background, or at once when they are told to.
//!
//! # Which store
//!
//! A session is as durable as its store. In memory it ends with the process. In Redis, what was acknowledged last may be
//! lost when a replica takes over that had not received it: whoever signed in then is signed out, and a sign-out of that
//! moment has not happened. Where that must not be, keep sessions in PostgreSQL or SQLite, or have Redis wait for its
//! replicas. Everything else here holds on all of them.
//!
//! With a cache before a durable store (`writethrough:`), a cache that is gone loses nothing, and costs round trips. But
//! sign-outs, rotations (so sign-ins, too) and revocations are 503 until it can be told: a copy there would let in whoever
//! is out, for as long as copies are read (30 s unless set). A sign-out that was 503 may have happened, on the nodes that
//! ask the durable store; doing it again is safe, and ends it everywhere. A node that cannot reach the cache while another
//! one can reads its copies no longer than that either.
//!
//! # Users, forms, messages
//!
//! [`Session::sign_in_as`] puts a session into its user's list, which says which of them are valid: they can be
//! [listed](Session::devices) and ended one by one, [all but one](Session::revoke_other_devices) and
//! [all at once](Users::revoke_all), each in one atomic step. A list that is lost signs its user out, and never brings
//! anybody back.
//!
//! [`SessionLayer::same_origin_only`] refuses requests that another site's pages send;
//! [`Session::csrf_token`] is for forms that want more than that. [`Session::flash`] leaves a message for the next page.
//!
//! # Without a store
//!
//! [`SessionLayer::in_cookie`] keeps sessions in their cookies, signed or encrypted with a [`KeyRing`]. [`Sealed`] says
//! what that costs.
//!
//! [`coming_from`] maps what tower-sessions, axum-session and Django call things.
//!
//! # Keys
//!
//! Stores see names that [`SessionLayer::secret`] makes of ids; [`SessionLayer::accept_secret`] changes it without signing
//! anybody out. Sealed cookies have a [`KeyRing`].

#![forbid(unsafe_code)]

#[cfg(feature = "axum")]
mod axum;
mod body;
mod carrier;
mod commit;
mod cookie;
mod csrf;
mod error;
mod event;
mod expiry;
mod flash;
mod future;
mod id;
mod layer;
mod look;
mod moving;
mod record;
mod seal;
mod service;
mod session;
mod sign_in;
mod state;
mod typed;
mod users;
mod value;

pub use body::ResponseBody;
pub use cookie::{SameSite, SessionCookie};
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use expiry::{Expiry, Refresh};
pub use flash::{Flash, Level};
pub use future::ResponseFuture;
pub use layer::SessionLayer;
pub use seal::{KeyRing, Sealed};
pub use service::Sessions;
pub use session::Session;
pub use users::{Device, Users};

#[doc = include_str!("../COMING_FROM.md")]
pub mod coming_from {
    #[allow(unused_imports)]
    use super::*;
}
