//! What each operation costs, by the server's own counters and the bytes on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use common::{LONG, ask, called, calls, eventually, key, raw, read, shop, store, text};
use larder_core::{Backend, Counter, Entry, Prefix, Put, Tag, Ttl, When};
use larder_redis::RedisBackend;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::RedisServer;

mod common;

struct Bench {
    server: RedisServer,
    proxy: FaultProxy,
    backend: RedisBackend,
}

impl Bench {
    // One warm connection: the namespace's generation is known, and stays trusted.
    async fn start(max_age: Duration) -> Self {
        let server = RedisServer::start().await;
        let proxy = FaultProxy::start(server.address()).await;
        let builder = RedisBackend::builder().url(&server.url_at(proxy.port())).unwrap();
        let builder = builder.generation_max_age(max_age).response_timeout(Duration::from_secs(20));
        let backend = builder.connect().await.unwrap();
        read(&backend, &key("warm")).await;
        // A long pipeline is one exchange even where the server begins to answer before its end.
        proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(5)));
        Bench { server, proxy, backend }
    }

    // The commands and round trips of something.
    async fn cost<T>(
        &self,
        work: impl Future<Output = larder_core::Result<T>>,
    ) -> (BTreeMap<String, u64>, u64, T) {
        let mut raw = raw(&self.server).await;
        let before = (calls(&mut raw).await, self.proxy.exchanges());
        let done = work.await.unwrap();
        let after = (calls(&mut raw).await, self.proxy.exchanges());
        (called(&before.0, &after.0), after.1 - before.1, done)
    }
}

