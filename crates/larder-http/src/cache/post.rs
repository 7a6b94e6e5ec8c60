//! Answers to POST that are stored for GET (RFC 9110 §9.3.3): those that say that they are what a GET of the same URL
//! would give.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Method, Request, Response};
use http_body::Body;
use larder_cache::{Joined, Pilot};
use larder_core::{Begin, Key, KeyBuf, Sequence, Token};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::{Reason, RequestFacts, authority};
use tokio::time::Instant;
use tower_service::Service;

use super::commit::{Commit, Permit};
use super::fill::{Answered, Fill, HOLD};
use super::invalidate::{self, Targets};
use super::kept;
use super::key;
use super::layer::Shared;
use super::miss::There;
use super::service::strip;
use super::verdict::Told;
use crate::RequestHead;
use crate::head::Snapshot;

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
) -> Answered<ResB, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body + Send + 'static,
    ResB: Body<Data: Send, Error: Send> + Send + 'static,
{
    let told = Told::new(&shared.config, facts, Forward::Method, Reason::UnsafeMethod);
    let targets = Targets::of(&request, facts);
    let snapshot = Snapshot::from(&request);
    let fill = Fill::new(&shared, &key, snapshot, facts, There::Nothing, None, told);
    // What was changed is invalidated though the client has left.
    kept::keep(pin!(fill.post(targets, inner, request))).await
}

impl Fill {
    async fn post<S, ReqB, ResB>(
        self,
        targets: Targets,
        inner: S,
        request: Request<ReqB>,
    ) -> Answered<ResB, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body<Data: Send, Error: Send> + Send + 'static,
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
        let posting = pin!(self.posted(targets, inner, request, marker.clone(), sequence));
        let answered = store.holding(&held, HOLD, posting).await;
        if let Some((key, token)) = marker {
            let _ = store.release(&key, token, None).await;
        }
        answered
    }

    async fn posted<S, ReqB, ResB>(
        mut self,
        targets: Targets,
        mut inner: S,
        mut request: Request<ReqB>,
        marker: Option<(Key, Token)>,
        sequence: Option<Sequence>,
    ) -> Answered<ResB, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body<Data: Send, Error: Send> + Send + 'static,
    {
        // A condition on a POST is for the handler alone.
        self.facts = self.facts.without(RequestFacts::CONDITIONAL);
        let deadline = Instant::now() + self.shared.config.deadline;
        let sent = self.wall();
        strip(&self.shared, &mut request);
        let call = async move { inner.call(request).await };
        let call = pin!(AssertUnwindSafe(call).catch_unwind());
        let store = self.shared.config.store.clone();
        let (called, read) = larder_cache::collect(&store, call).await;
        let response = match called {
            Ok(Ok(response)) => response,
            failed => return self.passed_on(failed),
        };
        let outdated = targets.outdated(&self.shared, &response);
        invalidate::remove(&self.shared, outdated, marker.is_some()).await;
        let plan = match self.planned(&response, sent, &read) {
            Ok(Ok(plan)) => plan,
            Ok(Err(reason)) => {
                self.told.because(reason);
                return self.passed_on(Ok(Ok(response)));
            }
            Err(panic) => return self.passed_on(Err(panic)),
        };
        self.room = self.shared.room();
        if self.room.is_none() {
            self.told.because(Reason::TooManyFills);
            return self.passed_on(Ok(Ok(response)));
        }
        let (Some(built_at), Some((pilot, token))) = (sequence, self.right_to_store(marker).await)
        else {
            return self.passed_on(Ok(Ok(response)));
        };
        let permit = Permit::Token(token);
        let commit = Commit { built_at, permit, admitted: true, head_at: self.now() };
        Ok(self.copy(Some(pilot), response, None, plan, commit, deadline).await)
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
