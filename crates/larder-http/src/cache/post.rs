//! Answers to POST that are stored for GET (RFC 9110 §9.3.3): those that say that they are what a GET of the same URL
//! would give.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Request, Response};
use http_body::Body;
use larder_cache::{Joined, Pilot};
use larder_core::{Begin, Key, KeyBuf, Sequence, Token};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::{Reason, RequestFacts, authority};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service;
use tracing::Instrument;

use super::body::{BoxError, ResponseBody};
use super::commit::{Commit, Permit};
use super::fill::{Fill, Filled, Sender};
use super::invalidate::{self, Targets};
use super::key;
use super::layer::Shared;
use super::miss::There;
use super::service::strip;
use super::verdict::Told;
use crate::RequestHead;
use crate::head::Snapshot;

// How long the marker of a running POST lives without being renewed.
const HOLD: Duration = Duration::from_secs(6);

/// The key under which the answer to a POST may be stored, if the policy stores such answers at all.
pub(super) fn key(shared: &Shared, head: RequestHead<'_>, facts: RequestFacts) -> Option<Key> {
    let config = &shared.config;
    if !config.policy.store_post || *head.method() != Method::POST {
        return None;
    }
    let (uri, headers) = (head.uri(), head.headers());
    let authority = authority::effective(uri, headers, config.scheme).ok()?;
    key::of_target(shared, head, facts, authority, uri.path(), uri.query()).ok()?.key().ok()
}

/// Where running POSTs to a URL leave their marker. Whatever invalidates the URL removes it, and so keeps a POST that
/// began before from storing its answer.
pub(super) fn marker(url: &Key) -> Option<Key> {
    KeyBuf::from(url.as_ref()).part("post").key().ok()
}

/// One POST: the handler, then the invalidation, then perhaps the store.
pub(super) async fn run<S, ReqB, ResB>(
    shared: Arc<Shared>,
    inner: S,
    key: Key,
    facts: RequestFacts,
    request: Request<ReqB>,
) -> Result<Response<ResponseBody<ResB>>, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body + Send + 'static,
    ResB: Body + Send + 'static,
    ResB::Data: Send,
    ResB::Error: Into<BoxError> + Send + 'static,
{
    let snapshot = Arc::new(Snapshot::from(&request));
    let told = Told::new(&shared.config, facts, Forward::Method, Reason::UnsafeMethod);
    let targets = Targets::of(&request, facts);
    let fill = Fill::new(&shared, &key, &snapshot, facts, There::Nothing, None, told);
    let (sender, receiver) = oneshot::channel();
    // In a task of its own: what was changed is invalidated though the client has left.
    tokio::spawn(Box::pin(fill.post(targets, inner, request, sender)).in_current_span());
    match receiver.await {
        Ok(Filled::Response(response)) => Ok(response),
        Ok(Filled::Failed(error)) => Err(error),
        Ok(Filled::Panicked(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down; this task ends with it.
        Ok(Filled::Again(_)) | Err(_) => panic!("a request to the handler was lost"),
    }
}

impl Fill {
    async fn post<S, ReqB, ResB>(
        self,
        targets: Targets,
        inner: S,
        request: Request<ReqB>,
        sender: Sender<S, ReqB, ResB, S::Error>,
    ) where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        // As with every fill, what invalidates from here on voids what is stored.
        let store = self.shared.config.store.clone();
        let tags = self.shared.config.tags.clone();
        let begun = async {
            let marker = marker(&self.key)?;
            match store.begin(&marker, HOLD).await {
                Ok(Begin::Token(token)) => Some((marker, token)),
                _ => None,
            }
        };
        let (marker, marks) = tokio::join!(begun, store.marks(&tags));
        let sequence = marks.map(|marks| marks.sequence).ok();
        let held: Vec<_> = marker.iter().cloned().collect();
        let posting = self.posted(targets, inner, request, sender, marker.clone(), sequence);
        store.holding(&held, HOLD, posting).await;
        if let Some((key, token)) = marker {
            let _ = store.release(&key, token, None).await;
        }
    }

    async fn posted<S, ReqB, ResB>(
        mut self,
        targets: Targets,
        mut inner: S,
        mut request: Request<ReqB>,
        sender: Sender<S, ReqB, ResB, S::Error>,
        marker: Option<(Key, Token)>,
        sequence: Option<Sequence>,
    ) where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        // A condition on a POST is for the handler alone.
        self.facts = self.facts.without(RequestFacts::CONDITIONAL);
        let deadline = Instant::now() + self.shared.config.deadline;
        let sent = self.wall();
        strip(&self.shared, &mut request);
        let call = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
        let store = self.shared.config.store.clone();
        let (called, read) = larder_cache::collect(&store, call).await;
        let response = match called {
            Ok(Ok(response)) => response,
            failed => return self.pass_on(failed, sender),
        };
        let outdated = targets.outdated(&self.shared, &response);
        invalidate::remove(&self.shared, outdated, marker.is_some()).await;
        let plan = match self.planned(&response, sent, &read) {
            Ok(Ok(plan)) => plan,
            Ok(Err(reason)) => {
                self.told.because(reason);
                return self.pass_on(Ok(Ok(response)), sender);
            }
            Err(panic) => return self.pass_on(Err(panic), sender),
        };
        self.room = self.shared.room();
        if self.room.is_none() {
            self.told.because(Reason::TooManyFills);
            return self.pass_on(Ok(Ok(response)), sender);
        }
        let (Some(built_at), Some((pilot, token))) = (sequence, self.right_to_store(marker).await)
        else {
            return self.pass_on(Ok(Ok(response)), sender);
        };
        let held = [(self.key.clone(), token)];
        let commit = Commit { built_at, permit: Permit::Token(token), head_at: self.now() };
        let copying = self.copy(Some(pilot), response, None, sender, plan, commit, deadline);
        store.holding(&held, HOLD, copying).await;
    }

    // The marker of a fill, taken when what was there is gone; good only if nothing else has invalidated the URL since
    // the handler was called.
    async fn right_to_store(&self, marker: Option<(Key, Token)>) -> Option<(Pilot, Token)> {
        let (marker, mine) = marker?;
        let store = &self.shared.config.store;
        let flight = KeyBuf::from(self.key.as_ref()).part("f").part("post").key().ok()?;
        let Joined::Pilot(pilot, _) = store.join(&flight, &self.key, &self.shared.config.tags)
        else {
            return None;
        };
        let Ok(Begin::Token(token)) = store.begin(&self.key, HOLD).await else { return None };
        let alone = store.renew(&marker, mine, HOLD).await.unwrap_or(false);
        if alone && pilot.holds(token) {
            return Some((pilot, token));
        }
        let _ = store.release(&self.key, token, None).await;
        None
    }
}
