//! Fuzzing of whatever reads bytes that somebody else wrote. `scripts/fuzz` runs the targets for as long as it is told;
//! the tests run each a few thousand times.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Field names that decide something, and one that nobody knows.
const NAMES: [&str; 48] = [
    "cache-control",
    "age",
    "date",
    "expires",
    "vary",
    "etag",
    "last-modified",
    "set-cookie",
    "pragma",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "content-range",
    "content-length",
    "content-encoding",
    "content-language",
    "content-location",
    "location",
    "authorization",
    "cookie",
    "accept",
    "accept-encoding",
    "accept-language",
    "host",
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-original-url",
    "cdn-cache-control",
    "cache-groups",
    "cache-group-invalidation",
    "no-vary-search",
    "connection",
    "trailer",
    "transfer-encoding",
    "te",
    "upgrade",
    "expect",
    "surrogate-key",
    "cache-status",
    "x-api-key",
    "warning",
    "x-unknown",
];

/// Fields out of random bytes: a byte for the name, a byte for how long the value is, the value.
#[must_use]
pub fn fields(mut bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    while let [name, length, rest @ ..] = bytes {
        let (value, after) = rest.split_at(usize::from(*length).min(rest.len()));
        let name = HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
        bytes = after;
    }
    headers
}

/// The words of which real fields are made, for bytes that are more than noise: each byte chooses one.
const WORDS: [&str; 64] = [
    "max-age",
    "s-maxage",
    "no-store",
    "no-cache",
    "private",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "stale-while-revalidate",
    "stale-if-error",
    "only-if-cached",
    "min-fresh",
    "max-stale",
    "no-transform",
    "=",
    "=",
    ",",
    ",",
    ", ",
    ";",
    ";",
    "\"",
    "\"",
    "\\",
    "'",
    "(",
    ")",
    "?1",
    "?0",
    "*",
    "0",
    "1",
    "60",
    "-1",
    "1e9",
    "99999999999999999999",
    "bytes",
    "-",
    "/",
    "W/",
    "\"a\"",
    "\"b\"",
    "q",
    ".5",
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "Thursday, 01-Jan-26 00:00:00 GMT",
    "Thu Jan  1 00:00:00 2026",
    "GMT",
    "gzip",
    "br",
    "identity",
    "de",
    "en-US",
    "site.example",
    "[::1]",
    ":80",
    "http://",
    "params",
    "key-order",
    "except",
    "\t",
    " ",
];

/// The same fields with values made of words.
#[must_use]
pub fn worded(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in bytes.split(|byte| *byte == 0) {
        let [name, words @ ..] = field else { continue };
        let value: String =
            words.iter().map(|word| WORDS[usize::from(*word) % WORDS.len()]).collect();
        let name = HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]);
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
    headers
}
