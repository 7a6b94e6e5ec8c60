//! Which parts of a query matter: what the route says, and what responses say by `No-Vary-Search`.

use larder_http::rules::Policy;
use larder_tests::{Larder, Origin, Site, answer, request};
use proptest::prelude::*;

fn told(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::says(move |call, request| {
        let query = request.uri().query().unwrap_or("none");
        answer(200, fields, format!("{call}: {query}"))
    })
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test]
async fn what_a_route_ignores_reaches_neither_the_key_nor_the_handler() {
    let site = Site::with(told(FRESH), |layer| layer.ignore_query(["utm_*", "fbclid"]));
    for target in ["/p?a=1", "/p?utm_source=x&a=1", "/p?a=1&fbclid=1&utm_a=2", "/p?%75tm_x=1&a=1"] {
        assert_eq!(site.get(target).await.text(), "1: a=1", "{target}");
    }
    for target in ["/p", "/p?utm_source=y", "/p?"] {
        assert_eq!(site.get(target).await.text(), "2: none", "{target}");
    }
    // A poisoner's parameter reaches nobody, by no method.
    let got = site.send(request("PUT", "/p?utm_source=%3Cscript%3E", &[])).await;
    assert!(got.text().ends_with(": none"), "{}", got.text());
}

#[tokio::test]
async fn only_what_a_route_names_is_left() {
    let site = Site::with(told(FRESH), |layer| layer.only_query(["page", "sort"]).sort_query());
    assert_eq!(site.get("/p?sort=x&page=2&debug=1").await.text(), "1: page=2&sort=x");
    assert_eq!(site.get("/p?page=2&cache=no&sort=x").await.text(), "1: page=2&sort=x");
    assert_eq!(site.get("/p?debug=1").await.text(), "2: none");
    assert_eq!(site.get("/p").await.text(), "2: none");
}

#[tokio::test]
async fn unsafe_methods_drop_what_lies_under_the_rewritten_query() {
    let site = Site::with(told(FRESH), |layer| layer.ignore_query(["utm_*"]).sort_query());
    for change in ["/p?b=2&a=1", "/p?utm_x=1&a=1&b=2"] {
        site.get("/p?a=1&b=2").await;
        assert!(site.get("/p?b=2&a=1&utm_y=1").await.hit());
        site.send(request("POST", change, &[])).await;
        assert!(!site.get("/p?a=1&b=2").await.hit(), "{change}");
    }
    // And what an answer names.
    let origin = Origin::says(|call, request| match request.method().as_str() {
        "POST" => answer(201, &[("location", "/p?b=2&utm_z=9&a=1")], ""),
        _ => answer(200, FRESH, call.to_string()),
    });
    let site = Site::with(origin, |layer| layer.ignore_query(["utm_*"]).sort_query());
    site.get("/p?a=1&b=2").await;
    assert!(site.get("/p?a=1&b=2").await.hit());
    site.send(request("POST", "/other", &[])).await;
    assert!(!site.get("/p?a=1&b=2").await.hit());
}

