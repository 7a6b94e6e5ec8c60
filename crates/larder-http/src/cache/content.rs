//! QUERY: what is stored for the content of a request (RFC 10008 §2.7). [`QueryLayer`](crate::QueryLayer) has read it.
//!
//! Its key is that of the URL with a hash behind it, so no other method's request has it. Nobody knows which contents
//! a URL was asked for, so all that is stored for them carries a tag, by which a change of the URL drops it.

use std::borrow::Cow;

use http::Method;
use larder_core::{Key, KeyBuf, KeyRef, Tag};
use larder_http_rules::RequestFacts;

use super::layer::Config;
use crate::RequestHead;
use crate::mark::Queries;

/// What comes behind a URL's key for a QUERY; two parts with the hash.
pub(super) const WORD: &str = "content";

/// What there is to know beyond the fields: that the request is a QUERY whose content was read.
#[inline]
pub(super) fn facts(head: RequestHead<'_>) -> RequestFacts {
    if *head.method() != Method::GET && digest(head).is_some() {
        return RequestFacts::CONTENT_KEYED;
    }
    RequestFacts::default()
}

fn digest(head: RequestHead<'_>) -> Option<&[u8; 32]> {
    match head.extensions().get()? {
        Queries::Content(digest) if head.method().as_str() == "QUERY" => Some(digest),
        _ => None,
    }
}

/// Writes the content behind a URL's key, if the request is one that is looked up by it.
pub(super) fn write(key: &mut KeyBuf, head: RequestHead<'_>, facts: RequestFacts) {
    if facts.any(RequestFacts::CONTENT_KEYED)
        && let Some(digest) = digest(head)
    {
        key.push(WORD);
        key.push(digest);
    }
}

/// Whether QUERYs may have been stored for what an unsafe request changes.
pub(super) fn may_be_stored(head: RequestHead<'_>) -> bool {
    head.extensions().get::<Queries>().is_some()
}

/// The tag of all that is stored for QUERYs of a URL, by the URL's own key.
pub(super) fn tag(url: KeyRef<'_>) -> Option<Tag> {
    tag_of(url.parts())
}

/// The same by the key of such a QUERY.
fn tag_behind(key: KeyRef<'_>) -> Option<Tag> {
    tag_of(key.parts().take(key.parts().count() - 2))
}

fn tag_of<'a>(parts: impl Iterator<Item = Option<&'a [u8]>>) -> Option<Tag> {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&[u8::from(part.is_some())]);
        hasher.update(&(part.unwrap_or_default().len() as u64).to_be_bytes());
        hasher.update(part.unwrap_or_default());
    }
    Tag::new(&format!("contents {}", &hasher.finalize().to_hex()[..32])).ok()
}

impl Config {
    /// The tags that every response under this key has: the route's, and that of a QUERY.
    pub(super) fn tags_under(&self, key: &Key, facts: RequestFacts) -> Cow<'_, [Tag]> {
        with(&self.tags, key, facts, |tag| [tag].into())
    }

    /// The same with their lasting twins.
    pub(super) fn watched_under(&self, key: &Key, facts: RequestFacts) -> Cow<'_, [Tag]> {
        with(&self.watched, key, facts, |tag| vec![tag.lasting(), tag])
    }
}

fn with<'a>(
    tags: &'a [Tag],
    key: &Key,
    facts: RequestFacts,
    own: impl FnOnce(Tag) -> Vec<Tag>,
) -> Cow<'a, [Tag]> {
    if !facts.any(RequestFacts::CONTENT_KEYED) {
        return Cow::Borrowed(tags);
    }
    tags.iter().cloned().chain(tag_behind(key.as_ref()).map(own).unwrap_or_default()).collect()
}
