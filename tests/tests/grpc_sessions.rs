//! Sessions of a Tonic service, over real HTTP: the id travels in the metadata, as an entry of its own or as a cookie, and
//! with gRPC-Web as a browser's cookie.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder_cache::Cache;
use larder_core::ErrorKind as StoreError;
use larder_memory::MemoryBackend;
use larder_session::{Error, Session, SessionLayer};
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};

/// Messages that are text, so that no code has to be generated.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Text;
    type Decoder = Text;

    fn encoder(&mut self) -> Text {
        Text
    }

    fn decoder(&mut self) -> Text {
        Text
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| Status::internal("no text"))
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Every method in one: the message says which.
#[derive(Clone)]
struct Accounts;

impl UnaryService<String> for Accounts {
    type Response = String;
    type Future = Boxed<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let session = request.extensions().get::<Session>().cloned().expect("a session");
        Box::pin(async move {
            let told = |error: Error| Status::unavailable(error.to_string());
            let answer = match &**request.get_ref() {
                "nothing" => "done".to_owned(),
                "visit" => {
                    let visits = session.update("visits", |visits: &mut u32| *visits += 1).await;
                    visits.map_err(told)?.to_string()
                }
                "enter" => {
                    session.sign_in("user", "Ada").await.map_err(told)?;
                    "welcome".to_owned()
                }
                "leave" => {
                    session.destroy().await.map_err(told)?;
                    "bye".to_owned()
                }
                "fail" => {
                    session.insert("visits", &99).await.map_err(told)?;
                    return Err(Status::failed_precondition("as it was told to"));
                }
                _ => session.get("user").await.map_err(told)?.unwrap_or("nobody".to_owned()),
            };
            Ok(Response::new(answer))
        })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Accounts {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Text).unary(Accounts, request).await) })
    }
}

impl NamedService for Accounts {
    const NAME: &'static str = "larder.Accounts";
}

/// How a native client brings its id.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Cookie,
    Metadata,
}

#[derive(Clone)]
struct Client {
    grpc: Grpc<Channel>,
    way: Way,
    id: Option<String>,
}

impl Client {
    /// Calls, keeps the id as clients do, and tells what the answer says of it.
    async fn call(&mut self, message: &str) -> Result<(String, Option<String>), Status> {
        let mut request = Request::new(message.to_owned());
        let (bringing, giving) = match self.way {
            Way::Cookie => ("cookie", "set-cookie"),
            Way::Metadata => ("session-id", "session-id"),
        };
        if let Some(id) = &self.id {
            let value: MetadataValue<_> = id.parse().expect("a value");
            request.metadata_mut().insert(bringing, value);
        }
        self.grpc.ready().await.expect("a connection");
        let path = http::uri::PathAndQuery::from_static(PATH);
        let answer = self.grpc.unary(request, path, Text).await?;
        let given = answer.metadata().get(giving).map(|line| line.to_str().expect("text"));
        if let Some(line) = given {
            let kept = line.split(';').next().expect("a pair").to_owned();
            self.id = (!line.is_empty() && !line.contains("Max-Age=0")).then_some(kept);
        }
        Ok((answer.get_ref().clone(), given.map(str::to_owned)))
    }
}

const PATH: &str = "/larder.Accounts/Call";

/// A page's script: gRPC-Web over HTTP/1.1, as a browser sends it.
struct Page {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    text: bool,
    cookie: Option<String>,
}

impl Page {
    async fn send(&self, message: &str, more: &[(&str, &str)]) -> http::Response<Bytes> {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message.as_bytes());
        let kind = if self.text { "application/grpc-web-text" } else { "application/grpc-web" };
        let body = if self.text { BASE64.encode(&frame).into_bytes() } else { frame };
        let mut request = http::Request::post(format!("http://{}{PATH}", self.address))
            .header("content-type", format!("{kind}+proto"))
            .header("accept", format!("{kind}+proto"))
            .header("x-grpc-web", "1");
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).expect("a request");
        let (parts, body) = self.http.request(request).await.expect("an answer").into_parts();
        http::Response::from_parts(parts, body.collect().await.expect("a body").to_bytes())
    }

    async fn call(&mut self, message: &str) -> (String, http::HeaderMap) {
        let answer = self.send(message, &[]).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        if let Some(line) = answer.headers().get("set-cookie") {
            let line = line.to_str().expect("text");
            let kept = line.split(';').next().expect("a pair").to_owned();
            self.cookie = (!line.contains("Max-Age=0")).then_some(kept);
        }
        let body = match self.text {
            // Pieces that are padded each for itself.
            true => {
                let pieces = answer.body().chunks(4);
                pieces.flat_map(|piece| BASE64.decode(piece).expect("base64")).collect()
            }
            false => answer.body().clone(),
        };
        let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        let end = &body[5 + length..];
        assert!(end[0] == 0x80 && end[5..].starts_with(b"grpc-status:0"), "{body:?}");
        let text = String::from_utf8(body[5..5 + length].to_vec()).expect("text");
        (text, answer.headers().clone())
    }
}

