//! A power cut: files of every kind that come back shorter, with zeros at their end, or not at all.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use larder_core::{
    Backend, Counter, Encoded, Entry, Key, Namespace, Outcome, Payload, Prefix, Tag, Ttl, When,
};
use larder_file::FileBackend;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod common;
use common::files;

const KEYS: usize = 24;

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn key(part: impl ToString) -> Key {
    Key::new(&shop(), ["d", &part.to_string()]).unwrap()
}

fn open(root: &Path) -> FileBackend {
    FileBackend::builder().path(root).build().unwrap()
}

fn value(n: usize, life: u8) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(n as u64);
    let mut bytes = vec![life];
    let length = random.random_range(0..9_000);
    bytes.extend((0..length).map(|_| random.random::<u8>()));
    bytes
}

fn wire(body: Vec<u8>) -> Entry {
    Entry::wire(Encoded { codec: 9, body: body.into(), ..Encoded::default() })
}

async fn store(backend: &FileBackend, key: &Key, entry: Entry) {
    let stored = backend.put(key, entry, Ttl::Forever, When::Always).await.unwrap();
    assert_eq!(stored, Outcome::Stored);
}

async fn read(backend: &FileBackend, key: &Key) -> Option<Vec<u8>> {
    let entry = backend.get(key, &[]).await.unwrap().entry?;
    Some(entry.encoded().unwrap().body.to_vec())
}

async fn build(backend: &FileBackend, key: &Key, tag: &Tag) {
    let marks = backend.marks(&shop(), std::slice::from_ref(tag)).await.unwrap();
    let entry = wire(b"built".to_vec()).with_tags([tag.clone()]).with_built_at(marks.sequence);
    store(backend, key, entry).await;
}

// Whether a reader may use it, tags and all.
async fn usable(backend: &FileBackend, key: &Key) -> bool {
    let Some(entry) = backend.get(key, &[]).await.unwrap().entry else { return false };
    let marks = backend.marks(&shop(), entry.tags()).await.unwrap();
    !entry.tags().is_empty() && marks.tags.iter().all(|mark| entry.built_at().covers(Some(*mark)))
}

// What is there when the power fails.
async fn fill(backend: &FileBackend, tags: &[Tag; 2]) {
    let [fallen, valid] = tags;
    for life in [0, 1] {
        // What was cleared must not come back.
        backend.clear(&shop()).await.unwrap();
        for n in 0..KEYS {
            store(backend, &key(n), wire(value(n, life))).await;
        }
    }
    store(backend, &key("counter"), Entry::integer(7)).await;
    build(backend, &key("fallen"), fallen).await;
    build(backend, &key("valid"), valid).await;
    backend.invalidate(&shop(), std::slice::from_ref(fallen)).await.unwrap();
    assert!(usable(backend, &key("valid")).await && !usable(backend, &key("fallen")).await);
}

// Does something to a file, of whatever kind: there are more entries than anything else.
fn damage(root: &Path, random: &mut StdRng) -> String {
    let totals = root.join("locks/totals");
    let mut kinds: Vec<Vec<PathBuf>> =
        ["entries", "marks", "generations", "locks"].map(|kind| files(&root.join(kind))).into();
    kinds.push(if totals.exists() { vec![totals] } else { Vec::new() });
    kinds.retain(|kind| !kind.is_empty());
    let mut pick = |most: usize| random.random_range(0..most);
    let mut kind = kinds.swap_remove(pick(kinds.len()));
    let path = kind.swap_remove(pick(kind.len()));
    let length = fs::metadata(&path).unwrap().len() as usize;
    let (at, how) = (pick(length.max(1)), pick(3));
    let file = File::options().write(true).open(&path).unwrap();
    match how {
        0 => file.set_len(at as u64).unwrap(),
        1 => file.write_all_at(&vec![0; length - at.min(length)], at as u64).unwrap(),
        _ => fs::remove_file(&path).unwrap(),
    }
    let how = ["cut", "filled with zeros", "removed"][how];
    format!("{} {how} at {at} of {length}", path.strip_prefix(root).unwrap().display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout)]
