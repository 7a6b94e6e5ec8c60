//! Input that nobody should send: floods, giants, what does not parse, what contradicts itself, absurd numbers. None of it
//! panics, none makes a wrong thing stored or a right thing lost, and what it costs is bounded. Bodies that lie or break off
//! are in `bodies.rs`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_http::rules::Policy;
use larder_tests::server::Server;
use larder_tests::{Got, Origin, Site, answer, request};

/// A field's value that is no text.
const NOISE: &[u8] = b"\x80\xff;=\",(*";

fn policies() -> [Policy; 2] {
    [Policy::application(), Policy::rfc9111()]
}

/// A response's fields.
type Fields = Vec<(&'static str, Vec<u8>)>;

/// A site whose responses have these fields.
fn said(fields: Fields, status: u16, policy: Policy) -> Site {
    let fields = Arc::new(fields);
    let origin = Origin::says(move |call, _| {
        let mut response = answer(status, &[], call.to_string());
        for (name, value) in fields.iter() {
            let value = HeaderValue::from_bytes(value).expect("a value");
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
        response
    });
    Site::with(origin, |layer| {
        layer
            .policy(policy)
            .tags_from(HeaderName::from_static("cache-tag"))
            .max_head_bytes(128 << 10)
    })
}

async fn stores(site: &Site) -> bool {
    site.get("/").await;
    let second = site.get("/").await;
    assert_eq!(second.text(), if second.hit() { "1" } else { "2" });
    second.hit()
}

fn shown(fields: &Fields) -> Vec<String> {
    let one = |value: &[u8]| value[..value.len().min(40)].escape_ascii().to_string();
    fields.iter().map(|(name, value)| format!("{name}: {}", one(value))).collect()
}

fn giant(of: &str) -> Vec<u8> {
    of.repeat((64 << 10) / of.len()).into_bytes()
}

/// Fresh if anything says so, and nothing that can be read does.
#[tokio::test]
async fn freshness_that_cannot_be_read_or_contradicts_itself_is_none() {
    let mut bad: Vec<Fields> = [
        "max-age=",
        "max-age=x",
        "max-age=-1",
        "max-age=1e3",
        "max-age=0x10",
        "max-age=60, max-age=0",
        "max-age=60, no-store",
        "no-store, max-age=60, public, immutable",
        "public, private, max-age=60",
        "s-maxage=0, max-age=60",
        "s-maxage=x, max-age=60",
        "max-age=60, no-cache",
        "max-age=60, no-store=\"x",
        "\"max-age=60\"",
        "max-age=60, x=\"\\",
        "maxage=60",
        "max-age 60",
        ";max-age=60",
    ]
    .into_iter()
    .map(|said| vec![("cache-control", said.as_bytes().to_vec())])
    .collect();
    bad.push(vec![("cache-control", NOISE.to_vec())]);
    bad.push(vec![("cache-control", giant("9"))]);
    bad.push(vec![("cache-control", [b"max-age=".to_vec(), giant("x")].concat())]);
    bad.push(vec![
        ("cache-control", b"max-age=60".to_vec()),
        ("cache-control", b"no-store".to_vec()),
    ]);
    for date in [
        "0",
        "-1",
        "",
        "now",
        "Thu, 99 Foo 2026 00:00:00 GMT",
        "Thu, 01 Jan 2026 25:00:00 GMT",
        "Thu, 01 Jan 99999999999 00:00:00 GMT",
        "31 Feb",
    ] {
        bad.push(vec![("expires", date.as_bytes().to_vec())]);
    }
    bad.push(vec![("expires", giant("1"))]);
    bad.push(vec![("expires", NOISE.to_vec())]);
    for fields in bad {
        for policy in policies() {
            let shown = shown(&fields);
            let site = said(fields.clone(), 200, policy);
            assert!(!stores(&site).await, "{shown:?}");
            assert_eq!(site.larder.entries(), 0, "{shown:?}");
        }
    }
}

#[tokio::test]
async fn what_else_cannot_be_read_stores_nothing_that_it_may_forbid() {
    let fresh = || ("cache-control", b"max-age=60".to_vec());
    let bad: Vec<(u16, Fields)> = vec![
        (200, vec![fresh(), ("vary", b"*".to_vec())]),
        (200, vec![fresh(), ("vary", b"accept, *".to_vec())]),
        (200, vec![fresh(), ("vary", b"accept foo".to_vec())]),
        (200, vec![fresh(), ("vary", NOISE.to_vec())]),
        (200, vec![fresh(), ("vary", b"accept".to_vec()), ("vary", b"*".to_vec())]),
        (200, vec![fresh(), ("content-length", b"7".to_vec())]),
        (200, vec![fresh(), ("content-length", b"18446744073709551615".to_vec())]),
        (200, vec![fresh(), ("age", b"61".to_vec())]),
        (200, vec![fresh(), ("age", b"99999999999999999999999".to_vec())]),
        (200, vec![fresh(), ("age", giant("9"))]),
        (200, vec![fresh(), ("cache-tag", giant("a"))]),
        (200, vec![fresh(), ("cache-tag", NOISE.to_vec())]),
        (
            200,
            vec![
                fresh(),
                ("cache-tag", (0..600).map(|n| format!("t{n} ")).collect::<String>().into_bytes()),
            ],
        ),
        (200, vec![fresh(), ("x", giant("a")), ("x", giant("a"))]),
        (
            200,
            vec![
                fresh(),
                ("content-encoding", b"gzip, \x80".to_vec()),
                ("vary", b"accept-encoding".to_vec()),
            ],
        ),
        (206, vec![fresh()]),
        (206, vec![fresh(), ("content-range", b"bytes 0-0/0".to_vec())]),
        (206, vec![fresh(), ("content-range", b"bytes 5-1/10".to_vec())]),
        (
            206,
            vec![
                fresh(),
                ("content-range", b"bytes 0-18446744073709551615/18446744073709551615".to_vec()),
            ],
        ),
        (206, vec![fresh(), ("content-range", NOISE.to_vec())]),
        (304, vec![fresh(), ("etag", b"\"a\"".to_vec())]),
    ];
    for (status, fields) in bad {
        for policy in policies() {
            let shown = shown(&fields);
            let site = said(fields.clone(), status, policy);
            assert!(!stores(&site).await, "{status} {shown:?}");
        }
    }
}

/// What does not parse and forbids nothing is as if it were not there.
#[tokio::test]
async fn what_cannot_be_read_and_forbids_nothing_is_ignored() {
    let fresh = || ("cache-control", b"max-age=60".to_vec());
    let odd: Vec<Fields> = vec![
        vec![fresh(), ("age", b"x".to_vec())],
        vec![fresh(), ("age", b"-5".to_vec())],
        vec![fresh(), ("age", NOISE.to_vec())],
        vec![fresh(), ("date", b"yesterday".to_vec())],
        vec![fresh(), ("date", giant("1"))],
        vec![fresh(), ("expires", b"0".to_vec())],
        vec![fresh(), ("last-modified", NOISE.to_vec())],
        vec![fresh(), ("etag", NOISE.to_vec())],
        vec![fresh(), ("etag", giant("\""))],
        vec![fresh(), ("cdn-cache-control", NOISE.to_vec())],
        vec![fresh(), ("cdn-cache-control", b"max-age=\"".to_vec())],
        vec![fresh(), ("no-vary-search", b"params=(((".to_vec())],
        vec![fresh(), ("no-vary-search", NOISE.to_vec())],
        vec![fresh(), ("cache-groups", NOISE.to_vec())],
        vec![fresh(), ("cache-status", NOISE.to_vec())],
        vec![fresh(), ("content-language", NOISE.to_vec())],
        vec![fresh(), ("vary", b",,,".to_vec())],
        vec![("cache-control", b",,max-age=60,,=,;".to_vec())],
        vec![fresh(), ("x", giant("a"))],
    ];
    for fields in odd {
        for policy in policies() {
            let shown = shown(&fields);
            let site = said(fields.clone(), 200, policy);
            assert!(stores(&site).await, "{shown:?}");
            site.later(60);
            assert!(!site.get("/").await.hit(), "{shown:?}");
        }
    }
}

#[tokio::test]
async fn absurd_lifetimes_and_windows_end_like_others() {
    for number in ["2147483648", "18446744073709551615", "18446744073709551616", &"9".repeat(4000)]
    {
        let said_so =
            format!("max-age={number}, stale-while-revalidate={number}, stale-if-error={number}");
        let site =
            said(vec![("cache-control", said_so.clone().into_bytes())], 200, Policy::application());
        assert!(stores(&site).await, "{number:.30}");
        assert!(site.get("/").await.told().ends_with("ttl=86400"), "{number:.30}: a day at most");
        site.later(2 * 86_400);
        assert!(!site.get("/").await.hit(), "{number:.30}");
        let site = said(vec![("cache-control", said_so.into_bytes())], 200, Policy::rfc9111());
        assert!(stores(&site).await);
        site.later(86_400 * 365 * 10);
        assert!(site.get("/").await.hit(), "for a proxy it is as long as it says");
        site.larder.hands.advance(Duration::MAX / 4);
        site.get("/").await;
    }
}

/// One whose every bad request stands beside a good one of the same URL: that has what was made for it, before and after.
#[tokio::test]
async fn bad_requests_get_something_sound_and_leave_what_is_stored_alone() {
    let ranges = format!("bytes={}", vec!["0-0"; 10_000].join(","));
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("range", ranges.into_bytes()),
        ("range", b"bytes=18446744073709551615-18446744073709551616".to_vec()),
        ("range", b"bytes=-18446744073709551616".to_vec()),
        ("range", b"bytes=9-1".to_vec()),
        ("range", b"lines=1-2".to_vec()),
        ("range", NOISE.to_vec()),
        ("range", giant("0-,")),
        ("if-range", NOISE.to_vec()),
        ("if-none-match", giant("\"a\",")),
        ("if-none-match", giant("\"")),
        ("if-none-match", NOISE.to_vec()),
        ("if-modified-since", b"tomorrow".to_vec()),
        ("if-modified-since", NOISE.to_vec()),
        ("if-modified-since", giant("9")),
        ("cache-control", giant("max-stale=9,")),
        ("cache-control", b"max-age=99999999999999999999, min-fresh=-1, max-stale=x".to_vec()),
        ("cache-control", NOISE.to_vec()),
        ("accept-encoding", giant("gzip;q=0.1,")),
        ("accept-encoding", b"gzip;q=99999, *;q=-1, ;;,".to_vec()),
        ("accept-encoding", NOISE.to_vec()),
        ("accept-language", giant("de-")),
        ("accept-language", NOISE.to_vec()),
        ("cookie", giant("a=b; ")),
        ("cookie", NOISE.to_vec()),
        ("authorization", giant("x")),
        ("x-forwarded-host", giant("a.")),
        ("x-forwarded-host", NOISE.to_vec()),
        ("forwarded", giant("host=a;proto=b,")),
        ("forwarded", b"host=\"".to_vec()),
        ("pragma", giant("no-cache,")),
        ("expect", NOISE.to_vec()),
        ("te", giant("trailers,")),
        ("x-anything", giant("a")),
        ("larder-explain", giant("a")),
    ];
    for policy in policies() {
        let origin = Origin::says(|_, request| {
            let fields = [
                ("cache-control", "max-age=600"),
                ("vary", "accept-encoding, accept-language"),
                ("etag", "\"v1\""),
                ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ];
            let own = request.headers().contains_key("cookie")
                || request.headers().contains_key("authorization");
            answer(200, &fields, if own { "somebody's own" } else { "0123456789" })
        });
        let site = Site::with(origin, |layer| layer.policy(policy.clone()).explain("secret"));
        assert_eq!(site.get("/").await.text(), "0123456789");
        for (name, value) in &bad {
            for lines in [1, 3] {
                let shown = value[..value.len().min(40)].escape_ascii().to_string();
                let mut asked = request("GET", "/", &[]);
                for _ in 0..lines {
                    let value = HeaderValue::from_bytes(value).expect("a value");
                    asked.headers_mut().append(HeaderName::from_static(name), value);
                }
                let got = site.send(asked).await;
                let sound = match got.status {
                    200 => ["0123456789", "somebody's own"].contains(&&*got.text()),
                    304 | 416 => got.body.is_empty(),
                    206 => got.headers.contains_key("content-range"),
                    _ => false,
                };
                assert!(sound, "{name}: {shown}: {got:?}");
                let clean = site.get("/").await;
                assert_eq!(
                    (clean.status, clean.text()),
                    (200, "0123456789".to_owned()),
                    "{name}: {shown}"
                );
                assert!(clean.hit(), "{name}: {shown}: {}", clean.told());
            }
        }
    }
}

#[tokio::test]
async fn floods_of_fields_cost_no_entry_and_no_error() {
    let site = Site::new(Origin::counting("max-age=60"));
    assert_eq!(site.get("/").await.text(), "1");
    let mut headers = HeaderMap::new();
    for nth in 0..20_000 {
        let name = HeaderName::try_from(format!("x-flood-{}", nth % 10_000)).unwrap();
        headers.append(name, HeaderValue::from_static("a"));
    }
    let mut asked = request("GET", "/", &[]);
    *asked.headers_mut() = headers.clone();
    assert!(site.send(asked).await.hit(), "none of them matters");
    // In a response they are more than is stored.
    let flooding = Site::new(Origin::says(move |call, _| {
        let mut response = answer(200, &[("cache-control", "max-age=60")], call.to_string());
        response.headers_mut().extend(headers.clone());
        response
    }));
    for call in 1..=3 {
        let got = flooding.get("/").await;
        assert_eq!((got.text(), got.hit()), (call.to_string(), false));
        assert!(got.headers.len() >= 20_000, "the client gets all of them");
    }
    assert_eq!(flooding.larder.entries(), 0);
}

/// Over the wire, where a server has limits of its own: whatever it says, the next visitor gets the page.
#[tokio::test]
async fn over_the_wire_giants_and_floods_reach_nobody_else() {
    let site =
        Site::new(Origin::says(|_, _| answer(200, &[("cache-control", "max-age=600")], "page")));
    let server = Server::start(site.service()).await;
    let target = |filler: String| format!("GET /?{filler} HTTP/1.1\r\nhost: a\r\n\r\n");
    let fields = |filler: String| format!("GET / HTTP/1.1\r\nhost: a\r\n{filler}\r\n");
    let giants = [
        fields(format!("x: {}\r\n", "a".repeat(64 << 10))),
        fields(format!("cookie: {}\r\n", "a=b; ".repeat(13_000))),
        fields("x: a\r\n".repeat(5_000)),
        fields((0..99).map(|nth| format!("x-{nth}: a\r\n")).collect()),
        fields("x: \u{7}\r\n".to_owned()),
        target("a".repeat(64 << 10)),
        target("a=b&".repeat(15_000)),
    ];
    for giant in giants {
        let mut client = server.http1().await;
        client.write(&giant).await;
        if let Some(got) = client.try_response(false).await {
            let page = got.status == 200 && got.text() == "page";
            assert!(page || StatusCode::from_u16(got.status).unwrap().is_client_error(), "{got:?}");
        }
        let got: Got = server.http1().await.get("a", "/").await;
        assert_eq!((got.status, got.text()), (200, "page".to_owned()), "{giant:.60}");
    }
}
