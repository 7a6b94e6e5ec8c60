//! Accounts on Larder's sessions: register, log in, a cart that survives both, a page of devices, log out.
//!
//! ```text
//! cargo run --release -p accounts                                              # http://127.0.0.1:3001
//! cargo run --release -p accounts -- --sessions 'redis://127.0.0.1/0?namespace=accounts'
//! ```
//!
//! Nothing has to be installed: sessions are in memory, users in a SQLite file that is made the first time. Where to
//! start reading:
//!
//! * [`sessions`] and [`app`], below: how the layer is configured, and which routes there are.
//! * [`handlers`]: what pages do with their session. Signing in is `sign_in_as`, and nothing besides.
//! * [`forms`]: the one place where a form's token is asked for. [`users`]: names and password hashes.

// This is a program: the terminal is where it speaks.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod forms;
pub mod handlers;
pub mod options;
pub mod pages;
pub mod problem;
pub mod serve;
pub mod users;

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::routing::{get, post};
use larder::Cache;
use larder::session::{Expiry, Refresh, Result, SessionCookie, SessionLayer};

use crate::options::Options;
use crate::pages::Pages;
use crate::users::Users;

/// The sessions of this service.
///
/// # Errors
///
/// When browsers would refuse the cookie.
pub fn sessions(cache: &Cache, https: bool) -> Result<SessionLayer> {
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    let cookie = SessionCookie::new("accounts");
    let cookie = if https { cookie } else { cookie.insecure_for_development() };
    SessionLayer::new(cache)
        // Who is signed out because the store was full signs in again.
        .evictable()
        .expiry(Expiry::idle(days(14)).at_most(days(90)))
        .refresh(Refresh::AfterFraction(0.1))
        .same_origin_only()
        .cookie(cookie)
}

/// What handlers share.
#[derive(Clone, Debug)]
pub struct App {
    /// Who can log in.
    pub users: Users,
    /// What pages look like.
    pub pages: Pages,
}

/// The service.
pub fn app(users: Users, sessions: SessionLayer) -> Router {
    let app = App { users, pages: Pages::new() };
    Router::new()
        .route("/", get(handlers::home))
        .route("/register", get(handlers::register_page).post(handlers::register))
        .route("/login", get(handlers::login_page).post(handlers::login))
        .route("/logout", post(handlers::logout))
        .route("/cart", get(handlers::cart_page).post(handlers::add_to_cart))
        .route("/cart/empty", post(handlers::empty_cart))
        .route("/devices", get(handlers::devices_page))
        .route("/devices/revoke", post(handlers::revoke_device))
        .route("/devices/revoke-others", post(handlers::revoke_others))
        .route("/style.css", get(pages::style))
        .fallback(handlers::not_found)
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(sessions)
        .layer(map_response(problem::shown))
        .with_state(app)
}

/// Does what the command line says.
pub fn run(options: &Options) -> ExitCode {
    match serve::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::FAILURE
        }
    }
}
