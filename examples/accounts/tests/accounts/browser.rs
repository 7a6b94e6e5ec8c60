//! A running service, and browsers that keep their cookie.

use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder::{Cache, MemoryBackend};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) struct Service {
    pub(crate) base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    // Of the users' file, for as long as it is used.
    folder: Option<TempDir>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Service::over(Cache::builder(MemoryBackend::default()).build()).await
    }

    pub(crate) async fn over(cache: Cache) -> Self {
        Service::with(cache, false).await
    }

    pub(crate) async fn with(cache: Cache, https: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = accounts::users::Users::open(&folder.path().join("accounts.db")).unwrap();
        let app = accounts::app(users, accounts::sessions(&cache, https).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let mut service = Service::at(base);
        (service.task, service.folder) = (Some(task), Some(folder));
        service
    }

    /// One that somebody else has started.
    pub(crate) fn at(base: String) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Service { base, client, folder: None, task: None }
    }

    pub(crate) fn browser(&self, agent: &'static str) -> Browser<'_> {
        Browser { service: self, agent, cookie: None }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// With time enough, so that a busy machine does not turn a slow answer into an outage.
pub(crate) async fn patient(url: &str) -> Cache {
    Cache::connect(&format!("{url}&read_budget=60s&write_budget=60s")).await.unwrap()
}

pub(crate) struct Browser<'a> {
    service: &'a Service,
    agent: &'static str,
    pub(crate) cookie: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Page {
    /// The token of the page's forms.
    pub(crate) fn token(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"token\" value=\"").expect("a token");
        rest.split('"').next().unwrap().to_owned()
    }

    /// The ids of the devices that it lists, and whether each is the one that asks.
    pub(crate) fn devices(&self) -> Vec<(String, bool)> {
        let id = |part: &str| {
            let (_, rest) = part.split_once("name=\"device\" value=\"")?;
            let id = rest.split('"').next()?.to_owned();
            Some((id, part.starts_with(" class=\"current\"")))
        };
        self.text.split("<li").skip(1).filter_map(id).collect()
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &str) -> &Self {
        assert!(self.text.contains(words), "{words:?} is not in {self:#?}");
        self
    }
}

impl Browser<'_> {
    pub(crate) async fn send(&mut self, request: http::request::Builder, body: String) -> Page {
        let mut request = request.header("user-agent", self.agent);
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let sent = self.service.client.request(request);
        let response = tokio::time::timeout(Duration::from_secs(60), sent).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        if let Some(line) = parts.headers.get(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let pair = line.split("; ").next().unwrap().to_owned();
            self.cookie = (!line.contains("Max-Age=0")).then_some(pair);
        }
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Page { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Page {
        let request = Request::get(format!("{}{path}", self.service.base));
        self.send(request, String::new()).await
    }

    /// Sends a form as it is.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.service.base))
            .header("content-type", "application/x-www-form-urlencoded");
        let form =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(request, form).await
    }

    /// Opens a page, sends its form, and follows to where that leads.
    pub(crate) async fn submit(&mut self, page: &str, to: &str, fields: &[(&str, &str)]) -> Page {
        let token = self.get(page).await.token();
        let mut all = vec![("token", token.as_str())];
        all.extend_from_slice(fields);
        let answer = self.post(to, &all).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:#?}");
        let next = answer.headers[LOCATION].to_str().unwrap().to_owned();
        self.get(&next).await
    }

    pub(crate) async fn register(&mut self, name: &str, password: &str) -> Page {
        self.submit("/register", "/register", &[("name", name), ("password", password)]).await
    }

    pub(crate) async fn log_in(&mut self, name: &str, password: &str) -> Page {
        self.submit("/login", "/login", &[("name", name), ("password", password)]).await
    }
}

/// Puts one cup into the cart, on a connection of its own.
pub(crate) async fn click(base: &str, cookie: &str, token: &str) -> StatusCode {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("{base}/cart"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header(COOKIE, cookie)
        .body(Full::new(Bytes::from(format!("token={token}&item=Cup"))))
        .unwrap();
    client.request(request).await.unwrap().status()
}
