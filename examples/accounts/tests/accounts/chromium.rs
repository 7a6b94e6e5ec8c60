//! What a real browser makes of it: Chromium without a window. `LARDER_SCREENSHOTS=FOLDER` keeps a picture of each page.

use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use larder::{Cache, MemoryBackend};
use larder_testkit::servers::ChromeDriver;
use thirtyfour::common::cookie::SameSite;
use thirtyfour::prelude::*;
use tokio::net::TcpListener;

use crate::browser::Service;

/// A window with cookies of its own, which looks at one service.
struct Window {
    driver: WebDriver,
    base: String,
}

/// A busy machine is no reason to fail.
const PATIENCE: Duration = Duration::from_secs(60);

impl Window {
    async fn open(chrome: &ChromeDriver, base: &str, more: &[&str]) -> Self {
        let mut wanted = DesiredCapabilities::chrome();
        wanted.set_binary(chrome.browser()).unwrap();
        for argument in chrome.arguments() {
            wanted.add_arg(&argument).unwrap();
        }
        for argument in more {
            wanted.add_arg(argument).unwrap();
        }
        let driver = WebDriver::new(chrome.url(), wanted).await.expect("a browser");
        driver.set_page_load_timeout(PATIENCE).await.unwrap();
        Window { driver, base: base.to_owned() }
    }

    async fn go(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.base)).await.unwrap();
    }

    async fn text(&self) -> String {
        let body = self.driver.find(By::Tag("body")).await.unwrap();
        body.text().await.unwrap()
    }

    /// Waits until the page says it.
    #[track_caller]
    fn says<'a>(&'a self, words: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let said = async {
                loop {
                    // A page that is just being left has no body.
                    let body = self.driver.find(By::Tag("body")).await;
                    if let Ok(body) = body
                        && body.text().await.is_ok_and(|text| text.contains(words))
                    {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(PATIENCE, said).await.is_err() {
                panic!("{words:?} is not on the page of {caller}: {}", self.text().await);
            }
        }
    }

    async fn press(&self, xpath: &str) {
        let found = self.driver.query(By::XPath(xpath)).wait(PATIENCE, POLL).first().await;
        found.unwrap_or_else(|error| panic!("{xpath}: {error}")).click().await.unwrap();
    }

    async fn button(&self, label: &str) {
        self.press(&format!("//button[normalize-space()='{label}']")).await;
    }

    async fn fill(&self, field: &str, text: &str) {
        let found = self.driver.query(By::Name(field)).wait(PATIENCE, POLL).first().await;
        found.unwrap().send_keys(text).await.unwrap();
    }

    async fn credentials(&self, button: &str) {
        self.fill("name", "Ada").await;
        self.fill("password", "correct horse").await;
        self.button(button).await;
    }

    async fn log_in(&self) {
        self.go("/login").await;
        self.credentials("Log in").await;
        self.says("Welcome back, Ada.").await;
    }

    /// The cookie, as the browser has it.
    async fn cookie(&self, name: &str) -> Option<Cookie> {
        let all = self.driver.get_all_cookies().await.unwrap();
        all.into_iter().find(|cookie| cookie.name == name)
    }

    /// What scripts of the page can read.
    async fn seen_by_scripts(&self) -> String {
        let read = self.driver.execute("return document.cookie", vec![]).await.unwrap();
        read.convert().unwrap()
    }

    async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("LARDER_SCREENSHOTS") {
            let path = std::path::Path::new(&folder).join(format!("{name}.png"));
            self.driver.screenshot(&path).await.unwrap();
        }
    }

    async fn close(self) {
        self.driver.quit().await.unwrap();
    }
}

