//! Permissions, while somebody changes the umask all the time. It is the whole process's: so this is a program alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_core::{Backend, Encoded, Entry, Key, Namespace, Outcome, Tag, Ttl, When};
use larder_file::FileBackend;
use rustix::fs::Mode;
use rustix::process::umask;

mod common;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

async fn store(backend: &FileBackend, key: &Key) {
    let entry = Entry::wire(Encoded { body: "private".into(), ..Encoded::default() });
    let stored = backend.put(key, entry, Ttl::Forever, When::Always).await.unwrap();
    assert_eq!(stored, Outcome::Stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let changer = std::thread::spawn({
        let over = over.clone();
        move || {
            for mask in [0o777, 0o000, 0o027, 0o177].into_iter().cycle() {
                umask(Mode::from_raw_mode(mask));
                if over.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::yield_now();
            }
        }
    });
    let shop = Namespace::new("shop").unwrap();
    let tags = [Tag::new("t").unwrap()];
    for round in 0..20 {
        let root = directory.path().join(format!("made/{round}"));
        let backend = FileBackend::builder().path(&root).build().unwrap();
        backend.clear(&shop).await.unwrap();
        for n in 0..20 {
            let key = Key::new(&shop, [n.to_string()]).unwrap();
            store(&backend, &key).await;
            assert!(backend.get(&key, &[]).await.unwrap().entry.is_some());
        }
        backend.invalidate(&shop, &tags).await.unwrap();
        let files = common::files(&root);
        assert!(files.len() > 24, "entries, marks, a generation, totals, locks: {}", files.len());
        for file in files {
            assert_eq!(mode(&file), 0o600, "a file");
            let directories = file.ancestors().skip(1);
            for directory in
                directories.take_while(|path| path.starts_with(directory.path().join("made")))
            {
                assert_eq!(mode(directory), 0o700, "a directory");
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    changer.join().unwrap();
    umask(Mode::from_raw_mode(0o022));
}
