//! What lies in the directory: whose it is, how much, and what is never touched.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use larder_core::{
    Backend, Begin, Clock, Encoded, Entry, ErrorKind, Key, Namespace, Outcome, Prefix, Remaining,
    Tag, Ttl, When,
};
use larder_file::{Builder, FileBackend};
use rustix::fs::Mode;
use tempfile::TempDir;

mod common;
use common::{files, place, plant};

const LONG: Ttl = Ttl::For(Duration::from_secs(3600));

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn key(part: &str) -> Key {
    Key::new(&shop(), ["d", part]).unwrap()
}

fn entry(bytes: usize) -> Entry {
    Entry::wire(Encoded { codec: 9, body: vec![7; bytes].into(), ..Encoded::default() })
}

fn builder(directory: &TempDir) -> Builder {
    FileBackend::builder().path(directory.path())
}

async fn store(backend: &FileBackend, key: &Key, bytes: usize) {
    let stored = backend.put(key, entry(bytes), LONG, When::Always).await.unwrap();
    assert_eq!(stored, Outcome::Stored);
}

async fn there(backend: &FileBackend, key: &Key) -> bool {
    backend.get(key, &[]).await.unwrap().entry.is_some()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_used(path: &Path, ago: Duration) {
    let used = SystemTime::now() - ago;
    File::options().write(true).open(path).unwrap().set_modified(used).unwrap();
}

#[tokio::test]
async fn a_directory_that_was_opened_to_others_is_closed_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let root = directory.path().join("larder-v1");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
    builder(&directory).build().unwrap();
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(directory.path()), 0o755, "what is not ours stays as it is");
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_while_configuring() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), directory.path().join("larder-v1")).unwrap();
    let error = builder(&directory).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("larder-v1"), "{error}");
    fs::remove_file(directory.path().join("larder-v1")).unwrap();
    fs::write(directory.path().join("larder-v1"), "a file").unwrap();
    let error = builder(&directory).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(fs::read(directory.path().join("larder-v1")).unwrap(), b"a file");
}

