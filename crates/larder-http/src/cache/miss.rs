//! What memory could not answer: asking the store, waiting for another request's fill, or filling.

use std::pin::pin;
use std::sync::Arc;

use http::header::{IF_RANGE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use larder_cache::{Heard, Joined, Landed, Lookup, Passenger};
use larder_core::{Entry, Key, KeyBuf, Moment, Revision, Tag};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::reuse::Failure;
use larder_http_rules::{CredentialState, Reason, RequestFacts, Reuse, range};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::answer::Answer;
use super::body::{BoxError, ResponseBody};
use super::chunks::Chunks;
use super::fill::{Announced, Answered, Fill, Filled, Landing, Streaming};
use super::kept;
use super::layer::Shared;
use super::plan::may_store;
use super::record::{Content, Page, PageId, Shown, Variant};
use super::service::{Asked, strip};
use super::shadow::compare;
use super::stream::Follower;
use super::verdict::{self, Tier, Told};
use super::wire;
use crate::RequestHead;
use crate::head::Snapshot;

/// A request that was not answered from memory.
pub(super) struct Missed<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: S,
    pub(super) key: Key,
    pub(super) facts: RequestFacts,
    pub(super) only_if_cached: bool,
}

/// What a look came to.
pub(super) enum Seen<B: Body> {
    Answer(Response<ResponseBody<B>>),
    /// An answer that is stale, and what is to be refreshed meanwhile.
    Stale(Response<ResponseBody<B>>, There, Held),
    Pass(Reason),
    Miss {
        forward: Forward,
        reason: Reason,
        there: There,
        held: Option<Held>,
    },
}

/// What waiting for another request's fill came to.
enum Waited<B: Body> {
    /// Its response, whose body comes as that fill gets it.
    Along(Response<ResponseBody<B>>),
    /// Nothing: its response is none to wait for.
    Unfit(Reason),
    /// Its end.
    Landed(Option<Landed>),
}

/// What is stored under the key, and is no answer.
#[derive(Clone)]
pub(super) enum There {
    Nothing,
    /// A page of that revision, written at that time.
    Page(Revision, Moment, Entry, Arc<Page>),
    /// Something of that revision that must not be used.
    Unusable(Revision),
    /// The store cannot be asked.
    Outage,
}

/// A stored response that the request selects, and that is no answer as it is.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) variant: Shown,
    pub(super) written: Moment,
    pub(super) tags: Arc<[Tag]>,
    /// All that is asked for is there, so that the handler need only say that it is good.
    pub(super) whole: bool,
}

// A fill that was voided, or that made another variant, is looked at anew; after so many looks the handler is asked.
const ROUNDS: usize = 4;

// Longer ranges than any that is worth storing an answer to.
const LONGEST_RANGE: usize = 256;

impl<S> Missed<S> {
    /// Looks at what memory could not tell; a store has most of it. What else there may be to do needs a larger future.
    pub(super) async fn ask<ReqB, ResB>(self, request: Request<ReqB>) -> Answered<ResB, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ResB: Body<Data: Send, Error: Into<BoxError> + Send> + Send + 'static,
    {
        let head = RequestHead::from(&request);
        match self.shared.look(&self.key, Asked::Unknown, head, self.facts).await {
            Seen::Answer(response) if self.shared.config.shadow.is_none() => Ok(response),
            seen => Box::pin(self.run(request, Asked::Unknown, Some(seen))).await,
        }
    }

