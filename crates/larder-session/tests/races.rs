//! Requests at the same time: nothing is lost, and nothing that was ended comes back.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Browser, Stand, exchange, patient};
use larder_file::FileBackend;
use larder_memcached::MemcachedBackend;
use larder_memory::MemoryBackend;
use larder_redis::RedisBackend;
use larder_session::{ErrorKind, Session, SessionLayer};
use larder_sql::{PostgresBackend, SqliteBackend};
use larder_testkit::servers::{MemcachedServer, PostgresServer, RedisServer};

/// As often as that, unless the environment says otherwise.
fn races(usual: usize) -> usize {
    std::env::var("LARDER_RACES").ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

async fn put(session: Session) -> larder_session::Result<()> {
    session.insert("user", &7).await
}

async fn memory_nodes(nodes: usize) -> Vec<SessionLayer> {
    let memory = MemoryBackend::default();
    (0..nodes).map(|_| SessionLayer::new(&patient(memory.clone(), "shop")).evictable()).collect()
}

async fn redis_nodes(server: &RedisServer, nodes: usize) -> Vec<SessionLayer> {
    let mut layers = Vec::new();
    for _ in 0..nodes {
        let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
        let backend = RedisBackend::connect(&url).await.expect("a connection");
        layers.push(SessionLayer::new(&patient(backend, "shop")).evictable());
    }
    layers
}

// A busy machine is no reason to fail.
const PATIENT: Duration = Duration::from_secs(120);

async fn memcached_nodes(server: &MemcachedServer, nodes: usize) -> Vec<SessionLayer> {
    let mut layers = Vec::new();
    for _ in 0..nodes {
        let builder = MemcachedBackend::builder().url(&server.url()).expect("a URL");
        let builder = builder.response_timeout(PATIENT).connect_timeout(PATIENT);
        let backend = builder.connect().await.expect("a connection");
        layers.push(SessionLayer::new(&patient(backend, "shop")).evictable());
    }
    layers
}

async fn sqlite_nodes(directory: &std::path::Path, nodes: usize) -> Vec<SessionLayer> {
    let mut layers = Vec::new();
    for _ in 0..nodes {
        let builder = SqliteBackend::builder().path(directory.join("sessions.db"));
        let builder = builder.busy_timeout(PATIENT).connect_timeout(PATIENT);
        let backend = builder.connect().await.expect("a file");
        layers.push(SessionLayer::new(&patient(backend, "shop")).evictable());
    }
    layers
}

async fn postgres_nodes(server: &PostgresServer, nodes: usize) -> Vec<SessionLayer> {
    let mut layers = Vec::new();
    for _ in 0..nodes {
        let builder = PostgresBackend::builder().url(&server.url()).expect("a URL");
        let builder = builder.create(true).response_timeout(PATIENT).connect_timeout(PATIENT);
        let backend = builder.connect().await.expect("a connection");
        layers.push(SessionLayer::new(&patient(backend, "shop")).evictable());
    }
    layers
}

fn file_nodes(directory: &std::path::Path, nodes: usize) -> Vec<SessionLayer> {
    let backend = || FileBackend::builder().path(directory).build().expect("a directory");
    (0..nodes).map(|_| SessionLayer::new(&patient(backend(), "shop")).evictable()).collect()
}

/// So many increments of one session, on all nodes, by many clients at once.
async fn increments(nodes: Vec<SessionLayer>, total: usize) {
    let mut browser = Browser::new(&nodes[0]);
    browser.send(put).await;
    let cookie = browser.cookie.clone().unwrap();
    let left = Arc::new(AtomicUsize::new(total));
    let tasks: Vec<_> = (0..30)
        .map(|task| {
            let layer = nodes[task % nodes.len()].clone();
            let (cookie, left) = (cookie.clone(), left.clone());
            tokio::spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                    let got = exchange(&layer, Some(&cookie), |session| async move {
                        session.update("n", |n: &mut usize| *n += 1).await?;
                        // Two handles of one exchange count as well.
                        let other = session.clone();
                        tokio::try_join!(
                            session.update("m", |m: &mut usize| *m += 1),
                            other.update("m", |m: &mut usize| *m += 1)
                        )
                        .map(drop)
                    })
                    .await;
                    assert_eq!(got.status, 200, "{got:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    browser
        .send(|session| async move {
            assert_eq!(session.get("n").await?, Some(total));
            assert_eq!(session.get("m").await?, Some(2 * total));
            assert_eq!(session.get("user").await?, Some(7));
            Ok(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s05_increments_on_three_nodes_sum_exactly_in_memory() {
    increments(memory_nodes(3).await, races(10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s05_increments_on_three_nodes_sum_exactly_on_redis() {
    let server = RedisServer::start().await;
    increments(redis_nodes(&server, 3).await, races(2_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s05_increments_on_three_nodes_sum_exactly_on_files() {
    let directory = tempfile::tempdir().expect("a directory");
    increments(file_nodes(directory.path(), 3), races(500)).await;
}

/// Signing out while other requests of the same visitor save, rotate, and keep alive: afterwards nobody is signed in.
async fn logouts(nodes: Vec<SessionLayer>, rounds: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let lanes: Vec<_> = (0..16)
        .map(|_| {
            let (nodes, next) = (nodes.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let round = next.fetch_add(1, Ordering::SeqCst);
                    if round >= rounds {
                        return;
                    }
                    logout(&nodes, round).await;
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
}

async fn logout(nodes: &[SessionLayer], round: usize) {
    let node = |n: usize| nodes[(round + n) % nodes.len()].clone();
    let mut browser = Browser::new(&node(0));
    browser.send(put).await;
    let cookie = browser.cookie.clone().unwrap();
    let sending = |layer: SessionLayer, step: usize| {
        let cookie = cookie.clone();
        async move {
            let mut browser = Browser::with_cookie(&layer, &cookie);
            let got = browser
                .send(|session| async move {
                    match step {
                        // Half of the sign-outs have read the session before.
                        0 if round.is_multiple_of(2) => session.destroy().await,
                        0 => {
                            session.contains("user").await?;
                            session.destroy().await
                        }
                        1 => session.update("n", |n: &mut u8| *n += 1).await.map(drop),
                        _ => session.rotate().await,
                    }
                })
                .await;
            (got, browser.cookie)
        }
    };
    let slow = if round.is_multiple_of(3) { 1 } else { 2 };
    let slower = tokio::spawn(sending(node(2), slow));
    let (out, _) = sending(node(1), 0).await;
    let (got, other) = slower.await.expect("no panic");
    assert_eq!(out.status, 200, "{out:?}");
    assert!(got.status == 200 || got.error == Some(ErrorKind::Gone), "{got:?}");
    // Neither with the old id, nor with what the other request was given.
    for cookie in [Some(cookie), other].into_iter().flatten() {
        exchange(&node(3), Some(&cookie), |session| async move {
            assert_eq!(session.get::<i32>("user").await?, None, "it came back in round {round}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s04_and_c111_no_logout_is_undone_in_memory() {
    logouts(memory_nodes(2).await, races(100_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s04_and_c111_no_logout_is_undone_on_redis() {
    let server = RedisServer::start().await;
    logouts(redis_nodes(&server, 2).await, races(10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s04_and_c111_no_logout_is_undone_on_files() {
    let directory = tempfile::tempdir().expect("a directory");
    logouts(file_nodes(directory.path(), 2), races(2_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s04_and_c111_no_logout_is_undone_on_memcached() {
    let server = MemcachedServer::start().await;
    logouts(memcached_nodes(&server, 2).await, races(10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s04_and_c111_no_logout_is_undone_on_sqlite() {
    let directory = tempfile::tempdir().expect("a directory");
    logouts(sqlite_nodes(directory.path(), 2).await, races(2_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s04_and_c111_no_logout_is_undone_on_postgres() {
    let server = PostgresServer::start().await;
    logouts(postgres_nodes(&server, 2).await, races(2_000)).await;
}

/// In the middle of a change of secrets: every other node has the new one already, and each accepts the other's.
fn changing(nodes: Vec<SessionLayer>) -> Vec<SessionLayer> {
    let secrets = [[7; 32], [9; 32]];
    let node = |(at, layer): (usize, SessionLayer)| {
        layer.secret(&secrets[at % 2]).accept_secret(&secrets[(at + 1) % 2]).expect("a secret")
    };
    nodes.into_iter().enumerate().map(node).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s14_no_logout_is_undone_and_no_count_is_lost_while_the_secret_changes_in_memory() {
    logouts(changing(memory_nodes(2).await), races(20_000)).await;
    increments(changing(memory_nodes(3).await), races(2_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s14_no_logout_is_undone_and_no_count_is_lost_while_the_secret_changes_on_redis() {
    let server = RedisServer::start().await;
    logouts(changing(redis_nodes(&server, 2).await), races(2_000)).await;
    increments(changing(redis_nodes(&server, 3).await), races(500)).await;
}

/// What the slower of two requests comes to; each step is taken with the state that the other one left.
#[tokio::test]
async fn s05_and_c112_different_keys_merge_and_the_same_key_conflicts_loudly() {
    type Steps = (&'static str, &'static str, Result<&'static [(&'static str, u8)], ErrorKind>);
    let table: [Steps; 14] = [
        ("insert a", "insert b", Ok(&[("a", 1), ("b", 2), ("x", 0)])),
        ("insert a", "insert a", Err(ErrorKind::Conflict)),
        ("insert x", "remove x", Err(ErrorKind::Conflict)),
        ("remove x", "insert x", Err(ErrorKind::Conflict)),
        ("remove x", "remove x", Ok(&[])),
        ("insert same", "insert same", Ok(&[("same", 9), ("x", 0)])),
        ("update x", "update x", Ok(&[("x", 2)])),
        ("insert x", "update x", Ok(&[("x", 2)])),
        ("update x", "insert x", Err(ErrorKind::Conflict)),
        ("insert a", "clear", Ok(&[])),
        ("clear", "insert b", Ok(&[("b", 2)])),
        ("destroy", "insert a", Err(ErrorKind::Gone)),
        ("rotate", "insert a", Err(ErrorKind::Gone)),
        ("rotate", "rotate", Err(ErrorKind::Gone)),
    ];
    for (first, second, outcome) in table {
        let stand = Stand::new();
        let mut browser = stand.browser();
        browser.send(|session| async move { session.insert("x", &0_u8).await }).await;
        let step = |step: &'static str, value: u8| {
            move |session: Session| async move {
                match step.split_once(' ') {
                    Some(("insert", "same")) => session.insert("same", &9_u8).await,
                    Some(("insert", key)) => session.insert(key, &value).await,
                    Some(("remove", key)) => session.remove(key).await.map(drop),
                    Some((_, key)) => session.update(key, |n: &mut u8| *n += 1).await.map(drop),
                    None if step == "clear" => session.clear().await,
                    None if step == "destroy" => session.destroy().await,
                    None => session.rotate().await,
                }
            }
        };
        let mut other = browser.clone();
        let got = browser
            .send(|session| async move {
                step(second, 2)(session).await?;
                assert_eq!(other.send(step(first, 1)).await.status, 200);
                Ok(())
            })
            .await;
        match outcome {
            Err(kind) => {
                assert_eq!(got.error, Some(kind), "{first}, {second}");
                assert_eq!((got.status.as_u16(), got.set_cookie()), (409, None));
            }
            Ok(values) => {
                assert_eq!(got.status, 200, "{first}, {second}: {got:?}");
                browser
                    .send(|session| async move {
                        let keys: Vec<&str> = values.iter().map(|(key, _)| *key).collect();
                        assert_eq!(session.keys().await?, keys, "{first}, {second}");
                        for (key, value) in values {
                            assert_eq!(session.get(key).await?, Some(*value), "{first}, {second}");
                        }
                        Ok(())
                    })
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn who_saves_early_hears_of_a_conflict_and_can_try_again() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    let mut other = browser.clone();
    let got = browser
        .send(|session| async move {
            session.insert("user", &8).await?;
            other.send(|session| async move { session.insert("user", &9).await }).await;
            assert_eq!(session.save().await.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(session.get("user").await?, Some(9));
            session.insert("user", &10).await?;
            session.save().await
        })
        .await;
    assert_eq!(got.status, 200);
    browser
        .send(|session| async move {
            assert_eq!(session.get("user").await?, Some(10));
            Ok(())
        })
        .await;
}
