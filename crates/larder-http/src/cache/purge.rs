//! Purging by URL, from outside of any request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use larder_core::{Entry, Error, ErrorKind, Key, KeyBuf, Outcome, Prefix, Result, Tag, Ttl, When};
use larder_http_rules::authority::{self, HostField};

use super::chunks::Chunks;
use super::layer::Shared;
use super::record::{Page, Variant};
use super::{content, key, searches, wire};

/// Removes stored responses by their URL, or makes them stale; from [`CacheLayer::purger`](super::CacheLayer::purger).
///
/// What is purged is gone when the call returns: on this node at once, on others as soon as an
/// [removal](larder_cache::Cache::delete) reaches them. Fills that run meanwhile are not stored, except those of other
/// nodes for what a proxy forwarded under another name, or for a partition.
///
/// Where a store pages, this walks through the keys of the URL's path; on a server, through all of the namespace's. What
/// has to go often, or with much else, needs a tag: [`Cache::invalidate_tag`](larder_cache::Cache::invalidate_tag) removes in one step and
/// [`Cache::expire_tag`](larder_cache::Cache::expire_tag) makes stale, responses and data alike.
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use larder_cache::Cache;
/// use larder_http::CacheLayer;
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let layer = CacheLayer::new(&Cache::memory()).ttl(Duration::from_secs(300));
/// let purger = layer.purger();
/// let service = layer.layer(service_fn(|_: Request<Full<&[u8]>>| async {
///     Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from("[]"))))
/// }));
/// let request = Request::get("http://shop.example/list?page=2").body(Full::default()).unwrap();
/// service.oneshot(request).await.unwrap();
///
/// let url = "http://shop.example/list?page=2".parse().unwrap();
/// assert_eq!(purger.remove(&url).await.unwrap(), 1);
/// assert_eq!(purger.remove(&url).await.unwrap(), 0);
/// # });
/// ```
#[derive(Clone)]
pub struct Purger {
    shared: Arc<Shared>,
}

const PAGE: usize = 200;

