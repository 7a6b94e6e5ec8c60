//! What goes over the wire: a recorder between backend and server, and servers that answer what they like.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use common::{LONG, body, builder, every_verb, expect_all_work, key, read, shop, store, text};
use larder_core::{Backend, ErrorKind, Key, KeyBuf, Namespace, Outcome, Put, Tag, Ttl, When};
use larder_memcached::MemcachedBackend;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::{MemcachedServer, recorder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod common;

// The commands and names of a recording, with the values left out. Panics where it is no protocol of ours.
fn commands(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line ends");
        let line = std::str::from_utf8(&bytes[..end]).expect("a line is text");
        bytes = &bytes[end + 2..];
        if matches!(line, "version" | "stats settings") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        assert!(["mg", "ms", "md", "ma"].contains(&words[0]), "no command of ours: {line:?}");
        if words[0] == "ms" {
            let length: usize = words[2].parse().expect("a length");
            assert_eq!(&bytes[length..length + 2], b"\r\n", "a value has the length that was said");
            bytes = &bytes[length + 2..];
        }
        assert!(line.ends_with(words.last().unwrap()) && words.last().unwrap().starts_with('O'));
        commands.push((words[0].to_owned(), words[1].to_owned()));
    }
    commands
}

// The same of all connections, without those by which the server's time is asked for meanwhile.
fn recorded(sent: &Mutex<Vec<Vec<u8>>>) -> Vec<(String, String)> {
    let sent = sent.lock().unwrap();
    let all = sent.iter().flat_map(|bytes| commands(bytes));
    all.filter(|(_, name)| name != "larder:clock").collect()
}

// Commands in a row, counted: `3 mg, 1 md`.
fn counted(commands: &[(String, String)]) -> String {
    let same = commands.chunk_by(|(one, _), (other, _)| one == other);
    same.map(|same| format!("{} {}", same.len(), same[0].0)).collect::<Vec<_>>().join(", ")
}

