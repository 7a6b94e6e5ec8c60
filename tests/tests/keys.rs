//! What tells two requests apart: authority, path, query, method, content.

use larder_tests::server::Server;
use larder_tests::{Got, Origin, Site, answer, append, full, get, request};
use proptest::prelude::*;

/// Every form that makes a response storable without anything else being said.
const STORABLE: [&[(&str, &str)]; 6] = [
    &[("cache-control", "max-age=60")],
    &[("cache-control", "s-maxage=60")],
    &[("cache-control", "public, max-age=60")],
    &[("cache-control", "public, s-maxage=60, max-age=0, must-revalidate")],
    &[("cache-control", "public, immutable, max-age=60, stale-while-revalidate=60")],
    &[("date", "Thu, 01 Jan 2026 00:00:00 GMT"), ("expires", "Thu, 01 Jan 2026 00:10:00 GMT")],
];

fn site(form: usize) -> Site {
    Site::new(Origin::says(move |call, _| answer(200, STORABLE[form], call.to_string())))
}

#[tokio::test]
async fn p01_two_authorities_never_share_an_entry() {
    for form in 0..STORABLE.len() {
        let site = site(form);
        let server = Server::start(site.service()).await;
        let mut http1 = server.http1().await;
        let mut bodies = Vec::new();
        let mut note = |name: &str, got: Got| {
            assert!(!got.hit(), "{name}, form {form}: {got:?}");
            bodies.push(got.body);
        };
        // In origin form the authority is Host's.
        for host in ["a.example", "b.example", "a.example:8080", "a.example.", "xa.example"] {
            note(host, http1.get(host, "/p").await);
        }
        // An explicit port in absolute form.
        for authority in ["c.example", "c.example:81", "d.example"] {
            let text = format!("GET http://{authority}/p HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            http1.write(text).await;
            note(authority, http1.response().await);
        }
        let mut http2 = server.http2().await;
        for authority in ["e.example", "f.example", "e.example:81"] {
            note(authority, http2.send(get(&format!("http://{authority}/p"))).await);
        }
        // Another scheme is another origin.
        note("https", http2.send(get("https://e.example/p")).await);
        let mut distinct = bodies.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), bodies.len());
        assert_eq!(site.calls(), 12);

        // And the same authority in its other spellings is the same entry, whatever the protocol.
        for host in ["a.example", "A.Example", "a.example:80"] {
            assert_eq!(http1.get(host, "/p").await.text(), "1", "{host}");
        }
        http1.write("GET http://a.example/p HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(http1.response().await.text(), "1");
        assert_eq!(http2.send(get("http://a.example/p")).await.text(), "1");
        assert_eq!(http1.get("e.example", "/p").await.text(), "9");
        assert_eq!(site.calls(), 12);
    }
}

#[tokio::test]
async fn p01_a_request_without_an_authority_is_answered_and_not_stored() {
    let site = site(0);
    let server = Server::start(site.service()).await;
    for version in ["1.1", "1.0"] {
        for hosts in ["", "Host: \r\n", "Host: a\r\nHost: a\r\n", "Host: u@a\r\n", "Host: a/b\r\n"]
        {
            let mut http1 = server.http1().await;
            let ends = if version == "1.0" { "" } else { "Connection: close\r\n" };
            http1.write(format!("GET / HTTP/{version}\r\n{hosts}{ends}\r\n")).await;
            let got = http1.response().await;
            // hyper refuses some of these by itself.
            assert!(got.status == 400 || (got.status == 200 && !got.hit()), "{hosts:?}: {got:?}");
        }
    }
    assert_eq!(site.larder.entries(), 0);
    assert!(site.calls() > 0);
}

