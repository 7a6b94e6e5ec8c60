//! Records as bytes: a small framed head, the body apart and never copied by reading.
//!
//! Numbers are big-endian. Everything that is read is checked; whatever is not exactly right is no record, and a length
//! is never believed further than the bytes that are there. Nothing is worked out twice: names that responses usually
//! have are numbers, times too, and the slot for `Age` is not written.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, AGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_core::Encoded;
use larder_http_rules::no_vary_search::NoVarySearch;
use larder_http_rules::range::Part;
use larder_http_rules::{CredentialRule, FreshnessSource, Terms};
use smallvec::SmallVec;

use super::chunks::Chunks;
use super::record::{Content, Page, PageId, Stored, Variant};
use super::searches::Search;
use super::variants::List;

// Codec numbers of this crate's records; the engine's own are below 16. 22 and 23 were those of an earlier form, which is
// a miss.
const PAGE: u8 = 24;
const VARIANT: u8 = 25;

const MAX_LISTS: usize = 16;

// Where a variant's list would be found among its page's: it stands there itself.
const OWN_LIST: u8 = u8::MAX;

// The names that are written as their place here, counted from one. What is stored depends on it: new ones go to the end.
static NAMES: [HeaderName; 40] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CACHE_CONTROL,
    header::DATE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
    header::EXPIRES,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_SECURITY_POLICY_REPORT_ONLY,
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::ALLOW,
    header::ALT_SVC,
    header::CACHE_STATUS,
    header::CDN_CACHE_CONTROL,
    header::LINK,
    header::LOCATION,
    header::PRAGMA,
    header::REFERRER_POLICY,
    header::RETRY_AFTER,
    header::SERVER,
    header::STRICT_TRANSPORT_SECURITY,
    header::VIA,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
    header::X_XSS_PROTECTION,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT,
];

pub(super) fn encode_page(page: &Page) -> Encoded {
    let mut head = BytesMut::with_capacity(512);
    head.put_u128(page.id.0);
    head.put_u8(page.lists.len() as u8);
    for one in &page.lists {
        block(&mut head, &list(one));
    }
    head.put_u16(page.others.len() as u16);
    page.others.iter().for_each(|name| head.put_slice(name));
    put_variant(&mut head, &page.newest, &page.lists);
    Encoded { codec: PAGE, head: head.freeze(), body: body(&page.newest) }
}

pub(super) fn encode_variant(variant: &Variant) -> Encoded {
    let mut head = BytesMut::with_capacity(512);
    put_variant(&mut head, variant, &[]);
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
    let id = PageId(u128::from_be_bytes(head.array()?));
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
    let newest = get_variant(&mut head, encoded, route, &lists)?;
    head.is_empty().then_some(Page { id, lists, others, newest })
}

