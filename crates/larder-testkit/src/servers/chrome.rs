use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::process::find;

/// A ChromeDriver of one's own, on a free port of 127.0.0.1: for tests of pages in a real browser.
///
/// `LARDER_CHROMEDRIVER` names the binary, and `LARDER_CHROMIUM` the browser's; otherwise `chromedriver`, and `chromium`,
/// `google-chrome` or `chrome`, are looked for. The browsers that it starts end with it, whatever the test forgot.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() {
/// use larder_testkit::servers::ChromeDriver;
///
/// let driver = ChromeDriver::start().await;
/// println!("{} {:?}", driver.url(), driver.arguments());
/// # }
/// ```
#[derive(Debug)]
pub struct ChromeDriver {
    daemon: Daemon,
    browser: PathBuf,
    profiles: AtomicU32,
}

impl ChromeDriver {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// When no ChromeDriver or no browser is installed, or it does not start.
    pub async fn start() -> Self {
        let driver = find(
            "LARDER_CHROMEDRIVER",
            &["chromedriver"],
            "Install it with `apt-get install chromium-driver` or `brew install chromedriver`",
        );
        let browser = find(
            "LARDER_CHROMIUM",
            &["chromium", "google-chrome", "chrome"],
            "Install it with `apt-get install chromium` or `brew install chromium`",
        );
        let env = find("LARDER_ENV", &["env"], "It comes with every Unix");
        for _ in 0..10 {
            let mut daemon = Daemon::new("chrome", &env).with_its_family();
            let port = daemon.port();
            // Browsers leave things in the temporary directory when they are killed.
            let args = [
                format!("TMPDIR={}", daemon.directory().display()),
                driver.display().to_string(),
                format!("--port={port}"),
            ];
            let ready = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            if daemon.run(&args, ready).await {
                return ChromeDriver { daemon, browser, profiles: AtomicU32::new(0) };
            }
        }
        panic!("somebody takes every port before ChromeDriver does");
    }

    /// Where it listens: `http://127.0.0.1:21000`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.daemon.port())
    }

    /// The browser that it is to start.
    pub fn browser(&self) -> &str {
        self.browser.to_str().expect("a path that is text")
    }

    /// Arguments for one more browser: without a window, without the system's sandbox (which root cannot have), without
    /// what it does on the network by itself, and with an empty profile of its own.
    pub fn arguments(&self) -> Vec<String> {
        let number = self.profiles.fetch_add(1, Ordering::Relaxed);
        let profile = self.daemon.directory().join(format!("profile-{number}"));
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=900,760",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        arguments
    }
}