#[tokio::test]
async fn p02_a_target_that_disagrees_with_host_is_passed_by() {
    let site = site(2);
    let server = Server::start(site.service()).await;
    let mut http1 = server.http1().await;
    http1.write("GET http://a.example/p HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
    let poison = http1.response().await;
    assert!(poison.because("authority-mismatch"), "{poison:?}");
    assert_eq!(site.larder.entries(), 0);
    assert_eq!(http1.get("a.example", "/p").await.text(), "2");
    assert_eq!(http1.get("b.example", "/p").await.text(), "3");
    // Nor is it answered from what is stored under either name.
    http1.write("GET http://a.example/p HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
    assert_eq!(http1.response().await.text(), "4");

    let mut http2 = server.http2().await;
    let mut crooked = get("http://a.example/p");
    append(crooked.headers_mut(), &[("host", "b.example")]);
    let got = http2.send(crooked).await;
    assert!(!got.hit() && got.text() == "5", "{got:?}");
    assert_eq!(http1.get("a.example", "/p").await.text(), "2");
}

#[tokio::test]
async fn p03_queries_that_differ_in_one_byte_never_share_an_entry() {
    let site = Site::new(Origin::says(|_, request| {
        answer(200, STORABLE[2], request.uri().query().unwrap_or("none").to_owned())
    }));
    let alphabet: Vec<u8> = (b'!'..=b'~').filter(|byte| !b"#\"<>\\^`{|}".contains(byte)).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % below
    };
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        let length = 1 + next(24);
        let one: Vec<u8> = (0..length).map(|_| alphabet[next(alphabet.len())]).collect();
        let mut two = one.clone();
        match next(3) {
            0 => two.push(alphabet[next(alphabet.len())]),
            1 if length > 1 => drop(two.remove(next(length))),
            _ => {
                let at = next(length);
                while two[at] == one[at] {
                    two[at] = alphabet[next(alphabet.len())];
                }
            }
        }
        for query in [one, two] {
            let query = String::from_utf8(query).unwrap();
            let got = site.get(&format!("/p?{query}")).await;
            assert_eq!(got.text(), query);
            assert_eq!(got.hit(), !seen.insert(query));
        }
    }
    assert!(seen.len() > 1900, "the pairs are not random");
    assert_eq!(site.calls(), seen.len());
}

#[tokio::test]
async fn c62_queries_are_keyed_as_they_are() {
    let site = site(0);
    let targets = [
        "/p",
        "/p?",
        "/p?a=1&b=2",
        "/p?b=2&a=1",
        "/p?a=1;b=2",
        "/p?a=1&a=1",
        "/p?%61=1&b=2",
        "/p?a=1&b=2&",
    ];
    for target in targets {
        assert!(!site.get(target).await.hit(), "{target}");
    }
    for (at, target) in targets.iter().enumerate() {
        assert_eq!(site.get(target).await.text(), (at + 1).to_string());
    }
}

#[tokio::test]
async fn p18_methods_with_meaning_of_their_own_never_share_an_entry() {
    let site = Site::new(Origin::new(|call, request| async move {
        let method = request.method().clone();
        let got = Got::read(http::Response::new(request.into_body())).await?;
        Ok(answer(200, STORABLE[2], format!("{call} {method} {}", got.text())))
    }));
    let server = Server::start(site.service()).await;
    let mut http1 = server.http1().await;
    let mut http2 = server.http2().await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "QUERY", "OPTIONS", "REPORT", "BREW", "GET"] {
        for body in ["one", "two", "one"] {
            let text = format!(
                "{method} /m HTTP/1.1\r\nHost: site.example\r\nContent-Length: 3\r\n\r\n{body}"
            );
            http1.write(text).await;
            let got = http1.response().await;
            assert!(got.text().ends_with(&format!("{method} {body}")), "{got:?}");
            let chunked = format!(
                "{method} /m HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{body}\r\n0\r\n\r\n"
            );
            http1.write(chunked).await;
            let got = http1.response().await;
            assert!(got.text().ends_with(&format!("{method} {body}")), "{got:?}");
            // In HTTP/2 no field announces the content.
            let mut request = request(method, "/m", &[]).map(|_| full(body));
            request.headers_mut().remove("content-length");
            let got = http2.send(request).await;
            assert!(got.text().ends_with(&format!("{method} {body}")), "{got:?}");
        }
    }
    assert_eq!(site.larder.entries(), 0, "nothing of this may be stored");
    assert_eq!(site.calls(), 9 * 9);

    // HEAD makes no entry that a GET could use.
    let head = site.send(request("HEAD", "/h", &[])).await;
    assert!(!head.hit());
    assert_eq!(site.larder.entries(), 0);
    let got = site.get("/h").await;
    assert!(!got.hit() && got.text().contains("GET"), "{got:?}");
}

