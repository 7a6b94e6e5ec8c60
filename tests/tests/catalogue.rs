//! The catalogue of poisons: what an attacker sends to make a cache give others what was made for him (threats P01 to
//! P06 and P18), through a real server, with a handler that shows all it sees. Its lists are written down here, not taken
//! from the code.
#![allow(clippy::print_stdout)]

use http::Request;
use http_body_util::BodyExt;
use larder_http::rules::Policy;
use larder_tests::server::Server;
use larder_tests::{Origin, Site, TestBody, answer};

/// All forms that make a response storable for everybody.
const FORMS: [&[(&str, &str)]; 6] = [
    &[("cache-control", "max-age=600")],
    &[("cache-control", "max-age=600, must-understand, immutable")],
    &[("cache-control", "max-age=1, stale-while-revalidate=600, stale-if-error=600")],
    &[("date", "Thu, 01 Jan 2026 00:00:00 GMT"), ("expires", "Thu, 01 Jan 2026 00:10:00 GMT")],
    &[("cache-control", "public, max-age=600")],
    &[("cache-control", "s-maxage=600")],
];

/// The first of them say nothing of credentials.
const PLAIN: usize = 4;

const OVERRIDES: [&str; 52] = [
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "X-Forwarded-Path",
    "X-Forwarded-Uri",
    "X-Forwarded-Protocol",
    "X-Forwarded-Ssl",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Original-Host",
    "X-Proxy-Host",
    "X-Forward-Host",
    "X-Url-Scheme",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-URI",
    "X-Request-URI",
    "X-Override-URL",
    "X-HTTP-Path-Override",
    "Base-Url",
    "Http-Url",
    "Proxy-Url",
    "Request-Uri",
    "X-Path-Info",
    "X-Script-Name",
    "X-Base-Url",
    "X-Uri",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Scheme",
    "Front-End-Https",
    "X-Https",
    "Destination",
    "X-Accel-Mapping",
    "X-Sendfile-Type",
    "X-Middleware-Prefetch",
    "X-Middleware-Subrequest",
    "X-Invoke-Path",
    "X-Matched-Path",
    "X-Nextjs-Data",
    "X-Envoy-Original-Path",
    "X-Azure-Host",
    "X-Replaced-Path",
    "X-Context-Path",
    "X-Forwarded-By",
    "X-Backend-Host",
    "X-Forwarded",
    "X-Real-Host",
];

const CREDENTIALS: [&str; 30] = [
    "Authorization",
    "Cookie",
    "Proxy-Authorization",
    "X-Api-Key",
    "Api-Key",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Session-Token",
    "X-Session-Id",
    "X-User",
    "X-User-Id",
    "X-User-Email",
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Client-Cert",
    "X-Authenticated-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Ssl-Client-Cert",
    "X-Client-Cert",
    "X-Amzn-Oidc-Data",
    "X-Amzn-Oidc-Identity",
    "X-Goog-Iap-Jwt-Assertion",
    "Cf-Access-Jwt-Assertion",
    "X-Ms-Client-Principal",
    "Private-Token",
];

/// What comes back: method, target, all fields, the content.
fn mirror(form: usize) -> Origin {
    Origin::new(move |call, request: Request<TestBody>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let fields: Vec<_> = head.headers.iter().collect();
        let seen = format!("{call} {} {} {fields:?} {body:?}", head.method, head.uri);
        Ok(answer(200, FORMS[form], seen))
    })
}

