//! A backend that fails, waits or hangs when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Error, ErrorKind, Found, Key, KeyRef,
    Marks, Moment, Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision,
    Sequence, Tag, Token, Ttl, When,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// One method of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Peek,
    Get,
    GetMany,
    Put,
    PutMany,
    Remove,
    RemoveMany,
    Touch,
    Add,
    Remaining,
    Begin,
    Renew,
    Release,
    Marks,
    Invalidate,
    Clear,
    Page,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 17] = [
        Verb::Peek,
        Verb::Get,
        Verb::GetMany,
        Verb::Put,
        Verb::PutMany,
        Verb::Remove,
        Verb::RemoveMany,
        Verb::Touch,
        Verb::Add,
        Verb::Remaining,
        Verb::Begin,
        Verb::Renew,
        Verb::Release,
        Verb::Marks,
        Verb::Invalidate,
        Verb::Clear,
        Verb::Page,
    ];
}

/// What goes wrong. A [`peek`](Backend::peek) can do none of it: it always answers `Ask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails, and the backend never hears of it.
    Fail(ErrorKind),
    /// The call happens, and its answer is lost: the caller gets this error.
    Lose(ErrorKind),
    /// The call happens later.
    Delay(Duration),
    /// The call happens, and its answer comes later.
    Late(Duration),
    /// The call waits until [`Faults::heal`], perhaps for ever, and happens then.
    Hang,
}

/// One call, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The verb.
    pub verb: Verb,
    /// The keys that it named, counters of a `get` last. Their `Debug` form is a digest.
    pub keys: Vec<Key>,
}

/// Wraps a backend, and forwards every call unless its [`Faults`] say otherwise.
///
/// It declares what the wrapped backend declares, except [`local`](Abilities::local): it may have to wait.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder_core::Result<()> {
/// use larder_core::{Backend, Clock, ErrorKind, Key, Namespace};
/// use larder_testkit::faulty::{Fault, Faulty, Verb};
/// use larder_testkit::reference::Reference;
///
/// let backend = Faulty::new(Reference::new(Clock::system()));
/// let faults = backend.faults();
/// let key = Key::new(&Namespace::new("shop")?, ["k"])?;
///
/// faults.inject(Fault::Fail(ErrorKind::Unavailable), &[Verb::Get]);
/// assert!(backend.get(&key, &[]).await.is_err());
/// assert!(!backend.remove(&key, None).await?);
/// faults.heal();
/// assert!(backend.get(&key, &[]).await?.entry.is_none());
/// assert_eq!(faults.count(Verb::Get), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
}

impl<B> Faulty<B> {
    /// Wraps a backend. Nothing goes wrong yet.
    pub fn new(inner: B) -> Self {
        Faulty { inner, faults: Faults::default() }
    }

    /// What decides what goes wrong: keep a clone in the test.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    async fn call<T>(
        &self,
        verb: Verb,
        keys: Vec<Key>,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let after = self.faults.meet(verb, keys).await?;
        let answer = call.await;
        match after {
            After::Answer => answer,
            After::Lost(kind) => Err(error(kind)),
            After::Late(duration) => {
                let _waiting = Waiting::new(&self.faults);
                tokio::time::sleep(duration).await;
                answer
            }
        }
    }
}

/// Decides what goes wrong in a [`Faulty`], and remembers what it was asked. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Mutex<Vec<Rule>>,
    calls: Mutex<Vec<Call>>,
    waiting: AtomicUsize,
    // Counts healings; hanging calls wait for the next one.
    heals: watch::Sender<u64>,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    verbs: Vec<Verb>,
    left: Option<usize>,
}

impl Default for Faults {
    fn default() -> Self {
        Faults(Arc::new(Inner {
            rules: Mutex::default(),
            calls: Mutex::default(),
            waiting: AtomicUsize::new(0),
            heals: watch::Sender::new(0),
        }))
    }
}

impl Faults {
    /// From now on this goes wrong with these verbs, until [`heal`](Faults::heal). A later injection counts first.
    pub fn inject(&self, fault: Fault, verbs: &[Verb]) {
        self.rule(fault, verbs, None);
    }

    /// Like [`inject`](Faults::inject), for the next so many calls of these verbs.
    pub fn inject_times(&self, times: usize, fault: Fault, verbs: &[Verb]) {
        self.rule(fault, verbs, Some(times));
    }

    /// Nothing goes wrong any more, and what hangs goes on.
    pub fn heal(&self) {
        self.0.rules.lock().clear();
        self.0.heals.send_modify(|heals| *heals += 1);
    }

