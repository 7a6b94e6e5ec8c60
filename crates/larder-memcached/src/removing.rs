//! Removals: what is removed must be known, since a marker is no entry.

use futures_util::future::join_all;
use larder_core::{Key, Result, Revision};
use tokio::time::Instant;

use crate::outage::Failure;
use crate::protocol::{Item, Reply, Request, Want};
use crate::record::{Look, kind};
use crate::store::{Change, Inner, item};

impl Inner {
    /// Removes whatever is there; whether it was an entry.
    pub(crate) async fn remove(&self, key: &Key, deadline: Instant) -> Result<bool, Failure> {
        let mut was = false;
        for _ in 0..POLITE {
            let outline = |name: &str, request: &mut Request| request.get(name, Want::Outline);
            let Some(found) = item(self.one(key, true, deadline, outline).await?)? else {
                return Ok(false);
            };
            let Some((entry, cas)) = self.told(key, &found, deadline).await? else {
                return Ok(false);
            };
            was = entry;
            let remove = |name: &str, request: &mut Request| request.delete(name, Some(cas));
            match self.one(key, true, deadline, remove).await? {
                Reply::Item(_) => return Ok(entry),
                Reply::Missing => return Ok(false),
                _ => {}
            }
        }
        // Others write all the time: whatever is there now goes, and it is most likely of the kind that was there.
        let remove = |name: &str, request: &mut Request| request.delete(name, None);
        let reply = self.one(key, true, deadline, remove).await?;
        Ok(was && matches!(reply, Reply::Item(_)))
    }

    /// Removes that revision of an entry.
    pub(crate) async fn remove_only(
        &self,
        key: &Key,
        revision: Revision,
        deadline: Instant,
    ) -> Result<bool> {
        while self.in_time(deadline) {
            let seen = self.look(key, deadline).await?;
            if !matches!(&seen.look, Look::Entry(entry) if entry.revision() == revision) {
                return Ok(false);
            }
            let removed = self.swap(key, seen.cas, Change::Remove, deadline).await;
            if removed.map_err(Failure::in_doubt)? {
                return Ok(true);
            }
        }
        Err(Failure::contended().into())
    }

    /// Removes many; how many entries there were. One server that cannot be reached is an error, and the other servers'
    /// keys are removed all the same.
    pub(crate) async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let deadline = self.deadline();
        let keys: Vec<&Key> = keys.iter().collect();
        let outline = self
            .each(&keys, true, deadline, |_, _, name, request| request.get(name, Want::Outline))
            .await;
        let mut failed = None;
        let told = keys.iter().zip(outline).map(async |(key, reply)| match item(reply?)? {
            Some(item) => self.told(key, &item, deadline).await,
            None => Ok(None),
        });
        let mut there = Vec::new();
        for (key, told) in keys.iter().zip(join_all(told).await) {
            match told {
                Ok(Some((entry, cas))) => there.push((*key, entry, cas)),
                Ok(None) => {}
                Err(failure) => failed = Some(failure),
            }
        }
        let names: Vec<&Key> = there.iter().map(|(key, ..)| *key).collect();
        let removed = self
            .each(&names, true, deadline, |place, _, name, request| {
                request.delete(name, Some(there[place].2));
            })
            .await;
        let counted =
            there.iter().zip(removed).map(async |((key, entry, _), reply)| match reply? {
                Reply::Item(_) => Ok(*entry),
                Reply::Changed => self.remove(key, deadline).await,
                Reply::Missing => Ok(false),
                Reply::Refused(refusal) => Err(refusal.failure()),
                Reply::NotStored => Err(Failure::garbled()),
            });
        let mut count = 0;
        for counted in join_all(counted).await {
            match counted {
                Ok(entry) => count += u64::from(entry),
                Err(failure) => failed = Some(failure),
            }
        }
        failed.map_or(Ok(count), |failure| Err(failure.into()))
    }

    // Whether an item is an entry, and which writing of it. What the server keeps beside the value tells, unless the
    // end is near: then the record tells, whose end comes a little earlier.
    async fn told(
        &self,
        key: &Key,
        found: &Item,
        deadline: Instant,
    ) -> Result<Option<(bool, u64)>, Failure> {
        if found.left.is_none_or(|left| left > NEAR) {
            match found.flags {
                kind::ENTRY => return Ok(Some((true, found.cas))),
                kind::MARKER => return Ok(Some((false, found.cas))),
                _ => {}
            }
        }
        let seen = self.look(key, deadline).await?;
        Ok(seen.cas.map(|cas| (seen.look.is_entry(), cas)))
    }
}

// How often a removal looks first.
const POLITE: usize = 8;

// Seconds: twice as many as a server keeps an item too long.
const NEAR: u64 = 5;
