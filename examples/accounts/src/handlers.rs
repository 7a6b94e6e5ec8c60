//! What pages do with their session.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use larder::session::{Level, Session};
use minijinja::context;
use serde::Deserialize;

use crate::App;
use crate::forms::{Checked, Nothing};
use crate::problem::{Problem, page};
use crate::users::User;

type Page = Result<Html<String>, Problem>;
type Answer = Result<Response, Problem>;

/// What the shop has.
pub const ITEMS: [&str; 4] = ["Teapot", "Kettle", "Cup", "Honey"];
const MOST: u32 = 99;

/// What register and login send.
#[derive(Debug, Deserialize)]
pub struct Credentials {
    name: String,
    password: String,
}

/// What the cart's buttons send.
#[derive(Debug, Deserialize)]
pub struct Item {
    item: String,
}

/// What the devices' buttons send.
#[derive(Debug, Deserialize)]
pub struct Chosen {
    device: String,
}

/// The first page: reads a session if there is one, and begins none.
pub async fn home(State(app): State<App>, session: Session) -> Page {
    let token = match session.user().await? {
        // For the button that logs out.
        Some(_) => Some(session.csrf_token().await?),
        None => None,
    };
    app.pages.page(&session, "home.html", context! { token }).await
}

/// Register: the form.
pub async fn register_page(State(app): State<App>, session: Session) -> Page {
    let token = session.csrf_token().await?;
    app.pages.page(&session, "register.html", context! { token }).await
}

/// Register: who does is signed in.
pub async fn register(
    State(app): State<App>,
    headers: HeaderMap,
    Checked(session, form): Checked<Credentials>,
) -> Answer {
    let name = form.name.trim();
    let refusal = match () {
        () if name.is_empty() || name.chars().count() > 40 => {
            Some("A name has 1 to 40 characters.")
        }
        () if name.chars().any(char::is_control) => Some("A name has no control characters."),
        () if form.password.chars().count() < 8 => Some("A password has at least 8 characters."),
        () if form.password.len() > 1024 => Some("A password has at most 1024 bytes."),
        () => None,
    };
    if let Some(words) = refusal {
        return again(&session, words, "/register").await;
    }
    match app.users.register(name, &form.password).await? {
        Some(user) => enter(&session, &user, &headers, "Welcome").await,
        None => again(&session, "That name is taken.", "/register").await,
    }
}

/// Log in: the form.
pub async fn login_page(State(app): State<App>, session: Session) -> Page {
    let token = session.csrf_token().await?;
    app.pages.page(&session, "login.html", context! { token }).await
}

/// Log in.
pub async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    Checked(session, form): Checked<Credentials>,
) -> Answer {
    match app.users.log_in(form.name.trim(), &form.password).await? {
        Some(user) => enter(&session, &user, &headers, "Welcome back").await,
        None => again(&session, "Name and password do not go together.", "/login").await,
    }
}

// The cart that was filled before stays; the id is another one.
async fn enter(session: &Session, user: &User, headers: &HeaderMap, greeting: &str) -> Answer {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    session.sign_in_as(&user.id.to_string(), agent.unwrap_or("unknown")).await?;
    session.insert("name", &user.name).await?;
    session.flash(Level::Success, format!("{greeting}, {}.", user.name)).await?;
    Ok(Redirect::to("/cart").into_response())
}

async fn again(session: &Session, words: &str, to: &str) -> Answer {
    session.flash(Level::Error, words).await?;
    Ok(Redirect::to(to).into_response())
}

/// Log out: the session is over, cart and all.
pub async fn logout(Checked(session, Nothing {}): Checked<Nothing>) -> Answer {
    session.destroy().await?;
    Ok(Redirect::to("/").into_response())
}

/// The cart.
pub async fn cart_page(State(app): State<App>, session: Session) -> Page {
    let cart: BTreeMap<String, u32> = session.get("cart").await?.unwrap_or_default();
    let lines: Vec<_> = cart.into_iter().map(|(item, count)| context! { item, count }).collect();
    let token = session.csrf_token().await?;
    app.pages.page(&session, "cart.html", context! { token, lines, items => ITEMS.to_vec() }).await
}

/// One more of something.
pub async fn add_to_cart(Checked(session, form): Checked<Item>) -> Answer {
    if !ITEMS.contains(&form.item.as_str()) {
        return again(&session, "We do not have that.", "/cart").await;
    }
    // Two clicks at once are two of it.
    session
        .update("cart", move |cart: &mut BTreeMap<String, u32>| {
            let count = cart.entry(form.item.clone()).or_default();
            *count = (*count + 1).min(MOST);
        })
        .await?;
    Ok(Redirect::to("/cart").into_response())
}

/// Nothing in it any more.
pub async fn empty_cart(Checked(session, Nothing {}): Checked<Nothing>) -> Answer {
    session.remove("cart").await?;
    session.flash(Level::Info, "Your cart is empty.").await?;
    Ok(Redirect::to("/cart").into_response())
}

/// Where one is logged in.
pub async fn devices_page(State(app): State<App>, session: Session) -> Answer {
    if session.user().await?.is_none() {
        session.flash(Level::Info, "Log in to see your devices.").await?;
        return Ok(Redirect::to("/login").into_response());
    }
    let token = session.csrf_token().await?;
    let devices = session.devices().await?;
    let devices: Vec<_> = devices
        .into_iter()
        .map(|device| {
            let idle = ago(device.idle.unwrap_or_default());
            let since = ago(device.since.elapsed().unwrap_or_default());
            context! { id => device.id, label => device.label, current => device.current, idle, since }
        })
        .collect();
    let page = app.pages.page(&session, "devices.html", context! { token, devices }).await?;
    Ok(page.into_response())
}

fn ago(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (count, unit) = match minutes {
        0 => return "just now".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Ends one of one's sessions.
pub async fn revoke_device(Checked(session, form): Checked<Chosen>) -> Answer {
    let ended = session.revoke_device(&form.device).await?;
    if session.user().await?.is_none() {
        return Ok(Redirect::to("/").into_response());
    }
    let (level, words) = match ended {
        true => (Level::Success, "That device is logged out."),
        false => (Level::Info, "That device was logged out already."),
    };
    session.flash(level, words).await?;
    Ok(Redirect::to("/devices").into_response())
}

/// Ends all of one's sessions but this one.
pub async fn revoke_others(Checked(session, Nothing {}): Checked<Nothing>) -> Answer {
    let ended = session.revoke_other_devices().await?;
    session.flash(Level::Success, format!("Logged out elsewhere: {ended}.")).await?;
    Ok(Redirect::to("/devices").into_response())
}

/// There is no such page.
pub async fn not_found() -> Response {
    page(StatusCode::NOT_FOUND, "There is no such page.")
}
