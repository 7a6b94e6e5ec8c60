//! Who is asking: nobody gets what was made for somebody else.

use std::time::Duration;

use larder_http::RequestHead;
use larder_http::rules::Policy;
use larder_tests::{Origin, Site, append, request, response};

/// Answers with every credential that it sees.
fn personal(cache_control: &'static str, vary: &'static [&'static str]) -> Origin {
    Origin::says(move |_, request| {
        let seen: Vec<_> = ["authorization", "cookie", "x-api-key", "x-forwarded-user"]
            .into_iter()
            .filter_map(|name| request.headers().get(name))
            .collect();
        let mut response = response(cache_control, format!("{seen:?}"));
        for line in vary {
            append(response.headers_mut(), &[("vary", line)]);
        }
        response
    })
}

async fn own(site: &Site, fields: &[(&str, &str)]) {
    let got = site.get_with("/", fields).await;
    let values: Vec<_> = fields.iter().map(|(_, value)| value).collect();
    assert!(!got.hit(), "{fields:?}");
    assert_eq!(got.text(), format!("{values:?}"), "{fields:?}");
}

const PERSONS: [(&str, &str, &str); 4] = [
    ("authorization", "Bearer anna", "Bearer ben"),
    ("cookie", "session=anna", "session=ben"),
    ("x-api-key", "anna", "ben"),
    ("x-forwarded-user", "anna", "ben"),
];

#[tokio::test]
async fn p06_requests_with_cookies_neither_read_nor_fill() {
    for cache_control in ["max-age=60", "max-age=60, must-revalidate", "max-age=60, immutable", ""]
    {
        let site =
            Site::with(personal(cache_control, &[]), |layer| layer.ttl(Duration::from_secs(60)));
        for _ in 0..2 {
            for cookie in [
                "session=anna",
                "session=ben",
                "session=anna; theme=dark",
                "bare",
                "=x",
                "a=1;;b=2",
            ] {
                own(&site, &[("cookie", cookie)]).await;
            }
        }
        assert_eq!(site.larder.entries(), 0);
        // Nor do they read what was made for nobody in particular.
        assert_eq!(site.get("/").await.text(), "[]");
        assert!(site.get("/").await.hit());
        own(&site, &[("cookie", "session=anna")]).await;
        // An empty field is none.
        assert!(site.get_with("/", &[("cookie", "")]).await.hit());
        assert!(site.get_with("/", &[("cookie", " ; ")]).await.hit());
    }
}

#[tokio::test]
async fn p06_routes_may_say_which_cookies_do_not_matter() {
    let site =
        Site::with(personal("max-age=60", &[]), |layer| layer.ignore_cookies(["_ga*", "seen"]));
    // What is ignored is removed before the handler runs, whether the cache is used or not.
    let got = site.get_with("/", &[("cookie", "_ga=1; seen=2; _ga_x=3")]).await;
    assert_eq!(got.text(), "[]");
    assert!(site.get_with("/", &[("cookie", "_ga=9")]).await.hit());
    assert!(site.get("/").await.hit());
    let own = site.get_with("/", &[("cookie", "_ga=1; session=anna; seen=2")]).await;
    assert!(!own.hit());
    assert_eq!(own.text(), "[\"session=anna\"]");
    let post = site.send(request("POST", "/post", &[("cookie", "seen=2; session=anna")])).await;
    assert_eq!(post.text(), "[\"session=anna\"]");

    let site = Site::with(personal("max-age=60", &[]), |layer| layer.shared_despite_cookies());
    site.get_with("/", &[("cookie", "a=1")]).await;
    assert!(site.get_with("/", &[("cookie", "a=2")]).await.hit());
    own_header(&site).await;

    let site = Site::with(personal("max-age=60", &["Cookie"]), |layer| layer.cookie("theme"));
    for round in 0..2 {
        for cookie in ["theme=dark", "theme=light", "theme="] {
            let got = site.get_with("/", &[("cookie", cookie)]).await;
            assert_eq!(got.text(), format!("[{cookie:?}]"));
            assert_eq!(got.hit(), round == 1);
        }
        assert_eq!(site.get("/").await.text(), "[]");
        let got = site.get_with("/", &[("cookie", "theme=dark; session=anna")]).await;
        assert!(!got.hit());
        let got = site.get_with("/", &[("cookie", "theme=dark; theme=light")]).await;
        assert!(!got.hit() && got.text().contains("light"), "{got:?}");
    }
}

async fn own_header(site: &Site) {
    own(site, &[("authorization", "Bearer anna")]).await;
    own(site, &[("x-api-key", "anna")]).await;
}

#[tokio::test]
async fn p07_authorized_responses_are_shared_only_when_they_say_so() {
    // Directives; shared in the application profile; shared by the letter of RFC 9111 §3.5.
    let table = [
        ("max-age=60", false, false),
        ("public, max-age=60", true, true),
        ("s-maxage=60", true, true),
        ("must-revalidate, max-age=60", false, true),
        ("proxy-revalidate, max-age=60", false, false),
        ("private, max-age=60", false, false),
        ("no-store, public, max-age=60", false, false),
        ("immutable, max-age=60", false, false),
        ("public, must-revalidate, s-maxage=60", true, true),
    ];
    for (cache_control, application, rfc) in table {
        for (policy, shared) in [(Policy::application(), application), (Policy::rfc9111(), rfc)] {
            let site = Site::with(personal(cache_control, &[]), |layer| layer.policy(policy));
            let anna = site.get_with("/", &[("authorization", "Bearer anna")]).await;
            assert!(anna.text().contains("anna"));
            let ben = site.get_with("/", &[("authorization", "Bearer ben")]).await;
            assert_eq!(ben.hit(), shared, "{cache_control}");
            assert_eq!(ben.text().contains("ben"), !shared, "{cache_control}");
            assert_eq!(site.get("/").await.hit(), shared, "{cache_control}");
        }
    }
    // An empty value is none (check 69).
    let site = Site::new(personal("max-age=60", &[]));
    site.get("/").await;
    assert!(site.get_with("/", &[("authorization", "")]).await.hit());
    assert!(!site.get_with("/", &[("authorization", "x")]).await.hit());
}

#[tokio::test]
async fn p07_every_credential_keeps_its_bearer_apart() {
    let names = larder_http_rules::credentials::credential_names();
    for name in ["authorization", "cookie"].iter().chain(names) {
        let seen = *name;
        let site = Site::new(Origin::says(move |_, request| {
            response("max-age=60", format!("{:?}", request.headers().get(seen)))
        }));
        for person in ["anna=1", "ben=2", "anna=1"] {
            let got = site.get_with("/", &[(name, person)]).await;
            assert!(!got.hit() && got.text().contains(person), "{name}: {got:?}");
        }
        assert_eq!(site.larder.entries(), 0, "{name}");
    }
    let mut policy = Policy::application();
    policy.extra_credentials.push("x-tenant-key".parse().unwrap());
    let site = Site::with(Origin::counting("max-age=60"), |layer| layer.policy(policy));
    for _ in 0..2 {
        assert!(!site.get_with("/", &[("x-tenant-key", "1")]).await.hit());
    }
}

#[tokio::test]
async fn p09_a_vary_that_names_a_credential_is_not_stored() {
    let spellings: [&[&str]; 10] = [
        &["Cookie"],
        &["Authorization"],
        &["cOOKIE"],
        &["AUTHORIZATION"],
        &["Accept, Cookie"],
        &["Accept", "Cookie"],
        &["Accept", "Authorization"],
        &["Authorization,Cookie"],
        &["X-Api-Key"],
        &["accept , , authorization"],
    ];
    for vary in spellings {
        for cache_control in ["public, max-age=60", "s-maxage=60", "max-age=60"] {
            let site = Site::with(personal(cache_control, vary), |layer| {
                layer.ttl(Duration::from_secs(60)).shared_despite_cookies()
            });
            for (name, anna, ben) in PERSONS {
                for person in [anna, ben, anna] {
                    own(&site, &[(name, person)]).await;
                }
            }
            assert!(!site.get("/").await.hit());
            assert!(!site.get("/").await.hit());
            assert_eq!(site.larder.entries(), 0, "{vary:?} {cache_control}");
        }
    }
}

#[tokio::test]
async fn p14_identities_of_partitions_keep_apart() {
    let identity = |head: RequestHead<'_>| {
        let authorization = head.headers().get("authorization")?;
        Some(authorization.to_str().unwrap_or_default().to_owned())
    };
    let site = Site::with(personal("max-age=60", &["Authorization"]), |layer| {
        layer.partition_by(identity)
    });
    for round in 0..2 {
        for person in ["anna", "ben", "None", "partition"] {
            let got = site.get_with("/", &[("authorization", person)]).await;
            assert_eq!(got.text(), format!("[{person:?}]"));
            assert_eq!(got.hit(), round == 1);
        }
        let got = site.get("/").await;
        assert_eq!(got.text(), "[]");
        assert_eq!(got.hit(), round == 1);
    }
    // An identity is a key part like no path or query.
    let paths = Site::with(Origin::counting("max-age=60"), |layer| {
        layer.partition_by(|head| {
            head.headers().get("x-id").map(|id| id.to_str().unwrap().to_owned())
        })
    });
    for (target, id) in [("/a", "b"), ("/ab", ""), ("/a?b", ""), ("/", "ab"), ("/a", "")] {
        assert!(!paths.get_with(target, &[("x-id", id)]).await.hit(), "{target} {id}");
    }
}
