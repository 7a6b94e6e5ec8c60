//! Several responses of one URL: what selects them, and that nothing else is given.

use std::collections::HashSet;
use std::time::Duration;

use larder_http::rules::Policy;
use larder_http::{RequestHead, VaryLayer};
use larder_tests::{Got, Larder, Origin, Site, TestBody, answer, append, request, response};
use proptest::prelude::*;
use tower::{Layer, ServiceExt};

/// Answers with the request's values of the fields that it varies on.
fn varying(names: &[&str]) -> Origin {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Origin::says(move |_, request| {
        let seen: Vec<Vec<_>> =
            names.iter().map(|name| request.headers().get_all(name).iter().collect()).collect();
        let mut response = response("public, max-age=60", format!("{seen:?}"));
        append(response.headers_mut(), &[("vary", &names.join(", "))]);
        response
    })
}

#[tokio::test]
async fn p11_freshness_never_overrules_the_variant() {
    for cache_control in ["public", "public, max-age=60", "s-maxage=60", "max-age=60, immutable"] {
        let origin = Origin::says(move |_, request| {
            let language = request.headers().get("accept-language").cloned();
            let mut response = response(cache_control, format!("{language:?}"));
            append(response.headers_mut(), &[("vary", "Accept-Language")]);
            response
        });
        let site = Site::with(origin, |layer| layer.ttl(Duration::from_secs(60)));
        for _ in 0..2 {
            for language in ["en", "de", "de, en;q=0.5", ""] {
                let got = site.get_with("/", &[("accept-language", language)]).await;
                assert_eq!(got.text(), format!("Some({language:?})"), "{cache_control}");
            }
            assert_eq!(site.get("/").await.text(), "None", "{cache_control}");
        }
        assert_eq!(site.calls(), 5);
    }
}

#[tokio::test]
async fn c66_absent_empty_and_literal_values_are_variants_of_their_own() {
    let site = Site::new(varying(&["x-a", "x-b"]));
    let requests: [&[(&str, &str)]; 12] = [
        &[],
        &[("x-a", "")],
        &[("x-b", "")],
        &[("x-a", ""), ("x-b", "")],
        &[("x-a", "None")],
        &[("x-a", "\\0")],
        &[("x-a", "ab"), ("x-b", "c")],
        &[("x-a", "a"), ("x-b", "bc")],
        &[("x-a", "abc")],
        &[("x-b", "abc")],
        &[("x-a", "a b")],
        &[("x-a", "A B")],
    ];
    for round in 0..2 {
        let mut bodies = HashSet::new();
        for fields in requests {
            let got = site.get_with("/", fields).await;
            assert_eq!(got.hit(), round == 1, "{fields:?}");
            assert!(bodies.insert(got.body), "{fields:?}");
        }
    }
    assert_eq!(site.calls(), 12);
    // Lines are joined, and white space around commas does not count.
    site.get_with("/l", &[("x-a", "1, 2")]).await;
    assert!(site.get_with("/l", &[("x-a", "1"), ("x-a", "2")]).await.hit());
    assert!(site.get_with("/l", &[("x-a", "1 ,2")]).await.hit());
    assert!(!site.get_with("/l", &[("x-a", "2, 1")]).await.hit());
}

#[tokio::test]
async fn c93_earlier_variants_stay_when_vary_changes() {
    let site = Site::new(Origin::says(|call, request| {
        let vary = if request.headers().contains_key("x-b") { "X-B" } else { "X-A" };
        answer(200, &[("cache-control", "max-age=60"), ("vary", vary)], call.to_string())
    }));
    let requests: [&[(&str, &str)]; 4] = [
        &[("x-a", "1")],
        &[("x-a", "2")],
        &[("x-b", "1"), ("x-a", "3")],
        &[("x-b", "2"), ("x-a", "4")],
    ];
    for (at, fields) in requests.iter().enumerate() {
        assert_eq!(site.get_with("/", fields).await.text(), (at + 1).to_string());
    }
    for (at, fields) in requests.iter().enumerate() {
        let got = site.get_with("/", fields).await;
        assert!(got.hit() && got.text() == (at + 1).to_string(), "{fields:?}: {got:?}");
    }
}

