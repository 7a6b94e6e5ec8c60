//! The same session in several processes at once.

mod common;

use std::process::{Command, Stdio};

use common::{Browser, exchange, patient};
use larder_file::FileBackend;
use larder_redis::RedisBackend;
use larder_session::{Session, SessionLayer};
use larder_testkit::servers::RedisServer;

const PROCESSES: usize = 3;

/// As often as that in all, unless the environment says otherwise.
fn total(usual: usize) -> usize {
    let total = std::env::var("LARDER_RACES").ok().and_then(|value| value.parse().ok());
    total.unwrap_or(usual).next_multiple_of(PROCESSES)
}

async fn layer(place: &str) -> SessionLayer {
    let cache = if place.starts_with("redis://") {
        let url = format!("{place}?response_timeout=120s&connect_timeout=20s");
        patient(RedisBackend::connect(&url).await.expect("a connection"), "shop")
    } else {
        patient(FileBackend::builder().path(place).build().expect("a directory"), "shop")
    };
    SessionLayer::new(&cache).evictable()
}

async fn count(session: Session) -> larder_session::Result<()> {
    session.update("n", |n: &mut usize| *n += 1).await.map(drop)
}

/// What one of the processes does: its share, by several clients at once.
async fn share(place: &str, cookie: &str, share: usize) {
    let layer = layer(place).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..10 {
        let (layer, cookie) = (layer.clone(), cookie.to_owned());
        let own = share / 10 + usize::from(client < share % 10);
        clients.spawn(async move {
            for _ in 0..own {
                let got = exchange(&layer, Some(&cookie), count).await;
                assert_eq!(got.status, 200, "{got:?}");
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// The test of that name is run by this process, which starts itself again for the others.
async fn increments(test: &str, place: &str, total: usize) {
    let layer = layer(place).await;
    let mut browser = Browser::new(&layer);
    browser.send(|session| async move { session.insert("n", &0_usize).await }).await;
    let cookie = browser.cookie.clone().unwrap();
    let program = std::env::current_exe().expect("this program");
    let started: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let mut command = Command::new(&program);
            command.args(["--exact", test, "--nocapture"]).stdout(Stdio::null());
            command.env(SHARE, format!("{place} {cookie} {}", total / PROCESSES));
            command.spawn().expect("another process")
        })
        .collect();
    for mut process in started {
        let ended = tokio::task::spawn_blocking(move || process.wait()).await.unwrap();
        assert!(ended.expect("its end").success());
    }
    browser
        .send(|session| async move {
            assert_eq!(session.get("n").await?, Some(total));
            Ok(())
        })
        .await;
}

// Says that this process is one of the others, and what its share is.
const SHARE: &str = "LARDER_SHARE";

async fn is_one_of_the_others() -> bool {
    let Ok(said) = std::env::var(SHARE) else { return false };
    let [place, cookie, own] = said.split(' ').collect::<Vec<_>>()[..] else { panic!("{said}") };
    share(place, cookie, own.parse().expect("a number")).await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_increments_of_three_processes_sum_exactly_on_redis() {
    if is_one_of_the_others().await {
        return;
    }
    let server = RedisServer::start().await;
    let name = "s05_increments_of_three_processes_sum_exactly_on_redis";
    increments(name, &server.url(), total(3_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_increments_of_three_processes_sum_exactly_on_files() {
    if is_one_of_the_others().await {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let name = "s05_increments_of_three_processes_sum_exactly_on_files";
    increments(name, directory.path().to_str().expect("text"), total(600)).await;
}
