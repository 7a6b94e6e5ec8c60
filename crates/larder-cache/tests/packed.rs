//! Values that are compressed, signed or encrypted on their way to a store.
#![cfg(all(feature = "zstd", feature = "lz4", feature = "encryption", feature = "memory"))]

mod common;

use std::time::Duration;

use bytes::Bytes;
use larder_cache::{Cache, Codec, Compression, Keys, Options, Packed, Packing};
use larder_core::{
    Backend, Begin, Clock, Encoded, Entry, ErrorKind, Key, Namespace, Outcome, Payload, Put,
    Revision, Ttl, When,
};
use larder_testkit::reference::Reference;

const NEW: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
const OLD: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn keys(text: &str) -> Keys {
    Keys::from_hex(text).unwrap()
}

// Everything that a packing can be.
fn packings() -> Vec<Packing> {
    let mut all = Vec::new();
    for compression in [Compression::Zstd, Compression::Lz4] {
        let squeezed = || Packing::new().compress(compression).compress_above(100);
        all.extend([squeezed(), squeezed().sign(keys(NEW)), squeezed().encrypt(keys(NEW))]);
    }
    all.extend([Packing::new().sign(keys(NEW)), Packing::new().encrypt(keys(NEW))]);
    all
}

mod conformance {
    use larder_testkit::{Harness, Sizes};

    use super::*;

    fn packed(store: &Reference, packing: &Packing) -> Packed<Reference> {
        Packed::new(store.clone(), packing.clone()).unwrap()
    }

    async fn harness(packing: Packing) -> Harness<Packed<Reference>> {
        let (clock, hands) = Clock::manual();
        let store = Reference::new(clock).with_max_bytes(100_000);
        let second = store.clone();
        let sizes = Sizes { races: 500, drops: 4000 };
        let harness = Harness::new(packed(&store, &packing)).with_hands(hands).with_sizes(sizes);
        harness.with_second(move || {
            let node = packed(&second, &packing);
            async move { node }
        })
    }

    mod compressed {
        use super::*;
        larder_testkit::conformance!(harness(
            Packing::new().compress(Compression::Lz4).compress_above(0)
        ));
    }

    mod encrypted {
        use super::*;
        larder_testkit::conformance!(harness(Packing::new().encrypt(keys(NEW))));
    }
}

fn key(name: &str) -> Key {
    Key::new(&Namespace::new("shop").unwrap(), [name]).unwrap()
}

fn entry(head: &'static str, body: impl Into<Bytes>) -> Entry {
    Entry::wire(Encoded { codec: 77, head: head.into(), body: body.into() })
}

async fn put<B: Backend>(store: &B, name: &str, entry: Entry) {
    let outcome = store.put(&key(name), entry, Ttl::Forever, When::Always).await.unwrap();
    assert_eq!(outcome, Outcome::Stored);
}

async fn get<B: Backend>(store: &B, name: &str) -> Option<Entry> {
    store.get(&key(name), &[]).await.unwrap().entry
}

fn text() -> String {
    "all work and no play ".repeat(500)
}

#[tokio::test]
async fn every_packing_gives_back_what_it_was_given() {
    let store = Reference::new(Clock::system());
    for packing in packings() {
        let packed = Packed::new(store.clone(), packing.clone()).unwrap();
        for (head, body) in
            [("", String::new()), ("h", String::new()), ("head", text()), ("", "b".into())]
        {
            put(&packed, "a", entry(head, body.clone())).await;
            let found = get(&packed, "a").await.expect("it is there");
            let expected = Encoded { codec: 77, head: head.into(), body: body.into() };
            assert_eq!(found.encoded().unwrap(), expected, "{packing:?}");
        }
        assert_eq!(packed.unreadable(), 0);
        // Integers with something beside them come back as such, and are no counters.
        put(&packed, "n", Entry::integer(-7).fresh_for(Duration::from_secs(9))).await;
        assert!(matches!(get(&packed, "n").await.unwrap().payload(), Payload::Integer(-7)));
    }
}

#[tokio::test]
async fn what_is_stored_is_small_and_secret() {
    let store = Reference::new(Clock::system());
    for packing in packings() {
        let packed = Packed::new(store.clone(), packing.clone()).unwrap();
        put(&packed, "a", entry("secret head", text())).await;
        let stored = get(&store, "a").await.unwrap().encoded().unwrap();
        let words = format!("{packing:?}");
        assert_eq!(
            stored.body.len() < 1000,
            words.contains("Some(Zstd)") || words.contains("Some(Lz4)")
        );
        let all = [&stored.head[..], &stored.body[..]].concat();
        let shows = |part: &str| all.windows(part.len()).any(|window| window == part.as_bytes());
        let encrypted = words.contains("Encrypted");
        assert_eq!(shows("secret head"), !encrypted, "{words}");
        assert!(!(encrypted && shows("all work")), "{words}");
        assert!(!words.contains("a1b2") && words.contains("compression"), "{words}");
    }
}

