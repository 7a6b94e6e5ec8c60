//! A real cluster: the whole suite, slots that move, nodes that die.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, ask, eventually, expect_all_work, key, raw, read, shop, store, text};
use larder_core::{
    Backend, Begin, Counter, Entry, ErrorKind, Generation, Key, Outcome, Prefix, Put, Tag, Ttl,
    When,
};
use larder_redis::{Builder, RedisBackend};
use larder_testkit::cancel::drop_later;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::{RedisCluster, RedisServer};
use larder_testkit::{Harness, suite};

mod common;

const LAG: Duration = Duration::from_millis(100);

fn builder(cluster: &RedisCluster) -> Builder {
    let builder = RedisBackend::builder().url(&cluster.url()).unwrap();
    builder.response_timeout(Duration::from_secs(20))
}

async fn connect(cluster: &RedisCluster) -> RedisBackend {
    builder(cluster).connect().await.unwrap()
}

// The hash with which a key's name ends, in whatever generation.
fn hash(key: &Key) -> String {
    let name = key.as_ref().wire_name(Generation::random());
    name.rsplit_once(':').unwrap().1.to_owned()
}

// Where a key that was stored lies: which node, and under which name.
async fn find(cluster: &RedisCluster, key: &Key) -> (usize, Vec<u8>) {
    let pattern = format!("*{}*", hash(key));
    for (at, node) in cluster.nodes()[..3].iter().enumerate() {
        let mut raw = raw(node).await;
        let mut cursor = "0".to_owned();
        loop {
            let scan: [&[u8]; 6] =
                [b"SCAN", cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", b"10000"];
            let (next, mut names): (String, Vec<Vec<u8>>) = ask(&mut raw, &scan).await;
            if let Some(name) = names.pop() {
                return (at, name);
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
    }
    panic!("the key lies nowhere");
}

async fn plant(cluster: &RedisCluster, backend: &RedisBackend, key: &Key, bytes: &[u8]) {
    let _ = backend.put(key, text("to be found"), Ttl::Forever, When::Always).await.unwrap();
    let (at, name) = find(cluster, key).await;
    ask::<()>(&mut raw(&cluster.nodes()[at]).await, &[b"SET", &name, bytes]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_on_a_cluster_without_a_command_for_two_slots() {
    let cluster = Arc::new(RedisCluster::start().await);
    let planter = builder(&cluster).generation_max_age(Duration::ZERO).connect().await.unwrap();
    let harness = async || {
        let (for_second, for_plant, planter) = (cluster.clone(), cluster.clone(), planter.clone());
        let connect = move || {
            let builder = builder(&for_second).generation_max_age(LAG);
            async move { builder.connect().await.expect("the cluster is there") }
        };
        Harness::new(connect().await)
            .with_second(connect)
            .with_lag(LAG * 2)
            .with_sizes(common::small_sizes())
            .with_plant(move |key, bytes| {
                let (cluster, planter) = (for_plant.clone(), planter.clone());
                async move { plant(&cluster, &planter, &key, &bytes).await }
            })
    };
    suite::run_all(8, harness).await;
    for node in cluster.nodes() {
        let errors: String = ask(&mut raw(node).await, &[b"INFO", b"errorstats"]).await;
        assert!(!errors.contains("CROSSSLOT"), "{errors}");
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

// The slot of an entry.
fn slot(key: &Key) -> u16 {
    crc16(hash(key).as_bytes()) % 16_384
}

// The slot of a namespace's tags.
fn slot_of_tags() -> u16 {
    crc16(shop().as_str().as_bytes()) % 16_384
}

// Keys that began on a node, all of whose records of generations lie there too.
fn keys_on(node: usize, count: usize) -> Vec<Key> {
    let keys = (0..).map(|n| key(&format!("on {n}")));
    let there = keys.filter(|key| {
        let bucket = slot(key) / 64 * 64;
        RedisCluster::first_owner(bucket) == node && RedisCluster::first_owner(bucket + 63) == node
    });
    there.take(count).collect()
}

// Keys that lie in one slot.
fn keys_in(slot_of_all: u16, count: usize) -> Vec<Key> {
    let keys = (0..).map(|n| key(&format!("in {n}")));
    keys.filter(|key| slot(key) == slot_of_all).take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_costs_its_slots_only() {
    let mut cluster = RedisCluster::start().await;
    let tags = RedisCluster::first_owner(slot_of_tags());
    let down = (tags + 1) % 3;
    let backend = connect(&cluster).await;
    let per_node: Vec<Vec<Key>> = (0..3).map(|node| keys_on(node, 20)).collect();
    for key in per_node.iter().flatten() {
        store(&backend, key, "v").await;
    }
    assert_eq!(
        find(&cluster, &per_node[down][0]).await.0,
        down,
        "the test counts slots as they do"
    );
    cluster.nodes_mut()[down].kill();
    cluster.nodes_mut()[3 + down].kill();
    // Also one that did not know the generations before.
    for backend in [backend, builder(&cluster).connect().await.unwrap()] {
        for round in 0..3 {
            for (node, keys) in per_node.iter().enumerate().filter(|(node, _)| *node != down) {
                for key in keys {
                    let value = read(&backend, key).await;
                    assert_eq!(value.as_deref(), Some("v"), "node {node}, round {round}");
                    store(&backend, key, "v").await;
                }
            }
            for key in &per_node[down] {
                let error = backend.get(key, &[]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
        }
        let all: Vec<Key> = per_node.iter().flatten().cloned().collect();
        let found = backend.get_many(&all).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 40, "a batch has the others' share");
        let put = |key: &Key| Put {
            key: key.clone(),
            entry: text("v"),
            ttl: LONG.into(),
            when: When::Always,
        };
        let outcomes = backend.put_many(all.iter().map(put).collect()).await.unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 40);
        assert!(backend.get_many(&per_node[down]).await.is_err(), "a whole failure is told");
        // Tags lie on a node that is there; a cleared namespace must be cleared everywhere.
        backend.invalidate(&shop(), &[Tag::new("t").unwrap()]).await.unwrap();
        assert_eq!(backend.clear(&shop()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        for key in per_node.iter().enumerate().filter(|(node, _)| *node != down).flat_map(|n| n.1) {
            assert_eq!(read(&backend, key).await, None, "what can be cleared is");
            store(&backend, key, "v").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_replaced_and_found_without_a_restart() {
    let mut cluster = RedisCluster::options().node_timeout(Duration::from_secs(1)).start().await;
    let backend = connect(&cluster).await;
    let [lost, new] = &keys_on(1, 2)[..] else { panic!() };
    let other = keys_on(2, 1).remove(0);
    store(&backend, lost, "v").await;
    store(&backend, &other, "v").await;
    cluster.nodes()[1].replicated(1).await;
    cluster.nodes_mut()[1].kill();
    let began = Instant::now();
    let mut refused = 0;
    let recovery = eventually("the recovery", async || match backend.get(lost, &[]).await {
        Ok(found) => {
            assert!(found.entry.is_some(), "the replica had it");
            true
        }
        Err(error) => {
            assert!(error.is_outage(), "{error:?}");
            refused += 1;
            assert_eq!(read(&backend, &other).await.as_deref(), Some("v"), "others go on");
            false
        }
    });
    let replica = &cluster.nodes()[4..5];
    let writes = common::writes_soon_after_the_election(&backend, new, replica);
    let ((), found) = tokio::join!(recovery, writes);
    println!(
        "a dead primary of a cluster: {found:?} after the election, {refused} refusals, {:?} to recover",
        began.elapsed()
    );
    assert!(refused > 0, "it was gone");
    eventually("all of it", async || backend.marks(&shop(), &[]).await.is_ok()).await;
    expect_all_work(&backend, &shop()).await;

    // The old one comes back as a replica of the new one, and takes over again when it is told to.
    store(&backend, lost, "newer").await;
    cluster.nodes_mut()[1].restart().await;
    let role = async |node: &RedisServer| {
        let reply = node.command(&["ROLE"]).await.unwrap();
        String::from_utf8_lossy(&reply).into_owned()
    };
    eventually("its return", async || role(&cluster.nodes()[1]).await.contains("connected")).await;
    eventually("the change", async || {
        // It refuses as long as it does not know enough of the others.
        cluster.nodes()[1].command(&["CLUSTER", "FAILOVER"]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        role(&cluster.nodes()[1]).await.contains("master")
    })
    .await;
    eventually("the recovery", async || backend.get(lost, &[]).await.is_ok()).await;
    assert_eq!(read(&backend, lost).await.as_deref(), Some("newer"));
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_lose_nothing_and_bring_nothing_back() {
    let cluster = Arc::new(RedisCluster::start().await);
    let backend = connect(&cluster).await;
    let slot = slot(&key("moving"));
    let home = RedisCluster::first_owner(slot);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    let mut keys = keys_in(slot, 7);
    let counter = keys.remove(6);
    for (n, key) in keys.into_iter().enumerate() {
        let (backend, stop) = (backend.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let value = format!("{n} {round}");
                match round % 3 {
                    0 => {
                        // A fill that began before it was voided is never stored.
                        assert!(backend.remove(&key, None).await.unwrap(), "nothing is lost");
                        let Begin::Token(old) = backend.begin(&key, LONG).await.unwrap() else {
                            panic!("nothing comes back")
                        };
                        store(&backend, &key, &value).await;
                        let late = When::Token(old);
                        let late = backend.put(&key, text("late"), LONG.into(), late).await;
                        assert_eq!(late.unwrap(), Outcome::Refused);
                    }
                    1 => store(&backend, &key, &value).await,
                    _ => {
                        let entry = text(&value);
                        let found = backend.get(&key, &[]).await.unwrap().entry.unwrap();
                        let when = When::Revision(found.revision());
                        let put = backend.put(&key, entry, LONG.into(), when).await;
                        assert_eq!(put.unwrap(), Outcome::Stored, "its own revision is there");
                    }
                }
                assert_eq!(read(&backend, &key).await, Some(value), "what was written is read");
            }
            round
        }));
    }
    let counter = {
        let (key, backend, stop) = (counter, backend.clone(), stop.clone());
        tokio::spawn(async move {
            let create = Some(Counter { initial: 0, ttl: LONG.into() });
            let mut sum = 0;
            while !stop.load(Ordering::Relaxed) {
                sum += 1;
                assert_eq!(backend.add(&key, 1, create).await.unwrap(), Some(sum));
            }
            sum
        })
    };
    for round in 0..4 {
        let (from, to) =
            if round % 2 == 0 { (home, (home + 1) % 3) } else { ((home + 1) % 3, home) };
        let step = async || tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.move_slot(slot, from, to, step).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    for task in tasks {
        rounds += task.await.unwrap();
    }
    let sum = counter.await.unwrap();
    println!("{rounds} changes and {sum} additions while a slot moved four times");
    let mut redirected = 0;
    for node in &cluster.nodes()[..3] {
        let errors: String = ask(&mut raw(node).await, &[b"INFO", b"errorstats"]).await;
        redirected += usize::from(errors.contains("ASK")) + usize::from(errors.contains("MOVED"));
    }
    assert!(redirected >= 2 && rounds > 100, "{redirected}, {rounds}: it moved under the changes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_whose_slot_moves_make_nothing_valid_again() {
    let cluster = Arc::new(RedisCluster::start().await);
    let (one, two) = (connect(&cluster).await, connect(&cluster).await);
    let tags = [Tag::new("a").unwrap(), Tag::new("b").unwrap()];
    let stop = Arc::new(AtomicBool::new(false));
    let task = {
        let (stop, tags) = (stop.clone(), tags.clone());
        tokio::spawn(async move {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let before = one.marks(&shop(), &tags).await.unwrap();
                let next = two.invalidate(&shop(), &tags[..1]).await.unwrap();
                let after = one.marks(&shop(), &tags).await.unwrap();
                assert_eq!(after.tags[0], next);
                assert!(!before.sequence.covers(Some(after.tags[0])), "it is invalid");
                assert!(before.sequence.covers(Some(after.tags[1])), "and the other one is not");
                rounds += 1;
            }
            rounds
        })
    };
    let (slot, home) = (slot_of_tags(), RedisCluster::first_owner(slot_of_tags()));
    for round in 0..4 {
        let (from, to) =
            if round % 2 == 0 { (home, (home + 1) % 3) } else { ((home + 1) % 3, home) };
        let step = async || tokio::time::sleep(Duration::from_millis(20)).await;
        cluster.move_slot(slot, from, to, step).await;
    }
    stop.store(true, Ordering::Relaxed);
    let rounds: u32 = task.await.unwrap();
    assert!(rounds > 10, "{rounds}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_futures_leave_no_reply_for_another_while_nodes_freeze_and_slots_move() {
    let cluster = Arc::new(RedisCluster::start().await);
    let backend = builder(&cluster).response_timeout(Duration::from_millis(300));
    let backend = backend.connect().await.unwrap();
    let drops: usize =
        std::env::var("LARDER_DROPS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000);
    let slot = slot(&key("own 3"));
    let home = RedisCluster::first_owner(slot);
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let backend = backend.clone();
            tokio::spawn(async move {
                let mut good = 0_usize;
                for round in 0..drops / 12 {
                    let n = (round * 7 + task) % 32;
                    let own = format!("own {n}");
                    let keys = [key(&own), key(&format!("own {}", (n + 1) % 32))];
                    let (polls, turns) = (rand::random_range(0..12), rand::random_range(0..4));
                    if round % 3 == 0 {
                        let put = backend.put(&keys[0], text(&own), LONG.into(), When::Always);
                        let _ = drop_later(polls, turns, put).await;
                    } else if let Some(Ok(found)) =
                        drop_later(polls * 2, turns, backend.get_many(&keys)).await
                    {
                        let others = format!("own {}", (n + 1) % 32);
                        for (found, wanted) in found.iter().zip([&own, &others]) {
                            assert!(found.as_ref().is_none_or(|e| common::body(e) == *wanted));
                            good += 1;
                        }
                    }
                }
                good
            })
        })
        .collect();
    for round in 0..3 {
        let frozen = &cluster.nodes()[(home + 2) % 3];
        frozen.freeze();
        tokio::time::sleep(Duration::from_millis(150)).await;
        frozen.thaw();
        let (from, to) =
            if round % 2 == 0 { (home, (home + 1) % 3) } else { ((home + 1) % 3, home) };
        cluster.move_slot(slot, from, to, async || {}).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut good = 0;
    for task in tasks {
        good += task.await.unwrap();
    }
    assert!(good > drops / 50, "only {good} reads were answered");
    eventually("the recovery", async || backend.get(&key("own 3"), &[]).await.is_ok()).await;
    common::every_verb(&backend, &shop()).await;
    expect_all_work(&connect(&cluster).await, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleared_namespace_is_swept_from_every_node_and_paged_over_all_of_them() {
    let cluster = RedisCluster::start().await;
    let backend = connect(&cluster).await;
    let items = (0..900).map(|n| Put {
        key: key(&n.to_string()),
        entry: if n % 3 == 0 { text("v") } else { Entry::integer(n) },
        ttl: Ttl::Forever,
        when: When::Always,
    });
    let outcomes = backend.put_many(items.collect()).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
    let mut keys = HashMap::new();
    let mut from = None;
    loop {
        let page = backend.page(&Prefix::new(&shop()).part("d"), from, 50).await.unwrap();
        for key in page.keys {
            *keys.entry(key).or_insert(0) += 1;
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert!(keys.len() >= 300, "{} keys are paged", keys.len());
    backend.clear(&shop()).await.unwrap();
    assert_eq!(read(&backend, &key("0")).await, None);
    eventually("the sweep", async || {
        let mut left = 0;
        for node in &cluster.nodes()[..3] {
            left += ask::<u64>(&mut raw(node).await, &[b"DBSIZE"]).await;
        }
        // The generations alone.
        left == 256
    })
    .await;
}

// A proxy before each primary, which has it for its own port from now on, so that clients are sent there. The replicas
// are killed: they would talk to their primaries through them too.
async fn behind_proxies(cluster: &mut RedisCluster) -> Vec<FaultProxy> {
    for replica in &mut cluster.nodes_mut()[3..] {
        replica.kill();
    }
    let mut proxies = Vec::new();
    for node in &cluster.nodes()[..3] {
        let proxy = FaultProxy::start(node.address()).await;
        let port = proxy.port().to_string();
        let announced = node.command(&["CONFIG", "SET", "cluster-announce-port", &port]).await;
        assert_eq!(announced.unwrap(), b"+OK\r\n");
        proxies.push(proxy);
    }
    eventually("that every node knows it", async || {
        for node in &cluster.nodes()[..3] {
            let map = node.command(&["CLUSTER", "SLOTS"]).await.unwrap();
            let map = String::from_utf8_lossy(&map).into_owned();
            if !proxies.iter().all(|proxy| map.contains(&format!(":{}\r\n", proxy.port()))) {
                return false;
            }
        }
        true
    })
    .await;
    proxies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_round_trip_to_each_node() {
    let mut cluster = RedisCluster::start().await;
    let proxies = behind_proxies(&mut cluster).await;
    let backend = builder(&cluster).generation_max_age(LONG).connect().await.unwrap();
    let keys: Vec<Key> = (0..200).map(|n| key(&format!("many {n}"))).collect();
    let items = |when| {
        let put = |key: &Key| Put { key: key.clone(), entry: text("v"), ttl: LONG.into(), when };
        keys.iter().map(put).collect::<Vec<_>>()
    };
    // The generations are learned, and stay trusted.
    let _ = backend.put_many(items(When::Always)).await.unwrap();
    for proxy in &proxies {
        // A long pipeline is one exchange even where the server begins to answer before its end.
        proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(50)));
    }
    macro_rules! one_trip_each {
        ($work:expr) => {{
            let trips = || proxies.iter().map(FaultProxy::exchanges).collect::<Vec<_>>();
            let before = trips();
            let done = $work.await.unwrap();
            let more: Vec<u64> =
                trips().iter().zip(&before).map(|(now, then)| now - then).collect();
            assert_eq!(more, [1, 1, 1], "{}", stringify!($work));
            done
        }};
    }
    for when in [When::Always, When::Present] {
        let outcomes = one_trip_each!(backend.put_many(items(when)));
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Stored))));
    }
    assert_eq!(one_trip_each!(backend.get_many(&keys)).iter().flatten().count(), 200);
    assert_eq!(one_trip_each!(backend.remove_many(&keys)), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_cluster_or_not_wanted_as_one_says_so() {
    let server = RedisServer::start().await;
    let url = format!("redis+cluster://{}", server.address());
    let error = RedisBackend::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("redis://"), "{error}");

    let cluster = RedisCluster::options().password("s3cret").start().await;
    for url in [cluster.url(), cluster.url().replace("s3cret", "canary")] {
        let wrong = url.contains("canary");
        match RedisBackend::connect(&url).await {
            Ok(backend) => {
                assert!(!wrong);
                expect_all_work(&backend, &shop()).await;
            }
            Err(error) => {
                assert!(wrong, "{error}");
                assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
                assert!(!format!("{error:?}").contains("canary"));
            }
        }
    }
    // What the documentation says that Larder needs in a cluster, and nothing else.
    let rules = "on >word resetchannels ~shop:* -@all +get +set +mget +getdel +getrange +unlink +scan +evalsha +eval +script|load +time +role +select +setrange +incrby +incr +pexpire +persist +pttl +cluster|slots +asking";
    for node in cluster.nodes() {
        let words: Vec<&str> =
            ["ACL", "SETUSER", "app"].into_iter().chain(rules.split(' ')).collect();
        assert_eq!(node.command(&words).await.unwrap(), b"+OK\r\n");
    }
    let user = cluster.url().replace(":s3cret@", "app:word@");
    let user = RedisBackend::connect(&user).await.unwrap();
    expect_all_work(&user, &shop()).await;
    store(&user, &key("k"), "v").await;
    assert!(user.page(&Prefix::new(&shop()), None, 1000).await.is_ok());

    let one = format!("redis://:s3cret@{}", cluster.nodes()[0].address());
    let backend = RedisBackend::connect(&one).await.unwrap();
    let told = eventually_told(&backend).await;
    assert!(told.contains("redis+cluster://"), "{told}");
}

// What a connection to one node says about keys that are another's.
async fn eventually_told(backend: &RedisBackend) -> String {
    for n in 0..100 {
        if let Err(error) = backend.get(&key(&n.to_string()), &[]).await {
            return error.to_string();
        }
    }
    panic!("every key lies on the first node")
}
