//! The client's own backend behind a cache that a URL made, through everything that stands before it.
#![cfg(all(
    feature = "memory",
    feature = "redis",
    feature = "file",
    feature = "sqlite",
    feature = "zstd"
))]

use larder_cache::{Cache, NullBackend};
use larder_core::{Backend, Key, Prefix};
use larder_file::FileBackend;
use larder_memory::MemoryBackend;
use larder_redis::{RedisBackend, redis};
use larder_sql::SqliteBackend;
use larder_testkit::servers::RedisServer;

// What stands before a store, and whether what is set lies there then. Copies come with a read, what is moved away from
// gets nothing, and a failover asks whom it likes: it has little patience with a busy machine.
const WORDS: &[(&str, bool)] = &[
    ("URL", true),
    ("URL&compress=zstd", true),
    ("tiered:memory://?ceiling=1s|URL", true),
    ("tiered:memory://?ceiling=1s|URL&compress=zstd", true),
    ("failover:URL|memory://", false),
    ("failover:memory://|URL", false),
    ("writethrough:memory://|URL", true),
    ("writethrough:URL|memory://", false),
    ("migrating:URL|memory://", true),
    ("migrating:memory://|URL", false),
    ("tiered:memory://?ceiling=1s|failover:URL&compress=zstd|memory://", false),
    ("writethrough:null://|migrating:URL&compress=zstd|memory://", true),
];

fn reached<'a, B: Backend>(cache: &'a Cache, words: &str) -> &'a B {
    let store = cache.store();
    assert_eq!(store.backend::<NullBackend>().is_some(), words.contains("null://"), "{words}");
    // What is near is no store of its own.
    let memory = words.replace("tiered:memory://", "").contains("memory://");
    assert_eq!(store.backend::<MemoryBackend>().is_some(), memory, "{words}");
    store.backend().unwrap_or_else(|| panic!("{words}: it is not reached"))
}

/// The key of what is set through the cache, as the backend itself finds it.
async fn set<B: Backend>(cache: &Cache, backend: &B, words: &str) -> Key {
    cache.strict().set("a", "hello".to_owned()).await.unwrap_or_else(|e| panic!("{words}: {e}"));
    let page = backend.page(&Prefix::new(cache.store().namespace()), None, 10).await.unwrap();
    assert_eq!(page.keys.len(), 1, "{words}");
    page.keys.into_iter().next().expect("one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_backend_is_reached_through_whatever_stands_before_it() {
    let server = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    for (n, (words, is_there)) in WORDS.iter().enumerate() {
        let patient = format!("namespace=n{n}&read_budget=60s&write_budget=60s");
        let connect = async |url: String| {
            let connected = Cache::connect(&words.replace("URL", &url)).await;
            connected.unwrap_or_else(|error| panic!("{words}: {error}"))
        };

        let cache = connect(format!("{}/0?{patient}&response_timeout=60s", server.url())).await;
        let backend = reached::<RedisBackend>(&cache, words);
        if *is_there {
            let key = set(&cache, backend, words).await;
            let mut connection = backend.connection(&key).await.unwrap();
            let mut exists = redis::cmd("EXISTS");
            exists.arg(backend.place(&key).await.unwrap());
            let count: u64 = exists.query_async(&mut connection).await.unwrap();
            assert_eq!(count, 1, "{words}");
        }

        let cache = connect(format!("file://{}/{n}?{patient}", folder.path().display())).await;
        let backend = reached::<FileBackend>(&cache, words);
        if *is_there {
            let key = set(&cache, backend, words).await;
            let place = backend.place(&key).await.unwrap().expect("something was written");
            assert!(place.is_file() && place.starts_with(folder.path()), "{words}: {place:?}");
        }

        let path = folder.path().join(format!("{n}.db"));
        let url = format!("sqlite://{}?{patient}&busy_timeout=60s", path.display());
        let cache = connect(url).await;
        let backend = reached::<SqliteBackend>(&cache, words);
        if *is_there {
            set(&cache, backend, words).await;
            let mut connection = backend.acquire().await.unwrap();
            let count = sqlx::query_scalar("SELECT count(*) FROM larder WHERE kind = 0");
            let count: i64 = count.fetch_one(&mut *connection).await.unwrap();
            assert_eq!(count, 1, "{words}");
        }
    }
}
