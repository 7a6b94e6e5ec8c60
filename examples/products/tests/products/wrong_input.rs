//! Whatever is wrong gets a clear answer, as JSON.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::service::{Answer, Service, draft};

fn check(answer: &Answer, status: u16, words: &str, what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{what}: {body}");
    assert!(body["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: {body}");
    assert!(body["error"].as_str().unwrap().contains(words), "{what}: {body}");
}

#[tokio::test]
async fn wrong_requests_get_a_clear_answer() {
    let service = Service::cached().await;
    let cases = [
        ("/api/products/?page=0", 400, "whole number from 1"),
        ("/api/products/?page=x", 400, "whole number from 1"),
        ("/api/products/?page=-1", 400, "whole number from 1"),
        ("/api/products/?page=", 400, "whole number from 1"),
        ("/api/products/?page=1&page=2", 400, "given twice"),
        ("/api/products/?pgae=2", 400, "there is no parameter \"pgae\""),
        ("/api/products/?page=6", 404, "there is no page 6"),
        ("/api/products/?page=99999999999999999999", 404, "there is no page"),
        ("/api/products/231", 404, "there is no product 231"),
        ("/api/products/0", 404, "there is no product 0"),
        ("/api/products/99999999999999999999", 404, "there is no product"),
        ("/api/products/x", 400, "\"x\" is not a product's number"),
        ("/api/products/1.5", 400, "is not a product's number"),
        ("/api/products/%FF", 400, "Invalid"),
        ("/api/products/1/reviews", 404, "there is nothing at /api/products/1/reviews"),
        ("/api/search", 400, "q is missing"),
        ("/api/search?q=", 400, "q is missing"),
        ("/api/search?q=%20", 400, "q is missing"),
        ("/api/search?q=lamp&page=100", 404, "there is no page 100"),
        ("/api/nowhere", 404, "there is nothing at /api/nowhere"),
        ("/api", 404, "there is nothing at /api"),
        ("/nowhere", 404, "there is nothing at /nowhere"),
    ];
    for (path, status, words) in cases {
        let answer = service.get(path).await;
        check(&answer, status, words, path);
        if path.starts_with("/api/") {
            assert!(answer.cache_status().starts_with("products; fwd="), "{path}");
        }
    }
    let long = format!("/api/search?q={}", "x".repeat(101));
    check(&service.get(&long).await, 400, "longer than 100", "a long q");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let service = Service::cached().await;
    for (method, path, allowed) in [
        (Method::DELETE, "/api/products/", "GET,HEAD,POST"),
        (Method::POST, "/api/products/7", "GET,HEAD,PUT,DELETE"),
        (Method::PATCH, "/api/products/7", "GET,HEAD,PUT,DELETE"),
        (Method::PUT, "/api/search?q=lamp", "GET,HEAD"),
        (Method::PUT, "/", "GET,HEAD"),
    ] {
        let answer = service.send(method.clone(), path, &draft("Teapot")).await;
        let what = format!("{method} {path}");
        check(&answer, 405, "is not allowed", &what);
        assert_eq!(answer.header("allow"), Some(allowed), "{what}");
    }
}

#[tokio::test]
async fn wrong_bodies_get_a_clear_answer() {
    let service = Service::cached().await;
    let with = |name: &str, value: Value| {
        let mut draft = draft("Teapot");
        draft[name] = value;
        draft.to_string()
    };
    let mut without = draft("Teapot");
    without.as_object_mut().unwrap().remove("stock");
    let cases = [
        (String::new(), 400, "EOF"),
        ("{".to_owned(), 400, "EOF"),
        ("not json".to_owned(), 400, "expected"),
        ("[]".to_owned(), 422, "invalid length"),
        ("\"text\"".to_owned(), 422, "invalid type"),
        (without.to_string(), 422, "missing field `stock`"),
        (with("stock", json!("many")), 422, "stock: invalid type"),
        (with("price_cents", json!(19.99)), 422, "price_cents: invalid type"),
        (with("colour", json!("red")), 422, "unknown field `colour`"),
        (with("name", json!("  ")), 422, "name must have"),
        (with("name", json!("x".repeat(201))), 422, "name must have"),
        (with("description", json!("")), 422, "description must have"),
        (with("price_cents", json!(0)), 422, "price_cents must be between"),
        (with("stock", json!(-1)), 422, "stock must be between"),
        (with("category", json!("Nowhere")), 422, "there is no category"),
        (with("name", json!("x".repeat(70_000))), 413, "length limit"),
    ];
    for (body, status, words) in &cases {
        for (method, path) in [(Method::POST, "/api/products/"), (Method::PUT, "/api/products/7")] {
            let request = Request::builder()
                .method(method)
                .uri(service.url(path))
                .header("content-type", "application/json");
            let answer = service.request(request, body).await;
            check(&answer, *status, words, &body[..body.len().min(80)]);
        }
    }
    let request = Request::post(service.url("/api/products/"));
    let answer = service.request(request, &draft("Teapot").to_string()).await;
    check(&answer, 415, "Content-Type", "no content type");
    let nobody = service.send(Method::PUT, "/api/products/9999", &draft("Teapot")).await;
    check(&nobody, 404, "there is no product 9999", "PUT of an unknown product");

    // Nothing of all this was done.
    assert_eq!(service.get("/api/products/").await.json()["count"], 230);
    assert_ne!(service.get("/api/products/7").await.json()["name"], "Teapot");
    assert_eq!(service.get("/api/products/7").await.status, StatusCode::OK);
}
