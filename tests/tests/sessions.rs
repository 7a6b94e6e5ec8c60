//! Sessions beside a cache, and through real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get as route;
use http::{Request, Response};
use larder_cache::Cache;
use larder_core::ErrorKind as StoreError;
use larder_http::CacheLayer;
use larder_memory::MemoryBackend;
use larder_redis::RedisBackend;
use larder_session::{Error, ErrorKind, Expiry, Level, Session, SessionCookie, SessionLayer};
use larder_testkit::faulty::{Fault, Faults, Faulty, Verb};
use larder_testkit::servers::RedisServer;
use larder_tests::server::Server;
use larder_tests::{
    Failure, Got, Larder, Origin, Step, TestBody, get, request, response, scripted, until,
};
use tokio::sync::Notify;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};

/// A store of its own for sessions, with time enough and faults on request.
fn sessions() -> (SessionLayer, Faults, MemoryBackend) {
    let memory = MemoryBackend::default();
    let backend = Faulty::new(memory.clone());
    let faults = backend.faults();
    (SessionLayer::new(&patient(backend)).evictable(), faults, memory)
}

fn patient(backend: impl larder_core::Backend) -> Cache {
    let long = Duration::from_secs(600);
    Cache::builder(backend).read_budget(long).write_budget(long).build()
}

fn cookie_of(got: &Got) -> Option<String> {
    let line = got.field("set-cookie")?;
    line.split(';').next().map(str::to_owned)
}

type Boxed = BoxCloneSyncService<Request<TestBody>, Response<TestBody>, Failure>;

fn boxed<B>(response: Response<B>) -> Response<TestBody>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    use http_body_util::BodyExt;
    response.map(|body| body.map_err(|error| Failure(error.to_string())).boxed_unsync())
}

/// The session layer outside of the cache, inside, on both sides (two of them), or two of them inside.
fn stack(order: &str, larder: &Larder, sessions: &SessionLayer, origin: Origin) -> Boxed {
    let cache = CacheLayer::new(&larder.cache).cache_status("t");
    let other = || {
        let (layer, ..) = crate::sessions();
        layer.cookie(SessionCookie::new("other")).expect("a cookie")
    };
    match order {
        "outside" => {
            BoxCloneSyncService::new(sessions.layer(cache.layer(origin)).map_response(boxed))
        }
        "inside" => {
            BoxCloneSyncService::new(cache.layer(sessions.layer(origin)).map_response(boxed))
        }
        "both" => BoxCloneSyncService::new(
            other().layer(cache.layer(sessions.layer(origin))).map_response(boxed),
        ),
        _ => BoxCloneSyncService::new(
            cache.layer(other().layer(sessions.layer(origin))).map_response(boxed),
        ),
    }
}

const ORDERS: [&str; 4] = ["outside", "inside", "both", "two inside"];

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Whole {
    user: u8,
}

/// Every way to use a session, by name.
async fn use_session(session: &Session, way: &str) -> Result<(), Error> {
    match way {
        "get" => session.get::<u8>("user").await.map(drop),
        "contains" => session.contains("user").await.map(drop),
        "keys" => session.keys().await.map(drop),
        "is_empty" => session.is_empty().await.map(drop),
        "insert" => session.insert("n", &1).await,
        "remove" => session.remove("absent").await.map(drop),
        "take" => session.take::<u8>("user").await.map(drop),
        "sign_in" => session.sign_in("user", &7).await,
        "update" => session.update("user", |user: &mut u8| *user = 7).await.map(drop),
        "typed" => session.typed::<Whole>().await.map(drop),
        "update_typed" => session.update_typed(|whole: &mut Whole| whole.user = 7).await,
        "clear" => session.clear().await,
        "rotate" => session.rotate().await,
        "destroy" => session.destroy().await,
        "set_expiry" => session.set_expiry(Expiry::fixed(Duration::from_secs(60))).await,
        "id_hash" => session.id_hash().await.map(drop),
        "save" => session.save().await,
        "flash" => session.flash(Level::Info, "saved").await,
        "take_flashes" => session.take_flashes().await.map(drop),
        "user" => session.user().await.map(drop),
        "sign_in_as" => session.sign_in_as("ada", "").await,
        "devices" => session.devices().await.map(drop),
        "revoke_device" => session.revoke_device("").await.map(drop),
        "revoke_other_devices" => session.revoke_other_devices().await.map(drop),
        "csrf_token" => session.csrf_token().await.map(drop),
        "verify_csrf" => {
            let refused = session.verify_csrf("").await.map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::CrossSite));
            Ok(())
        }
        _ => unreachable!("{way}"),
    }
}

