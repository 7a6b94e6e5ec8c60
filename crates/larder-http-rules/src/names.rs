//! The request header names that matter, in one table: name → facts.
//!
//! The table is sorted into buckets while compiling, so that a look-up, which every request makes for each of its
//! headers, compares with one name or none.

use crate::request::RequestFacts;

const A: u32 = RequestFacts::AUTHORIZATION.bits();
const C: u32 = RequestFacts::COOKIE.bits();
const CREDENTIAL: u32 = RequestFacts::CREDENTIAL.bits();
const OVERRIDE: u32 = RequestFacts::OVERRIDE.bits();
const FORWARDED: u32 = RequestFacts::FORWARDED.bits();

/// Headers that say who is asking. `Authorization` and `Cookie` have flags of their own.
pub(crate) const CREDENTIALS: &[&str] = &[
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "x-apikey",
    "x-auth-token",
    "x-access-token",
    "x-session-token",
    "x-session-id",
    "x-id-token",
    "x-jwt-assertion",
    "x-user-token",
    "x-vault-token",
    "private-token",
    "x-amz-security-token",
    "cookie2",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-roles",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
    "remote-user",
    "remote-name",
    "remote-email",
    "remote-groups",
    "x-remote-user",
    "x-remote-email",
    "x-remote-group",
    "x-remote-groups",
    "x-authenticated-user",
    "x-authenticated-userid",
    "x-auth-user",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-access-token",
    "x-webauth-user",
    "x-user",
    "x-user-id",
    "x-user-email",
    "x-consumer-id",
    "x-consumer-username",
    "x-credential-identifier",
    "x-client-cert",
    "x-ssl-client-cert",
    "x-ssl-client-dn",
    "x-ssl-client-s-dn",
    "ssl-client-cert",
    "client-cert",
    "x-amzn-oidc-data",
    "x-amzn-oidc-identity",
    "x-amzn-oidc-accesstoken",
    "x-amzn-mtls-clientcert",
    "x-ms-client-principal",
    "x-ms-client-principal-id",
    "x-ms-client-principal-name",
    "x-goog-iap-jwt-assertion",
    "x-goog-authenticated-user-email",
    "x-goog-authenticated-user-id",
    "cf-access-jwt-assertion",
    "cf-access-authenticated-user-email",
];

/// Headers that some frameworks let replace the URL, host, scheme or method, or that steer a
/// framework's internals (threat P05). `x-middleware-*` is matched by its beginning.
pub(crate) const OVERRIDES: &[&str] = &[
    // the URL
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-override-url",
    "x-request-uri",
    "x-request-url",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-path",
    "x-forwarded-pathbase",
    "x-forwarded-path-base",
    "x-forwarded-base-path",
    "x-envoy-original-path",
    "x-replaced-path",
    "x-uri",
    "x-url",
    "x-path",
    "x-base-url",
    "base-url",
    "http-url",
    "request-uri",
    "destination",
    "path-info",
    "x-path-info",
    "script-name",
    "x-script-name",
    "x-context-path",
    "x-http-path-override",
    "x-http-destinationurl",
    "x-accel-mapping",
    "x-sendfile-type",
    // the host
    "x-host",
    "x-http-host",
    "x-http-host-override",
    "x-host-override",
    "x-override-host",
    "x-original-host",
    "x-real-host",
    "x-backend-host",
    "x-gateway-host",
    "x-proxy-host",
    "x-proxy-url",
    "x-forward-host",
    "x-forwarded",
    "x-forwarded-server",
    "x-forwarded-by",
    "x-forwarded-vhost",
    "forwarded-host",
    "forwarded-server",
    "x-envoy-original-host",
    "x-azure-host",
    "proxy-host",
    "proxy-url",
    "proxy",
    // the scheme and port
    "x-forwarded-scheme",
    "x-forwarded-protocol",
    "x-forwarded-ssl",
    "x-forwarded-https",
    "x-forward-proto",
    "forwarded-proto",
    "forwarded-port",
    "x-original-scheme",
    "x-original-proto",
    "x-original-port",
    "x-url-scheme",
    "x-scheme",
    "x-proto",
    "x-https",
    "x-ssl",
    "x-arr-ssl",
    "front-end-https",
    "cloudfront-forwarded-proto",
    "cdn-forwarded-proto",
    // the method
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-method",
    "x-original-method",
    "x-forwarded-method",
    "x-envoy-original-method",
    "http-method-override",
    "_method",
    // framework internals
    "x-nextjs-data",
    "x-now-route-matches",
    "x-matched-path",
    "x-invoke-path",
    "x-invoke-query",
    "x-invoke-status",
    "x-invoke-output",
    "x-invoke-error",
    "x-prerender-revalidate",
    "next-action",
    "next-router-state-tree",
    "next-router-prefetch",
    "rsc",
    "x-http-status-code-override",
];

