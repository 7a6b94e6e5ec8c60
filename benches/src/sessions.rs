//! What a session costs a request, in process: a request with a cookie is cloned, the service is cloned and called.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::ready;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use larder::Cache;
use larder::session::{Session, SessionLayer};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_sessions::{MemoryStore, SessionManagerLayer};

use crate::http::request;
use crate::{Case, Run, WARM_UP, runtime};

/// The rows, in the table's order. The first is the harness itself.
pub const CASES: &[Case] = &[
    Case { name: "no layer", make: no_layer },
    Case { name: "Larder, untouched", make: |size| larder(size, Use::Nothing) },
    Case { name: "Larder, read", make: |size| larder(size, Use::Read) },
    Case { name: "Larder, written", make: |size| larder(size, Use::Write) },
    Case { name: "Larder, written and the same", make: |size| larder(size, Use::WriteSame) },
    Case { name: "tower-sessions, untouched", make: |size| tower(size, Use::Nothing) },
    Case { name: "tower-sessions, read", make: |size| tower(size, Use::Read) },
    Case { name: "tower-sessions, written", make: |size| tower(size, Use::Write) },
    Case { name: "tower-sessions, written the same", make: |size| tower(size, Use::WriteSame) },
];

/// The row that others are compared with.
pub const BASELINE: &str = "no layer";

/// What the handler does with its session.
#[derive(Clone, Copy)]
enum Use {
    Nothing,
    Read,
    Write,
    WriteSame,
}

// Beside a number, which is what is read and written.
fn baggage(size: usize) -> String {
    "x".repeat(size)
}

fn answer() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"hello")))
}

fn no_layer(_: usize) -> Run {
    let service = service_fn(|_| ready(Ok::<_, Infallible>(answer())));
    // As long as the others' cookies.
    drive(service, request(Empty::new()), format!("__Host-id={}", "0".repeat(64)))
}

/// Requests without a session layer.
#[must_use]
pub fn harness(size: usize) -> Run {
    no_layer(size)
}

/// Requests with the cookie of a session that is in memory, which nobody uses.
#[must_use]
pub fn larder_untouched(size: usize) -> Run {
    larder(size, Use::Nothing)
}

/// The same, and a number is read out of it.
#[must_use]
pub fn larder_read(size: usize) -> Run {
    larder(size, Use::Read)
}

/// The same, and another number is put in.
#[must_use]
pub fn larder_written(size: usize) -> Run {
    larder(size, Use::Write)
}

/// The same, and a number is put in that is there already.
#[must_use]
pub fn larder_written_the_same(size: usize) -> Run {
    larder(size, Use::WriteSame)
}

fn larder(size: usize, what: Use) -> Run {
    let count = Arc::new(AtomicU64::new(1));
    let handler = move |request: Request<Empty<Bytes>>| {
        let count = count.clone();
        async move {
            let session = request.extensions().get::<Session>().expect("a session");
            if request.headers().get(COOKIE).is_none() {
                session.insert("baggage", &baggage(size)).await?;
                session.insert("number", &1_u64).await?;
                return Ok(answer());
            }
            match what {
                Use::Nothing => {}
                Use::Read => assert_eq!(session.get::<u64>("number").await?, Some(1)),
                Use::Write => {
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    session.insert("number", &number).await?;
                }
                Use::WriteSame => session.insert("number", &1_u64).await?,
            }
            Ok::<_, larder::session::Error>(answer())
        }
    };
    let layer = SessionLayer::new(&Cache::memory()).evictable().max_bytes(1 << 20);
    with_cookie(layer.layer(service_fn(handler)))
}

fn tower(size: usize, what: Use) -> Run {
    let count = Arc::new(AtomicU64::new(1));
    let handler = move |request: Request<Empty<Bytes>>| {
        let count = count.clone();
        async move {
            let session = request.extensions().get::<tower_sessions::Session>().expect("a session");
            if request.headers().get(COOKIE).is_none() {
                session.insert("baggage", baggage(size)).await?;
                session.insert("number", 1_u64).await?;
                return Ok(answer());
            }
            match what {
                Use::Nothing => {}
                Use::Read => assert_eq!(session.get::<u64>("number").await?, Some(1)),
                Use::Write => {
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    session.insert("number", number).await?;
                }
                Use::WriteSame => session.insert("number", 1_u64).await?,
            }
            Ok::<_, tower_sessions::session::Error>(answer())
        }
    };
    let layer = SessionManagerLayer::new(MemoryStore::default());
    with_cookie(layer.layer(service_fn(handler)))
}

// Begins a session, and drives requests with its cookie.
fn with_cookie<S, B>(service: S) -> Run
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Debug> + Clone + 'static,
    B: Body + 'static,
{
    let first = request(Empty::new());
    let response = runtime().block_on(service.clone().oneshot(first)).expect("a response");
    let cookie = response.headers()[SET_COOKIE].to_str().expect("a cookie");
    let cookie = cookie.split(';').next().expect("a name and a value").to_owned();
    drive(service, request(Empty::new()), cookie)
}

fn drive<S, B>(service: S, mut request: Request<Empty<Bytes>>, cookie: String) -> Run
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Debug> + Clone + 'static,
    B: Body + 'static,
{
    request.headers_mut().insert(COOKIE, cookie.parse().expect("a header"));
    let runtime = runtime();
    let once = async move || {
        let response = service.clone().oneshot(request.clone()).await.expect("a response");
        assert!(response.status().is_success(), "answered {}", response.status());
        black_box(response);
    };
    for _ in 0..WARM_UP {
        runtime.block_on(once());
    }
    Box::new(move |times| {
        // Boxed here for every row, or the runtime would do it for those whose future is large.
        runtime.block_on(Box::pin(async {
            for _ in 0..times {
                once().await;
            }
        }));
    })
}