#[tokio::test]
async fn p22_variants_have_a_ceiling_and_the_oldest_goes() {
    let site = Site::with(varying(&["x-a"]), |layer| layer.max_variants(4));
    for n in 0..200 {
        let long = "l".repeat(n * 40);
        site.get_with("/", &[("x-a", &format!("{n}{long}"))]).await;
        assert!(site.larder.entries() <= 4);
    }
    for n in 196..200 {
        let long = "l".repeat(n * 40);
        assert!(site.get_with("/", &[("x-a", &format!("{n}{long}"))]).await.hit(), "{n}");
    }
    assert!(!site.get_with("/", &[("x-a", "0")]).await.hit());
    // Other URLs keep theirs.
    let site = Site::new(varying(&["x-a"]));
    site.get("/other").await;
    for n in 0..500 {
        site.get_with("/", &[("x-a", &n.to_string())]).await;
    }
    assert!(site.get("/other").await.hit());
    assert_eq!(site.larder.entries(), 33);
}

#[tokio::test]
async fn variants_expire_each_at_their_own_time() {
    let site = Site::new(Origin::says(|call, request| {
        let age = request.headers()["x-a"].to_str().unwrap().to_owned();
        let fields = [("cache-control", &*format!("max-age={age}")), ("vary", "x-a")];
        answer(200, &fields, call.to_string())
    }));
    for lifetime in ["100", "10", "50"] {
        site.get_with("/", &[("x-a", lifetime)]).await;
        site.later(1);
    }
    // At 3 s: stored at 0, 1 and 2.
    site.later(7);
    let hits = async |lifetime| site.get_with("/", &[("x-a", lifetime)]).await;
    assert_eq!(hits("10").await.field("age").as_deref(), Some("9"));
    assert_eq!(hits("100").await.field("age").as_deref(), Some("10"));
    site.later(1);
    assert!(hits("50").await.hit() && hits("100").await.hit());
    assert_eq!(hits("10").await.text(), "4");
    site.later(41);
    assert!(hits("100").await.hit());
    assert_eq!(hits("50").await.text(), "5");
    assert_eq!(hits("100").await.field("age").as_deref(), Some("52"));
    site.later(48);
    assert_eq!(hits("100").await.text(), "6");
}

#[tokio::test]
async fn b08_an_encoded_response_is_given_only_to_those_who_take_it() {
    // A handler that encodes as it likes, and forgets to say that it varies.
    let site = Site::new(Origin::says(|_, request| {
        let accepts = request.headers().get("accept-encoding").and_then(|v| v.to_str().ok());
        let coding = ["br", "zstd", "gzip"].into_iter().find(|coding| {
            accepts.is_some_and(|accepts| {
                accepts.split(',').any(|one| one.trim() == *coding || one.trim() == "*")
            })
        });
        let mut response = response("public, max-age=60", coding.unwrap_or("identity"));
        if let Some(coding) = coding {
            append(response.headers_mut(), &[("content-encoding", coding)]);
        }
        response
    }));
    let clients = [
        "gzip",
        "br",
        "zstd",
        "gzip, br",
        "identity",
        "",
        "*",
        "gzip;q=0",
        "br;q=0, identity",
        "odd",
    ];
    // In each order, since the first to come decides what is stored first.
    for first in clients {
        let target = format!("/{}", first.replace([' ', ','], "-"));
        for client in std::iter::once(first).chain(clients).chain(clients) {
            let got = site.get_with(&target, &[("accept-encoding", client)]).await;
            if let Some(coding) = got.field("content-encoding") {
                assert_eq!(got.text(), coding);
                assert!(
                    client == "*" || client.split(", ").any(|one| one == coding),
                    "{coding} for a client of {client:?}, after {first:?}"
                );
            }
        }
        let none = site.get(&target).await;
        assert_eq!(none.field("content-encoding"), None, "after {first:?}");
    }
}

#[tokio::test]
async fn b08_a_coding_that_no_selector_tells_apart_is_not_stored() {
    for vary in ["accept-encoding", "x-other"] {
        for coding in ["dcb", "aes128gcm", "gzip, odd", "ODD"] {
            let site = Site::new(Origin::says(move |call, _| {
                let fields =
                    [("content-encoding", coding), ("cache-control", "max-age=60"), ("vary", vary)];
                answer(200, &fields, call.to_string())
            }));
            site.get_with("/", &[("accept-encoding", coding)]).await;
            let other = site.get_with("/", &[("accept-encoding", "other")]).await;
            assert!(!other.hit(), "{coding}, Vary: {vary}");
        }
    }
}

