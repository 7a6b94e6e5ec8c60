//! What a developer sees, and nobody else.

use std::sync::Arc;

use larder_http::rules::{Policy, Reason};
use larder_tests::{Origin, Site, answer, request};
use tokio::sync::Notify;

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "accept")];
const ASK: (&str, &str) = ("larder-explain", "s3cret");

fn site(fields: &'static [(&'static str, &'static str)]) -> Site {
    let origin = Origin::says(move |call, request| {
        assert!(!request.headers().contains_key("larder-explain"), "the handler sees the secret");
        answer(200, fields, call.to_string())
    });
    Site::with(origin, |layer| layer.explain("s3cret"))
}

async fn verdict(site: &Site, method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let fields = [fields, &[ASK]].concat();
    let got = site.send(request(method, target, &fields)).await;
    got.field("larder-verdict").unwrap_or_else(|| panic!("{method} {target}: {got:?}"))
}

#[tokio::test]
async fn each_way_that_a_request_can_go_says_why_and_by_which_section() {
    let site = site(FRESH);
    let expect = async |method: &str, fields: &[(&str, &str)], words: &[&str]| {
        let told = verdict(&site, method, "/p", fields).await;
        for words in words {
            assert!(told.contains(words), "{method} {fields:?}: {told}");
        }
    };
    expect("GET", &[], &["forward=uri-miss", "handler=200", "; stored", "rule=miss"]).await;
    site.later(12);
    expect(
        "GET",
        &[],
        &[
            "hit; tier=near; store=memory",
            "lifetime=60; source=max-age; age=12; ttl=48",
            "rule=fresh; section=\"RFC 9111 4.2\"",
        ],
    )
    .await;
    expect("HEAD", &[], &["hit"]).await;
    expect("GET", &[("accept", "x")], &["forward=vary-miss", "section=\"RFC 9111 4.1\""]).await;
    expect("GET", &[("cookie", "a=1")], &["rule=cookie-not-shared", "not stored"]).await;
    expect("GET", &[("if-match", "\"1\"")], &["forward=bypass", "rule=precondition"]).await;
    expect("POST", &[], &["forward=method", "rule=unsafe-method", "RFC 9111 4.4"]).await;
    site.later(0);
    expect("GET", &[], &["forward=uri-miss"]).await;
    site.later(61);
    expect("GET", &[], &["forward=uri-miss"]).await;

    let swr: &[(&str, &str)] = &[("cache-control", "max-age=60, stale-while-revalidate=60")];
    let site = self::site(swr);
    verdict(&site, "GET", "/p", &[]).await;
    site.later(70);
    let told = verdict(&site, "GET", "/p", &[]).await;
    assert!(
        told.contains("ttl=-10; rule=stale-while-revalidate; section=\"RFC 5861 3\""),
        "{told}"
    );
}

#[tokio::test]
async fn who_was_waited_for_is_told_by_how_many() {
    let gate = Arc::new(Notify::new());
    let origin = Origin::gated(&gate, |_| true, |call| answer(200, FRESH, call.to_string()));
    let site = Arc::new(Site::with(origin, |layer| layer.explain("s3cret")));
    let own = site.clone();
    let leader = tokio::spawn(async move { verdict(&own, "GET", "/", &[]).await });
    let others = site.asked_by(3).await;
    gate.notify_one();
    let told = leader.await.unwrap();
    assert!(told.contains("; stored; waiting=3; rule=miss"), "{told}");
    for other in others {
        assert_eq!(other.await.unwrap(), "1");
    }
}