#[tokio::test]
async fn what_belongs_to_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("larder-v1");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
    // Only the superuser can give a directory away.
    if chown(&root, Some(65_534), None).is_err() {
        return;
    }
    let error = builder(&directory).build().unwrap_err();
    assert!(error.to_string().contains("another user"), "{error}");
    assert_eq!((fs::read_dir(&root).unwrap().count(), mode(&root)), (0, 0o777), "left as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_files_are_never_touched() {
    let directory = tempfile::tempdir().unwrap();
    let small = builder(&directory).max_bytes(32 * 4096).max_files(16);
    let backend = small.build().unwrap();
    store(&backend, &key("one"), 10).await;
    let shelf = place(directory.path(), &key("one")).parent().unwrap().to_owned();
    let hash = "0".repeat(64);
    let mut foreign = Vec::new();
    for place in [directory.path(), &directory.path().join("larder-v1"), &shelf] {
        for name in ["README", "notes.tmp", ".hidden", &format!("shop.{hash}"), "shop.bak"] {
            let path = place.join(name);
            fs::write(&path, "somebody's").unwrap();
            set_used(&path, Duration::from_secs(100 * 24 * 60 * 60));
            foreign.push(path);
        }
        fs::create_dir_all(place.join("folder")).unwrap();
        fs::write(place.join("folder/file"), "somebody's").unwrap();
        foreign.push(place.join("folder/file"));
    }
    // A folder that is called like a record is no record either.
    let record = place(directory.path(), &key("two"));
    fs::create_dir_all(&record).unwrap();
    fs::write(record.join("inside"), "somebody's").unwrap();
    foreign.push(record.join("inside"));

    for n in 0..100 {
        store(&backend, &key(&n.to_string()), 4000).await;
    }
    assert!(!there(&backend, &key("two")).await, "a folder is a miss");
    let error = backend.put(&key("two"), entry(1), LONG, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains("two"), "{error}");
    assert!(!backend.remove(&key("two"), None).await.unwrap());
    backend.clear(&shop()).await.unwrap();
    backend.sweep().await.unwrap();
    for path in foreign {
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's", "{path:?}");
    }
    assert!(backend.usage().await.unwrap().files <= 1, "ours are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_at_an_entrys_place_is_not_followed_or_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "somebody's").unwrap();
    store(&backend, &key("whole"), 10).await;
    let whole = place(directory.path(), &key("whole"));

    for (name, target) in [("link", elsewhere.as_path()), ("link to ours", whole.as_path())] {
        let link = place(directory.path(), &key(name));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, &link).unwrap();
        assert!(!there(&backend, &key(name)).await, "a link is a miss");
        assert!(!backend.touch(&key(name), Ttl::Forever).await.unwrap(), "a link is a miss");
        store(&backend, &key(name), 10).await;
        assert!(fs::symlink_metadata(&link).unwrap().is_file(), "the link was replaced");
        assert!(there(&backend, &key(name)).await);
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's");

    let pipe = place(directory.path(), &key("pipe"));
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(!there(&backend, &key("pipe")).await, "a pipe is a miss");
    assert!(matches!(
        backend.begin(&key("pipe"), Duration::from_secs(60)).await.unwrap(),
        Begin::Token(_)
    ));

    // A file that promises a gigabyte costs nothing.
    plant(directory.path(), &key("huge"), b"LRDR\x01");
    let huge = File::options().write(true).open(place(directory.path(), &key("huge"))).unwrap();
    huge.set_len(1 << 30).unwrap();
    assert!(!there(&backend, &key("huge")).await, "what is too large is a miss");

    // An empty folder makes way for an entry.
    let folder = place(directory.path(), &key("folder"));
    fs::create_dir_all(&folder).unwrap();
    store(&backend, &key("folder"), 10).await;
    assert!(there(&backend, &key("folder")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_byte_is_a_miss() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    store(&backend, &key("flipped"), 50).await;
    let path = place(directory.path(), &key("flipped"));
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        assert!(!there(&backend, &key("flipped")).await, "byte {at} was flipped");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(!there(&backend, &key("flipped")).await, "it was cut at {at}");
    }
    fs::write(&path, &whole).unwrap();
    assert!(there(&backend, &key("flipped")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporaries_of_the_dead_are_swept_after_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    store(&backend, &key("one"), 10).await;
    let shelf = place(directory.path(), &key("one")).parent().unwrap().to_owned();
    let generations = directory.path().join("larder-v1/generations");
    for place in [&shelf, &generations] {
        for (name, minutes) in [("0", 61), ("1", 59), ("2", 0)] {
            let path = place.join(format!("{}.tmp", name.repeat(32)));
            fs::write(&path, "half").unwrap();
            set_used(&path, Duration::from_secs(minutes * 60));
        }
    }
    // Opening does not look.
    let again = builder(&directory).build().unwrap();
    assert!(shelf.join(format!("{}.tmp", "0".repeat(32))).exists());
    again.sweep().await.unwrap();
    for place in [&shelf, &generations] {
        for (name, left) in [("0", false), ("1", true), ("2", true)] {
            let path = place.join(format!("{}.tmp", name.repeat(32)));
            assert_eq!(path.exists(), left, "{name}");
        }
    }
    assert!(there(&backend, &key("one")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_frees_what_is_over_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hands) = Clock::manual();
    let backend = builder(&directory).clock(clock).build().unwrap();
    for n in 0..20 {
        let short = key(&format!("short {n}"));
        let ttl = Ttl::For(Duration::from_secs(10));
        let _ = backend.put(&short, entry(10), ttl, When::Always).await.unwrap();
        store(&backend, &key(&format!("long {n}")), 10).await;
        let begun = backend.begin(&key(&format!("begun {n}")), Duration::from_secs(10)).await;
        assert!(matches!(begun, Ok(Begin::Token(_))));
    }
    let tags = [Tag::new("a").unwrap(), Tag::new("b").unwrap()];
    let marks = backend.marks(&shop(), &tags).await.unwrap();
    backend.sweep().await.unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 63);
    hands.advance(Duration::from_secs(10));
    backend.sweep().await.unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 23);
    for n in 0..20 {
        assert!(there(&backend, &key(&format!("long {n}"))).await);
    }

    // A tag that nobody asked for in a month goes, and so does the sequence.
    let month = Duration::from_secs(31 * 24 * 60 * 60);
    for file in files(&directory.path().join("larder-v1/marks")) {
        set_used(&file, month);
    }
    let again = backend.marks(&shop(), &tags[..1]).await.unwrap();
    assert_eq!(again.sequence, marks.sequence);
    backend.sweep().await.unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 22, "the other tag is gone");

    backend.clear(&shop()).await.unwrap();
    backend.sweep().await.unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 0);
    assert_eq!(files(&directory.path().join("larder-v1/entries")).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bounds_hold_at_every_moment() {
    const BYTES: u64 = 100 * 4096;
    const FILES: u64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let open = || builder(&directory).max_bytes(BYTES).max_files(FILES).build().unwrap();
    let handles = [open(), open()];
    let mut writers = Vec::new();
    for (n, handle) in handles.into_iter().enumerate() {
        writers.push(tokio::spawn(async move {
            for round in 0..300_usize {
                let size = (round * 7919) % 20_000;
                store(&handle, &key(&format!("{n} {}", round % 70)), size).await;
                let usage = handle.usage().await.unwrap();
                assert!(usage.bytes <= BYTES && usage.files <= FILES, "{usage:?}");
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }

    // What is counted is what is there.
    let backend = open();
    let usage = backend.usage().await.unwrap();
    let records = files(&directory.path().join("larder-v1/entries"));
    let bytes: u64 =
        records.iter().map(|file| fs::metadata(file).unwrap().len().div_ceil(4096) * 4096).sum();
    assert_eq!((usage.files, usage.bytes), (records.len() as u64, bytes));
    assert!(usage.bytes > BYTES / 2 || usage.files > FILES / 2, "the room is used: {usage:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_used_least_recently_makes_way_and_marks_come_last() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).max_files(40).build().unwrap();
    let tags: Vec<Tag> = (0..9).map(|n| Tag::new(&format!("tag {n}")).unwrap()).collect();
    let marks = backend.marks(&shop(), &tags).await.unwrap();
    for n in 0..30 {
        store(&backend, &key(&n.to_string()), 10).await;
    }
    let hour = Duration::from_secs(60 * 60);
    for file in files(&directory.path().join("larder-v1/marks")) {
        set_used(&file, 100 * hour);
    }
    for n in 0..30 {
        set_used(&place(directory.path(), &key(&n.to_string())), hour * (n + 1));
    }
    // The oldest half is used again.
    for n in 15..30 {
        assert!(there(&backend, &key(&n.to_string())).await);
    }
    for n in 0..12 {
        store(&backend, &key(&format!("new {n}")), 10).await;
    }
    let mut left = Vec::new();
    for n in 0..30 {
        if there(&backend, &key(&n.to_string())).await {
            left.push(n);
        }
    }
    // Four of thirty make way at once, the oldest first.
    let expected: Vec<u32> = (0..3).chain(15..30).collect();
    assert_eq!(left, expected, "what was used stays");
    let again = backend.marks(&shop(), &tags).await.unwrap();
    assert_eq!((again.sequence, again.tags), (marks.sequence, marks.tags), "marks stay");

    // A flood of tags does not push the bound, nor the sequence out.
    for n in 0..200 {
        let tag = Tag::new(&format!("flood {n}")).unwrap();
        let seen = backend.marks(&shop(), &[tag]).await.unwrap();
        assert_eq!(seen.sequence, marks.sequence);
    }
    assert!(backend.usage().await.unwrap().files <= 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleared_namespace_makes_way_first() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).max_files(40).build().unwrap();
    let kept = Key::new(&Namespace::new("kept").unwrap(), ["d", "kept"]).unwrap();
    store(&backend, &kept, 10).await;
    set_used(&place(directory.path(), &kept), Duration::from_secs(100 * 60 * 60));
    for n in 0..39 {
        store(&backend, &key(&n.to_string()), 10).await;
    }
    // As another process would clear it: nobody sweeps here.
    let generation = directory.path().join("larder-v1/generations/shop");
    fs::write(generation, "0123456789abcdef\n").unwrap();
    assert!(!there(&backend, &key("0")).await, "it was cleared");
    for n in 0..39 {
        store(&backend, &key(&n.to_string()), 10).await;
    }
    assert!(there(&backend, &kept).await, "what was cleared went first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_were_lost_or_damaged_are_counted_again() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).max_files(100).build().unwrap();
    let totals = directory.path().join("larder-v1/locks/totals");
    for n in 0..50 {
        store(&backend, &key(&n.to_string()), 10).await;
    }
    fs::remove_file(&totals).unwrap();
    assert_eq!(backend.usage().await.unwrap().files, 50);
    fs::remove_file(&totals).unwrap();
    store(&backend, &key("50"), 10).await;
    assert_eq!(backend.usage().await.unwrap().files, 51);
    // Every shelf claims more than there can be: what is there stays all the same.
    fs::write(&totals, vec![0x7f; 10_000]).unwrap();
    store(&backend, &key("51"), 10).await;
    assert_eq!(backend.usage().await.unwrap().files, 52);
    fs::write(&totals, "").unwrap();
    store(&backend, &key("52"), 10).await;
    let count = files(&directory.path().join("larder-v1/entries")).len();
    assert_eq!(backend.usage().await.unwrap().files, count as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleared_namespace_is_gone_for_every_handle_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (builder(&directory).build().unwrap(), builder(&directory).build().unwrap());
    // One that is asked for again and again, and more than a handle remembers.
    for n in 0..100 {
        for name in ["shop".to_owned(), format!("shop-{}", n % 20)] {
            let namespace = Namespace::new(&name).unwrap();
            let key = Key::new(&namespace, ["d", "k"]).unwrap();
            store(&one, &key, 10).await;
            assert!(there(&other, &key).await && there(&one, &key).await, "{name} {n}");
            other.clear(&namespace).await.unwrap();
            assert!(!there(&one, &key).await && !there(&other, &key).await, "{name} {n}");
        }
    }
    // Somebody writes into the file itself, which nobody of ours does.
    store(&one, &key("k"), 10).await;
    let generation = directory.path().join("larder-v1/generations/shop");
    let text = fs::read(&generation).unwrap();
    assert!(there(&other, &key("k")).await);
    let old = SystemTime::now() - Duration::from_secs(60);
    fs::write(&generation, "0000000000000000\n").unwrap();
    File::options().write(true).open(&generation).unwrap().set_modified(old).unwrap();
    assert!(!there(&other, &key("k")).await);
    fs::remove_file(&generation).unwrap();
    assert!(!there(&other, &key("k")).await);
    fs::write(&generation, text).unwrap();
    assert!(there(&other, &key("k")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_taken_away_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, other) =
        (builder(&directory).build().unwrap(), builder(&directory).build().unwrap());
    store(&backend, &key("one"), 10).await;
    assert!(there(&other, &key("one")).await);
    fs::remove_dir_all(directory.path().join("larder-v1")).unwrap();
    assert!(!there(&backend, &key("one")).await);
    assert_eq!(backend.remaining(&key("one")).await.unwrap(), Remaining::Absent);
    store(&backend, &key("one"), 10).await;
    store(&other, &key("two"), 10).await;
    assert!(there(&other, &key("one")).await && there(&backend, &key("two")).await);
    let add = Some(larder_core::Counter { initial: 0, ttl: LONG });
    let mut adders = Vec::new();
    for backend in [backend, other] {
        adders.push(tokio::spawn(async move {
            for _ in 0..100 {
                backend.add(&key("count"), 1, add).await.unwrap();
            }
        }));
    }
    for adder in adders {
        adder.await.unwrap();
    }
    let backend = builder(&directory).build().unwrap();
    assert_eq!(backend.add(&key("count"), 0, None).await.unwrap(), Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_write_one_directory_with_fsync_too() {
    let directory = tempfile::tempdir().unwrap();
    let first = builder(&directory).fsync(true).build().unwrap();
    let second = builder(&directory).build().unwrap();
    store(&first, &key("one"), 10).await;
    assert!(first.touch(&key("one"), Ttl::Forever).await.unwrap());
    assert_eq!(second.remaining(&key("one")).await.unwrap(), Remaining::Forever);
    second.clear(&shop()).await.unwrap();
    assert!(!there(&first, &key("one")).await, "the other cleared it");
    store(&first, &key("one"), 10).await;
    assert!(second.remove(&key("one"), None).await.unwrap());
    assert!(!there(&first, &key("one")).await, "the other removed it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_is_never_seen_half() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) =
        (builder(&directory).build().unwrap(), builder(&directory).build().unwrap());
    store(&writer, &key("touched"), 100_000).await;
    let touching = tokio::spawn(async move {
        for n in 0..1000 {
            let ttl = Ttl::For(Duration::from_secs(1000 + n));
            assert!(writer.touch(&key("touched"), ttl).await.unwrap(), "it is there");
        }
    });
    while !touching.is_finished() {
        assert!(there(&reader, &key("touched")).await, "it is there all the time");
    }
    touching.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_holds_no_reader_up_and_no_writer_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    let tags = [Tag::new("t").unwrap()];
    store(&backend, &key("one"), 10).await;
    let marks = backend.marks(&shop(), &tags).await.unwrap();
    // As a process does that was stopped at the worst moment.
    let other = directory.path().join("larder-v1/locks");
    let mut held = Vec::new();
    for n in 0..80 {
        let name = other.join(format!("{n:02x}"));
        let file = File::options().write(true).create(true).truncate(false).open(name).unwrap();
        file.lock().unwrap();
        held.push(file);
    }
    assert!(there(&backend, &key("one")).await, "reading takes no lock");
    assert_eq!(backend.marks(&shop(), &tags).await.unwrap().tags, marks.tags);
    let late = backend.put(&key("one"), entry(20), LONG, When::Always).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    let waiting = tokio::spawn({
        let backend = backend.clone();
        async move { backend.put(&key("one"), entry(30), LONG, When::Always).await }
    });
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), Outcome::Stored, "it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_looks_at_no_entry() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    for n in 0..300 {
        store(&backend, &key(&n.to_string()), 10).await;
    }
    // Somewhere where nobody can look without being noticed.
    let read = |path: &Path| fs::metadata(path).unwrap().accessed().unwrap();
    let entries = directory.path().join("larder-v1/entries");
    let old = SystemTime::now() - Duration::from_secs(48 * 60 * 60);
    let times = fs::FileTimes::new().set_accessed(old);
    let shelves: Vec<_> =
        fs::read_dir(&entries).unwrap().map(|shelf| shelf.unwrap().path()).collect();
    for shelf in &shelves {
        File::open(shelf).unwrap().set_times(times).unwrap();
    }
    drop(backend);
    let before: Vec<_> = shelves.iter().map(|shelf| read(shelf)).collect();
    let again = builder(&directory).build().unwrap();
    let after: Vec<_> = shelves.iter().map(|shelf| read(shelf)).collect();
    assert_eq!(before, after);
    assert!(there(&again, &key("299")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_bounded_and_complete() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    for n in 0..200 {
        store(&backend, &key(&format!("page {n}")), 1).await;
    }
    for limit in [1, 7, 200, 1000] {
        let (mut keys, mut from) = (Vec::new(), None);
        loop {
            let page = backend.page(&Prefix::new(&shop()).part("d"), from, limit).await.unwrap();
            assert!(page.keys.len() <= limit);
            keys.extend(page.keys);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), all), (200, 200), "each key once, in pages of {limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_finds_no_room_takes_the_old_one_away() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).max_bytes(64 * 1024).build().unwrap();
    store(&backend, &key("one"), 100).await;
    let result = backend.put(&key("one"), entry(20_000), LONG, When::Always).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(!there(&backend, &key("one")).await);
    assert_eq!(backend.usage().await.unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_up_to_the_limit_are_stored_and_not_a_byte_more() {
    let directory = tempfile::tempdir().unwrap();
    for limit in [1 << 10, 100_000, 4 << 20] {
        let backend = builder(&directory).max_value_bytes(limit).build().unwrap();
        let key = key("large");
        // The envelope has a hundred bytes, and repeats the key.
        let most = limit as usize - 100 - key.as_ref().as_bytes().len();
        let put = async |bytes, when| backend.put(&key, entry(bytes), LONG, when).await;
        let whole = async || {
            let found = backend.get(&key, &[]).await.unwrap().entry;
            found.is_some_and(|entry| entry.encoded().unwrap().body.len() == most)
        };
        assert_eq!(put(most, When::Always).await.unwrap(), Outcome::Stored, "the largest fits");
        assert!(whole().await, "it comes back, of {limit}");
        let length = fs::metadata(place(directory.path(), &key)).unwrap().len();
        assert_eq!(length, limit, "the limit is the file's");
        assert_eq!(put(most + 1, When::Absent).await.unwrap(), Outcome::Refused, "it is there");
        assert!(whole().await, "a refusal changes nothing");
        let error = put(most + 1, When::Always).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
        assert!(!there(&backend, &key).await, "the old value is gone");
        assert_eq!(backend.usage().await.unwrap().files, 0, "and its file");
    }
}

#[test]
fn outside_a_runtime_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let backend = builder(&directory).build().unwrap();
    let key = key("one");
    let mut get = std::pin::pin!(backend.get(&key, &[]));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = get.as_mut().poll(&mut context) else {
        panic!("it must fail at once");
    };
    assert!(error.to_string().contains("Tokio"), "{error}");
}

#[tokio::test]
async fn a_record_lies_where_it_is_said_to() {
    let directory = TempDir::new().unwrap();
    let backend = builder(&directory).build().unwrap();
    assert_eq!(backend.place(&key("a")).await.unwrap(), None, "nothing was ever written there");
    store(&backend, &key("a"), 100).await;
    let path = backend.place(&key("a")).await.unwrap().expect("something was");
    assert!(path.starts_with(directory.path()), "{path:?}");
    assert!(fs::read(&path).unwrap().starts_with(b"LRDR"));
    fs::remove_file(&path).unwrap();
    assert!(!there(&backend, &key("a")).await);
}
