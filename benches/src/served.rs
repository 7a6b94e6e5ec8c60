//! Whole requests: hyper on a loopback socket, one thread, as `axum::serve` does it.
//!
//! The server runs under callgrind and is asked from outside, so that no client's instructions are counted.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::Service;

use crate::http::{self as hits, Origin};
use crate::measure::{collected, under_callgrind};
use crate::runtime;

type Connection = Pin<Box<dyn Future<Output = ()>>>;
type Serve = Box<dyn Fn(tokio::net::TcpStream) -> Connection>;

/// One row.
#[derive(Clone, Copy)]
pub struct Case {
    /// What the row is called.
    pub name: &'static str,
    /// Whether it is what the others are compared with.
    pub baseline: bool,
    make: fn(&Arc<Origin>) -> Serve,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The rows, in the table's order; the baseline is the first.
pub const CASES: &[Case] = &[
    Case {
        name: "Axum handler",
        baseline: true,
        make: |origin| serving(hits::axum_router(origin)),
    },
    Case {
        name: "Axum, Larder on the route",
        baseline: false,
        make: |origin| serving(hits::axum_router_on_route(origin)),
    },
    Case {
        name: "Axum, Larder outside the router",
        baseline: false,
        make: |origin| serving(hits::axum_router_outside(origin)),
    },
    Case {
        name: "Axum, axum-response-cache",
        baseline: false,
        make: |origin| serving(hits::axum_router_with_peer(origin)),
    },
    Case {
        name: "hyper, bare service",
        baseline: false,
        make: |origin| serving(hits::Inner(origin.clone())),
    },
];

// As many as wrk had where the aim was measured: enough that several requests wait whenever the server wakes.
const CONNECTIONS: usize = 64;

fn serving<S, B>(service: S) -> Serve
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Box::new(move |stream| {
        let service = TowerToHyperService::new(service.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away ends its connection.
        Box::pin(async move { drop(connection.await) })
    })
}

/// Serves so many connections until their clients close them. The first line that it prints is its port.
#[allow(clippy::print_stdout)]
pub(crate) fn serve(case: &Case, size: usize, connections: usize) {
    let connection = (case.make)(&Arc::new(Origin::new(size, true)));
    let tasks = tokio::task::LocalSet::new();
    runtime().block_on(tasks.run_until(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        println!("{}", listener.local_addr().expect("an address").port());
        let mut open = Vec::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            open.push(tokio::task::spawn_local(connection(stream)));
        }
        for task in open {
            task.await.expect("a connection");
        }
    }));
}

/// What a server under callgrind takes for so many requests, its start included.
pub(crate) fn count(mode: &str, name: &str, size: usize, requests: u64) -> u64 {
    let mut server = under_callgrind(mode, name, size, CONNECTIONS).spawn().expect("valgrind");
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("its output")).read_line(&mut port).expect("a port");
    let port: u16 = port.trim().parse().expect("a port");
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(port)).collect();
    // The first request fills, alone.
    clients[0].send();
    clients[0].receive(size);
    for _ in 0..requests.div_ceil(CONNECTIONS as u64) {
        clients.iter_mut().for_each(Client::send);
        clients.iter_mut().for_each(|client| client.receive(size));
    }
    drop(clients);
    collected(&server.wait_with_output().expect("its end").stderr)
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let request = hits::request(());
        let target = request.uri().path_and_query().expect("a target");
        let mut text = format!("GET {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in request.headers() {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        Client { stream, request: text, buffer: vec![0; 128 * 1024] }
    }

    fn send(&mut self) {
        self.stream.write_all(&self.request).expect("a request");
    }

    fn receive(&mut self, size: usize) {
        let mut read = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[read..]).expect("a response");
            assert!(more > 0, "the server closed the connection");
            read += more;
            let head = self.buffer[..read].windows(4).position(|four| four == b"\r\n\r\n");
            if head.is_some_and(|head| read >= head + 4 + size) {
                break;
            }
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 200 "), "a status other than 200");
    }
}
