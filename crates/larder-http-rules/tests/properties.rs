//! Properties that hold for every input.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, VARY};
use http::{Method, StatusCode, Uri};
use larder_http_rules::authority::{self, Authority, Scheme};
use larder_http_rules::cache_control::{RequestDirectives, ResponseDirectives};
use larder_http_rules::conditional::{self, Validators};
use larder_http_rules::invalidate::{self, Base};
use larder_http_rules::{
    CacheControl, Policy, Reason, RequestFacts, RequestView, RouteRule, Stored, Times, Vary, age,
    cookies, credentials, date, overrides, request, reuse, storable, vary,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const NOW: u64 = 1_751_371_200;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// Any bytes that a header value may hold.
fn any_value() -> impl Strategy<Value = HeaderValue> {
    let structured = "[ -~]{0,40}".prop_map(String::into_bytes);
    // Nothing is thrown away: of a million cases that would be too many.
    let byte = any::<u8>().prop_map(|byte| match byte {
        0..=8 | 10..=31 => byte + 32,
        127 => 255,
        other => other,
    });
    prop_oneof![vec(byte, 0..60), structured]
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("a header value"))
}

fn cache_control_value() -> impl Strategy<Value = HeaderValue> {
    let name = select(vec![
        "no-store",
        "private",
        "public",
        "no-cache",
        "max-age",
        "s-maxage",
        "must-revalidate",
        "must-understand",
        "stale-while-revalidate",
        "stale-if-error",
        "immutable",
        "foo",
        "",
    ]);
    let argument =
        select(vec!["", "=60", "=0", "=\"5\"", "=x", "=\"a, b", "= 7", "=99999999999999999999"]);
    vec((name, argument), 0..5).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(n, a)| format!("{n}{a}")).collect();
        HeaderValue::try_from(members.join(", ")).unwrap()
    })
}

const REQUEST_NAMES: &[&str] = &[
    "authorization",
    "cookie",
    "range",
    "cache-control",
    "pragma",
    "if-none-match",
    "if-match",
    "if-modified-since",
    "if-range",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "expect",
    "host",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "x-original-url",
    "x-http-method-override",
    "x-middleware-next",
    "x-api-key",
    "remote-user",
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-charset",
    "x-a",
    "x-b",
    "user-agent",
    "connection",
    "te",
];

const RESPONSE_NAMES: &[&str] = &[
    "cache-control",
    "expires",
    "date",
    "age",
    "etag",
    "last-modified",
    "vary",
    "set-cookie",
    "location",
    "content-location",
    "content-encoding",
    "connection",
    "pragma",
    "cdn-cache-control",
];

fn request_value() -> impl Strategy<Value = HeaderValue> {
    let usual = select(vec![
        "",
        "0",
        "5",
        "public",
        "no-store",
        "no-cache",
        "only-if-cached",
        "max-age=0",
        "max-stale",
        "gzip, br",
        "de;q=0.5, en",
        "a=b",
        "_ga=1; theme=x",
        "*",
        "\"x\"",
        "chunked",
        "bytes=0-1",
        "example.com",
        "for=1;host=a;proto=https",
        "host=\"",
        "must-understand",
        "s-maxage=60",
    ]);
    prop_oneof![usual.prop_map(HeaderValue::from_static), any_value(), cache_control_value()]
}

fn request_headers() -> impl Strategy<Value = HeaderMap> {
    vec((select(REQUEST_NAMES), request_value()), 0..5).prop_map(header_map)
}

fn response_headers() -> impl Strategy<Value = HeaderMap> {
    let date = select(vec![
        "Tue, 01 Jul 2025 12:00:00 GMT",
        "Tue, 01 Jul 2025 13:00:00 GMT",
        "Tue, 01 Jul 2025 11:00:00 GMT",
        "Mon, 30 Jun 2025 12:00:00 GMT",
        "0",
        "/a",
        "\"x\"",
        "Accept, Cookie",
        "x-a",
        "*",
        "30",
        "a=b",
    ]);
    let value = prop_oneof![
        3 => cache_control_value(),
        3 => date.prop_map(HeaderValue::from_static),
        1 => any_value()
    ];
    vec((select(RESPONSE_NAMES), value), 0..5).prop_map(header_map)
}

