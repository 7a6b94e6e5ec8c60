//! A small record on a real server that would become very large: a miss, and nobody makes the room that it asks for.

use larder_cache::{Compression, Packed, Packing};
use larder_core::{Backend, Encoded, Entry, Key, Namespace, Outcome, Ttl, When};
use larder_memcached::MemcachedBackend;
use larder_redis::RedisBackend;
use larder_testkit::servers::{MemcachedServer, RedisServer};
use tokio::runtime::Runtime;

const BOMB: usize = 64 << 20;
const CEILING: usize = 1 << 20;

fn is_a_miss_that_costs_little<B: Backend + Clone>(runtime: &Runtime, store: &B) {
    let key = Key::new(&Namespace::new("shop").unwrap(), ["bomb"]).unwrap();
    for compression in [Compression::Zstd, Compression::Lz4] {
        let open = |packing: Packing| {
            Packed::new(store.clone(), packing.compress(compression)).expect("a packing")
        };
        // As somebody makes it who keeps to no limit.
        let careless = open(Packing::new().max_ratio(1 << 30).max_unpacked(BOMB));
        let body = vec![b'x'; BOMB].into();
        let bomb = Entry::wire(Encoded { codec: 77, body, ..Encoded::default() });
        let put = careless.put(&key, bomb, Ttl::Forever, When::Always);
        assert_eq!(runtime.block_on(put).unwrap(), Outcome::Stored);
        let whole = runtime.block_on(careless.get(&key, &[])).unwrap().entry.unwrap();
        assert_eq!(whole.encoded().unwrap().body.len(), BOMB, "it is a bomb");
        drop(whole);

        for packing in [Packing::new().max_unpacked(CEILING), Packing::new().max_ratio(2)] {
            let store = open(packing);
            let mut found = None;
            let cost = allocation_counter::measure(|| {
                found = Some(runtime.block_on(store.get(&key, &[])).unwrap().entry);
            });
            assert!(found.unwrap().is_none(), "{compression:?}: a bomb is a miss");
            assert_eq!(store.unreadable(), 1, "{compression:?}: and counted");
            // What came over the wire once or twice, and what grows up to the ceiling.
            let most = 4 * CEILING as u64;
            assert!(cost.bytes_max < most, "{compression:?}: {} bytes at a time", cost.bytes_max);
        }
    }
}

// One thread, so that all that is taken is counted.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn k07_a_bomb_on_a_real_redis_is_a_miss_in_bounded_memory() {
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::start());
    let builder = RedisBackend::builder().url(&server.url()).unwrap();
    let builder = builder.response_timeout(std::time::Duration::from_secs(60));
    let store = runtime.block_on(builder.connect()).unwrap();
    is_a_miss_that_costs_little(&runtime, &store);
}

#[test]
fn k07_a_bomb_on_a_real_memcached_is_a_miss_in_bounded_memory() {
    let runtime = runtime();
    let server = runtime.block_on(MemcachedServer::start());
    let builder = MemcachedBackend::builder().url(&server.url()).unwrap();
    let builder = builder.response_timeout(std::time::Duration::from_secs(60));
    let store = runtime.block_on(builder.connect()).unwrap();
    is_a_miss_that_costs_little(&runtime, &store);
}
