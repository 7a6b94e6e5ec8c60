//! Which responses are stored, and what of them.

use larder_http::Caching;
use larder_http::rules::Policy;
use larder_tests::{Origin, Site, answer, append, request, response};
use proptest::prelude::*;
use std::time::Duration;

/// Directive sets that allow storing, more or less loudly.
const ALLOWING: [&str; 9] = [
    "max-age=60",
    "public",
    "public, max-age=60",
    "s-maxage=60",
    "public, s-maxage=60",
    "max-age=60, must-revalidate",
    "public, max-age=60, must-revalidate, proxy-revalidate",
    "max-age=60, immutable",
    "public, max-age=60, stale-while-revalidate=60, stale-if-error=60",
];

/// A site whose responses have these fields besides their Cache-Control, with a lifetime from the route.
fn site(cache_control: &'static str, fields: Vec<(&'static str, &'static str)>) -> Site {
    let origin = Origin::says(move |call, _| {
        let mut response = response(cache_control, call.to_string());
        append(response.headers_mut(), &fields);
        response
    });
    Site::with(origin, |layer| layer.ttl(Duration::from_secs(60)))
}

async fn stores(site: &Site) -> bool {
    let first = site.get("/").await;
    assert!(!first.hit());
    let second = site.get("/").await;
    assert_eq!(second.hit(), site.larder.entries() == 1);
    assert_eq!(site.calls(), if second.hit() { 1 } else { 2 });
    second.hit()
}

#[tokio::test]
async fn p08_a_response_that_sets_a_cookie_is_never_stored() {
    let five = ["a=1", "b=2; Path=/", "c=3; HttpOnly", "__Host-d=4; Secure", "e=5; Max-Age=0"];
    for allowing in ALLOWING {
        for name in ["Set-Cookie", "set-cookie", "SET-COOKIE", "Set-Cookie2"] {
            for lines in [&five[..1], &five[..]] {
                let fields = lines.iter().map(|line| (name, *line)).collect();
                let site = site(allowing, fields);
                assert!(!stores(&site).await, "{allowing}, {name}");
            }
        }
    }
    // Whether or not the request carried cookies, and whether or not the handler varies on them (check 67).
    for cookie in ["", "a=1", "z=9"] {
        let site = site("public, max-age=60", vec![("vary", "Cookie"), ("set-cookie", "a=1")]);
        for _ in 0..2 {
            assert!(!site.get_with("/", &[("cookie", cookie)]).await.hit());
        }
        assert!(site.get("/").await.headers.contains_key("set-cookie"));
        assert_eq!(site.larder.entries(), 0);
    }
}

#[tokio::test]
async fn p10_vary_any_is_never_stored() {
    let spellings: [&[(&str, &str)]; 8] = [
        &[("vary", "*")],
        &[("vary", " * ")],
        &[("vary", "Accept, *")],
        &[("vary", "*, Accept")],
        &[("vary", "Accept"), ("vary", "*")],
        &[("Vary", ",, * ,")],
        &[("vary", ""), ("vary", "*"), ("vary", "")],
        &[("vary", "not a name")],
    ];
    for spelling in spellings {
        for allowing in ALLOWING {
            assert!(!stores(&site(allowing, spelling.to_vec())).await, "{spelling:?}, {allowing}");
        }
    }
}

