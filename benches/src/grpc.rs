//! Cached gRPC calls beside bare Tonic: in process, and over HTTP/2.

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::Cache;
use larder::grpc::{GrpcCacheLayer, Read};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_prost::ProstCodec;
use tower::{Layer, Service};

use crate::{Case, Run, WARM_UP, runtime};

/// The rows, in the table's order. The first is the harness itself.
pub const CASES: &[Case] = &[
    Case { name: "harness only, empty response", make: harness },
    Case { name: "bare Tonic handler, a constant", make: bare },
    Case { name: "Larder", make: larder },
    Case { name: "Larder, cache-status", make: larder_status },
    Case { name: "Larder, canonical messages", make: larder_canonical },
];

/// The row that others are compared with.
pub const BASELINE: &str = "bare Tonic handler, a constant";

const METHOD: &str = "/bench.Bench/Get";

/// A handler as Tonic generates it: a string of that length, made once.
#[derive(Clone, Debug)]
struct Constant(Bytes);

impl UnaryService<u64> for Constant {
    type Response = Bytes;
    type Future = std::future::Ready<Result<tonic::Response<Bytes>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<u64>) -> Self::Future {
        let mut response = tonic::Response::new(self.0.clone());
        response.metadata_mut().insert("x-shop-region", "eu-central".parse().expect("a value"));
        std::future::ready(Ok(response))
    }
}

impl<B> Service<Request<B>> for Constant
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    // As the generated code has it.
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let constant = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(constant, request).await) })
    }
}

impl NamedService for Constant {
    const NAME: &'static str = "bench.Bench";
}

fn routes(size: usize) -> Routes {
    Routes::new(Constant(vec![b'x'; size].into())).prepare()
}

/// A request for the number 7, with what Tonic's client sends.
fn request(authority: &str) -> Request<Full<Bytes>> {
    Request::post(format!("http://{authority}{METHOD}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("user-agent", "tonic/0.14.6")
        .header("grpc-timeout", "5S")
        .body(Full::from(&b"\0\0\0\0\x02\x08\x07"[..]))
        .expect("a request")
}

fn layer(
    configure: impl FnOnce(larder::grpc::GrpcCacheBuilder) -> larder::grpc::GrpcCacheBuilder,
) -> GrpcCacheLayer {
    let read = Read::new(METHOD).ttl(Duration::from_secs(3600)).tag("products");
    let builder = GrpcCacheLayer::builder(&Cache::memory()).read(read);
    configure(builder).build().expect("a configuration")
}

/// Calls, and reads the answer to its trailers.
fn run<S, B>(service: S) -> Run
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: std::fmt::Debug,
{
    let (runtime, request) = (runtime(), request("shop.example.com"));
    let ask = async move |service: &S| {
        let mut service = service.clone();
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("ready");
        let response = service.call(request.clone()).await.expect("an answer");
        let mut body = std::pin::pin!(response.into_body());
        while let Some(frame) = body.frame().await {
            black_box(frame.expect("a frame"));
        }
    };
    runtime.block_on(async {
        for _ in 0..WARM_UP {
            ask(&service).await;
        }
    });
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                ask(&service).await;
            }
        });
    })
}

/// What the harness itself costs.
pub fn harness(_: usize) -> Run {
    run(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        drop(request);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }))
}

/// Tonic's router and a handler, without a cache.
pub fn bare(size: usize) -> Run {
    run(routes(size))
}

/// A hit.
pub fn larder(size: usize) -> Run {
    run(layer(|layer| layer).layer(routes(size)))
}

/// A hit that tells so.
pub fn larder_status(size: usize) -> Run {
    run(layer(|layer| layer.cache_status("shop")).layer(routes(size)))
}

/// A hit by the canonical form of the message.
pub fn larder_canonical(size: usize) -> Run {
    run(layer(|layer| layer.descriptor_set(descriptors()).canonical()).layer(routes(size)))
}

// `service Bench { rpc Get(Id) returns (Text); } message Id { uint64 value = 1; } message Text { bytes value = 1; }`
fn descriptors() -> Vec<u8> {
    let block = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
    let field = |kind: u8| {
        let inner = [&block(0x0a, b"value")[..], b"\x18\x01\x20\x01\x28", &[kind]].concat();
        block(0x12, &inner)
    };
    let message = |name: &[u8], kind| block(0x22, &[block(0x0a, name), field(kind)].concat());
    let get = [block(0x0a, b"Get"), block(0x12, b".bench.Id"), block(0x1a, b".bench.Text")];
    let service = [block(0x0a, b"Bench"), block(0x12, &get.concat())].concat();
    let file = [
        block(0x0a, b"bench.proto"),
        block(0x12, b"bench"),
        message(b"Id", 4),
        message(b"Text", 12),
        block(0x32, &service),
        block(0x62, b"proto3"),
    ];
    block(0x0a, &file.concat())
}

