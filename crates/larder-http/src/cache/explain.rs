//! Showing a developer how a request was decided, in two fields of the response.

use std::fmt::Write;

use http::{HeaderName, HeaderValue, Request};
use larder_core::KeyBuf;
use larder_http_rules::RequestFacts;

use super::layer::Shared;
use super::{content, key};
use crate::RequestHead;

/// By this a request asks to be explained; its value is the secret.
const ASK: HeaderName = HeaderName::from_static("larder-explain");
/// What was decided, by which rule.
pub(super) const VERDICT: HeaderName = HeaderName::from_static("larder-verdict");
/// What the request was looked up by.
pub(super) const KEY: HeaderName = HeaderName::from_static("larder-key");

/// The secret, as its hash. Comparing two takes the same time wherever they differ.
#[derive(Clone)]
pub(super) struct Secret(blake3::Hash);

impl Secret {
    pub(super) fn new(secret: &str) -> Self {
        Secret(blake3::hash(secret.as_bytes()))
    }

    fn is(&self, given: &HeaderValue) -> bool {
        self.0 == blake3::hash(given.as_bytes())
    }
}

/// What a request is looked up by, if it asks and may. The secret goes no further.
pub(super) fn asked<B>(
    secret: &Secret,
    shared: &Shared,
    request: &mut Request<B>,
) -> Option<Box<HeaderValue>> {
    let given = request.headers_mut().remove(ASK)?;
    secret.is(&given).then(|| Box::new(key(shared, request)))
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

// What the request is looked up by: all parts of its key, or why it has none.
fn key<B>(shared: &Shared, request: &Request<B>) -> HeaderValue {
    let head = RequestHead::from(request);
    let (facts, host) = RequestFacts::scan_with_host(&shared.config.policy, head.headers());
    let facts = facts.union(content::facts(head));
    let mut key = KeyBuf::from(shared.config.room.as_ref());
    let text = match key::write_request(&mut key, shared, head, facts, host) {
        Err(reason) => format!("none; reason={}", reason.as_str()),
        Ok(rewritten) => {
            let mut parts = key.as_ref().ok().into_iter().flat_map(|key| key.parts()).skip(1);
            let mut text = String::new();
            let mut tell = |name: &str, part: Option<&[u8]>| {
                let Some(part) = part else { return };
                let separator = if text.is_empty() { "" } else { "; " };
                // Writing to a string does not fail.
                let _ = write!(text, "{separator}{name}=\"{}\"", part.escape_ascii());
            };
            for name in ["authority", "path", "query", "forwarded"] {
                tell(name, parts.next().flatten());
            }
            // Behind those, a word tells what follows.
            while let (Some(Some(word)), part) = (parts.next(), parts.next().flatten()) {
                match word {
                    b"partition" => tell("partition", part),
                    _ => tell(content::WORD, part.map(hex).as_deref()),
                }
            }
            if rewritten {
                text.push_str("; no-vary-search");
            }
            text
        }
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unprintable"))
}