#[tokio::test]
async fn p12_restrictive_directives_win_in_every_letter_case() {
    let mut patterns = 0;
    for directive in ["no-store", "private", "no-cache"] {
        let letters: Vec<usize> =
            directive.char_indices().filter(|(_, c)| c.is_alphabetic()).map(|(at, _)| at).collect();
        for pattern in 0..1_u32 << letters.len() {
            let mut spelled = directive.as_bytes().to_vec();
            for (bit, at) in letters.iter().enumerate() {
                if pattern >> bit & 1 == 1 {
                    spelled[*at] = spelled[*at].to_ascii_uppercase();
                }
            }
            let spelled = String::from_utf8(spelled).unwrap();
            // In turn before, behind and between what allows, and on a line of its own.
            let lines = match pattern % 4 {
                0 => vec![format!("{spelled}, public, max-age=60")],
                1 => vec![format!("public, max-age=60, {spelled}")],
                2 => vec![format!("public,{spelled} ,s-maxage=60")],
                _ => vec!["public, max-age=60".to_owned(), spelled.clone()],
            };
            let origin = Origin::says(move |call, _| {
                let mut response = response("", call.to_string());
                for line in &lines {
                    append(response.headers_mut(), &[("cache-control", line)]);
                }
                response
            });
            let site = Site::with(origin, |layer| layer.ttl(Duration::from_secs(60)));
            assert!(!stores(&site).await, "{spelled}");
            patterns += 1;
        }
    }
    assert_eq!(patterns, 128 + 128 + 128);
}

#[tokio::test]
async fn p15_errors_are_never_stored_unless_the_route_names_them_and_then_briefly() {
    let errors: Vec<u16> = (400..=451).chain(500..=511).chain([599]).collect();
    for status in errors {
        for allowing in ["public, max-age=60", "s-maxage=60", ""] {
            let origin = Origin::says(move |call, _| {
                answer(status, &[("cache-control", allowing)], call.to_string())
            });
            let site = Site::with(origin, |layer| layer.ttl(Duration::from_secs(60)));
            assert!(!stores(&site).await, "{status}, {allowing}");

            let named = http::StatusCode::from_u16(status).unwrap();
            let origin = Origin::says(move |call, _| {
                answer(status, &[("cache-control", allowing)], call.to_string())
            });
            let site =
                Site::with(origin, |layer| layer.ttl(Duration::from_secs(60)).statuses([named]));
            let stored = stores(&site).await;
            assert_eq!(stored, matches!(status, 404 | 405 | 410), "{status}, {allowing}");
            site.later(10);
            assert!(!site.get("/").await.hit(), "{status} for longer than ten seconds");
        }
    }
    // An attacker who provokes an error leaves nothing behind.
    let site = Site::new(Origin::says(|_, request| {
        let bad = request.headers().values().any(|v| v.len() > 8192)
            || request.headers().contains_key("x-http-method-override");
        answer(if bad { 400 } else { 200 }, &[("cache-control", "public, max-age=60")], "")
    }));
    for length in [8193, 16 << 10, 64 << 10] {
        let big = "b".repeat(length);
        assert_eq!(site.get_with("/", &[("x-big", &big)]).await.status, 400);
    }
    assert_eq!(site.get_with("/", &[("x-http-method-override", "DELETE")]).await.status, 400);
    assert_eq!(site.get("/").await.status, 200);
}

#[tokio::test]
async fn p16_empty_pages_and_broken_redirects_are_not_stored() {
    for allowing in ALLOWING {
        for status in [301, 302, 303, 307, 308] {
            let origin = Origin::says(move |call, _| {
                answer(status, &[("cache-control", allowing)], call.to_string())
            });
            let site = Site::with(origin, |layer| layer.ttl(Duration::from_secs(60)));
            assert!(!stores(&site).await, "{status} without Location, {allowing}");
        }
    }
    // With a lifetime of their own, or named by the route, and only then.
    for (status, own, named, stored) in [
        (204, "max-age=60", false, true),
        (204, "", false, false),
        (204, "public", false, false),
        (204, "", true, true),
        (302, "max-age=60", false, true),
        (302, "", false, false),
        (302, "", true, true),
        (307, "", false, false),
        (301, "", false, true),
        (308, "", false, true),
        (203, "", false, true),
        (201, "max-age=60", true, false),
        (226, "max-age=60", true, false),
    ] {
        let origin = Origin::says(move |_, _| {
            let fields = [("location", "/elsewhere"), ("cache-control", own)];
            answer(status, &fields, "")
        });
        let site = Site::with(origin, |layer| {
            let layer = if own.is_empty() { layer.ttl(Duration::from_secs(60)) } else { layer };
            let status = http::StatusCode::from_u16(status).unwrap();
            if named { layer.statuses([status]) } else { layer }
        });
        assert_eq!(stores(&site).await, stored, "{status} {own:?} {named}");
    }
}

