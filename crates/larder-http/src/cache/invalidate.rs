//! Unsafe methods: a non-error answer invalidates what is stored for their target (RFC 9111 §4.4).

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use larder_core::{Key, Tag};
use larder_http_rules::cache_status::Forward;
use larder_http_rules::invalidate::{Base, invalidates, targets};
use larder_http_rules::{Reason, RequestFacts, authority, groups};

use super::body::ResponseBody;
use super::layer::Shared;
use super::plan::group_tag;
use super::verdict::Told;
use super::{content, key, post, searches};
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

    /// What the response has made out of date: the target, what else of the same origin it names, and the cache groups
    /// that it says (RFC 9875).
    pub(super) fn outdated<B>(&self, shared: &Shared, response: &Response<B>) -> Outdated {
        let config = &shared.config;
        let head = RequestHead::from(&self.snapshot);
        if !invalidates(head.method(), response.status()) {
            return Outdated::default();
        }
        let Ok(authority) = authority::effective(head.uri(), head.headers(), config.scheme) else {
            return Outdated::default();
        };
        let groups = groups::invalidated_by(response.headers());
        let mut tags: Vec<Tag> =
            groups.iter().filter_map(|group| group_tag(authority, group)).collect();
        // Not `path_and_query`, which leaves an empty path empty.
        let (path, query) = (head.uri().path(), head.uri().query());
        let own = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
        let base = Base { authority: Some(authority), path_and_query: &own };
        let others: Vec<String> = targets(base, response.headers()).collect();
        let keys: Vec<Key> = std::iter::once(&own)
            .chain(&others)
            .filter_map(|target| {
                let (path, query) = match target.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (target.as_str(), None),
                };
                let key = key::of_target(shared, head, self.facts, authority, path, query).ok()?;
                key.key().ok()
            })
            .collect();
        if content::may_be_stored(head) {
            tags.extend(keys.iter().filter_map(|key| content::tag(key.as_ref())));
        }
        if config.policy.no_vary_search {
            let paths = std::iter::once(&own).chain(&others);
            let paths = paths.map(|target| target.split_once('?').map_or(&**target, |(p, _)| p));
            tags.extend(paths.filter_map(|path| searches::tag(authority, path)));
        }
        tags.sort_unstable();
        tags.dedup();
        Outdated { keys, tags }
    }
}

/// What an answer to an unsafe method has made out of date.
#[derive(Default)]
pub(super) struct Outdated {
    keys: Vec<Key>,
    tags: Vec<Tag>,
}

/// Removes what a response has made out of date, and returns when it is gone here. `posting` keeps the marker by which
/// the POST that asks for this may store its answer.
pub(super) async fn remove(shared: &Shared, outdated: Outdated, posting: bool) {
    let Outdated { mut keys, tags } = outdated;
    if keys.is_empty() {
        return;
    }
    // What could not be stored before may be storable now: a URL that was not there, for one.
    keys.iter().for_each(|key| shared.lift_marks(key));
    if shared.config.policy.store_post {
        // The first is the target; the answer may name it once more.
        let own = keys.first().filter(|_| posting);
        let others = keys.iter().filter(|key| Some(*key) != own);
        let markers: Vec<Key> = others.filter_map(post::marker).collect();
        keys.extend(markers);
    }
    let store = shared.config.store.clone();
    let removal = tokio::spawn(async move {
        keys.iter().for_each(|key| store.detach(key));
        // A removal that fails bars its keys on this node until it is confirmed.
        let removed = store.remove_many(&keys).await.map(drop);
        let tagged = match tags.is_empty() {
            true => Ok(()),
            false => store.invalidate(&tags).await.map(drop),
        };
        if let Err(error) = removed.and(tagged) {
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
    let outdated = targets.outdated(&shared, &response);
    remove(&shared, outdated, false).await;
    let told = Told::new(&shared.config, targets.facts, Forward::Method, Reason::UnsafeMethod);
    let mut response = response.map(ResponseBody::passed);
    told.forwarded(&mut response, false);
    Ok(response)
}
