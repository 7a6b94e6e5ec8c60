//! A process that is killed in the middle of writes: what it was told to be stored is there, and nothing wrong is.
//!
//! The test program starts itself again: a child is this program with `LARDER_CHILD` set, which makes the test
//! `child` do the writing.
#![cfg(feature = "sqlite")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use larder_core::{Backend, Counter, Encoded, Entry, Key, Outcome, Ttl, When};
use larder_sql::SqliteBackend;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod common;

const WRITERS: usize = 4;

// Of a round, more than it ever comes to.
const STEPS: u64 = 1_000_000;

fn key(writer: usize) -> Key {
    common::key(&format!("kill {writer}"))
}

fn counter() -> Key {
    common::key("counter")
}

// With the defaults: whoever writes is given five seconds, also after a kill.
async fn open(path: &Path) -> SqliteBackend {
    SqliteBackend::builder().path(path).connect().await.unwrap()
}

// What a writer's key holds after a step of it: bytes that follow from the step, and after each fourth one nothing.
fn value(writer: usize, step: u64) -> Option<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(step * WRITERS as u64 + writer as u64);
    let mut bytes = vec![0; random.random_range(8..100_000)];
    random.fill(&mut bytes[..]);
    (step % 4 != 3).then_some(bytes)
}

async fn read(backend: &SqliteBackend, key: &Key) -> Option<Vec<u8>> {
    let entry = backend.get(key, &[]).await.unwrap().entry?;
    Some(entry.encoded().unwrap().body.to_vec())
}

async fn put(backend: &SqliteBackend, key: &Key, body: Vec<u8>) {
    let entry = Entry::wire(Encoded { codec: 9, body: body.into(), ..Encoded::default() });
    let stored = backend.put(key, entry, Ttl::Forever, When::Always).await.unwrap();
    assert_eq!(stored, Outcome::Stored);
}

// What a child does. Without the variable, nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout)]
async fn child() {
    let (Ok(path), Ok(first)) = (std::env::var("LARDER_CHILD"), std::env::var("LARDER_FIRST"))
    else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let backend = open(Path::new(&path)).await;
    let writers = (0..WRITERS).map(|writer| {
        let backend = backend.clone();
        tokio::spawn(async move {
            let create = Some(Counter { initial: 0, ttl: Ttl::Forever });
            for step in first.. {
                match value(writer, step) {
                    Some(body) => put(&backend, &key(writer), body).await,
                    None => assert!(backend.remove(&key(writer), None).await.unwrap()),
                }
                println!("\nlarder-done {writer} {step}");
                backend.add(&counter(), 1, create).await.unwrap();
                println!("\nlarder-counted");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Each round a child is killed while it writes, every other one while this process has the file open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let kills = std::env::var("LARDER_KILLS").ok().and_then(|kills| kills.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    let mut random: StdRng = rand::make_rng();
    // The last step of each writer that is known to have come about, and how many additions have.
    let mut last = [3; WRITERS];
    let mut counted = 0;
    for round in 0..kills.unwrap_or(20) {
        let witness = if round % 2 == 0 { Some(open(&path).await) } else { None };
        let first = (round + 1) * STEPS;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("LARDER_CHILD", &path)
            .env("LARDER_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Which write it is in by then is left to chance.
        let mut until_killed: u64 = random.random_range(1..150);
        let mut done = [None; WRITERS];
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["larder-done", writer, step] => {
                    done[writer.parse::<usize>().unwrap()] = Some(step.parse::<u64>().unwrap());
                }
                ["larder-counted"] => counted += 1,
                _ => continue,
            }
            until_killed = until_killed.saturating_sub(1);
            if until_killed == 0 {
                // Once more is no error.
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success(), "round {round}: it writes until it is killed");

        let backend = open(&path).await;
        for (writer, (last, done)) in last.iter_mut().zip(done).enumerate() {
            let found = read(&backend, &key(writer)).await;
            let known = done.unwrap_or(*last);
            // The next one may have come about, and its acknowledgement not.
            let next = done.map_or(first, |step| step + 1);
            let at = [known, next].into_iter().find(|step| found == value(writer, *step));
            *last = at.unwrap_or_else(|| panic!("round {round}: {known} is not there"));
        }
        let sum = backend.add(&counter(), 0, None).await.unwrap().unwrap_or(0);
        assert!((counted..=counted + WRITERS as i64).contains(&sum), "round {round}: {sum}");
        counted = sum;
        put(&backend, &common::key("after"), b"after".to_vec()).await;
        assert_eq!(read(&backend, &common::key("after")).await.as_deref(), Some(&b"after"[..]));
        if let Some(witness) = witness {
            let seen = read(&witness, &common::key("after")).await;
            assert_eq!(seen.as_deref(), Some(&b"after"[..]), "round {round}: to who was there");
        }
    }
    assert!(last.iter().any(|step| *step > STEPS), "the children have written");
}
