//! Whose sessions there are: for each user a list of them, which says which are valid.
//!
//! A session of a user is valid while it is in their list. So ending one, some or all of them is one atomic write of one
//! record, and whatever is lost (a list that was evicted, a session that was not listed) ends sessions and never brings
//! one back. The cookie says which list it is, so that list and session are read in one round trip.
//!
//! Format version 1 of a list: for each session, the oldest first, the name of its record (32 bytes), when it was signed
//! in (milliseconds of Unix time), the length of the device's name (2 bytes) and that. All big-endian.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, BytesMut};
use larder_core::{Encoded, Entry, Key, Live, Outcome, Result as CoreResult, Ttl, When};

use crate::commit;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Era, Names, Slot, named};
use crate::layer::Shared;
use crate::record::Record;

/// The most sessions that a user has; the oldest one ends when there would be more.
pub(crate) const MAX_DEVICES: usize = 64;
/// The longest name of a user, in bytes.
pub(crate) const MAX_USER: usize = 256;
/// The longest name of a device, in bytes; longer ones are cut.
const MAX_LABEL: usize = 256;

const CODEC: u8 = 21;
const VERSION: u8 = 1;
const TRIES: u32 = 100;

/// One session in a user's list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) name: [u8; 32],
    pub(crate) since: i64,
    pub(crate) label: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct List(Vec<Listed>);

impl Live for List {
    fn encode(&self) -> CoreResult<Encoded> {
        let mut body = BytesMut::new();
        for listed in &self.0 {
            body.put_slice(&listed.name);
            body.put_i64(listed.since);
            body.put_u16(listed.label.len() as u16);
            body.put_slice(listed.label.as_bytes());
        }
        let head = bytes::Bytes::from_static(&[VERSION]);
        Ok(Encoded { codec: CODEC, head, body: body.freeze() })
    }

    fn weight(&self) -> usize {
        let each = |listed: &Listed| size_of::<Listed>() + listed.label.len();
        size_of::<Self>() + self.0.iter().map(each).sum::<usize>()
    }
}

impl List {
    fn decode(encoded: &Encoded) -> Option<List> {
        if encoded.codec != CODEC || encoded.head[..] != [VERSION] {
            return None;
        }
        let mut rest = encoded.body.clone();
        let mut list = Vec::new();
        while !rest.is_empty() {
            if rest.len() < 42 || list.len() == MAX_DEVICES {
                return None;
            }
            let mut name = [0; 32];
            rest.copy_to_slice(&mut name);
            let (since, length) = (rest.get_i64(), usize::from(rest.get_u16()));
            if length > MAX_LABEL || length > rest.len() {
                return None;
            }
            let label = String::from_utf8(rest.split_to(length).to_vec()).ok()?;
            list.push(Listed { name, since, label });
        }
        Some(List(list))
    }

    // What cannot be read lists nobody.
    fn of(entry: Option<&Entry>) -> Arc<List> {
        entry.and_then(|entry| entry.downcast_or(List::decode)).unwrap_or_default()
    }

    fn holds(&self, name: &[u8; 32]) -> bool {
        self.0.iter().any(|listed| listed.name == *name)
    }
}

/// Whether that list, as it was read, has that session in it.
pub(crate) fn lists(entry: Option<&Entry>, name: &[u8; 32]) -> bool {
    List::of(entry).holds(name)
}

/// Changes a list, unless `change` says that there is nothing to change.
async fn change(
    shared: &Shared,
    slot: Slot,
    mut change: impl FnMut(&mut Vec<Listed>) -> Result<bool> + Send,
) -> Result<()> {
    let (store, key) = (shared.config.store()?, shared.user_key(slot)?);
    for attempt in 0..TRIES {
        commit::pause(attempt).await;
        let entry = store.get(&key, &[]).await?.entry;
        let mut list = (*List::of(entry.as_ref())).clone();
        if !change(&mut list.0)? {
            return Ok(());
        }
        let when = entry.as_ref().map_or(When::Absent, |entry| When::Revision(entry.revision()));
        let done = match entry {
            Some(entry) if list.0.is_empty() => store.remove(&key, Some(entry.revision())).await?,
            _ => {
                let entry = Entry::live(Arc::new(list));
                // Longer than any of its sessions.
                store.put(&key, entry, Ttl::For(Ttl::MAX), when).await? == Outcome::Stored
            }
        };
        if done {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Conflict))
}