/// What a server was measured to do over HTTP/2.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Calls a second. Its clients and whatever else runs on the machine have their part in it.
    pub calls: f64,
    /// The processor's time that the server's thread took for a call, on Linux: so many a second it could do.
    pub processor: Option<Duration>,
}

const CONNECTIONS: usize = 4;
const AT_ONCE: usize = 16;

/// Rounds in which a bare handler and a hit are called in turn, each for that long; each server has a thread of its own.
pub fn served(size: usize, rounds: usize, each: Duration) -> Vec<(Served, Served)> {
    let bare = start(size, None);
    let larder = start(size, Some(layer(|layer| layer)));
    let runtime = runtime();
    runtime.block_on(async {
        let (bare, larder) = (Clients::connect(bare).await, Clients::connect(larder).await);
        for clients in [&bare, &larder] {
            clients.calls_in(each / 4).await;
        }
        let mut done = Vec::new();
        for round in 0..rounds {
            // Neither has always the machine that the other one has warmed.
            done.push(if round % 2 == 0 {
                let bare = bare.calls_in(each).await;
                (bare, larder.calls_in(each).await)
            } else {
                let larder = larder.calls_in(each).await;
                (bare.calls_in(each).await, larder)
            });
        }
        done
    })
}

/// A server in a thread of its own.
struct Started {
    address: SocketAddr,
    /// The thread's, as Linux tells it.
    thread: Option<PathBuf>,
}

impl Started {
    /// The time that the processor has spent on it.
    fn processor(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(self.thread.as_ref()?.join("stat")).ok()?;
        // Behind the name, which is in brackets: the 14th and 15th fields, in hundredths of a second.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(Duration::from_millis(10 * ticks))
    }
}

fn start(size: usize, layer: Option<GrpcCacheLayer>) -> Started {
    let (told, address) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let thread = std::fs::read_link("/proc/thread-self").ok();
            let thread = thread.map(|thread| PathBuf::from("/proc").join(thread));
            let address = listener.local_addr().expect("an address");
            told.send(Started { address, thread }).expect("who asked");
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let constant = Constant(vec![b'x'; size].into());
            let served = match layer {
                None => Server::builder().add_service(constant).serve_with_incoming(incoming).await,
                Some(layer) => {
                    let mut server = Server::builder().layer(layer);
                    server.add_service(constant).serve_with_incoming(incoming).await
                }
            };
            served.expect("a server");
        });
    });
    address.recv().expect("an address")
}

type Asked = Request<Full<Bytes>>;

struct Clients {
    server: Started,
    connections: Vec<(http2::SendRequest<Full<Bytes>>, Asked)>,
}

impl Clients {
    async fn connect(server: Started) -> Self {
        let address = server.address;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            let io = TokioIo::new(stream);
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            connections.push((sender, request(&address.to_string())));
        }
        Clients { server, connections }
    }

    async fn calls_in(&self, time: Duration) -> Served {
        let before = self.server.processor();
        let began = Instant::now();
        let callers =
            self.connections.iter().flat_map(|client| std::iter::repeat_n(client, AT_ONCE));
        let callers = callers.map(|(sender, request)| {
            let (mut sender, request) = (sender.clone(), request.clone());
            tokio::spawn(async move {
                let mut calls = 0_u32;
                while began.elapsed() < time {
                    let response = sender.send_request(request.clone()).await.expect("an answer");
                    let read = response.into_body().collect().await.expect("a body");
                    assert_eq!(read.trailers().expect("trailers")["grpc-status"], "0");
                    calls += 1;
                }
                calls
            })
        });
        let mut calls = 0;
        for caller in callers.collect::<Vec<_>>() {
            calls += caller.await.expect("a caller");
        }
        let took = self.server.processor().zip(before).map(|(after, before)| after - before);
        Served {
            calls: f64::from(calls) / began.elapsed().as_secs_f64(),
            processor: took.map(|took| took / calls.max(1)),
        }
    }
}
