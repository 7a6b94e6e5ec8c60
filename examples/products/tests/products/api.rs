//! What each endpoint answers.

use http::{Method, Request, StatusCode};
use serde_json::json;

use crate::service::{Service, draft};

#[tokio::test]
async fn the_list_is_paged_newest_first() {
    let service = Service::cached().await;
    let first = service.get("/api/products/").await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.header("content-type"), Some("application/json"));
    let page = first.json();
    assert_eq!(page["count"], 230);
    assert_eq!(page["previous"], json!(null));
    assert_eq!(page["next"], service.url("/api/products/?page=2"));
    assert_eq!(page["results"].as_array().unwrap().len(), 50);

    let mut all = Vec::new();
    let mut next = Some("/api/products/?page=1".to_owned());
    while let Some(path) = next {
        let page = service.get(&path).await.json();
        all.extend(page["results"].as_array().unwrap().clone());
        next =
            page["next"].as_str().map(|url| url.strip_prefix(service.base()).unwrap().to_owned());
    }
    let ids: Vec<_> = all.iter().map(|product| product["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=230).rev().collect::<Vec<_>>());
    let dates: Vec<_> = all.iter().map(|p| p["created_at"].as_str().unwrap()).collect();
    assert!(dates.is_sorted_by(|newer, older| newer > older));

    let last = service.get("/api/products/?page=5").await.json();
    assert_eq!(last["results"].as_array().unwrap().len(), 30);
    assert_eq!(last["next"], json!(null));
    assert_eq!(last["previous"], service.url("/api/products/?page=4"));
}

#[tokio::test]
async fn the_slash_after_products_may_be_left_away() {
    let service = Service::cached().await;
    let (with, without) =
        (service.ids("/api/products/?page=2"), service.ids("/api/products?page=2"));
    assert_eq!(with.await, without.await);
}

#[tokio::test]
async fn a_detail_has_the_description_and_the_reviews() {
    let service = Service::cached().await;
    let list = service.get("/api/products/").await.json();
    let listed = &list["results"][7];
    let detail = service.get(&format!("/api/products/{}", listed["id"])).await.json();
    for (name, value) in listed.as_object().unwrap() {
        assert_eq!(detail[name], *value, "{name}");
    }
    assert!(detail["description"].as_str().unwrap().len() > 20);
    let shown = detail["latest_reviews"].as_array().unwrap().len();
    assert_eq!(Some(shown as i64), detail["reviews"].as_i64().map(|reviews| reviews.min(5)));
}

#[tokio::test]
async fn featured_are_the_best_rated_in_stock() {
    let service = Service::cached().await;
    let featured = service.get("/api/products/featured").await.json();
    let products = featured["results"].as_array().unwrap();
    assert_eq!(products.len(), 12);
    assert!(
        products.iter().all(|p| p["stock"].as_i64() > Some(0) && p["reviews"].as_i64() >= Some(5))
    );
    let ratings: Vec<_> = products.iter().map(|p| p["rating"].as_f64().unwrap()).collect();
    assert!(ratings.is_sorted_by(|better, worse| better >= worse), "{ratings:?}");
}

#[tokio::test]
async fn a_search_looks_into_names_and_descriptions() {
    let service = Service::cached().await;
    let found = service.get("/api/search?q=LAMP").await.json();
    assert!(found["count"].as_i64() > Some(0));
    for product in found["results"].as_array().unwrap() {
        let detail = service.get(&format!("/api/products/{}", product["id"])).await.json();
        let text = format!("{} {}", detail["name"], detail["description"]).to_lowercase();
        assert!(text.contains("lamp"), "{text}");
    }
    // What LIKE would take for a wildcard stands for itself.
    assert_eq!(service.get("/api/search?q=%25").await.json()["count"], 0);
    assert_eq!(service.get("/api/search?q=T_apot").await.json()["count"], 0);
    // Many results come in pages, and the links keep what was searched for.
    let made = service.get("/api/search?q=guarantee.").await.json();
    assert_eq!(made["next"], json!(null));
    let many = service.get("/api/search?q=e%20").await.json();
    assert!(many["count"].as_i64() > Some(50));
    let next = many["next"].as_str().unwrap().strip_prefix(service.base()).unwrap();
    assert_eq!(next, "/api/search?q=e&page=2");
    assert_eq!(service.get(next).await.json()["count"], many["count"]);
}

#[tokio::test]
async fn a_product_can_be_created_replaced_and_removed() {
    let service = Service::cached().await;
    let made = service.send(Method::POST, "/api/products/", &draft("Golden Teapot")).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let path = made.header("location").unwrap().to_owned();
    assert_eq!(path, "/api/products/231");
    assert_eq!(made.json()["reviews"], 0);
    assert_eq!(made.json()["rating"], json!(null));
    assert_eq!(service.get(&path).await.json(), made.json());
    let list = service.get("/api/products/").await.json();
    assert_eq!((&list["count"], &list["results"][0]["id"]), (&json!(231), &json!(231)));

    let mut other = draft("Silver Teapot");
    other["category"] = json!("Garden");
    let replaced = service.send(Method::PUT, &path, &other).await;
    assert_eq!(replaced.status, StatusCode::OK);
    let now = service.get(&path).await.json();
    assert_eq!(now, replaced.json());
    assert_eq!((&now["name"], &now["category"]), (&json!("Silver Teapot"), &json!("Garden")));
    assert_eq!(now["created_at"], made.json()["created_at"]);

    let removed = service.send(Method::DELETE, &path, &json!(null)).await;
    assert_eq!((removed.status, removed.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(service.get(&path).await.status, StatusCode::NOT_FOUND);
    let again = service.send(Method::DELETE, &path, &json!(null)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    // Its number is not given to another one.
    let next = service.send(Method::POST, "/api/products/", &draft("Another")).await;
    assert_eq!(next.header("location"), Some("/api/products/232"));
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let service = Service::cached().await;
    for path in ["/api/products/", "/api/products/7", "/api/products/featured", "/api/search?q=a"] {
        let head = || service.request(Request::head(service.url(path)), "");
        let cold = head().await;
        let got = service.get(path).await;
        let warm = head().await;
        assert!(warm.is_hit(), "{path}: {}", warm.cache_status());
        for answer in [cold, warm] {
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0), "{path}");
            for name in ["etag", "content-type", "content-length"] {
                assert_eq!(answer.header(name), got.header(name), "{path} {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_has_it_already_is_told_so() {
    let service = Service::cached().await;
    let tag = service.get("/api/products/7").await.header("etag").unwrap().to_owned();
    let ask = || Request::get(service.url("/api/products/7")).header("if-none-match", &tag);
    let same = service.request(ask(), "").await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert!(same.is_hit());
    service.edit(7, json!({"stock": 77})).await;
    let changed = service.request(ask(), "").await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_ne!(changed.header("etag"), Some(&*tag));
    assert_eq!(changed.json()["stock"], 77);
}

#[tokio::test]
async fn without_a_cache_everything_works_and_nothing_claims_to_be_cached() {
    let service = Service::start(None).await;
    for path in
        ["/api/products/", "/api/products/7", "/api/products/featured", "/api/search?q=lamp"]
    {
        for _ in 0..2 {
            let answer = service.get(path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!((answer.header("cache-status"), answer.header("age")), (None, None));
        }
    }
    service.edit(7, json!({"stock": 77})).await;
    assert_eq!(service.get("/api/products/7").await.json()["stock"], 77);
    let page = service.get("/").await;
    assert!(page.text().contains("Table: from the database, no cache"));
}