/// Lists a session that begins. If it goes on where `before` was, in the same list or in another secret's, that must
/// still be listed.
pub(crate) async fn add(
    shared: &Shared,
    slot: Slot,
    new: Listed,
    before: Option<(Slot, [u8; 32])>,
) -> Result<()> {
    prune(shared, slot).await?;
    let Some((elsewhere, before)) = before.filter(|(old, _)| *old != slot) else {
        let before = before.map(|(_, name)| name);
        return change(shared, slot, |list| put(list, &new, before)).await;
    };
    let old = find(shared, elsewhere, before).await?;
    let goes_on = Listed { name: new.name, ..old };
    change(shared, slot, |list| put(list, &goes_on, None)).await?;
    // Whoever ended it in the other list until now did not see it in this one; whoever does so later, will.
    if let Err(ended) = find(shared, elsewhere, before).await {
        remove(shared, slot, new.name).await?;
        return Err(ended);
    }
    Ok(())
}

fn put(list: &mut Vec<Listed>, new: &Listed, before: Option<[u8; 32]>) -> Result<bool> {
    let listed = match before {
        None => new.clone(),
        Some(before) => {
            let old = list.iter().find(|listed| listed.name == before);
            let old = old.ok_or_else(|| Error::new(ErrorKind::Gone))?;
            Listed { name: new.name, ..old.clone() }
        }
    };
    list.retain(|other| other.name != listed.name);
    list.push(listed);
    if list.len() > MAX_DEVICES {
        list.remove(0);
    }
    Ok(true)
}

async fn find(shared: &Shared, slot: Slot, name: [u8; 32]) -> Result<Listed> {
    let entry = shared.config.store()?.get(&shared.user_key(slot)?, &[]).await?.entry;
    let list = List::of(entry.as_ref());
    let found = list.0.iter().find(|listed| listed.name == name);
    found.cloned().ok_or_else(|| Error::new(ErrorKind::Gone))
}

/// Takes one session off its user's list, or all but one, and says which.
async fn take(
    shared: &Shared,
    slot: Slot,
    goes: impl Fn(&Listed) -> bool + Send + Sync,
) -> Result<Vec<[u8; 32]>> {
    let mut gone = Vec::new();
    change(shared, slot, |list| {
        gone = list.iter().filter(|one| goes(one)).map(|listed| listed.name).collect();
        list.retain(|listed| !goes(listed));
        Ok(!gone.is_empty())
    })
    .await?;
    // Also where there is nothing to take: it may have been taken by somebody who could not drop the copies.
    commit::confirm(shared, &shared.user_key(slot)?).await?;
    Ok(gone)
}

/// Takes a session off its list.
pub(crate) async fn remove(shared: &Shared, slot: Slot, name: [u8; 32]) -> Result<()> {
    take(shared, slot, |listed| listed.name == name).await.map(drop)
}

/// Takes a session that is over off its list. It is no session any more, so it does not matter if that fails.
pub(crate) async fn forget(shared: &Shared, slot: Slot, name: [u8; 32]) {
    if shared.config.store.is_some()
        && let Err(error) = remove(shared, slot, name).await
    {
        tracing::debug!(?error, "a session that is over stays in its user's list for a while");
    }
}

// A long list may be full of sessions that ended by themselves.
async fn prune(shared: &Shared, slot: Slot) -> Result<()> {
    let (store, key) = (shared.config.store()?, shared.user_key(slot)?);
    let list = List::of(store.get(&key, &[]).await?.entry.as_ref());
    if list.0.len() < MAX_DEVICES / 2 || shared.config.seal.is_some() {
        return Ok(());
    }
    let seen = seen(shared, &list).await?;
    let over = |one: &Listed| {
        let at = list.0.iter().position(|listed| listed.name == one.name);
        at.is_some_and(|at| seen[at].is_none())
    };
    take(shared, slot, over).await.map(drop)
}

// How long ago each session of a list was last kept alive; `None` where it is over.
async fn seen(shared: &Shared, list: &List) -> Result<Vec<Option<Duration>>> {
    let store = shared.config.store()?;
    let keys = list.0.iter().map(|listed| named(store.namespace(), &listed.name));
    let keys = keys.collect::<Result<Vec<Key>>>()?;
    let now = shared.config.clock.now();
    let entries = store.lookup_many(&keys).await?;
    Ok(entries
        .into_iter()
        .map(|entry| {
            let entry = entry?;
            let record = entry.downcast_or(Record::decode)?;
            let alive = record.content()?;
            let idle = entry.times().map_or(Duration::ZERO, |times| now.since(times.written));
            (!shared.is_over(alive, idle)).then_some(idle)
        })
        .collect())
}

/// A session of a user, for a page that lists their devices.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Device {
    /// Names it for [`revoke`](Users::revoke): 16 hexadecimal digits, which give nobody access to anything.
    pub id: String,
    /// What was said of it at the sign-in. Comes from the client as often as not, so it is to be escaped.
    pub label: String,
    /// When it was signed in.
    pub since: SystemTime,
    /// How long ago it was last kept alive. `None` for sessions that live in their cookie.
    pub idle: Option<Duration>,
    /// Whether it is the session that was asked.
    pub current: bool,
}

