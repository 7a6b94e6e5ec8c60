//! What a visitor must not do, and what is done to them must not succeed.

use http::{Method, Request};

use crate::browser::Service;

#[tokio::test]
async fn a_form_without_its_token_or_from_elsewhere_is_refused() {
    let service = Service::start().await;
    let mut browser = service.browser("one");
    let old = browser.get("/cart").await.token();
    for token in ["", "x", &old[1..]] {
        let page = browser.post("/cart", &[("token", token), ("item", "Cup")]).await;
        assert_eq!(page.status, 403);
        page.says("load the page again");
    }
    assert_eq!(browser.post("/cart", &[("item", "Cup")]).await.status, 403);
    // Somebody else's token.
    let mut other = service.browser("two");
    let theirs = other.get("/cart").await.token();
    assert_eq!(browser.post("/cart", &[("token", &theirs), ("item", "Cup")]).await.status, 403);
    // Even with the token, another site's page is refused.
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/cart", service.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .header(name, value);
        let page = browser.send(request, format!("token={old}&item=Cup")).await;
        assert_eq!(page.status, 403);
        page.says("from another site");
    }
    browser.get("/cart").await.says("nothing in it");
    // A page from before the sign-in.
    browser.register("Ada", "correct horse").await;
    assert_eq!(browser.post("/cart", &[("token", &old), ("item", "Cup")]).await.status, 403);
    browser.get("/cart").await.says("nothing in it");
}

#[tokio::test]
async fn wrong_credentials_are_told_in_words_that_tell_nothing_else() {
    let service = Service::start().await;
    let mut browser = service.browser("one");
    browser.register("Ada", "short").await.says("at least 8 characters");
    browser.register(" ", "correct horse").await.says("1 to 40 characters");
    browser.register(&"x".repeat(41), "correct horse").await.says("1 to 40 characters");
    browser.register("Ada", "correct horse").await.says("Welcome, Ada.");
    let mut other = service.browser("two");
    other.register("ada", "another horse").await.says("taken");
    let words = "Name and password do not go together.";
    other.log_in("Ada", "wrong horse!").await.says(words);
    other.log_in("Nobody", "wrong horse!").await.says(words);
    other.log_in("' OR 1=1 --", "wrong horse!").await.says(words);
    other.get("/devices").await;
    other.get("/login").await.says("Log in to see your devices.");
}

#[tokio::test]
async fn what_visitors_write_is_shown_and_not_run() {
    let service = Service::start().await;
    let mut browser = service.browser("<script>alert(1)</script>");
    let page = browser.register("<b>Ada</b>", "correct horse").await;
    page.says("Welcome, &lt;b&gt;Ada");
    let devices = browser.get("/devices").await;
    devices.says("&lt;script&gt;");
    assert!(!devices.text.contains("<script") && !devices.text.contains("<b>Ada"));
}

#[tokio::test]
async fn what_is_no_form_is_told_and_nothing_panics() {
    let service = Service::start().await;
    let mut browser = service.browser("one");
    let token = browser.get("/cart").await.token();
    let page = browser.post("/cart", &[("token", &token), ("item", "Yacht")]).await;
    assert_eq!(page.status, 303);
    browser.get("/cart").await.says("We do not have that.");
    assert_eq!(browser.post("/cart", &[("token", &token)]).await.status, 422);
    assert_eq!(
        browser.post("/devices/revoke", &[("token", &token), ("device", "x")]).await.status,
        303
    );
    let long = "x".repeat(20_000);
    assert_eq!(browser.post("/cart", &[("token", &token), ("item", &long)]).await.status, 413);
    assert_eq!(browser.get("/nowhere").await.status, 404);
    assert_eq!(browser.get("/logout").await.status, 405);
    for cookie in
        ["accounts=", "accounts=x", "accounts=\"\"; accounts=1; accounts=2; accounts=3; accounts=4"]
    {
        browser.cookie = Some(cookie.to_owned());
        browser.get("/").await.says("Good day");
    }
}
