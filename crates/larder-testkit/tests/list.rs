//! No check is forgotten in the list that the macro and `suite::checks` read.

use std::collections::BTreeSet;
use std::path::Path;

use larder_testkit::reference::Reference;
use larder_testkit::suite;

#[test]
fn every_check_is_listed_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite");
    let mut written = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let group = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // It runs them, and is none.
        if group == "run" {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            if let Some(name) = line.strip_prefix("pub async fn ").and_then(|l| l.split_once('<')) {
                written.insert(format!("{group}::{}", name.0));
            }
        }
    }
    let listed: Vec<_> = suite::checks::<Reference>().iter().map(|check| check.name).collect();
    let once: BTreeSet<String> = listed.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(once.len(), listed.len(), "a check is listed twice");
    assert_eq!(once, written);
}
