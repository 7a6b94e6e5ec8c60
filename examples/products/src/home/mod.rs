//! The home page: a table, a search box, and a sidebar that is a cached fragment.
//!
//! The API's responses are cached whole. This page shows the other way: it is put together for every request, so its
//! footer can tell of this very one, and its costly parts come from the cache.

mod html;

use std::time::Instant;

use axum::extract::{Query as Pairs, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{Html, IntoResponse, Response};

use crate::errors::Problem;
use crate::product::Slice;
use crate::query::Query;
use crate::shop::Shop;

/// `GET /?page=N&q=…`
pub async fn page(
    State(shop): State<Shop>,
    Pairs(pairs): Pairs<Vec<(String, String)>>,
) -> Response {
    match show(&shop, pairs).await {
        Ok(html) => ([(CACHE_CONTROL, "no-cache")], Html(html)).into_response(),
        Err(problem) => (problem.status, Html(html::problem(&problem))).into_response(),
    }
}

async fn show(shop: &Shop, pairs: Vec<(String, String)>) -> Result<String, Problem> {
    let begin = Instant::now();
    let mut query = Query::read(pairs, &["page", "q"])?;
    query.q = query.q.filter(|q| !q.is_empty());

    // Data: the rows of the table, by what was asked for.
    let asked = query.clone();
    let key = ("table", query.q.as_deref().unwrap_or_default(), query.page);
    let (slice, table) = shop
        .data::<Slice, _, _>(key, move |database| async move {
            let slice = match &asked.q {
                Some(q) => database.search(q.clone(), asked.offset()).await?,
                None => database.list(asked.offset()).await?,
            };
            // Here, so that a page that is not there is not cached either.
            asked.check(slice.count)?;
            Ok(slice)
        })
        .await?;

    // A fragment: HTML that is the same on every page.
    let (aside, sidebar) =
        shop.fragment("sidebar", |database| async move {
            Ok(html::sidebar(&database.sidebar().await?))
        })
        .await?;

    let footer = html::Footer {
        cached: shop.cache().is_some(),
        table,
        sidebar,
        milliseconds: begin.elapsed().as_secs_f64() * 1000.0,
    };
    Ok(html::page(&query, &slice, &aside, &footer))
}
