//! Requests and responses at random, through all rules.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, Uri};
use larder_http_rules::authority::{self, Scheme};
use larder_http_rules::conditional::{self, Validators};
use larder_http_rules::no_vary_search::NoVarySearch;
use larder_http_rules::query::QueryRule;
use larder_http_rules::range::{self, Part, Selection};
use larder_http_rules::{
    CacheControl, Policy, RequestFacts, RequestView, Reuse, RouteRule, Times, age, cookies,
    credentials, date, groups, headers, invalidate, overrides, request, reuse, storable,
    validation, vary,
};

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

// Everything that a cache does with a request and a response, in that order.
fn exchange(
    policy: &Policy,
    (method, own): &(Method, RequestFacts),
    asked: &HeaderMap,
    answered: &HeaderMap,
    status: StatusCode,
) {
    let now = SystemTime::UNIX_EPOCH + 56 * YEAR;
    let uri = Uri::from_static("http://site.example/p?a=1");
    let facts = RequestFacts::scan(policy, asked).union(*own);
    let _ = request::handling(policy, method, facts, asked);
    let _ = authority::effective(&uri, asked, Scheme::Http).map(|found| found.to_string());
    let mut written = 0;
    let _ = overrides::write_key_part(policy, asked, &mut |bytes| written += bytes.len());
    assert!(written <= 4096, "a key part of {written} bytes");
    let route = RouteRule::default();
    let credentials = credentials::assess(policy, &route.credentials, facts, asked);
    let view = RequestView { method, uri: &uri, headers: asked, facts, credentials };
    let times = Times::at(now);
    let stored = storable(policy, &route, &view, status, answered, times);

    let said = CacheControl::from_headers(answered);
    let said = said.directives();
    if let Ok(stored) = &stored {
        // What a response plainly forbids is never stored; another field may be for this cache alone.
        let targeted = policy.targeted.iter().any(|name| answered.contains_key(name));
        assert!(targeted || !said.no_store || said.must_understand, "{answered:?}");
        let shared = policy.shared && said.private.is_present();
        assert!(targeted || !shared, "{answered:?}");
        for resident in [Duration::ZERO, Duration::from_secs(60), YEAR, Duration::MAX] {
            let reuse = reuse::decide(policy, &stored.terms, resident, &view);
            if reuse == Reuse::Fresh {
                assert!(stored.terms.age(resident) < stored.terms.lifetime);
            }
        }
        let mut selector = 0;
        let _ = vary::select(policy, &stored.vary, asked, &mut |bytes| selector += bytes.len());
    }
    let validators = Validators::from_headers(answered, now);
    let _ = conditional::evaluate(asked, validators, now);
    let mut conditions = asked.clone();
    validation::ask(&mut conditions, answered);
    let _ = (validation::confirms(answered, asked), validation::shown(answered, 7, asked));
    let mut freshened = answered.clone();
    validation::freshen(&mut freshened, asked);
    headers::remove_hop_by_hop(&mut freshened);
    let _ = (age::parse(answered), groups::of(answered), groups::invalidated_by(answered));
    let _ = cookies::cookies(asked).count();
    let base = invalidate::Base { authority: None, path_and_query: "/p?a=1" };
    assert!(invalidate::targets(base, answered).count() <= 2);
    if let Some(specs) = range::requested(asked)
        && let Selection::Ranges(ranges) = range::select(&specs, 1000)
    {
        assert!(ranges.iter().all(|range| range.start < range.end && range.end <= 1000));
    }
    if let Some(part) = Part::of_response(answered) {
        assert!(part.bytes.start < part.bytes.end && part.bytes.end <= part.of);
    }
    if let Some(rule) = NoVarySearch::of(answered) {
        let canonical = rule.canonical(Some("b=1&a=%20&a=+&c"));
        assert_eq!(rule.canonical(canonical.as_deref()), canonical);
    }
    // What we write ourselves we read back as it was.
    let value = CacheControl::from_headers(answered).to_header_value();
    let again: HeaderMap = [(http::header::CACHE_CONTROL, value)].into_iter().collect();
    assert_eq!(CacheControl::from_headers(&again).directives().no_store, said.no_store);
}

fn all(asked: &HeaderMap, answered: &HeaderMap, status: u16) {
    let status = StatusCode::from_u16(100 + status % 900).unwrap();
    for policy in [Policy::application(), Policy::rfc9111(), Policy::private()] {
        exchange(&policy, &(Method::GET, RequestFacts::default()), asked, answered, status);
        let query = Method::from_bytes(b"QUERY").unwrap();
        exchange(&policy, &(query, RequestFacts::CONTENT_KEYED), asked, answered, status);
    }
}

#[test]
fn noise() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>, u16)>().for_each(
        |(asked, answered, status)| {
            all(&larder_fuzz::fields(asked), &larder_fuzz::fields(answered), *status);
        },
    );
}

#[test]
fn words() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>, u16)>().for_each(
        |(asked, answered, status)| {
            all(&larder_fuzz::worded(asked), &larder_fuzz::worded(answered), *status);
        },
    );
}

#[test]
fn dates() {
    let now = SystemTime::UNIX_EPOCH + 56 * YEAR;
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        if let Some(time) = date::parse(bytes, now) {
            // Dates tell whole seconds.
            assert_eq!(date::parse(date::format(time).as_bytes(), now), Some(time));
        }
    });
}

#[test]
fn queries() {
    let rule = QueryRule::new().only(["a*", "b"]).ignore(["ab"]).sorted();
    bolero::check!().with_type::<String>().for_each(|query: &String| {
        let left = rule.apply(query);
        let again = left.as_deref().and_then(|left| rule.apply(left));
        assert_eq!(again.as_deref(), left.as_deref());
    });
}
