//! One erased form of every backend, so that no user type carries a type parameter.

use std::any::Any;
use std::time::Duration;

use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Found, Key, KeyRef, Marks, Moment,
    Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision, Sequence, Tag, Token,
    Ttl, When,
};
use stackfuture::StackFuture;

/// A future of any backend: in place where it is small, as those of memory are, and boxed otherwise.
pub(crate) type Pending<'a, T> = StackFuture<'a, Result<T>, ROOM>;

// As much as a future of the memory backend takes.
const ROOM: usize = 96;

/// [`Backend`] with futures of one type. The names differ from the trait's, since both are in scope together.
pub(crate) trait Erased: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn name_erased(&self) -> &'static str;
    fn abilities_erased(&self) -> Abilities;
    fn clock_erased(&self) -> &Clock;
    fn peek_erased(&self, key: KeyRef<'_>, now: Moment) -> Peek;
    fn get_erased<'a>(&'a self, key: &'a Key, counters: &'a [Key]) -> Pending<'a, Found>;
    fn get_many_erased<'a>(&'a self, keys: &'a [Key]) -> Pending<'a, Vec<Option<Entry>>>;
    fn put_erased<'a>(
        &'a self,
        key: &'a Key,
        entry: Entry,
        ttl: Ttl,
        when: When,
    ) -> Pending<'a, Outcome>;
    fn put_many_erased(&self, items: Vec<Put>) -> Pending<'_, Vec<Result<Outcome>>>;
    fn remove_erased<'a>(&'a self, key: &'a Key, only: Option<Revision>) -> Pending<'a, bool>;
    fn remove_many_erased<'a>(&'a self, keys: &'a [Key]) -> Pending<'a, u64>;
    fn touch_erased<'a>(&'a self, key: &'a Key, ttl: Ttl) -> Pending<'a, bool>;
    fn add_erased<'a>(
        &'a self,
        key: &'a Key,
        delta: i64,
        create: Option<Counter>,
    ) -> Pending<'a, Option<i64>>;
    fn remaining_erased<'a>(&'a self, key: &'a Key) -> Pending<'a, Remaining>;
    fn begin_erased<'a>(&'a self, key: &'a Key, hold: Duration) -> Pending<'a, Begin>;
    fn renew_erased<'a>(&'a self, key: &'a Key, token: Token, hold: Duration) -> Pending<'a, bool>;
    fn release_erased<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        pass: Option<Duration>,
    ) -> Pending<'a, bool>;
    fn marks_erased<'a>(&'a self, namespace: &'a Namespace, tags: &'a [Tag]) -> Pending<'a, Marks>;
    fn invalidate_erased<'a>(
        &'a self,
        namespace: &'a Namespace,
        tags: &'a [Tag],
    ) -> Pending<'a, Sequence>;
    fn clear_erased<'a>(&'a self, namespace: &'a Namespace) -> Pending<'a, ()>;
    fn page_erased<'a>(
        &'a self,
        prefix: &'a Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> Pending<'a, Page>;
}