const POLL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_logs_in_keeps_its_session_and_loses_it() {
    let (service, chrome) = (Service::start().await, ChromeDriver::start().await);
    let base = service.base.replace("127.0.0.1", "localhost");
    let phone = Window::open(&chrome, &base, &["--user-agent=Phone 1"]).await;

    // Looking around costs no cookie.
    phone.go("/").await;
    phone.says("Good day").await;
    assert!(phone.driver.get_all_cookies().await.unwrap().is_empty());
    phone.picture("home").await;

    // The cart is filled before, and is there afterwards.
    phone.press("//a[normalize-space()='To the cart']").await;
    phone.says("There is nothing in it.").await;
    phone.button("Teapot").await;
    phone.says("Teapot 1").await;
    let anonymous = phone.cookie("accounts").await.expect("a cookie");
    phone.press("//a[normalize-space()='Register']").await;
    phone.picture("register").await;
    phone.credentials("Register").await;
    phone.says("Welcome, Ada.").await;
    phone.says("Teapot 1").await;
    phone.picture("cart").await;
    let signed_in = phone.cookie("accounts").await.expect("a cookie");
    assert_ne!(anonymous.value, signed_in.value, "an id from before the sign-in is no sign-in");
    assert_eq!(signed_in.http_only, Some(true));
    assert_eq!(signed_in.same_site, Some(SameSite::Lax));
    assert_eq!(phone.seen_by_scripts().await, "");

    // Links, the history and loading again keep it. A message is shown once.
    phone.press("//a[normalize-space()='Tea & Larder']").await;
    phone.says("Hello, Ada").await;
    phone.picture("home-signed-in").await;
    phone.driver.back().await.unwrap();
    phone.driver.refresh().await.unwrap();
    phone.says("Teapot 1").await;
    assert!(!phone.text().await.contains("Welcome"));
    for _ in 0..2 {
        phone.button("Cup").await;
    }
    phone.says("Cup 2").await;

    // Another device logs in, sees both, and ends the first one, whose next click shows it.
    let laptop = Window::open(&chrome, &base, &["--user-agent=Laptop 2"]).await;
    laptop.go("/login").await;
    laptop.picture("login").await;
    laptop.credentials("Log in").await;
    laptop.says("Welcome back, Ada.").await;
    laptop.says("There is nothing in it.").await;
    laptop.press("//a[normalize-space()='Devices']").await;
    laptop.says("Phone 1").await;
    laptop.says("Laptop 2").await;
    laptop.picture("devices").await;
    laptop.press("//li[contains(., 'Phone 1')]//button").await;
    laptop.says("That device is logged out.").await;
    assert!(!laptop.text().await.contains("Phone 1"));
    phone.press("//a[normalize-space()='Devices']").await;
    phone.says("Log in to see your devices.").await;
    phone.picture("revoked").await;

    // Log out: the cookie goes, and the history shows nobody.
    phone.log_in().await;
    phone.go("/").await;
    phone.says("Hello, Ada").await;
    phone.button("Log out Ada").await;
    phone.says("Good day").await;
    assert!(phone.cookie("accounts").await.is_none());
    phone.driver.back().await.unwrap();
    phone.driver.refresh().await.unwrap();
    phone.says("Good day").await;
    // The other device is still there.
    laptop.go("/").await;
    laptop.says("Hello, Ada").await;
    phone.close().await;
    laptop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_comes_back_after_a_restart_and_not_when_the_store_forgot_it() {
    let (service, chrome) = (Service::start().await, ChromeDriver::start().await);
    // One profile for both.
    let profile = tempfile::tempdir().unwrap();
    let kept = format!("--user-data-dir={}", profile.path().display());
    let window = Window::open(&chrome, &service.base, &[&kept]).await;
    window.go("/register").await;
    window.credentials("Register").await;
    window.says("Welcome, Ada.").await;
    let cookie = window.cookie("accounts").await.expect("a cookie");
    assert!(cookie.expiry.is_some(), "it outlives the browser");
    window.close().await;
    let window = Window::open(&chrome, &service.base, &[&kept]).await;
    window.go("/").await;
    window.says("Hello, Ada").await;
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_page_can_send_a_form_and_changes_nothing() {
    let (service, chrome) = (Service::start().await, ChromeDriver::start().await);
    let base = service.base.replace("127.0.0.1", "localhost");
    // Another site for browsers: the same machine under its number.
    let form = format!(
        "<form method=post action={base}/cart><input name=item value=Cup><button>Win</button></form>"
    );
    let evil = Router::new().route("/", get(async move || Html(form)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, evil).await.unwrap() });

    let window = Window::open(&chrome, &base, &[]).await;
    window.go("/register").await;
    window.credentials("Register").await;
    window.says("Welcome, Ada.").await;
    window.driver.goto(&elsewhere).await.unwrap();
    window.button("Win").await;
    window.says("403 Forbidden").await;
    window.picture("refused").await;
    window.go("/cart").await;
    window.says("There is nothing in it.").await;
    window.says("Log out Ada").await;
    window.close().await;
    serving.abort();
}

/// What a browser does with the strict cookie of `--https` and with that of development, where the page came over plain
/// HTTP: this machine itself is as good as HTTPS to it, and from everywhere else it drops a `Secure` cookie silently.
#[tokio::test(flavor = "multi_thread")]
async fn over_plain_http_only_the_cookie_of_development_is_kept_everywhere() {
    let chrome = ChromeDriver::start().await;
    let memory = || Cache::builder(MemoryBackend::default()).build();
    let (development, strict) =
        (Service::with(memory(), false).await, Service::with(memory(), true).await);
    let resolved = "--host-resolver-rules=MAP shop.example 127.0.0.1";
    let window = Window::open(&chrome, &development.base, &[resolved]).await;
    for (service, name, secure, host, kept) in [
        (&development, "accounts", false, "localhost", true),
        (&development, "accounts", false, "127.0.0.1", true),
        (&development, "accounts", false, "shop.example", true),
        (&strict, "__Host-accounts", true, "localhost", true),
        (&strict, "__Host-accounts", true, "127.0.0.1", true),
        (&strict, "__Host-accounts", true, "shop.example", false),
    ] {
        let page = format!("{}/cart", service.base.replace("127.0.0.1", host));
        window.driver.goto(&page).await.unwrap();
        window.says("There is nothing in it.").await;
        let cookie = window.cookie(name).await;
        assert_eq!(cookie.is_some(), kept, "{name} on {host}");
        if let Some(cookie) = cookie {
            assert_eq!(cookie.secure, Some(secure), "{name} on {host}");
        }
    }
    window.close().await;
}
