//! Indexes of which tests show what.

use std::path::Path;

// The conformance suite, which every backend and every wrapper runs.
const SUITE: &str = "crates/larder-testkit/src/suite";

/// A row's name, and the tests that show it: a file and a function in it. `suite/` is the public suite for backends.
pub type Row<'a> = (&'a str, &'a [&'a str]);

/// The tests of an index that were renamed or are gone.
pub fn missing(rows: &[Row<'_>]) -> Vec<String> {
    let all = rows.iter().flat_map(|(row, tests)| tests.iter().map(move |test| (row, test)));
    all.filter(|(_, test)| !is_there(test)).map(|(row, test)| format!("{row}: {test}")).collect()
}

/// Whether there is such a test: a function, or in the suite's files a check that the suite's list names too.
pub fn is_there(test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
    let Some((file, name)) = test.split_once(' ') else { return false };
    let in_suite = file.strip_prefix("suite/");
    let path = in_suite.map_or_else(|| root.join(file), |file| root.join(SUITE).join(file));
    let Ok(source) = std::fs::read_to_string(path) else { return false };
    let is_listed = || {
        let list = std::fs::read_to_string(root.join(SUITE).join("mod.rs"));
        list.is_ok_and(|list| list.split_whitespace().any(|word| word == name))
    };
    source.contains(&format!("fn {name}")) && (in_suite.is_none() || is_listed())
}