/// The sessions of users: made by [`SessionLayer::users`](crate::SessionLayer::users), for those who are not that user.
/// A [`Session`](crate::Session) has the same for its own. A clone is one reference count.
///
/// ```
/// use larder_cache::Cache;
/// use larder_session::SessionLayer;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let sessions = SessionLayer::new(&Cache::memory()).evictable();
/// let users = sessions.users();
/// // Somebody's password was changed by an administrator.
/// assert_eq!(users.revoke_all("ada").await?, 0);
/// # Ok::<(), larder_session::Error>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// Every method fails with [`Store`](ErrorKind::Store) when the store cannot be asked, and with
/// [`Configuration`](ErrorKind::Configuration) when sessions live in their cookies and
/// [`Sealed::revocable`](crate::Sealed::revocable) was not said.
///
/// # Cancel safety
///
/// Every future may be dropped; sessions were then ended or not, each wholly.
#[derive(Clone)]
pub struct Users(pub(crate) Arc<Shared>);

impl Users {
    /// A user's sessions that are alive, those that signed in first at the beginning.
    ///
    /// # Errors
    ///
    /// See [above](Users#errors).
    pub async fn devices(&self, user: &str) -> Result<Vec<Device>> {
        self.devices_for(user, &[]).await
    }

    pub(crate) async fn devices_for(
        &self,
        user: &str,
        current: &[[u8; 32]],
    ) -> Result<Vec<Device>> {
        let mut devices = Vec::new();
        let eras = self.0.eras();
        for era in &eras {
            devices.extend(self.devices_of(*era, user, current).await?);
        }
        if eras.len() > 1 {
            devices.sort_by_key(|device| device.since);
        }
        Ok(devices)
    }

    async fn devices_of(&self, era: Era, user: &str, current: &[[u8; 32]]) -> Result<Vec<Device>> {
        let (shared, names) = (&*self.0, self.0.names(era));
        let key = shared.user_key(names.slot(user))?;
        let list = List::of(shared.config.store()?.get(&key, &[]).await?.entry.as_ref());
        let in_cookies = shared.config.seal.is_some();
        let seen = match in_cookies {
            true => vec![None; list.0.len()],
            false => seen(shared, &list).await?,
        };
        let alive = list.0.iter().zip(seen).filter(|(_, idle)| in_cookies || idle.is_some());
        Ok(alive
            .map(|(listed, idle)| Device {
                id: names.device(&listed.name),
                label: listed.label.clone(),
                since: SystemTime::UNIX_EPOCH
                    + Duration::from_millis(u64::try_from(listed.since).unwrap_or(0)),
                idle,
                current: current.contains(&listed.name),
            })
            .collect())
    }

    /// Ends one session of a user. False if there is none of that id.
    ///
    /// # Errors
    ///
    /// See [above](Users#errors).
    pub async fn revoke(&self, user: &str, device: &str) -> Result<bool> {
        let ended = self.end(user, |names, listed| names.device(&listed.name) == device).await?;
        Ok(ended > 0)
    }

    /// Ends all sessions of a user; how many there were.
    ///
    /// Whoever signs in afterwards is in: change the password first. A request that has checked the old one and is just
    /// signing in may come after, so end them again a moment later where that matters.
    ///
    /// # Errors
    ///
    /// See [above](Users#errors).
    pub async fn revoke_all(&self, user: &str) -> Result<usize> {
        self.end(user, |_, _| true).await
    }

    pub(crate) async fn revoke_others(&self, user: &str, own: &[[u8; 32]]) -> Result<usize> {
        self.end(user, |_, listed| !own.contains(&listed.name)).await
    }

    async fn end(
        &self,
        user: &str,
        goes: impl Fn(&Names, &Listed) -> bool + Send + Sync,
    ) -> Result<usize> {
        let shared = &*self.0;
        let eras = shared.eras();
        let mut gone = Vec::new();
        for _ in 0..TRIES {
            let before = gone.len();
            for era in &eras {
                let names = shared.names(*era);
                let goes = |listed: &Listed| goes(names, listed);
                gone.extend(take(shared, names.slot(user), goes).await?);
            }
            // What moved from one list to another meanwhile is in neither when a whole round finds nothing.
            if eras.len() == 1 || gone.len() == before {
                break;
            }
        }
        let mut failed = None;
        if shared.config.seal.is_none() {
            let store = shared.config.store()?;
            for name in &gone {
                // They are over already, unless one was just being rotated or moved; this ends it where it went, frees
                // their room, and tells slower requests why they fail.
                let key = named(store.namespace(), name)?;
                if let Err(error) = commit::kill(shared, key, None).await {
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(gone.len()), Err)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users")
    }
}

/// The name of a device as it is listed: without control characters, and not longer than a list has room for.
pub(crate) fn label(text: &str) -> String {
    let mut label: String = text.chars().filter(|character| !character.is_control()).collect();
    label.truncate(label.floor_char_boundary(MAX_LABEL));
    label
}