/// Requests for a path that a victim is going to ask for, each with something evil about it.
fn targets(path: &str) -> Vec<String> {
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: site.example\r\n\r\n");
    let host = |host: &str| format!("GET {path} HTTP/1.1\r\n{host}\r\n\r\n");
    let content = |method: &str, fields: &str, content: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: site.example\r\n{fields}\r\n\r\n{content}")
    };
    let mut requests = vec![
        // Other targets.
        line(&format!("GET {path}?evil")),
        line(&format!("GET {path}?evil=1&a")),
        line(&format!("GET {path}/evil")),
        line(&format!("GET {path};evil")),
        line(&format!("GET {path}%3Fevil")),
        line(&format!("GET {path}%2Fevil")),
        line(&format!("GET {path}/..%2Fevil")),
        line(&format!("GET {path}/../evil")),
        line(&format!("GET {path}%00evil")),
        line(&format!("GET {path}%0aevil")),
        line(&format!("GET /evil/..{path}")),
        line(&format!("GET //evil{path}")),
        line(&format!("GET http://evil.test{path}")),
        line(&format!("GET http://evil@site.example{path}")),
        line(&format!("GET http://site.example:8080{path}?evil")),
        line(&format!("GET https://evil.test{path}")),
        // Other hosts.
        host("Host: evil.test"),
        host("Host: site.example.evil.test"),
        host("Host: site.example:1337"),
        host("Host: evil@site.example"),
        host("Host: site.example, evil.test"),
        host("Host: site.example\r\nHost: evil.test"),
        host("Host: evil.test\r\nHost: site.example"),
        host("Host: site.example/evil"),
        host("Host: site.example#evil"),
        host("Host: site.example?evil"),
        // Content that is no part of the key.
        content("GET", "Content-Length: 4", "evil"),
        content("GET", "Transfer-Encoding: chunked", "4\r\nevil\r\n0\r\n\r\n"),
        content("HEAD", "Content-Length: 4", "evil"),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "QUERY", "PROPFIND", "OPTIONS", "EVIL", "get"]
    {
        requests.push(content(method, "Content-Length: 4", "evil"));
    }
    requests
}

struct Found {
    cases: usize,
    poisoned: Vec<String>,
}

// Each case has a path of its own: the attacker's request, then the victim's.
async fn attack(policy: Policy, form: usize, requests: impl Fn(&str) -> Vec<String>) -> Found {
    let site = Site::with(mirror(form), |layer| layer.policy(policy));
    let server = Server::start(site.service()).await;
    let mut found = Found { cases: 0, poisoned: Vec::new() };
    for case in 0..requests("/").len() {
        let path = format!("/case/{case}");
        let request = requests(&path).swap_remove(case);
        // Its connection is not used again: a server may end it, and an attacker may leave bytes in it.
        let mut attacker = server.http1().await;
        attacker.write(&request).await;
        attacker.try_response(request.starts_with("HEAD")).await;
        let mut victim = server.http1().await;
        for _ in 0..2 {
            let got = victim.get("site.example", &path).await;
            if got.status != 200 || got.text().to_lowercase().contains("evil") {
                found.poisoned.push(format!("{request:?} -> {}", got.text()));
            }
        }
        found.cases += 1;
        // The victim's own is stored: the attack did not merely switch the cache off.
        let again = victim.get("site.example", &path).await;
        if form < 2 && !again.hit() {
            found.poisoned.push(format!("{request:?} keeps the victim from the cache: {again:?}"));
        }
    }
    found
}

fn with_field(names: &'static [&'static str]) -> impl Fn(&str) -> Vec<String> {
    move |path| {
        let request = |name: &&str| {
            let value = match *name {
                "X-Forwarded-Proto" | "X-Forwarded-Scheme" | "X-Scheme" => "evil+https".to_owned(),
                "Cookie" => "session=evil".to_owned(),
                "Authorization" | "Proxy-Authorization" => "Bearer evil".to_owned(),
                _ => "evil.test".to_owned(),
            };
            format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n{name}: {value}\r\n\r\n")
        };
        names.iter().map(request).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_poison_of_the_catalogue_reaches_a_victim() {
    let mut all = Found { cases: 0, poisoned: Vec::new() };
    let mut note = |name: &str, form: usize, found: Found| {
        all.cases += found.cases;
        all.poisoned
            .extend(found.poisoned.into_iter().map(|what| format!("{name} {form}: {what}")));
    };
    for form in 0..FORMS.len() {
        let policies = [("application", Policy::application()), ("rfc9111", Policy::rfc9111())];
        for (name, policy) in policies {
            note(name, form, attack(policy.clone(), form, targets).await);
            note(name, form, attack(policy, form, with_field(&OVERRIDES)).await);
        }
        if form < PLAIN {
            let policy = Policy::application();
            note("application", form, attack(policy, form, with_field(&CREDENTIALS)).await);
        }
    }
    println!("{} cases of the catalogue of poisons", all.cases);
    assert!(all.cases >= 400, "{}", all.cases);
    assert!(all.poisoned.is_empty(), "{} poisoned: {:#?}", all.poisoned.len(), all.poisoned);
}
