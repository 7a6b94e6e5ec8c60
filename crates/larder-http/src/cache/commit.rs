//! Storing a variant beside its siblings.

use std::sync::Arc;

use larder_cache::{Closed, Pilot};
use larder_core::{Entry, Key, Moment, Outcome, Put, Revision, Sequence, Tag, Token, Ttl, When};
use smallvec::smallvec;

use super::layer::Shared;
use super::miss::variant_key;
use super::record::{Page, PageId, Shown, Variant};
use super::wire;

/// What allows a response to be stored.
pub(super) enum Permit {
    /// The fill marker of that token is there.
    Token(Token),
    /// The page that was looked at is there: revision, when it was written, itself.
    Page(Revision, Moment, Entry, Arc<Page>),
    /// The unusable record of that revision is there.
    Revision(Revision),
    /// Nothing: another node is filling.
    Never,
    /// Nothing: the store cannot be asked.
    Outage,
}

impl Permit {
    /// The fill marker's token, if there is one.
    pub(super) fn token(&self) -> Option<Token> {
        match self {
            Permit::Token(token) => Some(*token),
            _ => None,
        }
    }

    /// Takes the fill marker away, if there is one.
    pub(super) async fn release(&self, shared: &Shared, key: &Key) {
        if let Some(token) = self.token() {
            // If this fails the marker ends by itself.
            let _ = shared.config.store.release(key, token, None).await;
        }
    }

    /// The condition for storing.
    fn when(&self) -> Option<When> {
        match self {
            Permit::Token(token) => Some(When::Token(*token)),
            Permit::Page(revision, ..) | Permit::Revision(revision) => {
                Some(When::Revision(*revision))
            }
            Permit::Never | Permit::Outage => None,
        }
    }
}

pub(super) struct Commit {
    pub(super) built_at: Sequence,
    pub(super) permit: Permit,
    /// It was asked for often enough to be stored.
    pub(super) admitted: bool,
    /// When the response's head came.
    pub(super) head_at: Moment,
}

pub(super) struct Committed {
    pub(super) variant: Shown,
    pub(super) stored: bool,
    /// Whether those who waited may have it.
    pub(super) shared: bool,
}

// Other variants of the same page may be stored at the same time; each makes this one try anew.
const TRIES: usize = 16;
const MAX_LISTS: usize = 4;

impl Commit {
    /// The condition for storing.
    pub(super) fn when(&self) -> Option<When> {
        self.permit.when().filter(|_| self.admitted)
    }

    pub(super) async fn run(
        self,
        shared: &Shared,
        key: &Key,
        mut variant: Variant,
        tags: Vec<Tag>,
        pilot: Option<&Pilot>,
    ) -> Committed {
        let store = &shared.config.store;
        let closed = pilot.map_or_else(Closed::default, Pilot::close);
        let may_share = async |when, otherwise| {
            closed.may_share(store, key, when, &tags, self.built_at, otherwise).await
        };
        let Some(mut when) = self.when() else {
            let may_share = match self.permit.when() {
                Some(when) => may_share(when, true).await,
                None => {
                    matches!(self.permit, Permit::Outage)
                        && closed.may_share_outage(store, key).await
                }
            };
            self.permit.release(shared, key).await;
            let variant = Shown::Other(Arc::new(variant));
            return Committed { variant, stored: false, shared: may_share };
        };
        let mut beside = match &self.permit {
            Permit::Page(_, written, entry, page) => Some((*written, entry.clone(), page.clone())),
            _ => None,
        };
        let entry = |live: Arc<Page>| {
            Entry::live(live).with_tags(tags.iter().cloned()).with_built_at(self.built_at)
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let (page, moved) = match &beside {
                None => (Page::first(variant), None),
                // Boxed, since the first of a page is what most are.
                Some((written, entry, page)) => {
                    Box::pin(join(shared, key, page, entry, *written, variant)).await
                }
            };
            let page = Arc::new(page);
            let done = |stored, shared| {
                let variant = Shown::Newest(page.clone());
                Committed { variant, stored, shared }
            };
            let policy = &shared.config.policy;
            let mut ttl = page.newest.response.kept_for(policy);
            if let Some((_, entry, _)) = &beside
                && !page.others.is_empty()
            {
                // The page lives as long as any variant that only it can find.
                ttl = ttl.max(entry.remaining(store.clock().now()).unwrap_or(Ttl::MAX));
            }
            if let Some(moved) = moved
                && store.put_many(vec![moved]).await.is_err()
            {
                return done(false, may_share(When::Always, true).await);
            }
            match store.put(key, entry(page.clone()), Ttl::For(ttl), when).await {
                Ok(Outcome::Stored) => return done(true, may_share(When::Always, false).await),
                Err(_) => return done(false, may_share(When::Always, true).await),
                Ok(Outcome::Refused) => {}
            }
            // Refused: because of a sibling, if the page still has its id; else it was invalidated, or made stale.
            let there = match beside {
                Some(_) if tries < TRIES => sibling(shared, key, page.id).await,
                _ => None,
            };
            let Some((written, entry, sibling)) = there else { return done(false, false) };
            variant = match Arc::try_unwrap(page) {
                Ok(page) => page.newest,
                Err(page) => page.newest.clone(),
            };
            when = When::Revision(entry.revision());
            beside = Some((written, entry, sibling));
        }
    }
}

// The page of that id, which another variant was stored in meanwhile.
async fn sibling(shared: &Shared, key: &Key, id: PageId) -> Option<(Moment, Entry, Arc<Page>)> {
    let route = &shared.config.route.credentials;
    let entry = shared.config.store.get(key, &[]).await.ok()?.entry?;
    let page = entry.downcast_or(|encoded| wire::decode_page(encoded, route))?;
    let written = entry.times()?.written;
    (page.id == id).then_some((written, entry, page))
}

// The page with the variant as its newest, and the one that it takes that place from.
async fn join(
    shared: &Shared,
    key: &Key,
    page: &Page,
    entry: &Entry,
    written: Moment,
    variant: Variant,
) -> (Page, Option<Put>) {
    let now = shared.config.store.clock().now();
    let name = Variant::name(&variant.list, &variant.selector);
    let mut lists = smallvec![variant.list.clone()];
    lists.extend(page.lists.iter().filter(|list| **list != variant.list).cloned());
    lists.truncate(MAX_LISTS);
    let mut others: Vec<_> = page.others.iter().filter(|other| **other != name).copied().collect();

    let old = &page.newest;
    let old_name = Variant::name(&old.list, &old.selector);
    let aged = old.aged(now.since(written));
    let left = aged.response.kept_for(&shared.config.policy);
    let mut moved = None;
    if old_name != name
        && !left.is_zero()
        && let Some(key) = variant_key(key, page.id, old_name)
    {
        let entry = Entry::live(Arc::new(aged))
            .with_tags(entry.tags().iter().cloned())
            .with_built_at(entry.built_at());
        moved = Some(Put { key, entry, ttl: Ttl::For(left), when: When::Always });
        others.retain(|other| *other != old_name);
        others.insert(0, old_name);
    }
    let most = shared.config.max_variants - 1;
    if others.len() > most {
        let gone: Vec<Key> =
            others.drain(most..).filter_map(|name| variant_key(key, page.id, name)).collect();
        // What is left behind if this fails ends by its lifetime, unfound.
        let _ = shared.config.store.remove_many(&gone).await;
    }
    (Page { id: page.id, lists, others, newest: variant }, moved)
}
