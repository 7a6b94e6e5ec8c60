//! What every handler shares: the database, and perhaps a cache.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{Cache, CacheKey, Failure, Options, Value};

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
        let database = self.database.clone();
        let Some(cache) = &self.cache else {
            return Ok((Arc::new(compute(database).await?), Origin::Computed));
        };
        let computed = Arc::new(AtomicBool::new(false));
        let seen = computed.clone();
        let value = cache
            .get_or_compute(key, Options::ttl(TTL).tag(tags::ALL), move || {
                seen.store(true, Ordering::Relaxed);
                compute(database)
            })
            .await
            .map_err(problem)?;
        let computed = computed.load(Ordering::Relaxed);
        Ok((value, if computed { Origin::Computed } else { Origin::Cached }))
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

fn problem(failure: Failure) -> Problem {
    match failure.downcast_ref::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::internal(failure),
    }
}
