//! A real hyper server over TCP, a client that writes HTTP/1.1 byte by byte, and one for HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower::{Service, ServiceExt};

use crate::{Failure, Got, TestBody, append};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A server on a free port that speaks HTTP/1.1 and HTTP/2, and ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves a service.
    pub async fn start<S, B>(service: S) -> Server
    where
        S: Service<Request<TestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = Served(service.clone());
                tokio::spawn(async move {
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Server { address, accepting }
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn http1(&self) -> Http1 {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        Http1 { stream, read: Vec::new() }
    }

    /// A connection that speaks HTTP/2.
    pub async fn http2(&self) -> Http2 {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let io = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Http2 { sender, driver }
    }
}

struct Served<S>(S);

impl<S, B> hyper::service::Service<Request<Incoming>> for Served<S>
where
    S: Service<Request<TestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request =
            request.map(|body| body.map_err(|error| Failure(error.to_string())).boxed_unsync());
        let answer = self.0.clone().oneshot(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A connection whose bytes the test writes itself.
#[derive(Debug)]
pub struct Http1 {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http1 {
    /// Sends these bytes.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the connection is open");
    }

    /// GET in origin form.
    pub async fn get(&mut self, host: &str, target: &str) -> Got {
        self.write(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.response().await
    }

    /// Reads the next response, of a request that was not HEAD.
    pub async fn response(&mut self) -> Got {
        self.try_response(false).await.expect("a whole response")
    }

    /// Reads the next response; `None` when the connection ends before the response does.
    pub async fn try_response(&mut self, to_head: bool) -> Option<Got> {
        let (status, headers) = self.head().await?;
        let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (mut body, mut trailers) = (Vec::new(), None);
        if to_head || matches!(status, 204 | 304) {
        } else if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            loop {
                let length = self.line().await?;
                let length = usize::from_str_radix(length.trim(), 16).expect("a chunk's length");
                if length == 0 {
                    let fields = self.fields().await?;
                    trailers = (!fields.is_empty()).then_some(fields);
                    break;
                }
                body.extend(self.take(length).await?);
                self.take(2).await?;
            }
        } else if let Some(length) = field("content-length") {
            body = self.take(length.parse().expect("a length")).await?;
        } else {
            while self.more().await {}
            body = std::mem::take(&mut self.read);
        }
        Some(Got { status, headers, body: body.into(), trailers })
    }

    /// Reads a response's head.
    pub async fn head(&mut self) -> Option<(u16, HeaderMap)> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        Some((status.expect("a status line"), self.fields().await?))
    }

    /// Reads one chunk's bytes.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = self.line().await?;
        let chunk = self.take(usize::from_str_radix(length.trim(), 16).ok()?).await?;
        self.take(2).await?;
        Some(chunk)
    }

    /// What has come by now, or the next bytes; `None` at the end.
    pub async fn some(&mut self) -> Option<Vec<u8>> {
        if self.read.is_empty() && !self.more().await {
            return None;
        }
        Some(std::mem::take(&mut self.read))
    }

    async fn fields(&mut self) -> Option<HeaderMap> {
        let mut fields = HeaderMap::new();
        loop {
            let line = self.line().await?;
            match line.trim_end().split_once(':') {
                None => return Some(fields),
                Some((name, value)) => append(&mut fields, &[(name, value.trim())]),
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.take(end + 1).await?;
                return String::from_utf8(line).ok();
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.read.split_off(length);
        Some(std::mem::replace(&mut self.read, rest))
    }

    async fn more(&mut self) -> bool {
        self.read.reserve(64 << 10);
        self.stream.read_buf(&mut self.read).await.is_ok_and(|read| read > 0)
    }
}

/// A connection that speaks HTTP/2.
#[derive(Debug)]
pub struct Http2 {
    sender: SendRequest<TestBody>,
    driver: JoinHandle<()>,
}

impl Http2 {
    /// Sends a request and reads the response's head.
    ///
    /// # Errors
    ///
    /// When the stream was reset.
    pub async fn head_of(
        &mut self,
        request: Request<TestBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Sends a request and reads the response to its end.
    pub async fn send(&mut self, request: Request<TestBody>) -> Got {
        let response = self.head_of(request).await.expect("a response");
        Got::read(response).await.expect("a whole body")
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
