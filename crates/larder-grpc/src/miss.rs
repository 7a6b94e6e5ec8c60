//! What memory could not answer: asking the store, waiting for another call's fill, or filling.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body::Body;
use larder_cache::{Joined, Landed, Lookup};
use larder_core::{Entry, Key, KeyBuf, Revision};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::{CredentialState, RequestFacts, credentials};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service;
use tracing::Instrument;

use crate::body::{RequestBody, ResponseBody};
use crate::fill::{Fill, Filled, Landing};
use crate::layer::Shared;
use crate::plan::Sessions;
use crate::record::Call;
use crate::service::{Asked, Fits};
use crate::verdict::{Reason, Told};
use crate::{key, status, wire};

/// A call that was not answered from memory.
pub(crate) struct Missed<S> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inner: S,
    pub(crate) asked: Asked,
}

/// What is stored under the key, and is no answer.
#[derive(Clone)]
pub(crate) enum There {
    Nothing,
    /// A call of that revision, and how it may still serve.
    Call(Revision, Entry, Arc<Call>),
    /// Something of that revision that must not be used.
    Unusable(Revision),
    /// The store cannot be asked.
    Outage,
}

enum Seen<B: Body> {
    Answer(Response<ResponseBody<B>>),
    Stale(Response<ResponseBody<B>>, There),
    Pass(Reason),
    Miss(Forward, Reason, There),
}

// A fill that was voided is looked at anew; after so many looks the handler is asked.
const ROUNDS: usize = 4;

// So many fills that came to nothing are waited for; the second one's failure is the waiting calls' too, so that a
// handler that fails is not asked by all of them at once.
const FAILURES: usize = 2;

/// Waits for as long as the caller does. What others share goes on.
pub(crate) async fn within<B: Body, E>(
    timeout: Option<Duration>,
    answered: impl Future<Output = Result<Response<ResponseBody<B>>, E>>,
) -> Result<Response<ResponseBody<B>>, E> {
    let Some(limit) = timeout else { return answered.await };
    tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| {
        Ok(status::failed(status::DEADLINE_EXCEEDED, "the deadline of the call has passed"))
    })
}

impl<S> Missed<S> {
    pub(crate) async fn run<ReqB, ResB>(
        self,
        key: KeyBuf,
        there: Option<Option<Entry>>,
    ) -> Result<Response<ResponseBody<ResB>>, S::Error>
    where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ReqB::Error: Send + 'static,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Send + 'static,
    {
        let timeout = status::timeout(&self.asked.parts.headers);
        within(timeout, self.answered(key, there)).await
    }