struct Site {
    address: SocketAddr,
    faults: Faults,
}

impl Site {
    async fn client(&self, way: Way) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        let grpc = Grpc::new(channel.connect().await.expect("a connection"));
        Client { grpc, way, id: None }
    }

    fn page(&self, text: bool) -> Page {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Page { http, address: self.address, text, cookie: None }
    }
}

async fn site(change: impl FnOnce(SessionLayer) -> SessionLayer) -> Site {
    let backend = Faulty::new(MemoryBackend::default());
    let faults = backend.faults();
    let long = Duration::from_secs(600);
    let cache = Cache::builder(backend).read_budget(long).write_budget(long).build();
    let sessions = change(SessionLayer::new(&cache).evictable());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(
        Server::builder()
            .accept_http1(true)
            .layer(sessions)
            .layer(tonic_web::GrpcWebLayer::new())
            .add_service(Accounts)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    Site { address, faults }
}

async fn started() -> (Client, Faults) {
    let site = site(|sessions| sessions).await;
    (site.client(Way::Cookie).await, site.faults)
}

fn in_metadata(sessions: SessionLayer) -> SessionLayer {
    sessions.metadata("session-id").expect("a name")
}

#[tokio::test]
async fn a_tonic_service_has_sessions_by_the_cookie_in_its_metadata() {
    let (mut client, faults) = started().await;
    assert_eq!(client.call("nothing").await.unwrap(), ("done".to_owned(), None));
    assert_eq!(client.call("who").await.unwrap(), ("nobody".to_owned(), None));
    assert_eq!(faults.total(), 0, "nothing for nothing");

    let (visits, line) = client.call("visit").await.unwrap();
    assert_eq!(visits, "1");
    assert!(line.unwrap().starts_with("__Host-id="));
    let first = client.id.clone();
    assert_eq!(client.call("visit").await.unwrap().0, "2");
    assert_eq!(client.call("enter").await.unwrap().0, "welcome");
    assert_ne!(client.id, first, "a sign-in is under another id");
    assert_eq!(client.call("who").await.unwrap(), ("Ada".to_owned(), None));
    let signed_in = client.id.clone();
    client.id = first;
    assert_eq!(client.call("who").await.unwrap().0, "nobody");
    client.id = signed_in.clone();

    // Requests of one connection at the same time are all counted.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut other = client.clone();
        calls.spawn(async move { other.call("visit").await.map(drop) });
    }
    while let Some(called) = calls.join_next().await {
        called.unwrap().unwrap();
    }
    assert_eq!(client.call("visit").await.unwrap().0, "23");

    // A status that is an error is a response like others, and saves.
    assert_eq!(client.call("fail").await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.call("visit").await.unwrap().0, "100");

    let (_, line) = client.call("leave").await.unwrap();
    assert!(line.unwrap().contains("Max-Age=0"));
    assert_eq!(client.id, None);
    client.id = signed_in;
    assert_eq!(client.call("who").await.unwrap().0, "nobody");
}

#[tokio::test]
async fn o06_an_outage_is_unavailable_to_a_tonic_client_and_takes_no_cookie_away() {
    let (mut client, faults) = started().await;
    client.call("enter").await.unwrap();
    faults.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    for message in ["who", "visit", "leave"] {
        let status = client.call(message).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{message}: {status:?}");
        assert!(status.metadata().get("set-cookie").is_none());
    }
    assert_eq!(client.call("nothing").await.unwrap().0, "done");
    faults.heal();
    assert_eq!(client.call("who").await.unwrap().0, "Ada");
}

#[tokio::test]
async fn native_clients_bring_and_keep_the_id_in_their_metadata() {
    let site = site(in_metadata).await;
    let mut client = site.client(Way::Metadata).await;
    assert_eq!(client.call("nothing").await.unwrap(), ("done".to_owned(), None));
    assert_eq!(client.call("who").await.unwrap(), ("nobody".to_owned(), None));
    assert_eq!(site.faults.total(), 0, "nothing for nothing");

    let (visits, given) = client.call("visit").await.unwrap();
    assert_eq!((visits.as_str(), given.as_ref()), ("1", client.id.as_ref()));
    assert_eq!(given.unwrap().len(), 64, "the id and nothing else");
    assert_eq!(client.call("visit").await.unwrap(), ("2".to_owned(), None), "the client has it");
    let first = client.id.clone();
    client.call("enter").await.unwrap();
    assert_ne!(client.id, first, "a sign-in is under another id");
    assert_eq!(client.call("who").await.unwrap(), ("Ada".to_owned(), None));
    let signed_in = client.id.clone();
    client.id = first;
    assert_eq!(client.call("who").await.unwrap().0, "nobody");
    // An id that nobody gave out is not adopted.
    client.id = Some("7".repeat(64));
    assert_eq!(client.call("visit").await.unwrap().0, "1");
    assert_ne!(client.id, Some("7".repeat(64)));

    client.id = signed_in.clone();
    assert_eq!(client.call("leave").await.unwrap(), ("bye".to_owned(), Some(String::new())));
    assert_eq!(client.id, None);
    client.id = signed_in;
    assert_eq!(client.call("who").await.unwrap().0, "nobody");
}