const WAYS: [&str; 26] = [
    "get",
    "contains",
    "keys",
    "is_empty",
    "insert",
    "remove",
    "update",
    "typed",
    "update_typed",
    "clear",
    "rotate",
    "destroy",
    "set_expiry",
    "id_hash",
    "save",
    "take",
    "sign_in",
    "flash",
    "take_flashes",
    "user",
    "sign_in_as",
    "devices",
    "revoke_device",
    "revoke_other_devices",
    "csrf_token",
    "verify_csrf",
];

/// A handler that says its response is for everybody, whatever it does with the session.
fn public(way: &'static str) -> Origin {
    Origin::new(move |call, request| {
        let session = request.extensions().get::<Session>().cloned().expect("a session");
        async move {
            if !way.is_empty() {
                use_session(&session, way).await.map_err(|error| Failure(error.to_string()))?;
            }
            Ok(response("public, max-age=60", call.to_string()))
        }
    })
}

#[tokio::test]
async fn p14_and_c119_every_use_of_a_session_keeps_the_response_out_of_the_cache_in_every_layer_order()
 {
    for order in ORDERS {
        for way in WAYS {
            for signed_in in [false, true] {
                let (larder, (layer, ..)) = (Larder::new(), sessions());
                let mut cookie = if signed_in {
                    let service = layer.layer(public("insert"));
                    let response = service.oneshot(get("/")).await.unwrap();
                    cookie_of(&Got::read(response).await.unwrap())
                } else {
                    None
                };
                let origin = public(way);
                let service = stack(order, &larder, &layer, origin.clone());
                for calls in 1..3 {
                    let brought = cookie.clone();
                    let fields: Vec<_> =
                        brought.iter().map(|one| ("cookie", one.as_str())).collect();
                    let response = service.clone().oneshot(request("GET", "/", &fields)).await;
                    let got = Got::read(response.unwrap()).await.unwrap();
                    let what = format!("session {order} of the cache, {way}, {fields:?}: {got:?}");
                    assert_eq!((origin.calls(), larder.entries()), (calls, 0), "{what}");
                    assert!(!got.hit(), "{what}");
                    let control = got.field("cache-control").unwrap();
                    assert!(control.contains("private") && !control.contains("public"), "{what}");
                    assert!(got.field("vary").unwrap().contains("cookie"), "{what}");
                    let sets = got.field("set-cookie").is_some();
                    assert_eq!(control.contains("no-store"), sets, "{what}");
                    cookie = cookie_of(&got).or(cookie);
                }
                assert_eq!(larder.flights(), 0);
            }
        }
    }
}

#[tokio::test]
async fn p14_a_response_that_used_no_session_is_everybodys() {
    for order in ORDERS {
        let (larder, (layer, faults, _)) = (Larder::new(), sessions());
        let origin = public("");
        let service = stack(order, &larder, &layer, origin.clone());
        let id = format!("__Host-id={}", "1".repeat(64));
        for fields in [&[][..], &[("cookie", &*id)], &[("cookie", "a=b")], &[]] {
            let response = service.clone().oneshot(request("GET", "/", fields)).await.unwrap();
            let got = Got::read(response).await.unwrap();
            assert_eq!(got.text(), "1", "{order}");
            assert_eq!((got.field("vary"), got.field("set-cookie")), (None, None));
        }
        assert_eq!((origin.calls(), faults.total()), (1, 0), "{order}");
    }
}

#[tokio::test]
async fn s20_a_stricter_header_of_the_handlers_stays() {
    let (layer, ..) = sessions();
    for (said, told) in [
        ("no-store", "no-store, private"),
        ("private, max-age=10", "private, max-age=10"),
        ("public, s-maxage=60", "private"),
        ("no-cache, x-own", "no-cache, private, x-own"),
    ] {
        let origin = Origin::new(move |_, request| {
            let session = request.extensions().get::<Session>().cloned().expect("a session");
            async move {
                session.contains("user").await.map_err(|error| Failure(error.to_string()))?;
                let mut response = response(said, "");
                larder_tests::append(response.headers_mut(), &[("vary", "Accept, COOKIE")]);
                Ok(response)
            }
        });
        let response = layer.layer(origin).oneshot(get("/")).await.unwrap();
        let got = Got::read(response).await.unwrap();
        assert!(got.field("cache-control").unwrap().starts_with(told), "{got:?}");
        assert_eq!(got.field("vary").as_deref(), Some("Accept, COOKIE"));
    }
}

