//! What every handler shares: the database, and perhaps a cache.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{Cache, CacheKey, Failure, Fragment, Options, Value};

use crate::database::Database;
use crate::errors::Problem;
use crate::{TTL, tags};

/// The database, and perhaps a cache.
#[derive(Clone, Debug)]
pub struct Shop {
    database: Database,
    cache: Option<Cache>,
}

/// Where data came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Cached,
    /// It was made for this request.
    Computed,
}

impl Shop {
    /// A shop; without a cache, everything is asked of the database each time.
    pub fn new(database: Database, cache: Option<Cache>) -> Self {
        Shop { database, cache }
    }

    /// The products.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The cache, if there is one.
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// Data that depends on many products: from the cache, or computed once however many ask.
    ///
    /// # Errors
    ///
    /// The computation's.
    pub async fn data<T, F, Fut>(
        &self,
        key: impl CacheKey,
        compute: F,
    ) -> Result<(Arc<T>, Origin), Problem>
    where
        T: Value,
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let computing = Computing::default();
        let compute = computing.noted(compute, &self.database);
        let value = match &self.cache {
            Some(cache) => {
                let options = Options::ttl(TTL).tag(tags::ALL);
                cache.get_or_compute(key, options, compute).await.map_err(problem)?
            }
            None => Arc::new(compute().await?),
        };
        Ok((value, computing.origin()))
    }

    /// A part of a page, under a tag: from the cache, or rendered once however many ask.
    ///
    /// # Errors
    ///
    /// The rendering's.
    pub async fn fragment<F, Fut>(
        &self,
        name: impl CacheKey,
        tag: impl Into<String>,
        render: F,
    ) -> Result<(Fragment, Origin), Problem>
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = Result<String, Problem>> + Send + 'static,
    {
        let computing = Computing::default();
        let render = computing.noted(render, &self.database);
        let fragment = match &self.cache {
            Some(cache) => {
                let fragment = cache.fragment(name).ttl(TTL).tag(tag);
                fragment.compute(render).await.map_err(problem)?
            }
            None => render().await?.into(),
        };
        Ok((fragment, computing.origin()))
    }

    /// Drops everything that carries one of these tags, before the client hears that its change was made.
    pub async fn drop_tags(&self, tags: Vec<String>) {
        let Some(cache) = &self.cache else { return };
        // The change is in the database, so the client is told so. What the cache could not confirm is not shown by
        // this server; others may show the old for as long as it is cached.
        if let Err(error) = cache.invalidate_tags(&tags).await {
            tracing::error!(
                ?tags,
                "the cache did not confirm that these tags were dropped: {error}"
            );
        }
    }
}

/// Tells whether something was computed for this very request.
#[derive(Default)]
struct Computing(Arc<AtomicBool>);

impl Computing {
    fn noted<F, Fut>(
        &self,
        compute: F,
        database: &Database,
    ) -> impl FnOnce() -> Fut + Send + 'static
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
    {
        let (computed, database) = (self.0.clone(), database.clone());
        move || {
            computed.store(true, Ordering::Relaxed);
            compute(database)
        }
    }

    fn origin(&self) -> Origin {
        if self.0.load(Ordering::Relaxed) { Origin::Computed } else { Origin::Cached }
    }
}

fn problem(failure: Failure) -> Problem {
    match failure.downcast_ref::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::internal(failure),
    }
}
