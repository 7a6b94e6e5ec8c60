//! The handlers of the API. What each response carries is in [`tags`].

use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, Query as Pairs, State};
use axum::http::header::{CONTENT_TYPE, ETAG, HOST, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use larder::http::Caching;
use serde::Serialize;

use crate::errors::Problem;
use crate::product::{Draft, Product, Slice};
use crate::query::{Query, last_page};
use crate::shop::Shop;
use crate::tags;

const FEATURED: u32 = 12;

type Body = Result<Json<Draft>, JsonRejection>;
pub(crate) type Id = Result<Path<String>, PathRejection>;

#[derive(Serialize)]
struct Page {
    count: i64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<Product>,
}

/// `GET /api/products/?page=N`
///
/// # Errors
///
/// 400 for a page that is no number, 404 for one beyond the end.
pub async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Pairs(pairs): Pairs<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let query = Query::read(pairs, &["page"])?;
    let slice = shop.database().list(query.offset()).await?;
    query.check(slice.count)?;
    let caching = showing(&slice.products).tag(tags::LIST);
    cacheable(caching, &page(slice, &query, &base(&headers, "/api/products/")))
}

/// `GET /api/search?q=…&page=N`
///
/// # Errors
///
/// 400 without `q`; otherwise as [`list`].
pub async fn search(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Pairs(pairs): Pairs<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let query = Query::read(pairs, &["q", "page"])?;
    let Some(q) = query.q.clone().filter(|q| !q.is_empty()) else {
        return Err(Problem::bad_request("q is missing", "write for instance ?q=teapot"));
    };
    let slice = shop.database().search(q, query.offset()).await?;
    query.check(slice.count)?;
    let caching = showing(&slice.products).tag(tags::SEARCH);
    cacheable(caching, &page(slice, &query, &base(&headers, "/api/search")))
}

/// `GET /api/products/featured`: data through the cache, in a response that is cached too.
///
/// # Errors
///
/// When the database fails.
pub async fn featured(State(shop): State<Shop>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Featured<'a> {
        results: &'a [Product],
    }
    let (products, _) =
        shop.data("featured", |database| async move { database.featured(FEATURED).await }).await?;
    cacheable(Caching::new().tag(tags::ALL), &Featured { results: &products })
}

/// `GET /api/products/{id}`
///
/// # Errors
///
/// 400 for an id that is no number, 404 for an unknown one.
pub async fn detail(State(shop): State<Shop>, path: Id) -> Result<Response, Problem> {
    let id = id(path)?;
    let detail = shop.database().detail(id).await?.ok_or_else(|| unknown(id))?;
    cacheable(Caching::new().tag(tags::product(id)), &detail)
}

/// `POST /api/products/`
///
/// # Errors
///
/// 4xx for a body that is no product.
pub async fn create(State(shop): State<Shop>, body: Body) -> Result<Response, Problem> {
    let Json(draft) = body?;
    let made = shop.database().create(draft.check()?).await?;
    shop.drop_tags(tags::after_creation()).await;
    let location = format!("/api/products/{}", made.product.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(made)).into_response())
}

/// `PUT /api/products/{id}`
///
/// # Errors
///
/// 4xx for a body that is no product, 404 for an unknown id.
pub async fn update(State(shop): State<Shop>, path: Id, body: Body) -> Result<Response, Problem> {
    let id = id(path)?;
    let Json(draft) = body?;
    let edit = shop.database().update(id, draft.check()?).await?.ok_or_else(|| unknown(id))?;
    shop.drop_tags(tags::after_edit(id, edit.text_changed)).await;
    Ok(Json(edit.product).into_response())
}

/// `DELETE /api/products/{id}`
///
/// # Errors
///
/// 404 for an unknown id.
pub async fn remove(State(shop): State<Shop>, path: Id) -> Result<StatusCode, Problem> {
    let id = id(path)?;
    if !shop.database().remove(id).await? {
        return Err(unknown(id));
    }
    shop.drop_tags(tags::after_deletion(id)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// A response that is cached under these tags. Its `ETag` lets clients ask whether theirs is still good: from the cache
/// that is answered with 304 and without a handler.
fn cacheable(caching: Caching, body: &impl Serialize) -> Result<Response, Problem> {
    let body = Bytes::from(serde_json::to_vec(body).map_err(Problem::internal)?);
    let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (ETAG, tag)];
    Ok((Extension(caching), headers, body).into_response())
}

fn showing(products: &[Product]) -> Caching {
    Caching::new().tags(products.iter().map(|product| tags::product(product.id)))
}

fn page(slice: Slice, query: &Query, base: &str) -> Page {
    let link = |page: u32| match &query.q {
        None => format!("{base}?page={page}"),
        Some(q) => format!("{base}?q={}&page={page}", encoded(q)),
    };
    let more = i64::from(query.page) < last_page(slice.count);
    Page {
        count: slice.count,
        next: more.then(|| link(query.page + 1)),
        previous: (query.page > 1).then(|| link(query.page - 1)),
        results: slice.products,
    }
}

// Links are whole, as a client has to ask. The host that it named is part of the key under which its answer is stored.
fn base(headers: &HeaderMap, path: &str) -> String {
    match headers.get(HOST).and_then(|host| host.to_str().ok()) {
        Some(host) => format!("http://{host}{path}"),
        None => path.to_owned(),
    }
}

/// Text for a query string.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

pub(crate) fn id(path: Id) -> Result<i64, Problem> {
    let hint = "products have numbers from 1, as in /api/products/42";
    let Path(text) = path.map_err(|rejection| Problem::bad_request(rejection.body_text(), hint))?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(Problem::bad_request(format!("{text:?} is not a product's number"), hint));
    }
    text.parse().map_err(|_| Problem::not_found(format!("there is no product {text}"), hint))
}

pub(crate) fn unknown(id: i64) -> Problem {
    Problem::not_found(format!("there is no product {id}"), "GET /api/products/ lists them all")
}
