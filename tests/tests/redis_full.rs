//! A Redis that is full and may not evict: caches go on without it, sessions say so.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get as route;
use larder_cache::{Cache, Options};
use larder_core::ErrorKind;
use larder_http::CacheLayer;
use larder_redis::RedisBackend;
use larder_session::{Session, SessionLayer};
use larder_testkit::servers::RedisServer;
use tower::ServiceExt;

const LONG: Duration = Duration::from_secs(120);

async fn cache(url: &str, namespace: &str) -> Cache {
    let builder = RedisBackend::builder().url(url).unwrap().response_timeout(LONG);
    let backend = builder.connect().await.unwrap();
    let builder = Cache::builder(backend).namespace(namespace).unwrap();
    builder.read_budget(LONG).write_budget(LONG).build()
}

async fn set_limit(server: &RedisServer, bytes: &str) {
    let reply = server.command(&["CONFIG", "SET", "maxmemory", bytes]).await.unwrap();
    assert_eq!(reply, b"+OK\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k13_a_full_server_is_swallowed_by_caches_and_told_by_sessions() {
    let server = RedisServer::options().max_memory("64mb", "noeviction").start().await;
    let url = server.url();
    let (data, store) = (cache(&url, "shop").await, cache(&url, "people").await);
    let pages = cache(&url, "pages").await;
    data.set("old", 1).await.unwrap();

    let made = Arc::new(AtomicUsize::new(0));
    let making = made.clone();
    let page = move || {
        let making = making.clone();
        async move { format!("page {}", making.fetch_add(1, Ordering::Relaxed)) }
    };
    let visit = |session: Session| async move { session.insert("user", &7).await };
    let app = Router::new()
        .route("/page", route(page).layer(CacheLayer::new(&pages).ttl(LONG)))
        .route("/visit", route(visit).layer(SessionLayer::new(&store).evictable()));
    let get = async |path: &str| {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    assert_eq!(get("/visit").await.status(), 200);

    set_limit(&server, "1").await;
    assert_eq!(data.get::<i32>("old").await.unwrap().as_deref(), Some(&1), "what is there is read");
    // Data: what is computed is never lost to a store that cannot keep it.
    for round in 0..3 {
        let load = move || async move { Ok::<_, std::io::Error>(round) };
        let value = data.get_or_compute("new", Options::ttl(LONG), load).await.unwrap();
        assert_eq!(*value, round, "each time anew");
    }
    // Responses: made each time.
    for _ in 0..3 {
        assert_eq!(get("/page").await.status(), 200);
    }
    assert_eq!(made.load(Ordering::Relaxed), 3);
    // Sessions: the visitor must not believe to be signed in.
    let refused = get("/visit").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().get("set-cookie").is_none());

    // Who asks the store itself is told what to do.
    let strict = RedisBackend::connect(&url).await.unwrap();
    let key = larder_core::Key::new(&larder_core::Namespace::new("shop").unwrap(), ["k"]).unwrap();
    let put = larder_core::Backend::put(
        &strict,
        &key,
        larder_core::Entry::integer(1),
        LONG.into(),
        larder_core::When::Absent,
    );
    let error = put.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("maxmemory"), "{error}");

    set_limit(&server, "0").await;
    assert_eq!(get("/visit").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_exact_refuses_a_store_that_reads_replicas() {
    let server = RedisServer::start().await;
    let url = format!("{}?namespace=shop&read=replica", server.url());
    let cache = Cache::connect(&url).await.unwrap();
    let refused = std::panic::catch_unwind(AssertUnwindSafe(|| SessionLayer::new(&cache)));
    let words = *refused.expect_err("sessions are exact").downcast::<String>().unwrap();
    assert!(words.contains("read=replica"), "{words}");
    for whole in ["tiered:memory://|URL", "migrating:memory://|URL", "writethrough:memory://|URL"] {
        let refused = Cache::connect(&whole.replace("URL", &url)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Configuration, "{whole}");
        assert!(refused.to_string().contains("read=primary"), "{whole}: {refused}");
    }
    // What is moved to, and what has copies, may be: where reads may be behind, the whole of it says so.
    for whole in ["migrating:URL|memory://", "writethrough:URL|memory://"] {
        let cache = Cache::connect(&whole.replace("URL", &url)).await.unwrap();
        assert!(!cache.store().abilities().read_delay.is_zero(), "{whole}");
    }
}
