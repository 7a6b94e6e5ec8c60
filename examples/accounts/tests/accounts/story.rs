//! What a visitor does.

use larder_testkit::servers::RedisServer;

use crate::browser::{Service, click, patient};

async fn the_whole_story(service: Service) {
    let mut phone = service.browser("Phone 1");
    // Looking around costs no session.
    let home = phone.get("/").await;
    home.says("Good day").says("Register");
    assert_eq!((home.headers.get("set-cookie"), &phone.cookie), (None, &None));

    // What was put into the cart before is in it afterwards, under another id.
    phone.submit("/cart", "/cart", &[("item", "Teapot")]).await.says("<td>Teapot</td><td>1</td>");
    let anonymous = phone.cookie.clone().unwrap();
    let cart = phone.register("Ada", "correct horse").await;
    cart.says("Welcome, Ada.").says("<td>Teapot</td><td>1</td>").says("Log out Ada");
    assert_ne!(phone.cookie.as_ref(), Some(&anonymous));
    let again = phone.get("/cart").await;
    assert!(!again.text.contains("Welcome"), "a message is shown once");
    assert!(again.headers["cache-control"].to_str().unwrap().contains("private"));
    let mut thief = service.browser("Thief");
    thief.cookie = Some(anonymous);
    assert!(!thief.get("/").await.text.contains("Ada"), "the id from before is dead");

    // Another device has a session of its own.
    let mut laptop = service.browser("Laptop 2");
    laptop.log_in("ada", "correct horse").await.says("Welcome back, Ada.").says("nothing in it");
    let devices = laptop.get("/devices").await;
    devices.says("Phone 1").says("Laptop 2");
    let listed = devices.devices();
    assert_eq!(listed.len(), 2);
    let phones = &listed.iter().find(|(_, current)| !current).unwrap().0;

    // It ends the other one, whose next click shows it.
    let page = laptop.submit("/devices", "/devices/revoke", &[("device", phones)]).await;
    page.says("That device is logged out.");
    assert_eq!(page.devices().len(), 1);
    phone.get("/").await.says("Good day");
    phone.get("/devices").await;
    laptop.submit("/devices", "/devices/revoke", &[("device", phones)]).await.says("already");

    // All but this one.
    phone.log_in("Ada", "correct horse").await;
    let mut tablet = service.browser("Tablet");
    tablet.log_in("Ada", "correct horse").await;
    laptop.submit("/devices", "/devices/revoke-others", &[]).await.says("Logged out elsewhere: 2.");
    phone.get("/").await.says("Good day");
    tablet.get("/").await.says("Good day");

    // And this one.
    let copy = laptop.cookie.clone();
    laptop.submit("/cart", "/logout", &[]).await.says("Good day");
    assert_eq!(laptop.cookie, None);
    thief.cookie = copy;
    thief.get("/").await.says("Good day");
}

#[tokio::test]
async fn a_visitor_registers_shops_logs_in_elsewhere_and_logs_out_in_memory() {
    the_whole_story(Service::start().await).await;
}

#[tokio::test]
async fn a_visitor_registers_shops_logs_in_elsewhere_and_logs_out_on_redis() {
    let server = RedisServer::start().await;
    let url =
        format!("{}?namespace=accounts&response_timeout=60s&connect_timeout=60s", server.url());
    the_whole_story(Service::over(patient(&url).await).await).await;
}

#[tokio::test]
async fn a_visitor_registers_shops_logs_in_elsewhere_and_logs_out_on_files() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}?namespace=accounts", folder.path().display());
    the_whole_story(Service::over(patient(&url).await).await).await;
}

#[tokio::test]
async fn clicks_at_the_same_time_are_all_counted() {
    let service = Service::start().await;
    let mut browser = service.browser("one");
    let token = browser.get("/cart").await.token();
    let mut clicks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (base, cookie, token) = (service.base.clone(), browser.cookie.clone(), token.clone());
        clicks.spawn(async move { click(&base, &cookie.unwrap(), &token).await });
    }
    while let Some(status) = clicks.join_next().await {
        assert_eq!(status.unwrap(), 303);
    }
    browser.get("/cart").await.says("<td>Cup</td><td>20</td>");
}
