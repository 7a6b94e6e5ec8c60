//! What pages look like: MiniJinja, which escapes what it is given.

use std::fmt;
use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use larder::session::Session;
use minijinja::{Environment, Value, context};

use crate::problem::Problem;

/// The templates. A clone is the same ones.
#[derive(Clone)]
pub struct Pages(Arc<Environment<'static>>);

const TEMPLATES: [(&str, &str); 6] = [
    ("base.html", include_str!("../templates/base.html")),
    ("home.html", include_str!("../templates/home.html")),
    ("register.html", include_str!("../templates/register.html")),
    ("login.html", include_str!("../templates/login.html")),
    ("cart.html", include_str!("../templates/cart.html")),
    ("devices.html", include_str!("../templates/devices.html")),
];

impl Default for Pages {
    fn default() -> Self {
        Pages::new()
    }
}

impl Pages {
    /// All of them.
    pub fn new() -> Self {
        let mut environment = Environment::new();
        for (name, source) in TEMPLATES {
            environment.add_template(name, source).unwrap_or_else(|error| unreachable!("{error}"));
        }
        Pages(Arc::new(environment))
    }

    /// A page with what every page shows: who is there, and the messages that wait for them.
    ///
    /// # Errors
    ///
    /// When the session cannot be read.
    pub async fn page(
        &self,
        session: &Session,
        name: &str,
        more: Value,
    ) -> Result<Html<String>, Problem> {
        let user: Option<String> = match session.user().await? {
            Some(_) => session.get("name").await?,
            None => None,
        };
        let flashes = session.take_flashes().await?;
        let flashes: Vec<_> = flashes
            .into_iter()
            .map(|flash| context! { level => flash.level.as_str(), text => flash.text })
            .collect();
        let context = context! { user, flashes, ..more };
        let rendered = self.0.get_template(name).and_then(|template| template.render(context));
        rendered.map(Html).map_err(|error| {
            tracing::error!(?error, name, "a page cannot be rendered");
            Problem::Internal("a page cannot be rendered")
        })
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

/// The style sheet.
pub async fn style() -> impl IntoResponse {
    let headers =
        [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "public, max-age=3600")];
    (headers, include_str!("../templates/style.css"))
}
