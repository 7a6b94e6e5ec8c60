//! `No-Vary-Search`: which queries of a path one response answers.
//!
//! The rule stands in the response, and the key is made before there is one. So a layer remembers what the responses of a
//! path said last, and writes the query into the key as that rule has it. It is only where to look: whether what lies
//! there answers a request is decided by the rule that it carries itself ([`Search`]). A response whose own rule would
//! have made another key is not stored but learned from; the next one is found.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_core::{KeyRef, Tag};
use larder_http_rules::authority::Authority;
use larder_http_rules::no_vary_search::NoVarySearch;
use parking_lot::RwLock;

/// What a stored response says about queries, and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) rule: NoVarySearch,
    /// As the rule has it.
    pub(super) query: Option<String>,
}

impl Search {
    /// Whether the response answers a request with this query, as far as queries go.
    pub(super) fn covers(&self, query: Option<&str>) -> bool {
        self.rule.canonical(query) == self.query
    }
}

/// What the responses of each path said last, as far as this process has seen.
#[derive(Default)]
pub(super) struct Searches {
    // Most services have none, and then nothing is locked.
    any: AtomicBool,
    rules: RwLock<HashMap<Box<[u8]>, Arc<NoVarySearch>>>,
}

// When there are so many, all are forgotten: they are learned again.
const MOST: usize = 4096;

impl Searches {
    /// Whether nothing was learned.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// The rule of a path, by how the keys of its URLs begin.
    pub(super) fn rule(&self, path: KeyRef<'_>) -> Option<Arc<NoVarySearch>> {
        if self.is_empty() {
            return None;
        }
        self.rules.read().get(path.as_bytes()).cloned()
    }

    pub(super) fn learn(&self, path: KeyRef<'_>, rule: Option<&NoVarySearch>) {
        if self.rule(path).as_deref() == rule {
            return;
        }
        let mut rules = self.rules.write();
        if rules.len() >= MOST {
            rules.clear();
        }
        match rule {
            Some(rule) => rules.insert(path.as_bytes().into(), Arc::new(rule.clone())),
            None => rules.remove(path.as_bytes()),
        };
        self.any.store(!rules.is_empty(), Ordering::Release);
    }
}

/// The tag of all that is stored for several queries of a path: what changes one of its URLs drops it, also by a node
/// that does not know the rule.
pub(super) fn tag(authority: Authority<'_>, path: &str) -> Option<Tag> {
    let scheme = authority.scheme().as_str();
    let path = blake3::hash(path.as_bytes()).to_hex();
    Tag::new(&format!("queries {scheme}://{authority} {}", &path[..32])).ok()
}