    async fn answered<ReqB, ResB>(
        self,
        key: KeyBuf,
        mut known: Option<Option<Entry>>,
    ) -> Result<Response<ResponseBody<ResB>>, S::Error>
    where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ReqB::Error: Send + 'static,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Send + 'static,
    {
        let Missed { shared, mut inner, asked } = self;
        let config = &shared.config;
        let mut told = Told::new(&config.status_name, Forward::UriMiss, Reason::Miss);
        // Its length was checked when it was looked up.
        let (Ok(key), Some(flight)) = (key.key(), flight(key, asked.credentials)) else {
            return alone(&mut inner, asked, &told).await;
        };

        // One wait for all rounds, from when the first begins.
        let mut patience = None;
        let mut failures = 0;
        for _ in 0..ROUNDS {
            let there = match shared.see(&key, known.take(), &asked).await {
                Seen::Answer(response) => return Ok(response),
                Seen::Stale(response, there) => {
                    let fill = Fill::new(&shared, &asked, key, flight, there, told);
                    fill.behind(inner, asked);
                    return Ok(response);
                }
                Seen::Pass(reason) => {
                    told.forward_because(Forward::Bypass, reason);
                    return alone(&mut inner, asked, &told).await;
                }
                Seen::Miss(forward, reason, there) => {
                    told.forward_because(forward, reason);
                    there
                }
            };
            if shared.passes.holds(&flight, config.store.clock()) {
                told.because(Reason::PassMark);
                return alone(&mut inner, asked, &told).await;
            }
            let passenger = match config.store.join(&flight, &key, &asked.rule.tags) {
                Joined::Passenger(passenger) => passenger,
                Joined::Pilot(pilot, _) => {
                    let (key, flight, told) = (key.clone(), flight.clone(), told.clone());
                    let fill = Fill::new(&shared, &asked, key, flight, there, told);
                    let request = shared.request(&asked);
                    let (sender, receiver) = oneshot::channel();
                    // In a task of its own: a caller that goes away harms nobody.
                    tokio::spawn(fill.run(pilot, inner, request, sender).in_current_span());
                    match receiver.await {
                        Ok(Filled::Response(response)) => return Ok(*response),
                        Ok(Filled::Failed(error)) => return Err(error),
                        Ok(Filled::Panicked(panic)) => std::panic::resume_unwind(panic),
                        Ok(Filled::Again(again)) => {
                            inner = again;
                            continue;
                        }
                        // The runtime is shutting down; this task ends with it.
                        Err(_) => panic!("the fill of a cached call was lost"),
                    }
                }
            };
            told.collapsed();
            let until = *patience.get_or_insert_with(|| Instant::now() + config.wait);
            let Ok(landed) = tokio::time::timeout_at(until, passenger.arrive()).await else {
                told.because(Reason::WaitTooLong);
                return alone(&mut inner, asked, &told).await;
            };
            match landed.as_ref().and_then(landing) {
                Some((Landing::Stored(call, at), true)) => {
                    let resident = config.store.clock().now().since(*at);
                    if let Fits::Fresh = shared.fits_after(call, resident, asked.credentials) {
                        let mut response = call.respond(resident);
                        let left = call.terms.lifetime.saturating_sub(resident);
                        told.shared(response.headers_mut(), left);
                        return Ok(response);
                    }
                }
                Some((Landing::Failure(failure), _)) => {
                    let mut response = failure.respond();
                    told.because(Reason::Status);
                    told.forwarded(&mut response, false);
                    return Ok(response);
                }
                Some((Landing::Own(reason), _)) => {
                    told.because(*reason);
                    return alone(&mut inner, asked, &told).await;
                }
                Some(_) => {}
                None => {
                    failures += 1;
                    if failures == FAILURES {
                        told.because(Reason::FillFailed);
                        let words = "the call that this one waited for has failed";
                        let mut response = status::failed(status::UNAVAILABLE, words);
                        told.forwarded(&mut response, false);
                        return Ok(response);
                    }
                }
            }
        }
        alone(&mut inner, asked, &told).await
    }

    /// Refreshes what memory has, behind the back of a caller that was answered from it.
    pub(crate) fn refresh<ReqB, ResB>(self, entry: Entry, facts: RequestFacts)
    where
        S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        ReqB: Body + Send + 'static,
        ReqB::Error: Send + 'static,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Send + 'static,
    {
        let Missed { shared, inner, asked } = self;
        let mut buf = KeyBuf::from(shared.config.room.as_ref());
        let Asked { rule, parts, message, .. } = &asked;
        if key::write(&mut buf, &shared.config, rule, parts, facts, message).is_err() {
            return;
        }
        let (Ok(key), Some(call)) = (buf.key(), entry.downcast_or(wire::decode)) else { return };
        let Some(flight) = flight(buf, asked.credentials) else { return };
        let there = There::Call(entry.revision(), entry, call);
        let told = Told::new(&shared.config.status_name, Forward::Stale, Reason::Expired);
        Fill::new(&shared, &asked, key, flight, there, told).behind(inner, asked);
    }
}

// The key under which fills are joined. Those of callers with credentials that nothing declares fly apart.
fn flight(key: KeyBuf, credentials: CredentialState) -> Option<Key> {
    let undeclared = matches!(credentials, CredentialState::Undeclared(_));
    key.part("f").part(if undeclared { "c" } else { "" }).key().ok()
}