async fn what_a_power_cut_left_is_right_or_a_miss_and_writing_goes_on() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let seed: u64 = number("LARDER_SEED").unwrap_or_else(rand::random);
    let tags = ["fallen", "valid"].map(|tag| Tag::new(tag).unwrap());
    let (mut hits, mut misses) = (0, 0);
    for round in 0..number("LARDER_CUTS").unwrap_or(20) {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
        let directory = tempfile::tempdir().unwrap();
        let backend = open(directory.path());
        fill(&backend, &tags).await;
        drop(backend);
        let root = directory.path().join("larder-v1");
        let damages: Vec<String> =
            (0..random.random_range(1..5)).map(|_| damage(&root, &mut random)).collect();
        let what = format!("LARDER_SEED={seed}, round {round}: {damages:?}");
        // Shown when something fails by itself, too.
        println!("{what}");

        let backend = open(directory.path());
        for n in 0..KEYS {
            match read(&backend, &key(n)).await {
                Some(found) => {
                    assert!(found == value(n, 1), "key {n} is wrong, {what}");
                    hits += 1;
                }
                None => misses += 1,
            }
        }
        if let Some(entry) = backend.get(&key("counter"), &[]).await.unwrap().entry {
            assert!(matches!(entry.payload(), Payload::Integer(7)), "{what}");
        }
        assert!(!usable(&backend, &key("fallen")).await, "it was invalidated, {what}");
        let page = backend.page(&Prefix::new(&shop()), None, 1000).await.unwrap();
        assert!(page.keys.len() <= KEYS + 3, "{what}");

        for n in 0..KEYS {
            store(&backend, &key(n), wire(value(n, 2))).await;
            assert!(read(&backend, &key(n)).await == Some(value(n, 2)), "key {n}, {what}");
        }
        let create = Some(Counter { initial: 7, ttl: Ttl::Forever });
        assert_eq!(backend.add(&key("counter"), 1, create).await.unwrap(), Some(8), "{what}");
        for tag in &tags {
            build(&backend, &key("again"), tag).await;
            assert!(usable(&backend, &key("again")).await, "{what}");
            backend.invalidate(&shop(), std::slice::from_ref(tag)).await.unwrap();
            assert!(!usable(&backend, &key("again")).await, "{what}");
        }
        // Whatever the numbers said, they are right when somebody has counted.
        backend.sweep().await.unwrap();
        let there = files(&root.join("entries")).len() + files(&root.join("marks")).len();
        assert_eq!(backend.usage().await.unwrap().files, there as u64, "{what}");
        backend.clear(&shop()).await.unwrap();
        assert_eq!(read(&backend, &key(0)).await, None, "{what}");
    }
    assert!(hits > 0 && misses > 0, "{hits} hits and {misses} misses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_or_a_tag_with_a_flipped_byte_is_made_anew_and_nothing_fallen_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let tags = ["fallen", "valid"].map(|tag| Tag::new(tag).unwrap());
    fill(&backend, &tags).await;
    let marks = files(&directory.path().join("larder-v1/marks"));
    let whole: Vec<Vec<u8>> = marks.iter().map(|mark| fs::read(mark).unwrap()).collect();
    assert_eq!(whole.len(), 3, "the sequence and two tags");
    for (damaged, whole_one) in marks.iter().zip(&whole) {
        for at in 0..whole_one.len() {
            for (mark, whole) in marks.iter().zip(&whole) {
                fs::write(mark, whole).unwrap();
            }
            let mut bytes = whole_one.clone();
            bytes[at] ^= 0x10;
            fs::write(damaged, bytes).unwrap();
            let what = format!("byte {at} of {}", damaged.display());
            for tag in &tags {
                let seen = backend.marks(&shop(), std::slice::from_ref(tag)).await;
                assert!(seen.is_ok(), "{what}: {seen:?}");
            }
            assert!(!usable(&backend, &key("fallen")).await, "{what}");
            build(&backend, &key("again"), &tags[0]).await;
            assert!(usable(&backend, &key("again")).await, "{what}");
            backend.invalidate(&shop(), &tags[..1]).await.unwrap();
            assert!(!usable(&backend, &key("again")).await, "{what}");
        }
    }
}