#[tokio::test]
async fn p19_parts_and_c73_not_modified_and_c91_interim_responses_are_no_entries() {
    for status in [100, 102, 103, 206, 304] {
        let fields = [
            ("cache-control", "public, max-age=60"),
            ("content-range", "bytes 0-0/9"),
            ("etag", "\"1\""),
        ];
        let origin = Origin::says(move |call, _| answer(status, &fields, call.to_string()));
        let site = Site::with(origin, |layer| {
            let status = http::StatusCode::from_u16(status).unwrap();
            layer.ttl(Duration::from_secs(60)).statuses([status])
        });
        assert!(!stores(&site).await, "{status}");
    }
}

#[tokio::test]
async fn p25_a_304_that_nobody_asked_for_changes_nothing_that_is_stored() {
    let site = Site::new(Origin::says(|call, _| match call {
        1 => answer(200, &[("cache-control", "max-age=60")], "first"),
        2 => answer(304, &[("cache-control", "max-age=600")], ""),
        _ => answer(200, &[("cache-control", "max-age=60"), ("etag", "\"3\"")], "third"),
    }));
    assert_eq!(site.get("/").await.text(), "first");
    site.later(60);
    assert_eq!(site.get("/").await.status, 304);
    // The stale one does not come back to life.
    assert_eq!(site.get("/").await.text(), "third");
    assert_eq!(site.get("/").await.text(), "third");

    // Nor does what was purged.
    let site = Site::new(Origin::says(|call, _| match call {
        1 => answer(200, &[("cache-control", "max-age=60"), ("etag", "\"1\"")], "first"),
        2 => answer(304, &[("cache-control", "max-age=600"), ("etag", "\"1\"")], ""),
        _ => answer(200, &[("cache-control", "max-age=60")], "third"),
    }));
    site.get("/").await;
    site.larder.cache.clear().await.unwrap();
    site.get_with("/", &[("if-none-match", "\"1\"")]).await;
    assert_eq!(site.get("/").await.text(), "third");
}