#[tokio::test]
async fn p26_a_get_with_content_and_a_pipelined_one_behind_it_are_two_requests() {
    let site = Site::new(Origin::says(|call, request| {
        answer(200, STORABLE[2], format!("{call} {}", request.uri().path()))
    }));
    let server = Server::start(site.service()).await;
    let mut http1 = server.http1().await;
    assert_eq!(http1.get("site.example", "/a").await.text(), "1 /a");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: site.example\r\n\r\n";
    let bodies = [
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        ),
    ];
    for (at, body) in bodies.iter().enumerate() {
        let mut http1 = server.http1().await;
        let first = format!("GET /a HTTP/1.1\r\nHost: site.example\r\n{body}");
        http1.write(format!("{first}GET /b{at} HTTP/1.1\r\nHost: site.example\r\n\r\n")).await;
        let got = http1.response().await;
        assert!(got.because("request-content") && got.text().ends_with(" /a"), "{got:?}");
        // Either the connection ends here, or what follows is the second request and nothing else.
        if let Some(got) = http1.try_response(false).await {
            assert!(got.text().ends_with(&format!(" /b{at}")), "{got:?}");
        }
    }
    assert!(!site.get("/smuggled").await.hit());
}

#[tokio::test]
async fn p20_paths_are_keyed_as_raw_bytes_and_no_rule_looks_at_them() {
    // A permissive router: everything under /account is the visitor's own page.
    let site = Site::new(Origin::says(|_, request| {
        let private = request.uri().path().starts_with("/account");
        answer(200, if private { &[] } else { STORABLE[0] }, request.uri().path().to_owned())
    }));
    let mut deceptions = Vec::new();
    for between in [
        "/", ";", "%3b", "%2f", "%00", "%0a", "%09", "%23", "%3f", ".", "/..%2f", "/%2e%2e/", "//",
        "/./", "!",
    ] {
        for suffix in ["nonexistent.css", "x.js", "static/x.png", "favicon.ico"] {
            deceptions.push(format!("/account{between}{suffix}"));
        }
    }
    assert_eq!(deceptions.len(), 60);
    for path in &deceptions {
        assert!(site.get(path).await.because("no-freshness"), "{path}");
    }
    assert_eq!(site.larder.entries(), 0);

    // What decodes or normalises to the same path is another path.
    let paths = [
        "/s/a",
        "/s/%61",
        "/s/./a",
        "/s//a",
        "/s/a/",
        "/S/a",
        "/s/b/../a",
        "/s/a%2f",
        "/s/a%2F",
        "/s/a;",
        "/s/a%00",
        "/s/%2e/a",
    ];
    for path in paths {
        let got = site.get(path).await;
        assert!(!got.hit() && got.text() == path, "{path}: {got:?}");
    }
    assert_eq!(site.larder.entries(), paths.len() as u64);
}

#[tokio::test]
async fn p04_and_p05_forwarded_names_are_key_parts_and_overrides_pass_by() {
    let site = Site::new(Origin::says(|_, request| {
        // Reflects whatever it is told of its own name.
        let mut told: Vec<_> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with('x') || name.as_str() == "forwarded")
            .map(|(_, value)| value.to_str().unwrap().to_owned())
            .collect();
        told.sort();
        answer(200, STORABLE[2], told.join(","))
    }));
    for name in larder_http_rules::overrides::override_names() {
        let got = site.get_with("/o", &[(name, "evil")]).await;
        assert!(got.because("override-header"), "{name}: {got:?}");
    }
    assert_eq!(site.larder.entries(), 0);
    for name in ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"]
    {
        assert_eq!(site.get_with("/o", &[(name, "evil")]).await.text(), "evil");
        assert_eq!(site.get_with("/o", &[(name, "good")]).await.text(), "good");
        let long = "l".repeat(257);
        assert!(site.get_with("/o", &[(name, &long)]).await.because("override-too-long"));
    }
    assert_eq!(site.get_with("/o", &[("forwarded", "host=evil")]).await.text(), "host=evil");
    assert_eq!(site.get("/o").await.text(), "");
    // Whoever the client is changes nothing.
    assert!(site.get_with("/o", &[("x-forwarded-for", "10.0.0.1")]).await.hit());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    // I2: an entry is shared only by equal targets.
    #[test]
    fn p03_two_targets_share_only_when_they_are_equal(
        one in "/[a-c]{0,2}(\\?[a-c=&;]{0,3})?", two in "/[a-c]{0,2}(\\?[a-c=&;]{0,3})?"
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = site(0);
            site.get(&one).await;
            let got = site.get(&two).await;
            prop_assert_eq!(got.hit(), one == two);
            Ok(())
        })?;
    }
}