    /// Every call since the beginning, or since [`forget`](Faults::forget).
    pub fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().clone()
    }

    /// How many calls of that verb there were.
    pub fn count(&self, verb: Verb) -> usize {
        self.0.calls.lock().iter().filter(|call| call.verb == verb).count()
    }

    /// How many calls there were of any verb but `Peek`: those that would cost a round trip.
    pub fn total(&self) -> usize {
        self.0.calls.lock().iter().filter(|call| call.verb != Verb::Peek).count()
    }

    /// Forgets the calls so far.
    pub fn forget(&self) {
        self.0.calls.lock().clear();
    }

    /// How many calls hang or are delayed at this moment.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    fn rule(&self, fault: Fault, verbs: &[Verb], left: Option<usize>) {
        self.0.rules.lock().push(Rule { fault, verbs: verbs.into(), left });
    }

    fn note(&self, verb: Verb, keys: Vec<Key>) -> Option<Fault> {
        self.0.calls.lock().push(Call { verb, keys });
        let mut rules = self.0.rules.lock();
        let applies = |rule: &&mut Rule| rule.verbs.contains(&verb) && rule.left != Some(0);
        let rule = rules.iter_mut().rev().find(applies)?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.fault)
    }

    // What has to happen before the call, and what becomes of its answer.
    async fn meet(&self, verb: Verb, keys: Vec<Key>) -> Result<After> {
        let mut heals = self.0.heals.subscribe();
        match self.note(verb, keys) {
            None => Ok(After::Answer),
            Some(Fault::Late(duration)) => Ok(After::Late(duration)),
            Some(Fault::Fail(kind)) => Err(error(kind)),
            Some(Fault::Lose(kind)) => Ok(After::Lost(kind)),
            Some(Fault::Delay(duration)) => {
                let _waiting = Waiting::new(self);
                tokio::time::sleep(duration).await;
                Ok(After::Answer)
            }
            Some(Fault::Hang) => {
                let _waiting = Waiting::new(self);
                // The sender lives in `self`: this ends by a healing only.
                let _ = heals.changed().await;
                Ok(After::Answer)
            }
        }
    }
}

/// What becomes of a call's answer.
enum After {
    Answer,
    Lost(ErrorKind),
    Late(Duration),
}

// Counts a waiting call for as long as its future lives.
struct Waiting<'a>(&'a Faults);

impl<'a> Waiting<'a> {
    fn new(faults: &'a Faults) -> Self {
        faults.0.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(faults)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "a fault was injected by a test").with_backend("faulty")
}

#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Faulty<B> {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn abilities(&self) -> Abilities {
        Abilities { local: false, ..self.inner.abilities() }
    }

    fn clock(&self) -> &Clock {
        self.inner.clock()
    }

    fn peek(&self, key: KeyRef<'_>, _: Moment) -> Peek {
        // Whoever may have to wait cannot answer here.
        self.faults.note(Verb::Peek, vec![key.to_key()]);
        Peek::Ask
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        let keys = std::iter::once(key).chain(counters).cloned().collect();
        self.call(Verb::Get, keys, self.inner.get(key, counters)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.call(Verb::GetMany, keys.to_vec(), self.inner.get_many(keys)).await
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        self.call(Verb::Put, vec![key.clone()], self.inner.put(key, entry, ttl, when)).await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let keys = items.iter().map(|item| item.key.clone()).collect();
        self.call(Verb::PutMany, keys, self.inner.put_many(items)).await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        self.call(Verb::Remove, vec![key.clone()], self.inner.remove(key, only)).await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        self.call(Verb::RemoveMany, keys.to_vec(), self.inner.remove_many(keys)).await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        self.call(Verb::Touch, vec![key.clone()], self.inner.touch(key, ttl)).await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        self.call(Verb::Add, vec![key.clone()], self.inner.add(key, delta, create)).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        self.call(Verb::Remaining, vec![key.clone()], self.inner.remaining(key)).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        self.call(Verb::Begin, vec![key.clone()], self.inner.begin(key, hold)).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.call(Verb::Renew, vec![key.clone()], self.inner.renew(key, token, hold)).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.call(Verb::Release, vec![key.clone()], self.inner.release(key, token, pass)).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        let keys = tags.iter().map(|tag| Key::tag(namespace, tag)).collect();
        self.call(Verb::Marks, keys, self.inner.marks(namespace, tags)).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let keys = tags.iter().map(|tag| Key::tag(namespace, tag)).collect();
        self.call(Verb::Invalidate, keys, self.inner.invalidate(namespace, tags)).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.call(Verb::Clear, Vec::new(), self.inner.clear(namespace)).await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.call(Verb::Page, Vec::new(), self.inner.page(prefix, from, limit)).await
    }
}
