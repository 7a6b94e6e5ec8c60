//! What a set-up risks.

use std::fmt;
use std::time::Duration;

use larder_core::Ttl;
use url::Url;

use super::{CacheSettings, CachesSettings};
use crate::Cache;

/// A warning about how a cache is set up. It works as it is; what may happen is said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advice {
    /// The cache's name.
    pub cache: String,
    /// What is risked.
    pub risk: Risk,
}

/// What a set-up risks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Risk {
    /// Memory of one process, where several use it: none sees what another one changes.
    MemoryInSeveralProcesses,
    /// Memory before a store that carries no messages: other nodes see changes only when what is near is too old.
    NearWithoutBus,
    /// A time budget of more than two seconds: an outage is waited for by every request.
    SlowToFail,
    /// Values without a lifetime of their own never end, in a store that drops nothing.
    NothingEnds,
    /// Another cache is in the same namespace of the same store: clearing one empties both.
    SharedNamespace,
    /// A password goes over the network for all to read.
    ClearText,
    /// It keeps nothing.
    NothingKept,
    /// Sessions may be dropped before their time.
    SessionsMayBeEvicted,
    /// Sessions and other values are in one room, and each may push the other out.
    SessionsShareRoom,
    /// Sessions end with the process or the server.
    SessionsEndWithTheStore,
}

impl Risk {
    /// The risk as a short, stable word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::MemoryInSeveralProcesses => "memory-in-several-processes",
            Risk::NearWithoutBus => "near-without-bus",
            Risk::SlowToFail => "slow-to-fail",
            Risk::NothingEnds => "nothing-ends",
            Risk::SharedNamespace => "shared-namespace",
            Risk::ClearText => "clear-text",
            Risk::NothingKept => "nothing-kept",
            Risk::SessionsMayBeEvicted => "sessions-may-be-evicted",
            Risk::SessionsShareRoom => "sessions-share-room",
            Risk::SessionsEndWithTheStore => "sessions-end-with-the-store",
        }
    }

    /// What may happen, and what to do about it.
    pub fn words(self) -> &'static str {
        match self {
            Risk::MemoryInSeveralProcesses => {
                "each process has a memory of its own, and none sees what another one changes; keep it in a server, a file or a database, with tiered:memory:// before it where speed matters"
            }
            Risk::NearWithoutBus => {
                "the store behind the memory carries no messages, so other nodes read what is outdated for up to the ceiling; use redis:// or postgres:// there, or keep the ceiling short"
            }
            Risk::SlowToFail => {
                "a time budget of more than 2s makes every request wait for a store that is down; the defaults are 100ms for reading and 250ms for writing"
            }
            Risk::NothingEnds => {
                "values without a lifetime of their own never end and nothing is dropped, so the store grows for ever; set default_ttl, or a size"
            }
            Risk::SharedNamespace => {
                "another cache is in the same namespace of the same store, so clearing one empties both and their keys meet; give each a namespace of its own"
            }
            Risk::ClearText => {
                "the password goes to another host for all to read on the way; use rediss:// or another way with TLS"
            }
            Risk::NothingKept => "null:// keeps nothing: it is for development and tests",
            Risk::SessionsMayBeEvicted => {
                "the store drops what it has no room for, and a dropped session signs its user out; give sessions a store of their own with room enough for all of them, or accept it with evictable()"
            }
            Risk::SessionsShareRoom => {
                "sessions and other values share one store's room, and pages may push sessions out; give sessions a server or a database of their own"
            }
            Risk::SessionsEndWithTheStore => {
                "what is stored ends with the process or the server, and everybody is signed out by its restart; keep sessions in a database, or write through to one"
            }
        }
    }
}

impl Advice {
    pub(super) fn trace(&self) {
        let (cache, risk) = (self.cache.as_str(), self.risk.as_str());
        tracing::warn!(cache, risk, "{}", self.risk.words());
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache `{}`: {}", self.cache, self.risk.words())
    }
}

// Longer than anybody waits for a page that a cache shall make quick.
const LONG: Duration = Duration::from_secs(2);

/// Looks at one cache.
pub(super) fn look(
    advice: &mut Vec<Advice>,
    settings: &CachesSettings,
    name: &str,
    url: &str,
    cache: &Cache,
    near_without_bus: bool,
) {
    let mut warn = |risk| advice.push(Advice { cache: name.to_owned(), risk });
    let abilities = cache.store().abilities();
    let sessions = settings.caches.get(name).is_some_and(|one| one.sessions);
    if abilities.forgets {
        warn(Risk::NothingKept);
    } else if !abilities.shared && settings.processes.is_some_and(|count| count > 1) {
        warn(Risk::MemoryInSeveralProcesses);
    }
    if near_without_bus {
        warn(Risk::NearWithoutBus);
    }
    if !abilities.local && cache.store().longest_budget() > LONG {
        warn(Risk::SlowToFail);
    }
    if abilities.default_ttl == Ttl::Forever && !abilities.evicts {
        warn(Risk::NothingEnds);
    }
    if leaves(url).any(shows_a_password) {
        warn(Risk::ClearText);
    }
    if sessions && abilities.evicts {
        warn(Risk::SessionsMayBeEvicted);
    }
    if sessions && !abilities.durable {
        warn(Risk::SessionsEndWithTheStore);
    }
}

