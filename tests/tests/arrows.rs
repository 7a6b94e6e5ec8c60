//! The house: dependency arrows point down.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The floors of `ARCHITECTURE.md`. A crate may depend on crates of lower floors.
const FLOORS: [(&str, u32); 12] = [
    ("larder-core", 1),
    ("larder-http-rules", 1),
    ("larder-memory", 2),
    ("larder-redis", 2),
    ("larder-memcached", 2),
    ("larder-file", 2),
    ("larder-sql", 2),
    ("larder-cache", 3),
    ("larder-http", 4),
    ("larder-session", 4),
    ("larder-grpc", 4),
    ("larder", 5),
];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata")
}

/// Each of our crates with those of ours that it depends on.
fn arrows(metadata: &Metadata, kinds: &[DependencyKind]) -> BTreeMap<String, BTreeSet<String>> {
    let ours: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let depends = |package: &cargo_metadata::Package| {
        let all = package.dependencies.iter();
        all.filter(|one| kinds.contains(&one.kind) && ours.contains(&one.name))
            .map(|one| one.name.clone())
            .collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), depends(package))).collect()
}

/// What points up, sideways, or where nothing is known.
fn wrong(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let floor =
        |name: &str| FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor);
    let mut wrong = Vec::new();
    for (from, to) in arrows {
        let Some(own) = floor(from) else {
            if from == "larder-testkit" && to.iter().any(|to| to != "larder-core") {
                wrong.push(format!(
                    "{from} stands beside the house, on larder-core alone, and depends on {to:?}"
                ));
            }
            continue;
        };
        for to in to {
            let theirs = floor(to);
            if theirs.is_none_or(|theirs| theirs >= own) {
                wrong.push(format!("{from} (floor {own}) depends on {to} (floor {theirs:?})"));
            }
        }
    }
    wrong
}

#[test]
fn dependency_arrows_point_down() {
    let metadata = metadata();
    let arrows = arrows(&metadata, &[DependencyKind::Normal, DependencyKind::Build]);
    assert_eq!(wrong(&arrows), Vec::<String>::new());
    // Every published crate has its floor, and nobody depends on what is not published.
    for package in metadata.packages.iter().filter(|package| package.publish.is_none()) {
        let name = package.name.as_str();
        assert!(
            name == "larder-testkit" || FLOORS.iter().any(|(known, _)| *known == name),
            "{name} has no floor: say in FLOORS where it stands"
        );
    }
    for (name, _) in FLOORS {
        assert!(arrows.contains_key(name), "{name} is gone");
    }
}

#[test]
fn an_arrow_that_points_up_is_seen() {
    let house =
        |from: &str, to: &str| BTreeMap::from([(from.to_owned(), BTreeSet::from([to.to_owned()]))]);
    for (from, to) in [
        ("larder-core", "larder-cache"),
        ("larder-core", "larder-http-rules"),
        ("larder-memory", "larder-redis"),
        ("larder-cache", "larder-http"),
        ("larder-http", "larder"),
        ("larder-session", "larder-http"),
        ("larder-grpc", "larder-http"),
        ("larder-cache", "larder-testkit"),
        ("larder-testkit", "larder-memory"),
    ] {
        assert_eq!(wrong(&house(from, to)).len(), 1, "{from} -> {to}");
    }
    assert_eq!(wrong(&house("larder-http", "larder-core")).len(), 0);
}

#[test]
fn no_dev_dependency_makes_a_cycle() {
    let all = [DependencyKind::Normal, DependencyKind::Build, DependencyKind::Development];
    let arrows = arrows(&metadata(), &all);
    for start in arrows.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = arrows[start].iter().collect();
        while let Some(name) = next.pop() {
            if reached.insert(name) {
                next.extend(&arrows[name]);
            }
        }
        assert!(
            !reached.contains(start),
            "{start} depends on itself, by way of some of {reached:?}"
        );
    }
}

#[test]
fn only_the_layers_know_http_and_only_backends_their_clients() {
    let metadata = metadata();
    let uses = |name: &str, what: &str| {
        let package = metadata
            .packages
            .iter()
            .find(|package| package.name.as_str() == name)
            .expect("a crate");
        package
            .dependencies
            .iter()
            .any(|one| one.kind == DependencyKind::Normal && one.name == what)
    };
    let stores = ["larder-memory", "larder-redis", "larder-memcached", "larder-file", "larder-sql"];
    for storing in stores.into_iter().chain(["larder-core", "larder-cache"]) {
        for foreign in ["http", "http-body", "tower-service", "tower-layer", "axum", "hyper"] {
            assert!(!uses(storing, foreign), "{storing} knows {foreign}");
        }
    }
    for foreign in ["tokio", "tower-service", "http-body", "quick_cache", "redis", "parking_lot"] {
        assert!(!uses("larder-http-rules", foreign), "the rules need {foreign}");
    }
    for client in ["quick_cache", "redis", "sqlx"] {
        for (name, _) in FLOORS.iter().filter(|(_, floor)| *floor != 2) {
            assert!(!uses(name, client), "{name} uses {client}");
        }
    }
}

#[test]
fn every_backend_has_the_same_rooms() {
    for backend in ["memory", "redis", "memcached", "file", "sql"] {
        // Memory has no client: it is its own.
        let client = (backend != "memory").then_some("client.rs");
        for room in ["lib.rs", "config.rs", "store.rs"].into_iter().chain(client) {
            let manifest = env!("CARGO_MANIFEST_DIR");
            let path = format!("{manifest}/../crates/larder-{backend}/src/{room}");
            assert!(std::path::Path::new(&path).is_file(), "{path}");
        }
    }
}
