//! What goes over the wire: a recorder between backend and server.

use std::collections::{BTreeMap, BTreeSet};

use common::{LONG, ask, body, called, calls, expect_all_work, raw, read, shop, store};
use larder_core::{Backend, Key, Namespace, Prefix, Tag, Ttl};
use larder_redis::RedisBackend;
use larder_testkit::servers::{RedisServer, recorder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod common;

// The commands of a recording: arrays of strings, each as long as was said. Panics where it is no such thing.
fn commands(mut bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    fn number(bytes: &mut &[u8], mark: u8) -> usize {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line ends");
        let line = std::str::from_utf8(&bytes[..end]).expect("a line is text");
        assert_eq!(line.as_bytes()[0], mark, "{line:?}");
        *bytes = &bytes[end + 2..];
        line[1..].parse().expect("a number")
    }
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let mut words = Vec::new();
        for _ in 0..number(&mut bytes, b'*') {
            let length = number(&mut bytes, b'$');
            words.push(bytes[..length].to_vec());
            assert_eq!(&bytes[length..length + 2], b"\r\n", "a word has the length that was said");
            bytes = &bytes[length + 2..];
        }
        commands.push(words);
    }
    commands
}

// The names among a command's words.
fn names(words: &[Vec<u8>]) -> &[Vec<u8>] {
    let verb = String::from_utf8(words[0].to_ascii_uppercase()).expect("a verb is text");
    match &*verb {
        "GET" | "SET" | "GETDEL" | "GETRANGE" | "SETRANGE" | "INCRBY" | "INCR" | "PEXPIRE"
        | "PERSIST" | "PTTL" => &words[1..2],
        "MGET" | "UNLINK" => &words[1..],
        "EVALSHA" | "EVAL" => {
            let count = std::str::from_utf8(&words[2]).expect("text").parse().expect("a number");
            let names: usize = count;
            &words[3..3 + names]
        }
        "ROLE" | "TIME" | "SCRIPT" | "CLIENT" | "SELECT" | "SCAN" => &[],
        _ => panic!("no command of ours: {verb}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_on_the_wire_are_our_own_text() {
    let server = RedisServer::start().await;
    let (port, sent) = recorder(server.address()).await;
    let builder = RedisBackend::builder().url(&server.url_at(port)).unwrap();
    let backend = builder.response_timeout(LONG).connect().await.unwrap();
    let long = "x".repeat(10 * 1024);
    let parts: [&[u8]; 8] = [
        b"a b",
        b"k\r\n*1\r\n$8\r\nFLUSHALL\r\n",
        b"\0",
        b"\xff\xfe invalid",
        "\u{202e}\u{fc}".as_bytes(),
        b"",
        b"* [a-z]? {x}",
        long.as_bytes(),
    ];
    for part in parts {
        let key = Key::new(&shop(), [part, part]).unwrap();
        store(&backend, &key, "value\r\n*1\r\n").await;
        assert_eq!(read(&backend, &key).await.as_deref(), Some("value\r\n*1\r\n"));
        let found = backend.get_many(&[key.clone(), key.clone()]).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 2);
        backend.touch(&key, Ttl::Forever).await.unwrap();
        assert!(backend.remove(&key, None).await.unwrap());
        backend.begin(&key, LONG).await.unwrap();
        let tag =
            Tag::new(&String::from_utf8_lossy(&[b"t", part].concat()[..part.len().min(99) + 1]));
        backend.invalidate(&shop(), &[tag.unwrap()]).await.unwrap();
    }
    expect_all_work(&backend, &shop()).await;
    expect_all_work(&backend, &Namespace::new(&"n".repeat(32)).unwrap()).await;

    let sent = sent.lock().unwrap().clone();
    let commands: Vec<_> = sent.iter().flat_map(|bytes| commands(bytes)).collect();
    let count = plain_names(&commands);
    assert!(count > 100, "{count} names");
}

// Asserts that all names among these commands are our own text; how many there are.
fn plain_names(commands: &[Vec<Vec<u8>>]) -> usize {
    let names: Vec<_> = commands.iter().flat_map(|words| names(words)).collect();
    for name in &names {
        let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_.:-".contains(c);
        let text = String::from_utf8_lossy(name);
        assert!(name.len() <= 200 && name.iter().all(plain), "{text:?}");
    }
    names.len()
}

// Keys made of what a protocol or a reader of names may stumble over: always the same ones, some of them long.
fn hostile_keys(count: usize) -> Vec<Key> {
    let pieces: [&[u8]; 12] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"\r\n*1\r\n$8\r\nFLUSHALL\r\n",
        b"$-1\r\n",
        b"{x}:",
        b"*?[a-z]",
        b"\xc3",
        b"\xe2\x82",
        "\u{202e}\u{fc}".as_bytes(),
    ];
    let mut random = StdRng::seed_from_u64(31);
    let mut part = || {
        let most = if random.random_ratio(1, 20) { 2000 } else { 12 };
        let length = random.random_range(0..most);
        let mut part = Vec::new();
        for _ in 0..length {
            match random.random() {
                true => part.push(random.random()),
                false => part.extend_from_slice(pieces[random.random_range(0..pieces.len())]),
            }
        }
        part
    };
    let mut keys = BTreeSet::new();
    while keys.len() < count {
        keys.insert(Key::new(&shop(), [b"d".to_vec(), part(), part()]).unwrap());
    }
    keys.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_says_anything_to_the_server_and_each_comes_back_as_itself() {
    let server = RedisServer::start().await;
    let (port, sent) = recorder(server.address()).await;
    let builder = RedisBackend::builder().url(&server.url_at(port)).unwrap();
    let builder = builder.response_timeout(LONG).generation_max_age(LONG);
    let backend = builder.connect().await.unwrap();
    let keys = hostile_keys(300);
    read(&backend, &keys[0]).await;
    let recorded = || -> Vec<_> {
        let sent = sent.lock().unwrap();
        sent.iter().flat_map(|bytes| commands(bytes)).collect()
    };
    let mut raw = raw(&server).await;
    let before = (calls(&mut raw).await, recorded().len());

    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &n.to_string()).await;
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(read(&backend, key).await, Some(n.to_string()));
    }
    let found = backend.get_many(&keys).await.unwrap();
    for (n, entry) in found.iter().enumerate() {
        assert_eq!(entry.as_ref().map(body), Some(n.to_string()));
    }

    // What the server took them for, and what was sent: these, and nothing else. The connection is looked after meanwhile.
    let ours = |calls: BTreeMap<String, u64>| -> BTreeMap<String, u64> {
        calls.into_iter().filter(|(name, _)| !["time", "role"].contains(&&**name)).collect()
    };
    let expected: BTreeMap<String, u64> =
        [("set", 300), ("get", 300), ("mget", 1)].map(|(name, n)| (name.to_owned(), n)).into();
    assert_eq!(ours(called(&before.0, &calls(&mut raw).await)), expected);
    let commands = recorded().split_off(before.1);
    let mut counts = BTreeMap::new();
    for words in &commands {
        let verb = String::from_utf8_lossy(&words[0]).to_lowercase();
        *counts.entry(verb).or_insert(0) += 1;
    }
    assert_eq!(ours(counts), expected);
    assert_eq!(plain_names(&commands), 900);

    // The server has each once, and tells it as it is.
    let mut paged = BTreeSet::new();
    let mut from = None;
    loop {
        let page = backend.page(&Prefix::new(&shop()).part("d"), from, 100).await.unwrap();
        paged.extend(page.keys);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert!(paged.iter().eq(&keys), "{} keys are paged", paged.len());
    assert_eq!(ask::<u64>(&mut raw, &[b"DBSIZE"]).await, 301, "the generation is the other one");
    assert_eq!(backend.remove_many(&keys).await.unwrap(), 300);
    assert_eq!(ask::<u64>(&mut raw, &[b"DBSIZE"]).await, 1);
}
