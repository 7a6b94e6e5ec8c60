//! What a set-up risks.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

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
    /// Copies in the memory of one process, where several write through: none hears what another one changes.
    CopiesInSeveralProcesses,
    /// Memory before a store that carries no messages: other nodes see changes only when what is near is too old.
    NearWithoutBus,
    /// A time budget of more than two seconds: an outage is waited for by every request.
    SlowToFail,
    /// Another cache is in the same namespace of the same store: clearing one empties both.
    SharedNamespace,
    /// A password goes over the network for all to read.
    ClearText,
    /// One store of the cache has its values encrypted, and another one has the same values as they are.
    PartlyEncrypted,
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
            Risk::CopiesInSeveralProcesses => "copies-in-several-processes",
            Risk::NearWithoutBus => "near-without-bus",
            Risk::SlowToFail => "slow-to-fail",
            Risk::SharedNamespace => "shared-namespace",
            Risk::ClearText => "clear-text",
            Risk::PartlyEncrypted => "partly-encrypted",
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
            Risk::CopiesInSeveralProcesses => {
                "each process has copies of its own, and shows what another one has changed or removed for up to 30s; name a server for the copies, or tiered:memory:// before the durable store"
            }
            Risk::NearWithoutBus => {
                "the store behind the memory carries no messages, so other nodes read what is outdated for up to the ceiling; use redis:// or postgres:// there, or keep the ceiling short"
            }
            Risk::SlowToFail => {
                "a time budget of more than 2s makes every request wait for a store that is down; the defaults are 100ms for reading and 250ms for writing"
            }
            Risk::SharedNamespace => {
                "another cache is in the same namespace of the same store, so clearing one empties both and their keys meet; give each a namespace of its own"
            }
            Risk::ClearText => {
                "the password goes to another host for all to read on the way; use rediss:// or another way with TLS"
            }
            Risk::PartlyEncrypted => {
                "one of its stores has the values encrypted, and another one the same values as they are; give both encrypt_env"
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
    } else if settings.processes.is_some_and(|count| count > 1) {
        // What stands in for a server is a memory of its own for a while only, and ends by its ceiling.
        if !abilities.shared && !abilities.splits {
            warn(Risk::MemoryInSeveralProcesses);
        }
        if url.contains("writethrough:memory:") {
            warn(Risk::CopiesInSeveralProcesses);
        }
    }
    if near_without_bus {
        warn(Risk::NearWithoutBus);
    }
    if !abilities.local && cache.store().longest_budget() > LONG {
        warn(Risk::SlowToFail);
    }
    if leaves(url).any(shows_a_password) {
        warn(Risk::ClearText);
    }
    if is_partly_encrypted(url) {
        warn(Risk::PartlyEncrypted);
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
                if one.sessions && !other.sessions && here.in_memory && here.room == there.room {
                    warn(Risk::SessionsShareRoom);
                }
            }
        }
    }
}

/// Where a cache lies.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    // The server, the file or the directory.
    room: String,
    // Which part of it, namespace included.
    part: String,
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

/// A URL's parts, as far as they are asked for here: several hosts are none that a parser of URLs takes.
struct Parts<'a> {
    // The kind of store; what stands before it, or the way to it; whether what is said on that way can be read.
    kind: &'static str,
    over: &'a str,
    open: bool,
    login: Option<&'a str>,
    hosts: Vec<&'a str>,
    path: &'a str,
}

// None where each URL makes a store of its own.
fn parts(leaf: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = leaf.split_once("://")?;
    let (speaks, over) = match scheme.split_once('+') {
        Some(split) => split,
        None if scheme == "unix" => (scheme, scheme),
        None => (scheme, ""),
    };
    let kind = match speaks {
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" => "redis",
        "memcached" => "memcached",
        "postgres" | "postgresql" => "postgres",
        "sqlite" => "sqlite",
        "file" => "file",
        _ => return None,
    };
    let rest = rest.split('?').next().unwrap_or(rest);
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(login), rest),
        None => (None, rest),
    };
    let local = ["sqlite", "file"].contains(&kind) || over == "unix";
    let (hosts, path) = match rest.split_once('/') {
        _ if local => ("", rest),
        Some(split) => split,
        None => (rest, ""),
    };
    let open = !local && matches!(speaks, "redis" | "valkey");
    Some(Parts { kind, over, open, login, hosts: hosts.split(',').collect(), path })
}

fn parameter<'a>(leaf: &'a str, name: &str) -> Option<&'a str> {
    let pairs = leaf.split_once('?')?.1.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}

