//! What tells calls apart, and who may share an answer.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, Request};
use http_body::Frame;
use http_body_util::BodyExt;
use larder_grpc::Read;
use tonic::body::Body;

use crate::support::{GET, Got, Origin, Site, body, call, framed, ok, request};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A method, a message and metadata.
type Asked = (&'static str, String, Vec<(&'static str, &'static str)>);

/// Answers with what came: the message, and the metadata that tests use.
fn echo() -> Origin {
    Origin::new(|_, request: Request<Body>| async move {
        let (head, body) = request.into_parts();
        let data = body.collect().await.expect("a body").to_bytes();
        let mut seen = format!("{}|{}", head.uri.path(), data.len());
        for name in ["x-lang", "x-request-id", "traceparent", "grpc-timeout", "authorization"] {
            if let Some(value) = head.headers.get(name) {
                seen += &format!("|{name}={}", value.to_str().expect("text"));
            }
        }
        ok(&[FRESH], seen)
    })
}

fn with_authority(authority: &str, mut request: Request<Body>) -> Request<Body> {
    let uri = format!("http://{authority}{}", request.uri().path());
    *request.uri_mut() = uri.parse().expect("a target");
    request
}

#[tokio::test]
async fn b11_method_message_encoding_and_declared_metadata_tell_calls_apart() {
    let lang = HeaderName::from_static("x-lang");
    let site = Site::with(echo(), |layer| {
        layer.read(Read::new(GET).metadata(lang.clone())).read("/test.Test/List")
    })
    .await;
    let long = |last: &str| format!("{}{last}", "x".repeat(5000));
    let calls: Vec<Asked> = vec![
        (GET, "a".into(), vec![]),
        (GET, "b".into(), vec![]),
        (GET, String::new(), vec![]),
        (GET, long("1"), vec![]),
        (GET, long("2"), vec![]),
        ("/test.Test/List", "a".into(), vec![]),
        (GET, "a".into(), vec![("x-lang", "de")]),
        (GET, "a".into(), vec![("x-lang", "en")]),
        (GET, "a".into(), vec![("x-lang", "")]),
        (GET, "a".into(), vec![("grpc-accept-encoding", "gzip")]),
        (GET, "a".into(), vec![("grpc-accept-encoding", "gzip,zstd")]),
        (GET, "a".into(), vec![("grpc-accept-encoding", "snappy")]),
        (GET, "a".into(), vec![("content-type", "application/grpc+json")]),
        (GET, "a".into(), vec![("x-forwarded-host", "elsewhere.example")]),
    ];
    let send = async |(method, message, metadata): &Asked| {
        site.send(call(method, message, metadata)).await
    };
    for (n, one) in calls.iter().enumerate() {
        assert!(!send(one).await.hit(), "{one:?} shares with an earlier one");
        assert_eq!(site.calls(), n + 1);
    }
    for one in &calls {
        assert!(send(one).await.hit(), "{one:?}");
    }
    // What means the same is the same.
    for same in [
        vec![("grpc-accept-encoding", "identity")],
        vec![("content-type", "application/grpc+proto")],
        vec![("user-agent", "another/1.0")],
        vec![("x-unknown", "1")],
        vec![("grpc-timeout", "5S")],
        vec![("traceparent", "00-1-2-01")],
    ] {
        assert!(send(&(GET, "a".into(), same.clone())).await.hit(), "{same:?}");
    }
    for same in ["zstd, gzip", "gzip,identity,zstd"] {
        assert!(send(&(GET, "a".into(), vec![("grpc-accept-encoding", same)])).await.hit());
    }
    // Another authority is another site; the channel says its own unless told.
    let mut elsewhere = call(GET, "a", &[]);
    elsewhere.headers_mut().insert("host", "other.example".parse().unwrap());
    assert!(!site.send(elsewhere).await.hit());
}

#[tokio::test]
async fn b11_each_authority_is_a_site_of_its_own() {
    let site = Site::new(echo()).await;
    let connected = tonic::transport::Channel::from_shared(format!("http://{}", site.address));
    let mut got = Vec::new();
    for authority in ["one.example", "two.example", "one.example", "ONE.example:80"] {
        let origin = format!("http://{authority}").parse().unwrap();
        let channel = connected.as_ref().unwrap().clone().origin(origin).connect().await.unwrap();
        let sent = with_authority(authority, call(GET, "a", &[]));
        got.push(crate::support::send(&channel, sent).await.hit());
    }
    assert_eq!(got, [false, false, true, true]);
}

#[tokio::test]
async fn b11_the_handler_of_a_fill_sees_only_what_is_keyed_or_declared_without_influence() {
    let lang = HeaderName::from_static("x-lang");
    let id = HeaderName::from_static("x-request-id");
    let site = Site::with(echo(), |layer| {
        layer
            .read(GET)
            .metadata(lang)
            .pass_metadata(id)
            .fill_deadline(std::time::Duration::from_secs(7))
    })
    .await;
    let metadata =
        [("x-lang", "de"), ("x-request-id", "7"), ("traceparent", "00-1"), ("grpc-timeout", "3S")];
    let got = site.get_with("a", &metadata).await;
    assert_eq!(got.text(), format!("{GET}|6|x-lang=de|x-request-id=7|grpc-timeout=7000m"));
    // Who passes the cache by has sent it all for themselves.
    let own = [&metadata[..], &[("authorization", "Bearer 1")]].concat();
    let got = site.get_with("a", &own).await;
    assert!(
        got.text().contains("traceparent=00-1|grpc-timeout=3S|authorization=Bearer 1"),
        "{got:?}"
    );
}

#[tokio::test]
async fn p07_credentials_share_nothing_whatever_the_answer_says() {
    let credentials = [
        ("authorization", "Bearer 1"),
        ("cookie", "id=1"),
        ("proxy-authorization", "Basic 1"),
        ("x-api-key", "1"),
        ("x-forwarded-user", "ada"),
        ("x-tenant-token", "1"),
    ];
    for said in ["max-age=60", "public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
        let origin = Origin::says(move |call| ok(&[("cache-control", said)], call.to_string()));
        let tenant = HeaderName::from_static("x-tenant-token");
        let site = Site::with(origin, |layer| layer.read(GET).credential(tenant)).await;
        for (n, credential) in credentials.iter().enumerate() {
            for _ in 0..2 {
                assert!(!site.get_with("a", &[*credential]).await.hit(), "{credential:?} {said}");
            }
            assert_eq!(site.calls(), 2 * (n + 1));
        }
        // Nor do they get what is there for strangers, and an empty one is none.
        site.get("a").await;
        assert!(site.get_with("a", &[("authorization", "")]).await.hit());
        assert!(!site.get_with("a", &credentials[..1]).await.hit());
    }
}

#[tokio::test]
async fn p07_a_switch_believes_public_and_s_maxage() {
    for (said, shared) in [
        ("max-age=60", false),
        ("public, max-age=60", true),
        ("s-maxage=60", true),
        ("must-revalidate, max-age=60", false),
    ] {
        let origin = Origin::says(move |call| ok(&[("cache-control", said)], call.to_string()));
        let site = Site::with(origin, |layer| layer.read(GET).shared_when_public()).await;
        let ada = [("authorization", "Bearer ada")];
        let bob = [("authorization", "Bearer bob")];
        site.get_with("a", &ada).await;
        assert_eq!(site.get_with("a", &bob).await.hit(), shared, "{said}");
        assert!(!site.get("b").await.hit());
        assert_eq!(site.get_with("b", &bob).await.hit(), shared, "{said}");
    }
}

#[tokio::test]
async fn p07_partitions_and_keyed_credentials_are_caches_of_their_own() {
    let site = Site::with(echo(), |layer| {
        layer.read(GET).partition_by(|call| {
            let user = call.metadata().get("authorization")?;
            assert_eq!(call.method(), GET);
            user.to_str().ok().map(str::to_owned)
        })
    })
    .await;
    let keyed =
        Site::with(echo(), |layer| layer.read(Read::new(GET).metadata(AUTHORIZATION))).await;
    for site in [site, keyed] {
        let as_user = async |user: &str| -> Got {
            let metadata = [("authorization", user)];
            site.get_with("a", if user.is_empty() { &[] } else { &metadata }).await
        };
        for user in ["ada", "bob", ""] {
            assert!(!as_user(user).await.hit(), "{user}");
            let got = as_user(user).await;
            assert!(got.hit(), "{user}: {got:?}");
            assert_eq!(got.text().contains("bob"), user == "bob");
        }
        assert_eq!(site.calls(), 3);
    }
}

#[tokio::test]
async fn b10_what_is_not_declared_or_not_plain_grpc_passes_untouched() {
    let site = Site::new(echo()).await;
    for (method, metadata, reason) in [
        ("/test.Test/Update", vec![], "not-declared"),
        ("/test.Test/Get/", vec![], "not-declared"),
        (GET, vec![("content-type", "application/grpc-web+proto")], "not-grpc"),
        (GET, vec![("content-type", "application/json")], "not-grpc"),
        (GET, vec![("x-original-url", "/test.Test/Secret")], "override-header"),
    ] {
        for _ in 0..2 {
            let calls = site.calls();
            site.send(call(method, "a", &metadata)).await.because(reason);
            assert_eq!(site.calls(), calls + 1);
        }
    }
}

#[tokio::test]
async fn b10_requests_that_are_not_one_message_pass_with_all_bytes_and_trailers() {
    let origin = Origin::new(|_, request: Request<Body>| async move {
        let collected = request.into_body().collect().await.expect("a body");
        let end = collected.trailers().map(|fields| fields["x-end"].to_str().unwrap().to_owned());
        let data = collected.to_bytes();
        ok(&[FRESH], format!("{}:{}", end.unwrap_or_default(), blake3::hash(&data)))
    });
    let site = Site::with(origin, |layer| layer.read(GET).max_message_bytes(100)).await;
    let end = || Frame::trailers(crate::support::fields(&[("x-end", "bye")]));
    let large = framed("x".repeat(101));
    let cases: [(&str, Vec<Bytes>); 6] = [
        ("several-messages", vec![framed("a"), framed("b")]),
        ("several-messages", vec![]),
        ("request-too-large", vec![large.slice(..50), large.slice(50..)]),
        ("request-too-large", vec![Bytes::from_static(b"\0\xff\xff\xff\xffa")]),
        ("request-failed", vec![framed("hello").slice(..4)]),
        ("request-failed", vec![framed("hello").slice(..9)]),
    ];
    for (reason, frames) in cases {
        for _ in 0..2 {
            let data = frames.iter().cloned().map(Frame::data);
            let sent = request(GET, body(data.chain([end()]).collect()), &[]);
            let got = site.send(sent).await;
            got.because(reason);
            assert_eq!(got.text(), format!("bye:{}", blake3::hash(&frames.concat())), "{reason}");
        }
    }
    // A message at the limit, in pieces, is one.
    let whole = framed("x".repeat(100));
    for hit in [false, true] {
        let pieces = [whole.slice(..3), whole.slice(3..50), whole.slice(50..)];
        let got = site
            .send(request(GET, body(pieces.iter().cloned().map(Frame::data).collect()), &[]))
            .await;
        assert_eq!(got.hit(), hit);
    }
}

#[tokio::test]
async fn b10_a_closure_chooses_among_methods_that_are_not_named() {
    let site = Site::with(echo(), |layer| layer.reads_if(|method| method.contains("/Get"))).await;
    for (method, hit) in [(GET, true), ("/test.Test/GetAll", true), ("/test.Test/List", false)] {
        site.send(call(method, "a", &[])).await;
        assert_eq!(site.send(call(method, "a", &[])).await.hit(), hit, "{method}");
    }
}