impl Purger {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Purger { shared }
    }

    /// Removes what is stored for a URL: all variants and parts, for every content of a QUERY, of every partition and under
    /// every name that a proxy forwarded. How many responses there were; a store that cannot page through keys
    /// ([`Abilities::pages`](larder_core::Abilities::pages)) only knows of the URL as it is asked for directly, and
    /// counts one for all its variants.
    ///
    /// The URL is absolute, or has the scheme of the layer. Its query is what the layer's rules make of it.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](ErrorKind::InvalidKey) for a URL without a host. When the store cannot be asked, or does not
    /// answer in time: then what was stored reads as absent on this node until its removal is confirmed.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, some may be gone and some not.
    pub async fn remove(&self, url: &Uri) -> Result<u64> {
        let target = self.target(url)?;
        let store = &self.shared.config.store;
        let keys = self.keys(&target).await?;
        self.forget(&target).await;
        let removed = store.remove_many(&keys).await?;
        self.forget(&target).await;
        let tags = self.unlisted(&target);
        if !tags.is_empty() {
            store.invalidate(&tags).await?;
        }
        Ok(removed)
    }

    /// Makes what is stored for a URL stale: it answers no longer by itself, but may be validated, and stand in where
    /// its response and the policy allow that (`stale-while-revalidate`, `stale-if-error`). What is of no use as a stale
    /// one is removed. How many responses there were, as for [`remove`](Purger::remove).
    ///
    /// # Errors
    ///
    /// As [`remove`](Purger::remove), but what could not be reached goes on answering.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, some may be stale and some not.
    pub async fn expire(&self, url: &Uri) -> Result<u64> {
        let target = self.target(url)?;
        let keys = self.keys(&target).await?;
        self.forget(&target).await;
        let mut expired = 0;
        for key in &keys {
            expired += u64::from(self.stale(key).await?);
        }
        self.forget(&target).await;
        let tags = self.unlisted(&target);
        if !tags.is_empty() {
            self.shared.config.store.expire(&tags).await?;
        }
        Ok(expired)
    }

    fn target(&self, url: &Uri) -> Result<Target> {
        let config = &self.shared.config;
        let unfit = |why| Error::new(ErrorKind::InvalidKey, why);
        let authority = authority::effective_of(url, HostField::Absent, config.scheme)
            .map_err(|_| unfit("a URL to purge is absolute: https://host/path"))?;
        let query = url.query().and_then(|query| config.query.apply(query));
        let mut key = KeyBuf::from(config.room.as_ref());
        key::write_path(&mut key, authority, url.path());
        let prefix = Prefix::new(config.store.namespace());
        let prefix = key.as_ref()?.parts().flatten().fold(prefix, Prefix::part);
        key::write_query(&mut key, &self.shared, query.as_deref());
        let begin = key.as_ref()?.to_key();
        key.push_optional(None::<&str>);
        let queries = searches::tag(authority, url.path());
        let direct = key.key()?;
        let contents = content::tag(direct.as_ref());
        Ok(Target { prefix, url: begin, direct, queries, contents })
    }

    // All that lies under a target: pages, their other variants, markers. Not the chunks of bodies: somebody may be
    // reading them.
    async fn keys(&self, target: &Target) -> Result<Vec<Key>> {
        let store = &self.shared.config.store;
        if !store.abilities().pages {
            return Ok(vec![target.direct.clone()]);
        }
        let (query, _) = key::query(&self.shared.config, &target.direct);
        // Also where nothing lies yet: what another node is about to store there is voided.
        let (mut keys, mut from) = (vec![target.direct.clone()], None);
        loop {
            let page = store.page(&target.prefix, from, PAGE).await?;
            let of_query = |key: &Key| {
                let own = key.as_ref().parts().nth(3);
                own == Some(query) && *key != target.direct && !Chunks::is_key(key)
            };
            keys.extend(page.keys.into_iter().filter(of_query));
            from = page.next;
            if from.is_none() {
                return Ok(keys);
            }
        }
    }

    // Fills that are under way are not stored: those of the path's other queries neither, which costs them nothing else.
    async fn forget(&self, target: &Target) {
        self.shared.lift_marks(&target.url);
        self.shared.config.store.detach_prefix(&target.prefix).await;
    }

    // The tags of what could not be listed: what is stored for several queries, whose rule may not be known here, and
    // for the contents of QUERYs where the store does not page.
    fn unlisted(&self, target: &Target) -> Vec<Tag> {
        let config = &self.shared.config;
        let queries = target.queries.iter().filter(|_| config.policy.no_vary_search);
        let contents = target.contents.iter().filter(|_| !config.store.abilities().pages);
        queries.chain(contents).cloned().collect()
    }

    // Writes a record back as old as its lifetime. Who stores meanwhile began before.
    async fn stale(&self, key: &Key) -> Result<bool> {
        let store = &self.shared.config.store;
        for _ in 0..TRIES {
            let Some(entry) = store.get(key, &[]).await?.entry else {
                // What another node is about to store there is voided.
                store.remove(key, None).await?;
                return Ok(false);
            };
            let Some((live, left)) = self.stale_copy(&entry) else { return Ok(false) };
            let revision = entry.revision();
            let done = if left.is_zero() {
                store.remove(key, Some(revision)).await?
            } else {
                let copy = Entry::live(live)
                    .with_tags(entry.tags().iter().cloned())
                    .with_built_at(entry.built_at());
                let outcome =
                    store.put(key, copy, Ttl::For(left), When::Revision(revision)).await?;
                outcome == Outcome::Stored
            };
            if done {
                return Ok(true);
            }
        }
        store.remove(key, None).await
    }

    // What is to be written back, and for how long it is of use.
    fn stale_copy(&self, entry: &Entry) -> Option<(Arc<dyn larder_core::Live>, Duration)> {
        let config = &self.shared.config;
        let route = &config.route.credentials;
        let now = config.store.clock().now();
        let resident = entry.times().map_or(Duration::ZERO, |times| now.since(times.written));
        if let Some(page) = entry.downcast_or(|encoded| wire::decode_page(encoded, route)) {
            let newest = self.aged(&page.newest, resident);
            let left = newest.response.kept_for(&config.policy);
            let (lists, others) = (page.lists.clone(), page.others.clone());
            // A page without use of its own may still lead to variants.
            let left = match others.is_empty() {
                true => left,
                false => left.max(entry.remaining(now).unwrap_or(left)),
            };
            return Some((Arc::new(Page { id: page.id.purged(), lists, others, newest }), left));
        }
        let variant = entry.downcast_or(|encoded| wire::decode_variant(encoded, route))?;
        let variant = self.aged(&variant, resident);
        let left = variant.response.kept_for(&config.policy);
        Some((Arc::new(variant), left))
    }

    fn aged(&self, variant: &Variant, resident: Duration) -> Variant {
        let terms = &variant.response.terms;
        let missing = terms.lifetime.saturating_sub(terms.initial_age);
        variant.aged(resident.max(missing))
    }
}

// Writers that come in between.
const TRIES: usize = 16;

struct Target {
    // The keys of its path.
    prefix: Prefix,
    // How the keys of its responses begin.
    url: Key,
    // The key of a request that no proxy forwarded and no partition divides.
    direct: Key,
    // What is stored for several queries of the path.
    queries: Option<Tag>,
    // What is stored for QUERYs.
    contents: Option<Tag>,
}

impl fmt::Debug for Purger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purger").field("store", &self.shared.config.store).finish_non_exhaustive()
    }
}