    /// Goes on from what memory said, or from a look that was taken already.
    pub(super) async fn run<ReqB, ResB>(
        self,
        mut request: Request<ReqB>,
        mut asked: Asked,
        mut seen: Option<Seen<ResB>>,
    ) -> Answered<ResB, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ResB: Body<Data: Send, Error: Into<BoxError> + Send> + Send + 'static,
    {
        let Missed { shared, mut inner, key, facts, only_if_cached } = self;
        let config = &shared.config;
        let mut told = Told::new(config, facts, Forward::UriMiss, Reason::Miss);
        // Made after the first look: a hit does not need it.
        let mut taken: Option<Snapshot> = None;
        // One wait for all rounds, from when the first begins.
        let mut patience = None;
        for _ in 0..ROUNDS {
            let before = taken.as_ref();
            let head = before.map_or(RequestHead::from(&request), RequestHead::from);
            let found = match seen.take() {
                Some(seen) => seen,
                None => {
                    let asked = std::mem::replace(&mut asked, Asked::Unknown);
                    shared.look(&key, asked, head, facts).await
                }
            };
            let found = match (&config.shadow, found) {
                (None, Seen::Answer(response)) => return Ok(response),
                (Some(report), Seen::Answer(answer) | Seen::Stale(answer, ..)) => {
                    told.because(Reason::Shadow);
                    return compare(&shared, report, &mut inner, request, answer, &told).await;
                }
                (_, seen) => seen,
            };
            let snapshot = taken.take().unwrap_or_else(|| Snapshot::from(&request));
            let head = RequestHead::from(&snapshot);
            let (there, held) = match found {
                Seen::Answer(response) => return Ok(response),
                Seen::Stale(response, there, held) => {
                    let fill = Fill::new(&shared, &key, snapshot, facts, there, Some(held), told);
                    fill.behind(inner, request);
                    return Ok(response);
                }
                Seen::Pass(reason) => {
                    let told = Told::new(config, facts, Forward::Request, reason);
                    return alone(&shared, &mut inner, request, &told).await;
                }
                Seen::Miss { forward, reason, there, held } => {
                    told.forward_because(forward, reason);
                    (there, held)
                }
            };
            // In a shadow the handler is asked as if there were no cache.
            let held = held.filter(|_| config.shadow.is_none());
            if only_if_cached && config.shadow.is_none() {
                return Ok(gateway_timeout(&told));
            }
            if *head.method() == Method::HEAD {
                // A response to HEAD fills nothing, so nobody waits for it and it waits for nobody.
                if held.is_none() {
                    return alone(&shared, &mut inner, request, &told).await;
                }
                let facts = facts.without(RequestFacts::RANGE.union(RequestFacts::IF_RANGE));
                let asked = Fill::new(&shared, &key, snapshot.into_get(), facts, there, held, told);
                return Box::pin(asked.head(inner, request)).await;
            }
            let Some(flight) = shared.flight(&key, &there, head, facts) else {
                return alone(&shared, &mut inner, request, &told).await;
            };
            let large = shared.large.holds(&flight, config.store.clock());
            if large || shared.passes.holds(&flight, config.store.clock()) {
                told.because(Reason::PassMark);
                let response = alone(&shared, &mut inner, request, &told).await?;
                if may_store(&shared, &key, &snapshot, facts, &response)
                    .is_ok_and(|length| !large || length.is_some())
                {
                    shared.passes.lift(&flight);
                    shared.large.lift(&flight);
                }
                return Ok(response);
            }
            // Whoever must have the handler's own word gets nothing from another one's fill, so it waits for none.
            let joined = if told.wants_its_own() && held.is_some() {
                None
            } else {
                Some(config.store.join(&flight, &key, &config.tags_under(&key, facts)))
            };
            let passenger = match joined {
                Some(Joined::Passenger(passenger)) => passenger,
                other => {
                    let Some(room) = shared.room() else {
                        // Who has just begun to wait for it asks the handler as well.
                        drop(other);
                        told.because(Reason::TooManyFills);
                        return alone(&shared, &mut inner, request, &told).await;
                    };
                    let pilot = match other {
                        Some(Joined::Pilot(pilot, itself)) => {
                            drop(itself);
                            Some(pilot)
                        }
                        _ => None,
                    };
                    let mut fill = Fill::new(&shared, &key, snapshot, facts, there, held, told);
                    (fill.flight, fill.room) = (Some(flight), Some(room));
                    match kept::keep(pin!(fill.run(pilot, inner, request))).await {
                        Filled::Answer(answer) => return answer,
                        Filled::Again(again) => {
                            let snapshot;
                            (inner, request, snapshot, told) = *again;
                            taken = Some(snapshot);
                            continue;
                        }
                    }
                }
            };
            if config.shadow.is_some() {
                told.because(Reason::Shadow);
                return alone(&shared, &mut inner, request, &told).await;
            }
            if passenger.others() >= config.max_waiting {
                told.because(Reason::TooManyWait);
                return alone(&shared, &mut inner, request, &told).await;
            }
            told.collapsed();
            let until = *patience.get_or_insert_with(|| Instant::now() + config.wait);
            let landed = match shared.wait(&key, passenger, until, head, facts, &told).await {
                Waited::Along(response) => return Ok(response),
                Waited::Landed(landed) => landed,
                Waited::Unfit(reason) => {
                    told.because(reason);
                    return alone(&shared, &mut inner, request, &told).await;
                }
            };
            match landed.as_ref().and_then(landing) {
                Some((Landing::Fresh(variant, at), true)) => {
                    let given = shared.given(variant, *at, head, facts, &told);
                    if let Some(response) = given {
                        return Ok(response);
                    }
                }
                Some((Landing::Unstorable(reason), _)) => {
                    told.because(*reason);
                    return alone(&shared, &mut inner, request, &told).await;
                }
                Some(_) => {}
                None => {
                    told.because(Reason::FillFailed);
                    return alone(&shared, &mut inner, request, &told).await;
                }
            }
            taken = Some(snapshot);
        }
        alone(&shared, &mut inner, request, &told).await
    }

