//! Every verb of a backend in a row, for what a suite of single checks does not show: that all of them fail when the
//! server is gone, that none of them waits for ever, and that all of them work again.

use std::time::Duration;

use larder_core::{
    Backend, Counter, Encoded, Entry, Error, Key, Namespace, Prefix, Put, Result, Revision, Tag,
    Token, Ttl, When,
};

/// Calls every verb once: its name, and its error if it failed. Paging is left out where the backend cannot page.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder_core::Result<()> {
/// use larder_core::{Clock, ErrorKind, Namespace};
/// use larder_testkit::faulty::{Fault, Faulty, Verb};
/// use larder_testkit::{reference::Reference, verbs};
/// use std::time::Duration;
///
/// let backend = Faulty::new(Reference::new(Clock::system()));
/// let (shop, limit) = (Namespace::new("shop")?, Duration::from_secs(60));
/// verbs::expect_all_work(&backend, &shop, limit).await;
/// backend.faults().inject(Fault::Fail(ErrorKind::Unavailable), &Verb::ALL);
/// let called = verbs::every_verb(&backend, &shop, limit).await;
/// assert!(called.iter().all(|(_, error)| error.is_some()));
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When a verb takes longer than `limit`.
pub async fn every_verb(
    backend: &impl Backend,
    namespace: &Namespace,
    limit: Duration,
) -> Vec<(&'static str, Option<Error>)> {
    let b = backend;
    let key = Key::new(namespace, ["verbs"]).expect("a key");
    let counter = Key::new(namespace, ["counter"]).expect("a key");
    let tags = [Tag::new("t").expect("a tag")];
    let text = || Entry::wire(Encoded { codec: 200, body: "verb".into(), ..Encoded::default() });
    let put = |when| Put { key: key.clone(), entry: text(), ttl: LONG.into(), when };
    let create = Some(Counter { initial: 0, ttl: LONG.into() });
    let token = Token::random();
    let many = async |puts| {
        let outcomes = b.put_many(puts).await?;
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
    };
    let mut called = vec![
        ("get", run(limit, b.get(&key, &[])).await),
        ("get with counters", run(limit, b.get(&key, std::slice::from_ref(&counter))).await),
        ("get_many", run(limit, b.get_many(&[key.clone(), counter.clone()])).await),
        ("put", run(limit, b.put(&key, text(), LONG.into(), When::Always)).await),
        ("put absent", run(limit, b.put(&key, text(), LONG.into(), When::Absent)).await),
        ("put present", run(limit, b.put(&key, text(), LONG.into(), When::Present)).await),
        ("put_many", run(limit, many(vec![put(When::Always), put(When::Always)])).await),
        ("remove", run(limit, b.remove(&key, None)).await),
        ("remove only", run(limit, b.remove(&key, Some(Revision::random()))).await),
        ("remove_many", run(limit, b.remove_many(std::slice::from_ref(&key))).await),
        ("touch", run(limit, b.touch(&key, Ttl::Default)).await),
        ("add", run(limit, b.add(&counter, 1, create)).await),
        ("remaining", run(limit, b.remaining(&key)).await),
        ("begin", run(limit, b.begin(&key, LONG)).await),
        ("renew", run(limit, b.renew(&key, token, LONG)).await),
        ("release", run(limit, b.release(&key, token, None)).await),
        ("marks", run(limit, b.marks(namespace, &tags)).await),
        ("invalidate", run(limit, b.invalidate(namespace, &tags)).await),
    ];
    if b.abilities().pages {
        called.push(("page", run(limit, b.page(&Prefix::new(namespace), None, 10)).await));
    }
    called.push(("clear", run(limit, b.clear(namespace)).await));
    called
}

/// Asserts that every verb works.
///
/// # Panics
///
/// When one does not, or takes longer than `limit`.
pub async fn expect_all_work(backend: &impl Backend, namespace: &Namespace, limit: Duration) {
    for (verb, error) in every_verb(backend, namespace, limit).await {
        assert!(error.is_none(), "{verb}: {error:?}");
    }
}

async fn run<T>(limit: Duration, verb: impl Future<Output = Result<T>>) -> Option<Error> {
    tokio::time::timeout(limit, verb).await.expect("a verb has no time limit").err()
}

const LONG: Duration = Duration::from_secs(3600);
