//! The `Backend` implementation.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Encoded, Entry, Error, ErrorKind, Found,
    Key, KeyRef, Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result,
    Revision, Sequence, Tag, Token, Ttl, When,
};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::missed::{Change, Missed};
use super::switch::{Route, Switch};
use super::{Failover, Inner};

impl<P: Backend, S: Backend> Failover<P, S> {
    // One operation, by whoever is in charge.
    async fn run<T>(
        &self,
        namespaces: &[&str],
        change: Change<'_>,
        first: impl Future<Output = Result<T>> + Send,
        second: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let inner = &self.0;
        let route = || inner.switch.route(namespaces.iter().copied(), change);
        if !matches!(change, Change::Nothing) && inner.switch.is_over() {
            // The last of what was missed is being told: that would never end if there were always more.
            let _ = tokio::time::timeout(LAST_WORDS, inner.telling.read()).await;
        }
        let needed = match route() {
            Route::Second(needed) => needed,
            Route::First => {
                let asking = Asking { inner, since: Some(Instant::now()) };
                let result = inner.patiently(first).await;
                asking.answered();
                if !inner.switch.report(result.as_ref().is_err_and(Error::is_outage)) {
                    return result;
                }
                match route() {
                    Route::Second(needed) => needed,
                    // It was back in this very moment.
                    Route::First => return result,
                }
            }
        };
        self.tend();
        for (name, emptied) in needed {
            // It is a key's namespace, which is one.
            let empty = async { inner.standby.clear(&Namespace::new(&name)?).await };
            emptied.get_or_try_init(|| empty).await?;
        }
        second.await
    }

    // Sees to it that somebody looks after the first store while it is gone.
    fn tend(&self) {
        let mut keeper = self.0.keeper.lock();
        if keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            return;
        }
        if let Ok(runtime) = Handle::try_current()
            && self.0.switch.is_over()
        {
            tracing::warn!(
                backend = self.0.primary.name(),
                standby = self.0.standby.name(),
                "the store is gone; another one stands in for it"
            );
            let inner = Arc::downgrade(&self.0);
            *keeper = Some(runtime.spawn(keep(inner, self.0.limits.probe)));
        }
    }
}

// Asks the first store again and again, until it is in charge.
async fn keep<P: Backend, S: Backend>(inner: Weak<Inner<P, S>>, every: Duration) {
    let mut well = 0;
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        well = if inner.would_write().await { well + 1 } else { 0 };
        if well >= inner.limits.settled {
            if inner.come_back().await {
                tracing::info!(backend = inner.primary.name(), "the store is in charge again");
                return;
            }
            well = 0;
        }
    }
}

impl<P: Backend, S: Backend> Inner<P, S> {
    async fn patiently<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let result = tokio::time::timeout(self.limits.patience, operation).await;
        result.unwrap_or_else(|_| {
            let words = "no answer within the patience of its failover";
            Err(Error::new(ErrorKind::Timeout, words).with_backend(self.primary.name()))
        })
    }

    // A write that can only be refused: a server that answers but may not write, a replica for instance, fails it.
    async fn would_write(&self) -> bool {
        let Ok(key) = Namespace::new("larder").and_then(|shop| Key::new(&shop, ["failover"]))
        else {
            return false;
        };
        let entry = Entry::wire(Encoded::default());
        let when = When::Revision(Revision::random());
        let put = self.primary.put(&key, entry, Ttl::For(Duration::from_secs(1)), when);
        // What it answers does not matter.
        self.patiently(put).await.as_ref().err().is_none_or(|error| !error.is_outage())
    }

    // Tells the first store what it has missed, and what it has missed meanwhile, and so on. False when it fails.
    async fn come_back(&self) -> bool {
        let (mut rounds, mut last) = (0, None);
        loop {
            rounds += 1;
            // Whoever changes something waits a moment for the last rounds.
            if rounds > 2 && last.is_none() {
                last = Some(self.telling.write().await);
            }
            let Some(missed) = self.switch.back() else { return true };
            let mut telling = Telling { switch: &self.switch, missed };
            if telling.missed.tell(&self.primary).await.is_err() {
                return false;
            }
            telling.missed = Missed::default();
        }
    }

    // What stands in lives at most for the ceiling.
    fn capped(&self, ttl: Ttl) -> Ttl {
        let ttl = ttl.resolve(self.primary.abilities().default_ttl);
        ttl.into_iter().chain(self.limits.ceiling).min().map_or(Ttl::Forever, Ttl::For)
    }
}

