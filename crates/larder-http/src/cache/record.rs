//! What is stored for a URL: parsed once, read by every hit.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AGE, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_core::{Encoded, Live, Result as StoreResult};
use larder_http_rules::range::Part;
use larder_http_rules::{CredentialRule, Policy, RequestFacts, Terms, date};
use smallvec::{SmallVec, smallvec};

use super::chunks::{self, Chunks};
use super::searches::Search;
use super::variants::List;
use super::wire;
use crate::RequestHead;

/// The record of a URL: the newest variant, and how to find the others.
pub(super) struct Page {
    /// Names the other variants. A page that was removed and made anew has another id, so that nothing that belonged
    /// to the old one is found again.
    pub(super) id: PageId,
    /// The lists by which variants of this URL are told apart, newest first.
    pub(super) lists: SmallVec<[Arc<List>; 1]>,
    /// The names of the other variants, newest first.
    pub(super) others: Vec<[u8; 16]>,
    /// The newest variant.
    pub(super) newest: Variant,
}

/// The id of a page, and in its last two bytes how often the page was made stale by its URL: whoever began before that
/// does not store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageId(pub(super) u128);

impl PageId {
    /// What the names of the page's variants are made of.
    pub(super) fn name(self) -> [u8; 16] {
        (self.0 & !PURGES).to_be_bytes()
    }

    pub(super) fn purged(self) -> Self {
        PageId((self.0 & !PURGES) | (self.0.wrapping_add(1) & PURGES))
    }
}

const PURGES: u128 = 0xffff;

/// One stored response and the request values that select it.
#[derive(Clone)]
pub(super) struct Variant {
    pub(super) list: Arc<List>,
    /// The route's rule for credentials together with the list's cookies, where they differ.
    pub(super) rule: Option<CredentialRule>,
    pub(super) selector: Box<[u8]>,
    /// The list's fields as the filling request sent them: a request that sends the same selects this variant, without
    /// a look at what they mean. Kept in memory only.
    pub(super) verbatim: Option<Box<[Option<HeaderValue>]>>,
    /// The selector by the language of the response instead of what the request accepts, where languages are selected.
    pub(super) by_language: Option<Box<[u8]>>,
    /// The queries that it answers, where it says that not all of a query matters.
    pub(super) search: Option<Search>,
    pub(super) response: Stored,
}

/// A variant that somebody uses, wherever it stands.
#[derive(Clone)]
pub(super) enum Shown {
    Newest(Arc<Page>),
    Other(Arc<Variant>),
}

impl Deref for Shown {
    type Target = Variant;

    fn deref(&self) -> &Variant {
        match self {
            Shown::Newest(page) => &page.newest,
            Shown::Other(variant) => variant,
        }
    }
}

/// A stored response.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) status: StatusCode,
    /// Complete, with a slot for `Age` before all others: a hit clones the map and overwrites the first value, which
    /// moves nothing and searches nothing.
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) trailers: Option<Arc<HeaderMap>>,
    /// Which bytes of the whole it has, if not all.
    pub(super) part: Option<Part>,
    pub(super) terms: Terms,
    pub(super) last_modified: Option<SystemTime>,
}

/// The bytes of a stored response.
#[derive(Clone)]
pub(super) enum Content {
    Here(Bytes),
    /// In entries of their own; always of a whole without trailers.
    Chunks(Chunks),
}

impl Content {
    /// How many there are.
    pub(super) fn length(&self) -> u64 {
        match self {
            Content::Here(body) => body.len() as u64,
            Content::Chunks(chunks) => chunks.length,
        }
    }

    /// Those that are here.
    pub(super) fn here(&self) -> Option<&Bytes> {
        match self {
            Content::Here(body) => Some(body),
            Content::Chunks(_) => None,
        }
    }
}

/// These fields behind a slot for `Age`; `names` is how many there may become.
pub(super) fn slotted<'a>(
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    names: usize,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(names + 1);
    headers.insert(AGE, HeaderValue::from_static("0"));
    for (name, value) in fields.filter(|(name, _)| **name != AGE) {
        headers.append(name, value.clone());
    }
    headers
}

impl Stored {
    /// `headers` are [slotted].
    pub(super) fn new(
        status: StatusCode,
        headers: HeaderMap,
        content: Content,
        trailers: Option<HeaderMap>,
        terms: Terms,
        now: SystemTime,
    ) -> Self {
        Stored {
            status,
            last_modified: date::parse_field(&headers, LAST_MODIFIED, now),
            headers,
            content,
            trailers: trailers.map(Arc::new),
            part: None,
            terms,
        }
    }

    /// For how long it is kept.
    pub(super) fn kept_for(&self, policy: &Policy) -> Duration {
        let usable_for = self.terms.usable_for(policy);
        match self.content {
            Content::Here(_) => usable_for,
            Content::Chunks(_) => usable_for.min(chunks::LONGEST),
        }
    }

    /// The length of the whole.
    pub(super) fn length(&self) -> u64 {
        self.part.as_ref().map_or(self.content.length(), |part| part.of)
    }

    /// Where these bytes of the whole, which must be there, lie in what is stored.
    pub(super) fn place(&self, bytes: &Range<u64>) -> Range<usize> {
        let first = self.part.as_ref().map_or(0, |part| part.bytes.start);
        (bytes.start - first) as usize..(bytes.end - first) as usize
    }

    fn weight(&self) -> usize {
        // A map has room for more fields than it has, and each value is shared, which has a head of its own.
        let fields = |map: &HeaderMap| {
            let text: usize = map.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
            112 * map.capacity() + 48 * map.len() + text
        };
        size_of::<Self>()
            + self.content.here().map_or(0, Bytes::len)
            + fields(&self.headers)
            + self.trailers.as_deref().map_or(0, fields)
    }
}

impl Variant {
    /// Whether it answers the request's query. One that says nothing about queries lies under its own.
    pub(super) fn covers(&self, head: RequestHead<'_>, facts: RequestFacts) -> bool {
        match &self.search {
            None => !facts.any(RequestFacts::QUERY_REWRITTEN),
            Some(search) => search.covers(head.uri().query()),
        }
    }

    /// What this variant is called among the others of its page.
    pub(super) fn name(list: &List, selector: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&wire::list(list));
        hasher.update(selector);
        let mut name = [0; 16];
        name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        name
    }

    /// The same variant, so much older: for a record that is written anew.
    pub(super) fn aged(&self, by: Duration) -> Variant {
        let mut aged = Variant { verbatim: None, ..self.clone() };
        aged.response.terms.initial_age = self.response.terms.age(by);
        aged
    }

    fn own_weight(&self) -> usize {
        size_of::<Self>() + 2 * self.selector.len() + 64 + self.response.weight()
    }
}

impl Page {
    /// The first page of a URL.
    pub(super) fn first(variant: Variant) -> Self {
        let lists = smallvec![variant.list.clone()];
        Page { id: PageId(rand::random()), lists, others: Vec::new(), newest: variant }
    }
}

impl Live for Page {
    fn encode(&self) -> StoreResult<Encoded> {
        Ok(wire::encode_page(self))
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
            + 16 * self.others.len()
            + 64 * self.lists.len()
            + self.newest.own_weight()
    }
}

impl Live for Variant {
    fn encode(&self) -> StoreResult<Encoded> {
        Ok(wire::encode_variant(self))
    }

    fn weight(&self) -> usize {
        self.own_weight()
    }
}
