//! Pages for people, put together from cached parts.
//!
//! The API's responses are cached whole. These pages show the other way: each is made for its request, so that its footer
//! can tell of this very one, and what is costly in it comes from the cache. The list is rendered by Askama, a product's
//! own page by MiniJinja, over the same layout. Both escape whatever they are given, except fragments: text that one of
//! them has rendered before, and escaped then.

mod detail;
mod home;
mod words;

use std::time::Instant;

use askama::Template;
use axum::http::header::CACHE_CONTROL;
use axum::response::{Html, IntoResponse, Response};
use larder::Fragment;

use crate::database::Sidebar;
use crate::errors::Problem;
use crate::product::Product;
use crate::shop::{Origin, Shop};
use crate::{database, tags};

pub use detail::page as detail;
pub use home::page as home;

/// What is wrong, as a page.
#[derive(Template)]
#[template(path = "problem.html")]
struct Wrong<'a> {
    title: &'a str,
    q: &'a str,
    error: &'a str,
    hint: &'a str,
}

#[derive(Template)]
#[template(path = "sidebar.html")]
struct Aside<'a> {
    best: &'a [Product],
    categories: &'a [database::CategorySummary],
}

/// How the page was made.
#[derive(Template)]
#[template(path = "footer.html")]
struct Footer<'a> {
    parts: Vec<(&'static str, String)>,
    links: &'a [(&'a str, &'a str)],
    milliseconds: String,
}

fn answer(page: Result<String, Problem>) -> Response {
    let problem = match page {
        Ok(html) => return ([(CACHE_CONTROL, "no-cache")], Html(html)).into_response(),
        Err(problem) => problem,
    };
    let wrong = Wrong { title: "Products", q: "", error: &problem.error, hint: &problem.hint };
    match rendered(wrong.render()) {
        Ok(html) => (problem.status, Html(html)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn rendered<E: std::fmt::Display>(text: Result<String, E>) -> Result<String, Problem> {
    text.map_err(|error| Problem::internal(format_args!("a template failed: {error}")))
}

/// A fragment: HTML that is the same on every page.
async fn sidebar(shop: &Shop) -> Result<(Fragment, Origin), Problem> {
    let render = |database: database::Database| async move {
        let Sidebar { best, categories } = database.sidebar().await?;
        rendered(Aside { best: &best, categories: &categories }.render())
    };
    shop.fragment("sidebar", tags::ALL, render).await
}

/// Never cached: it tells of the request.
fn footer(
    shop: &Shop,
    parts: [(&str, Origin); 2],
    links: &[(&str, &str)],
    begun: Instant,
) -> Result<Fragment, Problem> {
    let part = |(name, origin)| {
        let (class, words) = match (shop.cache(), origin) {
            (None, _) => ("computed", "from the database, no cache"),
            (Some(_), Origin::Cached) => ("hit", "from the cache"),
            (Some(_), Origin::Computed) => ("computed", "computed now, cached"),
        };
        (class, format!("{name}: {words}"))
    };
    let milliseconds = format!("{:.2}", begun.elapsed().as_secs_f64() * 1000.0);
    let footer = Footer { parts: parts.map(part).into(), links, milliseconds };
    rendered(footer.render()).map(Fragment::from)
}