impl<B: Backend> Erased for B {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name_erased(&self) -> &'static str {
        self.name()
    }

    fn abilities_erased(&self) -> Abilities {
        self.abilities()
    }

    fn clock_erased(&self) -> &Clock {
        self.clock()
    }

    #[inline]
    fn peek_erased(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        self.peek(key, now)
    }

    fn get_erased<'a>(&'a self, key: &'a Key, counters: &'a [Key]) -> Pending<'a, Found> {
        Pending::from_or_box(self.get(key, counters))
    }

    fn get_many_erased<'a>(&'a self, keys: &'a [Key]) -> Pending<'a, Vec<Option<Entry>>> {
        Pending::from_or_box(self.get_many(keys))
    }

    fn put_erased<'a>(
        &'a self,
        key: &'a Key,
        entry: Entry,
        ttl: Ttl,
        when: When,
    ) -> Pending<'a, Outcome> {
        Pending::from_or_box(self.put(key, entry, ttl, when))
    }

    fn put_many_erased(&self, items: Vec<Put>) -> Pending<'_, Vec<Result<Outcome>>> {
        Pending::from_or_box(self.put_many(items))
    }

    fn remove_erased<'a>(&'a self, key: &'a Key, only: Option<Revision>) -> Pending<'a, bool> {
        Pending::from_or_box(self.remove(key, only))
    }

    fn remove_many_erased<'a>(&'a self, keys: &'a [Key]) -> Pending<'a, u64> {
        Pending::from_or_box(self.remove_many(keys))
    }

    fn touch_erased<'a>(&'a self, key: &'a Key, ttl: Ttl) -> Pending<'a, bool> {
        Pending::from_or_box(self.touch(key, ttl))
    }

    fn add_erased<'a>(
        &'a self,
        key: &'a Key,
        delta: i64,
        create: Option<Counter>,
    ) -> Pending<'a, Option<i64>> {
        Pending::from_or_box(self.add(key, delta, create))
    }

    fn remaining_erased<'a>(&'a self, key: &'a Key) -> Pending<'a, Remaining> {
        Pending::from_or_box(self.remaining(key))
    }

    fn begin_erased<'a>(&'a self, key: &'a Key, hold: Duration) -> Pending<'a, Begin> {
        Pending::from_or_box(self.begin(key, hold))
    }

    fn renew_erased<'a>(&'a self, key: &'a Key, token: Token, hold: Duration) -> Pending<'a, bool> {
        Pending::from_or_box(self.renew(key, token, hold))
    }

    fn release_erased<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        pass: Option<Duration>,
    ) -> Pending<'a, bool> {
        Pending::from_or_box(self.release(key, token, pass))
    }

    fn marks_erased<'a>(&'a self, namespace: &'a Namespace, tags: &'a [Tag]) -> Pending<'a, Marks> {
        Pending::from_or_box(self.marks(namespace, tags))
    }

    fn invalidate_erased<'a>(
        &'a self,
        namespace: &'a Namespace,
        tags: &'a [Tag],
    ) -> Pending<'a, Sequence> {
        Pending::from_or_box(self.invalidate(namespace, tags))
    }

    fn clear_erased<'a>(&'a self, namespace: &'a Namespace) -> Pending<'a, ()> {
        Pending::from_or_box(self.clear(namespace))
    }

    fn page_erased<'a>(
        &'a self,
        prefix: &'a Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> Pending<'a, Page> {
        Pending::from_or_box(self.page(prefix, from, limit))
    }
}

/// An erased backend, for those that take any: it is a backend again.
pub(crate) struct AnyBackend(Box<dyn Erased>);

impl AnyBackend {
    pub(crate) fn new(backend: impl Backend) -> Self {
        AnyBackend(Box::new(backend))
    }

    pub(crate) fn into_inner(self) -> Box<dyn Erased> {
        self.0
    }

    pub(crate) fn as_any(&self) -> &dyn Any {
        self.0.as_any()
    }

    pub(crate) fn is_local(&self) -> bool {
        self.0.abilities_erased().local
    }
}

impl Backend for AnyBackend {
    fn name(&self) -> &'static str {
        self.0.name_erased()
    }

    fn abilities(&self) -> Abilities {
        self.0.abilities_erased()
    }

    fn clock(&self) -> &Clock {
        self.0.clock_erased()
    }

    #[inline]
    fn peek(&self, key: KeyRef<'_>, now: Moment) -> Peek {
        self.0.peek_erased(key, now)
    }

    async fn get(&self, key: &Key, counters: &[Key]) -> Result<Found> {
        self.0.get_erased(key, counters).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.0.get_many_erased(keys).await
    }

    async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> {
        self.0.put_erased(key, entry, ttl, when).await
    }

    async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        self.0.put_many_erased(items).await
    }

    async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> {
        self.0.remove_erased(key, only).await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        self.0.remove_many_erased(keys).await
    }

    async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> {
        self.0.touch_erased(key, ttl).await
    }

    async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> {
        self.0.add_erased(key, delta, create).await
    }

    async fn remaining(&self, key: &Key) -> Result<Remaining> {
        self.0.remaining_erased(key).await
    }

    async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> {
        self.0.begin_erased(key, hold).await
    }

    async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> {
        self.0.renew_erased(key, token, hold).await
    }

    async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> {
        self.0.release_erased(key, token, pass).await
    }

    async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        self.0.marks_erased(namespace, tags).await
    }

    async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        self.0.invalidate_erased(namespace, tags).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<()> {
        self.0.clear_erased(namespace).await
    }

    async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        self.0.page_erased(prefix, from, limit).await
    }
}
