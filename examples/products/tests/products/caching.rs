//! What is answered from the cache, and what a change drops.
//!
//! Each scenario is a function of a service, so that `redis.rs`, `memcached.rs` and `file.rs` run the
//! same ones over other stores.

use http::{Method, Request, StatusCode};
use serde_json::json;

use crate::service::{Service, draft};

/// One test for each scenario. `$store` is made for each and lives as long as its test; `$connect` makes a cache of it.
macro_rules! scenarios {
    ($store:expr, $connect:expr) => {
        $crate::caching::scenarios! { @ $store, $connect;
            the_second_request_is_a_hit
            pages_are_cached_apart
            an_edit_drops_exactly_what_shows_the_product
            an_edit_of_a_text_drops_searches_and_no_other_list
            creating_and_deleting_drop_the_lists
            a_refused_change_drops_nothing
            featured_and_sidebar_follow_every_change
            errors_are_never_cached
            nobody_reads_the_old_after_a_change_was_confirmed
        }
    };
    (@ $store:expr, $connect:expr; $($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let store = $store;
            $crate::caching::$name(&Service::start($connect(&store).await).await).await;
        }
    )*};
}
pub(crate) use scenarios;

mod memory {
    use larder::Cache;

    use crate::service::Service;

    async fn connect((): &()) -> Option<Cache> {
        Some(Cache::memory())
    }

    super::scenarios!((), connect);
}

const PAGES: [&str; 5] = [
    "/api/products/?page=1",
    "/api/products/?page=2",
    "/api/products/?page=3",
    "/api/products/?page=4",
    "/api/products/?page=5",
];

pub(crate) async fn the_second_request_is_a_hit(service: &Service) {
    for path in [
        "/api/products/",
        "/api/products/?page=3",
        "/api/products/42",
        "/api/products/featured",
        "/api/search?q=lamp",
        "/api/search?q=a&page=2",
    ] {
        let first = service.get(path).await;
        assert_eq!(first.status, StatusCode::OK, "{path}");
        assert!(first.cache_status().starts_with("products; fwd=uri-miss"), "{path}");
        assert!(first.cache_status().contains("stored"), "{path}: {}", first.cache_status());
        let second = service.get(path).await;
        assert!(second.is_hit(), "{path}: {}", second.cache_status());
        assert!(second.header("age").is_some());
        assert_eq!(first.body, second.body, "{path}");
    }
    // A cookie that somebody else has set changes nothing.
    let request = Request::get(service.url("/api/products/42")).header("cookie", "other=1");
    assert!(service.request(request, "").await.is_hit());
}

pub(crate) async fn pages_are_cached_apart(service: &Service) {
    service.warm(&PAGES[..2]).await;
    assert!(!service.get(PAGES[2]).await.is_hit());
    let (one, two) = (service.ids(PAGES[0]).await, service.ids(PAGES[1]).await);
    assert_eq!((one[0], two[0]), (230, 180));
}

pub(crate) async fn an_edit_drops_exactly_what_shows_the_product(service: &Service) {
    // Product 150 is on page 2. It is not among those with "lamp", nor is its neighbour 149 touched.
    let name = service.get("/api/products/150").await.json()["name"].clone();
    let name = name.as_str().unwrap().replace(' ', "%20");
    let shows = [PAGES[1], "/api/products/150", &format!("/api/search?q={name}")];
    let others =
        [PAGES[0], PAGES[2], PAGES[3], PAGES[4], "/api/products/149", "/api/search?q=lamp"];
    assert!(service.ids(PAGES[1]).await.contains(&150));
    assert!(service.ids(shows[2]).await.contains(&150));
    assert!(!service.ids("/api/search?q=lamp").await.contains(&150));
    service.warm(&shows).await;
    service.warm(&others).await;

    service.edit(150, json!({"price_cents": 123, "stock": 9})).await;
    assert_eq!(service.cached_of(&shows).await, [""; 0]);
    assert_eq!(service.cached_of(&others).await, others);

    for path in shows {
        let answer = service.get(path).await;
        assert!(!answer.is_hit(), "{path}");
        assert!(answer.text().contains("\"price_cents\":123,\"stock\":9"), "{path}");
    }
    for path in others {
        assert!(service.get(path).await.is_hit(), "{path}");
    }
}

pub(crate) async fn an_edit_of_a_text_drops_searches_and_no_other_list(service: &Service) {
    let searches = ["/api/search?q=lamp", "/api/search?q=zyzzyva"];
    assert_eq!(service.ids(searches[1]).await, [0; 0]);
    service.warm(&searches).await;
    service.warm(&PAGES).await;
    service.edit(10, json!({"name": "Zyzzyva"})).await;
    assert_eq!(service.cached_of(&searches).await, [""; 0]);
    assert_eq!(service.ids(searches[1]).await, [10]);
    // Product 10 is on page 5, and its place does not depend on its name.
    assert_eq!(service.cached_of(&PAGES).await, PAGES[..4]);
}

pub(crate) async fn creating_and_deleting_drop_the_lists(service: &Service) {
    let details = ["/api/products/7", "/api/products/230"];
    let searches = ["/api/search?q=lamp", "/api/search?q=golden"];
    service.warm(&PAGES).await;
    service.warm(&details).await;
    service.warm(&searches).await;

    let made = service.send(Method::POST, "/api/products/", &draft("Golden Teapot")).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(service.cached_of(&PAGES).await, [""; 0]);
    assert_eq!(service.cached_of(&searches).await, [""; 0]);
    // The others are what they were.
    assert_eq!(service.cached_of(&details).await, details);
    let first = service.get(PAGES[0]).await;
    assert_eq!((first.ids()[0], &first.json()["count"]), (231, &json!(231)));
    assert_eq!(service.ids(searches[1]).await, [231]);

    service.warm(&PAGES).await;
    service.warm(&searches).await;
    service.warm(&["/api/products/231"]).await;
    let gone = service.send(Method::DELETE, "/api/products/231", &json!(null)).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(service.get("/api/products/231").await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.cached_of(&PAGES).await, [""; 0]);
    assert_eq!(service.cached_of(&details).await, details);
    assert_eq!(service.get(PAGES[0]).await.json()["count"], 230);
    assert_eq!(service.ids(searches[1]).await, [0; 0]);
}

