//! Idle, absolute and browser-length lifetimes, and what keeps a session alive.

mod common;

use std::time::Duration;

use common::{Browser, Stand, patient};
use larder_core::{Backend, Clock, Ttl};
use larder_file::FileBackend;
use larder_redis::RedisBackend;
use larder_session::{Expiry, Refresh, Session, SessionLayer};
use larder_testkit::faulty::{Faulty, Verb};
use larder_testkit::servers::RedisServer;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

async fn put(session: Session) -> larder_session::Result<()> {
    session.insert("user", &7).await
}

async fn is_signed_in(browser: &mut Browser) -> bool {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    browser
        .send(|session| async move {
            let _ = told.send(session.contains("user").await?);
            Ok(())
        })
        .await;
    tells.recv().await.expect("an answer")
}

#[tokio::test]
async fn s07_and_c113_a_session_ends_to_the_second_though_the_store_keeps_it() {
    for (expiry, end) in [
        (Expiry::idle(HOUR), HOUR),
        (Expiry::fixed(HOUR), HOUR),
        (Expiry::idle(HOUR).at_most(HOUR / 2), HOUR / 2),
        (Expiry::idle(HOUR / 2).at_most(HOUR), HOUR / 2),
        (Expiry::idle(HOUR).until_browser_closes(), HOUR),
    ] {
        let stand = Stand::with(|layer| layer.expiry(expiry));
        let mut browser = stand.browser();
        browser.send(put).await;
        let key = stand.faults.calls()[0].keys[0].clone();
        // What a store without lifetimes would hold: the record, and when it was last written.
        stand.later(end - SECOND);
        assert!(is_signed_in(&mut browser).await, "{expiry:?}");
        let forever = stand.memory.get(&key, &[]).await.unwrap().entry.unwrap();
        let written = *forever.times().unwrap();
        stand.later(2 * SECOND);
        let keeping = larder_core::Times { expires: None, ..written };
        let keeper = Keeper { inner: stand.memory.clone(), entry: forever.with_times(keeping) };
        let cache = patient(keeper, "shop");
        let layer = SessionLayer::new(&cache).expiry(expiry).evictable();
        let cookie = browser.cookie.clone().unwrap();
        assert!(!is_signed_in(&mut Browser::with_cookie(&layer, &cookie)).await, "{expiry:?}");
        assert!(!is_signed_in(&mut browser).await);
    }
}

/// A store that ended nothing: every look-up finds one entry.
struct Keeper {
    inner: larder_memory::MemoryBackend,
    entry: larder_core::Entry,
}

#[rustfmt::skip]
mod keeper {
    use super::Keeper;
    use larder_core::*;
    use std::time::Duration;