fn expect_plain(names: &[(String, String)]) {
    for (command, name) in names {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_.:-".contains(&c);
        assert!(name.len() <= 200 && name.bytes().all(plain), "{command} {name:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_on_the_wire_are_our_own_text() {
    let server = MemcachedServer::start().await;
    let (port, sent) = recorder(server.address()).await;
    let backend = builder(&server.url_at(port)).connect().await.unwrap();
    let long = "x".repeat(10 * 1024);
    let parts: [&[u8]; 9] = [
        b"a b",
        b"k\r\nflush_all\r\n",
        b"\0",
        b"\xff\xfe invalid",
        b"T0 ME C1",
        "\u{202e}ü".as_bytes(),
        b"",
        b"* [a-z]? {x}",
        long.as_bytes(),
    ];
    for part in parts {
        let key = Key::new(&shop(), [part, part]).unwrap();
        store(&backend, &key, "value\r\nmd nothing\r\n").await;
        assert_eq!(read(&backend, &key).await.as_deref(), Some("value\r\nmd nothing\r\n"));
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
    let namespace = Namespace::new(&"n".repeat(32)).unwrap();
    expect_all_work(&backend, &namespace).await;
    let nested = KeyBuf::new(&namespace).optional(None::<&str>).part("A").key().unwrap();
    store(&backend, &nested, "nested").await;

    let sent = sent.lock().unwrap().clone();
    let commands: Vec<_> = sent.iter().flat_map(|bytes| commands(bytes)).collect();
    assert!(commands.len() > 100, "{} commands", commands.len());
    expect_plain(&commands);
    assert_eq!(server.send(b"mg flushed v\r\n").await.unwrap(), b"EN\r\n");
}

// Keys made of what a protocol or a reader of names may stumble over: always the same ones, some of them long.
fn hostile_keys(count: usize) -> Vec<Key> {
    let pieces: [&[u8]; 12] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"\r\nflush_all\r\n",
        b"\r\nms k 1\r\nv\r\n",
        b" T0 ME C1",
        b"*?[a-z]",
        b"\xc3",
        b"\xe2\x82",
        "\u{202e}ü".as_bytes(),
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

// How many items there are, as the server itself counts them.
async fn items(server: &MemcachedServer) -> u64 {
    let stats = String::from_utf8(server.send(b"stats\r\n").await.unwrap()).unwrap();
    let count = stats.lines().find_map(|line| line.strip_prefix("STAT curr_items "));
    count.expect("it counts them").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_says_anything_to_the_server_and_each_comes_back_as_itself() {
    let server = MemcachedServer::start().await;
    let (port, sent) = recorder(server.address()).await;
    let backend = builder(&server.url_at(port)).generation_max_age(LONG).connect().await.unwrap();
    let keys = hostile_keys(300);
    read(&backend, &keys[0]).await;
    let before = (items(&server).await, recorded(&sent).len());

    for (n, key) in keys.iter().enumerate() {
        store(&backend, key, &n.to_string()).await;
    }
    assert_eq!(items(&server).await, before.0 + 300, "the server has each once");
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(read(&backend, key).await, Some(n.to_string()));
    }
    let found = backend.get_many(&keys).await.unwrap();
    for (n, entry) in found.iter().enumerate() {
        assert_eq!(entry.as_ref().map(body), Some(n.to_string()));
    }
    assert_eq!(backend.remove_many(&keys).await.unwrap(), 300);
    assert_eq!(items(&server).await, before.0);

    let commands = recorded(&sent).split_off(before.1);
    assert_eq!(counted(&commands), "300 ms, 900 mg, 300 md");
    expect_plain(&commands);
    let names: BTreeSet<_> = commands.iter().map(|(_, name)| name).collect();
    assert_eq!(names.len(), 300, "each has a name of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_costs() {
    let server = MemcachedServer::start().await;
    let (port, sent) = recorder(server.address()).await;
    let backend = builder(&server.url_at(port)).generation_max_age(LONG).connect().await.unwrap();
    store(&backend, &key("there"), "there").await;
    let tags = [Tag::new("t").unwrap()];
    backend.marks(&shop(), &tags).await.unwrap();
    let verbs =
        || -> Vec<String> { recorded(&sent).into_iter().map(|(command, _)| command).collect() };
    macro_rules! costs {
        ($expected:literal, $verb:expr) => {{
            let before = verbs().len();
            let _ = $verb.await.unwrap();
            assert_eq!(verbs()[before..].join(" "), $expected, stringify!($verb));
        }};
    }
    let (there, new) = (key("there"), key("new"));
    costs!("mg", backend.get(&there, &[]));
    costs!("mg mg", backend.get(&there, std::slice::from_ref(&new)));
    costs!("ms", backend.put(&there, text("v"), LONG.into(), When::Always));
    costs!("ms", backend.put(&new, text("v"), LONG.into(), When::Absent));
    costs!("mg ms", backend.put(&new, text("v"), LONG.into(), When::Present));
    costs!("mg md", backend.remove(&new, None));
    costs!("mg", backend.remove(&new, None));
    costs!("ms mg", backend.begin(&new, LONG));
    costs!("mg ms", backend.touch(&there, Ttl::Forever));
    costs!("mg", backend.remaining(&there));
    costs!("mg mg", backend.marks(&shop(), &tags));
    costs!("ma mg ms", backend.invalidate(&shop(), &tags));
    costs!("ms", backend.clear(&shop()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_one_round_trip_each_and_removals_two() {
    let server = MemcachedServer::start().await;
    let (port, sent) = recorder(server.address()).await;
    let proxy = FaultProxy::start(format!("127.0.0.1:{port}")).await;
    let builder = builder(&server.url_at(proxy.port())).generation_max_age(LONG);
    let backend = builder.connect().await.unwrap();
    let keys: Vec<Key> = (0..200).map(|n| key(&format!("many {n}"))).collect();
    read(&backend, &keys[0]).await;
    // A long pipeline is one exchange even where the server begins to answer before its end.
    proxy.set(Direction::Replies, Mode::Delay(Duration::from_millis(50)));
    macro_rules! costs {
        ($trips:literal, $commands:literal, $verb:expr) => {{
            let before = (proxy.exchanges(), recorded(&sent).len());
            let done = $verb.await.unwrap();
            let commands = counted(&recorded(&sent)[before.1..]);
            let cost = (proxy.exchanges() - before.0, &*commands);
            assert_eq!(cost, ($trips, $commands), "{}", stringify!($verb));
            done
        }};
    }
    let items = |when| {
        let put = |key: &Key| Put { key: key.clone(), entry: text("v"), ttl: LONG.into(), when };
        keys.iter().map(put).collect::<Vec<_>>()
    };
    for when in [When::Absent, When::Always] {
        let outcomes = costs!(1, "200 ms", backend.put_many(items(when)));
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Stored))));
    }
    assert_eq!(costs!(1, "200 mg", backend.get_many(&keys)).iter().flatten().count(), 200);
    // What is removed must be known first: a marker is no entry.
    assert_eq!(costs!(2, "200 mg, 200 md", backend.remove_many(&keys)), 200);
    assert_eq!(costs!(1, "200 mg", backend.remove_many(&keys)), 0);
    assert!(costs!(0, "", backend.get_many(&[])).is_empty());
    assert!(costs!(0, "", backend.put_many(Vec::new())).is_empty());
    assert_eq!(costs!(0, "", backend.remove_many(&[])), 0);
}

// Greets like a server, tells the time, and answers everything else with the same words, `#` being the number that is
// to be repeated.
async fn scripted(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answering(stream, answer));
        }
    });
    port
}

