//! Records as bytes: a small framed head, the body apart and never copied by reading.
//!
//! Numbers are big-endian. Everything that is read is checked; whatever is not exactly right is no record, and a length
//! is never believed further than the bytes that are there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_core::Encoded;
use larder_http_rules::no_vary_search::NoVarySearch;
use larder_http_rules::range::Part;
use larder_http_rules::{CredentialRule, FreshnessSource, Terms};
use smallvec::SmallVec;

use super::chunks::Chunks;
use super::record::{Content, Page, Stored, Variant};
use super::searches::Search;
use super::variants::List;

// Codec numbers of this crate's records; the engine's own are below 16.
const PAGE: u8 = 22;
const VARIANT: u8 = 23;

const MAX_LISTS: usize = 16;

pub(super) fn encode_page(page: &Page) -> Encoded {
    let mut head = BytesMut::with_capacity(512);
    head.put_u128(page.id);
    head.put_u8(page.lists.len() as u8);
    for one in &page.lists {
        block(&mut head, &list(one));
    }
    head.put_u16(page.others.len() as u16);
    page.others.iter().for_each(|name| head.put_slice(name));
    put_variant(&mut head, &page.newest);
    Encoded { codec: PAGE, head: head.freeze(), body: body(&page.newest) }
}

pub(super) fn encode_variant(variant: &Variant) -> Encoded {
    let mut head = BytesMut::with_capacity(512);
    put_variant(&mut head, variant);
    Encoded { codec: VARIANT, head: head.freeze(), body: body(variant) }
}

fn body(variant: &Variant) -> Bytes {
    variant.response.content.here().cloned().unwrap_or_default()
}

pub(super) fn decode_page(encoded: &Encoded, route: &CredentialRule) -> Option<Page> {
    if encoded.codec != PAGE {
        return None;
    }
    let mut head = Reader::new(&encoded.head);
    let id = u128::from_be_bytes(head.array()?);
    let count = head.u8()? as usize;
    if count > MAX_LISTS {
        return None;
    }
    let mut lists = SmallVec::with_capacity(count);
    for _ in 0..count {
        lists.push(Arc::new(get_list(head.block()?)?));
    }
    let count = head.u16()? as usize;
    let names = head.take(count.checked_mul(16)?)?;
    let others = names.chunks_exact(16).filter_map(|name| name.try_into().ok()).collect();
    let newest = Arc::new(get_variant(&mut head, encoded, route, lists.first())?);
    head.is_empty().then_some(Page { id, lists, others, newest })
}

pub(super) fn decode_variant(encoded: &Encoded, route: &CredentialRule) -> Option<Variant> {
    if encoded.codec != VARIANT {
        return None;
    }
    let mut head = Reader::new(&encoded.head);
    let variant = get_variant(&mut head, encoded, route, None)?;
    head.is_empty().then_some(variant)
}

/// A list, framed: equal lists, equal bytes.
pub(super) fn list(list: &List) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u16(list.headers.len() as u16);
    list.headers.iter().for_each(|name| block(&mut out, name.as_str().as_bytes()));
    for names in [&list.cookies, &list.values] {
        out.put_u16(names.len() as u16);
        names.iter().for_each(|name| block(&mut out, name.as_bytes()));
    }
    out
}

fn get_list(bytes: &[u8]) -> Option<List> {
    let (mut from, mut list) = (Reader::new(bytes), List::default());
    for _ in 0..from.u16()? {
        list.headers.push(HeaderName::from_bytes(from.block()?).ok()?);
    }
    for names in [&mut list.cookies, &mut list.values] {
        for _ in 0..from.u16()? {
            names.push(std::str::from_utf8(from.block()?).ok()?.into());
        }
    }
    from.is_empty().then_some(list)
}

fn put_variant(out: &mut BytesMut, variant: &Variant) {
    block(out, &list(&variant.list));
    block(out, &variant.selector);
    let stored = &variant.response;
    out.put_u16(stored.status.as_u16());
    put_terms(out, &stored.terms);
    match (&stored.content, &stored.part) {
        (Content::Here(_), None) => out.put_u8(0),
        (Content::Here(_), Some(part)) => {
            out.put_u8(1);
            for number in [part.bytes.start, part.bytes.end, part.of] {
                out.put_u64(number);
            }
        }
        (Content::Chunks(chunks), _) => {
            out.put_u8(2);
            out.put_u128(chunks.id);
            out.put_u32(chunks.size);
            out.put_u64(chunks.length);
        }
    }
    match &variant.by_language {
        None => out.put_u8(0),
        Some(selector) => {
            out.put_u8(1);
            block(out, selector);
        }
    }
    match &variant.search {
        None => out.put_u8(0),
        Some(Search { query: None, .. }) => out.put_u8(1),
        Some(Search { query: Some(query), .. }) => {
            out.put_u8(2);
            block(out, query.as_bytes());
        }
    }
    put_fields(out, &stored.headers);
    match &stored.trailers {
        None => out.put_u8(0),
        Some(trailers) => {
            out.put_u8(1);
            put_fields(out, trailers);
        }
    }
}

