//! The ceilings that are this store's own: bytes, and the keys of one page.

use std::time::{Duration, Instant};

use larder_core::{Backend, Clock, Encoded, Entry, ErrorKind, Key, Namespace, Prefix, Ttl, When};
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
async fn what_has_ended_is_freed_when_as_much_was_put_as_there_is() {
    let (clock, hands) = Clock::manual();
    let memory = MemoryBackend::builder().clock(clock).build().unwrap();
    let put = async |from: u32, count: u32, ttl| {
        for n in from..from + count {
            let key = Key::new(&shop(), [n.to_be_bytes()]).unwrap();
            let _ = memory.put(&key, entry(16), ttl, When::Always).await.unwrap();
        }
    };
    // A small map, swept in place, and a large one, swept in a thread.
    let mut live = 0;
    for (from, many) in [(0, 900), (1_000_000, 20_000)] {
        put(from, many, Ttl::For(Duration::from_secs(1))).await;
        hands.advance(Duration::from_secs(2));
        put(from + many, 2 * many + 4000, Ttl::For(Duration::from_secs(1_000_000))).await;
        live += u64::from(2 * many + 4000);
        let patience = Instant::now() + Duration::from_secs(60);
        while memory.usage().entries > live && Instant::now() < patience {
            tokio::task::yield_now().await;
        }
        assert_eq!((memory.usage().entries, memory.usage().evictions), (live, 0));
    }
}

#[tokio::test]
async fn the_heaviest_entry_that_may_be_put_is_kept_also_in_a_full_store() {
    for (max_bytes, max_entry) in [(64 << 20, None), (1 << 20, None), (3 << 20, Some(1 << 20))] {
        let builder = MemoryBackend::builder().max_bytes(max_bytes);
        let memory = match max_entry {
            Some(bytes) => builder.max_entry_bytes(bytes),
            None => builder,
        };
        let memory = memory.build().unwrap();
        let largest = memory.abilities().max_bytes.unwrap() as usize;
        for n in 0..3 * max_bytes / 100_000 {
            let key = Key::new(&shop(), ["small", &n.to_string()]).unwrap();
            let _ = memory.put(&key, entry(50_000), Ttl::Forever, When::Always).await;
        }
        for n in 0..10 {
            let key = Key::new(&shop(), ["large", &n.to_string()]).unwrap();
            let size = largest - key.as_ref().as_bytes().len();
            let _ = memory.put(&key, entry(size), Ttl::Forever, When::Always).await.unwrap();
            assert!(memory.get(&key, &[]).await.unwrap().entry.is_some(), "{max_bytes}: {n}");
            assert!(memory.usage().bytes <= max_bytes);
            let error = memory.put(&key, entry(size + 1), Ttl::Forever, When::Always).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::TooLarge);
            assert!(memory.get(&key, &[]).await.unwrap().entry.is_none());
        }
    }
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
