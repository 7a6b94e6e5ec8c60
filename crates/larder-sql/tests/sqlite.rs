//! What only a file can show: several processes, its settings, its table, its bounds.
#![cfg(feature = "sqlite")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{LONG, body, expect_all_work, key, read, shop, store, tag, text};
use larder_core::{
    Backend, Clock, Counter, Entry, ErrorKind, Key, Namespace, Outcome, Prefix, Put, Ttl, When,
};
use larder_sql::{SqliteBackend, Synchronous};
use tokio::io::AsyncWriteExt;

mod common;

async fn open(path: &Path) -> SqliteBackend {
    let builder = SqliteBackend::builder().path(path).busy_timeout(Duration::from_secs(60));
    builder.connect().await.unwrap()
}

const WRITERS: usize = 16;

fn rounds() -> usize {
    std::env::var("LARDER_WRITES").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

// Sixteen writers of this process; every error is one that a caller would see.
async fn write(path: &Path, who: usize) {
    let backend = open(path).await;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let backend = backend.clone();
        tasks.push(tokio::spawn(async move {
            let counter = key("counter");
            let own = key(&format!("own {who} {writer}"));
            for round in 0..rounds() {
                match round % 5 {
                    0 => {
                        let create = Some(Counter { initial: 0, ttl: Ttl::Forever });
                        backend.add(&counter, 1, create).await.unwrap();
                    }
                    1 => store(&backend, &own, &format!("{writer} {round}")).await,
                    2 => {
                        let found = read(&backend, &own).await.unwrap();
                        assert_eq!(found, format!("{writer} {}", round - 1), "its own write");
                    }
                    3 => drop(backend.invalidate(&shop(), &[tag("t")]).await.unwrap()),
                    _ => {
                        let shared = key(&format!("shared {}", round % 7));
                        let _ = backend
                            .put(&shared, text("shared"), Ttl::Default, When::Absent)
                            .await
                            .unwrap();
                        backend.remove(&shared, None).await.unwrap();
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_writers_in_two_processes_are_never_told_that_it_is_busy() {
    // The other process is this program, asked for this test alone.
    if let Some(path) = std::env::var_os("LARDER_TEST_SQLITE") {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        return write(Path::new(&path), 1).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    let backend = open(&path).await;
    let mut other = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "thirty_two_writers_in_two_processes_are_never_told_that_it_is_busy"])
        .args(["--nocapture", "--test-threads", "1"])
        .env("LARDER_TEST_SQLITE", &path)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    other.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
    write(&path, 0).await;
    assert!(other.wait().await.unwrap().success(), "the other process saw an error");
    let counted = backend.add(&key("counter"), 0, None).await.unwrap();
    assert_eq!(counted, Some((2 * WRITERS * rounds().div_ceil(5)) as i64), "none was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_outlives_the_handle_and_is_shared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b&c=d+e%.db");
    let url = format!(
        "sqlite://{}/a%20b%26c%3Dd+e%25.db?namespace=shop&synchronous=full&table=cache_1&busy_timeout=60s",
        directory.path().display()
    );
    let backend = SqliteBackend::connect(&url).await.unwrap();
    store(&backend, &key("k"), "v").await;
    expect_all_work(&backend, &Namespace::new("verbs").unwrap()).await;
    drop(backend);
    assert!(path.exists(), "the file lies where the URL says");
    let builder = SqliteBackend::builder().path(&path).table("cache_1").unwrap();
    let again = builder.synchronous(Synchronous::Off).connect().await.unwrap();
    assert_eq!(read(&again, &key("k")).await.as_deref(), Some("v"));
    // Another table of the same file is another cache.
    let other = open(&path).await;
    assert_eq!(read(&other, &key("k")).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_while_connecting() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let error = SqliteBackend::builder().path(file("no/canary.db")).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    assert!(error.to_string().contains("check the path"), "{error}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");

    let missing = SqliteBackend::builder().path(file("empty.db")).create(false);
    let schema = missing.schema();
    let error = missing.clone().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    assert!(error.to_string().contains("create=true"), "{error}");
    // Who runs migrations of their own.
    let backend = missing.clone().connect_later().unwrap();
    for statement in schema.split_terminator(";\n") {
        let mut connection = backend.acquire().await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(&mut *connection).await.unwrap();
    }
    expect_all_work(&missing.connect().await.unwrap(), &shop()).await;

    std::fs::write(
        file("text.db"),
        "no database at all, and long enough to be seen as none".repeat(50),
    )
    .unwrap();
    let error = SqliteBackend::builder().path(file("text.db")).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");

    let other = SqliteBackend::builder().path(file("empty.db")).table("others").unwrap();
    let mut connection = open(&file("empty.db")).await.acquire().await.unwrap();
    sqlx::query("CREATE TABLE others (id INTEGER)").execute(&mut *connection).await.unwrap();
    let error = other.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeping_removes_what_nobody_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hands) = Clock::manual();
    let builder = SqliteBackend::builder().path(directory.path().join("cache.db")).clock(clock);
    let backend = builder.sweep_every(Duration::from_secs(3600)).connect().await.unwrap();
    let rows = async || {
        let mut connection = backend.acquire().await.unwrap();
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM larder");
        count.fetch_one(&mut *connection).await.unwrap()
    };
    let other = Namespace::new("other").unwrap();
    for n in 0..1200 {
        let short = Ttl::For(Duration::from_secs(10));
        let _ = backend.put(&key(&format!("{n}")), text("v"), short, When::Always).await.unwrap();
    }
    store(&backend, &key("kept"), "v").await;
    store(&backend, &Key::new(&other, ["cleared"]).unwrap(), "v").await;
    backend.marks(&shop(), &[tag("old")]).await.unwrap();
    assert_eq!(rows().await, 1204);
    hands.advance(Duration::from_secs(10));
    assert_eq!(read(&backend, &key("0")).await, None, "expired is absent before it is swept");
    backend.sweep().await.unwrap();
    assert_eq!(rows().await, 4);
    // Clearing wakes the sweep.
    backend.clear(&other).await.unwrap();
    common::eventually("the sweep", async || rows().await == 4).await;
    hands.advance(Duration::from_secs(29 * 24 * 3600));
    backend.marks(&shop(), &[tag("old")]).await.unwrap();
    hands.advance(Duration::from_secs(29 * 24 * 3600));
    backend.sweep().await.unwrap();
    assert_eq!(rows().await, 3, "a tag that is asked for is kept; the entry has ended");
    hands.advance(Duration::from_secs(2 * 24 * 3600));
    backend.sweep().await.unwrap();
    assert_eq!(rows().await, 2, "a sequence and a generation are kept for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_lately_is_kept_when_room_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hands) = Clock::manual();
    let builder = SqliteBackend::builder().path(directory.path().join("cache.db")).clock(clock);
    let backend = builder.max_entries(320).connect().await.unwrap();
    for n in 0..290 {
        store(&backend, &key(&format!("{n:03}")), "v").await;
    }
    hands.advance(Duration::from_secs(120));
    // By key, the first ones would go, or the last ones; by age, any of them.
    let used: Vec<Key> = (0..290).step_by(29).map(|n| key(&format!("{n:03}"))).collect();
    for key in &used {
        // Noted in the background, and not when too much of it is under way.
        common::eventually("the note", async || {
            assert!(read(&backend, key).await.is_some());
            let mut connection = backend.acquire().await.unwrap();
            let query = "SELECT used - written FROM larder WHERE name = $1 AND generation > 0";
            let query = sqlx::query_scalar::<_, i64>(query).bind(common::name(key));
            query.fetch_one(&mut *connection).await.unwrap() >= 120_000
        })
        .await;
    }
    for n in 0..200 {
        store(&backend, &key(&format!("new {n}")), "v").await;
    }
    backend.sweep().await.unwrap();
    for key in &used {
        assert!(read(&backend, key).await.is_some(), "it was used lately");
    }
    let keys = backend.page(&Prefix::new(&shop()), None, 1000).await.unwrap().keys;
    assert!((200..=320).contains(&keys.len()), "{} are there", keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_a_few_commits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    let backend = open(&path).await;
    let log = || std::fs::metadata(directory.path().join("cache.db-wal")).unwrap().len();
    // Each commit writes the pages that it changes, the same ones again and again.
    for n in [1, 2, 3, 50, 64, 127] {
        let parts: Vec<_> = (0..n).map(|part| format!("{n}-{part}")).collect();
        let keys: Vec<_> = parts.iter().map(|part| key(part)).collect();
        let put = |part: &String| Put {
            key: key(part),
            entry: text(part),
            ttl: LONG.into(),
            when: When::Always,
        };
        let before = log();
        for outcome in backend.put_many(parts.iter().map(put).collect()).await.unwrap() {
            assert_eq!(outcome.unwrap(), Outcome::Stored);
        }
        let together = log() - before;
        let found = backend.get_many(&keys).await.unwrap();
        let found: Vec<_> = found.iter().flatten().map(body).collect();
        assert_eq!(found, parts);
        if n == 50 {
            let before = log();
            for key in &keys {
                let _ = backend.put(key, text("v"), LONG.into(), When::Always).await.unwrap();
            }
            let alone = log() - before;
            assert!(together * 4 < alone, "{together} bytes beside {alone}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_in_bytes_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let builder = SqliteBackend::builder().path(directory.path().join("cache.db"));
    let builder = builder.busy_timeout(Duration::from_secs(60));
    let backend = builder.max_bytes(1 << 20).max_value_bytes(256 << 10).connect().await.unwrap();
    for n in 0..300 {
        store(&backend, &key(&format!("{n}")), &"x".repeat(20_000)).await;
        if n % 50 == 49 {
            let mut connection = backend.acquire().await.unwrap();
            let query = sqlx::query_scalar::<_, i64>("SELECT sum(size) FROM larder");
            let bytes = query.fetch_one(&mut *connection).await.unwrap();
            assert!(bytes <= 1 << 20, "{bytes} bytes after {n}");
        }
    }
    assert!(read(&backend, &key("299")).await.is_some(), "the newest is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_up_to_the_limit_are_stored_and_not_a_byte_more() {
    let directory = tempfile::tempdir().unwrap();
    for limit in [1 << 10, 100_000, 4 << 20] {
        let builder = SqliteBackend::builder().path(directory.path().join("cache.db"));
        let backend = builder.max_value_bytes(limit).connect().await.unwrap();
        common::expect_exact_limit(&backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_holds_the_file_is_waited_for_no_longer_than_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    let backend = SqliteBackend::builder().path(&path).busy_timeout(Duration::from_millis(200));
    let backend = backend.connect().await.unwrap();
    store(&backend, &key("k"), "v").await;
    let mut blocker = open(&path).await.acquire().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *blocker).await.unwrap();
    let error = backend.remove(&key("k"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("busy_timeout"), "{error}");
    assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"), "readers never wait");
    // Closed with its transaction open: nobody is harmed.
    drop(blocker);
    common::eventually("the end of it", async || backend.remove(&key("k"), None).await.is_ok())
        .await;
    expect_all_work(&backend, &shop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_rows_are_a_miss() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(&directory.path().join("cache.db")).await;
    store(&backend, &key("other"), "other").await;
    let mut connection = backend.acquire().await.unwrap();
    for (kind, number, value) in [
        (0, None, None),
        (0, Some(7), Some(vec![0xff; 3000])),
        (1, None, Some(b"7".to_vec())),
        (2, Some(1), None),
        (4, Some(7), None),
        (99, Some(7), Some(b"LRDR\x01\x01".to_vec())),
        (-1, None, Some(b"LRDR\x01\x01".to_vec())),
    ] {
        common::sqlite::plant(&backend, &key("k"), b"").await;
        sqlx::query("UPDATE larder SET kind = $1, number = $2, value = $3 WHERE name = $4")
            .bind(kind)
            .bind(number)
            .bind(value)
            .bind(common::name(&key("k")))
            .execute(&mut *connection)
            .await
            .unwrap();
        let found = backend.get(&key("k"), &[key("k")]).await.unwrap();
        assert!(found.entry.is_none(), "kind {kind}");
        backend.page(&Prefix::new(&shop()), None, 10).await.unwrap();
        store(&backend, &key("k"), "v").await;
        assert_eq!(read(&backend, &key("k")).await.as_deref(), Some("v"), "kind {kind}");
    }
    let integer = Entry::integer(1);
    let _ = backend.put(&key("n"), integer, Ttl::Default, When::Always).await.unwrap();
    assert_eq!(backend.get(&key("n"), &[key("n")]).await.unwrap().counters, [Some(1)]);
    let other = backend.get(&key("other"), &[]).await.unwrap().entry;
    assert_eq!(other.as_ref().map(body).as_deref(), Some("other"));
}