// K08. Another key's value, a changed byte, a value of another time: misses, and counted.
#[tokio::test]
async fn k08_what_was_planted_is_a_miss() {
    for packing in packings().into_iter().filter(|packing| format!("{packing:?}").contains("Keys"))
    {
        let store = Reference::new(Clock::system());
        let packed = Packed::new(store.clone(), packing.clone()).unwrap();
        put(&packed, "a", entry("head", text())).await;
        let stored = get(&store, "a").await.unwrap();
        let encoded = stored.encoded().unwrap();
        let plant = async |entry: Entry, what: &str| {
            let before = packed.unreadable();
            put(&store, "b", entry).await;
            assert!(get(&packed, "b").await.is_none(), "{packing:?}: {what}");
            let many = packed.get_many(&[key("a"), key("b")]).await.unwrap();
            assert!(matches!(&many[..], [Some(_), None]), "{packing:?}: {what}");
            assert_eq!(packed.unreadable(), before + 2, "{what}");
        };
        plant(stored.clone(), "another key's").await;
        plant(entry("head", text()), "not sealed at all").await;
        plant(Entry::integer(5).fresh_for(Duration::from_secs(60)), "an integer in an envelope")
            .await;
        // Under its own key, with a byte of it changed.
        let flip = |bytes: &Bytes, at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            Bytes::from(bytes)
        };
        let spots = |length: usize| (0..length).step_by(length / 60 + 1);
        for at in spots(encoded.head.len()) {
            let changed = Encoded { head: flip(&encoded.head, at), ..encoded.clone() };
            put(&store, "a", Entry::wire(changed).with_revision(stored.revision())).await;
            assert!(get(&packed, "a").await.is_none(), "{packing:?}: byte {at} of the head");
        }
        for at in spots(encoded.body.len()) {
            let changed = Encoded { body: flip(&encoded.body, at), ..encoded.clone() };
            put(&store, "a", Entry::wire(changed).with_revision(stored.revision())).await;
            assert!(get(&packed, "a").await.is_none(), "{packing:?}: byte {at} of the body");
        }
        let tag = larder_core::Tag::new("other").unwrap();
        put(&store, "a", stored.clone().with_tags([tag])).await;
        assert!(get(&packed, "a").await.is_none(), "other tags");
        put(&store, "a", stored.clone().with_revision(Revision::random())).await;
        assert!(get(&packed, "a").await.is_none(), "another revision");
        put(&store, "a", stored).await;
        assert!(get(&packed, "a").await.is_some(), "and as it was it is read");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_filled_and_written_over() {
    let store = Reference::new(Clock::system());
    let packed = Packed::new(store.clone(), Packing::new().encrypt(keys(NEW))).unwrap();
    put(&store, "a", entry("", "planted")).await;
    let Begin::Token(token) = packed.begin(&key("a"), Duration::from_secs(9)).await.unwrap() else {
        panic!("nothing that can be read is there")
    };
    let filled = packed.put(&key("a"), entry("", "good"), Ttl::Forever, When::Token(token)).await;
    assert_eq!(filled.unwrap(), Outcome::Stored);
    put(&store, "b", entry("", "planted")).await;
    let added = packed.put(&key("b"), entry("", "good"), Ttl::Forever, When::Absent).await;
    assert_eq!(added.unwrap(), Outcome::Stored);
    let again = packed.put(&key("b"), entry("", "late"), Ttl::Forever, When::Absent).await;
    assert_eq!(again.unwrap(), Outcome::Refused, "what can be read stays");
    assert_eq!(get(&packed, "b").await.unwrap().encoded().unwrap().body, "good");
}

#[tokio::test]
async fn keys_change_without_a_miss() {
    let store = Reference::new(Clock::system());
    let with = |text: &str| Packed::new(store.clone(), Packing::new().encrypt(keys(text))).unwrap();
    put(&with(OLD), "a", entry("", "old")).await;
    let both = with(&format!("{NEW}, {OLD}"));
    assert!(get(&both, "a").await.is_some(), "the old key still opens");
    put(&both, "b", entry("", "new")).await;
    assert!(get(&with(NEW), "b").await.is_some(), "the first key seals");
    assert!(get(&with(OLD), "b").await.is_none(), "and no other one");
    assert!(get(&with(NEW), "a").await.is_none(), "a key that was taken out opens nothing");
}

#[tokio::test]
async fn k07_a_stored_bomb_is_a_miss() {
    let store = Reference::new(Clock::system());
    for compression in [Compression::Zstd, Compression::Lz4] {
        let open =
            |packing: Packing| Packed::new(store.clone(), packing.compress(compression)).unwrap();
        let body = vec![b'x'; 4 << 20];
        put(&open(Packing::new().max_ratio(1 << 30)), "a", entry("", body)).await;
        let stored = get(&store, "a").await.unwrap().encoded().unwrap();
        assert!(stored.body.len() < 100_000);
        for small in [Packing::new().max_unpacked(1 << 20), Packing::new().max_ratio(20)] {
            let packed = open(small);
            assert!(get(&packed, "a").await.is_none(), "{compression:?}");
            assert_eq!(packed.unreadable(), 1);
        }
        // What would be taken for a bomb is stored as it is.
        let packed = open(Packing::new().max_ratio(20));
        put(&packed, "a", entry("", vec![b'x'; 100_000])).await;
        assert_eq!(get(&store, "a").await.unwrap().encoded().unwrap().body.len(), 100_000);
        let error = open(Packing::new().max_unpacked(1000));
        put(&error, "a", entry("", "small")).await;
        let (key, large) = (key("a"), entry("", vec![b'x'; 2000]));
        let refused = error.put(&key, large, Ttl::Forever, When::Always).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(get(&error, "a").await.is_none(), "what was to be replaced is gone");
    }
}

#[tokio::test]
async fn counters_count_whatever_the_packing() {
    for packing in packings() {
        let packed = Packed::new(Reference::new(Clock::system()), packing).unwrap();
        let cache = Cache::new(packed);
        cache.set("n", 40_i64).await.unwrap();
        assert_eq!(cache.incr("n", 2).await.unwrap(), Some(42));
        cache
            .set_with("tagged", 40_i64, Options::ttl(Duration::from_secs(60)).tag("t"))
            .await
            .unwrap();
        assert_eq!(cache.get::<i64>("tagged").await.unwrap().as_deref(), Some(&40));
        assert_eq!(cache.incr("tagged", 1).await.unwrap_err().kind(), ErrorKind::NotAnInteger);
        cache.invalidate_tag("t").await.unwrap();
        assert!(cache.get::<i64>("tagged").await.unwrap().is_none());
    }
}

// 16 and the promise of values near: what is in memory before a packed store is unpacked once.
#[tokio::test]
async fn what_is_near_is_not_unpacked_again() {
    let clock = Clock::system();
    let store = larder_testkit::faulty::Faulty::new(Reference::new(clock));
    let packing = Packing::new().compress(Compression::Zstd).encrypt(keys(NEW));
    let packed = Packed::new(store, packing).unwrap();
    let near = larder_cache::Tiered::builder(packed.clone()).ceiling(Duration::from_secs(60));
    let cache = Cache::new(near.without_bus().unwrap());
    cache.set("a", text()).await.unwrap();
    let mut first = cache.get::<String>("a").await.unwrap().unwrap();
    // With the second reading it is near in the form that its readers share.
    first = cache.get::<String>("a").await.unwrap().unwrap_or(first);
    let asked = packed.store().faults().total();
    let second = cache.get::<String>("a").await.unwrap().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_eq!(packed.store().faults().total(), asked);
}

#[tokio::test]
async fn every_codec_reads_what_every_other_wrote() {
    let store = Reference::new(Clock::system());
    let packed = Packed::new(store, Packing::new().encrypt(keys(NEW))).unwrap();
    let value = (vec![1_u32, 2, 3], Some("four".to_owned()), 'z', -0.5_f64);
    for codec in [Codec::MessagePack, Codec::Json, Codec::Postcard] {
        let cache = Cache::builder(packed.clone()).codec(codec).build();
        cache.set("a", value.clone()).await.unwrap();
        for reader in [Codec::MessagePack, Codec::Json, Codec::Postcard] {
            let cache = Cache::builder(packed.clone()).codec(reader).build();
            let found = cache.get::<(Vec<u32>, Option<String>, char, f64)>("a").await.unwrap();
            assert_eq!(found.as_deref(), Some(&value), "{codec:?} read by {reader:?}");
            let other = cache.get::<std::collections::BTreeMap<String, u8>>("a").await.unwrap();
            assert!(other.is_none(), "{codec:?}: a value of another type is a miss");
        }
    }
}

#[test]
fn wrong_settings_say_what_to_change() {
    let open = |packing| Packed::new(Reference::new(Clock::system()), packing);
    for (packing, words) in [
        (Packing::new(), "compress, sign or encrypt"),
        (Packing::new().compress(Compression::Lz4).max_unpacked(0), "max_unpacked"),
        (Packing::new().sign(keys(NEW)).max_ratio(0), "max_ratio"),
    ] {
        let error = open(packing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(words), "{error}");
    }
    for (text, words) in [
        ("", "64 hexadecimal digits"),
        ("canary", "64 hexadecimal digits"),
        (&*"ab".repeat(32), "32 random bytes"),
        (&format!("{NEW},{NEW}"), "named twice"),
        (&format!("{NEW},canary"), "64 hexadecimal digits"),
    ] {
        let error = Keys::from_hex(text).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[cfg(feature = "file")]
#[tokio::test]
async fn a_url_says_how_values_are_packed() {
    let folder = std::env::temp_dir().join(format!("larder-{:016x}", rand::random::<u64>()));
    let url = |rest: &str| format!("file://{}?namespace=shop{rest}", folder.display());
    let cache = Cache::connect(&url("&compress=zstd&compress_above=64&codec=json")).await.unwrap();
    cache.set("a", text()).await.unwrap();
    assert_eq!(*cache.get::<String>("a").await.unwrap().unwrap(), text());
    let plain = Cache::connect(&url("")).await.unwrap();
    assert!(plain.get::<String>("a").await.unwrap().is_none(), "it is packed, and nobody is told");
    for (rest, words) in [
        ("&compress=brotli", "compress=zstd and compress=lz4"),
        ("&compress_above=1KiB", "belong to compress"),
        ("&encrypt=canary", "a URL holds no keys"),
        ("&keys=canary", "a URL holds no keys"),
        ("&encrypt_env=LARDER_NOT_SET_canary", "is not set"),
        ("&encrypt_env=A&sign_env=B", "take sign_env out"),
        ("&codec=pickle", "messagepack, json and postcard"),
    ] {
        let error = Cache::connect(&url(rest)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let told = format!("{error} {error:?}");
        assert!(told.contains(words) && !told.contains("canary"), "{rest}: {told}");
    }
    let error = Cache::connect("memory://?compress=zstd").await.unwrap_err();
    assert!(error.to_string().contains("as readers use it"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

// As of any other store: what was to take its place is known to be newer.
#[tokio::test]
async fn what_is_too_large_takes_the_old_away_where_the_condition_holds() {
    let store = Reference::new(Clock::system());
    let packing = Packing::new().compress(Compression::Zstd).max_unpacked(4096);
    let packed = Packed::new(store.clone(), packing).unwrap();
    let large =
        || Entry::wire(Encoded { codec: 200, body: vec![b'x'; 8192].into(), ..Encoded::default() });
    let small = || Entry::wire(Encoded { codec: 200, body: "small".into(), ..Encoded::default() });
    let refused = async |name: &str, when| {
        let key = key(name);
        let put = packed.put(&key, large(), Ttl::Forever, when).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::TooLarge, "{name}");
        let many = vec![Put { key, entry: large(), ttl: Ttl::Forever, when }];
        let many = packed.put_many(many).await.unwrap();
        assert_eq!(many[0].as_ref().unwrap_err().kind(), ErrorKind::TooLarge, "{name}");
    };
    for name in ["always", "present", "revision", "other revision"] {
        put(&packed, name, small().with_revision(Revision::from_bytes([7; 16]))).await;
    }
    refused("always", When::Always).await;
    refused("present", When::Present).await;
    refused("revision", When::Revision(Revision::from_bytes([7; 16]))).await;
    refused("other revision", When::Revision(Revision::random())).await;
    for (name, stays) in
        [("always", false), ("present", false), ("revision", false), ("other revision", true)]
    {
        assert_eq!(get(&packed, name).await.is_some(), stays, "{name}");
    }
    // Nobody waits for a fill that will never come.
    let Begin::Token(token) = packed.begin(&key("fill"), Duration::from_secs(60)).await.unwrap()
    else {
        panic!()
    };
    refused("fill", When::Token(token)).await;
    assert!(matches!(
        packed.begin(&key("fill"), Duration::from_secs(60)).await.unwrap(),
        Begin::Token(_)
    ));
}