    impl Backend for Keeper {
        fn name(&self) -> &'static str { "keeper" }
        fn abilities(&self) -> Abilities { self.inner.abilities() }
        fn clock(&self) -> &Clock { self.inner.clock() }
        async fn get(&self, _: &Key, _: &[Key]) -> Result<Found> {
            Ok(Found { entry: Some(self.entry.clone()), counters: Vec::new() })
        }
        async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> { self.inner.get_many(keys).await }
        async fn put(&self, key: &Key, entry: Entry, ttl: Ttl, when: When) -> Result<Outcome> { self.inner.put(key, entry, ttl, when).await }
        async fn put_many(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> { self.inner.put_many(items).await }
        async fn remove(&self, key: &Key, only: Option<Revision>) -> Result<bool> { self.inner.remove(key, only).await }
        async fn remove_many(&self, keys: &[Key]) -> Result<u64> { self.inner.remove_many(keys).await }
        async fn touch(&self, key: &Key, ttl: Ttl) -> Result<bool> { self.inner.touch(key, ttl).await }
        async fn add(&self, key: &Key, delta: i64, create: Option<Counter>) -> Result<Option<i64>> { self.inner.add(key, delta, create).await }
        async fn remaining(&self, key: &Key) -> Result<Remaining> { self.inner.remaining(key).await }
        async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin> { self.inner.begin(key, hold).await }
        async fn renew(&self, key: &Key, token: Token, hold: Duration) -> Result<bool> { self.inner.renew(key, token, hold).await }
        async fn release(&self, key: &Key, token: Token, pass: Option<Duration>) -> Result<bool> { self.inner.release(key, token, pass).await }
        async fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> { self.inner.marks(namespace, tags).await }
        async fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> { self.inner.invalidate(namespace, tags).await }
        async fn clear(&self, namespace: &Namespace) -> Result<()> { self.inner.clear(namespace).await }
        async fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> { self.inner.page(prefix, from, limit).await }
    }
}

#[tokio::test]
async fn c113_reading_keeps_nothing_alive_unless_configured() {
    let expiry = Expiry::idle(HOUR);
    for (refresh, touches, alive) in [
        (Refresh::OnChange, 0, false),
        (Refresh::Always, 3, true),
        (Refresh::AfterFraction(0.5), 1, true),
        (Refresh::AfterFraction(1.0), 0, false),
    ] {
        let stand = Stand::with(|layer| layer.expiry(expiry).refresh(refresh));
        let mut browser = stand.browser();
        browser.send(put).await;
        stand.faults.forget();
        for minutes in [10, 25, 10] {
            stand.later(Duration::from_secs(60 * minutes));
            assert!(is_signed_in(&mut browser).await, "{refresh:?}");
        }
        assert_eq!(stand.faults.count(Verb::Touch), touches, "{refresh:?}");
        assert_eq!(stand.faults.count(Verb::Put), 0, "keeping alive writes no data");
        stand.later(Duration::from_secs(60 * 25));
        assert_eq!(is_signed_in(&mut browser).await, alive, "{refresh:?}");
    }
}

#[tokio::test]
async fn c108_a_refresh_tells_the_browser_unless_it_keeps_the_cookie_to_its_own_end() {
    for (expiry, renewed) in
        [(Expiry::idle(HOUR), true), (Expiry::idle(HOUR).until_browser_closes(), false)]
    {
        let stand = Stand::with(|layer| layer.expiry(expiry).refresh(Refresh::Always));
        let mut browser = stand.browser();
        let first = browser.send(put).await;
        assert_eq!(first.set_cookie().unwrap().contains("Max-Age=3600;"), renewed);
        let read =
            browser.send(|session| async move { session.contains("n").await.map(drop) }).await;
        assert_eq!(read.set_cookie(), first.set_cookie().filter(|_| renewed));
        let change = browser.send(|session| async move { session.insert("n", &1).await }).await;
        assert_eq!(change.set_cookie(), first.set_cookie().filter(|_| renewed));
    }
}

#[tokio::test]
async fn no_refresh_goes_beyond_the_absolute_end() {
    let expiry = Expiry::idle(HOUR).at_most(2 * HOUR);
    let stand = Stand::with(|layer| layer.expiry(expiry).refresh(Refresh::Always));
    let mut browser = stand.browser();
    browser.send(put).await;
    for _ in 0..5 {
        stand.later(HOUR / 3);
        browser
            .send(
                |session| async move { session.update("n", |n: &mut u8| *n += 1).await.map(drop) },
            )
            .await;
        assert!(is_signed_in(&mut browser).await);
    }
    // 20 minutes are left of the two hours.
    let got = browser.send(|session| async move { session.insert("n", &0).await }).await;
    assert!(got.set_cookie().unwrap().contains("Max-Age=1200;"), "{got:?}");
    stand.later(Duration::from_secs(20 * 60));
    assert!(!is_signed_in(&mut browser).await);
}

#[tokio::test]
async fn c113_an_expiry_of_its_own_survives_saves_and_rotation_and_can_be_given_back() {
    let stand = Stand::with(|layer| layer.expiry(Expiry::idle(HOUR)));
    let mut browser = stand.browser();
    let remember = Expiry::idle(100 * HOUR);
    let got = browser
        .send(|session| async move {
            put(session.clone()).await?;
            session.set_expiry(remember).await
        })
        .await;
    assert!(got.set_cookie().unwrap().contains("Max-Age=360000;"));
    stand.later(99 * HOUR);
    browser.send(|session| async move { session.insert("n", &1).await }).await;
    stand.later(99 * HOUR);
    browser.send(|session| async move { session.rotate().await }).await;
    stand.later(99 * HOUR);
    let short = |session: Session| async move { session.set_expiry(None).await };
    let got = browser.send(short).await;
    assert!(got.set_cookie().unwrap().contains("Max-Age=3600;"));
    stand.later(HOUR);
    assert!(!is_signed_in(&mut browser).await);
}

#[tokio::test]
async fn the_cookie_follows_when_a_session_begins_to_end_with_the_browser() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    assert!(browser.send(put).await.set_cookie().unwrap().contains("Max-Age"));
    let short = Expiry::idle(HOUR).until_browser_closes();
    let got = browser.send(|session| async move { session.set_expiry(short).await }).await;
    assert!(!got.set_cookie().unwrap().contains("Max-Age"));
    let got = browser.send(|session| async move { session.insert("n", &1).await }).await;
    assert_eq!(got.set_cookie(), None);
}

