//! The pages for people.

use http::StatusCode;
use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn the_page_shows_products_sidebar_and_how_it_was_made() {
    let service = Service::cached().await;
    let first = service.get("/").await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.header("content-type"), Some("text/html; charset=utf-8"));
    let html = first.text();
    for words in ["1–50 of 230", "Page 1 of 5", "Best rated", "Categories", "Kitchen"] {
        assert!(html.contains(words), "{words}");
    }
    assert!(html.contains("Table: computed now") && html.contains("Sidebar: computed now"));
    let second = service.get("/").await.text();
    assert!(second.contains("Table: from the cache") && second.contains("Sidebar: from the cache"));
    // Another table, the same sidebar.
    let other = service.get("/?page=2").await.text();
    assert!(other.contains("51–100 of 230"));
    assert!(other.contains("Table: computed now") && other.contains("Sidebar: from the cache"));
}

#[tokio::test]
async fn the_page_follows_an_edit() {
    let service = Service::cached().await;
    service.get("/").await;
    service.edit(230, json!({"name": "Golden Teapot"})).await;
    let html = service.get("/").await.text();
    assert!(html.contains("Golden Teapot") && html.contains("Table: computed now"));
}

#[tokio::test]
async fn the_search_box_finds_and_keeps_what_was_asked() {
    let service = Service::cached().await;
    service.edit(100, json!({"name": "Zyzzyva Lamp"})).await;
    let html = service.get("/?q=zyzzyva").await.text();
    assert!(html.contains("Zyzzyva Lamp") && html.contains("1–1 of 1"));
    assert!(html.contains("name=\"q\" value=\"zyzzyva\""));
    assert!(service.get("/?q=nothinglikethis").await.text().contains("Nothing found"));
    let many = service.get("/?q=e").await.text();
    assert!(many.contains("href=\"/?page=2&#38;q=e\""));
    // An empty search is no search.
    assert!(service.get("/?q=").await.text().contains("1–50 of 230"));
}

#[tokio::test]
async fn nothing_that_is_stored_or_asked_becomes_markup() {
    let service = Service::cached().await;
    let evil = "<script>alert(\"x\")</script>&'";
    service.edit(230, json!({"name": evil})).await;
    for path in ["/", "/?q=%3Cscript%3Ealert(%22", "/?page=%3Cscript%3E", "/?%3Cscript%3E=1"] {
        let html = service.get(path).await.text();
        assert!(!html.contains("<script"), "{path}");
        assert!(html.contains("&#60;script&#62;"), "{path}");
    }
    assert!(service.get("/?q=%22%20autofocus").await.text().contains("value=\"&#34; autofocus\""));
}

#[tokio::test]
async fn a_page_that_is_not_there_says_so() {
    let service = Service::cached().await;
    for (path, status, words) in [
        ("/?page=6", 404, "there is no page 6"),
        ("/?page=0", 400, "page must be a whole number from 1"),
        ("/?q=lamp&page=50", 404, "there is no page 50"),
    ] {
        let answer = service.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert!(answer.text().contains(words), "{path}");
    }
}

#[tokio::test]
async fn the_pages_work_without_the_internet() {
    let service = Service::cached().await;
    for path in ["/", "/products/7", "/products/0"] {
        let html = service.get(path).await.text();
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{path}: {outside}");
        }
    }
}

#[tokio::test]
async fn a_products_page_shows_it_and_follows_its_edits_alone() {
    let service = Service::cached().await;
    let product = service.get("/api/products/7").await.json();
    let first = service.get("/products/7").await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.header("content-type"), Some("text/html; charset=utf-8"));
    let html = first.text();
    for words in [&product["category"], &product["latest_reviews"][0]["text"]] {
        let words = words.as_str().unwrap();
        assert!(html.contains(&words.replace('\'', "&#x27;")), "{words}");
    }
    assert!(html.contains("Product: computed now") && html.contains("Best rated"));
    assert!(service.get("/products/7").await.text().contains("Product: from the cache"));
    service.get("/products/8").await;

    service.edit(7, json!({"name": "Golden Teapot", "stock": 0})).await;
    let html = service.get("/products/7").await.text();
    assert!(html.contains("<h1>Golden Teapot</h1>") && html.contains("sold out"));
    assert!(html.contains("Product: computed now"));
    assert!(service.get("/products/8").await.text().contains("Product: from the cache"));
    // The list leads there.
    assert!(service.get("/?q=golden+teapot").await.text().contains("href=\"/products/7\""));
    assert!(service.get("/?page=1").await.text().contains("href=\"/products/230\""));
}

#[tokio::test]
async fn a_fragment_is_escaped_once_whichever_engine_rendered_it() {
    let service = Service::cached().await;
    // One that the sidebar shows, so that it is in a fragment of either engine.
    let best = service.get("/api/products/featured").await.json()["results"][0]["id"].clone();
    let best = best.as_i64().unwrap();
    service.edit(best, json!({"name": "<script>&", "description": "<b>\"bold\"</b>"})).await;
    // Askama's and MiniJinja's ways to write the same.
    let (askama, minijinja) = ("&#60;script&#62;&#38;", "&lt;script&gt;&amp;");
    for visit in ["computed", "from the cache"] {
        let list = service.get("/").await.text();
        let page = service.get(&format!("/products/{best}")).await.text();
        for html in [&list, &page] {
            assert!(!html.contains("<script") && !html.contains("<b>\"bold"), "{visit}");
            assert!(!html.contains("&amp;lt;") && !html.contains("&#38;#60;"), "{visit}: twice");
            assert!(!html.contains("&amp;#60;") && !html.contains("&#38;lt;"), "{visit}: twice");
            assert!(html.contains(askama), "{visit}: the sidebar, by Askama");
        }
        assert_eq!(page.matches(minijinja).count(), 1, "{visit}: the product, by MiniJinja");
        assert!(page.contains("<h1>") && page.contains(&format!("Product: {visit}")), "{visit}");
    }
}

#[tokio::test]
async fn a_product_that_is_not_there_has_no_page() {
    let service = Service::cached().await;
    for (path, status, words) in [
        ("/products/999", 404, "there is no product 999"),
        ("/products/lamp", 400, "is not a product&#39;s number"),
        ("/products/%3Cscript%3E", 400, "&#60;script&#62;"),
    ] {
        let answer = service.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
}