const OTHERS: &[(&str, u32)] = &[
    ("authorization", A),
    ("cookie", C),
    ("range", RequestFacts::RANGE.bits()),
    ("cache-control", RequestFacts::CACHE_CONTROL.bits()),
    ("pragma", RequestFacts::PRAGMA.bits()),
    ("if-none-match", RequestFacts::CONDITIONAL.bits()),
    ("if-modified-since", RequestFacts::CONDITIONAL.bits()),
    ("if-match", RequestFacts::PRECONDITION.bits()),
    ("if-unmodified-since", RequestFacts::PRECONDITION.bits()),
    ("if-range", RequestFacts::IF_RANGE.bits()),
    ("content-length", RequestFacts::CONTENT.bits()),
    ("transfer-encoding", RequestFacts::CONTENT.bits()),
    ("upgrade", RequestFacts::UPGRADE.bits()),
    ("expect", RequestFacts::EXPECT.bits()),
    ("host", RequestFacts::HOST.bits()),
    ("x-forwarded-host", FORWARDED),
    ("x-forwarded-proto", FORWARDED),
    ("x-forwarded-port", FORWARDED),
    ("x-forwarded-prefix", FORWARDED),
    ("forwarded", FORWARDED),
];

const MIDDLEWARE: &[u8] = b"x-middleware-";

/// The facts that the presence of a header named `name` (lower case) establishes.
#[inline]
pub(crate) fn bits(name: &str) -> u32 {
    let name = name.as_bytes();
    let Some(bucket) = bucket(name) else { return 0 };
    // Most headers fall into an empty bucket.
    let (start, end) = (STARTS[bucket], STARTS[bucket + 1]);
    if start == end && name[0] != MIDDLEWARE[0] { 0 } else { compare(name, start, end) }
}

#[inline(never)]
fn compare(name: &[u8], start: u8, end: u8) -> u32 {
    for (known, bits) in &TABLE[usize::from(start)..usize::from(end)] {
        if known.as_bytes() == name {
            return *bits;
        }
    }
    if name.len() > MIDDLEWARE.len() && name.starts_with(MIDDLEWARE) { OVERRIDE } else { 0 }
}

const COUNT: usize = CREDENTIALS.len() + OVERRIDES.len() + OTHERS.len();
/// So many that most hold one name or none.
const BUCKETS: usize = 1024;

/// The names in the order of their buckets.
static TABLE: [(&str, u32); COUNT] = TABLE_AND_STARTS.0;
/// `STARTS[n]` is where the names of bucket n begin in [`TABLE`].
static STARTS: [u8; BUCKETS + 1] = TABLE_AND_STARTS.1;

/// Length and three letters tell nearly all names apart: no bucket has more than two, and the headers that browsers
/// send all fall into empty ones.
#[inline]
const fn bucket(name: &[u8]) -> Option<usize> {
    let [first, .., last] = name else { return None };
    let middle = name[name.len() / 2];
    let sum = name.len() * 31 + *first as usize * 13 + middle as usize * 61 + *last as usize * 5;
    Some(sum % BUCKETS)
}

const TABLE_AND_STARTS: ([(&str, u32); COUNT], [u8; BUCKETS + 1]) = {
    assert!(COUNT <= u8::MAX as usize, "STARTS holds bytes");
    let mut starts = [0u8; BUCKETS + 1];
    let mut at = 0;
    while at < COUNT {
        starts[bucket_of(at) + 1] += 1;
        at += 1;
    }
    let mut next = 0;
    while next < BUCKETS {
        starts[next + 1] += starts[next];
        next += 1;
    }
    let mut table = [("", 0); COUNT];
    let mut filled = starts;
    let mut at = 0;
    while at < COUNT {
        let slot = &mut filled[bucket_of(at)];
        table[*slot as usize] = nth(at);
        *slot += 1;
        at += 1;
    }
    (table, starts)
};

const fn bucket_of(at: usize) -> usize {
    bucket(nth(at).0.as_bytes()).expect("a name has two letters")
}

const fn nth(at: usize) -> (&'static str, u32) {
    if at < CREDENTIALS.len() {
        (CREDENTIALS[at], CREDENTIAL)
    } else if at < CREDENTIALS.len() + OVERRIDES.len() {
        (OVERRIDES[at - CREDENTIALS.len()], OVERRIDE)
    } else {
        OTHERS[at - CREDENTIALS.len() - OVERRIDES.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_once_and_near_misses_are_not() {
        let mut names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT, "a name stands twice");
        for at in 0..COUNT {
            let (name, expected) = nth(at);
            assert_eq!(bits(name), expected, "{name}");
            assert_eq!(name, name.to_ascii_lowercase());
            assert_eq!(bits(&format!("{name}-zz")), 0);
        }
        assert!(OVERRIDES.len() >= 60);
        assert_eq!(bits("x-middleware-subrequest"), OVERRIDE);
        assert_eq!(bits(&format!("x-middleware-{}", "a".repeat(80))), OVERRIDE);
        assert_eq!(bits("x-forwarded-for"), 0);
        assert_eq!(bits("accept"), 0);
        assert_eq!(bits(""), 0);
        assert_eq!(bits(&"a".repeat(1000)), 0);
    }
}
