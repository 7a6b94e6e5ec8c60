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

/// Whether there is such a test: a function that is run as one and not left out, or in the suite's files a check that the
/// suite's list names too.
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
    match in_suite {
        Some(_) => !heads(&source, name).is_empty() && is_listed(),
        None => is_run(&source, name),
    }
}

/// Whether a source has a test of that name, and nothing leaves it out.
pub fn is_run(source: &str, name: &str) -> bool {
    let runs = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let is_left_out = |line: &&str| line.contains("ignore");
    heads(source, name).iter().any(|head| head.iter().any(runs) && !head.iter().any(is_left_out))
}

// The attributes of each function of that name.
fn heads<'a>(source: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_its = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let line = line.strip_prefix("async ").unwrap_or(line);
        let rest = line.strip_prefix("fn ").and_then(|line| line.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['(', '<']))
    };
    let head = |at: usize| {
        let above = lines[..at].iter().rev().copied();
        let above = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.filter(|line| line.starts_with("#[")).collect()
    };
    (0..lines.len()).filter(|at| is_its(lines[*at])).map(head).collect()
}