// `known` is a list that is probably the variant's own.
fn get_variant(
    head: &mut Reader<'_>,
    encoded: &Encoded,
    route: &CredentialRule,
    known: Option<&Arc<List>>,
) -> Option<Variant> {
    let list = get_list(head.block()?)?;
    let selector = head.block()?;
    let status = StatusCode::from_u16(head.u16()?).ok()?;
    let terms = get_terms(head)?;
    let here = || Content::Here(encoded.body.clone());
    let (content, part) = match head.u8()? {
        0 => (here(), None),
        1 => (here(), Some(get_part(head, encoded.body.len())?)),
        2 => (Content::Chunks(get_chunks(head)?), None),
        _ => return None,
    };
    let by_language = match head.u8()? {
        0 => None,
        1 => Some(head.block()?.into()),
        _ => return None,
    };
    let query = match head.u8()? {
        0 => None,
        1 => Some(None),
        2 => Some(Some(std::str::from_utf8(head.block()?).ok()?.to_owned())),
        _ => return None,
    };
    let headers = get_fields(head, &encoded.head)?;
    // The rule is in the field that says it.
    let search = match query {
        None => None,
        Some(query) => Some(Search { rule: NoVarySearch::of(&headers)?, query }),
    };
    let trailers = match head.u8()? {
        0 => None,
        1 => Some(get_fields(head, &encoded.head)?),
        _ => return None,
    };
    // The head was verified by its checksum; the time only serves two-digit years, which nobody here wrote.
    let now = std::time::SystemTime::UNIX_EPOCH;
    let has_slot = headers.keys().next() == Some(&AGE) && headers.get_all(AGE).iter().count() == 1;
    let make = if has_slot { Stored::complete } else { Stored::new };
    Some(Variant {
        rule: list.rule(route),
        list: match known {
            Some(known) if **known == list => known.clone(),
            _ => Arc::new(list),
        },
        selector: selector.into(),
        verbatim: None,
        by_language,
        search,
        response: Stored { part, ..make(status, headers, content, trailers, terms, now) },
    })
}

const SOURCES: [FreshnessSource; 7] = [
    FreshnessSource::None,
    FreshnessSource::Route,
    FreshnessSource::Default,
    FreshnessSource::SMaxAge,
    FreshnessSource::MaxAge,
    FreshnessSource::Expires,
    FreshnessSource::Heuristic,
];

fn put_terms(out: &mut BytesMut, terms: &Terms) {
    for duration in
        [terms.lifetime, terms.initial_age, terms.stale_while_revalidate, terms.stale_if_error]
    {
        out.put_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
    let source = SOURCES.iter().position(|source| *source == terms.source).unwrap_or(0);
    out.put_u8(source as u8);
    let flags = [
        terms.no_cache,
        terms.forbids_stale,
        terms.shared_despite_credentials,
        terms.has_validator,
    ];
    out.put_u8(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
}

fn get_terms(from: &mut Reader<'_>) -> Option<Terms> {
    let mut duration = || from.u64().map(Duration::from_millis);
    let (lifetime, initial_age) = (duration()?, duration()?);
    let (stale_while_revalidate, stale_if_error) = (duration()?, duration()?);
    let source = *SOURCES.get(from.u8()? as usize)?;
    let flags = from.u8()?;
    Some(Terms {
        lifetime,
        source,
        initial_age,
        no_cache: flags & 1 != 0,
        forbids_stale: flags & 2 != 0,
        stale_while_revalidate,
        stale_if_error,
        shared_despite_credentials: flags & 4 != 0,
        has_validator: flags & 8 != 0,
    })
}

// It must be of just the bytes that are there: what is cut out of them is found by it.
fn get_part(from: &mut Reader<'_>, body: usize) -> Option<Part> {
    let mut number = || from.u64();
    let (start, end, of) = (number()?, number()?, number()?);
    let whole = start <= end && end <= of && end - start == body as u64;
    whole.then_some(Part { bytes: start..end, of })
}

fn get_chunks(from: &mut Reader<'_>) -> Option<Chunks> {
    let id = u128::from_be_bytes(from.array()?);
    let size = u32::from_be_bytes(from.array()?);
    let length = from.u64()?;
    // Nothing is allocated by them, and each chunk is checked when it is read.
    (size > 0 && length > 0).then_some(Chunks { id, size, length })
}

fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    out.put_u16(fields.len() as u16);
    for (name, value) in fields {
        block(out, name.as_str().as_bytes());
        block(out, value.as_bytes());
    }
}

// Values are slices of `head`, which is being read.
fn get_fields(from: &mut Reader<'_>, head: &Bytes) -> Option<HeaderMap> {
    let count = from.u16()? as usize;
    // Each field takes at least eight bytes, so a false count allocates no more than the input allows.
    let mut fields = HeaderMap::with_capacity(count.min(from.rest.len() / 8));
    for _ in 0..count {
        let name = HeaderName::from_bytes(from.block()?).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(from.block()?)).ok()?;
        fields.try_append(name, value).ok()?;
    }
    Some(fields)
}