#[tokio::test]
async fn a_native_call_says_that_it_is_private_and_has_no_cookie() {
    let site = site(in_metadata).await;
    let mut client = site.client(Way::Metadata).await;
    let ask = async |id: Option<&str>, cookie: Option<&str>, message: &str| {
        let mut request = Request::new(message.to_owned());
        for (name, value) in [("session-id", id), ("cookie", cookie)] {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.parse().unwrap());
            }
        }
        let mut grpc = site.client(Way::Metadata).await.grpc;
        grpc.ready().await.unwrap();
        grpc.unary(request, http::uri::PathAndQuery::from_static(PATH), Text).await.unwrap()
    };
    client.call("enter").await.unwrap();
    let id = client.id.unwrap();
    let cookie = format!("__Host-id={id}");
    let answer = ask(Some(&id), None, "who").await;
    assert_eq!(answer.get_ref(), "Ada");
    assert_eq!(answer.metadata().get("cache-control").unwrap(), "private");
    assert_eq!(answer.metadata().get("vary").unwrap(), "session-id");
    // The right id in the wrong place, as a script would try that may not see its page's cookie.
    let answer = ask(None, Some(&cookie), "who").await;
    assert_eq!(answer.get_ref(), "nobody");
    let answer = ask(None, Some(&cookie), "leave").await;
    assert!(answer.metadata().get("set-cookie").is_none());
    assert!(answer.metadata().get("session-id").is_none());
    assert_eq!(ask(Some(&id), Some("__Host-id=other"), "who").await.get_ref(), "Ada");
}

#[tokio::test]
async fn pages_with_grpc_web_have_cookies_and_share_sessions_with_native_clients() {
    let site = site(in_metadata).await;
    for text in [false, true] {
        let mut page = site.page(text);
        let (visits, headers) = page.call("visit").await;
        assert_eq!(visits, "1");
        let line = headers["set-cookie"].to_str().unwrap();
        assert!(line.starts_with("__Host-id=") && line.contains("; Secure; HttpOnly;"), "{line}");
        assert!(!headers.contains_key("session-id"), "no script reads the id");
        assert_eq!(
            (&headers["vary"], &headers["cache-control"]),
            (&"cookie".parse().unwrap(), &"no-store, private".parse().unwrap())
        );
        let first = page.cookie.clone();
        page.call("enter").await;
        assert_ne!(page.cookie, first, "a sign-in is under another id");
        assert_eq!(page.call("who").await.0, "Ada");
        let cookie = page.cookie.clone().unwrap();
        let id = cookie.strip_prefix("__Host-id=").unwrap();

        // A page's metadata is nobody's id.
        page.cookie = None;
        let answer = page.send("leave", &[("session-id", id)]).await;
        assert!(!answer.headers().contains_key("session-id"));
        page.cookie = Some(cookie.clone());
        assert_eq!(page.call("who").await.0, "Ada");

        let mut native = site.client(Way::Metadata).await;
        native.id = Some(id.to_owned());
        assert_eq!(native.call("who").await.unwrap().0, "Ada", "it is the same session");
        let (_, headers) = page.call("leave").await;
        assert!(headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
        assert_eq!(native.call("who").await.unwrap().0, "nobody");
        page.cookie = Some(cookie);
        assert_eq!(page.call("who").await.0, "nobody");
    }
}

#[tokio::test]
async fn o06_an_outage_is_503_to_a_page_and_takes_no_cookie_away() {
    let site = site(in_metadata).await;
    let mut page = site.page(false);
    page.call("enter").await;
    site.faults.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    for message in ["who", "visit", "leave"] {
        let answer = page.send(message, &[]).await;
        assert_eq!(answer.status(), 503, "{message}: {answer:?}");
        assert!(!answer.headers().contains_key("set-cookie") && answer.body().is_empty());
    }
    assert_eq!(page.call("nothing").await.0, "done");
    site.faults.heal();
    assert_eq!(page.call("who").await.0, "Ada");
}

#[tokio::test]
async fn o06_an_outage_takes_no_id_away_from_metadata() {
    let site = site(in_metadata).await;
    let mut client = site.client(Way::Metadata).await;
    client.call("enter").await.unwrap();
    site.faults.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    for message in ["who", "visit", "leave"] {
        let status = client.call(message).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{message}: {status:?}");
        assert!(status.metadata().get("session-id").is_none());
    }
    site.faults.heal();
    assert_eq!(client.call("who").await.unwrap().0, "Ada");
}