async fn answering(mut stream: TcpStream, answer: &'static str) -> std::io::Result<()> {
    let mut buffer = vec![0; 65536];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut reply = String::new();
        for line in String::from_utf8_lossy(&buffer[..count]).split("\r\n") {
            let id = line.rsplit_once('O').map_or("", |(_, id)| id);
            match line.split(' ').next().unwrap_or_default() {
                "version" => reply += "VERSION 1.6.18\r\n",
                "stats" => reply += "STAT item_size_max 1048576\r\nEND\r\n",
                _ if line.contains("larder:clock") => reply += &format!("HD t400000000 O{id}\r\n"),
                "mg" | "ms" | "md" | "ma" => reply += &answer.replace('#', id),
                _ => {}
            }
        }
        stream.write_all(reply.as_bytes()).await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_make_no_sense_reach_nobody() {
    for answer in [
        "HD O1\r\n",
        "VA 3 O1\r\nabc\r\n",
        "EN O#\r\nEN O#\r\n",
        "VA 3 O#\r\nabcd\r\n",
        "VALUE k 0 3\r\nabc\r\nEND\r\n",
        "END\r\n",
        "ERROR\r\n",
        "CLIENT_ERROR bad command line format, canary\r\n",
        "HD\r\n",
        "+PONG\r\n",
        "\0\0\0\0\n",
    ] {
        let url = format!("memcached://127.0.0.1:{}", scripted(answer).await);
        let limit = Duration::from_millis(500);
        let backend = builder(&url).response_timeout(limit).connect().await.unwrap();
        for (verb, error) in every_verb(&backend, &shop()).await {
            let error = error.unwrap_or_else(|| panic!("{verb} believed {answer:?}"));
            let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Ambiguous];
            assert!(kinds.contains(&error.kind()), "{verb}, {answer:?}: {error:?}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_server_leave_the_connection_in_step() {
    let url = format!("memcached://127.0.0.1:{}", scripted("SERVER_ERROR canary\r\n").await);
    let backend = builder(&url).connect().await.unwrap();
    for (verb, error) in every_verb(&backend, &shop()).await {
        let error = error.unwrap_or_else(|| panic!("{verb} believed an error"));
        assert!(!format!("{error:?}").contains("canary"), "{verb}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_memcached_is_told_apart() {
    for (greeting, kind) in [
        ("VERSION 1.5.22\r\nSTAT item_size_max 1048576\r\nEND\r\n", ErrorKind::Configuration),
        ("CLIENT_ERROR unauthenticated\r\n", ErrorKind::Configuration),
        ("-ERR unknown command\r\n", ErrorKind::Unavailable),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind::Unavailable),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("memcached://127.0.0.1:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 100];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(greeting.as_bytes()).await;
                let _ = stream.read(&mut buffer).await;
            }
        });
        let error = MemcachedBackend::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{greeting:?}: {error}");
    }
}