    /// Refreshes what memory has, behind the back of a client that was answered from it.
    pub(super) fn refresh<ReqB, ResB>(self, request: Request<ReqB>, asked: Asked)
    where
        S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ResB: Body<Data: Send, Error: Send> + Send + 'static,
    {
        let Missed { shared, inner, key, facts, .. } = self;
        let Asked::Page(entry) = asked else { return };
        let Some((there, page, written)) = shared.page(entry) else { return };
        let snapshot = Snapshot::from(&request);
        let held = Held::new(Shown::Newest(page), written, &there, true);
        let told = Told::new(&shared.config, facts, Forward::Stale, Reason::Expired);
        Fill::new(&shared, &key, snapshot, facts, there, Some(held), told).behind(inner, request);
    }
}

impl Held {
    fn new(variant: Shown, written: Moment, there: &There, whole: bool) -> Self {
        let tags = match there {
            There::Page(_, _, entry, _) => entry.tags().into(),
            _ => Arc::default(),
        };
        Held { variant, written, tags, whole }
    }
}

fn landing(landed: &Landed) -> Option<(&Landing, bool)> {
    let landing = landed.result.as_ref().ok()?.downcast_ref()?;
    Some((landing, landed.shared))
}

pub(super) async fn alone<S, ReqB, ResB>(
    shared: &Shared,
    inner: &mut S,
    mut request: Request<ReqB>,
    told: &Told,
) -> Result<Response<ResponseBody<ResB>>, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
{
    strip(shared, &mut request);
    let mut response = inner.call(request).await?.map(ResponseBody::passed);
    told.forwarded(&mut response, false);
    Ok(response)
}

fn gateway_timeout<B: Body>(told: &Told) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    told.refused();
    response
}