/// An operation of the first store under way. Given up by a caller with less patience than this has, it counts as what it
/// would have come to.
struct Asking<'a, P, S> {
    inner: &'a Inner<P, S>,
    since: Option<Instant>,
}

impl<P, S> Asking<'_, P, S> {
    fn answered(mut self) {
        self.since = None;
    }
}

impl<P, S> Drop for Asking<'_, P, S> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= self.inner.limits.patience / 2) {
            self.inner.switch.report(true);
        }
    }
}

/// What is being told to the first store: missed still, if that does not come to its end.
struct Telling<'a> {
    switch: &'a Switch,
    missed: Missed,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let missed = std::mem::take(&mut self.missed);
        if !missed.is_empty() {
            self.switch.restore(missed);
        }
    }
}

// How long a change waits at most for what is told before it.
const LAST_WORDS: Duration = Duration::from_millis(50);

// A cursor is of use to the store that made it.
fn marked(mut page: Page, mark: u8) -> Page {
    if let Some(cursor) = &mut page.next {
        cursor.0.push(mark);
    }
    page
}

async fn go_on<B: Backend>(
    store: &B,
    mark: u8,
    prefix: &Prefix,
    from: Option<Cursor>,
    limit: usize,
) -> Result<Page> {
    let from = match from {
        None => None,
        Some(Cursor(mut bytes)) => {
            if bytes.pop() != Some(mark) {
                let words = "the store changed while its keys were paged; begin anew";
                return Err(Error::new(ErrorKind::Unsupported, words));
            }
            Some(Cursor(bytes))
        }
    };
    Ok(marked(store.page(prefix, from, limit).await?, mark))
}

