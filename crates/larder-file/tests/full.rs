//! A full disk: what fails, what is gone, what works all the same, and that it heals.
//!
//! The test program starts itself again: a child is this program with `LARDER_CHILD` set, whose disk can be filled. That
//! is either a limit on what a file may hold, which nobody needs a right for, or a small file system of its own.

use std::fs::File;
use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_core::{
    Backend, Encoded, Entry, ErrorKind, Key, Namespace, Outcome, Put, Result, Tag, Ttl, When,
};
use larder_file::FileBackend;
use rustix::process::{Resource, getrlimit, setrlimit};

mod common;
use common::files;

const KEYS: u8 = 8;

const LARGE: usize = 30_000;

enum Disk {
    /// Beyond so many bytes, writing to a file fails.
    Limited,
    /// This file takes what room there is.
    Small(PathBuf),
}

impl Disk {
    /// Leaves so much room, which may have been more or less.
    fn leave(&self, room: u64) {
        match self {
            Disk::Limited => limit(Some(room)),
            Disk::Small(ballast) => {
                let mut file = File::options().create(true).append(true).open(ballast).unwrap();
                let block = [1; 4096];
                let error = loop {
                    if let Err(error) = file.write_all(&block) {
                        break error;
                    }
                };
                assert_eq!(error.kind(), Io::StorageFull, "{error}");
                file.set_len(file.metadata().unwrap().len() - room).unwrap();
            }
        }
    }

    fn free(&self) {
        match self {
            Disk::Limited => limit(None),
            Disk::Small(ballast) => std::fs::remove_file(ballast).unwrap(),
        }
    }
}

fn limit(bytes: Option<u64>) {
    let mut limit = getrlimit(Resource::Fsize);
    limit.current = bytes.or(limit.maximum);
    setrlimit(Resource::Fsize, limit).unwrap();
}

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn key(part: impl ToString) -> Key {
    Key::new(&shop(), ["d", &part.to_string()]).unwrap()
}

fn entry(byte: u8, bytes: usize) -> Entry {
    Entry::wire(Encoded { codec: 9, body: vec![byte; bytes].into(), ..Encoded::default() })
}

fn open(root: &Path) -> FileBackend {
    FileBackend::builder().path(root).build().unwrap()
}

async fn put(backend: &FileBackend, key: &Key, entry: Entry) -> Result<Outcome> {
    backend.put(key, entry, Ttl::Forever, When::Always).await
}

async fn body(backend: &FileBackend, key: &Key) -> Option<Vec<u8>> {
    let entry = backend.get(key, &[]).await.unwrap().entry?;
    Some(entry.encoded().unwrap().body.to_vec())
}

// Whether a reader may use it: without an answer about its tags, no.
async fn usable(backend: &FileBackend, key: &Key) -> bool {
    let Some(entry) = backend.get(key, &[]).await.unwrap().entry else { return false };
    let Ok(marks) = backend.marks(&shop(), entry.tags()).await else { return false };
    marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark)))
}

fn expect_unavailable<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error:?}");
}

// What a child does. Without the variable, nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout)]
async fn child() {
    let (Ok(disk), Ok(root)) = (std::env::var("LARDER_CHILD"), std::env::var("LARDER_ROOT")) else {
        return;
    };
    let root = Path::new(&root);
    let disk = match disk.as_str() {
        "limited" => Disk::Limited,
        _ => Disk::Small(root.join("ballast")),
    };
    live_through(&disk, root).await;
    println!("\nlarder-child-ends");
}

