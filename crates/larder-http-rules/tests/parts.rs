//! The small parts: each with the cases that bit others.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use larder_http_rules::authority::{Authority, Scheme};
use larder_http_rules::cache_status::{CacheStatus, Forward};
use larder_http_rules::cookies::{self, CookieValue};
use larder_http_rules::invalidate::{self, Base};
use larder_http_rules::reuse::{self, Failure};
use larder_http_rules::vary::Selected;
use larder_http_rules::{
    CredentialState, Handling, Policy, Reason, RequestFacts, RequestView, RouteRule, Terms, Times,
    conditional, credentials, headers as fields, overrides, request, storable, vary,
};

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn handling(policy: &Policy, method: &str, lines: &[(&str, &str)]) -> Handling {
    let headers = headers(lines);
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    request::handling(policy, &method, RequestFacts::scan(policy, &headers), &headers)
}

/// P05: at least sixty names, each of which bypasses, in a scan of its own.
#[test]
fn every_override_header_bypasses() {
    let policy = Policy::application();
    let names = overrides::override_names();
    assert!(names.len() >= 60, "{}", names.len());
    for name in names.iter().copied().chain(["x-middleware-subrequest", "X-Middleware-Rewrite"]) {
        let found = handling(&policy, "GET", &[("accept", "*/*"), (name, "evil")]);
        assert_eq!(found, Handling::Bypass(Reason::OverrideHeader), "{name}");
    }
}

#[test]
fn a_trusted_override_is_a_key_part() {
    let mut policy = Policy::application();
    policy.trusted_overrides.push(HeaderName::from_static("x-original-host"));
    let lookup = Handling::Lookup { only_if_cached: false };
    assert_eq!(handling(&policy, "GET", &[("x-original-host", "a")]), lookup);
    let part = |value: &str| {
        let mut out = Vec::new();
        let asked = headers(&[("x-original-host", value)]);
        overrides::write_key_part(&policy, &asked, &mut |p| out.extend_from_slice(p)).unwrap();
        out
    };
    assert_ne!(part("a"), part("b"));
}

#[test]
fn forwarding_headers_are_key_parts_up_to_256_bytes() {
    let policy = Policy::application();
    let part = |lines: &[(&str, &str)]| {
        let mut out = Vec::new();
        overrides::write_key_part(&policy, &headers(lines), &mut |p| out.extend_from_slice(p))
            .map(|()| out)
    };
    for name in ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"]
    {
        let (fits, too_long) = ("a".repeat(256), "a".repeat(257));
        assert!(part(&[(name, &fits)]).is_ok());
        assert_eq!(part(&[(name, &too_long)]), Err(Reason::OverrideTooLong));
        let bypass = Handling::Bypass(Reason::OverrideTooLong);
        assert_eq!(handling(&policy, "GET", &[(name, &too_long)]), bypass);
        assert_ne!(part(&[(name, "a")]), part(&[(name, "b")]));
        assert_ne!(part(&[(name, "a,b")]), part(&[(name, "a"), (name, "b")]));
        assert_ne!(part(&[(name, "")]), part(&[]));
    }
    assert_eq!(part(&[]), Ok(Vec::new()));
    assert_eq!(part(&[("x-forwarded-for", "1")]), Ok(Vec::new()));
    // of Forwarded, for and by do not count, host and proto do, with their place
    let forwarded = |value: &str| part(&[("forwarded", value)]).unwrap();
    assert_eq!(forwarded("for=1;host=a"), forwarded("FOR=2 ; Host=a;by=x"));
    assert_ne!(forwarded("host=a"), forwarded("host=b"));
    assert_ne!(forwarded("host=a"), forwarded("proto=a"));
    assert_ne!(forwarded("host=a, for=1"), forwarded("for=1, host=a"));
    assert_eq!(forwarded("for=\"a,host=x\";host=a"), forwarded("host=a"));
}

#[test]
fn only_if_cached_is_obeyed_in_both_profiles() {
    for policy in [Policy::application(), Policy::rfc9111()] {
        let found = handling(&policy, "GET", &[("cache-control", "foo, ONLY-IF-CACHED")]);
        assert_eq!(found, Handling::Lookup { only_if_cached: true });
    }
    assert_eq!(handling(&Policy::application(), "PATCH", &[]), Handling::Unsafe);
}

#[test]
fn credentials_are_extendable() {
    let mut policy = Policy::application();
    policy.extra_credentials.push(HeaderName::from_static("x-tenant-key"));
    let rule = Default::default();
    let asked = headers(&[("x-tenant-key", "1")]);
    let facts = RequestFacts::scan(&policy, &asked);
    let expected = CredentialState::Undeclared(Reason::CredentialNotShared);
    assert_eq!(credentials::assess(&policy, &rule, facts, &asked), expected);
    for name in credentials::credential_names() {
        let asked = headers(&[(name, "1")]);
        let facts = RequestFacts::scan(&policy, &asked);
        assert_eq!(credentials::assess(&policy, &rule, facts, &asked), expected, "{name}");
        let empty = headers(&[(name, " ")]);
        assert_eq!(credentials::assess(&policy, &rule, facts, &empty), CredentialState::Absent);
    }
}