fn place(leaf: &str) -> Option<Place> {
    let Parts { kind, over, hosts, path, .. } = parts(leaf)?;
    let port = match kind {
        "redis" if over == "sentinel" => "26379",
        "redis" => "6379",
        "memcached" => "11211",
        _ => "5432",
    };
    let with_port = |host: &&str| match host.rsplit_once(':') {
        Some((_, after)) if !after.ends_with(']') => (*host).to_owned(),
        _ => format!("{host}:{port}"),
    };
    let hosts: Vec<String> = hosts.iter().map(with_port).collect();
    let server = hosts.join(",");
    // Databases of one Redis share its memory; those of one PostgreSQL have tables of their own.
    let (room, part) = match kind {
        "redis" if over == "unix" => (path, "0"),
        "redis" => (&*server, if path.is_empty() { "0" } else { path }),
        "memcached" if over == "unix" => (path, ""),
        "memcached" => (&*server, ""),
        "postgres" => (&*server, path),
        _ => (path, ""),
    };
    let table = parameter(leaf, "table").unwrap_or("larder");
    let namespace = parameter(leaf, "namespace").unwrap_or_default();
    Some(Place {
        room: format!("{kind}://{room}"),
        part: format!("{part}?{table}?{namespace}"),
        in_memory: kind == "redis" || kind == "memcached",
    })
}

// Of the stores outside this process.
fn is_partly_encrypted(url: &str) -> bool {
    let mut outside = leaves(url).filter(|leaf| parts(leaf).is_some());
    let is_encrypted = |leaf: &str| parameter(leaf, "encrypt_env").is_some();
    let first = outside.next().map(is_encrypted);
    outside.any(|leaf| Some(is_encrypted(leaf)) != first)
}

fn shows_a_password(leaf: &str) -> bool {
    let Some(Parts { open, login, hosts, .. }) = parts(leaf) else { return false };
    let logs_in =
        login.is_some_and(|login| login.split_once(':').is_some_and(|(_, p)| !p.is_empty()));
    let says = logs_in || parameter(leaf, "sentinel_pass").is_some_and(|pass| !pass.is_empty());
    let far = |host: &&str| {
        let name = host.strip_prefix('[').map_or_else(
            || host.split(':').next().unwrap_or(host),
            |host| host.split(']').next().unwrap_or(host),
        );
        let loops = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        name != "localhost" && !loops
    };
    open && says && hosts.iter().any(far)
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
            ("redis+cluster://user:secret@one:7000,two:7000?namespace=a", true),
            ("redis+sentinel://:secret@one:26379,two/main/0?namespace=a", true),
            ("redis+sentinel://one,two/main/0?sentinel_pass=secret", true),
            ("redis+cluster://:secret@127.0.0.1:7000,localhost:7001", false),
            ("rediss+cluster://:secret@one,two", false),
            ("redis+unix:///run/redis.sock?namespace=a", false),
            ("redis://:secret@127.example.com/0", true),
            ("redis://user@cache.internal/0", false),
        ] {
            assert_eq!(shows_a_password(leaf), shows, "{leaf}");
        }
    }

    #[test]
    fn one_of_two_stores_is_encrypted() {
        for (url, partly) in [
            ("redis://h?namespace=a&encrypt_env=K", false),
            ("tiered:memory://|redis://h?namespace=a&encrypt_env=K", false),
            ("writethrough:redis://h?namespace=a|postgres://h/d?encrypt_env=K", true),
            ("writethrough:redis://h?encrypt_env=K|postgres://h/d?encrypt_env=K", false),
            ("failover:redis://h?namespace=a&encrypt_env=K|memory://", false),
            ("failover:redis://h?encrypt_env=K|tiered:memory://|memcached://h", true),
        ] {
            assert_eq!(is_partly_encrypted(url), partly, "{url}");
        }
    }

    #[test]
    fn a_place_is_the_store_without_who_asks_and_how() {
        let room = |leaf: &str| place(leaf).unwrap().room;
        for (one, two) in [
            ("redis://u:p@h:1/0?namespace=a", "rediss://h:1/5?namespace=b"),
            ("redis://h/0", "valkey://h:6379/0"),
            ("redis+sentinel://a,b:26379/m/0", "redis+sentinel://:p@a:26379,b/m/0"),
            ("redis+unix:///run/r.sock?namespace=a", "redis+unix:///run/r.sock?namespace=b"),
            ("memcached://a,b:11211", "memcached://a:11211,b"),
        ] {
            assert_eq!(room(one), room(two));
        }
        for (one, two) in [
            ("redis://h:1/0", "redis://h:2/0"),
            ("redis+cluster://a,b", "redis+cluster://a,c"),
            ("file:///a?namespace=a", "file:///b?namespace=a"),
            ("redis://[::1]/0", "redis://[::2]/0"),
        ] {
            assert_ne!(room(one), room(two));
        }
        let same = |one: &str, two: &str| place(one) == place(two);
        assert!(same("redis://h?namespace=a", "redis://:p@h:6379/0?namespace=a&read_budget=1s"));
        assert!(!same("redis://h/0?namespace=a", "redis://h/1?namespace=a"), "another database");
        assert!(!same("postgres://h/db?table=a", "postgres://h/db?table=b"), "another table");
        assert!(same("postgresql://u:p@h/db", "postgres://h:5432/db?table=larder"));
        assert_eq!(place("memory://?namespace=a"), None);
        let words = "migrating:tiered:memory://|failover:redis://h|null://";
        let all: Vec<&str> = leaves(words).collect();
        assert_eq!(all, ["memory://", "redis://h", "null://"]);
    }
}