fn header_map(pairs: Vec<(&'static str, HeaderValue)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::application()), Just(Policy::rfc9111())]
}

fn routes() -> impl Strategy<Value = RouteRule> {
    (option::of(0u64..1000), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(ttl, shared, keyed, opted)| {
            let mut route = RouteRule { ttl: ttl.map(Duration::from_secs), ..RouteRule::default() };
            if shared {
                route.credentials = route.credentials.shared_despite_cookies();
            }
            if keyed {
                route.credentials = route.credentials.keyed_cookie("theme");
            }
            if opted {
                route.statuses = vec![StatusCode::NOT_FOUND, StatusCode::NO_CONTENT];
            }
            route
        },
    )
}

fn statuses() -> impl Strategy<Value = StatusCode> {
    let usual = select(vec![200u16, 200, 200, 203, 204, 206, 301, 302, 304, 404, 410, 500, 599]);
    prop_oneof![usual, 100u16..1000].prop_map(|code| StatusCode::from_u16(code).unwrap())
}

fn methods() -> impl Strategy<Value = Method> {
    select(vec![Method::GET, Method::GET, Method::GET, Method::HEAD, Method::POST, Method::PUT])
}

struct Exchange<'a> {
    policy: &'a Policy,
    route: &'a RouteRule,
    method: &'a Method,
    status: StatusCode,
    response: &'a HeaderMap,
}

impl Exchange<'_> {
    fn store(&self, asked: &HeaderMap) -> Result<Stored, Reason> {
        let facts = RequestFacts::scan(self.policy, asked);
        let view = RequestView {
            method: self.method,
            uri: &Uri::from_static("/a"),
            headers: asked,
            facts,
            credentials: credentials::assess(self.policy, &self.route.credentials, facts, asked),
        };
        storable(self.policy, self.route, &view, self.status, self.response, Times::at(now()))
    }
}

fn selector(policy: &Policy, names: &[HeaderName], headers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    vary::select(policy, names, headers, &mut |part| out.extend_from_slice(part));
    out
}

