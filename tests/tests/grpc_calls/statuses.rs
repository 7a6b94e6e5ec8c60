//! Which answers are stored, and that all of them come back as they were.

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tonic::body::Body;
use tower::ServiceExt;

use crate::support::{
    GET, Got, Origin, Site, body, call, connect, failed, fields, framed, ok, response, send, serve,
};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test]
async fn b05_metadata_and_trailers_come_back_as_they_were_on_miss_hit_and_bypass() {
    let origin = Origin::says(|_| {
        let trailers = [
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("sum-bin", "AAEC/w"),
            ("sum-bin", "_w"),
            ("x-cost", "3"),
        ];
        let head = [FRESH, ("x-shard", "7"), ("x-shard", "8"), ("proof-bin", "3q2+7w")];
        response(
            &head,
            body(vec![Frame::data(framed("hello")), Frame::trailers(fields(&trailers))]),
        )
    });
    let site = Site::new(origin).await;
    let miss = site.get("a").await;
    let hit = site.get("a").await;
    let bypass = site.get_with("a", &[("authorization", "Bearer x")]).await;
    assert!(miss.told().contains("stored"), "{}", miss.told());
    assert!(hit.hit() && site.calls() == 2, "{}", hit.told());
    bypass.because("authorization-not-shared");
    for got in [&miss, &hit, &bypass] {
        let lines = |name: &str| -> Vec<_> { got.headers.get_all(name).iter().cloned().collect() };
        assert_eq!(got.data, framed("hello"));
        assert_eq!(lines("x-shard"), ["7", "8"]);
        assert_eq!(lines("proof-bin"), ["3q2+7w"]);
        assert_eq!(lines("content-type"), ["application/grpc"]);
        let trailers = got.trailers.as_ref().unwrap();
        let sums: Vec<_> = trailers.get_all("sum-bin").iter().collect();
        assert_eq!(sums, ["AAEC/w", "_w"]);
        assert_eq!((trailers.len(), &trailers["x-cost"]), (5, &"3".parse().unwrap()));
    }
}

/// Where an answer tells its status.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// In the head, with the end of the stream.
    TrailersOnly,
    /// In the head, and a message all the same.
    HeadAndMessage,
    /// In trailers without a message.
    NoMessage,
    /// As it should be for OK.
    Trailers,
    /// Nowhere.
    Missing,
    /// Once too often.
    Twice,
}

fn write(code: u32, place: Place) -> Response<Body> {
    let code = code.to_string();
    let told = [FRESH, ("grpc-status", &code)];
    let message = Frame::data(framed("hello"));
    let trailers = Frame::trailers(fields(&[("grpc-status", &code), ("x-end", "1")]));
    match place {
        Place::TrailersOnly => response(&told, Body::empty()),
        Place::HeadAndMessage => response(&told, body(vec![message, trailers])),
        Place::NoMessage => response(&[FRESH], body(vec![trailers])),
        Place::Trailers => response(&[FRESH], body(vec![message, trailers])),
        Place::Missing => response(&[FRESH], body(vec![message])),
        Place::Twice => {
            let twice = fields(&[("grpc-status", &code), ("grpc-status", &code)]);
            response(&[FRESH], body(vec![message, Frame::trailers(twice)]))
        }
    }
}

/// What a client gets without a cache.
async fn uncached(origin: Origin) -> Got {
    let (cache, _) = crate::support::cache();
    let other = larder_grpc::GrpcCacheLayer::builder(&cache).read("/test.Test/Other");
    let (address, serving) = serve(origin, other.build().unwrap()).await;
    let got = send(&connect(address).await, call(GET, "a", &[])).await;
    serving.abort();
    got
}

#[tokio::test]
async fn b10_of_17_statuses_in_six_places_only_ok_behind_one_message_is_stored() {
    for place in [
        Place::TrailersOnly,
        Place::HeadAndMessage,
        Place::NoMessage,
        Place::Trailers,
        Place::Missing,
        Place::Twice,
    ] {
        for code in 0..=16 {
            let site = Site::new(Origin::says(move |_| write(code, place))).await;
            let bare = uncached(Origin::says(move |_| write(code, place))).await;
            let first = site.get("a").await;
            let second = site.get("a").await;
            let stored = code == 0 && place == Place::Trailers;
            assert_eq!(second.hit(), stored, "{code} {place:?}: {}", second.told());
            assert_eq!(site.calls(), if stored { 1 } else { 2 }, "{code} {place:?}");
            for got in [first, second] {
                assert_eq!(got.data, bare.data, "{code} {place:?}");
                assert_eq!(got.trailers, bare.trailers, "{code} {place:?}");
                assert_eq!(got.headers.get("grpc-status"), bare.headers.get("grpc-status"));
            }
        }
    }
}