#[test]
fn a_private_cache_stores_what_is_private() {
    let mut policy = Policy::rfc9111();
    policy.shared = false;
    let asked = headers(&[("authorization", "x"), ("cookie", "a=b")]);
    let facts = RequestFacts::scan(&policy, &asked);
    let view = RequestView {
        method: &Method::GET,
        uri: &Uri::from_static("/"),
        headers: &asked,
        facts,
        credentials: credentials::assess(&policy, &Default::default(), facts, &asked),
    };
    let response = headers(&[("cache-control", "private, max-age=9, s-maxage=1")]);
    let times = Times::at(UNIX_EPOCH);
    let stored = storable(&policy, &RouteRule::default(), &view, StatusCode::OK, &response, times);
    assert_eq!(stored.unwrap().terms.lifetime, Duration::from_secs(9));
}

#[test]
fn cookies_are_read_and_removed() {
    let mut asked = headers(&[("cookie", "a=1;  b = 2 ;c; =d;a=3"), ("cookie", "_ga=4")]);
    let all: Vec<_> = cookies::cookies(&asked).collect();
    let expected: [(&[u8], &[u8]); 6] =
        [(b"a", b"1"), (b"b", b"2"), (b"c", b""), (b"", b"d"), (b"a", b"3"), (b"_ga", b"4")];
    assert_eq!(all, expected);
    assert_eq!(cookies::value(&asked, "a"), CookieValue::Several);
    assert_eq!(cookies::value(&asked, "b"), CookieValue::One(b"2"));
    assert_eq!(cookies::value(&asked, "A"), CookieValue::Absent);
    assert!(!cookies::remove(&mut asked, &["x*".into()]));
    assert!(cookies::remove(&mut asked, &["_g*".into(), "a".into()]));
    assert_eq!(asked[header::COOKIE], "b = 2; c; =d");
    assert_eq!(asked.get_all(header::COOKIE).iter().count(), 1);
    assert!(cookies::remove(&mut asked, &["*".into()]));
    assert!(!asked.contains_key(header::COOKIE));
}

#[test]
fn hop_by_hop_fields_go() {
    let mut response = headers(&[
        ("connection", "x-one, close"),
        ("connection", "X-Two, , bad name"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("keep-alive", "3"),
        ("proxy-connection", "4"),
        ("proxy-authenticate", "5"),
        ("proxy-authentication-info", "6"),
        ("proxy-authorization", "7"),
        ("te", "8"),
        ("transfer-encoding", "9"),
        ("upgrade", "10"),
        ("trailer", "11"),
        ("set-cookie", "kept"),
        ("clear-site-data", "kept"),
        ("content-md5", "kept"),
    ]);
    fields::remove_hop_by_hop(&mut response);
    assert_eq!(response.len(), 3);
    assert!(response.values().all(|value| value == "kept"));
}

#[test]
fn unsafe_methods_invalidate_after_a_non_error_answer() {
    let invalidates = |method: &str, status: u16| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        invalidate::invalidates(&method, StatusCode::from_u16(status).unwrap())
    };
    for method in ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "PURGE", "get"] {
        assert!(invalidates(method, 200) && invalidates(method, 302), "{method}");
        assert!(!invalidates(method, 404) && !invalidates(method, 500), "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
        assert!(!invalidates(method, 200), "{method}");
    }
}

