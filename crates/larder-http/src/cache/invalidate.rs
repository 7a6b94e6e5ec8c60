//! Unsafe methods: a non-error answer invalidates what is stored for their target (RFC 9111 §4.4).

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use larder_core::Key;
use larder_http_rules::cache_status::Forward;
use larder_http_rules::invalidate::{Base, invalidates, targets};
use larder_http_rules::{Reason, RequestFacts, authority};

use super::body::ResponseBody;
use super::key;
use super::layer::Shared;
use super::verdict::Told;
use crate::RequestHead;
use crate::head::Snapshot;

/// The head of an unsafe request, kept to know afterwards what it was about.
pub(super) struct Targets {
    snapshot: Snapshot,
    facts: RequestFacts,
}

impl Targets {
    pub(super) fn of<B>(request: &Request<B>, facts: RequestFacts) -> Self {
        Targets { snapshot: Snapshot::from(request), facts }
    }

    /// The keys to remove: the target's, and those of the same origin that the response names.
    fn keys<B>(&self, shared: &Shared, response: &Response<B>) -> Vec<Key> {
        let config = &shared.config;
        let head = RequestHead::from(&self.snapshot);
        if !invalidates(head.method(), response.status()) {
            return Vec::new();
        }
        let Ok(authority) = authority::effective(head.uri(), head.headers(), config.scheme) else {
            return Vec::new();
        };
        // Not `path_and_query`, which leaves an empty path empty.
        let (path, query) = (head.uri().path(), head.uri().query());
        let own = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
        let base = Base { authority: Some(authority), path_and_query: &own };
        let others: Vec<String> = targets(base, response.headers()).collect();
        std::iter::once(&own)
            .chain(&others)
            .filter_map(|target| {
                let (path, query) = match target.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (target.as_str(), None),
                };
                let key = key::of_target(config, head, self.facts, authority, path, query).ok()?;
                key.key().ok()
            })
            .collect()
    }
}

/// Waits for the handler, then for the removals. The client sees its answer when what it changed is gone here; whoever
/// drops this future, a removal that was begun goes on.
pub(super) async fn after<B, E>(
    shared: Arc<Shared>,
    targets: Targets,
    response: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<ResponseBody<B>>, E>
where
    B: Body,
{
    let response = response.await?;
    let keys = targets.keys(&shared, &response);
    if !keys.is_empty() {
        // What could not be stored before may be storable now: a URL that was not there, for one.
        keys.iter().for_each(|key| shared.passes.lift_all(key));
        let store = shared.config.store.clone();
        let removal = tokio::spawn(async move {
            keys.iter().for_each(|key| store.detach(key));
            // A removal that fails bars its keys on this node until it is confirmed.
            if let Err(error) = store.remove_many(&keys).await {
                tracing::warn!(
                    target: "larder_http",
                    kind = error.kind().as_str(),
                    "an invalidation was not confirmed"
                );
            }
            keys.iter().for_each(|key| store.detach(key));
        });
        let _ = removal.await;
    }
    let told = Told::new(&shared.config.status_name, Forward::Method, Reason::UnsafeMethod);
    let mut response = response.map(ResponseBody::passed);
    told.forwarded(&mut response, false);
    Ok(response)
}