#[tokio::test]
async fn p28_fields_of_one_connection_are_not_stored_and_the_others_survive() {
    let site = Site::new(Origin::says(|_, _| {
        answer(
            200,
            &[
                ("cache-control", "max-age=60"),
                ("connection", "close, X-Hop"),
                ("connection", "x-other-hop"),
                ("x-hop", "1"),
                ("x-other-hop", "2"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("proxy-authenticate", "Basic"),
                ("proxy-authentication-info", "x"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("x-kept", "one"),
                ("x-kept", "two"),
                ("content-type", "text/html; charset=utf-8"),
                ("link", "</a>; rel=preload"),
                ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
                ("age", "7"),
                ("expires", "Thu, 01 Jan 2026 00:01:00 GMT"),
                ("x-cache", "MISS from upstream"),
            ],
            "body",
        )
    }));
    let miss = site.get("/").await;
    assert_eq!(
        miss.field("x-hop").as_deref(),
        Some("1"),
        "the first client's response is as it was"
    );
    site.later(3);
    let hit = site.get("/").await;
    assert!(hit.hit());
    let mut names: Vec<_> = hit.headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    let kept = [
        "age",
        "cache-control",
        "cache-status",
        "content-type",
        "date",
        "expires",
        "link",
        "x-cache",
        "x-kept",
    ];
    assert_eq!(names, kept);
    assert_eq!(hit.field("x-kept").as_deref(), Some("one, two"));
    assert_eq!(hit.field("age").as_deref(), Some("10"));
    assert_eq!(hit.field("date").as_deref(), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
    // 60 less seven at the origin, less three here.
    assert!(hit.told().contains("ttl=50"), "{}", hit.told());
    assert!(!hit.told().contains("site.example"), "the key is told to nobody");
    site.later(50);
    assert!(!site.get("/").await.hit());
}

#[tokio::test]
async fn p28_a_response_keeps_two_hundred_fields_as_they_are() {
    let names: Vec<String> = (0..200).map(|n| format!("x-field-{n}")).collect();
    let all = names.clone();
    let site = Site::new(Origin::says(move |_, _| {
        let mut response = response("max-age=60", "");
        for (n, name) in all.iter().enumerate() {
            for value in 0..=n % 3 {
                append(response.headers_mut(), &[(name, &format!("{n}/{value}, \"a\""))]);
            }
        }
        response
    }));
    let mut miss = site.get("/").await;
    let mut hit = site.get("/").await;
    assert!(hit.hit());
    for name in ["cache-status", "age", "date"] {
        miss.headers.remove(name);
        hit.headers.remove(name);
    }
    assert_eq!(hit, miss);
    assert_eq!(hit.headers.keys_len(), 201);
}

#[tokio::test]
async fn c70_lifetimes_have_their_order() {
    for (route, default, own, lifetime) in [
        (Some(100), None, "max-age=10", 100),
        (None, Some(100), "max-age=10", 10),
        (None, Some(100), "", 100),
        (None, None, "max-age=10, s-maxage=30", 30),
        (None, None, "s-maxage=5, max-age=30", 5),
        (Some(100), None, "max-age=0", 0),
        (Some(100), None, "s-maxage=0, max-age=10", 0),
        (None, Some(100), "max-age=x", 0),
        (None, None, "max-age=999999999999999999999", 86_400),
        (None, None, "", 0),
    ] {
        let origin = Origin::counting(own);
        let site = Site::with(origin, |mut layer| {
            if let Some(seconds) = route {
                layer = layer.ttl(Duration::from_secs(seconds));
            }
            match default {
                Some(seconds) => layer.default_ttl(Duration::from_secs(seconds)),
                None => layer,
            }
        });
        site.get("/").await;
        if lifetime > 0 {
            site.later(lifetime - 1);
            assert!(site.get("/").await.hit(), "{own} at {lifetime} - 1");
            site.later(1);
        }
        assert!(!site.get("/").await.hit(), "{own} at {lifetime}");
    }
}

#[tokio::test]
async fn c71_age_grows_and_never_goes_back() {
    let site = Site::new(Origin::counting("max-age=6000"));
    let date = site.get("/").await.field("date");
    assert_eq!(date, None, "the handler's own is not invented on the way");
    let mut dates = Vec::new();
    for age in [0, 1, 59, 3599, 3600, 5999] {
        let before = site.get("/").await.field("age").unwrap().parse::<u64>().unwrap();
        site.later(age - before);
        site.larder.hands.skew_wall(Duration::from_secs(1000), age % 2 == 1);
        let got = site.get("/").await;
        assert_eq!(got.field("age"), Some(age.to_string()));
        dates.push(got.field("date").unwrap());
    }
    dates.dedup();
    assert_eq!(dates, ["Thu, 01 Jan 2026 00:00:00 GMT"]);
    // Stale on arrival: older than its lifetime where it comes from (check 72).
    for age in ["60", "61", "99999999999999999999"] {
        let origin = Origin::says(move |call, _| {
            answer(200, &[("cache-control", "max-age=60"), ("age", age)], call.to_string())
        });
        assert!(!stores(&Site::new(origin)).await, "{age}");
    }
}

#[tokio::test]
async fn handlers_say_how_their_responses_are_cached() {
    let site = Site::with(
        Origin::says(|call, request| {
            let mut response = response("", call.to_string());
            let caching = match request.uri().path() {
                "/never" => Caching::never(),
                "/long" => Caching::new().ttl(Duration::from_secs(600)),
                "/zero" => Caching::new().ttl(Duration::ZERO),
                "/tag" => Caching::new().tag("a".repeat(257)),
                _ => Caching::new(),
            };
            response.extensions_mut().insert(caching);
            response
        }),
        |layer| layer.ttl(Duration::from_secs(60)),
    );
    for (path, reason) in
        [("/never", "handler-declined"), ("/zero", "zero-lifetime"), ("/tag", "invalid-tag")]
    {
        assert!(site.get(path).await.because(reason), "{path}");
        assert!(!site.get(path).await.hit());
    }
    site.get("/plain").await;
    site.get("/long").await;
    site.later(60);
    assert!(!site.get("/plain").await.hit());
    assert!(site.get("/long").await.hit());
}

/// A response head that may or may not be storable.
fn heads() -> impl Strategy<Value = (u16, Vec<(&'static str, &'static str)>)> {
    let status =
        prop::sample::select(vec![200_u16, 200, 200, 203, 204, 206, 301, 302, 304, 404, 410, 500]);
    let fields: Vec<(&str, &str)> = vec![
        ("cache-control", "max-age=60"),
        ("cache-control", "public"),
        ("cache-control", "s-maxage=30"),
        ("cache-control", "private"),
        ("cache-control", "no-store"),
        ("cache-control", "no-cache"),
        ("cache-control", "must-revalidate"),
        ("cache-control", "max-age=0"),
        ("set-cookie", "a=1"),
        ("vary", "accept-language"),
        ("vary", "cookie"),
        ("vary", "authorization"),
        ("vary", "*"),
        ("etag", "\"1\""),
        ("location", "/"),
        ("expires", "0"),
        ("content-encoding", "gzip"),
        ("content-encoding", "odd"),
        ("content-length", "1"),
        ("content-length", "2"),
        ("age", "100"),
        ("pragma", "no-cache"),
    ];
    (status, prop::collection::vec(prop::sample::select(fields), 0..4))
}

/// A field that a client may add. Not `Host`: it is the key.
fn added() -> impl Strategy<Value = (&'static str, String)> {
    let names = vec![
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "from",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "origin",
        "pragma",
        "proxy-authorization",
        "range",
        "referer",
        "te",
        "upgrade",
        "user-agent",
        "x-api-key",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-http-method-override",
        "x-original-url",
        "x-middleware-subrequest",
        "x-nextjs-data",
        "x-anything",
    ];
    let values = vec![
        "",
        "0",
        "1",
        "*",
        "\"1\"",
        "a=1",
        "public",
        "max-age=60",
        "no-cache",
        "no-store",
        "only-if-cached",
        "max-stale=99",
        "gzip",
        "gzip, br;q=0",
        "identity;q=0",
        "Bearer x",
        "bytes=0-0",
        "https",
        "theme=dark; _ga=1",
        "Thu, 01 Jan 2026 00:00:00 GMT",
    ];
    (prop::sample::select(names), prop::sample::select(values).prop_map(str::to_owned))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    // I4, for the layer with all its declarations and for the letter of the RFC.
    #[test]
    fn p17_nothing_in_a_request_makes_the_unstorable_storable(
        (status, fields) in heads(),
        more in prop::collection::vec(added(), 1..4),
        ttl in any::<bool>(),
        declared in any::<bool>(),
        proxy in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = || {
                let fields = fields.clone();
                let origin = Origin::says(move |_, _| answer(status, &fields, "x"));
                Site::with(origin, |mut layer| {
                    if ttl {
                        layer = layer.ttl(Duration::from_secs(60));
                    }
                    if declared {
                        layer = layer.cookie("theme").ignore_cookies(["_ga*"]);
                    }
                    if proxy { layer.policy(Policy::rfc9111()) } else { layer }
                })
            };
            let plain = site();
            plain.get("/").await;
            let dressed = site();
            let more: Vec<_> = more.iter().map(|(name, value)| (*name, &**value)).collect();
            dressed.send(request("GET", "/", &more)).await;
            prop_assert!(
                plain.larder.entries() > 0 || dressed.larder.entries() == 0,
                "{:?} was stored because of {:?}", fields, more
            );
            Ok(())
        })?;
    }
}
