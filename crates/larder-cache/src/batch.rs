//! Many values at once: one round trip.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use larder_core::{Entry, Error, Key, Outcome, Put, Result, When};

use crate::{Cache, CacheKey, Options, Value};

impl Cache {
    /// Reads many values in one round trip: those found, under the keys given.
    ///
    /// # Errors
    ///
    /// When a key cannot be used; see also [the table](Cache#when-the-store-fails).
    pub async fn get_many<T: Value, K: CacheKey + Eq + Hash>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<HashMap<K, Arc<T>>> {
        let names: Vec<K> = keys.into_iter().collect();
        let keys = names.iter().map(|name| self.key(name)).collect::<Result<Vec<_>>>()?;
        let entries = self.open(self.store().lookup_many(&keys).await, Vec::new)?;
        let now = self.store().clock().now();
        let fresh = |entry: &Entry| entry.is_fresh(now);
        let values = entries.into_iter().map(|entry| self.read(&entry.filter(fresh)?));
        Ok(names.into_iter().zip(values).filter_map(|(name, v)| Some((name, v?))).collect())
    }

    /// Stores many values in one round trip; the keys of those that were not stored.
    ///
    /// # Errors
    ///
    /// When a key cannot be used or a value cannot be serialized; nothing is stored then. See also
    /// [the table](Cache#when-the-store-fails).
    pub async fn set_many<T: Value, K: CacheKey>(
        &self,
        items: impl IntoIterator<Item = (K, T)>,
        options: Options,
    ) -> Result<Vec<K>> {
        let store = self.store();
        let tags = options.checked_tags()?;
        let (mut names, mut puts) = (Vec::new(), Vec::new());
        for (name, value) in items {
            let (entry, ttl) = self.entry(Arc::new(value), &options)?;
            let key = self.key(&name)?;
            puts.push(Put { key, entry, ttl, when: When::Always });
            names.push(name);
        }
        if names.is_empty() {
            return Ok(names);
        }
        let keys: Vec<Key> = puts.iter().map(|put| put.key.clone()).collect();
        let lost = |error: Error| {
            self.not_replaced(&keys, &error);
            error
        };
        if !tags.is_empty() {
            let sequence = match store.marks(&options.watched(&tags)).await {
                Ok(marks) => marks.sequence,
                // Stored without its tags' numbers a value could never be invalidated.
                Err(error) => return self.open(Err(lost(error)), || names),
            };
            let carried = options.carried(&tags);
            for put in &mut puts {
                let entry = put.entry.clone().with_tags(carried.iter().cloned());
                put.entry = entry.with_built_at(sequence);
            }
        }
        keys.iter().for_each(|key| store.detach(key));
        let outcomes = store.put_many(puts).await;
        keys.iter().for_each(|key| store.detach(key));
        match outcomes {
            Ok(outcomes) => {
                let mut failed = Vec::new();
                for ((name, key), outcome) in names.into_iter().zip(&keys).zip(outcomes) {
                    if let Err(error) = &outcome {
                        self.not_replaced(std::slice::from_ref(key), error);
                    }
                    if !matches!(outcome, Ok(Outcome::Stored)) {
                        failed.push(name);
                    }
                }
                Ok(failed)
            }
            Err(error) => self.open(Err(lost(error)), || names),
        }
    }

    /// Removes many values in one round trip; how many there were.
    ///
    /// # Errors
    ///
    /// When the removal was not confirmed. The keys then read as empty on this node until it is.
    pub async fn delete_many<K: CacheKey>(&self, keys: impl IntoIterator<Item = K>) -> Result<u64> {
        let keys = keys.into_iter().map(|key| self.key(&key)).collect::<Result<Vec<_>>>()?;
        let store = self.store();
        keys.iter().for_each(|key| store.detach(key));
        let removed = store.remove_many(&keys).await;
        keys.iter().for_each(|key| store.detach(key));
        removed
    }
}
