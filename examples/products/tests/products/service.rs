//! A running service with a small database, and a client.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder::Cache;
use products::database::Database;
use products::shop::Shop;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// As many as make five pages, the last of them short.
pub(crate) const PRODUCTS: u32 = 230;

pub(crate) struct Service {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    folder: Option<TempDir>,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    /// With a cache in memory.
    pub(crate) async fn cached() -> Self {
        Service::start(Some(Cache::memory())).await
    }

    pub(crate) async fn start(cache: Option<Cache>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.db");
        let mut service = Service::over(path, cache).await;
        service.folder = Some(folder);
        service
    }

    /// Over a database that may be another service's too.
    pub(crate) async fn over(path: PathBuf, cache: Option<Cache>) -> Self {
        let database = Database::open_with(&path, PRODUCTS).unwrap();
        let app = products::app(Shop::new(database, cache));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Service {
            base,
            client: Client::builder(TokioExecutor::new()).build_http(),
            folder: None,
            task,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("products.db")
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn request(&self, request: http::request::Builder, body: &str) -> Answer {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let response = self.client.request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Request::get(self.url(path)), "").await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("content-type", "application/json");
        self.request(request, &body.to_string()).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Changes some fields of a product and leaves the others.
    pub(crate) async fn edit(&self, id: i64, fields: Value) -> Answer {
        let path = format!("/api/products/{id}");
        let now = self.get(&path).await.json();
        let mut draft = json!({});
        for name in ["name", "description", "category", "price_cents", "stock"] {
            draft[name] = fields.get(name).unwrap_or(&now[name]).clone();
        }
        let answer = self.send(Method::PUT, &path, &draft).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer
    }

    /// Asks until the answer is a hit. The client of a miss does not wait for the store, so a quick second request may
    /// come before what the first one stored.
    pub(crate) async fn warm(&self, paths: &[&str]) {
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        for path in paths {
            self.get(path).await;
            loop {
                let again = self.get(path).await;
                if again.is_hit() {
                    break;
                }
                let late = tokio::time::Instant::now() > until;
                assert!(!late, "{path}: {:?}", again.cache_status());
            }
        }
    }

    /// Which of these would be answered from the cache. It does not put into the cache what is not there.
    pub(crate) async fn cached_of<'a>(&self, paths: &[&'a str]) -> Vec<&'a str> {
        let mut cached = Vec::new();
        for path in paths {
            let request = Request::get(self.url(path)).header("cache-control", "only-if-cached");
            let answer = self.request(request, "").await;
            match answer.status {
                StatusCode::GATEWAY_TIMEOUT => {}
                StatusCode::OK => cached.push(*path),
                other => panic!("{path}: {other}"),
            }
        }
        cached
    }

    /// The numbers of the products that a list or search page shows.
    pub(crate) async fn ids(&self, path: &str) -> Vec<i64> {
        self.get(path).await.ids()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A cache with time enough, so that a busy machine does not turn a slow answer into an outage.
pub(crate) async fn patient(url: &str) -> Cache {
    let url = format!("{url}&read_budget=60s&write_budget=60s");
    Cache::connect(&url).await.unwrap()
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status().starts_with("products; hit")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        let results = self.json()["results"].clone();
        results.as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()).collect()
    }
}

/// A product as clients send it.
pub(crate) fn draft(name: &str) -> Value {
    json!({
        "name": name,
        "description": "Pours gold.",
        "category": "Kitchen",
        "price_cents": 4990,
        "stock": 3,
    })
}
