//! Where the layer stands: around a channel, around one service, beside compression, gRPC-Web, sessions, Redis.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use larder_cache::Cache;
use larder_grpc::{GrpcCacheLayer, Read, TonicBodyLayer};
use larder_session::{Session, SessionLayer};
use larder_tests::until;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_prost::ProstCodec;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::support::{
    GET, Got, Origin, Site, cache, call, connect, failed, framed, ok, send, serve,
};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

type Text = ProstCodec<String, String>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A service as Tonic generates it, for bodies of Tonic's own only: it answers with the message and its call's number.
#[derive(Clone, Default)]
struct Echo {
    calls: Arc<AtomicUsize>,
    gzip: bool,
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Boxed<Result<tonic::Response<String>, Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let session = request.extensions().get::<Session>().cloned();
        Box::pin(async move {
            let message = request.into_inner();
            if let Some(session) = session.filter(|_| message == "mine") {
                session
                    .insert("seen", &true)
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?;
            }
            let mut response = tonic::Response::new(format!("{message} {call}"));
            response.metadata_mut().insert("cache-control", "max-age=60".parse().expect("a value"));
            Ok(response)
        })
    }
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Text::default())
                .accept_compressed(CompressionEncoding::Gzip);
            if echo.gzip {
                grpc = grpc.send_compressed(CompressionEncoding::Gzip);
            }
            Ok(grpc.unary(echo, request).await)
        })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Test";
}

fn layer(cache: &Cache) -> GrpcCacheLayer {
    GrpcCacheLayer::builder(cache).read(GET).cache_status("t").build().expect("a configuration")
}

/// Serves what `add` puts into a Tonic server.
macro_rules! served {
    ($server:expr) => {{
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn($server.serve_with_incoming(TcpIncoming::from(listener)));
        connect(address).await
    }};
}

async fn echoed<S>(grpc: &mut Grpc<S>, message: &str) -> Result<String, Status>
where
    S: tonic::client::GrpcService<Body>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    grpc.ready().await.map_err(|error| Status::unavailable(error.into().to_string()))?;
    let path = http::uri::PathAndQuery::from_static(GET);
    let request = tonic::Request::new(message.to_owned());
    Ok(grpc.unary(request, path, Text::default()).await?.into_inner())
}

#[tokio::test]
async fn one_service_of_a_server_is_cached_under_its_own_name() {
    let (cache, _) = cache();
    let echo = Echo::default();
    let service =
        ServiceBuilder::new().layer(layer(&cache)).layer(TonicBodyLayer).service(echo.clone());
    let channel = served!(Server::builder().add_service(service));
    let mut grpc = Grpc::new(channel);
    for _ in 0..3 {
        assert_eq!(echoed(&mut grpc, "hello").await.unwrap(), "hello 1");
    }
    assert_eq!(echoed(&mut grpc, "again").await.unwrap(), "again 2");
}

#[tokio::test]
async fn b11_compressed_answers_go_only_to_callers_that_take_them() {
    let (cache, _) = cache();
    let echo = Echo { gzip: true, ..Echo::default() };
    let channel = served!(Server::builder().layer(layer(&cache)).add_service(echo.clone()));
    let long = "x".repeat(10_000);
    let gzip = CompressionEncoding::Gzip;
    let mut plain = Grpc::new(channel.clone());
    let mut taking = Grpc::new(channel.clone()).accept_compressed(gzip);
    let mut both = Grpc::new(channel.clone()).accept_compressed(gzip).send_compressed(gzip);
    for _ in 0..2 {
        assert_eq!(echoed(&mut plain, &long).await.unwrap(), format!("{long} 1"));
        assert_eq!(echoed(&mut taking, &long).await.unwrap(), format!("{long} 2"));
        assert_eq!(echoed(&mut both, &long).await.unwrap(), format!("{long} 3"));
    }
    assert_eq!(echo.calls.load(Ordering::SeqCst), 3);
    // What is stored for those who take it is compressed.
    let taken = call(GET, "\n\u{1}a", &[("grpc-accept-encoding", "gzip")]);
    let first = send(&channel, taken).await;
    assert_eq!((first.data[0], first.headers["grpc-encoding"].as_bytes()), (1, &b"gzip"[..]));
    let again = call(GET, "\n\u{1}a", &[("grpc-accept-encoding", "identity, gzip")]);
    let second = send(&channel, again).await;
    assert!(second.hit());
    assert_eq!(
        (first.data, &first.headers["grpc-encoding"]),
        (second.data, &second.headers["grpc-encoding"])
    );
}

