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
use larder_testkit::servers::RedisServer;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_sessions::{MemoryStore, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

use crate::http::request;
use crate::{Case, Run, SIZES, WARM_UP, runtime};

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
    Case { name: "Larder on Redis, untouched", make: |size| larder_redis(size, Use::Nothing).0 },
    Case { name: "Larder on Redis, read", make: |size| larder_redis(size, Use::Read).0 },
    Case { name: "Larder on Redis, written", make: |size| larder_redis(size, Use::Write).0 },
    Case { name: "tower-s. on Redis, untouched", make: |size| tower_redis(size, Use::Nothing).0 },
    Case { name: "tower-s. on Redis, read", make: |size| tower_redis(size, Use::Read).0 },
    Case { name: "tower-s. on Redis, written", make: |size| tower_redis(size, Use::Write).0 },
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
    drive(runtime(), service, request(Empty::new()), format!("__Host-id={}", "0".repeat(64)))
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
    larder_over(runtime(), Cache::memory(), size, what)
}

fn larder_over(runtime: Runtime, cache: Cache, size: usize, what: Use) -> Run {
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
    let layer = SessionLayer::new(&cache).evictable().max_bytes(1 << 20);
    with_cookie(runtime, layer.layer(service_fn(handler)))
}

// A server of its own, which lives as long as what is run.
fn with_redis(run: impl FnOnce(Runtime, &str) -> Run) -> (Run, Arc<RedisServer>) {
    let runtime = runtime();
    let server = Arc::new(runtime.block_on(RedisServer::start()));
    let mut run = run(runtime, &server.url());
    let kept = server.clone();
    let run = move |times| {
        let _ = &kept;
        run(times);
    };
    (Box::new(run), server)
}

fn larder_redis(size: usize, what: Use) -> (Run, Arc<RedisServer>) {
    with_redis(|runtime, url| {
        let url = format!("{url}/0?namespace=bench");
        let cache = runtime.block_on(Cache::connect(&url)).expect("a connection");
        larder_over(runtime, cache, size, what)
    })
}

fn tower_redis(size: usize, what: Use) -> (Run, Arc<RedisServer>) {
    with_redis(|runtime, url| {
        let pool = runtime.block_on(async {
            let config = Config::from_url(url).expect("a URL");
            let pool = Pool::new(config, None, None, None, 1).expect("a pool");
            pool.connect();
            pool.wait_for_connect().await.expect("a connection");
            pool
        });
        tower_over_redis(runtime, RedisStore::new(pool), size, what)
    })
}

/// What each kind of request sends to Redis: a line for each, with how many commands a request takes. Each of them waits
/// for the one before, so they are its round trips.
#[must_use]
pub fn round_trips() -> Vec<(&'static str, f64)> {
    type Make = fn(usize, Use) -> (Run, Arc<RedisServer>);
    let rows: [(&str, Make, Use); 6] = [
        ("Larder, untouched", larder_redis, Use::Nothing),
        ("Larder, read", larder_redis, Use::Read),
        ("Larder, written", larder_redis, Use::Write),
        ("tower-sessions, untouched", tower_redis, Use::Nothing),
        ("tower-sessions, read", tower_redis, Use::Read),
        ("tower-sessions, written", tower_redis, Use::Write),
    ];
    let count = |server: &RedisServer| {
        let said = runtime().block_on(server.command(&["INFO", "stats"])).expect("an answer");
        let said = String::from_utf8(said).expect("text");
        let line = said.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        line.and_then(|number| number.trim().parse::<u64>().ok()).expect("a number")
    };
    let times = 1000;
    rows.into_iter()
        .map(|(name, make, what)| {
            let (mut run, server) = make(SIZES[0], what);
            let before = count(&server);
            run(times);
            // Without the question itself.
            (name, (count(&server) - before - 1) as f64 / times as f64)
        })
        .collect()
}

fn tower(size: usize, what: Use) -> Run {
    tower_over(runtime(), MemoryStore::default(), size, what)
}

fn tower_over(runtime: Runtime, store: MemoryStore, size: usize, what: Use) -> Run {
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
    let layer = SessionManagerLayer::new(store);
    with_cookie(runtime, layer.layer(service_fn(handler)))
}

// The same with the version of tower-sessions that its store for Redis is made for.
fn tower_over_redis(runtime: Runtime, store: RedisStore<Pool>, size: usize, what: Use) -> Run {
    let count = Arc::new(AtomicU64::new(1));
    let handler = move |request: Request<Empty<Bytes>>| {
        let count = count.clone();
        async move {
            let session =
                request.extensions().get::<tower_sessions_014::Session>().expect("a session");
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
            Ok::<_, tower_sessions_014::session::Error>(answer())
        }
    };
    let layer = tower_sessions_014::SessionManagerLayer::new(store);
    with_cookie(runtime, layer.layer(service_fn(handler)))
}

// Begins a session, and drives requests with its cookie.
fn with_cookie<S, B>(runtime: Runtime, service: S) -> Run
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Debug> + Clone + 'static,
    B: Body + 'static,
{
    let first = request(Empty::new());
    let response = runtime.block_on(service.clone().oneshot(first)).expect("a response");
    let cookie = response.headers()[SET_COOKIE].to_str().expect("a cookie");
    let cookie = cookie.split(';').next().expect("a name and a value").to_owned();
    drive(runtime, service, request(Empty::new()), cookie)
}

fn drive<S, B>(
    runtime: Runtime,
    service: S,
    mut request: Request<Empty<Bytes>>,
    cookie: String,
) -> Run
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Debug> + Clone + 'static,
    B: Body + 'static,
{
    request.headers_mut().insert(COOKIE, cookie.parse().expect("a header"));
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