/// The examples of RFC 3986 §5.4, as far as they stay in the origin.
#[test]
fn references_resolve_within_the_origin() {
    let authority = Authority::parse(Scheme::Http, b"a").ok();
    let base = Base { authority, path_and_query: "/b/c/d;p?q" };
    for (reference, expected) in [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("//a", "/"),
        ("http://A:80/x#y", "/x"),
        ("http://a?z", "/?z"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("#s", "/b/c/d;p?q"),
        ("g;x=1/../y", "/b/c/y"),
        ("", "/b/c/d;p?q"),
        (".", "/b/c/"),
        ("..", "/b/"),
        ("../g", "/b/g"),
        ("../../../g", "/g"),
        ("/./g", "/g"),
        ("g?y/../x", "/b/c/g?y/../x"),
    ] {
        assert_eq!(base.resolve(reference.as_bytes()).as_deref(), Some(expected), "{reference}");
    }
    for foreign in
        ["//g", "http://b/x", "https://a/x", "http://a:8080/", "mailto:a", "http://a@b/", "a b"]
    {
        assert_eq!(base.resolve(foreign.as_bytes()), None, "{foreign}");
    }
    let response = headers(&[("location", "//evil/x"), ("content-location", "e")]);
    assert_eq!(invalidate::targets(base, &response).collect::<Vec<_>>(), ["/b/c/e"]);
}

#[test]
fn cache_status_members() {
    let text = |status: CacheStatus<'_>| status.to_string();
    assert_eq!(text(CacheStatus::hit("larder").ttl(376)), "larder; hit; ttl=376");
    assert_eq!(text(CacheStatus::hit("larder").ttl(-412)), "larder; hit; ttl=-412");
    let miss = CacheStatus::forwarded("larder", Forward::UriMiss).stored(true).collapsed(true);
    assert_eq!(text(miss), "larder; fwd=uri-miss; stored; collapsed");
    let bypass =
        CacheStatus::forwarded("two words \"x\"", Forward::Bypass).detail(Reason::SetCookie);
    assert_eq!(text(bypass), "\"two words \\\"x\\\"\"; fwd=bypass; detail=set-cookie");
    let mut response = HeaderMap::new();
    CacheStatus::forwarded("a", Forward::Stale).forward_status(304).append(&mut response);
    CacheStatus::hit("b\u{e9}").append(&mut response);
    assert_eq!(response["cache-status"], "a; fwd=stale; fwd-status=304, \"b\"; hit");
}

#[test]
fn stale_for_a_failing_handler() {
    let terms = |sie: u64, forbids_stale: bool| Terms {
        lifetime: Duration::from_secs(10),
        source: larder_http_rules::FreshnessSource::MaxAge,
        initial_age: Duration::ZERO,
        no_cache: false,
        forbids_stale,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::from_secs(sie),
        shared_despite_credentials: false,
        has_validator: false,
    };
    let (application, letter) = (Policy::application(), Policy::rfc9111());
    let none = HeaderMap::new();
    let view = RequestView {
        method: &Method::GET,
        uri: &Uri::from_static("/"),
        headers: &none,
        facts: RequestFacts::default(),
        credentials: CredentialState::Absent,
    };
    let ask = |policy: &Policy, terms: &Terms, after: u64, failure| {
        reuse::on_failure(policy, terms, Duration::from_secs(after), &view, failure)
    };
    let broken = Failure::Status(StatusCode::BAD_GATEWAY);
    let gone = Failure::NoResponse;
    assert_eq!(ask(&application, &terms(5, false), 14, broken), Ok(Reason::StaleIfError));
    assert_eq!(ask(&application, &terms(5, false), 15, broken), Err(Reason::Expired));
    assert_eq!(ask(&application, &terms(5, true), 14, broken), Err(Reason::MustRevalidate));
    assert_eq!(ask(&application, &terms(5, true), 9, broken), Ok(Reason::Fresh));
    let not_found = Failure::Status(StatusCode::NOT_FOUND);
    assert_eq!(ask(&application, &terms(5, false), 14, not_found), Err(Reason::Status));
    assert_eq!(ask(&application, &terms(0, false), 11, gone), Err(Reason::Expired));
    assert_eq!(ask(&letter, &terms(0, false), 11, gone), Ok(Reason::StaleIfError));
    assert_eq!(ask(&letter, &terms(0, true), 11, gone), Err(Reason::MustRevalidate));
    assert_eq!(ask(&letter, &terms(0, false), 11, broken), Err(Reason::Expired));
    assert_eq!(terms(5, false).ttl(Duration::from_secs(13)), -3);
    let undeclared =
        RequestView { credentials: CredentialState::Undeclared(Reason::CookieNotShared), ..view };
    let refused =
        reuse::on_failure(&application, &terms(5, false), Duration::ZERO, &undeclared, gone);
    assert_eq!(refused, Err(Reason::CookieNotShared));
}

#[test]
fn long_values_are_told() {
    let policy = Policy::application();
    let names = [HeaderName::from_static("x-a"), header::ACCEPT_LANGUAGE];
    let select =
        |lines: &[(&str, &str)]| vary::select(&policy, &names, &headers(lines), &mut |_| {});
    assert_eq!(select(&[("x-a", &"a".repeat(256))]), Selected::Short);
    assert_eq!(select(&[("x-a", &"a".repeat(257))]), Selected::Long);
    assert_eq!(select(&[("accept-language", &"a".repeat(300))]), Selected::Long);
}

/// P23: a thousand malformed values, one class; and it is not the class of anything well formed.
#[test]
fn malformed_negotiation_is_one_class() {
    let policy = Policy::application();
    for name in
        [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ACCEPT_CHARSET]
    {
        let names = [name.clone()];
        let selector = |value: &str| {
            let mut out = Vec::new();
            let asked = headers(&[(name.as_str(), value)]);
            vary::select(&policy, &names, &asked, &mut |p| out.extend_from_slice(p));
            out
        };
        let class = selector("(broken)");
        for n in 0..1000 {
            assert_eq!(selector(&format!("gzip, ({n};q=x")), class, "{name} {n}");
        }
        assert_ne!(selector("gzip"), class);
        assert_ne!(selector(""), class);
    }
}

#[test]
fn a_304_keeps_what_caches_need() {
    for name in ["cache-control", "content-location", "date", "etag", "expires", "vary"] {
        assert!(conditional::kept_in_304(&HeaderName::from_static(name)), "{name}");
    }
    for name in ["content-length", "content-type", "content-encoding", "set-cookie", "x-a"] {
        assert!(!conditional::kept_in_304(&HeaderName::from_static(name)), "{name}");
    }
}

#[test]
fn everything_can_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Policy>();
    check::<RouteRule>();
    check::<Terms>();
    check::<Reason>();
    assert_eq!(size_of::<RequestFacts>(), 4);
    assert_eq!(size_of::<Reason>(), 1);
}