#[tokio::test]
async fn s18_every_duration_is_a_lifetime() {
    for duration in
        [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX]
    {
        for expiry in [
            Expiry::idle(duration),
            Expiry::fixed(duration),
            Expiry::idle(duration).at_most(duration).until_browser_closes(),
        ] {
            let stand = Stand::with(|layer| {
                layer
                    .expiry(expiry)
                    .refresh(Refresh::Always)
                    .tombstone(duration)
                    .max_bytes(usize::MAX)
            });
            let mut browser = stand.browser();
            assert_eq!(browser.send(put).await.status, 200);
            browser.send(|session| async move { session.set_expiry(expiry).await }).await;
            let lives = duration > Duration::from_millis(1);
            assert_eq!(is_signed_in(&mut browser).await, lives, "{expiry:?}");
            stand.later(Duration::from_secs(Ttl::MAX.as_secs() - 1));
            stand.later(Duration::from_secs(i64::MAX as u64));
            is_signed_in(&mut browser).await;
        }
    }
}

#[tokio::test]
async fn s06_a_reader_that_keeps_a_session_alive_loses_no_write() {
    let stand = Stand::with(|layer| layer.refresh(Refresh::Always));
    let mut browser = stand.browser();
    browser.send(put).await;
    let mut writer = browser.clone();
    browser
        .send(|session| async move {
            assert_eq!(session.get("user").await?, Some(7));
            writer.send(|session| async move { session.insert("user", &8).await }).await;
            // What this exchange read stays what it was; its refresh comes after the other's write.
            assert_eq!(session.get("user").await?, Some(7));
            Ok(())
        })
        .await;
    assert_eq!(stand.faults.count(Verb::Touch), 1);
    browser
        .send(|session| async move {
            assert_eq!(session.get("user").await?, Some(8));
            Ok(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_keeping_a_session_alive_on_redis_leaves_its_record_as_it_is() {
    let server = RedisServer::start().await;
    let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
    let backend = Faulty::new(RedisBackend::connect(&url).await.expect("a connection"));
    let (faults, other) = (backend.faults(), RedisBackend::connect(&url).await.expect("another"));
    let layer = SessionLayer::new(&patient(backend, "shop"));
    let mut browser = Browser::new(&layer.evictable().refresh(Refresh::Always));
    browser.send(put).await;
    let key = faults.calls()[0].keys[0].clone();
    let before = other.get(&key, &[]).await.unwrap().entry.unwrap();
    assert!(is_signed_in(&mut browser).await);
    assert_eq!((faults.count(Verb::Put), faults.count(Verb::Touch)), (1, 1));
    let after = other.get(&key, &[]).await.unwrap().entry.unwrap();
    assert_eq!(after.revision(), before.revision());
    assert_eq!(after.encoded().unwrap(), before.encoded().unwrap());
    assert!(is_signed_in(&mut browser).await);
}

/// Files do not go by themselves: the store's own sweep takes them away, and nobody has to ask for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c118_a_sweep_takes_sessions_that_ended_and_no_others_and_readers_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (clock, hands) = Clock::manual();
    let backend = FileBackend::builder().path(directory.path()).clock(clock).build();
    let backend = backend.expect("a directory");
    let layer = SessionLayer::new(&patient(backend.clone(), "shop")).evictable();
    let (mut lasting, short) = (Vec::new(), Expiry::fixed(60 * SECOND));
    for n in 0..300 {
        let mut browser = Browser::new(&layer);
        let ends = n % 3 != 0;
        browser
            .send(move |session| async move {
                if ends {
                    session.set_expiry(short).await?;
                }
                session.insert("user", &7).await
            })
            .await;
        if !ends {
            lasting.push(browser);
        }
    }
    backend.sweep().await.unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 300);
    hands.advance(61 * SECOND);
    let sweeping = tokio::spawn({
        let backend = backend.clone();
        async move { backend.sweep().await }
    });
    for browser in &mut lasting {
        assert!(is_signed_in(browser).await);
    }
    sweeping.await.unwrap().unwrap();
    backend.sweep().await.unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 100);
    for browser in &mut lasting {
        assert!(is_signed_in(browser).await);
    }
}

/// Redis frees what has ended by itself: there is nothing to purge.
#[tokio::test(flavor = "multi_thread")]
async fn c118_redis_needs_no_purge() {
    let server = RedisServer::start().await;
    let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
    let backend = RedisBackend::connect(&url).await.expect("a connection");
    let layer = SessionLayer::new(&patient(backend, "shop")).evictable();
    let size = async || String::from_utf8(server.command(&["DBSIZE"]).await.unwrap()).unwrap();
    // One that stays, and what else the namespace has.
    Browser::new(&layer).send(put).await;
    let before = size().await;
    let brief = Expiry::fixed(Duration::from_millis(50));
    let begin = move |session: Session| async move {
        session.set_expiry(brief).await?;
        session.insert("user", &7).await
    };
    for _ in 0..10 {
        assert_eq!(Browser::new(&layer).send(begin).await.status, 200);
    }
    // The server's own time, which no clock of ours drives: it is asked until they are gone.
    let freed = async {
        while size().await != before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(60 * SECOND, freed).await.expect("they end by themselves");
}