impl Shared {
    async fn look<B: Body>(
        &self,
        key: &Key,
        asked: Asked,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Seen<B> {
        let miss =
            |reason, there| Seen::Miss { forward: Forward::UriMiss, reason, there, held: None };
        let entry = match asked {
            Asked::Nothing => return miss(Reason::Miss, There::Nothing),
            Asked::Page(entry) => entry,
            Asked::Unknown => {
                let watched = self.config.watched_under(key, facts);
                match self.config.store.lookup(key, &watched).await {
                    Ok(Lookup::Hit(entry)) => entry,
                    Ok(Lookup::Miss) => return miss(Reason::Miss, There::Nothing),
                    Ok(Lookup::Invalidated(revision)) => {
                        return miss(Reason::Miss, There::Unusable(revision));
                    }
                    Err(_) => return miss(Reason::StoreUnavailable, There::Outage),
                }
            }
        };
        let revision = entry.revision();
        let Some((there, page, written)) = self.page(entry) else {
            return miss(Reason::Miss, There::Unusable(revision));
        };
        match self.selects(&page.newest, head, facts) {
            Ok(true) => {
                let variant = Shown::Newest(page);
                return self.try_variant(key, &variant, written, head, facts, there).await;
            }
            Ok(false) => {}
            Err(reason @ Reason::AmbiguousCookie) => return Seen::Pass(reason),
            Err(reason) => {
                return Seen::Miss { forward: Forward::VaryMiss, reason, there, held: None };
            }
        }
        if let Some((variant, written)) = self.other(key, &page, head, facts).await {
            return self.try_variant(key, &variant, written, head, facts, there).await;
        }
        let (forward, reason) = (Forward::VaryMiss, Reason::VariantMiss);
        Seen::Miss { forward, reason, there, held: None }
    }

    // The page of an entry, and since when its newest variant counts as written.
    fn page(&self, entry: Entry) -> Option<(There, Arc<Page>, Moment)> {
        let route = &self.config.route.credentials;
        let page = entry.downcast_or(|encoded| wire::decode_page(encoded, route))?;
        let now = self.config.store.clock().now();
        let written = now - self.resident(&entry, &page.newest, now);
        Some((There::Page(entry.revision(), written, entry, page.clone()), page, written))
    }

    async fn try_variant<B: Body>(
        &self,
        key: &Key,
        variant: &Shown,
        written: Moment,
        head: RequestHead<'_>,
        facts: RequestFacts,
        there: There,
    ) -> Seen<B> {
        let clock = self.config.store.clock();
        let resident = clock.now().since(written);
        let respond = |answer: &Answer<'_>| {
            let mut response = answer.respond(head, facts, || clock.wall());
            verdict::hit(&self.config, facts, Tier::Store, &mut response, answer);
            response
        };
        match self.judge(variant, resident, head, facts) {
            Ok(answer) => {
                let mut response = respond(&answer);
                if !response.body_mut().open(self, key).await {
                    let (forward, reason) = (Forward::UriMiss, Reason::Miss);
                    return Seen::Miss { forward, reason, there, held: None };
                }
                if !answer.refresh {
                    return Seen::Answer(response);
                }
                let whole = self.has_all(key, variant).await;
                let held = Held::new(variant.clone(), written, &there, whole);
                Seen::Stale(response, there, held)
            }
            Err(Reuse::Refuse(reason)) => Seen::Pass(reason),
            Err(other) => {
                // The handler has just failed: it is left alone for a moment.
                if self.resting.holds(key, clock)
                    && let Ok(answer) =
                        self.stand_in(variant, resident, head, facts, Failure::NoResponse)
                {
                    let mut response = respond(&answer);
                    if response.body_mut().open(self, key).await {
                        return Seen::Answer(response);
                    }
                }
                let reason = other.reason();
                let (forward, whole) = match reason {
                    Reason::RangeNotStored => (Forward::Partial, false),
                    _ => (Forward::Stale, self.has_all(key, variant).await),
                };
                let held = Some(Held::new(variant.clone(), written, &there, whole));
                Seen::Miss { forward, reason, there, held }
            }
        }
    }

    /// Whether all chunks of a response are there. From now on they live as long as it may.
    pub(super) async fn has_all(&self, key: &Key, variant: &Variant) -> bool {
        let Content::Chunks(chunks) = &variant.response.content else { return true };
        let ttl = Chunks::ttl(variant.response.terms.usable_for(&self.config.policy));
        chunks.renew(&self.config.store, key, ttl).await
    }

