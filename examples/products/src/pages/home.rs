//! The list: a table, a search box, and a sidebar that is a cached fragment; by Askama.

use std::time::Instant;

use askama::Template;
use axum::extract::{Query as Pairs, State};
use axum::response::Response;
use larder::Fragment;

use super::{answer, footer, rendered, sidebar, words};
use crate::api::encoded;
use crate::errors::Problem;
use crate::product::{PER_PAGE, Product, Slice};
use crate::query::{Query, last_page};
use crate::shop::Shop;

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    title: &'a str,
    q: &'a str,
    heading: String,
    range: String,
    products: &'a [Product],
    page: i64,
    last: i64,
    // What the links to other pages ask for beside the page.
    more: String,
    sidebar: Fragment,
    footer: Fragment,
}

/// `GET /?page=N&q=…`
pub async fn page(
    State(shop): State<Shop>,
    Pairs(pairs): Pairs<Vec<(String, String)>>,
) -> Response {
    answer(show(&shop, pairs).await)
}

async fn show(shop: &Shop, pairs: Vec<(String, String)>) -> Result<String, Problem> {
    let begun = Instant::now();
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
    let (sidebar, aside) = sidebar(shop).await?;

    let links = [("/api/products/", "products"), ("/api/products/featured", "featured")];
    let footer = footer(shop, [("Table", table), ("Sidebar", aside)], &links, begun)?;
    let page = Home {
        title: "Products",
        q: query.q.as_deref().unwrap_or_default(),
        heading: heading(&query),
        range: range(&query, &slice),
        products: &slice.products,
        page: i64::from(query.page),
        last: last_page(slice.count),
        more: query.q.as_deref().map(|q| format!("&q={}", encoded(q))).unwrap_or_default(),
        sidebar,
        footer,
    };
    rendered(page.render())
}

fn heading(query: &Query) -> String {
    match &query.q {
        None => "Newest products".to_owned(),
        Some(q) => format!("Products with “{q}”"),
    }
}

fn range(query: &Query, slice: &Slice) -> String {
    let first = query.offset() + 1;
    let last = query.offset() + i64::try_from(slice.products.len()).unwrap_or(PER_PAGE);
    let thousands = words::thousands;
    match slice.count {
        0 => "Nothing found".to_owned(),
        count => format!("{}–{} of {}", thousands(first), thousands(last), thousands(count)),
    }
}
