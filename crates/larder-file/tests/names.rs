//! Keys, tags and prefixes that would lead somewhere else if they were paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_core::{
    Backend, Counter, Encoded, Entry, Key, Namespace, Outcome, Prefix, Tag, Ttl, When,
};
use larder_file::FileBackend;

mod common;

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn open(root: &Path) -> FileBackend {
    FileBackend::builder().path(root).build().unwrap()
}

// Everything that lies there, directories too.
fn all(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

fn hostile(outside: &Path) -> Vec<Vec<u8>> {
    let absolute = outside.join("canary");
    let mut parts: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "../",
        "/",
        "//",
        "\r\n",
        "a\r\nb",
        "\0",
        "a\0b",
        "canary\0.tmp",
        "~",
        "$HOME",
        "*",
        "\\..\\canary",
        "C:\\canary",
        "con",
        ".tmp",
        "00000000000000000000000000000000.tmp",
        "larder-v1",
        "README",
        "\u{202e}ü\u{308}",
        absolute.to_str().unwrap(),
    ]
    .map(|part| part.as_bytes().to_vec())
    .into();
    parts.extend((1..9).map(|depth| format!("{}canary", "../".repeat(depth)).into_bytes()));
    parts.extend((1..9).map(|depth| format!("{}canary\0", "a/../../".repeat(depth)).into_bytes()));
    parts.extend([b"\xff\xfe".to_vec(), b"../\xc3\x28".to_vec(), (0..=255).collect()]);
    parts.extend([b"../".repeat(3_500), vec![b'x'; 10 << 10], vec![0xff; 10 << 10]]);
    parts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_leads_out_of_the_directory_or_into_its_names() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("some/where/own");
    fs::create_dir_all(&root).unwrap();
    fs::write(outside.path().join("some/neighbour"), "somebody's").unwrap();
    let before = all(outside.path());
    let own = root.join("larder-v1");
    let backend = open(&root);
    let expect_confined = |what: &str| {
        for path in all(outside.path()).difference(&before) {
            let Ok(below) = path.strip_prefix(&own) else { panic!("{what}: {path:?} is new") };
            for name in below {
                let name = name.to_str().expect("it is text");
                let plain = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
                assert!(name.len() <= 200 && name.bytes().all(plain), "{what}: {name:?}");
                assert!(!name.starts_with('.'), "{what}: {name:?}");
            }
        }
        assert!(before.is_subset(&all(outside.path())), "{what}: something is gone");
    };

    let parts = hostile(outside.path());
    for (n, part) in parts.iter().enumerate() {
        let what = format!("key {n}");
        let hold = Duration::from_secs(60);
        // As what is shown first, as what is only hashed, and as what a tag's record looks like.
        for parts in [&[&part[..]][..], &[b"d", part], &[part, part], &[b"t", part], &[b"q", part]]
        {
            let key = Key::new(&shop(), parts).unwrap();
            let entry = Entry::wire(Encoded { body: part.clone().into(), ..Encoded::default() });
            assert!(!backend.touch(&key, Ttl::Forever).await.unwrap(), "{what} is a new one");
            let stored = backend.put(&key, entry, Ttl::Forever, When::Absent).await.unwrap();
            assert_eq!(stored, Outcome::Stored, "{what}");
            assert!(backend.touch(&key, Ttl::Forever).await.unwrap(), "{what}");
        }
        let counter = Key::new(&shop(), [&b"counter"[..], part]).unwrap();
        let create = Some(Counter { initial: 0, ttl: Ttl::Forever });
        assert_eq!(backend.add(&counter, 1, create).await.unwrap(), Some(1), "{what}");
        let marker = Key::new(&shop(), [&b"marker"[..], part]).unwrap();
        backend.begin(&marker, hold).await.unwrap();
        if let Some(tag) = std::str::from_utf8(part).ok().and_then(|text| Tag::new(text).ok()) {
            let tags = [tag.clone(), tag.lasting()];
            backend.marks(&shop(), &tags).await.unwrap();
            backend.invalidate(&shop(), &tags).await.unwrap();
        }
        backend.page(&Prefix::new(&shop()).part(part), None, 10).await.unwrap();
        expect_confined(&what);
    }

    // Each is there under its own name, for whoever comes next, and can be removed.
    let again = open(&root);
    for (n, part) in parts.iter().enumerate() {
        let key = Key::new(&shop(), [&b"d"[..], part]).unwrap();
        let found = again.get(&key, &[]).await.unwrap().entry.expect("it was stored");
        assert!(found.encoded().unwrap().body == part[..], "key {n} has its own value");
        assert!(again.remove(&key, None).await.unwrap(), "key {n}");
        expect_confined(&format!("removing key {n}"));
    }
    again.clear(&shop()).await.unwrap();
    again.sweep().await.unwrap();
    expect_confined("clearing");
    assert_eq!(common::files(&own.join("entries")).len(), 0);
    assert_eq!(fs::read(outside.path().join("some/neighbour")).unwrap(), b"somebody's");
}
