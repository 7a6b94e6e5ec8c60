//! Runs the cases in `tests/cases/*.json` (see the README there).
//!
//! Every test reads one kind of file, runs every case in it and reports all that failed, by name. The
//! number of cases run must equal the number found; [`EXCLUDED`] is what may be left out.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CACHE_CONTROL, EXPIRES, HeaderMap, HeaderName, HeaderValue, VARY};
use http::{Method, StatusCode, Uri};
use larder_http_rules::authority::{self, Scheme};
use larder_http_rules::conditional::{self, Precondition, Validators, Verdict};
use larder_http_rules::no_vary_search::NoVarySearch;
use larder_http_rules::query::QueryRule;
use larder_http_rules::range::{self, Selection};
use larder_http_rules::validation::{self, Confirmed};
use larder_http_rules::{
    CacheControl, CredentialRule, Handling, Policy, Reason, RequestFacts, RequestView, Reuse,
    RouteRule, Stored, Times, credentials, date, request, reuse, storable, vary,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Names of cases that are not run, each with the reason why beside it.
const EXCLUDED: &[&str] = &[];

/// Tue, 01 Jul 2025 12:00:00 GMT
const NOW: u64 = 1_751_371_200;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

// ---- storing and reusing ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreCase {
    name: String,
    profile: Option<String>,
    method: Option<String>,
    /// The request's content is part of its key.
    #[serde(default)]
    keyed: bool,
    uri: Option<String>,
    #[serde(default)]
    request: Vec<String>,
    status: Option<u16>,
    response: Vec<String>,
    #[serde(default)]
    route: RouteCase,
    expect: String,
    lifetime: Option<u64>,
    source: Option<String>,
    initial_age: Option<u64>,
    vary: Option<Vec<String>>,
    /// First byte, the byte behind the last, length of the whole.
    part: Option<[u64; 3]>,
    #[serde(default)]
    uses: Vec<UseCase>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RouteCase {
    ttl: Option<u64>,
    default_ttl: Option<u64>,
    stale_while_revalidate: Option<u64>,
    statuses: Vec<u16>,
    partitioned: bool,
    shared_cookies: bool,
    ignored_cookies: Vec<String>,
    keyed_cookies: Vec<String>,
    covered_headers: Vec<String>,
    ignored_set_cookies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UseCase {
    after: u64,
    method: Option<String>,
    #[serde(default)]
    keyed: bool,
    #[serde(default)]
    request: Vec<String>,
    expect: String,
}

#[test]
fn store_freshness() {
    run("store-freshness.json", check_store);
}

#[test]
fn store_directives() {
    run("store-directives.json", check_store);
}

#[test]
fn store_credentials() {
    run("store-credentials.json", check_store);
}

#[test]
fn store_partial() {
    run("store-partial.json", check_store);
}

#[test]
fn store_targeted() {
    run("store-targeted.json", check_store);
}

fn check_store(case: &StoreCase) -> Result<(), String> {
    let policies = match case.profile.as_deref() {
        None | Some("both") => vec![Policy::application(), Policy::rfc9111()],
        Some("application") => vec![Policy::application()],
        Some("rfc9111") => vec![Policy::rfc9111()],
        Some(other) => return Err(format!("no profile {other}")),
    };
    policies.iter().try_for_each(|policy| check_store_under(policy, case))
}

fn check_store_under(policy: &Policy, case: &StoreCase) -> Result<(), String> {
    let route = case.route.rule();
    let asked = headers(&case.request);
    let outcome = store(
        policy,
        &route,
        case.method.as_deref().unwrap_or("GET"),
        case.uri.as_deref().unwrap_or("/"),
        (&asked, facts(policy, &asked, case.keyed)),
        case.status.unwrap_or(200),
        &headers(&case.response),
    );
    let code = outcome.as_ref().map_or_else(|reason| reason.as_str(), |_| "stored");
    same("outcome", code, case.expect.as_str())?;
    let Ok(stored) = outcome else { return Ok(()) };
    let terms = stored.terms;
    if let Some(lifetime) = case.lifetime {
        same("lifetime", terms.lifetime, Duration::from_secs(lifetime))?;
    }
    if let Some(source) = &case.source {
        same("source", terms.source.as_str(), source.as_str())?;
    }
    if let Some(age) = case.initial_age {
        same("initial age", terms.initial_age, Duration::from_secs(age))?;
    }
    if let Some(names) = &case.vary {
        let found: Vec<&str> = stored.vary.iter().map(HeaderName::as_str).collect();
        same("vary", found, names.iter().map(String::as_str).collect())?;
    }
    if let Some(part) = case.part {
        let found = stored.part.as_ref().map(|p| [p.bytes.start, p.bytes.end, p.of]);
        same("part", found, Some(part))?;
    }
    for (at, later) in case.uses.iter().enumerate() {
        let found = answer(policy, &route, &stored, &asked, later);
        same(&format!("use {at}"), found, later.expect.clone())?;
    }
    Ok(())
}

fn facts(policy: &Policy, asked: &HeaderMap, keyed: bool) -> RequestFacts {
    let facts = RequestFacts::scan(policy, asked);
    if keyed { facts.union(RequestFacts::CONTENT_KEYED) } else { facts }
}

fn store(
    policy: &Policy,
    route: &RouteRule,
    method: &str,
    uri: &str,
    (asked, facts): (&HeaderMap, RequestFacts),
    status: u16,
    response: &HeaderMap,
) -> Result<Stored, Reason> {
    let view = RequestView {
        method: &Method::from_bytes(method.as_bytes()).unwrap(),
        uri: &uri.parse().unwrap(),
        headers: asked,
        facts,
        credentials: credentials::assess(policy, &route.credentials, facts, asked),
    };
    let status = StatusCode::from_u16(status).unwrap();
    storable(policy, route, &view, status, response, Times::at(now()))
}

/// What a later request gets: variant first, then freshness.
fn answer(
    policy: &Policy,
    route: &RouteRule,
    stored: &Stored,
    first: &HeaderMap,
    later: &UseCase,
) -> String {
    let asked = headers(&later.request);
    let selector = |headers: &HeaderMap| {
        let mut bytes = Vec::new();
        vary::select(policy, &stored.vary, headers, &mut |part| bytes.extend_from_slice(part));
        bytes
    };
    if selector(first) != selector(&asked) {
        return "vary-miss".to_owned();
    }
    let facts = facts(policy, &asked, later.keyed);
    let method = Method::from_bytes(later.method.as_deref().unwrap_or("GET").as_bytes()).unwrap();
    if let Handling::Bypass(reason) = request::handling(policy, &method, facts, &asked) {
        return format!("bypass:{}", reason.as_str());
    }
    let view = RequestView {
        method: &method,
        uri: &Uri::from_static("/"),
        headers: &asked,
        facts,
        credentials: credentials::assess(policy, &route.credentials, facts, &asked),
    };
    let resident = Duration::from_secs(later.after);
    match reuse::decide(policy, &stored.terms, resident, &view) {
        Reuse::Validate(reason) => format!("validate:{}", reason.as_str()),
        Reuse::Fetch(reason) => format!("fetch:{}", reason.as_str()),
        Reuse::Refuse(reason) => format!("refuse:{}", reason.as_str()),
        answers => answers.reason().as_str().to_owned(),
    }
}

impl RouteCase {
    fn rule(&self) -> RouteRule {
        let seconds = |value: Option<u64>| value.map(Duration::from_secs);
        let mut credentials = CredentialRule {
            partitioned: self.partitioned,
            shared_cookies: self.shared_cookies,
            ignored_cookies: self.ignored_cookies.iter().map(|p| p.as_str().into()).collect(),
            covered_headers: self.covered_headers.iter().map(|n| n.parse().unwrap()).collect(),
            ..CredentialRule::default()
        };
        for name in &self.keyed_cookies {
            credentials = credentials.keyed_cookie(name);
        }
        RouteRule {
            ttl: seconds(self.ttl),
            default_ttl: seconds(self.default_ttl),
            stale_while_revalidate: seconds(self.stale_while_revalidate),
            stale_if_error: None,
            statuses: self.statuses.iter().map(|&s| StatusCode::from_u16(s).unwrap()).collect(),
            credentials,
            ignored_set_cookies: self
                .ignored_set_cookies
                .iter()
                .map(|p| p.as_str().into())
                .collect(),
        }
    }
}

// ---- ranges, validation, languages ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeCase {
    name: String,
    range: Vec<String>,
    length: u64,
    /// Pairs of the first byte and the byte behind the last, or a word.
    expect: serde_json::Value,
}

#[test]
fn ranges() {
    run("ranges.json", |case: &RangeCase| {
        let lines: Vec<String> = case.range.iter().map(|line| format!("Range: {line}")).collect();
        let found = match range::requested(&headers(&lines)) {
            None => "ignored".into(),
            Some(specs) => match range::select(&specs, case.length) {
                Selection::Whole => "whole".into(),
                Selection::Unsatisfiable => "unsatisfiable".into(),
                Selection::Ranges(ranges) => {
                    ranges.iter().map(|r| serde_json::json!([r.start, r.end])).collect()
                }
            },
        };
        same("selection", found, case.expect.clone())
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidationCase {
    name: String,
    stored: Vec<String>,
    answer: Vec<String>,
    confirms: bool,
    becomes: Vec<String>,
}

#[test]
fn validations() {
    run("validation.json", |case: &ValidationCase| {
        let (mut stored, answer) = (headers(&case.stored), headers(&case.answer));
        let confirms = validation::confirms(&stored, &answer) == Confirmed::Yes;
        same("confirmation", confirms, case.confirms)?;
        validation::freshen(&mut stored, &answer);
        same("fields", stored, headers(&case.becomes))
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadCase {
    name: String,
    stored: Vec<String>,
    body: u64,
    answer: Vec<String>,
    shows: String,
}

#[test]
fn heads() {
    run("heads.json", |case: &HeadCase| {
        let (stored, answer) = (headers(&case.stored), headers(&case.answer));
        let shows = format!("{:?}", validation::shown(&stored, case.body, &answer));
        same("shows", shows.to_lowercase(), case.shows.clone())
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LanguageCase {
    name: String,
    accept: Vec<String>,
    prefers: Option<String>,
}

#[test]
fn languages() {
    run("languages.json", |case: &LanguageCase| {
        let lines: Vec<String> =
            case.accept.iter().map(|line| format!("Accept-Language: {line}")).collect();
        let asked = headers(&lines);
        let found = vary::preferred_language(&asked);
        same("language", found, case.prefers.as_deref().map(str::as_bytes))
    });
}

// ---- queries ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryCase {
    name: String,
    only: Option<Vec<String>>,
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    sorted: bool,
    query: String,
    expect: Option<String>,
}

#[test]
fn queries() {
    run("queries.json", |case: &QueryCase| {
        let mut rule = QueryRule::new().ignore(case.ignore.iter().map(String::as_str));
        if let Some(only) = &case.only {
            rule = rule.only(only.iter().map(String::as_str));
        }
        if case.sorted {
            rule = rule.sorted();
        }
        let left = rule.apply(&case.query);
        let again = left.as_deref().map(|left| rule.apply(left).map(|left| left.into_owned()));
        same("again", again.flatten(), left.as_deref().map(str::to_owned))?;
        same("what is left", left.as_deref(), case.expect.as_deref())
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchCase {
    name: String,
    said: Vec<String>,
    valid: bool,
    /// Pairs of queries that are one, and that are not.
    #[serde(default)]
    same: Vec<[Option<String>; 2]>,
    #[serde(default)]
    other: Vec<[Option<String>; 2]>,
}

#[test]
fn searches() {
    run("no-vary-search.json", |case: &SearchCase| {
        let lines: Vec<String> =
            case.said.iter().map(|line| format!("No-Vary-Search: {line}")).collect();
        let rule = NoVarySearch::of(&headers(&lines));
        same("validity", rule.is_some(), case.valid)?;
        let Some(rule) = rule else { return Ok(()) };
        let canonical = |query: &Option<String>| rule.canonical(query.as_deref());
        for (pairs, one) in [(&case.same, true), (&case.other, false)] {
            for [a, b] in pairs {
                same(&format!("{a:?} and {b:?}"), canonical(a) == canonical(b), one)?;
                // What stands for a class is one of it.
                same("itself", canonical(&canonical(a)), canonical(a))?;
            }
        }
        Ok(())
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreconditionCase {
    name: String,
    method: String,
    request: Vec<String>,
    /// Fields with the validators; null where there is nothing.
    current: Option<Vec<String>>,
    expect: String,
}

#[test]
fn all_preconditions() {
    run("preconditions.json", |case: &PreconditionCase| {
        let method = Method::from_bytes(case.method.as_bytes()).unwrap();
        let current = case.current.as_ref().map(|lines| headers(lines));
        let current = current.as_ref().map(|fields| Validators::from_headers(fields, now()));
        let asked = headers(&case.request);
        let found = match conditional::preconditions(&method, &asked, current, now()) {
            Precondition::Holds => "holds",
            Precondition::NotModified => "not-modified",
            Precondition::Failed => "failed",
        };
        same("outcome", found, case.expect.as_str())
    });
}

// ---- P07: the matrix, and P08 over the same directive sets ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixCase {
    name: String,
    response: Vec<String>,
    /// application, rfc9111
    plain: [String; 2],
    authorized: [String; 2],
}

#[test]
fn matrix() {
    run("matrix.json", |case: &MatrixCase| {
        let response = headers(&case.response);
        let credential = headers(&["Authorization: Bearer t".to_owned()]);
        for (at, policy) in [Policy::application(), Policy::rfc9111()].iter().enumerate() {
            let code = |asked: &HeaderMap| {
                store(
                    policy,
                    &RouteRule::default(),
                    "GET",
                    "/",
                    (asked, facts(policy, asked, false)),
                    200,
                    &response,
                )
                .map_or_else(|reason| reason.as_str(), |_| "stored")
            };
            same(&format!("plain {at}"), code(&HeaderMap::new()), &case.plain[at])?;
            same(&format!("authorized {at}"), code(&credential), &case.authorized[at])?;
        }
        Ok(())
    });
}

#[test]
fn set_cookie_under_every_directive_set() {
    let cookies: [&[&str]; 3] = [
        &["Set-Cookie: sid=1"],
        &["sEt-cOOkie: sid=1; Path=/"],
        &[
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "Set-Cookie: c=3",
            "Set-Cookie: d=4",
            "Set-Cookie: e=5",
        ],
    ];
    let route = RouteRule { ttl: Some(Duration::from_secs(60)), ..RouteRule::default() };
    let mut application = 0;
    for case in load::<MatrixCase>("matrix.json") {
        for lines in cookies {
            let mut response = headers(&case.response);
            response.extend(headers(&lines.iter().map(|&l| l.to_owned()).collect::<Vec<_>>()));
            for route in [&route, &RouteRule::default()] {
                let none = HeaderMap::new();
                let refused = store(
                    &Policy::application(),
                    route,
                    "GET",
                    "/",
                    (&none, RequestFacts::default()),
                    200,
                    &response,
                );
                assert!(refused.is_err(), "{} with {lines:?} was stored", case.name);
                application += 1;
            }
        }
    }
    assert_eq!(application, 9 * 3 * 2);
}

/// P12: every way to write the letters of a restrictive directive.
#[test]
fn directives_in_every_letter_case() {
    let mut patterns = 0;
    for name in ["no-store", "private", "no-cache"] {
        let letters: Vec<usize> = name
            .bytes()
            .enumerate()
            .filter(|(_, b)| b.is_ascii_alphabetic())
            .map(|(i, _)| i)
            .collect();
        assert_eq!(letters.len(), 7);
        for pattern in 0..128u32 {
            let mut spelled = name.as_bytes().to_vec();
            for (bit, &at) in letters.iter().enumerate() {
                if pattern & (1 << bit) != 0 {
                    spelled[at] = spelled[at].to_ascii_uppercase();
                }
            }
            let spelled = String::from_utf8(spelled).unwrap();
            let response = headers(&[format!("Cache-Control: max-age=60, {spelled}")]);
            for policy in [Policy::application(), Policy::rfc9111()] {
                let none = HeaderMap::new();
                let outcome = store(
                    &policy,
                    &RouteRule::default(),
                    "GET",
                    "/",
                    (&none, RequestFacts::default()),
                    200,
                    &response,
                );
                let expected = match name {
                    "no-store" => Reason::NoStore,
                    "private" => Reason::Private,
                    _ => Reason::NoCacheWithoutValidator,
                };
                assert_eq!(outcome, Err(expected), "{spelled}");
            }
            patterns += 1;
        }
    }
    assert_eq!(patterns, 3 * 128);
}

// ---- single functions ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DateCase {
    name: String,
    value: String,
    unix: Option<i64>,
}

#[test]
fn dates() {
    run("dates.json", |case: &DateCase| {
        let found = date::parse(case.value.as_bytes(), now());
        let expected = case.unix.map(|seconds| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
        });
        same("date", found, expected)
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityCase {
    name: String,
    uri: String,
    scheme: Option<String>,
    headers: Vec<String>,
    expect: String,
}

#[test]
fn authorities() {
    run("authority.json", |case: &AuthorityCase| {
        let scheme =
            if case.scheme.as_deref() == Some("https") { Scheme::Https } else { Scheme::Http };
        let uri: Uri = case.uri.parse().unwrap();
        let headers = headers(&case.headers);
        let found = match authority::effective(&uri, &headers, scheme) {
            Ok(authority) => {
                let mut bytes = Vec::new();
                authority.write_to(&mut |part| bytes.extend_from_slice(part));
                String::from_utf8(bytes).unwrap()
            }
            Err(reason) => reason.as_str().to_owned(),
        };
        same("authority", found, case.expect.clone())
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionalCase {
    name: String,
    stored: Vec<String>,
    request: Vec<String>,
    not_modified: bool,
}

#[test]
fn conditionals() {
    run("conditional.json", |case: &ConditionalCase| {
        let stored = headers(&case.stored);
        let validators = Validators::from_headers(&stored, now());
        let verdict = conditional::evaluate(&headers(&case.request), validators, now());
        same("not modified", verdict == Verdict::NotModified, case.not_modified)
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeCase {
    name: String,
    layer: String,
    existing: Vec<String>,
    expires: Option<String>,
    expect: String,
}

#[test]
fn merges() {
    run("merge.json", |case: &MergeCase| {
        let layer = match case.layer.as_str() {
            "never" => CacheControl::never(),
            text => {
                let mut own = HeaderMap::new();
                own.insert(CACHE_CONTROL, text.parse().unwrap());
                CacheControl::from_headers(&own)
            }
        };
        let mut headers = HeaderMap::new();
        for line in &case.existing {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        if let Some(expires) = &case.expires {
            headers.insert(EXPIRES, expires.parse().unwrap());
        }
        layer.apply(&mut headers, now());
        same("lines", headers.get_all(CACHE_CONTROL).iter().count(), 1)?;
        same("merged", headers[CACHE_CONTROL].to_str().unwrap(), case.expect.as_str())
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VaryAppendCase {
    name: String,
    existing: Vec<String>,
    add: Vec<String>,
    expect: Option<String>,
}

#[test]
fn vary_appends() {
    run("vary-append.json", |case: &VaryAppendCase| {
        let mut headers = HeaderMap::new();
        for line in &case.existing {
            headers.append(VARY, line.parse().unwrap());
        }
        let names: Vec<HeaderName> = case.add.iter().map(|name| name.parse().unwrap()).collect();
        vary::append(&mut headers, &names);
        let found = headers.get(VARY).map(|value| value.to_str().unwrap().to_owned());
        same("lines", headers.get_all(VARY).iter().count(), usize::from(found.is_some()))?;
        same("vary", found, case.expect.clone())
    });
}

/// Every file in the folder is run by a test above.
#[test]
fn no_file_is_forgotten() {
    let known: HashSet<&str> = [
        "store-freshness.json",
        "store-directives.json",
        "store-credentials.json",
        "store-partial.json",
        "store-targeted.json",
        "ranges.json",
        "validation.json",
        "heads.json",
        "languages.json",
        "preconditions.json",
        "queries.json",
        "no-vary-search.json",
        "matrix.json",
        "dates.json",
        "authority.json",
        "conditional.json",
        "merge.json",
        "vary-append.json",
    ]
    .into();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".json") || known.contains(name.as_str()), "{name} is not run");
    }
}

// ---- the runner ----

trait Named {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($case:ty)*) => {$(
        impl Named for $case {
            fn name(&self) -> &str {
                &self.name
            }
        }
    )*};
}

named! {
QueryCase SearchCase StoreCase RangeCase ValidationCase HeadCase LanguageCase PreconditionCase MatrixCase DateCase AuthorityCase ConditionalCase MergeCase VaryAppendCase }

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn load<C: DeserializeOwned>(file: &str) -> Vec<C> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn run<C: DeserializeOwned + Named>(file: &str, check: impl Fn(&C) -> Result<(), String>) {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let found = text.matches("\"name\":").count();
    let (mut ran, mut excluded, mut names, mut failures) = (0, 0, HashSet::new(), Vec::new());
    for case in load::<C>(file) {
        assert!(names.insert(case.name().to_owned()), "{file}: two cases named {:?}", case.name());
        if EXCLUDED.contains(&case.name()) {
            excluded += 1;
            continue;
        }
        ran += 1;
        if let Err(message) = check(&case) {
            failures.push(format!("{}: {message}", case.name()));
        }
    }
    assert!(
        failures.is_empty(),
        "{file}: {} of {ran} failed\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_eq!(ran + excluded, found, "{file}: cases run and cases found differ");
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what} is {found:?}, expected {expected:?}"))
    }
}

/// Headers from `Name: value` lines.
fn headers(lines: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line}"));
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    headers
}