async fn live_through(disk: &Disk, root: &Path) {
    let backend = open(root);
    let other = Key::new(&Namespace::new("other").unwrap(), ["d", "other"]).unwrap();
    let tags = ["fallen", "another"].map(|tag| Tag::new(tag).unwrap());
    for n in 0..KEYS {
        assert_eq!(put(&backend, &key(n), entry(n, LARGE)).await.unwrap(), Outcome::Stored);
    }
    let built = backend.marks(&shop(), &tags).await.unwrap().sequence;
    for (at, tag) in tags.iter().enumerate() {
        let entry = entry(9, 10).with_tags([tag.clone()]).with_built_at(built);
        let _ = put(&backend, &key(format!("tagged {at}")), entry).await.unwrap();
    }
    let _ = put(&backend, &other, entry(9, 10)).await.unwrap();
    assert!(usable(&backend, &key("tagged 0")).await && usable(&backend, &key("tagged 1")).await);

    // With room for the beginning of a value, and with none.
    for (at, room) in [(0, 8192), (1, 0)] {
        let (old, new) = (key(at), key("new"));
        disk.leave(room);
        expect_unavailable(put(&backend, &old, entry(7, LARGE + 1)).await, "a larger value");
        assert_eq!(body(&backend, &old).await, None, "what should have been replaced is gone");
        // That made room.
        disk.leave(room);
        expect_unavailable(put(&backend, &new, entry(7, LARGE)).await, "a new value");
        assert_eq!(body(&backend, &new).await, None, "nor is it half there");
        disk.leave(room);
        let items = [&old, &new].map(|key| Put {
            key: key.clone(),
            entry: entry(7, LARGE),
            ttl: Ttl::Forever,
            when: When::Always,
        });
        for outcome in backend.put_many(items.into()).await.unwrap() {
            expect_unavailable(outcome, "one of a batch");
        }
        let half = files(root).into_iter().any(|file| file.extension().is_some_and(|e| e == "tmp"));
        assert!(!half, "nothing half-written is left");
    }
    for n in 2..KEYS {
        let found = body(&backend, &key(n)).await;
        assert!(found == Some(vec![n; LARGE]), "key {n}: what is there is served");
    }

    // An invalidation that cannot be recorded.
    disk.leave(0);
    expect_unavailable(backend.invalidate(&shop(), &tags[..1]).await, "an invalidation");
    for at in 0..2 {
        let key = key(format!("tagged {at}"));
        assert!(!usable(&backend, &key).await, "nobody knows any more whether it is valid");
    }
    // What needs no room.
    disk.leave(0);
    assert!(backend.remove(&key(2), None).await.unwrap(), "it was there");
    assert_eq!(body(&backend, &key(2)).await, None, "it was removed");
    disk.leave(0);
    backend.clear(&shop()).await.unwrap();
    let expect_cleared = async || {
        for n in 0..KEYS {
            assert_eq!(body(&backend, &key(n)).await, None, "it was cleared");
        }
        for at in 0..2 {
            assert!(!usable(&backend, &key(format!("tagged {at}"))).await, "it was cleared");
        }
        assert_eq!(body(&backend, &other).await, Some(vec![9; 10]), "it is another namespace");
    };
    expect_cleared().await;
    if let Disk::Small(_) = disk {
        // A full disk is no reason not to start. A file that may not grow is one.
        disk.leave(0);
        assert_eq!(body(&open(root), &other).await, Some(vec![9; 10]), "it was there");
    }

    disk.free();
    expect_cleared().await;
    for n in 0..KEYS {
        assert_eq!(put(&backend, &key(n), entry(n, LARGE)).await.unwrap(), Outcome::Stored);
        assert!(body(&backend, &key(n)).await == Some(vec![n; LARGE]), "it goes on");
    }
    backend.invalidate(&shop(), &tags).await.unwrap();
    // What could not be counted is right when somebody has counted.
    backend.sweep().await.unwrap();
    let own = root.join("larder-v1");
    let there = files(&own.join("entries")).len() + files(&own.join("marks")).len();
    assert_eq!(backend.usage().await.unwrap().files, there as u64);
}

// Runs the child below a program that gives it its disk.
fn run(disk: &str, program: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new(program[0])
        .args(&program[1..])
        // The name of what the shell runs.
        .arg("child")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("LARDER_CHILD", disk)
        .env("LARDER_ROOT", directory.path())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(child.status.success() && said.contains("larder-child-ends"), "{disk}: {said}");
}

#[test]
fn on_a_full_disk_writing_fails_and_all_else_works() {
    // The signal that comes with the limit would end the process.
    run("limited", &["sh", "-c", "trap '' XFSZ; exec \"$@\""]);
    // A container may not have the right to mount anything; what only this one shows is that a full disk can be opened.
    const MOUNT: &str = "mount -t tmpfs -o size=1m none";
    let unshared = ["unshare", "-rm", "sh", "-c"];
    let mut tried = Command::new(unshared[0]);
    tried.args(&unshared[1..]).arg(format!("{MOUNT} /tmp"));
    if tried.output().is_ok_and(|tried| tried.status.success()) {
        let script = format!("{MOUNT} \"$LARDER_ROOT\" && exec \"$@\"");
        run("small", &[&unshared[..], &[&script]].concat());
    }
}