/// A site whose handler says nothing of what it varies on, with a `VaryLayer` on that side.
fn told(vary: VaryLayer, inside: bool) -> impl AsyncFn(&[(&str, &str)]) -> Got {
    let larder = Larder::new();
    let cache =
        larder_http::CacheLayer::new(&larder.cache).ttl(Duration::from_secs(60)).cache_status("t");
    let origin = Origin::says(|_, request| {
        let field = |name: &str| {
            request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        response("", format!("{:?} {:?}", field("cookie"), field("x-tenant")))
    });
    let service = if inside {
        tower::util::BoxCloneService::new(cache.layer(vary.layer(origin)))
    } else {
        tower::util::BoxCloneService::new(vary.layer(cache.layer(origin)))
    };
    async move |fields| {
        let _keep = &larder;
        Got::read(service.clone().oneshot(request("GET", "/", fields)).await.unwrap())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn vary_layer_is_obeyed_on_either_side_of_the_cache() {
    let tenant = |head: RequestHead<'_>| {
        head.headers().get("x-tenant").and_then(|tenant| tenant.to_str().ok()).map(str::to_owned)
    };
    for inside in [true, false] {
        let get = told(VaryLayer::new().by("tenant", tenant), inside);
        for round in 0..2 {
            for tenant in ["blue", "red", ""] {
                let got = get(&[("x-tenant", tenant)]).await;
                assert_eq!(got.text(), format!("None Some({tenant:?})"), "inside: {inside}");
                assert_eq!(got.hit(), round == 1, "inside: {inside}, {got:?}");
            }
            assert_eq!(get(&[]).await.text(), "None None");
        }

        let get = told(VaryLayer::headers(["x-tenant".parse().unwrap()]), inside);
        for round in 0..2 {
            for tenant in ["blue", "red"] {
                let got = get(&[("x-tenant", tenant)]).await;
                assert_eq!(got.text(), format!("None Some({tenant:?})"));
                assert_eq!(got.hit(), round == 1);
                assert_eq!(got.field("vary").as_deref(), Some("x-tenant"), "inside: {inside}");
            }
        }

        // One cookie, not all of them.
        let get = told(VaryLayer::new().cookie("theme"), inside);
        for round in 0..2 {
            for theme in ["theme=dark", "theme=light"] {
                let got = get(&[("cookie", theme)]).await;
                assert_eq!(got.text(), format!("Some({theme:?}) None"), "inside: {inside}");
                assert_eq!(got.hit(), round == 1, "inside: {inside}, {got:?}");
                assert!(got.field("vary").unwrap().eq_ignore_ascii_case("cookie"));
            }
            assert_eq!(get(&[]).await.text(), "None None");
            // Another cookie besides is a credential that nobody declared.
            let got = get(&[("cookie", "theme=dark; session=7")]).await;
            assert!(!got.hit() && got.text().contains("session=7"), "{got:?}");
            let twice = get(&[("cookie", "theme=dark; theme=light")]).await;
            assert!(!twice.hit() && twice.text().contains("dark; theme=light"), "{twice:?}");
        }
    }
}

#[tokio::test]
async fn computed_inputs_that_could_mix_variants_are_not_stored() {
    // Two inputs of one name.
    let origin = || Origin::counting("max-age=60");
    let larder = Larder::new();
    let by = |value: &'static str| VaryLayer::new().by("same", move |_| Some(value.to_owned()));
    let cache = larder_http::CacheLayer::new(&larder.cache).cache_status("t");
    let service = cache.layer(by("a").layer(by("b").layer(origin())));
    for reason in ["vary-conflict", "pass-mark"] {
        let got = Got::read(service.clone().oneshot(larder_tests::get("/")).await.unwrap())
            .await
            .unwrap();
        assert!(got.because(reason), "{got:?}");
    }
    assert_eq!(larder.entries(), 0);
    // One that sees something else where the layer stands than where the cache stands.
    let larder = Larder::new();
    let cache = larder_http::CacheLayer::new(&larder.cache).cache_status("t");
    let tenant =
        |head: RequestHead<'_>| head.extensions().get::<&str>().map(|name| (*name).to_owned());
    let inner = VaryLayer::new().by("tenant", tenant).layer(origin());
    let between = tower::util::MapRequest::new(inner, |mut request: http::Request<TestBody>| {
        request.extensions_mut().insert("found in between");
        request
    });
    let service = cache.layer(between);
    for reason in ["vary-misplaced", "pass-mark"] {
        let got = Got::read(service.clone().oneshot(larder_tests::get("/")).await.unwrap())
            .await
            .unwrap();
        assert!(got.because(reason), "{got:?}");
    }
    assert_eq!(larder.entries(), 0);
}

fn fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let one = (
        prop::sample::select(vec!["x-a", "x-b", "x-c", "accept-language"]),
        prop::sample::select(vec![
            "", "a", "b", "a,b", "b,a", "a b", "A", "0", "en;q=0.5", "\"a,b\"",
        ]),
    );
    prop::collection::vec(one, 0..4)
}

/// What RFC 9111 §4.1 lets a cache take for equal: the members of all lines; languages without letter case.
fn selecting(name: &str, fields: &[(&str, &str)]) -> Option<Vec<String>> {
    let lines: Vec<_> =
        fields.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value).collect();
    if lines.is_empty() {
        return None;
    }
    let mut members = Vec::new();
    for line in lines {
        let quoted = line.starts_with('"');
        members.extend(line.split(',').filter(|_| !quoted).map(str::to_owned));
        members.extend(quoted.then(|| line.to_owned()));
    }
    if name == "accept-language" {
        // A quoted string or a space is no language range: malformed ones are one class.
        if members.iter().any(|member| member.contains(['"', ' '])) {
            return Some(vec!["malformed".to_owned()]);
        }
        members.retain(|member| !member.is_empty());
        members.iter_mut().for_each(|member| member.make_ascii_lowercase());
    }
    Some(members)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    // The handler's Vary changes from response to response, too.
    #[test]
    fn p11_reuse_implies_equal_selecting_fields(
        requests in prop::collection::vec(fields(), 2..7),
        varies in prop::collection::vec(prop::sample::subsequence(vec!["x-a", "x-b", "accept-language"], 0..3), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let made = varies.clone();
            let site = Site::new(Origin::says(move |call, _| {
                let mut response = response("public, max-age=60", call.to_string());
                append(response.headers_mut(), &[("vary", &made[call - 1].join(", "))]);
                response
            }));
            let mut origins = Vec::new();
            for fields in &requests {
                let got = site.get_with("/", fields).await;
                if !got.hit() {
                    origins.push(fields);
                    continue;
                }
                let call: usize = got.text().parse().unwrap();
                for name in &varies[call - 1] {
                    prop_assert_eq!(selecting(name, fields), selecting(name, origins[call - 1]), "{}", name);
                }
            }
            Ok(())
        })?;
    }
}