pub(crate) async fn a_refused_change_drops_nothing(service: &Service) {
    let paths = [PAGES[0], "/api/products/230", "/api/products/featured"];
    service.warm(&paths).await;
    let mut wrong = draft("Teapot");
    wrong["category"] = json!("Nowhere");
    for (method, path) in [
        (Method::PUT, "/api/products/230"),
        (Method::POST, "/api/products/"),
        (Method::PUT, "/api/products/9999"),
        (Method::DELETE, "/api/products/9999"),
        (Method::PATCH, "/api/products/230"),
    ] {
        let answer = service.send(method, path, &wrong).await;
        assert!(answer.status.is_client_error(), "{path}");
        assert!(answer.cache_status().starts_with("products; fwd=method"), "{path}");
    }
    assert_eq!(service.cached_of(&paths).await, paths);
}

pub(crate) async fn featured_and_sidebar_follow_every_change(service: &Service) {
    let path = "/api/products/featured";
    service.warm(&[path]).await;
    let before = service.get(path).await.ids();
    let best = before[0];
    assert!(service.get("/").await.text().contains(">Best rated<"));
    assert!(service.get("/").await.text().contains("Sidebar: from the cache"));

    service.edit(best, json!({"name": "Renamed Thing"})).await;
    assert!(!service.get(path).await.is_hit());
    assert_eq!(service.get(path).await.json()["results"][0]["name"], "Renamed Thing");
    let page = service.get("/").await.text();
    assert!(page.contains("Renamed Thing"));
    assert!(page.contains("Sidebar: computed now"));
    assert!(service.get("/").await.text().contains("Sidebar: from the cache"));

    // Sold out, and so not featured any more.
    service.edit(best, json!({"stock": 0})).await;
    let after = service.get(path).await.ids();
    assert_eq!(after[..11], before[1..]);
    assert!(!service.get("/").await.text().contains("Renamed Thing"));
}

pub(crate) async fn errors_are_never_cached(service: &Service) {
    for path in [
        "/api/products/?page=0",
        "/api/products/?page=x",
        "/api/products/?page=6",
        "/api/products/231",
        "/api/products/x",
        "/api/search",
        "/api/nowhere",
    ] {
        for _ in 0..3 {
            let answer = service.get(path).await;
            assert!(answer.status.is_client_error(), "{path}");
            let status = answer.cache_status();
            assert!(status.starts_with("products; fwd="), "{path}: {status}");
            assert!(!status.contains("stored"), "{path}: {status}");
        }
    }
    // What was not there a moment ago is there at once.
    service.send(Method::POST, "/api/products/", &draft("Golden Teapot")).await;
    let answer = service.get("/api/products/231").await;
    assert_eq!((answer.status, &answer.json()["name"]), (StatusCode::OK, &json!("Golden Teapot")));
}

/// Readers ask without a pause while a writer changes a product; after each confirmed change, whoever asks sees it.
pub(crate) async fn nobody_reads_the_old_after_a_change_was_confirmed(service: &Service) {
    let paths = [PAGES[0], "/api/products/230", "/api/products/featured"];
    let best = service.ids(paths[2]).await[0];
    let detail = format!("/api/products/{best}");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let reader = async |path: &str| {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(service.get(path).await.status, StatusCode::OK);
        }
    };
    let writer = async {
        for stock in 1000..1040 {
            service.edit(230, json!({"stock": stock})).await;
            service.edit(best, json!({"stock": stock})).await;
            assert_eq!(service.get(paths[0]).await.json()["results"][0]["stock"], stock);
            assert_eq!(service.get(paths[1]).await.json()["stock"], stock);
            assert_eq!(service.get(paths[2]).await.json()["results"][0]["stock"], stock);
            assert_eq!(service.get(&detail).await.json()["stock"], stock);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(
        writer,
        reader(paths[0]),
        reader(paths[0]),
        reader(paths[0]),
        reader(paths[1]),
        reader(paths[1]),
        reader(paths[2]),
        reader(paths[2]),
        reader(&detail),
    );
}

/// Of two services that share a store.
pub(crate) async fn a_change_here_drops_what_is_cached_there(here: &Service, there: &Service) {
    let paths = ["/api/products/?page=1", "/api/products/?page=2", "/api/products/230"];
    there.warm(&paths).await;
    there.warm(&["/api/products/featured"]).await;
    here.edit(230, json!({"stock": 77})).await;
    assert_eq!(there.cached_of(&paths).await, [paths[1]]);
    assert_eq!(there.get(paths[2]).await.json()["stock"], 77);
    assert!(!there.get("/api/products/featured").await.is_hit());
}

/// `kill` ends the server behind the service's cache.
pub(crate) async fn a_server_that_dies_costs_hits_and_not_answers(
    service: &Service,
    kill: impl FnOnce(),
) {
    service.warm(&["/api/products/?page=1"]).await;
    kill();
    let list = service.get("/api/products/?page=1").await;
    assert_eq!(list.json()["count"], 230);
    assert!(!list.is_hit());
    assert_eq!(service.get("/").await.status, 200);
    service.edit(230, json!({"stock": 77})).await;
    let list = service.get("/api/products/?page=1").await;
    assert_eq!(list.json()["results"][0]["stock"], 77);
}