fn one(command: &str) -> BTreeMap<String, u64> {
    BTreeMap::from([(command.to_owned(), 1)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untagged_get_set_and_delete_are_one_command_each() {
    let bench = Bench::start(LONG).await;
    let (b, key) = (&bench.backend, key("product"));

    let (commands, trips, _) = bench.cost(b.put(&key, text("v"), LONG.into(), When::Always)).await;
    assert_eq!((commands, trips), (one("set"), 1));
    let (commands, trips, _) = bench.cost(b.put(&key, text("v"), Ttl::Forever, When::Always)).await;
    assert_eq!((commands, trips), (one("set"), 1));
    let (commands, trips, found) = bench.cost(b.get(&key, &[])).await;
    assert_eq!((commands, trips), (one("get"), 1));
    assert!(found.entry.is_some());
    let (commands, trips, removed) = bench.cost(b.remove(&key, None)).await;
    assert_eq!((commands, trips), (one("getdel"), 1));
    assert!(removed);
    let (commands, trips, found) = bench.cost(b.get(&key, &[])).await;
    assert_eq!((commands, trips), (one("get"), 1), "a miss");
    assert!(found.entry.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_ride_along_in_the_same_command() {
    let bench = Bench::start(LONG).await;
    let counters = [key("a"), key("b"), key("c")];
    let (commands, trips, found) = bench.cost(bench.backend.get(&key("product"), &counters)).await;
    assert_eq!((commands, trips), (one("mget"), 1));
    assert_eq!(found.counters.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_one_round_trip() {
    let bench = Bench::start(LONG).await;
    let (b, k) = (&bench.backend, key("k"));
    let keys: Vec<_> = (0..200).map(|n| key(&format!("many {n}"))).collect();
    let put = |key: &larder_core::Key, when| Put {
        key: key.clone(),
        entry: text("v"),
        ttl: LONG.into(),
        when,
    };
    let tags = [Tag::new("one").unwrap(), Tag::new("two").unwrap()];
    let create = Some(Counter { initial: 0, ttl: LONG.into() });
    macro_rules! one_trip {
        ($work:expr) => {{
            let (commands, trips, done) = bench.cost($work).await;
            assert_eq!(trips, 1, "{}: {commands:?}", stringify!($work));
            // A client's one command is one call of a script, whatever the script does.
            let scripts = commands.get("evalsha").copied().unwrap_or(0);
            assert!(scripts <= 1 || stringify!($work).contains("put_many"), "{commands:?}");
            done
        }};
    }
    let _ = one_trip!(b.put(&k, text("v"), LONG.into(), When::Absent));
    let _ = one_trip!(b.put(&k, text("v"), LONG.into(), When::Absent));
    let _ = one_trip!(b.put(&k, text("v"), LONG.into(), When::Present));
    one_trip!(b.touch(&k, LONG.into()));
    one_trip!(b.remaining(&k));
    one_trip!(b.begin(&k, LONG));
    one_trip!(b.begin(&key("new"), LONG));
    one_trip!(b.add(&key("counter"), 1, create));
    one_trip!(b.add(&key("counter"), 1, None));
    one_trip!(b.marks(&shop(), &tags));
    one_trip!(b.invalidate(&shop(), &tags));
    one_trip!(b.put_many(keys.iter().map(|key| put(key, When::Always)).collect()));
    one_trip!(b.put_many(keys.iter().map(|key| put(key, When::Present)).collect()));
    assert_eq!(one_trip!(b.get_many(&keys)).iter().flatten().count(), 200);
    assert_eq!(one_trip!(b.remove_many(&keys)), 200);

    let (commands, trips, _) = bench.cost(b.get_many(&[])).await;
    assert_eq!((commands.len(), trips), (0, 0));
    let (commands, trips, _) = bench.cost(b.put_many(Vec::new())).await;
    assert_eq!((commands.len(), trips), (0, 0));
    let (commands, trips, _) = bench.cost(b.remove_many(&[])).await;
    assert_eq!((commands.len(), trips), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_generation_rides_along_when_it_is_asked_for() {
    let bench = Bench::start(Duration::ZERO).await;
    let (commands, trips, _) = bench.cost(bench.backend.get(&key("k"), &[])).await;
    assert_eq!((commands, trips), (BTreeMap::from([("get".into(), 2)]), 1));
    let k = key("k");
    let put = bench.backend.put(&k, text("v"), LONG.into(), When::Always);
    let (commands, trips, _) = bench.cost(put).await;
    assert_eq!((commands, trips), (BTreeMap::from([("get".into(), 1), ("set".into(), 1)]), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_sent_again() {
    let bench = Bench::start(LONG).await;
    let b = &bench.backend;
    let mut raw = raw(&bench.server).await;
    for round in 0..3 {
        ask::<()>(&mut raw, &[b"SCRIPT", b"FLUSH"]).await;
        let create = Some(Counter { initial: round, ttl: LONG.into() });
        let sum = b.add(&key(&format!("counter {round}")), 1, create).await.unwrap();
        assert_eq!(sum, Some(round + 1));
        ask::<()>(&mut raw, &[b"SCRIPT", b"FLUSH"]).await;
        let items = (0..3).map(|n| Put {
            key: key(&format!("{round} {n}")),
            entry: Entry::integer(n),
            ttl: LONG.into(),
            when: if n == 1 { When::Always } else { When::Absent },
        });
        let outcomes = b.put_many(items.collect()).await.unwrap();
        assert!(
            outcomes.iter().all(|o| matches!(o, Ok(larder_core::Outcome::Stored))),
            "{outcomes:?}"
        );
    }
    ask::<()>(&mut raw, &[b"SCRIPT", b"FLUSH"]).await;
    common::expect_all_work(b, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clearing_is_one_command_and_what_was_there_is_swept_in_the_background() {
    let bench = Bench::start(LONG).await;
    let b = &bench.backend;
    let mut raw = raw(&bench.server).await;
    for n in 0..2000 {
        let name = format!("foreign:{n}");
        ask::<()>(&mut raw, &[b"SET", name.as_bytes(), b"theirs"]).await;
    }
    let other = larder_core::Namespace::new("shop-2").unwrap();
    let theirs = larder_core::Key::new(&other, ["d", "k"]).unwrap();
    store(b, &theirs, "other").await;
    bench.proxy.set(Direction::Replies, Mode::Pass);
    let items = (0..3000).map(|n| Put {
        key: key(&format!("{n}")),
        entry: text("v"),
        ttl: Ttl::Forever,
        when: When::Always,
    });
    b.put_many(items.collect()).await.unwrap();
    let size: u64 = ask(&mut raw, &[b"DBSIZE"]).await;
    assert!(size >= 5000);

    b.clear(&shop()).await.unwrap();
    assert_eq!(read(b, &key("1")).await, None);
    // Foreign keys, two generations, the neighbour.
    eventually("the sweep", async || ask::<u64>(&mut raw, &[b"DBSIZE"]).await == 2003).await;
    assert_eq!(read(b, &theirs).await.as_deref(), Some("other"));
    let calls = calls(&mut raw).await;
    for never in ["keys", "flushdb", "flushall"] {
        assert!(!calls.contains_key(never), "{never} was called");
    }
    let found = b.page(&Prefix::new(&shop()), None, 100).await.unwrap();
    assert!(found.keys.is_empty());
}
