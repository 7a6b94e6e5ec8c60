//! What goes over the wire: a recorder between backend and server.

use common::{LONG, expect_all_work, read, shop, store};
use larder_core::{Backend, Key, Namespace, Tag, Ttl};
use larder_redis::RedisBackend;
use larder_testkit::servers::{RedisServer, recorder};

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
    let mut count = 0;
    for name in commands.iter().flat_map(|words| names(words)) {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_.:-".contains(&c);
        let text = String::from_utf8_lossy(name);
        assert!(name.len() <= 200 && name.iter().all(|c| plain(*c)), "{text:?}");
        count += 1;
    }
    assert!(count > 100, "{count} names");
}