    // One of the page's other variants, if it was made for such a request: one round trip for all lists.
    async fn other(
        &self,
        key: &Key,
        page: &Page,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Option<(Shown, Moment)> {
        let selectors = self.selectors(page, head).ok()?;
        let wanted: Vec<_> = page.lists.iter().zip(&selectors).collect();
        let keys: Vec<Key> = wanted
            .iter()
            .map(|(list, selector)| Variant::name(list, selector))
            .filter(|name| page.others.contains(name))
            .filter_map(|name| variant_key(key, page.id, name))
            .collect();
        let entries = self.config.store.lookup_many(&keys).await.ok()?;
        let route = &self.config.route.credentials;
        let now = self.config.store.clock().now();
        entries.into_iter().flatten().find_map(|entry| {
            let variant = entry.downcast_or(|encoded| wire::decode_variant(encoded, route))?;
            // The name is a hash; what counts is what the record says.
            let selected = wanted
                .iter()
                .any(|(list, selector)| **list == variant.list && ***selector == *variant.selector);
            let written = now - self.resident(&entry, &variant, now);
            (selected && variant.covers(head, facts)).then(|| (Shown::Other(variant), written))
        })
    }

    // The key under which fills of such requests are joined: the page's own for most. Requests that the page tells apart,
    // requests for different parts, and requests with credentials that the route does not cover, fly apart.
    pub(super) fn flight(
        &self,
        key: &Key,
        there: &There,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Option<Key> {
        let credentials = self.view(head, facts, None).credentials;
        let undeclared = matches!(credentials, CredentialState::Undeclared(_));
        let list = match there {
            There::Page(_, _, _, page) => page.lists.first(),
            _ => None,
        };
        if !undeclared && list.is_none() && !facts.any(RequestFacts::RANGE) {
            return Some(key.clone());
        }
        let mut flight = KeyBuf::from(key.as_ref()).part("f");
        flight.push(if undeclared { "c" } else { "" });
        if let Some(list) = list {
            let selector = list.select(&self.config.policy, head, &self.computed).ok();
            flight.push_optional(selector);
        }
        if facts.any(RequestFacts::RANGE) {
            // What answers several ranges, or something else than ranges, is no part that could be stored.
            let one = range::requested(head.headers())?.len() == 1;
            let asked = head.headers().get(RANGE)?.as_bytes();
            if !one || asked.len() > LONGEST_RANGE || !self.config.policy.store_partial {
                return None;
            }
            flight.push("range");
            flight.push(asked);
            flight.push_optional(head.headers().get(IF_RANGE).map(|value| value.as_bytes()));
        }
        flight.key().ok()
    }

    // Waits for another request's fill, or for as much of it as is enough.
    async fn wait<B: Body>(
        &self,
        key: &Key,
        mut passenger: Passenger,
        until: Instant,
        head: RequestHead<'_>,
        facts: RequestFacts,
        told: &Told,
    ) -> Waited<B> {
        let announced = match timeout_at(until, passenger.hear()).await {
            Ok(Some(Heard::Announced(announced))) => announced,
            Ok(Some(Heard::Landed(landed))) => return Waited::Landed(Some(landed)),
            Ok(None) => return Waited::Landed(None),
            Err(_) => return Waited::Unfit(Reason::WaitTooLong),
        };
        let streaming = match announced.downcast_ref() {
            Some(Announced::Unfit(reason)) => return Waited::Unfit(*reason),
            Some(Announced::Streaming(streaming)) => Some(streaming),
            None => None,
        };
        // What depends on all of the body waits for all of it.
        let whole = !facts.any(RequestFacts::RANGE.union(RequestFacts::CONDITIONAL));
        let streaming = streaming.filter(|_| whole);
        if let Some(streaming) = streaming.filter(|streaming| streaming.length.is_some())
            && let Ok(Some(response)) =
                timeout_at(until, self.along(streaming, key, head, facts, told)).await
        {
            return Waited::Along(response);
        }
        let mut arriving = pin!(passenger.arrive());
        if let Ok(landed) = timeout_at(until, arriving.as_mut()).await {
            return Waited::Landed(landed);
        }
        // The handler is busy with it already.
        if let Some(streaming) = streaming.filter(|streaming| streaming.length.is_none())
            && let Some(response) = self.along(streaming, key, head, facts, told).await
        {
            return Waited::Along(response);
        }
        Waited::Unfit(Reason::WaitTooLong)
    }

    // The response whose body is still coming, if this request may have it too.
    async fn along<B: Body>(
        &self,
        streaming: &Streaming,
        key: &Key,
        head: RequestHead<'_>,
        facts: RequestFacts,
        told: &Told,
    ) -> Option<Response<ResponseBody<B>>> {
        if !streaming.holds(self, key).await {
            return None;
        }
        let place = streaming.source.place()?;
        let response = self.given::<B>(&streaming.variant, streaming.at, head, facts, told)?;
        let follower = Follower::new(place, streaming.length);
        Some(response.map(|_| ResponseBody::followed(follower)))
    }

    // What another request's fill made, if this request may have it too.
    fn given<B: Body>(
        &self,
        variant: &Variant,
        at: Moment,
        head: RequestHead<'_>,
        facts: RequestFacts,
        told: &Told,
    ) -> Option<Response<ResponseBody<B>>> {
        if !self.selects(variant, head, facts).ok()? {
            return None;
        }
        let clock = self.config.store.clock();
        let answer = self.judge(variant, clock.now().since(at), head, facts).ok()?;
        let mut response = answer.respond(head, facts, || clock.wall());
        told.shared(&mut response, &answer);
        Some(response)
    }
}

/// Where a variant other than the newest is kept.
pub(super) fn variant_key(key: &Key, page: PageId, name: [u8; 16]) -> Option<Key> {
    KeyBuf::from(key.as_ref()).part("v").part(page.name()).part(name).key().ok()
}
