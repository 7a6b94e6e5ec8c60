//! One erased form of every backend, so that no user type carries a type parameter.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use larder_core::{
    Abilities, Backend, Begin, Clock, Counter, Cursor, Entry, Found, Key, KeyRef, Marks, Moment,
    Namespace, Outcome, Page, Peek, Prefix, Put, Remaining, Result, Revision, Sequence, Tag, Token,
    Ttl, When,
};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// [`Backend`] with boxed futures. The names differ from the trait's, since both are in scope together.
pub(crate) trait Erased: Send + Sync {
    fn name_erased(&self) -> &'static str;
    fn abilities_erased(&self) -> Abilities;
    fn clock_erased(&self) -> &Clock;
    fn peek_erased(&self, key: KeyRef<'_>, now: Moment) -> Peek;
    fn get_erased<'a>(&'a self, key: &'a Key, counters: &'a [Key]) -> BoxFuture<'a, Found>;
    fn get_many_erased<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Entry>>>;
    fn put_erased<'a>(
        &'a self,
        key: &'a Key,
        entry: Entry,
        ttl: Ttl,
        when: When,
    ) -> BoxFuture<'a, Outcome>;
    fn put_many_erased(&self, items: Vec<Put>) -> BoxFuture<'_, Vec<Result<Outcome>>>;
    fn remove_erased<'a>(&'a self, key: &'a Key, only: Option<Revision>) -> BoxFuture<'a, bool>;
    fn remove_many_erased<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, u64>;
    fn touch_erased<'a>(&'a self, key: &'a Key, ttl: Ttl) -> BoxFuture<'a, bool>;
    fn add_erased<'a>(
        &'a self,
        key: &'a Key,
        delta: i64,
        create: Option<Counter>,
    ) -> BoxFuture<'a, Option<i64>>;
    fn remaining_erased<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Remaining>;
    fn begin_erased<'a>(&'a self, key: &'a Key, hold: Duration) -> BoxFuture<'a, Begin>;
    fn renew_erased<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        hold: Duration,
    ) -> BoxFuture<'a, bool>;
    fn release_erased<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        pass: Option<Duration>,
    ) -> BoxFuture<'a, bool>;
    fn marks_erased<'a>(
        &'a self,
        namespace: &'a Namespace,
        tags: &'a [Tag],
    ) -> BoxFuture<'a, Marks>;
    fn invalidate_erased<'a>(
        &'a self,
        namespace: &'a Namespace,
        tags: &'a [Tag],
    ) -> BoxFuture<'a, Sequence>;
    fn clear_erased<'a>(&'a self, namespace: &'a Namespace) -> BoxFuture<'a, ()>;
    fn page_erased<'a>(
        &'a self,
        prefix: &'a Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'a, Page>;
}

impl<B: Backend> Erased for B {
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

    fn get_erased<'a>(&'a self, key: &'a Key, counters: &'a [Key]) -> BoxFuture<'a, Found> {
        Box::pin(self.get(key, counters))
    }

    fn get_many_erased<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Entry>>> {
        Box::pin(self.get_many(keys))
    }

    fn put_erased<'a>(
        &'a self,
        key: &'a Key,
        entry: Entry,
        ttl: Ttl,
        when: When,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(self.put(key, entry, ttl, when))
    }

    fn put_many_erased(&self, items: Vec<Put>) -> BoxFuture<'_, Vec<Result<Outcome>>> {
        Box::pin(self.put_many(items))
    }

    fn remove_erased<'a>(&'a self, key: &'a Key, only: Option<Revision>) -> BoxFuture<'a, bool> {
        Box::pin(self.remove(key, only))
    }

    fn remove_many_erased<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, u64> {
        Box::pin(self.remove_many(keys))
    }

    fn touch_erased<'a>(&'a self, key: &'a Key, ttl: Ttl) -> BoxFuture<'a, bool> {
        Box::pin(self.touch(key, ttl))
    }

    fn add_erased<'a>(
        &'a self,
        key: &'a Key,
        delta: i64,
        create: Option<Counter>,
    ) -> BoxFuture<'a, Option<i64>> {
        Box::pin(self.add(key, delta, create))
    }

    fn remaining_erased<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Remaining> {
        Box::pin(self.remaining(key))
    }

    fn begin_erased<'a>(&'a self, key: &'a Key, hold: Duration) -> BoxFuture<'a, Begin> {
        Box::pin(self.begin(key, hold))
    }

    fn renew_erased<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        hold: Duration,
    ) -> BoxFuture<'a, bool> {
        Box::pin(self.renew(key, token, hold))
    }

    fn release_erased<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        pass: Option<Duration>,
    ) -> BoxFuture<'a, bool> {
        Box::pin(self.release(key, token, pass))
    }

    fn marks_erased<'a>(
        &'a self,
        namespace: &'a Namespace,
        tags: &'a [Tag],
    ) -> BoxFuture<'a, Marks> {
        Box::pin(self.marks(namespace, tags))
    }

    fn invalidate_erased<'a>(
        &'a self,
        namespace: &'a Namespace,
        tags: &'a [Tag],
    ) -> BoxFuture<'a, Sequence> {
        Box::pin(self.invalidate(namespace, tags))
    }

    fn clear_erased<'a>(&'a self, namespace: &'a Namespace) -> BoxFuture<'a, ()> {
        Box::pin(self.clear(namespace))
    }

    fn page_erased<'a>(
        &'a self,
        prefix: &'a Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'a, Page> {
        Box::pin(self.page(prefix, from, limit))
    }
}