#[tokio::test]
async fn a_channel_is_cached_apart_from_what_servers_store() {
    let (cache, hands) = cache();
    let origin = Origin::says(|call| match call {
        3.. => failed(14),
        _ => ok(&[("cache-control", "max-age=60, stale-if-error=600")], framed(call.to_string())),
    });
    let none = GrpcCacheLayer::builder(&cache).read("/test.Test/None").build().unwrap();
    let (address, _serving) = serve(origin.clone(), none).await;
    let client =
        GrpcCacheLayer::client(&cache, "test.internal").read(GET).cache_status("c").build();
    let channel = client.unwrap().channel(connect(address).await);
    let get = async |metadata: &[(&str, &str)]| {
        let response = channel.clone().oneshot(call(GET, "a", metadata)).await.expect("an answer");
        let (parts, body) = response.into_parts();
        Got::read(Response::from_parts(parts, Body::new(body))).await
    };
    assert!(get(&[]).await.told().contains("stored"));
    assert!(get(&[]).await.told().starts_with("c; hit"));
    get(&[("authorization", "Bearer 1")]).await.because("authorization-not-shared");
    assert_eq!(origin.calls(), 2);
    // A server on the same cache has its own answers.
    let site = layer(&cache);
    let (own, own_serving) = serve(Origin::counting(&[FRESH]), site).await;
    assert!(!send(&connect(own).await, call(GET, "a", &[])).await.hit());
    own_serving.abort();

    hands.advance(Duration::from_secs(61));
    let stale = get(&[]).await;
    assert_eq!(stale.code(), Some(0));
    stale.because("stale-on-unavailable");
}

#[tokio::test]
async fn d06_a_transport_that_fails_is_asked_twice_at_most_by_all_who_wait() {
    let (cache, hands) = cache();
    let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (counted, open) = (calls.clone(), gate.clone());
    let transport = tower::service_fn(move |_: Request<Body>| {
        let (call, open) = (counted.fetch_add(1, Ordering::SeqCst) + 1, open.clone());
        async move {
            open.notified().await;
            match call {
                1 => Ok(ok(&[("cache-control", "max-age=60, stale-if-error=60")], "1")),
                _ => Err("the connection is gone"),
            }
        }
    });
    let client = GrpcCacheLayer::client(&cache, "test.internal").read(GET).build().unwrap();
    let channel = client.channel(transport);
    let ask = || tokio::spawn(channel.clone().oneshot(call(GET, "a", &[])));
    gate.notify_one();
    ask().await.unwrap().unwrap();
    hands.advance(Duration::from_secs(61));
    gate.notify_one();
    let stale = ask().await.unwrap().unwrap();
    assert!(!stale.headers().contains_key("grpc-status"), "what is stale stands in");
    hands.advance(Duration::from_secs(600));
    let crowd: Vec<_> = (0..100).map(|_| ask()).collect();
    for asked in 3..=4 {
        until("one asks for all", || calls.load(Ordering::SeqCst) == asked).await;
        gate.notify_one();
    }
    let (mut errors, mut unavailable) = (0, 0);
    for one in crowd {
        match one.await.unwrap() {
            Err(words) => errors += usize::from(words == "the connection is gone"),
            Ok(answer) => unavailable += usize::from(answer.headers()["grpc-status"] == "14"),
        }
    }
    assert_eq!((errors, unavailable, calls.load(Ordering::SeqCst)), (2, 98, 4));
}