fn landing(landed: &Landed) -> Option<(&Landing, bool)> {
    let landing = landed.result.as_ref().ok()?.downcast_ref()?;
    Some((landing, landed.shared))
}

// With everything that the caller sent, since nobody else gets the answer.
async fn alone<S, ReqB, ResB>(
    inner: &mut S,
    asked: Asked,
    told: &Told,
) -> Result<Response<ResponseBody<ResB>>, S::Error>
where
    S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>>,
    ReqB: Body,
    ResB: Body,
{
    let request = Request::from_parts(asked.parts, RequestBody::message(asked.message));
    let mut response = inner.call(request).await?.map(ResponseBody::passed);
    told.forwarded(&mut response, false);
    Ok(response)
}

impl Shared {
    /// The request of a fill: what is no part of the key is taken out, so that it cannot change what others get, and the
    /// fill's own limit takes the place of the caller's.
    pub(crate) fn request<ReqB: Body>(&self, asked: &Asked) -> Request<RequestBody<ReqB>> {
        let mut parts = asked.parts.clone();
        let kept = |name: &HeaderName| {
            const PROTOCOL: [HeaderName; 6] = [
                header::CONTENT_TYPE,
                header::CONTENT_LENGTH,
                header::HOST,
                header::TE,
                status::ENCODING,
                status::ACCEPT_ENCODING,
            ];
            const FORWARDED: [&str; 5] = [
                "forwarded",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-forwarded-port",
                "x-forwarded-prefix",
            ];
            PROTOCOL.contains(name)
                || FORWARDED.contains(&name.as_str())
                || asked.rule.keyed.contains(name)
                || self.config.seen.contains(name)
                || credentials::is_credential(&self.config.policy, name)
        };
        let mut fields = HeaderMap::with_capacity(parts.headers.len());
        for (name, value) in &parts.headers {
            if kept(name) {
                fields.append(name.clone(), value.clone());
            }
        }
        fields.insert(status::TIMEOUT, status::timeout_value(self.config.deadline));
        parts.headers = fields;
        Request::from_parts(parts, RequestBody::message(asked.message.clone()))
    }

    async fn see<B: Body>(
        &self,
        key: &Key,
        known: Option<Option<Entry>>,
        asked: &Asked,
    ) -> Seen<B> {
        let miss = |reason, there| Seen::Miss(Forward::UriMiss, reason, there);
        let entry = match known {
            Some(None) => return miss(Reason::Miss, There::Nothing),
            Some(Some(entry)) => entry,
            None => match self.config.store.lookup(key, &asked.rule.tags).await {
                Ok(Lookup::Hit(entry)) => entry,
                Ok(Lookup::Miss) => return miss(Reason::Miss, There::Nothing),
                Ok(Lookup::Invalidated(revision)) => {
                    return miss(Reason::Miss, There::Unusable(revision));
                }
                Err(_) => return miss(Reason::StoreUnavailable, There::Outage),
            },
        };
        let revision = entry.revision();
        let Some(call) = entry.downcast_or(wire::decode) else {
            return miss(Reason::Miss, There::Unusable(revision));
        };
        let clock = self.config.store.clock();
        let (fits, resident) = self.fits(&call, &entry, clock.now(), asked.credentials);
        let there = There::Call(revision, entry, call.clone());
        match fits {
            Fits::Fresh => Seen::Answer(self.hit(&call, resident)),
            Fits::Refresh => Seen::Stale(self.hit(&call, resident), there),
            // The handler was not available a moment ago: it is left alone.
            Fits::StandIn if self.resting.holds(key, clock) => {
                Seen::Answer(self.hit(&call, resident))
            }
            Fits::StandIn | Fits::Expired => Seen::Miss(Forward::Stale, Reason::Expired, there),
            Fits::NotShared(reason) => Seen::Pass(reason.into()),
        }
    }

    /// The session mark of a layer outside.
    pub(crate) fn sessions(&self, asked: &Asked) -> Sessions {
        Sessions(asked.parts.extensions.get().cloned())
    }
}