fn block(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// What is still to be read of a head. Plain slices: only what is kept is worth a count of who shares it.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(length as usize)
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, ETAG, VARY};
    use larder_http_rules::no_vary_search::NO_VARY_SEARCH;
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;

    fn page() -> Page {
        let list = Arc::new(List {
            headers: vec![ACCEPT_LANGUAGE],
            cookies: vec!["theme".into()],
            values: vec!["tenant".into()],
        });
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(ETAG, HeaderValue::from_bytes(b"\"\xff\"").unwrap());
        headers.append(VARY, HeaderValue::from_static("accept-language"));
        headers.append(VARY, HeaderValue::from_static("cookie"));
        headers.insert(NO_VARY_SEARCH, HeaderValue::from_static("key-order, params=(\"utm\")"));
        let rule = NoVarySearch::of(&headers).unwrap();
        let search = Search { rule, query: Some("page=2".into()) };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let terms = Terms {
            lifetime: Duration::from_millis(1500),
            source: FreshnessSource::SMaxAge,
            initial_age: Duration::from_secs(3),
            no_cache: false,
            forbids_stale: true,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::from_secs(9),
            shared_despite_credentials: true,
            has_validator: false,
        };
        let (status, now) = (StatusCode::IM_A_TEAPOT, SystemTime::UNIX_EPOCH);
        let response =
            Stored::new(status, headers, Content::Here("body".into()), Some(trailers), terms, now);
        let variant = Variant {
            rule: list.rule(&CredentialRule::default()),
            list: list.clone(),
            selector: (*b"\x01selector").into(),
            verbatim: None,
            by_language: Some((*b"\x05selector").into()),
            search: Some(search),
            response,
        };
        Page {
            id: 7,
            lists: smallvec![list, Arc::new(List::default())],
            others: vec![[1; 16], [2; 16]],
            newest: Arc::new(variant),
        }
    }

    #[test]
    fn a_page_comes_back_whole() {
        let (route, page) = (CredentialRule::default(), page());
        let encoded = encode_page(&page);
        let read = decode_page(&encoded, &route).unwrap();
        assert_eq!((read.id, &read.lists, &read.others), (page.id, &page.lists, &page.others));
        let (ours, theirs) = (&page.newest, &read.newest);
        assert_eq!(
            (&ours.list, &ours.selector, &ours.rule, &ours.search),
            (&theirs.list, &theirs.selector, &theirs.rule, &theirs.search)
        );
        let (ours, theirs) = (&ours.response, &theirs.response);
        assert_eq!(
            (ours.status, &ours.headers, ours.terms),
            (theirs.status, &theirs.headers, theirs.terms)
        );
        assert_eq!(ours.trailers, theirs.trailers);
        let there = theirs.content.here().map(|body| body.as_ptr());
        assert_eq!(there, Some(encoded.body.as_ptr()), "the body is not copied");

        let encoded = encode_variant(&page.newest);
        assert!(decode_page(&encoded, &route).is_none(), "a variant is no page");
        assert_eq!(decode_variant(&encoded, &route).unwrap().selector, page.newest.selector);
    }

    #[test]
    fn every_shortening_and_every_longer_head_is_no_page() {
        let encoded = encode_page(&page());
        for length in 0..encoded.head.len() {
            let cut = Encoded { head: encoded.head.slice(..length), ..encoded.clone() };
            assert!(decode_page(&cut, &CredentialRule::default()).is_none(), "{length} bytes");
        }
        let longer = [&encoded.head[..], b"x"].concat().into();
        let longer = Encoded { head: longer, ..encoded };
        assert!(decode_page(&longer, &CredentialRule::default()).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn hostile_heads_harm_nobody(
            noise in prop::collection::vec(any::<u8>(), 0..64),
            at in any::<prop::sample::Index>(),
            codec in prop_oneof![Just(PAGE), Just(VARIANT)],
        ) {
            let mut head = encode_page(&page()).head.to_vec();
            let at = at.index(head.len());
            let end = (at + noise.len()).min(head.len());
            head[at..end].copy_from_slice(&noise[..end - at]);
            for head in [head, noise] {
                let encoded = Encoded { codec, head: head.into(), body: Bytes::new() };
                let _ = decode_page(&encoded, &CredentialRule::default());
                let _ = decode_variant(&encoded, &CredentialRule::default());
            }
        }
    }
}
