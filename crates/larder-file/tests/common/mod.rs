//! Where the records lie, told apart from the crate's own code.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use larder_core::{Generation, Key};

/// The file of a key's record. The namespace must have been written to before.
pub(crate) fn place(root: &Path, key: &Key) -> PathBuf {
    let generations = root.join("larder-v1/generations");
    fs::create_dir_all(&generations).unwrap();
    let generation = match fs::read_to_string(generations.join(key.namespace())) {
        Ok(text) => Generation::parse(text.trim_end()).unwrap(),
        Err(_) => {
            let new = Generation::random();
            fs::write(generations.join(key.namespace()), format!("{new}\n")).unwrap();
            new
        }
    };
    let name = key.as_ref().wire_name(generation).replace(':', ".");
    let shelf = &name[name.len() - 64..][..2];
    root.join("larder-v1/entries").join(shelf).join(name)
}

/// Writes raw bytes to where a key's record lies.
pub(crate) fn plant(root: &Path, key: &Key, bytes: &[u8]) {
    let place = place(root, key);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, bytes).unwrap();
}

/// Every file below a directory.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}