/// Looks at all of them beside each other.
pub(super) fn compare(advice: &mut Vec<Advice>, settings: &CachesSettings) {
    let places = |one: &CacheSettings, name: &str| -> Vec<Place> {
        one.resolved(name).iter().flat_map(|url| leaves(url).filter_map(place)).collect()
    };
    let all: Vec<_> =
        settings.caches.iter().map(|(name, one)| (name, one, places(one, name))).collect();
    for (at, (name, one, places)) in all.iter().enumerate() {
        let mut warn = |risk| {
            let one = Advice { cache: (*name).clone(), risk };
            if !advice.contains(&one) {
                advice.push(one);
            }
        };
        for (other_at, (_, other, others)) in all.iter().enumerate() {
            for (here, there) in
                places.iter().flat_map(|here| others.iter().map(move |o| (here, o)))
            {
                // The later one is told.
                if other_at < at && here == there {
                    warn(Risk::SharedNamespace);
                }
                // A row of a database pushes none out; what a server keeps in memory does.
                if one.sessions && !other.sessions && here.in_memory && here.store == there.store {
                    warn(Risk::SessionsShareRoom);
                }
            }
        }
    }
}

/// Which store, and which namespace of it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    store: String,
    namespace: String,
    in_memory: bool,
}

// The stores that a URL names, without the words before them.
fn leaves(url: &str) -> impl Iterator<Item = &str> {
    url.split('|').map(|part| {
        let mut part = part;
        while let Some(rest) = ["tiered:", "failover:", "writethrough:", "migrating:"]
            .iter()
            .find_map(|word| part.strip_prefix(word))
        {
            part = rest;
        }
        part
    })
}

// None where each URL makes a store of its own.
fn place(leaf: &str) -> Option<Place> {
    let (scheme, rest) = leaf.split_once("://")?;
    if ["memory", "null"].contains(&scheme) {
        return None;
    }
    let (store, query) = rest.split_once('?').unwrap_or((rest, ""));
    let store = store.rsplit_once('@').map_or(store, |(_, host)| host);
    let kind = match scheme {
        "rediss" | "valkey" | "valkeys" => "redis",
        "postgresql" => "postgres",
        other => other,
    };
    // Databases of one Redis share its memory.
    let store = if kind == "redis" { store.split('/').next().unwrap_or(store) } else { store };
    let namespace = query.split('&').find_map(|pair| pair.strip_prefix("namespace="));
    Some(Place {
        store: format!("{kind}://{store}"),
        namespace: namespace.unwrap_or_default().to_owned(),
        in_memory: kind == "redis" || kind.starts_with("memcached"),
    })
}

fn shows_a_password(leaf: &str) -> bool {
    let Ok(url) = Url::parse(leaf) else { return false };
    let open = matches!(url.scheme(), "redis" | "valkey");
    // Addresses are plain names to the parser here.
    let near = url
        .host_str()
        .is_none_or(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."));
    open && url.password().is_some() && !near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_only_where_others_listen() {
        for (leaf, shows) in [
            ("redis://:secret@cache.internal/0", true),
            ("valkey://user:secret@10.0.0.1:6379/0", true),
            ("rediss://:secret@cache.internal/0", false),
            ("redis://:secret@127.0.0.1/0", false),
            ("redis://:secret@localhost:6379/0", false),
            ("redis://:secret@[::1]:6379/0", false),
            ("redis://cache.internal/0", false),
        ] {
            assert_eq!(shows_a_password(leaf), shows, "{leaf}");
        }
    }

    #[test]
    fn a_place_is_the_store_without_who_asks_and_how() {
        let same = |one: &str, two: &str| place(one).unwrap().store == place(two).unwrap().store;
        assert!(same("redis://u:p@h:1/0?namespace=a", "rediss://h:1/5?namespace=b"));
        assert!(!same("redis://h:1/0", "redis://h:2/0"));
        assert!(!same("file:///a?namespace=a", "file:///b?namespace=a"));
        assert_eq!(place("memory://?namespace=a"), None);
        let words = "migrating:tiered:memory://|failover:redis://h|null://";
        let all: Vec<&str> = leaves(words).collect();
        assert_eq!(all, ["memory://", "redis://h", "null://"]);
    }
}