impl<P: Backend, S: Backend> Backend for Failover<P, S> {
    fn name(&self) -> &'static str {
        self.0.primary.name()
    }

    fn abilities(&self) -> Abilities {
        let (first, second) = (self.0.primary.abilities(), self.0.standby.abilities());
        Abilities {
            local: false,
            evicts: first.evicts || second.evicts,
            pages: first.pages && second.pages,
            shared: first.shared && second.shared,
            durable: false,
            follows_clock: first.follows_clock && second.follows_clock,
            precision: first.precision.max(second.precision),
            max_bytes: first.max_bytes.into_iter().chain(second.max_bytes).min(),
            clear_delay: first.clear_delay.max(second.clear_delay),
            read_delay: first.read_delay.max(second.read_delay),
            default_ttl: first.default_ttl,
            splits: true,
            copies: first.copies || second.copies,
            forgets: first.forgets,
        }
    }

    fn clock(&self) -> &Clock {
        self.0.primary.clock()
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        let Inner { primary, standby, switch, .. } = &*self.0;
        if !switch.is_over() {
            return primary.peek(key, now);
        }
        if switch.is_ready(key.namespace()) { standby.peek(key, now) } else { Peek::Ask }
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let Inner { primary, standby, .. } = &*self.0;
        let names: Vec<&str> = std::iter::once(key).chain(counters).map(Key::namespace).collect();
        let (first, second) = (primary.get(key, counters), standby.get(key, counters));
        self.run(&names, Change::Nothing, first, second).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let Inner { primary, standby, .. } = &*self.0;
        let names: Vec<&str> = keys.iter().map(Key::namespace).collect();
        let (first, second) = (primary.get_many(keys), standby.get_many(keys));
        self.run(&names, Change::Nothing, first, second).await
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        let Inner { primary, standby, .. } = &*self.0;
        let first = primary.put(key, entry.clone(), ttl, when);
        let second = standby.put(key, entry, self.0.capped(ttl), when);
        let change = Change::Keys(std::slice::from_ref(key));
        self.run(&[key.namespace()], change, first, second).await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let Inner { primary, standby, .. } = &*self.0;
        let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
        let names: Vec<&str> = keys.iter().map(Key::namespace).collect();
        let capped = |item: &Put| Put { ttl: self.0.capped(item.ttl), ..item.clone() };
        let second = standby.put_many(items.iter().map(capped).collect());
        self.run(&names, Change::Keys(&keys), primary.put_many(items), second).await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        let Inner { primary, standby, .. } = &*self.0;
        // Of a revision, too: it may be one that was read from the first store before.
        let change = Change::Keys(std::slice::from_ref(key));
        let (first, second) = (primary.remove(key, only), standby.remove(key, only));
        self.run(&[key.namespace()], change, first, second).await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let Inner { primary, standby, .. } = &*self.0;
        let names: Vec<&str> = keys.iter().map(Key::namespace).collect();
        let (first, second) = (primary.remove_many(keys), standby.remove_many(keys));
        self.run(&names, Change::Keys(keys), first, second).await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        let Inner { primary, standby, .. } = &*self.0;
        let change = Change::Keys(std::slice::from_ref(key));
        let (first, second) = (primary.touch(key, ttl), standby.touch(key, self.0.capped(ttl)));
        self.run(&[key.namespace()], change, first, second).await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        let Inner { primary, standby, .. } = &*self.0;
        let change = Change::Keys(std::slice::from_ref(key));
        let capped = |counter: Counter| Counter { ttl: self.0.capped(counter.ttl), ..counter };
        let second = standby.add(key, delta, create.map(capped));
        self.run(&[key.namespace()], change, primary.add(key, delta, create), second).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        let Inner { primary, standby, .. } = &*self.0;
        let (first, second) = (primary.remaining(key), standby.remaining(key));
        self.run(&[key.namespace()], Change::Nothing, first, second).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        let Inner { primary, standby, .. } = &*self.0;
        let (first, second) = (primary.begin(key, hold), standby.begin(key, hold));
        self.run(&[key.namespace()], Change::Nothing, first, second).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        let Inner { primary, standby, .. } = &*self.0;
        let (first, second) = (primary.renew(key, token, hold), standby.renew(key, token, hold));
        self.run(&[key.namespace()], Change::Nothing, first, second).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        let Inner { primary, standby, .. } = &*self.0;
        let first = primary.release(key, token, pass);
        let second = standby.release(key, token, pass);
        self.run(&[key.namespace()], Change::Nothing, first, second).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let Inner { primary, standby, .. } = &*self.0;
        let (first, second) = (primary.marks(namespace, tags), standby.marks(namespace, tags));
        self.run(&[namespace.as_str()], Change::Nothing, first, second).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let Inner { primary, standby, .. } = &*self.0;
        let first = primary.invalidate(namespace, tags);
        let second = standby.invalidate(namespace, tags);
        self.run(&[namespace.as_str()], Change::Tags(namespace, tags), first, second).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        let Inner { primary, standby, .. } = &*self.0;
        let (first, second) = (primary.clear(namespace), standby.clear(namespace));
        self.run(&[namespace.as_str()], Change::Everything(namespace), first, second).await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        let Inner { primary, standby, .. } = &*self.0;
        let first = go_on(primary, b'1', prefix, from.clone(), limit);
        let second = go_on(standby, b'2', prefix, from, limit);
        self.run(&[prefix.namespace().as_str()], Change::Nothing, first, second).await
    }
}