#[tokio::test]
async fn b12_a_callers_deadline_ends_its_wait_and_not_the_channels_call() {
    let (cache, _) = cache();
    let gate = Arc::new(tokio::sync::Notify::new());
    let open = gate.clone();
    let origin = Origin::new(move |call, request: Request<Body>| {
        let open = open.clone();
        let told = request.headers()["grpc-timeout"].to_str().expect("text").to_owned();
        async move {
            open.notified().await;
            ok(&[FRESH], framed(format!("{call} {told}")))
        }
    });
    let none = GrpcCacheLayer::builder(&cache).read("/test.Test/None").build().unwrap();
    let (address, _serving) = serve(origin.clone(), none).await;
    let client = GrpcCacheLayer::client(&cache, "test.internal").read(GET).cache_status("c");
    let channel = client.build().unwrap().channel(connect(address).await);
    let hasty = channel.clone().oneshot(call(GET, "a", &[("grpc-timeout", "1m")])).await.unwrap();
    assert_eq!(hasty.headers()["grpc-status"], "4");
    until("the server works on", || origin.calls() == 1).await;
    gate.notify_one();
    let response = channel.oneshot(call(GET, "a", &[])).await.unwrap();
    let (parts, body) = response.into_parts();
    let got = Got::read(Response::from_parts(parts, Body::new(body))).await;
    assert!(got.text().ends_with("1 30000m"), "{got:?}");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn grpc_web_is_cached_where_its_layer_is_outside_and_passes_where_it_is_inside() {
    let (cache, _) = cache();
    let web = || tonic_web::GrpcWebLayer::new();
    let outside = {
        let mut server = Server::builder().accept_http1(true).layer(web()).layer(layer(&cache));
        served!(server.add_service(Origin::counting(&[FRESH])))
    };
    let inside = {
        let mut server = Server::builder().accept_http1(true).layer(layer(&cache)).layer(web());
        served!(server.add_service(Origin::counting(&[FRESH])))
    };
    let asked = |kind: &str| {
        let mut request = call(GET, "a", &[]);
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        *request.version_mut() = http::Version::HTTP_2;
        request
    };
    let whole = |got: &Got, text: &str| {
        // The message, then the trailers as a message of their own.
        let data = got.data.clone();
        let message = framed(text);
        assert_eq!(data[..message.len()], message[..]);
        let end = &data[message.len()..];
        assert_eq!(end[0], 0x80, "{got:?}");
        assert!(end[5..].starts_with(b"grpc-status:0"), "{}", end[5..].escape_ascii());
    };
    let web = "application/grpc-web+proto";
    let first = send(&outside, asked(web)).await;
    let second = send(&outside, asked(web)).await;
    let plain = send(&outside, call(GET, "a", &[])).await;
    assert!(first.told().contains("stored") && second.hit(), "{} {}", first.told(), second.told());
    whole(&first, "1");
    whole(&second, "1");
    assert!(plain.hit() && plain.code() == Some(0) && plain.text() == "1");

    for call in ["1", "2"] {
        let got = send(&inside, asked(web)).await;
        got.because("not-grpc");
        whole(&got, call);
    }
    let plain =
        [send(&inside, call(GET, "b", &[])).await, send(&inside, call(GET, "b", &[])).await];
    assert_eq!((plain[0].hit(), plain[1].hit(), plain[1].text().as_str()), (false, true, "3"));
}

#[tokio::test]
async fn p07_a_session_that_was_used_or_begun_is_nobody_elses() {
    for (bringing, giving) in [("cookie", "set-cookie"), ("session-id", "session-id")] {
        let (cache, _) = cache();
        let echo = Echo::default();
        let mut sessions = SessionLayer::new(&cache).evictable();
        if bringing == "session-id" {
            sessions = sessions.metadata(bringing).expect("a name");
        }
        let mut server = Server::builder().layer(sessions).layer(layer(&cache));
        let service = ServiceBuilder::new().layer(TonicBodyLayer).service(echo.clone());
        let channel = served!(server.add_service(service));
        let asked = |message: &str| format!("\n{}{message}", char::from(message.len() as u8));
        let mine = [
            send(&channel, call(GET, &asked("mine"), &[])).await,
            send(&channel, call(GET, &asked("mine"), &[])).await,
        ];
        for got in &mine {
            assert!(!got.hit() && got.headers.contains_key(giving), "{got:?}");
        }
        assert_ne!(mine[0].headers[giving], mine[1].headers[giving]);
        assert!(!send(&channel, call(GET, &asked("all"), &[])).await.hit());
        let all = send(&channel, call(GET, &asked("all"), &[])).await;
        assert!(all.hit() && !all.headers.contains_key(giving));

        let id = mine[0].headers[giving].to_str().unwrap().split(';').next().unwrap();
        let again = send(&channel, call(GET, &asked("mine"), &[(bringing, id)])).await;
        assert!(!again.hit(), "{}", again.told());
        let known = send(&channel, call(GET, &asked("all"), &[(bringing, id)])).await;
        match bringing {
            "cookie" => known.because("cookie-not-shared"),
            // The session is outside, and this answer did not use it.
            _ => assert!(known.hit()),
        }
    }
}

#[tokio::test]
async fn what_one_node_stores_in_redis_answers_on_another() {
    let server = larder_testkit::servers::RedisServer::start().await;
    let node = async || {
        let url =
            format!("{}?namespace=calls&response_timeout=120s&connect_timeout=20s", server.url());
        let cache = Cache::connect(&url).await.expect("a connection");
        let origin = Origin::counting(&[FRESH, ("proof-bin", "3q2+7w")]);
        let layer = GrpcCacheLayer::builder(&cache)
            .read(Read::new(GET).tag("products"))
            .cache_status("t")
            .build()
            .unwrap();
        let (address, _serving) = serve(origin.clone(), layer).await;
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
        let endpoint = endpoint.origin("http://site.example".parse().expect("an origin"));
        (cache, origin, endpoint.connect().await.expect("a connection"))
    };
    let (one, two) = (node().await, node().await);
    let ask = async |(cache, _, channel): &(Cache, Origin, Channel)| {
        let got = send(channel, call(GET, "a", &[])).await;
        until("all fills have ended", || cache.store().flights() == 0).await;
        got
    };
    assert!(ask(&one).await.told().contains("stored"));
    for node in [&one, &two] {
        let got = ask(node).await;
        assert!(got.hit(), "{}", got.told());
        assert_eq!(
            (got.text().as_str(), &got.headers["proof-bin"]),
            ("1", &"3q2+7w".parse().unwrap())
        );
        assert_eq!(got.code(), Some(0));
    }
    one.0.invalidate_tag("products").await.unwrap();
    assert!(!ask(&two).await.hit());
    assert!(ask(&one).await.hit());
    assert_eq!((one.1.calls(), two.1.calls()), (1, 1));
}

#[tokio::test]
async fn a_site_is_one_of_many_calls_at_once() {
    let site = Site::new(Origin::counting(&[FRESH])).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let channel = site.channel.clone();
        calls.spawn(async move { send(&channel, call(GET, "a", &[])).await.text() });
    }
    while let Some(text) = calls.join_next().await {
        assert_eq!(text.unwrap(), "1");
    }
    assert_eq!(site.calls(), 1);
}
