//! Several processes that want the same value at once.
#![cfg(feature = "redis")]

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_cache::{Cache, Options};
use larder_testkit::servers::RedisServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

const PROCESSES: usize = 3;

const PATIENCE: Duration = Duration::from_secs(120);

// Says that this process is one of several: where the server is, and where computations are counted.
const SHARE: &str = "LARDER_SHARE";

/// In each process; `scripts/soak` has 10,000.
fn callers() -> usize {
    std::env::var("LARDER_CALLERS").map_or(2_000, |callers| callers.parse().unwrap())
}

/// What one of them does: when it is told to go, all its callers ask at once.
async fn is_one_of_several() -> bool {
    let Ok(said) = std::env::var(SHARE) else { return false };
    let (url, marks) = said.split_once(' ').expect("a URL and a directory");
    let cache = Cache::connect(url).await.unwrap();
    assert!(!cache.strict().contains("cold").await.unwrap());
    // The harness writes to the standard output, too.
    std::io::stderr().write_all(b"ready\n").unwrap();
    let told = || std::io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(told).await.unwrap().unwrap();

    let callers = callers();
    let asking = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = (0..callers)
        .map(|_| {
            let (cache, asking, marks) = (cache.clone(), asking.clone(), PathBuf::from(marks));
            tokio::spawn(async move {
                let compute = {
                    let asking = asking.clone();
                    move || compute(asking, callers, marks)
                };
                let options = Options::ttl(Duration::from_secs(3600)).wait(PATIENCE);
                let mut value = std::pin::pin!(cache.get_or_compute("cold", options, compute));
                let mut asked = false;
                let polled = poll_fn(|context| {
                    let polled = value.as_mut().poll(context);
                    if !std::mem::replace(&mut asked, true) {
                        asking.fetch_add(1, Ordering::SeqCst);
                    }
                    polled
                });
                assert_eq!(*polled.await.unwrap(), "value");
            })
        })
        .collect();
    for caller in all {
        caller.await.unwrap();
    }
    true
}

// It takes longer than any of this process's callers needs to ask for it.
async fn compute(
    asking: Arc<AtomicUsize>,
    callers: usize,
    marks: PathBuf,
) -> Result<String, Infallible> {
    std::fs::write(marks.join(format!("{:016x}", rand::random::<u64>())), "").unwrap();
    while asking.load(Ordering::SeqCst) < callers {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok("value".to_owned())
}

/// This program once more, up to where it waits to be told.
async fn another(test: &str, url: &str, marks: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(SHARE, format!("{url} {}", marks.display()));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.as_mut().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).await.unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// Lets them go, and counts the computations of all.
async fn computations(mut children: Vec<Child>, marks: &Path) -> usize {
    for child in &mut children {
        child.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    }
    for mut child in children {
        assert!(child.wait().await.unwrap().success());
    }
    std::fs::read_dir(marks).unwrap().count()
}

async fn start(test: &str, url: &str, marks: &Path) -> Vec<Child> {
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        children.push(another(test, url, marks).await);
    }
    children
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_of_thousands_of_callers_compute_once() {
    if is_one_of_several().await {
        return;
    }
    let server = RedisServer::start().await;
    let marks = tempfile::tempdir().unwrap();
    // With time enough: a server that is slow to answer thousands is not gone.
    let limits = "response_timeout=120s&connect_timeout=60s&read_budget=120s&write_budget=120s";
    let url = format!("{}/0?namespace=shop&{limits}", server.url());
    let test = "three_processes_of_thousands_of_callers_compute_once";
    let children = start(test, &url, marks.path()).await;
    assert_eq!(computations(children, marks.path()).await, 1);
    let cache = Cache::connect(&url).await.unwrap();
    assert!(cache.contains("cold").await.unwrap(), "it is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_leases_server_each_process_computes_once() {
    if is_one_of_several().await {
        return;
    }
    let mut server = RedisServer::start().await;
    let marks = tempfile::tempdir().unwrap();
    let url = format!("{}/0?namespace=shop", server.url());
    let test = "without_the_leases_server_each_process_computes_once";
    let children = start(test, &url, marks.path()).await;
    server.kill();
    assert_eq!(computations(children, marks.path()).await, PROCESSES);
}
