//! Integers that are counted in the store.

use larder_core::{Counter, Error, ErrorKind, Result, Ttl};

use crate::{Cache, CacheKey};

impl Cache {
    /// Adds to an integer without changing its lifetime. `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`NotAnInteger`](ErrorKind::NotAnInteger) when the value is none or the sum would overflow, and when the store
    /// cannot be asked.
    pub async fn incr(&self, key: impl CacheKey, delta: i64) -> Result<Option<i64>> {
        self.store().add(&self.key(&key)?, delta, None).await
    }

    /// Subtracts from an integer; see [`incr`](Cache::incr).
    ///
    /// # Errors
    ///
    /// As [`incr`](Cache::incr).
    pub async fn decr(&self, key: impl CacheKey, delta: i64) -> Result<Option<i64>> {
        let delta = delta.checked_neg().ok_or_else(|| {
            Error::new(ErrorKind::NotAnInteger, "the smallest integer cannot be subtracted")
        })?;
        self.incr(key, delta).await
    }

    /// Adds to an integer that starts at `initial` if there is none, with that lifetime.
    ///
    /// # Errors
    ///
    /// As [`incr`](Cache::incr).
    pub async fn incr_or(
        &self,
        key: impl CacheKey,
        delta: i64,
        initial: i64,
        ttl: impl Into<Ttl>,
    ) -> Result<i64> {
        let create = Counter { initial, ttl: ttl.into() };
        let sum = self.store().add(&self.key(&key)?, delta, Some(create)).await?;
        sum.ok_or_else(|| Error::new(ErrorKind::Other, "the store did not create the counter"))
    }
}
