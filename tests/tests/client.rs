//! The layer on the client's side: one user's own cache over an outgoing client.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder_http::CacheLayer;
use larder_http::cache::Cached;
use larder_http::rules::Policy;
use larder_tests::server::Server;
use larder_tests::{Failure, Larder, Origin, answer};
use tower::{Layer, ServiceExt};

type Outgoing = Client<HttpConnector, Empty<Bytes>>;

fn client(larder: &Larder) -> Cached<Outgoing> {
    let client: Outgoing = Client::builder(TokioExecutor::new()).build_http();
    CacheLayer::new(&larder.cache).policy(Policy::private()).layer(client)
}

async fn ask(client: &Cached<Outgoing>, url: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::get(url);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).unwrap();
    let response = client.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn server() -> Origin {
    Origin::says(|call, request| {
        if request.method() == "POST" {
            return answer(200, &[], "done");
        }
        if request.headers().contains_key("if-none-match") {
            return answer(304, &[("etag", "\"1\""), ("cache-control", "private, max-age=60")], "");
        }
        let fields: &[(&str, &str)] = match request.uri().path() {
            "/private" => &[("cache-control", "private, max-age=60"), ("etag", "\"1\"")],
            "/shared" => &[("cache-control", "max-age=60, s-maxage=0")],
            "/cdn" => &[("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")],
            "/never" => &[("cache-control", "no-store")],
            _ => &[],
        };
        answer(200, fields, call.to_string())
    })
}

#[tokio::test]
async fn a_private_cache_keeps_what_is_its_users_own() {
    let (larder, origin) = (Larder::new(), server());
    let server = Server::start(origin.clone()).await;
    let (client, at) = (client(&larder), format!("http://{}", server.address));
    let mine = [("authorization", "Bearer me"), ("cookie", "id=me")];
    for path in ["/private", "/shared", "/cdn"] {
        let (_, first) = ask(&client, &format!("{at}{path}"), &mine).await;
        assert_eq!(ask(&client, &format!("{at}{path}"), &mine).await.1, first, "{path}");
    }
    assert_eq!(origin.calls(), 3);
    for _ in 0..2 {
        ask(&client, &format!("{at}/never"), &mine).await;
    }
    assert_eq!(origin.calls(), 5);

    // Stale: the server says that it is still good.
    larder.hands.advance(Duration::from_secs(70));
    let (status, body) = ask(&client, &format!("{at}/private"), &mine).await;
    assert_eq!((status, body.as_str(), origin.calls()), (200, "1", 6));
    assert_eq!(ask(&client, &format!("{at}/private"), &mine).await.1, "1");

    // What this client changes it asks for anew.
    let change = Request::post(format!("{at}/private")).body(Empty::new()).unwrap();
    client.clone().oneshot(change).await.unwrap();
    assert_eq!(ask(&client, &format!("{at}/private"), &mine).await.1, "8");
}

#[tokio::test]
async fn what_a_server_said_stands_in_for_it_and_without_that_the_error_is_the_clients() {
    let larder = Larder::new();
    // From the second request on it breaks the connection.
    let origin = Origin::new(|call, _| async move {
        match call {
            1 => Ok(answer(200, &[("cache-control", "private, max-age=60")], "1")),
            _ => Err(Failure("gone".to_owned())),
        }
    });
    let server = Server::start(origin.clone()).await;
    let (client, at) = (client(&larder), format!("http://{}", server.address));
    ask(&client, &format!("{at}/p"), &[]).await;
    larder.hands.advance(Duration::from_secs(70));
    assert_eq!(ask(&client, &format!("{at}/p"), &[]).await, (200, "1".to_owned()));
    assert!(origin.calls() > 1, "it was asked");
    let request = Request::get(format!("{at}/other")).body(Empty::new()).unwrap();
    let error: hyper_util::client::legacy::Error =
        client.clone().oneshot(request).await.unwrap_err();
    assert!(!error.is_connect(), "{error:?}");
}
