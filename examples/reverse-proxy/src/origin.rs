//! The other side: one request to the origin for each request that comes here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{EXPECT, HOST, HeaderValue, VIA};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use larder::http::query::RequestBody;
use larder::http::rules::headers::remove_hop_by_hop;
use tower::Service;

use crate::hints::Hint;

/// A server that requests are sent on to.
#[derive(Clone, Debug)]
pub struct Origin {
    client: Client<HttpsConnector<HttpConnector>, RequestBody<Incoming>>,
    scheme: Scheme,
    authority: Authority,
    host: Option<HeaderValue>,
    timeout: Duration,
}

/// The origin gave no answer: it cannot be reached, hung up, or took too long.
#[derive(Debug)]
pub struct NoAnswer(&'static str);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoAnswer {}

// Many servers close a connection that was idle for five seconds.
const IDLE: Duration = Duration::from_secs(4);

impl Origin {
    /// The server of that scheme and authority, which has `timeout` to begin each answer.
    ///
    /// # Panics
    ///
    /// When the URL has no scheme or no authority.
    pub fn new(base: &Uri, preserve_host: bool, timeout: Duration) -> Self {
        let scheme = base.scheme().expect("the origin has a scheme").clone();
        let authority = base.authority().expect("the origin has an authority").clone();
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            // Only the client knows whether its request may be made twice.
            .retry_canceled_requests(false)
            .build(connector);
        let host = (!preserve_host).then(|| {
            HeaderValue::from_str(authority.as_str()).expect("an authority makes a header")
        });
        Origin { client, scheme, authority, host, timeout }
    }

    fn outgoing(&self, request: &mut Request<RequestBody<Incoming>>) {
        let target = request.uri().path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        uri = uri.path_and_query(target);
        let from = std::mem::take(request.uri_mut());
        *request.uri_mut() = uri.build().expect("parts of URLs make a URL");

        let version = std::mem::replace(request.version_mut(), http::Version::HTTP_11);
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        // The server has asked for the body already.
        headers.remove(EXPECT);
        match &self.host {
            Some(host) => drop(headers.insert(HOST, host.clone())),
            None => {
                // HTTP/2 has it in the target.
                if let Some(authority) = from.authority()
                    && let Ok(host) = HeaderValue::from_str(authority.as_str())
                {
                    headers.insert(HOST, host);
                }
            }
        }
        // RFC 9110 §7.6.3
        let number = if version == http::Version::HTTP_2 { "2" } else { "1.1" };
        if let Ok(via) = HeaderValue::try_from(format!("{number} larder")) {
            headers.append(VIA, via);
        }
    }
}

impl Service<Request<RequestBody<Incoming>>> for Origin {
    type Response = Response<Incoming>;
    type Error = NoAnswer;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, NoAnswer>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAnswer>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RequestBody<Incoming>>) -> Self::Future {
        let hints = request.extensions_mut().remove::<Hint>();
        self.outgoing(&mut request);
        if let Some(hints) = hints {
            hyper::ext::on_informational(&mut request, move |response| {
                hints.send(response.status(), response.headers());
            });
        }
        let answer = tokio::time::timeout(self.timeout, self.client.request(request));
        Box::pin(async move {
            let answer = answer.await.map_err(|_| NoAnswer("the origin took too long"))?;
            let mut response = answer.map_err(|error| {
                tracing::debug!(error = &error as &dyn std::error::Error, "no answer");
                NoAnswer(if error.is_connect() {
                    "the origin cannot be reached"
                } else {
                    "the origin hung up"
                })
            })?;
            remove_hop_by_hop(response.headers_mut());
            // Whoever passes a message on speaks a version of its own (RFC 9112 §2.3).
            *response.version_mut() = http::Version::HTTP_11;
            Ok(response)
        })
    }
}
