//! Moving a session from an older secret's name to the present one's.
//!
//! A copy arrives first, which counts for nothing. What makes it the session is one conditional write: the record under
//! the old name becomes a stone that says which copy it was, if it is still the record that was read. So at every moment
//! the session is in one place, whoever dies in between. A slower request that saves, ends or rotates it under the old
//! name fails its own condition, or makes this one fail. A stone names one revision, so no later copy can take its place
//! and bring back what was ended.

use std::sync::Arc;

use larder_core::{Entry, Key, Outcome, Revision, Ttl, When};

use crate::commit::{forget, left, list, withdraw};
use crate::error::Result;
use crate::id::name;
use crate::layer::Shared;
use crate::record::{Alive, Record};
use crate::state::Base;

/// What became of it.
pub(crate) enum Moved {
    There(Base),
    /// Somebody else is moving it, or died over it a moment ago. It stays where it is.
    Busy,
    /// It is no longer what was read.
    Changed,
}

/// Moves a session, with what is to be in it.
pub(crate) async fn carry(shared: &Shared, base: &Base, alive: Arc<Alive>) -> Result<Moved> {
    let key = shared.key(&base.id)?;
    let ttl = Ttl::For(left(shared, &alive));
    let Some(copy) = arrive(shared, &key, alive.clone(), ttl).await? else {
        return Ok(Moved::Busy);
    };
    let written = Some(shared.config.clock.now());
    let id = base.id.clone();
    let mut there = Base { id, era: 0, key, alive, revision: copy, written, copy: true };
    if let Err(error) = list(shared, None, &there, Some(base)).await {
        withdraw(shared, &there).await;
        return Err(error);
    }
    let store = shared.config.store()?;
    // As long as the session itself, which is this copy until the last step is done.
    let stone = Entry::live(Arc::new(Record::Moved(name(&there.key), copy)));
    // If nobody knows whether that was done, the copy stays: it may be the session.
    if store.put(&base.key, stone, ttl, When::Revision(base.revision)).await? == Outcome::Refused {
        withdraw(shared, &there).await;
        return Ok(Moved::Changed);
    }
    forget(shared, Some(base)).await;
    settle(shared, &mut there).await;
    Ok(Moved::There(there))
}

/// Makes a copy that counts the session's record, which needs the older secret no more. If that fails, whoever uses the
/// session next tries again.
pub(crate) async fn settle(shared: &Shared, there: &mut Base) {
    let settled = Entry::live(Arc::new(Record::Alive(there.alive.clone())));
    let (revision, ttl) = (settled.revision(), Ttl::For(left(shared, &there.alive)));
    let Some(store) = &shared.config.store else { return };
    match store.put(&there.key, settled, ttl, When::Revision(there.revision)).await {
        Ok(Outcome::Stored) => {
            there.revision = revision;
            there.copy = false;
        }
        // Another request was quicker.
        Ok(Outcome::Refused) => {}
        Err(error) => tracing::warn!(?error, "a session that was moved still needs its older name"),
    }
}

// The copy's revision; `None` if there is one already.
async fn arrive(
    shared: &Shared,
    key: &Key,
    alive: Arc<Alive>,
    ttl: Ttl,
) -> Result<Option<Revision>> {
    let store = shared.config.store()?;
    let record = Arc::new(Record::Moving(alive));
    let put = async |when| {
        let copy = Entry::live(record.clone());
        let revision = copy.revision();
        let outcome = store.put(key, copy, ttl, when).await?;
        Ok::<_, crate::error::Error>((outcome == Outcome::Stored).then_some(revision))
    };
    if let Some(copy) = put(When::Absent).await? {
        return Ok(Some(copy));
    }
    // No mover takes as long as the longest request: it died before it could say that its copy counts.
    let Some(left) = store.get(key, &[]).await?.entry else { return Ok(None) };
    let copy = left.downcast_or(Record::decode);
    let since = left.times().map(|times| shared.config.clock.now().since(times.written));
    match (copy.as_deref(), since) {
        (Some(Record::Moving(_)), Some(since)) if since >= shared.config.tombstone => {
            put(When::Revision(left.revision())).await
        }
        _ => Ok(None),
    }
}