pub(super) fn decode_variant(encoded: &Encoded, route: &CredentialRule) -> Option<Variant> {
    if encoded.codec != VARIANT {
        return None;
    }
    let mut head = Reader::new(&encoded.head);
    let variant = get_variant(&mut head, encoded, route, &[])?;
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

// `lists` are its page's.
fn put_variant(out: &mut BytesMut, variant: &Variant, lists: &[Arc<List>]) {
    match lists.iter().take(MAX_LISTS).position(|list| *list == variant.list) {
        Some(place) => out.put_u8(place as u8),
        None => {
            out.put_u8(OWN_LIST);
            block(out, &list(&variant.list));
        }
    }
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
    put_time(out, stored.last_modified);
    put_fields(out, &stored.headers, true);
    match &stored.trailers {
        None => out.put_u8(0),
        Some(trailers) => {
            out.put_u8(1);
            put_fields(out, trailers, false);
        }
    }
}

fn get_variant(
    head: &mut Reader<'_>,
    encoded: &Encoded,
    route: &CredentialRule,
    lists: &[Arc<List>],
) -> Option<Variant> {
    let list = match head.u8()? {
        OWN_LIST => Arc::new(get_list(head.block()?)?),
        place => lists.get(usize::from(place))?.clone(),
    };
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
    let last_modified = get_time(head)?;
    // Complete, as a hit needs them: the slot before all others.
    let headers = get_fields(head, &encoded.head, true)?;
    // The rule is in the field that says it.
    let search = match query {
        None => None,
        Some(query) => Some(Search { rule: NoVarySearch::of(&headers)?, query }),
    };
    let trailers = match head.u8()? {
        0 => None,
        1 => Some(Arc::new(get_fields(head, &encoded.head, false)?)),
        _ => return None,
    };
    Some(Variant {
        rule: list.rule(route),
        list,
        selector: selector.into(),
        verbatim: None,
        by_language,
        search,
        response: Stored { status, headers, content, trailers, part, terms, last_modified },
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

// Dates in fields have whole seconds.
fn put_time(out: &mut BytesMut, time: Option<SystemTime>) {
    let Some(time) = time else { return out.put_u8(0) };
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => {
            out.put_u8(1);
            out.put_u64(after.as_secs());
        }
        Err(before) => {
            out.put_u8(2);
            out.put_u64(before.duration().as_secs());
        }
    }
}

fn get_time(from: &mut Reader<'_>) -> Option<Option<SystemTime>> {
    let epoch = SystemTime::UNIX_EPOCH;
    let (kind, seconds) = match from.u8()? {
        0 => return Some(None),
        kind => (kind, Duration::from_secs(from.u64()?)),
    };
    match kind {
        1 => epoch.checked_add(seconds).map(Some),
        2 => epoch.checked_sub(seconds).map(Some),
        _ => None,
    }
}

// The slot for `Age` is not written: it is made anew.
fn put_fields(out: &mut BytesMut, fields: &HeaderMap, slot: bool) {
    let written = || fields.iter().filter(|(name, _)| !slot || **name != AGE);
    out.put_u16(written().count() as u16);
    for (name, value) in written() {
        match NAMES.iter().position(|known| known == name) {
            Some(place) => out.put_u8(place as u8 + 1),
            None => {
                out.put_u8(0);
                block(out, name.as_str().as_bytes());
            }
        }
        block(out, value.as_bytes());
    }
}

// Values are slices of `head`, which is being read.
fn get_fields(from: &mut Reader<'_>, head: &Bytes, slot: bool) -> Option<HeaderMap> {
    let count = from.u16()? as usize;
    // Each field takes at least five bytes, so a false count allocates no more than the input allows.
    let room = count.min(from.rest.len() / 5) + usize::from(slot);
    let mut fields = HeaderMap::try_with_capacity(room).ok()?;
    if slot {
        fields.try_append(AGE, HeaderValue::from_static("0")).ok()?;
    }
    for _ in 0..count {
        let name = match usize::from(from.u8()?).checked_sub(1) {
            Some(place) => NAMES.get(place)?.clone(),
            None => HeaderName::from_bytes(from.block()?).ok()?,
        };
        if slot && name == AGE {
            return None;
        }
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
    use super::super::record::slotted;
    use http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY};
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
        headers.insert("x-region", HeaderValue::from_static("eu"));
        headers.insert(LAST_MODIFIED, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:07 GMT"));
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
        let (headers, content) = (slotted(headers.iter(), 9), Content::Here("body".into()));
        let response = Stored::new(status, headers, content, Some(trailers), terms, now);
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
            id: PageId(7),
            lists: smallvec![list, Arc::new(List::default())],
            others: vec![[1; 16], [2; 16]],
            newest: variant,
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
        assert_eq!(theirs.headers.keys().next(), Some(&AGE), "its slot comes first");
        assert_eq!((&ours.trailers, ours.last_modified), (&theirs.trailers, theirs.last_modified));
        assert!(theirs.last_modified.is_some());
        let there = theirs.content.here().map(|body| body.as_ptr());
        assert_eq!(there, Some(encoded.body.as_ptr()), "the body is not copied");

        let encoded = encode_variant(&page.newest);
        assert!(decode_page(&encoded, &route).is_none(), "a variant is no page");
        assert_eq!(decode_variant(&encoded, &route).unwrap().selector, page.newest.selector);
    }

    #[test]
    fn times_before_and_after_1970_come_back() {
        let epoch = SystemTime::UNIX_EPOCH;
        let hour = Duration::from_secs(3600);
        for time in [None, Some(epoch), Some(epoch + hour), Some(epoch - hour)] {
            let mut out = BytesMut::new();
            put_time(&mut out, time);
            assert_eq!(get_time(&mut Reader::new(&out)), Some(time));
        }
        let far = [&[1][..], &[0xff; 8]].concat();
        assert_eq!(get_time(&mut Reader::new(&far)), None);
    }

    #[test]
    fn a_name_is_one_number_and_the_slot_is_nobodys() {
        for (place, name) in NAMES.iter().enumerate() {
            assert_eq!(NAMES.iter().position(|other| other == name), Some(place));
            assert_ne!(*name, AGE);
        }
        // Changing the order changes what older records say.
        assert_eq!((&NAMES[0], &NAMES[6], &NAMES[39]), (&CONTENT_TYPE, &VARY, &header::ACCEPT));
        let mut age = BytesMut::new();
        age.put_slice(&[0, 1, 0]);
        block(&mut age, b"age");
        block(&mut age, b"5");
        let age = age.freeze();
        assert!(get_fields(&mut Reader::new(&age), &age, true).is_none());
        assert!(
            get_fields(&mut Reader::new(&age), &age, false).is_some(),
            "a trailer may be called so"
        );
    }

    #[test]
    fn more_fields_than_a_map_takes_are_no_page() {
        let mut many = BytesMut::new();
        many.put_u16(u16::MAX);
        for _ in 0..u16::MAX {
            many.put_slice(&[1, 0, 0, 0, 0]);
        }
        let many = many.freeze();
        assert!(get_fields(&mut Reader::new(&many), &many, true).is_none());
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
