//! Processes that are killed in the middle of a write, and processes that write at the same time.
//!
//! The test program starts itself again: a child is this program with `LARDER_CHILD` set, which makes the test
//! `child` do the writing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder_core::{
    Backend, Counter, Encoded, Entry, Error, Key, Namespace, Outcome, Payload, Prefix, Revision,
    Sequence, Tag, Ttl, When,
};
use larder_file::FileBackend;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod common;

const KEYS: usize = 48;

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn key(n: usize) -> Key {
    Key::new(&shop(), ["kill", &n.to_string()]).unwrap()
}

fn counter() -> Key {
    Key::new(&shop(), ["counter"]).unwrap()
}

fn open(root: &Path) -> FileBackend {
    // Little room, so that the killed are often evicting.
    FileBackend::builder().path(root).max_bytes(256 * 4096).build().unwrap()
}

// A value that tells whether it is whole and whose it is: a number, then bytes that follow from it.
fn value(n: usize, seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = (n as u64).to_be_bytes().to_vec();
    bytes.extend(seed.to_be_bytes());
    let length = random.random_range(0..40_000);
    bytes.extend((0..length).map(|_| random.random::<u8>()));
    bytes
}

fn check(n: usize, entry: &Entry) {
    let body = entry.encoded().unwrap().body;
    let seed = u64::from_be_bytes(body[8..16].try_into().unwrap());
    assert!(body[..] == value(n, seed)[..], "a value of key {n} is wrong");
}

fn wire(body: Vec<u8>) -> Entry {
    Entry::wire(Encoded { codec: 9, body: body.into(), ..Encoded::default() })
}

