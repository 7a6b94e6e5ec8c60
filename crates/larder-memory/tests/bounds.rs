//! The ceilings that are this store's own: bytes, and the keys of one page.

use larder_core::{Backend, Encoded, Entry, Key, Namespace, Prefix, Ttl, When};
use larder_memory::MemoryBackend;

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn entry(bytes: usize) -> Entry {
    Entry::wire(Encoded { body: vec![7; bytes].into(), ..Encoded::default() })
}

#[tokio::test]
async fn a_flood_of_entries_stays_within_the_bytes() {
    let memory = MemoryBackend::builder().max_bytes(1 << 20).build().unwrap();
    for n in 0..20_000_u32 {
        // Small and large in turn: what counts is their sum, not their number.
        let key = Key::new(&shop(), [n.to_be_bytes()]).unwrap();
        let size = if n % 10 == 0 { 8192 } else { 16 };
        let _ = memory.put(&key, entry(size), Ttl::Forever, When::Always).await.unwrap();
    }
    let usage = memory.usage();
    assert!(usage.bytes <= 1 << 20, "{usage:?}");
    assert!(usage.bytes > 1 << 19, "the room is used: {usage:?}");
    assert!(usage.evictions > 10_000, "{usage:?}");
}

#[tokio::test]
async fn a_page_holds_no_more_than_was_asked_for() {
    let memory = MemoryBackend::default();
    for n in 0..500_u32 {
        let key = Key::new(&shop(), ["page", &n.to_string()]).unwrap();
        let _ = memory.put(&key, entry(1), Ttl::Forever, When::Always).await.unwrap();
    }
    let prefix = Prefix::new(&shop()).part("page");
    for (limit, pages) in [(1, 500), (7, 72), (500, 2), (1000, 1), (0, 500)] {
        let (mut keys, mut from, mut asked) = (Vec::new(), None, 0);
        loop {
            let page = memory.page(&prefix, from, limit).await.unwrap();
            assert!(page.keys.len() <= limit.max(1));
            keys.extend(page.keys);
            asked += 1;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), all), (500, 500), "each key once, in pages of {limit}");
        assert!(asked <= pages + 1, "{asked} pages of {limit}");
    }
}