/// What two requests must agree in, read naively: per name, absent or the trimmed members.
fn plain_values(names: &[&'static str], headers: &HeaderMap) -> Vec<Option<Vec<Vec<u8>>>> {
    let members = |value: &HeaderValue| {
        let text = value.as_bytes().to_vec();
        text.split(|&b| b == b',').map(|part| part.trim_ascii().to_vec()).collect::<Vec<_>>()
    };
    names
        .iter()
        .map(|name| {
            let lines: Vec<_> = headers.get_all(*name).iter().collect();
            (!lines.is_empty()).then(|| lines.into_iter().flat_map(members).collect())
        })
        .collect()
}

/// Values without quotes, so that [`plain_values`] stays naive.
fn plain_headers() -> impl Strategy<Value = HeaderMap> {
    let value = prop_oneof![
        select(vec!["", "a", "b", "a,b", "a, b", "ab", "b,a", ",", "a,,b", "absent", "1"])
            .prop_map(HeaderValue::from_static),
        vec(prop_oneof![Just(b','), Just(b' '), Just(b'x'), Just(0xff), Just(b';')], 0..6)
            .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()),
    ];
    vec((select(vec!["x-a", "x-b", "x-c"]), value), 0..4).prop_map(header_map)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn dates_never_panic(bytes in vec(any::<u8>(), 0..40), seconds in any::<u32>()) {
        let _ = date::parse(&bytes, UNIX_EPOCH + Duration::from_secs(u64::from(seconds)));
    }

    #[test]
    fn dates_near_the_grammar_never_panic(
        text in "[SMTWF][a-z]{2,8},? [0-9 ]{1,2}[ -][JFMAN][a-z]{2}[ -][0-9]{2,4} [0-9:. ]{5,8} (GMT|gmt|UTC)?",
    ) {
        let _ = date::parse(text.as_bytes(), now());
    }

    #[test]
    fn dates_round_trip(seconds in -62_167_219_200i64..=253_402_300_799) {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
        let text = date::format(time);
        prop_assert_eq!(text.len(), 29);
        prop_assert_eq!(date::parse(text.as_bytes(), now()), Some(time));
        prop_assert_eq!(date::header_value(time), text.as_str());
    }

    #[test]
    fn nothing_panics(
        policy in policies(),
        route in routes(),
        method in methods(),
        asked in request_headers(),
        status in statuses(),
        response in response_headers(),
        resident in any::<u64>(),
        text in "\\PC{0,40}",
        bytes in vec(any::<u8>(), 0..40),
    ) {
        let facts = RequestFacts::scan(&policy, &asked);
        let uri = Uri::from_static("/a/b?c");
        let _ = request::handling(&policy, &method, facts, &asked);
        let _ = overrides::write_key_part(&policy, &asked, &mut |_| {});
        let _ = authority::effective(&uri, &asked, Scheme::Https).map(|a| a.to_string());
        let _ = Authority::parse(Scheme::Http, &bytes).map(|a| a.to_string());
        let authority = Authority::parse(Scheme::Http, b"a").ok();
        let base = Base { authority, path_and_query: "/a/b?c" };
        let resolved = [base.resolve(&bytes), base.resolve(text.as_bytes())];
        prop_assert!(resolved.iter().flatten().all(|target| target.starts_with('/')));
        let _ = invalidate::targets(base, &response).count();
        let _ = conditional::evaluate(&asked, Validators::from_headers(&response, now()), now());
        let _ = age::parse(&response);
        let _ = RequestDirectives::from_headers(&asked);
        let _ = cookies::cookies(&asked).count();
        let mut merged = response.clone();
        CacheControl::new().public().max_age(Duration::MAX).apply(&mut merged, now());
        let exchange =
            Exchange { policy: &policy, route: &route, method: &method, status, response: &response };
        if let Ok(stored) = exchange.store(&asked) {
            let credentials = credentials::assess(&policy, &route.credentials, facts, &asked);
            let view = RequestView { method: &method, uri: &uri, headers: &asked, facts, credentials };
            let resident = Duration::from_secs(resident);
            let _ = reuse::decide(&policy, &stored.terms, resident, &view);
            let failure = reuse::Failure::NoResponse;
            let _ = reuse::on_failure(&policy, &stored.terms, resident, &view, failure);
            let _ = (stored.terms.ttl(resident), stored.terms.usable_for(&policy));
            selector(&policy, &stored.vary, &asked);
        }
    }

    /// P17: nothing in a request makes the unstorable storable. Every header is tried on every exchange.
    #[test]
    fn a_request_header_never_makes_storable(
        policy in policies(),
        route in routes(),
        method in methods(),
        asked in request_headers(),
        value in request_value(),
        replace in any::<bool>(),
        status in statuses(),
        fresh in any::<bool>(),
        mut response in response_headers(),
    ) {
        if fresh && !response.contains_key(CACHE_CONTROL) {
            response.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        }
        let exchange =
            Exchange { policy: &policy, route: &route, method: &method, status, response: &response };
        let without = exchange.store(&asked);
        for name in REQUEST_NAMES {
            let mut more = asked.clone();
            if replace && !more.contains_key(*name) {
                more.insert(*name, value.clone());
            } else {
                more.append(*name, value.clone());
            }
            let with = exchange.store(&more);
            prop_assert!(with.is_err() || without.is_ok(), "{without:?} became storable by {name}");
        }
    }

    /// P11 and injectivity: equal selectors exactly when the plain readings are equal.
    #[test]
    fn selectors_are_injective(
        policy in policies(),
        one in plain_headers(),
        two in plain_headers(),
        names in vec(select(vec!["x-a", "x-b", "x-c"]), 0..4),
    ) {
        let mut response = HeaderMap::new();
        for name in &names {
            response.append(VARY, HeaderValue::from_static(name));
        }
        let Vary::Names(parsed) = Vary::parse(&response) else { panic!("names only") };
        let mut expected = names.clone();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(parsed.iter().map(HeaderName::as_str).collect::<Vec<_>>(), expected.clone());
        let equal = selector(&policy, &parsed, &one) == selector(&policy, &parsed, &two);
        prop_assert_eq!(equal, plain_values(&expected, &one) == plain_values(&expected, &two));
    }

    /// The same over negotiation headers, where only the direction "different class, different
    /// selector" is plain: a request without the header never matches one with it.
    #[test]
    fn absent_never_matches_present(policy in policies(), asked in request_headers()) {
        let none = HeaderMap::new();
        for name in asked.keys() {
            let names = [name.clone()];
            prop_assert_ne!(selector(&policy, &names, &asked), selector(&policy, &names, &none));
        }
    }

    /// P21 for forwarding headers: different values, different key parts.
    #[test]
    fn override_key_parts_are_injective(one in "[ab,:]{0,4}", two in "[ab,:]{0,4}", swap in any::<bool>()) {
        let part = |host: &str, proto: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-host", host.parse().unwrap());
            headers.insert("x-forwarded-proto", proto.parse().unwrap());
            let mut out = Vec::new();
            overrides::write_key_part(&Policy::application(), &headers, &mut |p| out.extend_from_slice(p))
                .unwrap();
            out
        };
        let other = if swap { part(&two, &one) } else { part(&one, &one) };
        prop_assert_eq!(part(&one, &two) == other, one == two);
    }

    #[test]
    fn cache_control_round_trips(
        flags in any::<[bool; 8]>(),
        numbers in any::<[Option<u32>; 4]>(),
        fields in vec("[a-z]{1,5}", 0..3),
    ) {
        let mut built = CacheControl::new();
        let mut fields: Vec<HeaderName> = fields.iter().map(|name| name.parse().unwrap()).collect();
        fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        if flags[0] { built = built.public(); }
        if flags[1] { built = built.private(); }
        if flags[2] { built = built.no_store(); }
        if flags[3] { built = built.must_revalidate(); }
        if flags[4] { built = built.proxy_revalidate(); }
        if flags[5] { built = built.no_transform(); }
        if flags[6] { built = built.immutable(); }
        if flags[7] { built = built.must_understand(); }
        let seconds = |n: u32| Duration::from_secs(u64::from(n));
        if let Some(n) = numbers[0] { built = built.max_age(seconds(n)); }
        if let Some(n) = numbers[1] { built = built.s_maxage(seconds(n)); }
        if let Some(n) = numbers[2] { built = built.stale_while_revalidate(seconds(n)); }
        if let Some(n) = numbers[3] { built = built.stale_if_error(seconds(n)); }
        if !fields.is_empty() {
            built = built.no_cache_fields(fields);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, built.to_header_value());
        prop_assert_eq!(&CacheControl::from_headers(&headers), &built);
        prop_assert_eq!(&ResponseDirectives::from_headers(&headers), built.directives());
    }

    /// 96: a merge never weakens, whatever both say.
    #[test]
    fn a_merge_never_weakens(ours in cache_control_value(), theirs in cache_control_value()) {
        let line = |value: &HeaderValue| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.clone());
            headers
        };
        let before = ResponseDirectives::from_headers(&line(&theirs));
        let mut headers = line(&theirs);
        CacheControl::from_headers(&line(&ours)).apply(&mut headers, now());
        let after = ResponseDirectives::from_headers(&headers);
        prop_assert!(after.no_store || !before.no_store);
        prop_assert!(after.private.is_present() || !before.private.is_present());
        prop_assert!(after.no_cache.is_present() || !before.no_cache.is_present());
        prop_assert!(after.must_revalidate || !before.must_revalidate);
        prop_assert!(before.max_age.is_none_or(|old| after.max_age.is_some_and(|new| new <= old)));
        prop_assert!(before.s_maxage.is_none_or(|old| after.s_maxage.is_some_and(|new| new <= old)));
        prop_assert!(!(after.public && before.private.is_present()));
        if before.no_store && !before.must_understand {
            prop_assert!(!after.must_understand);
            prop_assert!(!after.public || before.public);
        }
        let shared = |said: &ResponseDirectives| said.s_maxage.or(said.max_age);
        prop_assert!(shared(&before).is_none_or(|old| shared(&after).is_some_and(|new| new <= old)));
    }
}