/// Signs in, tells who is there, signs out: with Axum's extractor.
fn app(layer: SessionLayer) -> Router {
    async fn enter(session: Session) -> Result<&'static str, Error> {
        session.sign_in("user", "Ada").await?;
        Ok("welcome")
    }
    async fn who(session: Session) -> Result<String, Error> {
        Ok(session.get("user").await?.unwrap_or_else(|| "nobody".to_owned()))
    }
    async fn visit(session: Session) -> Result<String, Error> {
        let visits = session.update("visits", |visits: &mut u32| *visits += 1).await?;
        Ok(visits.to_string())
    }
    async fn leave(session: Session) -> Result<&'static str, Error> {
        session.destroy().await?;
        Ok("bye")
    }
    Router::new()
        .route("/enter", route(enter))
        .route("/visit", route(visit))
        .route("/leave", route(leave))
        .route("/", route(who))
        .route("/plain", route(async || "plain"))
        .layer(layer)
}

async fn axum_server(app: Router) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        axum::serve(listener, app).await.expect("a server");
    });
    (address, serving)
}

async fn ask(address: std::net::SocketAddr, target: &str, cookie: Option<&str>) -> Got {
    use hyper_util::rt::TokioIo;
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let driver = tokio::spawn(connection);
    let fields: Vec<_> = cookie.iter().map(|cookie| ("cookie", *cookie)).collect();
    let mut asked = request("GET", "/", &fields);
    *asked.uri_mut() = target.parse().expect("a target");
    larder_tests::append(asked.headers_mut(), &[("host", "site.example")]);
    let got = Got::read(sender.send_request(asked).await.expect("a response")).await;
    driver.abort();
    got.expect("a whole body")
}