#[tokio::test]
async fn in_a_nested_router_the_original_target_is_rewritten_too() {
    use axum::Router;
    use axum::extract::{OriginalUri, RawQuery};
    use axum::routing::get;
    use larder_http::CacheLayer;
    use tower::ServiceExt;

    let larder = Larder::new();
    let layer = CacheLayer::new(&larder.cache).ttl(std::time::Duration::from_secs(60));
    let seen = get(|original: OriginalUri, RawQuery(query): RawQuery| async move {
        format!("{} {query:?}", original.0)
    });
    let inner = Router::new().route("/p", seen).layer(layer.ignore_query(["utm_*"]));
    let app = Router::new().nest("/api", inner);
    for target in ["/api/p?utm_source=x&a=1", "/api/p?a=1&utm_source=y"] {
        let request = http::Request::get(target).header("host", "shop.test");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let body = app.clone().oneshot(request).await.unwrap().into_body();
        let body = axum::body::to_bytes(body, 1000).await.unwrap();
        assert_eq!(body, r#"/api/p?a=1 Some("a=1")"#);
    }
}

fn searching(policy: Policy) -> impl FnOnce(larder_http::CacheLayer) -> larder_http::CacheLayer {
    move |layer| {
        let mut policy = policy;
        policy.no_vary_search = true;
        layer.policy(policy)
    }
}

const SAYS: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("no-vary-search", r#"key-order, params=("utm" "ref")"#)];

#[tokio::test]
async fn one_response_answers_the_queries_that_it_says_are_one() {
    for policy in [Policy::application(), Policy::rfc9111()] {
        let site = Site::with(told(SAYS), searching(policy));
        // The first one teaches the rule.
        let first = site.get("/p?b=2&utm=1&a=1").await;
        assert!(first.because("query-learned"), "{first:?}");
        // From then on the handler still sees what the client asked.
        assert_eq!(site.get("/p?b=2&utm=2&a=1").await.text(), "2: b=2&utm=2&a=1");
        for target in ["/p?a=1&b=2", "/p?b=2&a=1&ref=x&utm=3", "/p?%61=1&b=2"] {
            assert_eq!(site.get(target).await.text(), "2: b=2&utm=2&a=1", "{target}");
        }
        for target in ["/p?a=1&b=3", "/p?a=1", "/p", "/q?a=1&b=2"] {
            assert!(!site.get(target).await.hit(), "{target}");
        }
        // One that is asked for as the rule would have it need not teach first.
        let site = Site::with(told(SAYS), searching(Policy::application()));
        site.get("/p").await;
        assert!(site.get("/p?utm=1").await.hit());
    }
}

#[tokio::test]
async fn without_the_policys_word_each_query_stands_for_itself() {
    let site = Site::new(told(SAYS));
    site.get("/p").await;
    assert!(!site.get("/p?utm=1").await.hit());
}

#[tokio::test]
async fn a_change_of_one_url_drops_what_answers_it() {
    let site = Site::with(told(SAYS), searching(Policy::application()));
    site.get("/p?utm=0&a=1").await;
    for change in ["/p?a=1", "/p?a=1&utm=7", "/p?ref=1&a=1"] {
        site.get("/p?a=1").await;
        assert!(site.get("/p?a=1&utm=5").await.hit());
        site.send(request("POST", change, &[])).await;
        assert!(!site.get("/p?a=1&utm=5").await.hit(), "{change}");
    }
    // A node that has learned nothing drops it too.
    let larder = Larder::new();
    let knows = Site::over(larder.clone(), told(SAYS), searching(Policy::application()));
    let new = Site::over(larder, told(SAYS), searching(Policy::application()));
    knows.get("/p?utm=0&a=1").await;
    knows.get("/p?utm=0&a=1").await;
    assert!(knows.get("/p?utm=1&a=1").await.hit());
    new.send(request("POST", "/p?utm=1&a=1", &[])).await;
    assert!(!knows.get("/p?utm=1&a=1").await.hit());
}

/// A handler whose answers depend on `q` alone, if its response says so, and else on the whole query.
fn moody() -> Origin {
    Origin::says(|_, request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let of = |name: &str| {
            let mut parts = query.split('&').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        match request.headers().get("x-mood").map(|mood| mood.as_bytes()) {
            Some(b"q") => {
                let fields = [
                    ("cache-control", "max-age=60"),
                    ("no-vary-search", r#"params, except=("q")"#),
                ];
                answer(200, &fields, format!("q={:?}", of("q")))
            }
            Some(b"qr") => {
                let fields = [
                    ("cache-control", "max-age=60"),
                    ("no-vary-search", r#"params, except=("q" "r"), key-order"#),
                ];
                answer(200, &fields, format!("q={:?} r={:?}", of("q"), of("r")))
            }
            _ => answer(200, FRESH, format!("all of {query}")),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // Whatever a path's responses say, and however they change it, no query gets what was made for one that it differs
    // from in something that matters to that response.
    #[test]
    fn whatever_responses_say_nobody_gets_what_another_query_made(
        steps in prop::collection::vec((0..3_usize, 0..3_u8, 0..3_u8, 0..3_u8, any::<bool>()), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = Site::with(moody(), searching(Policy::application()));
            for (mood, q, r, s, swapped) in steps {
                let mut parts = [format!("q={q}"), format!("r={r}"), format!("s={s}")];
                if swapped {
                    parts.swap(0, 1);
                }
                let query = parts.join("&");
                let mood = ["", "q", "qr"][mood];
                let got = site.get_with(&format!("/p?{query}"), &[("x-mood", mood)]).await.text();
                let right = [
                    format!("q=Some(\"{q}\")"),
                    format!("q=Some(\"{q}\") r=Some(\"{r}\")"),
                    format!("all of {query}"),
                ];
                prop_assert!(right.contains(&got), "{query} got {got}");
            }
            Ok(())
        })?;
    }
}