#[tokio::test]
async fn b10_what_is_not_one_whole_message_passes_as_it_is_and_nobody_waits_for_it_again() {
    let whole = framed("hello");
    let cases: [(&str, Vec<Bytes>); 7] = [
        ("truncated", vec![whole.slice(..3)]),
        ("truncated", vec![whole.slice(..9)]),
        ("truncated", vec![Bytes::from_static(b"\0\0\0\0\x06hello")]),
        ("stream", vec![Bytes::from_static(b"\0\0\0\0\x04hello")]),
        ("stream", vec![whole.clone(), framed("again")]),
        ("stream", vec![[&whole[..], &whole].concat().into()]),
        ("answer-too-large", vec![Bytes::from_static(b"\0\xff\xff\xff\xffhello")]),
    ];
    for (reason, frames) in cases {
        let sent = frames.clone();
        let origin = Origin::says(move |_| {
            let data = sent.iter().cloned().map(Frame::data);
            let end = Frame::trailers(fields(&[("grpc-status", "0")]));
            response(&[FRESH], body(data.chain([end]).collect()))
        });
        let site = Site::new(origin).await;
        for reason in [reason, "pass-mark"] {
            let got = site.get("a").await;
            got.because(reason);
            assert_eq!(got.data, frames.concat(), "{reason}");
            assert_eq!(got.code(), Some(0), "{reason}");
        }
        assert_eq!(site.calls(), 2);
    }
}

#[tokio::test]
async fn b10_messages_up_to_the_limit_are_stored_and_larger_ones_pass_whole() {
    const LIMIT: usize = 4 << 20;
    for (length, stored) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        let origin = Origin::says(move |call| ok(&[FRESH], vec![call as u8; length]));
        let site = Site::new(origin).await;
        for call in 1..=2_u8 {
            let got = site.get("a").await;
            assert_eq!(got.data.len(), 5 + length);
            let call = if stored { 1 } else { call };
            assert!(got.data[5..].iter().all(|byte| *byte == call));
            assert_eq!(got.code(), Some(0));
        }
        assert_eq!(site.calls(), if stored { 1 } else { 2 }, "{length}");
    }
}

#[tokio::test]
async fn b10_only_what_says_how_long_it_is_fresh_is_stored() {
    for (said, reason) in [
        ("", Some("no-freshness")),
        ("max-age=60", None),
        ("s-maxage=60", None),
        ("max-age=0", Some("zero-lifetime")),
        ("max-age=x", Some("invalid-freshness")),
        ("no-store, max-age=60", Some("no-store")),
        ("private, max-age=60", Some("private")),
        ("no-cache, max-age=60", Some("no-cache")),
    ] {
        let site =
            Site::new(Origin::says(move |call| ok(&[("cache-control", said)], call.to_string())))
                .await;
        let first = site.get("a").await;
        let second = site.get("a").await;
        assert_eq!(second.hit(), reason.is_none(), "{said}");
        if let Some(reason) = reason {
            first.because(reason);
            second.because("pass-mark");
        }
    }
    // What sets a cookie is one caller's own, whatever it says.
    let site = Site::new(Origin::counting(&[FRESH, ("set-cookie", "id=1")])).await;
    site.get("a").await.because("set-cookie");
    assert!(!site.get("a").await.hit());
}

#[tokio::test]
async fn b10_an_answer_is_as_old_as_it_says() {
    let site = Site::new(Origin::counting(&[FRESH])).await;
    site.get("a").await;
    site.later(59);
    let hit = site.get("a").await;
    assert_eq!(
        (hit.told().as_str(), &hit.headers["age"]),
        ("t; hit; ttl=1", &"59".parse().unwrap())
    );
    site.later(1);
    let again = site.get("a").await;
    assert_eq!((again.text().as_str(), again.told().contains("fwd=stale")), ("2", false));
    let old = Site::new(Origin::counting(&[FRESH, ("age", "50")])).await;
    old.get("a").await;
    old.later(9);
    assert!(old.get("a").await.hit());
    old.later(1);
    assert!(!old.get("a").await.hit());
}

#[tokio::test]
async fn d06_a_failure_is_not_stored() {
    let origin = Origin::says(|call| match call {
        1 => failed(13),
        _ => ok(&[FRESH], call.to_string()),
    });
    let site = Site::new(origin).await;
    assert_eq!(site.get("a").await.code(), Some(13));
    assert_eq!(site.get("a").await.text(), "2");
    assert!(site.get("a").await.hit());
}

#[tokio::test]
async fn b10_an_answer_that_breaks_off_is_not_stored() {
    let origin = Origin::says(|call| {
        let whole = [Ok(Frame::data(framed("hello")))];
        let end = match call {
            1 => Err(tonic::Status::data_loss("the disk is gone")),
            _ => Ok(Frame::trailers(fields(&[("grpc-status", "0")]))),
        };
        let frames = futures_util::stream::iter(whole.into_iter().chain([end]));
        response(&[FRESH], Body::new(http_body_util::StreamBody::new(frames)))
    });
    let site = Site::new(origin).await;
    // Where the head had not been sent yet, the call fails as a whole.
    if let Ok(answer) = site.channel.clone().oneshot(call(GET, "a", &[])).await {
        let first = Got::read(answer).await;
        first.because("truncated");
        assert!(first.broken && first.code().is_none(), "{first:?}");
    }
    let second = site.get("a").await;
    assert!(!second.broken && second.told().contains("stored"));
    assert!(site.get("a").await.hit());
}
