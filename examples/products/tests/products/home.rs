//! The home page.

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
    assert!(many.contains("href=\"/?page=2&amp;q=e\""));
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
        assert!(html.contains("&lt;script&gt;"), "{path}");
    }
    assert!(service.get("/?q=%22%20autofocus").await.text().contains("value=\"&quot; autofocus\""));
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
async fn the_page_works_without_the_internet() {
    let html = Service::cached().await.get("/").await.text();
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
}