fn start(root: &Path, job: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("LARDER_CHILD", job)
        .env("LARDER_ROOT", root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

// Waits until the child has begun.
fn begun(child: &mut Child) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines.map_while(Result::ok).any(|line| line.contains("larder-child-begins"));
    assert!(begun, "the child begins");
}

fn kill(mut child: Child) {
    assert!(child.try_wait().unwrap().is_none(), "a child writes until it is killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

// What a child does. Without the variable, nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout)]
async fn child() {
    let (Ok(job), Ok(root)) = (std::env::var("LARDER_CHILD"), std::env::var("LARDER_ROOT")) else {
        return;
    };
    let backend = open(Path::new(&root));
    println!("\nlarder-child-begins");
    match job.as_str() {
        "write" => write_for_ever(&backend).await.unwrap(),
        "count" => count(&backend).await.unwrap(),
        other => panic!("{other} is no job"),
    }
}

async fn write_for_ever(backend: &FileBackend) -> Result<(), Error> {
    let mut random: StdRng = rand::make_rng();
    let tag = Tag::new("t")?;
    loop {
        let n = random.random_range(0..KEYS);
        let entry = wire(value(n, random.random()));
        match random.random_range(0..12) {
            0 => drop(backend.remove(&key(n), None).await?),
            1 => drop(backend.touch(&key(n), Ttl::Forever).await?),
            2 => {
                let create = Some(Counter { initial: 0, ttl: Ttl::Forever });
                backend.add(&counter(), 1, create).await?;
            }
            3 => drop(backend.begin(&key(n), Duration::from_secs(1)).await?),
            4 => drop(backend.invalidate(&shop(), std::slice::from_ref(&tag)).await?),
            5 if random.random_range(0..20) == 0 => backend.clear(&shop()).await?,
            _ => {
                let ttl = Ttl::For(Duration::from_secs(3600));
                let _ = backend.put(&key(n), entry, ttl, When::Always).await?;
            }
        }
    }
}

fn additions() -> i64 {
    std::env::var("LARDER_ADDITIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

fn turn() -> Key {
    Key::new(&shop(), ["turn"]).unwrap()
}

async fn sum_at(backend: &FileBackend, key: &Key) -> Result<(i64, Option<Revision>), Error> {
    let Some(entry) = backend.get(key, &[]).await?.entry else { return Ok((0, None)) };
    let sum = i64::from_be_bytes(entry.encoded()?.body[..].try_into().unwrap());
    Ok((sum, Some(entry.revision())))
}

async fn count(backend: &FileBackend) -> Result<(), Error> {
    let create = Some(Counter { initial: 0, ttl: Ttl::Forever });
    for _ in 0..additions() {
        backend.add(&counter(), 1, create).await?;
        // The same by hand, with conditions: it is tried until nobody was quicker.
        loop {
            let (sum, revision) = sum_at(backend, &key(0)).await?;
            let entry = wire((sum + 1).to_be_bytes().to_vec());
            let when = revision.map_or(When::Absent, When::Revision);
            if backend.put(&key(0), entry, Ttl::Forever, when).await? == Outcome::Stored {
                break;
            }
        }
        // And without: who has stored where nothing was is alone until it removes it.
        let mine = || wire(std::process::id().to_be_bytes().to_vec());
        while backend.put(&turn(), mine(), Ttl::Forever, When::Absent).await? == Outcome::Refused {
            // A touch changes no value, whoever is adding meanwhile.
            backend.touch(&counter(), Ttl::Forever).await?;
            backend.touch(&key(0), Ttl::Forever).await?;
        }
        let (sum, _) = sum_at(backend, &key(1)).await?;
        let entry = wire((sum + 1).to_be_bytes().to_vec());
        let _ = backend.put(&key(1), entry, Ttl::Forever, When::Always).await?;
        assert!(backend.touch(&turn(), Ttl::Forever).await?, "it is there until it is removed");
        let held = backend.get(&turn(), &[]).await?.entry.expect("it is there");
        assert_eq!(held.encoded()?.body, mine().encoded()?.body, "somebody else's turn");
        assert!(backend.remove(&turn(), None).await?, "nobody else has removed it");
    }
    Ok(())
}

/// A hundred children are killed at random moments, while another one writes; after each, what can be read is right,
/// and writing goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_byte_after_a_kill() {
    let kills = std::env::var("LARDER_KILLS").ok().and_then(|kills| kills.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut random: StdRng = rand::make_rng();
    let tag = Tag::new("t").unwrap();
    let (mut read, mut last) = (0, Sequence::NONE);
    let mut victim = start(root, "write");
    begun(&mut victim);
    for round in 0..kills.unwrap_or(100) {
        let mut other = start(root, "write");
        begun(&mut other);
        // When it is killed decides nothing: every moment is as good as another.
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        kill(victim);
        victim = other;

        let backend = open(root);
        for n in 0..KEYS {
            if let Some(entry) = backend.get(&key(n), &[]).await.unwrap().entry {
                check(n, &entry);
                read += 1;
            }
        }
        let found = backend.get(&counter(), &[]).await.unwrap().entry;
        let whole = found.is_none_or(|entry| matches!(entry.payload(), Payload::Integer(1..)));
        assert!(whole, "round {round}: the counter is a number");
        let page = backend.page(&Prefix::new(&shop()), None, 1000).await.unwrap();
        assert!(page.next.is_none() && page.keys.len() <= KEYS + 1, "round {round}");
        // Nobody holds a lock, and nothing goes back.
        let marks = backend.marks(&shop(), std::slice::from_ref(&tag)).await.unwrap();
        assert!(marks.tags[0] <= marks.sequence, "round {round}: {marks:?}");
        assert!(!marks.sequence.same_epoch(last) || marks.sequence >= last, "round {round}");
        last = backend.invalidate(&shop(), std::slice::from_ref(&tag)).await.unwrap();
        let n = random.random_range(0..KEYS);
        let entry = wire(value(n, random.random()));
        let stored = backend.put(&key(n), entry, Ttl::Forever, When::Always).await.unwrap();
        assert_eq!(stored, Outcome::Stored);
        assert!(backend.usage().await.unwrap().bytes <= 256 * 4096, "round {round}");
    }
    kill(victim);
    assert!(read > 0, "the children have written");

    // What is counted is what is there, as soon as somebody has counted.
    let backend = open(root);
    backend.sweep().await.unwrap();
    let usage = backend.usage().await.unwrap();
    let files = common::files(&root.join("larder-v1/entries")).len()
        + common::files(&root.join("larder-v1/marks")).len();
    assert_eq!(usage.files, files as u64);
}

/// Additions, conditional writes, touches and removals of several processes lose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_count_together() {
    let directory = tempfile::tempdir().unwrap();
    let mut children: Vec<Child> = (0..4).map(|_| start(directory.path(), "count")).collect();
    for child in &mut children {
        let out = child.stdout.take().unwrap();
        // Read to its end, so that it never waits for a reader.
        BufReader::new(out).lines().for_each(drop);
        assert!(child.wait().unwrap().success());
    }
    let backend = open(directory.path());
    let sum = backend.add(&counter(), 0, None).await.unwrap();
    assert_eq!(sum, Some(4 * additions()));
    for key in [key(0), key(1)] {
        assert_eq!(sum_at(&backend, &key).await.unwrap().0, 4 * additions());
    }
    assert!(backend.get(&turn(), &[]).await.unwrap().entry.is_none(), "every turn is over");
}