#[tokio::test]
async fn a_visitor_signs_in_and_out_through_a_real_axum_server() {
    let (layer, faults, _) = sessions();
    let (address, serving) = axum_server(app(layer)).await;
    assert_eq!(ask(address, "/plain", None).await.text(), "plain");
    assert_eq!(ask(address, "/", None).await.text(), "nobody");
    assert_eq!(faults.total(), 0);
    let first = cookie_of(&ask(address, "/visit", None).await).unwrap();
    let got = ask(address, "/enter", Some(&first)).await;
    assert_eq!((got.status, got.text().as_str()), (200, "welcome"));
    let signed_in = cookie_of(&got).unwrap();
    assert_ne!(first, signed_in);
    assert_eq!(ask(address, "/", Some(&signed_in)).await.text(), "Ada");
    // Whoever fixed the id before the sign-in knows nothing now.
    assert_eq!(ask(address, "/", Some(&first)).await.text(), "nobody");
    assert_eq!(ask(address, "/visit", Some(&first)).await.status, 409);
    assert_eq!(ask(address, "/visit", Some(&signed_in)).await.text(), "2");
    let got = ask(address, "/leave", Some(&signed_in)).await;
    assert!(got.field("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(ask(address, "/", Some(&signed_in)).await.text(), "nobody");

    faults.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    for target in ["/", "/visit", "/leave"] {
        let got = ask(address, target, Some(&signed_in)).await;
        assert_eq!((got.status, got.field("set-cookie")), (503, None), "{target}");
    }
    assert_eq!(ask(address, "/plain", Some(&signed_in)).await.status, 200);
    serving.abort();
}

#[tokio::test]
async fn a_handler_without_a_layer_says_what_is_missing() {
    let app = Router::new().route("/", route(async |session: Session| drop(session)));
    let response = app.oneshot(Request::new(axum::body::Body::empty())).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.extensions().get::<Error>().map(Error::kind), Some(ErrorKind::NoLayer));
}

#[tokio::test(flavor = "multi_thread")]
async fn o06_a_frozen_redis_is_503_without_a_cookie_and_the_session_is_there_afterwards() {
    let server = RedisServer::start().await;
    // Long enough that a busy machine is no outage.
    let url = format!("{}?response_timeout=3s&connect_timeout=20s", server.url());
    let backend = RedisBackend::connect(&url).await.expect("a connection");
    let cache = patient(backend);
    let layer = SessionLayer::new(&cache).evictable();
    let (address, serving) = axum_server(app(layer)).await;
    let cookie = cookie_of(&ask(address, "/enter", None).await).unwrap();
    server.freeze();
    for target in ["/", "/visit", "/leave"] {
        let got = ask(address, target, Some(&cookie)).await;
        assert_eq!((got.status, got.field("set-cookie")), (503, None), "{target}");
    }
    server.thaw();
    let mut answered = String::new();
    for _ in 0..200 {
        let got = ask(address, "/", Some(&cookie)).await;
        if got.status == 200 {
            answered = got.text();
            break;
        }
        assert_eq!((got.status, got.field("set-cookie")), (503, None));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The sign-out was answered with 503: it may have reached the server before that woke up, or not.
    assert!(["Ada", "nobody"].contains(&answered.as_str()), "{answered}");
    serving.abort();
}

#[tokio::test]
async fn s21_a_client_that_leaves_a_real_server_while_its_session_is_saved_changes_nothing() {
    let (layer, faults, memory) = sessions();
    let returned = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Notify::new());
    let (returns, opens) = (returned.clone(), gate.clone());
    let origin = Origin::new(move |_, request| {
        let session = request.extensions().get::<Session>().cloned().expect("a session");
        let (returns, opens) = (returns.clone(), opens.clone());
        async move {
            session.insert("user", &7).await.map_err(|error| Failure(error.to_string()))?;
            if request.uri().path() == "/slow" {
                opens.notified().await;
            }
            returns.fetch_add(1, Ordering::SeqCst);
            Ok(response("", "done"))
        }
    });
    let server = Server::start(layer.layer(origin)).await;

    // Before the handler has returned: nothing is saved.
    let mut client = server.http1().await;
    client.write("GET /slow HTTP/1.1\r\nHost: site.example\r\n\r\n").await;
    drop(client);
    // A request that is answered shows that the server has had time to notice.
    for _ in 0..20 {
        assert_eq!(server.http1().await.get("site.example", "/").await.status, 200);
    }
    gate.notify_waiters();
    layer.drained().await;
    assert_eq!((returned.load(Ordering::SeqCst), memory.usage().entries), (20, 20));

    // Afterwards: it is saved to the end.
    faults.inject(Fault::Hang, &[Verb::Put]);
    let mut client = server.http1().await;
    client.write("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n").await;
    until("the session is being saved", || faults.waiting() == 1).await;
    drop(client);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(faults.waiting(), 1, "the save did not go with the client");
    faults.heal();
    layer.drained().await;
    assert_eq!(memory.usage().entries, 21);
}

#[tokio::test]
async fn a_body_that_writes_after_the_head_is_told_so_and_the_head_keeps_its_word() {
    let (layer, faults, _) = sessions();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let head_is_out = Arc::new(Notify::new());
    let sent = head_is_out.clone();
    let origin = Origin::new(move |_, request| {
        let session = request.extensions().get::<Session>().cloned().expect("a session");
        let (heard, sent) = (heard.clone(), sent.clone());
        async move {
            session.insert("user", &7).await.map_err(|error| Failure(error.to_string()))?;
            let (steps, body) = scripted();
            let _ = steps.send(Step::Data("first".into()));
            tokio::spawn(async move {
                sent.notified().await;
                let _ = heard.send(session.insert("user", &8).await.map_err(|error| error.kind()));
                let _ = heard.send(session.rotate().await.map_err(|error| error.kind()));
                let read = session.get::<i32>("user").await;
                let _ = heard.send(read.map(drop).map_err(|error| error.kind()));
                let _ = steps.send(Step::Data("second".into()));
            });
            Ok(Response::new(body))
        }
    });
    let server = Server::start(layer.layer(origin)).await;
    let mut client = server.http1().await;
    client.write("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n").await;
    let (status, headers) = client.head().await.unwrap();
    assert_eq!((status, headers.contains_key("set-cookie")), (200, true));
    assert_eq!(client.chunk().await.unwrap(), b"first");
    head_is_out.notify_one();
    assert_eq!(client.chunk().await.unwrap(), b"second");
    assert_eq!(hears.recv().await, Some(Err(ErrorKind::Late)));
    assert_eq!(hears.recv().await, Some(Err(ErrorKind::Late)));
    assert_eq!(hears.recv().await, Some(Ok(())));
    assert_eq!(faults.count(Verb::Put), 1);
}

#[tokio::test]
async fn http2_requests_of_one_connection_share_a_session_without_losing_a_count() {
    let (layer, ..) = sessions();
    let origin = Origin::new(|_, request| {
        let session = request.extensions().get::<Session>().cloned().expect("a session");
        async move {
            let visits = session.update("visits", |visits: &mut u32| *visits += 1).await;
            Ok(response("", visits.map_err(|error| Failure(error.to_string()))?.to_string()))
        }
    });
    let server = Server::start(layer.layer(origin)).await;
    let mut client = server.http2().await;
    let cookie = cookie_of(&client.send(get("/")).await).unwrap();
    // Browsers split the header into one field for each cookie.
    let fields = [("cookie", "a=b"), ("cookie", &*cookie), ("cookie", "c=d")];
    let mut heads = Vec::new();
    for _ in 0..50 {
        heads.push(client.head_of(request("GET", "/", &fields)).await.unwrap());
    }
    for head in heads {
        assert_eq!(Got::read(head).await.unwrap().status, 200);
    }
    let got = client.send(request("GET", "/", &fields)).await;
    assert_eq!(got.text(), "52");
}
