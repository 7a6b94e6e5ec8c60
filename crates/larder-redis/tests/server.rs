//! What only a real server can show: log-in, TLS, sockets, lifetimes, generations, several nodes.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{
    LONG, ask, body, calls, eventually, expect_all_work, key, raw, read, shop, store, text,
};
use larder_core::{
    Backend, Begin, Counter, Entry, ErrorKind, Key, Namespace, Outcome, Prefix, Remaining,
    Sequence, Tag, Ttl, When,
};
use larder_redis::RedisBackend;
use larder_testkit::servers::RedisServer;

mod common;

async fn connect(server: &RedisServer) -> RedisBackend {
    let builder = RedisBackend::builder().url(&server.url()).unwrap();
    builder.response_timeout(Duration::from_secs(10)).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_a_password_and_a_database() {
    // What the documentation says that Larder needs, and nothing else.
    let rules = "resetchannels ~shop:* -@all +get +set +mget +getdel +getrange +unlink +scan +evalsha +eval +script|load +time +role +select +setrange +incrby +incr +pexpire +persist +pttl";
    let server = RedisServer::options().user("app", "p@ss:word/42", rules).start().await;
    let url = server.url().replace("p@ss:word/42", "p%40ss%3Aword%2F42") + "/3?namespace=shop";
    let backend = RedisBackend::connect(&url).await.unwrap();
    store(&backend, &key("k"), "v").await;
    expect_all_work(&backend, &shop()).await;
    backend.clear(&shop()).await.unwrap();
    store(&backend, &key("k"), "v").await;
    let mut third = redis::Client::open(server.url().replace("app:p@ss:word/42@", "") + "/3")
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let size: u64 = ask(&mut third, &[b"DBSIZE"]).await;
    assert!(size >= 2, "it is in the third database");

    // Another namespace is not this user's.
    let foreign = Key::new(&Namespace::new("other").unwrap(), ["k"]).unwrap();
    let error = backend.get(&foreign, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");

    for wrong in
        [url.replace("p%40ss", "canary"), url.replace("app", "canary"), url.replace("/3?", "/99?")]
    {
        let error = RedisBackend::connect(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    let locked = RedisServer::options().password("s3cret").start().await;
    let error = RedisBackend::connect(&format!("redis://{}", locked.address())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    expect_all_work(&RedisBackend::connect(&locked.url()).await.unwrap(), &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket() {
    let path = std::env::temp_dir().join(format!("larder-{:016x}.sock", rand::random::<u64>()));
    let text = path.display().to_string();
    let _server = RedisServer::options().directive("unixsocket", &[&text]).start().await;
    let backend = RedisBackend::connect(&format!("unix://{text}?db=1")).await.unwrap();
    expect_all_work(&backend, &shop()).await;
    let missing = RedisBackend::connect(&format!("unix://{text}-canary")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert!(!format!("{missing:?}").contains("canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifetimes_below_a_second_are_the_servers_too() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let mut raw = raw(&server).await;
    let ttl = Ttl::For(Duration::from_millis(300));
    let _ = backend.put(&key("entry"), text("v"), ttl, When::Always).await.unwrap();
    let _ = backend.put(&key("counter"), Entry::integer(1), ttl, When::Absent).await.unwrap();
    for part in ["entry", "counter"] {
        let name = common::wire_name(&mut raw, &key(part)).await;
        let left: i64 = ask(&mut raw, &[b"PTTL", name.as_bytes()]).await;
        assert!((1..=300).contains(&left), "{left}");
    }
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(read(&backend, &key("entry")).await, None);
    assert_eq!(backend.remaining(&key("counter")).await.unwrap(), Remaining::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_sees_a_cleared_namespace_within_the_bound() {
    let server = RedisServer::start().await;
    let first = connect(&server).await;
    let trusting = connect(&server).await;
    let strict = RedisBackend::builder().url(&(server.url() + "?generation_max_age=0s")).unwrap();
    let strict = strict.connect().await.unwrap();
    store(&first, &key("k"), "v").await;
    for node in [&trusting, &strict] {
        assert_eq!(read(node, &key("k")).await.as_deref(), Some("v"));
    }
    first.clear(&shop()).await.unwrap();
    assert_eq!(read(&first, &key("k")).await, None, "who clears sees it at once");
    assert_eq!(read(&strict, &key("k")).await, None, "who asks each time sees it at once");
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(read(&trusting, &key("k")).await, None, "everybody sees it after a second");

    // What a node stores under the old generation meanwhile does not stay, even if it has no end.
    first.clear(&shop()).await.unwrap();
    let _ = strict.put(&key("stray"), text("v"), Ttl::Forever, When::Always).await.unwrap();
    assert_eq!(read(&first, &key("stray")).await.as_deref(), Some("v"));
    let mut raw = raw(&server).await;
    eventually("the sweep", async || ask::<u64>(&mut raw, &[b"DBSIZE"]).await == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_generation_brings_nothing_back() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::builder().url(&(server.url() + "?generation_max_age=0s")).unwrap();
    let backend = backend.connect().await.unwrap();
    let mut raw = raw(&server).await;
    for wreck in
        [&["DEL", "shop:generation"][..], &["SET", "shop:generation", "garbage"], &["FLUSHALL"]]
    {
        store(&backend, &key("k"), "v").await;
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"));
        let wreck: Vec<&[u8]> = wreck.iter().map(|part| part.as_bytes()).collect();
        ask::<()>(&mut raw, &wreck).await;
        assert_eq!(read(&backend, &key("k")).await, None);
        expect_all_work(&backend, &shop()).await;
    }
    ask::<()>(&mut raw, &[b"DEL", b"shop:generation"]).await;
    ask::<()>(&mut raw, &[b"LPUSH", b"shop:generation", b"a list"]).await;
    let fresh = connect(&server).await;
    store(&fresh, &key("k"), "v").await;
    assert_eq!(read(&fresh, &key("k")).await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_type_under_a_name_is_absent() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let mut raw = raw(&server).await;
    let name = common::wire_name(&mut raw, &key("k")).await;
    let plant = async |raw: &mut redis::aio::MultiplexedConnection| {
        ask::<()>(raw, &[b"DEL", name.as_bytes()]).await;
        ask::<()>(raw, &[b"LPUSH", name.as_bytes(), b"a list"]).await;
    };
    let k = key("k");
    plant(&mut raw).await;
    assert_eq!(read(&backend, &k).await, None);
    assert!(matches!(backend.get_many(std::slice::from_ref(&k)).await.unwrap()[..], [None]));
    assert_eq!(backend.remaining(&k).await.unwrap(), Remaining::Absent);
    assert!(!backend.touch(&k, LONG.into()).await.unwrap());
    assert_eq!(backend.add(&k, 1, None).await.unwrap(), None);
    assert_eq!(
        backend.put(&k, text("v"), LONG.into(), When::Present).await.unwrap(),
        Outcome::Refused
    );
    assert!(backend.page(&Prefix::new(&shop()), None, 10).await.unwrap().keys.is_empty());
    assert!(!backend.remove(&k, None).await.unwrap());
    for when in [When::Always, When::Absent] {
        plant(&mut raw).await;
        assert_eq!(backend.put(&k, text("v"), LONG.into(), when).await.unwrap(), Outcome::Stored);
    }
    plant(&mut raw).await;
    assert!(matches!(backend.begin(&k, LONG).await.unwrap(), Begin::Token(_)));
    plant(&mut raw).await;
    let create = Some(Counter { initial: 4, ttl: LONG.into() });
    assert_eq!(backend.add(&k, 1, create).await.unwrap(), Some(5));
    // And where the sequence is kept.
    let sequence = common::wire_name(&mut raw, &Key::sequence(&shop())).await;
    ask::<()>(&mut raw, &[b"LPUSH", sequence.as_bytes(), b"a list"]).await;
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_tags_end_after_their_lifetime_and_are_kept_by_use() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::builder().url(&(server.url() + "?mark_ttl=2s")).unwrap();
    let backend = backend.connect().await.unwrap();
    let mut raw = raw(&server).await;
    let tags = [Tag::new("t").unwrap()];
    let first = backend.marks(&shop(), &tags).await.unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let again = backend.marks(&shop(), &tags).await.unwrap();
        assert_eq!((again.sequence, &again.tags), (first.sequence, &first.tags), "use keeps them");
    }
    let invalidated: Sequence = backend.invalidate(&shop(), &tags).await.unwrap();
    assert_eq!(backend.marks(&shop(), &tags).await.unwrap().tags, [invalidated]);
    // The server counts what has ended until it comes to look at it.
    eventually("the generation is alone", async || ask::<u64>(&mut raw, &[b"DBSIZE"]).await == 1)
        .await;
    let late = backend.marks(&shop(), &tags).await.unwrap();
    assert!(!first.sequence.covers(Some(late.tags[0])), "what was built before is not valid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_records_are_for_those_who_know_the_secret() {
    let server = RedisServer::start().await;
    let with = async |secret: u8| {
        let builder = RedisBackend::builder().url(&server.url()).unwrap();
        builder.sealed([secret; 32]).verify_body(true).connect().await.unwrap()
    };
    let (one, two, open) = (with(1).await, with(2).await, connect(&server).await);
    store(&one, &key("k"), "v").await;
    assert!(one.touch(&key("k"), Ttl::Forever).await.unwrap());
    assert_eq!(read(&one, &key("k")).await.as_deref(), Some("v"));
    assert_eq!(read(&two, &key("k")).await, None);
    assert_eq!(read(&open, &key("k")).await, None);
    store(&open, &key("k"), "forged").await;
    assert_eq!(read(&one, &key("k")).await, None);
    expect_all_work(&one, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_damage_does_not_remove_it() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let mut raw = raw(&server).await;
    let name = common::wire_name(&mut raw, &key("k")).await;
    // A later version's record: its own version must find it again.
    ask::<()>(&mut raw, &[b"SET", name.as_bytes(), b"LRDR\x02 of the future"]).await;
    for _ in 0..100 {
        assert_eq!(read(&backend, &key("k")).await, None);
    }
    let there: Vec<u8> = ask(&mut raw, &[b"GET", name.as_bytes()]).await;
    assert_eq!(there, b"LRDR\x02 of the future");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_longer_than_a_guess_are_paged() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let lengths = [1, 200, 300, 400, 5_000, 60_000];
    for length in lengths {
        store(&backend, &key(&"x".repeat(length)), "v").await;
    }
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let page = backend.page(&Prefix::new(&shop()).part("d"), from, 2).await.unwrap();
        found.extend(page.keys);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), lengths.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_takes_the_old_one_away_if_the_condition_holds() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::builder().url(&(server.url() + "?max_value_bytes=2KiB")).unwrap();
    let backend = backend.connect().await.unwrap();
    let large = text(&"x".repeat(4096));
    let k = key("k");
    for when in [When::Always, When::Present] {
        store(&backend, &k, "old").await;
        let error = backend.put(&k, large.clone(), LONG.into(), when).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(read(&backend, &k).await, None);
    }
    store(&backend, &k, "old").await;
    let refused = backend.put(&k, large.clone(), LONG.into(), When::Absent).await.unwrap();
    assert_eq!((refused, read(&backend, &k).await.as_deref()), (Outcome::Refused, Some("old")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_up_to_the_limit_that_was_set() {
    let server = RedisServer::start().await;
    let mut raw = raw(&server).await;
    let key = key(&"x".repeat(100));
    let name = common::wire_name(&mut raw, &key).await;
    for most in [1 << 10, 1 << 20] {
        let builder = RedisBackend::builder().url(&server.url()).unwrap().max_value_bytes(most);
        let backend = builder.response_timeout(LONG).connect().await.unwrap();
        assert_eq!(backend.abilities().max_bytes, Some(most));
        // The envelope has a hundred bytes, and repeats the key.
        let body =
            |more: usize| "7".repeat(most as usize - 100 - key.as_ref().as_bytes().len() + more);
        let put =
            async |body: String, when| backend.put(&key, text(&body), LONG.into(), when).await;
        assert_eq!(put(body(0), When::Always).await.unwrap(), Outcome::Stored, "the largest fits");
        assert_eq!(ask::<u64>(&mut raw, &[b"STRLEN", name.as_bytes()]).await, most);
        assert_eq!(read(&backend, &key).await, Some(body(0)));
        assert_eq!(put(body(1), When::Absent).await.unwrap(), Outcome::Refused, "it is there");
        assert_eq!(read(&backend, &key).await, Some(body(0)), "a refusal changes nothing");
        let error = put(body(1), When::Always).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(read(&backend, &key).await, None, "the old value is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_goes_with_the_last_handle() {
    let server = RedisServer::start().await;
    let mut raw = raw(&server).await;
    let clients = async |raw: &mut redis::aio::MultiplexedConnection| {
        let list: String = ask(raw, &[b"CLIENT", b"LIST"]).await;
        list.lines().count()
    };
    let backend = connect(&server).await;
    let clone = backend.clone();
    store(&backend, &key("k"), "v").await;
    assert_eq!(clients(&mut raw).await, 2);
    drop(backend);
    assert_eq!(read(&clone, &key("k")).await.as_deref(), Some("v"));
    drop(clone);
    eventually("the end of the connection", async || clients(&mut raw).await == 1).await;
}

// A backend may be made in one runtime and used in the next, as tests and command line tools do.
#[test]
fn a_runtime_that_ended_takes_only_the_connection_along() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let server = second.block_on(RedisServer::start());
    let backend = first.block_on(connect(&server));
    first.block_on(store(&backend, &key("k"), "v"));
    drop(first);
    second.block_on(eventually("the recovery", async || backend.get(&key("k"), &[]).await.is_ok()));
    assert_eq!(second.block_on(read(&backend, &key("k"))).as_deref(), Some("v"));
    second.block_on(expect_all_work(&backend, &shop()));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// One process, one subscriber: this test has a runtime of its own, and the log of all that happens in it.
#[test]
fn no_secret_is_ever_told() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = tracing::subscriber::set_default(subscriber);
    runtime.block_on(async {
        let mut server = RedisServer::options().password("canarypass").start().await;
        let url = server.url() + "?response_timeout=200ms&connect_timeout=400ms";
        let builder = RedisBackend::builder().url(&url).unwrap();
        let mut told = format!("{builder:?}");
        let backend = builder.connect().await.unwrap();
        told += &format!("{backend:?}");
        let canary = Key::new(&shop(), ["canarykey"]).unwrap();
        store(&backend, &canary, "canaryvalue").await;
        told += &format!("{:?}", backend.get(&canary, &[]).await);
        let mut raw = raw(&server).await;
        let name = common::wire_name(&mut raw, &canary).await;
        assert!(name.contains("canarykey"), "the server itself may see the plain start");
        ask::<()>(&mut raw, &[b"SET", name.as_bytes(), b"canarydamage"]).await;
        let _ = backend.get(&canary, &[]).await;
        server.freeze();
        for (verb, error) in common::every_verb(&backend, &shop()).await {
            let error = error.unwrap();
            told += &format!("{verb} {error} {error:?}");
        }
        server.thaw();
        server.kill();
        for (verb, error) in common::every_verb(&backend, &shop()).await {
            let error = error.unwrap();
            told += &format!("{verb} {error} {error:?}");
        }
        let wrong = url.replace("canarypass", "canarywrong");
        server.restart().await;
        told += &format!("{:?}", RedisBackend::connect(&wrong).await.unwrap_err());
        told += &String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(told.contains("larder::redis"), "something was logged");
        assert!(!told.contains("canary"), "{told}");
        assert!(!told.contains(&server.port().to_string()), "{told}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_applications_on_one_server_do_not_meet() {
    let server = RedisServer::start().await;
    let (one, two) = (connect(&server).await, connect(&server).await);
    let spaces = [Namespace::new("app").unwrap(), Namespace::new("app-2").unwrap()];
    let keys = spaces.clone().map(|space| Key::new(&space, ["same", "key"]).unwrap());
    store(&one, &keys[0], "one").await;
    store(&two, &keys[1], "two").await;
    one.clear(&spaces[0]).await.unwrap();
    assert_eq!(read(&one, &keys[0]).await, None);
    assert_eq!(
        two.get(&keys[1], &[]).await.unwrap().entry.as_ref().map(body).as_deref(),
        Some("two")
    );
    one.invalidate(&spaces[0], &[Tag::new("t").unwrap()]).await.unwrap();
    let mut raw = raw(&server).await;
    assert!(!calls(&mut raw).await.contains_key("publish"));
}