// RFC 9111 §4.1 lets a cache negotiate by itself, where it knows how the origin would.
#[tokio::test]
async fn a_proxy_selects_the_one_language_that_a_request_prefers() {
    let site = |policy: Policy| {
        let origin = Origin::says(|call, _| {
            let fields = [
                ("cache-control", "max-age=60"),
                ("vary", "accept-language, x-a"),
                ("content-language", "de"),
            ];
            answer(200, &fields, call.to_string())
        });
        Site::with(origin, |layer| layer.policy(policy))
    };
    let proxy = site(Policy::rfc9111());
    proxy.get_with("/", &[("accept-language", "de, en;q=0.5")]).await;
    for preferred in ["de", "DE", "en;q=0.9, de", "de;q=0.3, fr;q=0.2"] {
        let got = proxy.get_with("/", &[("accept-language", preferred)]).await;
        assert!(got.hit(), "{preferred}");
    }
    for other in ["en, de;q=0.5", "de, en", "de-AT", "*", "de;q=0"] {
        let got = proxy.get_with("/", &[("accept-language", other)]).await;
        assert!(!got.hit(), "{other}");
    }
    assert!(!proxy.get_with("/", &[("accept-language", "de"), ("x-a", "1")]).await.hit());

    let application = site(Policy::application());
    application.get_with("/", &[("accept-language", "de, en;q=0.5")]).await;
    assert!(!application.get_with("/", &[("accept-language", "de")]).await.hit());
}
