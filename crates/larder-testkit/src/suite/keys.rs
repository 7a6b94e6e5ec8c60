//! Keys of every shape.

use larder_core::{Backend, Entry, Key, KeyBuf, Outcome, When};

use super::steps::{LONG, body, item, text};
use crate::Harness;

// Every key gets a value of its own, one by one and in a batch, and every verb reaches its own.
async fn expect_distinct<B: Backend>(h: &Harness<B>, keys: &[Key]) {
    for (n, key) in keys.iter().enumerate() {
        let outcome = h.put(key, text(format!("value {n}")), LONG, When::Absent).await;
        assert_eq!(outcome, Outcome::Stored, "key {n} collides with an earlier one");
    }
    let found = h.backend().get_many(keys).await.expect("get_many");
    assert_eq!(found.len(), keys.len(), "there is an answer for every key");
    for (n, key) in keys.iter().enumerate() {
        h.expect_body(key, &format!("value {n}"), &format!("key {n} has its own value")).await;
        let value = found[n].as_ref().map(body);
        assert_eq!(value, Some(format!("value {n}")), "get_many finds key {n}");
    }
    for (n, key) in keys.iter().enumerate() {
        assert!(h.touch(key, LONG).await, "key {n} can be touched");
        assert!(h.remove(key).await, "key {n} is there, and no other removal took it");
        h.token(key, LONG).await;
    }
    let items = keys.iter().map(|key| item(key, Entry::integer(0), LONG, When::Always)).collect();
    let outcomes = h.backend().put_many(items).await.expect("put_many");
    assert!(outcomes.iter().all(|o| matches!(o, Ok(Outcome::Stored))), "put_many takes any key");
    for (n, key) in keys.iter().enumerate() {
        let added = h.backend().add(key, n as i64, None).await.expect("add");
        assert_eq!(added, Some(n as i64), "key {n} counts for itself");
    }
    let found = h.backend().get(&h.key("missing"), keys).await.expect("get");
    let expected: Vec<_> = (0..keys.len()).map(|n| Some(n as i64)).collect();
    assert_eq!(found.counters, expected, "every counter is its own key's");
    let removed = h.backend().remove_many(keys).await.expect("remove_many");
    assert_eq!(removed, keys.len() as u64, "remove_many takes any key");
}

fn key<B: Backend, P: AsRef<[u8]>>(h: &Harness<B>, parts: impl IntoIterator<Item = P>) -> Key {
    Key::new(h.namespace(), parts).expect("the key is short")
}

/// Lists of parts that read alike are different keys; absent, empty and literal parts differ.
pub async fn parts_are_framed<B: Backend>(h: &Harness<B>) {
    let mut keys: Vec<Key> = [
        &["p", "ab", "c"][..],
        &["p", "a", "bc"],
        &["p", "abc"],
        &["p", "abc", ""],
        &["p", "", "abc"],
        &["p", "a", "b", "c"],
        &["p", "a:b", "c"],
        &["p", "a", "b:c"],
        &["p", "."],
        &["p", ""],
        &["p", "", ""],
        &["p"],
        &["p", "null"],
        &["p", "None"],
    ]
    .into_iter()
    .map(|parts| key(h, parts))
    .collect();
    let absent = KeyBuf::new(h.namespace()).part("p").optional(None::<&str>);
    keys.push(absent.key().expect("the key is short"));
    keys.push(absent.optional(None::<&str>).key().expect("the key is short"));
    expect_distinct(h, &keys).await;
}

/// Keys up to 64 KiB, also such that differ only in their last byte.
pub async fn long_keys<B: Backend>(h: &Harness<B>) {
    let overhead = key(h, ["long", ""]).as_ref().as_bytes().len();
    let mut keys = Vec::new();
    for length in [200, 249, 250, 251, 1001, 10_000, Key::MAX_BYTES - overhead] {
        for last in ["1", "2"] {
            let part = "x".repeat(length - 1) + last;
            keys.push(key(h, ["long", &part]));
        }
    }
    assert_eq!(keys[13].as_ref().as_bytes().len(), Key::MAX_BYTES, "the last one is the longest");
    expect_distinct(h, &keys).await;
}

/// Any bytes can be a key.
pub async fn binary_keys<B: Backend>(h: &Harness<B>) {
    let all: Vec<u8> = (0..=255).collect();
    let mut keys: Vec<Key> = (0..=255_u8).map(|byte| key(h, [&b"byte"[..], &[byte]])).collect();
    keys.push(key(h, [&b"all"[..], &all]));
    keys.push(key(h, [&b"zeros"[..], &[0; 100]]));
    keys.push(key(h, [&b"zeros"[..], &[0; 101]]));
    expect_distinct(h, &keys).await;
}

/// What means something to a protocol, a pattern, a file system or a query means nothing in a key.
pub async fn injection_is_text<B: Backend>(h: &Harness<B>) {
    let parts = [
        "a b",
        "a  b",
        "a\r\nb",
        "\r\nFLUSHALL\r\n",
        "flush_all\r\n",
        "a\0b",
        "a\0",
        "*",
        "?",
        "[a-z]",
        "a*",
        "..",
        "../../etc/passwd",
        "/",
        "a/b",
        "\\",
        "C:\\x",
        "'; DROP TABLE larder; --",
        "\"",
        "%",
        "_",
        "%00",
        "$1",
        "{tag}",
        "{",
        "}",
        "{}{}",
        "noreply",
        "ü",
        "u\u{308}",
        "A",
        "a",
        "\u{202e}",
        "con",
    ];
    let keys: Vec<Key> = parts.iter().map(|part| key(h, ["inject", part])).collect();
    let bystander = h.other_key("bystander");
    h.store(&bystander, text("still here"), LONG).await;
    expect_distinct(h, &keys).await;
    h.expect_body(&bystander, "still here", "no key harms a bystander").await;
}

/// Keys that a simple scheme of names would confuse: by case, by cut, by the words that Larder uses itself.
pub async fn similar_keys<B: Backend>(h: &Harness<B>) {
    let long = "y".repeat(1000);
    let keys = [
        key(h, ["case", "Product"]),
        key(h, ["case", "product"]),
        key(h, ["case", "PRODUCT"]),
        key(h, ["cut", &format!("{long}a")]),
        key(h, ["cut", &format!("{long}b")]),
        key(h, ["cut", &long]),
        key(h, ["words", "q"]),
        key(h, ["words", "t"]),
        key(h, ["words", "t", "tag"]),
        key(h, ["words", h.namespace().as_str()]),
        key(h, [h.other().as_str(), "words"]),
        key(h, ["number", "1"]),
        key(h, ["number", "01"]),
        key(h, ["number", "1.0"]),
    ];
    expect_distinct(h, &keys).await;
}