#[tokio::test]
async fn the_key_is_shown_part_by_part() {
    let origin = Origin::says(|call, _| answer(200, FRESH, call.to_string()));
    let site = Site::with(origin, |layer| {
        let tenant = |head: larder_http::RequestHead<'_>| {
            head.headers().get("x-tenant").map(|tenant| tenant.to_str().unwrap().to_owned())
        };
        layer.explain("s3cret").partition_by(tenant).sort_query()
    });
    let key = async |target: &str, fields: &[(&str, &str)]| {
        let fields = [fields, &[ASK]].concat();
        site.get_with(target, &fields).await.field("larder-key").unwrap()
    };
    let told = key("/p?b=2&a=1", &[("x-tenant", "blue")]).await;
    assert!(told.contains("site.example"), "{told}");
    assert!(told.contains(r#"path="/p"; query="a=1&b=2""#), "{told}");
    assert!(told.contains(r#"partition="blue""#), "{told}");
    let told = key("/p", &[("x-forwarded-host", "shop.test")]).await;
    assert!(told.contains("shop.test") && !told.contains("query"), "{told}");
    let told = key("/p", &[("x-original-url", "/admin")]).await;
    assert!(!told.contains("admin"), "{told}");
}

#[tokio::test]
async fn nobody_else_sees_anything() {
    for fields in [&[][..], &[("larder-explain", "wrong")], &[("larder-explain", "")]] {
        let site = site(FRESH);
        for _ in 0..2 {
            let got = site.get_with("/p", fields).await;
            for name in ["larder-verdict", "larder-key"] {
                assert_eq!(got.field(name), None, "{fields:?}");
            }
        }
        // A verdict that was asked for is not stored for the others.
        site.get_with("/q", &[ASK]).await;
        let got = site.get("/q").await;
        assert!(
            got.hit() && got.field("larder-verdict").is_none() && got.field("larder-key").is_none()
        );
    }
    // Where it is off, the field is as any other.
    let origin = Origin::says(|_, request| {
        assert!(request.headers().contains_key("larder-explain"));
        answer(200, FRESH, "")
    });
    let got =
        Site::with(origin, |layer| layer.policy(Policy::rfc9111())).get_with("/p", &[ASK]).await;
    assert_eq!(got.field("larder-verdict"), None);
}

#[tokio::test]
async fn those_who_share_a_fill_are_told_so() {
    let gate = Arc::new(Notify::new());
    let origin = Origin::gated(&gate, |_| true, |call| answer(200, FRESH, call.to_string()));
    let site = Arc::new(Site::with(origin, |layer| layer.explain("s3cret")));
    let ask = || {
        let site = site.clone();
        tokio::spawn(async move { site.get_with("/p", &[ASK]).await })
    };
    let (first, second) = (ask(), ask());
    larder_tests::until("the fill", || site.calls() == 1).await;
    tokio::task::yield_now().await;
    gate.notify_one();
    let mut told = Vec::new();
    for got in [first.await.unwrap(), second.await.unwrap()] {
        told.push(got.field("larder-verdict").unwrap());
    }
    told.sort();
    assert!(told[0].starts_with("forward=uri-miss; handler=200; stored"), "{told:?}");
    assert!(told[1].starts_with("hit") || told[1].starts_with("shared; tier=fill"), "{told:?}");
}

#[test]
#[should_panic(expected = "the secret is empty")]
fn an_empty_secret_is_refused() {
    let _ = larder_http::CacheLayer::new(&larder_cache::Cache::memory()).explain("");
}

#[tokio::test]
async fn what_is_asked_for_once_takes_no_room() {
    let origin = Origin::says(|call, _| answer(200, FRESH, call.to_string()));
    let site = Site::with(origin, |layer| layer.admit_after(3));
    for n in 0..50 {
        let got = site.get(&format!("/once/{n}")).await;
        assert!(got.because("not-admitted") && !got.told().contains("stored"), "{got:?}");
    }
    assert_eq!(site.larder.entries(), 0);
    for expected in ["51", "52", "53", "53", "53"] {
        assert_eq!(site.get("/often").await.text(), expected);
    }
    // It was admitted: another variant, and what has ended, are stored at once.
    site.get_with("/often", &[("accept", "x")]).await;
    assert!(site.get_with("/often", &[("accept", "x")]).await.hit());
}

#[tokio::test]
async fn those_who_wait_for_what_is_not_admitted_share_it() {
    let gate = Arc::new(Notify::new());
    let origin = Origin::gated(&gate, |_| true, |call| answer(200, FRESH, call.to_string()));
    let site = Arc::new(Site::with(origin, |layer| layer.admit_after(2)));
    let crowd = site.asked_by(20).await;
    gate.notify_one();
    for client in crowd {
        assert_eq!(client.await.unwrap(), "1");
    }
    assert_eq!((site.calls(), site.larder.entries()), (1, 0));
}

/// What is cached, and why: every reason stands in the page for it, in words and with its section.
#[test]
fn the_page_has_every_reason() {
    let page = include_str!("../../crates/larder-http/WHAT_IS_CACHED.md");
    let (_, table) = page.split_once("## Every reason").expect("the page has its last part");
    let told: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |reason: &Reason| {
        format!("| `{}` | {} | {reason} |", reason.as_str(), reason.section().unwrap_or_default())
    };
    let rows: Vec<String> = Reason::ALL.iter().map(row).collect();
    let missing: Vec<_> = rows.iter().filter(|row| !told.contains(&row.as_str())).collect();
    assert!(missing.is_empty(), "rows that the page lacks: {missing:#?}");
    assert_eq!(told.len(), rows.len(), "rows of what is no reason any more");
    let readme = include_str!("../../README.md");
    assert!(readme.contains("(crates/larder-http/WHAT_IS_CACHED.md)"), "nobody finds the page");
}
