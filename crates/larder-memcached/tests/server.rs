//! What only real servers can show: lifetimes, limits, generations, several nodes, a ring that loses one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    LONG, body, builder, eventually, expect_all_work, key, over, plant, read, shop, store, text,
};
use larder_core::{
    Backend, Begin, Clock, Counter, Encoded, Entry, ErrorKind, Key, Namespace, Outcome, Remaining,
    Sequence, Tag, Ttl, When,
};
use larder_memcached::MemcachedBackend;
use larder_testkit::servers::MemcachedServer;

mod common;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// What the server itself says is left of an item.
async fn left(server: &MemcachedServer, backend: &MemcachedBackend, key: &Key) -> String {
    let (_, name) = backend.place(key).await.unwrap();
    let reply = server.send(format!("mg {name} t\r\n").as_bytes()).await.unwrap();
    String::from_utf8(reply).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ends_an_item_soon_after_its_record() {
    let server = MemcachedServer::start().await;
    let backend = over(&[&server]).await;
    let second = Duration::from_secs(1);
    for ttl in [
        Duration::from_millis(50),
        second,
        Duration::from_millis(1500),
        30 * DAY - second,
        30 * DAY,
        30 * DAY + second,
        31 * DAY,
        3650 * DAY,
    ] {
        let key = key(&format!("{ttl:?}"));
        let before = Instant::now();
        let _ = backend.put(&key, text("v"), ttl.into(), When::Always).await.unwrap();
        let told = left(&server, &backend, &key).await;
        let spent = before.elapsed();
        let Some(told) = told.strip_prefix("HD t") else {
            assert!(spent > ttl, "{ttl:?}: {told}");
            continue;
        };
        let told = Duration::from_secs(told.parse().unwrap());
        assert!(told <= ttl + 3 * second, "{ttl:?}: the server keeps it for {told:?}");
        assert!(told + spent + second >= ttl, "{ttl:?}: the server keeps it for {told:?} only");
    }
    // What ends after the server's calendar, and what has no end.
    for ttl in [Ttl::For(Ttl::MAX), Ttl::Forever] {
        store(&backend, &key("far"), "v").await;
        assert!(backend.touch(&key("far"), ttl).await.unwrap());
        assert_eq!(left(&server, &backend, &key("far")).await, "HD t-1");
        let forever = backend.remaining(&key("far")).await.unwrap() == Remaining::Forever;
        assert_eq!(forever, ttl == Ttl::Forever);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lifetimes_end_on_every_node() {
    let server = MemcachedServer::start().await;
    let (here, there) = (over(&[&server]).await, over(&[&server]).await);
    let counter = key("counter");
    for ttl in [Duration::from_millis(50), Duration::from_secs(1)] {
        for round in 0..5 {
            let key = key(&format!("{ttl:?} {round}"));
            let before = Instant::now();
            let _ = here.put(&key, text("v"), ttl.into(), When::Always).await.unwrap();
            let create = Some(Counter { initial: 0, ttl: ttl.into() });
            assert_eq!(here.add(&counter, 1, create).await.unwrap(), Some(1));
            let found = [read(&here, &key).await, read(&there, &key).await];
            // What two nodes take for the server's time may differ by as much as a machine is slow.
            if before.elapsed() < ttl / 2 {
                assert_eq!(found[0].as_deref(), Some("v"), "it lives here");
            }
            if before.elapsed() < ttl / 2 && ttl >= Duration::from_secs(1) {
                assert_eq!(found[1].as_deref(), Some("v"), "it lives there");
            }
            tokio::time::sleep(ttl + Duration::from_millis(1)).await;
            assert_eq!(read(&here, &key).await, None, "it has ended here");
            assert_eq!(here.add(&counter, 1, None).await.unwrap(), None, "and so has the counter");
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(read(&there, &key).await, None, "it has ended there");
        }
    }
}

// The other node's clock stands in January, and stays there unless it is moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_need_not_agree_what_time_it_is() {
    let server = MemcachedServer::start().await;
    let here = over(&[&server]).await;
    let (clock, hands) = Clock::manual();
    hands.skew_wall(30 * DAY, true);
    let there = builder(&server.url()).clock(clock).connect().await.unwrap();
    let minute = Duration::from_secs(60);
    let _ = here.put(&key("here"), text("v"), minute.into(), When::Always).await.unwrap();
    let _ = there.put(&key("there"), text("v"), minute.into(), When::Always).await.unwrap();
    for (backend, key) in [(&here, key("there")), (&there, key("here"))] {
        let entry = backend.get(&key, &[]).await.unwrap().entry.expect("it was stored just now");
        let left = entry.remaining(backend.clock().now()).unwrap();
        assert!(left <= minute, "{left:?} of a minute is left");
        assert!(left > minute / 2, "{left:?} of a minute is left");
    }
    // The other clock has stood still all the while: a minute there is not enough.
    hands.advance(LONG);
    assert_eq!(read(&there, &key("here")).await, None, "its time is over there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_up_to_the_servers_limit() {
    for (size, limit) in [("1m", 1 << 20), ("4m", 4 << 20)] {
        let server = MemcachedServer::options().item_size(size).memory(128).start().await;
        let backend = over(&[&server]).await;
        let most = backend.abilities().max_bytes.unwrap();
        assert!(most < limit && most > limit - 1024, "{most} of {limit}");
        let namespace = Namespace::new(&"n".repeat(32)).unwrap();
        let key = Key::new(&namespace, ["x".repeat(100)]).unwrap();
        // The envelope has a hundred bytes, and repeats the key.
        let body = |more: usize| {
            let length = most as usize - 100 - key.as_ref().as_bytes().len() + more;
            Entry::wire(Encoded { codec: 200, head: Bytes::new(), body: vec![7; length].into() })
        };
        let put = async |entry, when| backend.put(&key, entry, LONG.into(), when).await;
        assert_eq!(put(body(0), When::Always).await.unwrap(), Outcome::Stored, "the largest fits");
        assert!(backend.get(&key, &[]).await.unwrap().entry.is_some());
        assert_eq!(put(body(1), When::Absent).await.unwrap(), Outcome::Refused, "it is there");
        assert!(backend.get(&key, &[]).await.unwrap().entry.is_some(), "a refusal changes nothing");
        let error = put(body(1), When::Always).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(backend.get(&key, &[]).await.unwrap().entry.is_none(), "the old value is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_writes_and_serves_the_rest() {
    let server = MemcachedServer::options().memory(8).arguments(&["-M"]).start().await;
    let backend = over(&[&server]).await;
    store(&backend, &key("other"), "other").await;
    let large = || Entry::wire(Encoded { body: vec![7; 200_000].into(), ..Encoded::default() });
    let mut refused = None;
    for n in 0..1000 {
        let key = key(&format!("full {n}"));
        store(&backend, &key, "old").await;
        if let Err(error) = backend.put(&key, large(), LONG.into(), When::Always).await {
            refused = Some((key, error));
            break;
        }
    }
    let (full, error) = refused.expect("the server has 8 MB");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("-m"), "{error}");
    assert_eq!(read(&backend, &full).await, None, "an old value does not outlive its replacement");
    assert_eq!(read(&backend, &key("other")).await.as_deref(), Some("other"));
    assert!(backend.remove(&key("other"), None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_server_is_empty_and_works() {
    let server = MemcachedServer::start().await;
    let backend = over(&[&server]).await;
    let tags = [Tag::new("t").unwrap()];
    for _ in 0..3 {
        let marks = backend.marks(&shop(), &tags).await.unwrap();
        let entry = text("v").with_tags(tags.clone()).with_built_at(marks.sequence);
        let _ = backend.put(&key("k"), entry, LONG.into(), When::Always).await.unwrap();
        server.send(b"flush_all\r\n").await.unwrap();
        assert_eq!(read(&backend, &key("k")).await, None);
        expect_all_work(&backend, &shop()).await;
        let after = backend.marks(&shop(), &tags).await.unwrap();
        assert!(!after.sequence.same_epoch(marks.sequence), "a lost sequence has another epoch");
        // A backend that learned its generation before the flush gets over the loss of it.
        store(&backend, &key("k"), "new").await;
        eventually("one generation for all", async || {
            read(&over(&[&server]).await, &key("k")).await.as_deref() == Some("new") || {
                store(&backend, &key("k"), "new").await;
                false
            }
        })
        .await;
    }
}

// Records of tags and of the sequence are lost all the time, while somebody changes a value and invalidates its tag.
// Whatever is lost, what was built before an invalidation that has returned is never taken for valid.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lost_records_never_make_the_old_valid() {
    let servers = [MemcachedServer::start().await, MemcachedServer::start().await];
    let servers: Vec<&MemcachedServer> = servers.iter().collect();
    let (tag, entry_key) = (Tag::new("t").unwrap(), key("value"));
    let records = [Key::sequence(&shop()), Key::tag(&shop(), &tag)];
    let (version, confirmed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let (backend, tag, key) = (over(&servers).await, tag.clone(), entry_key.clone());
        let (version, stop) = (version.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let tags = [tag.clone()];
                let built_at = backend.marks(&shop(), &tags).await.unwrap().sequence;
                let value = version.load(Ordering::SeqCst).to_string();
                tokio::task::yield_now().await;
                let entry = text(&value).with_tags(tags).with_built_at(built_at);
                let _ = backend.put(&key, entry, LONG.into(), When::Always).await.unwrap();
            }
        }));
    }
    let loser = over(&servers).await;
    let stopped = stop.clone();
    tasks.push(tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            for record in &records {
                loser.remove(record, None).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    }));
    let backend = over(&servers).await;
    let (invalidator, now, done) = (backend.clone(), version.clone(), confirmed.clone());
    let (tags, stopped) = ([tag.clone()], stop.clone());
    let invalidations = tokio::spawn(async move {
        for _ in 0..1500 {
            let new = now.fetch_add(1, Ordering::SeqCst) + 1;
            invalidator.invalidate(&shop(), &tags).await.unwrap();
            done.store(new, Ordering::SeqCst);
        }
        stopped.store(true, Ordering::SeqCst);
    });
    let mut used = 0;
    while !stop.load(Ordering::SeqCst) {
        let least = confirmed.load(Ordering::SeqCst);
        let Some(entry) = backend.get(&entry_key, &[]).await.unwrap().entry else { continue };
        let marks = backend.get(&entry_key, &[Key::tag(&shop(), &tag)]).await.unwrap().counters;
        let mark = marks[0].and_then(Sequence::from_i64);
        if entry.built_at().covers(mark) {
            used += 1;
            let value: u64 = body(&entry).parse().unwrap();
            assert!(value >= least, "version {value} is valid after {least} was confirmed");
        }
    }
    invalidations.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(used > 0, "something was valid at times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_costs_its_share() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(MemcachedServer::start().await);
    }
    let url = common::ring_url(&servers.iter().collect::<Vec<_>>());
    let backend = builder(&url).connect().await.unwrap();
    assert_eq!(backend.servers().len(), 3);
    let keys: Vec<Key> = (0..60).map(|n| key(&format!("ring {n}"))).collect();
    let mut down = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &format!("value {n}")).await;
        down.push(backend.place(key).await.unwrap().0 == servers[0].address());
    }
    let share = down.iter().filter(|down| **down).count();
    assert!((5..40).contains(&share), "{share} of 60 lie on one of three servers");
    servers[0].kill();

    let expected = |n: usize| (!down[n]).then(|| format!("value {n}"));
    let many = backend.get_many(&keys).await.unwrap();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(many[n].as_ref().map(body), expected(n), "a batch has the others' hits");
        match backend.get(key, &[]).await {
            Ok(found) => assert_eq!(found.entry.as_ref().map(body), expected(n)),
            Err(error) => assert!(down[n] && error.is_outage(), "{error}"),
        }
        let outcome = backend.put(key, text("new"), LONG.into(), When::Always).await;
        assert_eq!(outcome.is_ok(), !down[n], "{outcome:?}");
    }
    // Who cannot remove everything says so, and has removed the rest.
    assert!(backend.remove_many(&keys).await.unwrap_err().is_outage());
    assert!(backend.get_many(&keys).await.unwrap().iter().all(Option::is_none));
    assert!(backend.clear(&shop()).await.unwrap_err().is_outage(), "not everything is cleared");
    // A node can start without it.
    let second = builder(&url).connect_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let up = keys.iter().zip(&down).find(|(_, down)| !**down).unwrap().0;
    store(&second, up, "started").await;

    servers[0].restart().await;
    eventually("the ring is whole", async || backend.clear(&shop()).await.is_ok()).await;
    expect_all_work(&backend, &shop()).await;
    let all: Vec<&MemcachedServer> = servers.iter().collect();
    expect_all_work(&over(&all).await, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_are_a_miss() {
    let server = MemcachedServer::start().await;
    let (backend, key) = (over(&[&server]).await, key("hostile"));
    let number = Sequence::start().get().to_string();
    let long = format!("#5 {}", "9".repeat(5000));
    for bytes in ["#", "#5", "#99999999999999999999 0", "# 5 0", "#5 0\r\n", "12345", &long] {
        plant(&backend, &[&server], &key, Bytes::copy_from_slice(bytes.as_bytes())).await;
        let found = backend.get(&key, std::slice::from_ref(&key)).await.unwrap();
        assert!(found.entry.is_none() && found.counters == [None], "{bytes:?}");
        assert_eq!(backend.add(&key, 1, None).await.unwrap(), None, "{bytes:?}");
        assert!(matches!(backend.begin(&key, LONG).await.unwrap(), Begin::Token(_)), "{bytes:?}");
    }
    // In the places of generation, sequence and tag.
    let tags = [Tag::new("t").unwrap()];
    for bytes in ["", "5", "x", &number[..18], "9223372036854775807"] {
        for record in [Key::sequence(&shop()), Key::tag(&shop(), &tags[0])] {
            plant(&backend, &[&server], &record, Bytes::copy_from_slice(bytes.as_bytes())).await;
            let marks = backend.marks(&shop(), &tags).await.unwrap();
            plant(&backend, &[&server], &record, Bytes::copy_from_slice(bytes.as_bytes())).await;
            let next = backend.invalidate(&shop(), &tags).await.unwrap();
            assert!(Sequence::from_i64(next.get()).is_some() && next != marks.sequence);
            assert_eq!(backend.marks(&shop(), &tags).await.unwrap().tags, [next]);
        }
        let request = format!("ms shop:generation {} T0\r\n{bytes}\r\n", bytes.len());
        server.send(request.as_bytes()).await.unwrap();
        expect_all_work(&over(&[&server]).await, &shop()).await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket() {
    let path = std::env::temp_dir().join(format!("larder {:016x}.sock", rand::random::<u64>()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = MemcachedServer::start().await;
    let target = server.address();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(&target).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut server).await },
            );
        }
    });
    let url = format!("memcached+unix://{}", path.display().to_string().replace(' ', "%20"));
    let backend = builder(&url).connect().await.unwrap();
    assert_eq!(backend.servers(), [path.display().to_string()]);
    expect_all_work(&backend, &shop()).await;
    std::fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_tells_secrets() {
    let server = MemcachedServer::start().await;
    let url = format!("{}?namespace=canary", server.url());
    let backend = builder(&url).connect().await.unwrap();
    assert!(!format!("{backend:?}").contains(&server.port().to_string()));
    drop(server);
    let error = backend.get(&key("canary"), &[]).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("127.0.0.1"), "{error:?}");
}
