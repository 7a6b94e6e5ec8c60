//! Sessions of a Tonic service, over real HTTP/2: the id travels as a cookie in the metadata.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
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

struct Client {
    grpc: Grpc<Channel>,
    cookie: Option<String>,
}

impl Client {
    /// Calls, keeps the cookie as browsers do, and says whether there was one in the answer.
    async fn call(&mut self, message: &str) -> Result<(String, Option<String>), Status> {
        let mut request = Request::new(message.to_owned());
        if let Some(cookie) = &self.cookie {
            let value: MetadataValue<_> = cookie.parse().expect("a value");
            request.metadata_mut().insert("cookie", value);
        }
        self.grpc.ready().await.expect("a connection");
        let path = http::uri::PathAndQuery::from_static("/larder.Accounts/Call");
        let answer = self.grpc.unary(request, path, Text).await?;
        let cookie = answer.metadata().get("set-cookie").map(|line| line.to_str().expect("text"));
        if let Some(line) = cookie {
            let pair = line.split(';').next().expect("a pair").to_owned();
            self.cookie = (!line.contains("Max-Age=0")).then_some(pair);
        }
        Ok((answer.get_ref().clone(), cookie.map(str::to_owned)))
    }
}

async fn started() -> (Client, Faults) {
    let backend = Faulty::new(MemoryBackend::default());
    let faults = backend.faults();
    let long = Duration::from_secs(600);
    let cache = Cache::builder(backend).read_budget(long).write_budget(long).build();
    let sessions = SessionLayer::new(&cache).evictable();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(
        Server::builder()
            .layer(sessions)
            .add_service(Accounts)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
    let grpc = Grpc::new(channel.connect().await.expect("a connection"));
    (Client { grpc, cookie: None }, faults)
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
    let first = client.cookie.clone();
    assert_eq!(client.call("visit").await.unwrap().0, "2");
    assert_eq!(client.call("enter").await.unwrap().0, "welcome");
    assert_ne!(client.cookie, first, "a sign-in is under another id");
    assert_eq!(client.call("who").await.unwrap(), ("Ada".to_owned(), None));
    let signed_in = client.cookie.clone();
    client.cookie = first;
    assert_eq!(client.call("who").await.unwrap().0, "nobody");
    client.cookie = signed_in.clone();

    // Requests of one connection at the same time are all counted.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut other = Client { grpc: client.grpc.clone(), cookie: client.cookie.clone() };
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
    assert_eq!(client.cookie, None);
    client.cookie = signed_in;
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
