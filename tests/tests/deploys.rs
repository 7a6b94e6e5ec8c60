//! A deployment that rolls: programs whose stored records have different formats, side by side on one server.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_cache::{Cache, Options};
use larder_core::{Backend, Key, Prefix};
use larder_redis::RedisBackend;
use larder_redis::redis::AsyncCommands;
use larder_redis::redis::aio::MultiplexedConnection;
use larder_testkit::servers::RedisServer;

const PATIENCE: Duration = Duration::from_secs(120);

// Where an envelope says which format it has, and the next one.
const VERSION: (usize, u8) = (4, 2);

const KEYS: usize = 20;

/// A program whose records are of the next format: it writes them over whatever lies there, and knows of no others.
#[derive(Clone)]
struct Newer {
    connection: MultiplexedConnection,
    // What lies under which name, once it has written.
    records: Arc<HashMap<usize, (String, Vec<u8>)>>,
}

impl Newer {
    // Its records hold what nobody of ours computes: who reads one in spite of its format shows it.
    async fn beside(cache: &Cache, backend: &RedisBackend) -> Self {
        for n in 0..KEYS {
            cache.set(("product", n), "of the newer format".to_owned()).await.unwrap();
        }
        let prefix = Prefix::new(cache.store().namespace());
        let keys: Vec<Key> = backend.page(&prefix, None, 1000).await.unwrap().keys;
        let mut connection = backend.connection(&keys[0]).await.unwrap();
        let mut records = HashMap::new();
        for key in keys {
            let name = backend.place(&key).await.unwrap();
            let mut record: Vec<u8> = connection.get(&name).await.unwrap();
            assert_eq!(std::mem::replace(&mut record[VERSION.0], VERSION.1), 1);
            let number = key.as_ref().parts().last().flatten().expect("the product's number");
            let number = String::from_utf8(number.to_vec()).unwrap().parse().unwrap();
            records.insert(number, (name, record));
        }
        assert_eq!(records.len(), KEYS);
        Newer { connection, records: Arc::new(records) }
    }

    async fn writes(&mut self, n: usize) {
        let (name, record) = &self.records[&n];
        let () = self.connection.set(name, record).await.unwrap();
    }
}

/// The same as every instance of the older program computes it.
fn right(n: usize) -> String {
    format!("product {n}")
}

async fn ask(cache: &Cache, n: usize, computed: &Arc<AtomicUsize>) {
    let options = Options::ttl(Duration::from_secs(3600)).wait(PATIENCE);
    let computed = computed.clone();
    let compute = move || async move {
        computed.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(right(n))
    };
    let value = cache.get_or_compute(("product", n), options, compute).await;
    assert_eq!(*value.expect("another format is no error"), right(n));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k09_ten_thousand_requests_while_another_format_is_written_over_theirs() {
    let server = RedisServer::start().await;
    let builder = RedisBackend::builder().url(&server.url()).unwrap();
    let backend = builder.response_timeout(PATIENCE).connect().await.unwrap();
    let cache = Cache::builder(backend.clone()).read_budget(PATIENCE).write_budget(PATIENCE);
    let cache = cache.build().strict();
    let newer = Newer::beside(&cache, &backend).await;

    // Each of eight instances meets the newer one's record before every second request, and the others' in between.
    let computed = Arc::new(AtomicUsize::new(0));
    let instances: Vec<_> = (0..8)
        .map(|first| {
            let (cache, computed, mut newer) = (cache.clone(), computed.clone(), newer.clone());
            tokio::spawn(async move {
                for request in 0..1250 {
                    let n = (first * 7 + request / 2) % KEYS;
                    if request % 2 == 0 {
                        newer.writes(n).await;
                    }
                    ask(&cache, n, &computed).await;
                }
            })
        })
        .collect();
    for instance in instances {
        instance.await.unwrap();
    }
    let computed_in_all = computed.load(Ordering::Relaxed);
    assert!(computed_in_all > KEYS, "{computed_in_all}: the other format was never met");

    // And it does not go on for ever: what was met once is written over, and then a hit.
    let mut newer = newer;
    for n in 0..KEYS {
        newer.writes(n).await;
        let computed = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            ask(&cache, n, &computed).await;
        }
        assert_eq!(computed.load(Ordering::Relaxed), 1, "product {n}");
    }
}
