//! How a Memcached backend is configured: a URL, a builder, or both.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use larder_core::envelope::Envelope;
use larder_core::parse;
use larder_core::{Clock, Error, ErrorKind, Namespace, Result, Ttl};
use url::{Host, form_urlencoded};

use crate::{MemcachedBackend, NAME};

/// Configures a [`MemcachedBackend`].
///
/// What can be wrong fails here, in words that tell what to write instead. Neither an error nor the `Debug` text ever
/// holds the URL or a host name.
///
/// ```
/// use larder_memcached::MemcachedBackend;
///
/// let builder = MemcachedBackend::builder().url("memcached://cache1,cache2:11212?response_timeout=100ms")?;
/// assert!(!format!("{builder:?}").contains("cache1"));
///
/// let error = MemcachedBackend::builder().url("memcached://localhost?timeout=1s").unwrap_err();
/// assert!(error.to_string().contains("response_timeout"));
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Builder {
    pub(crate) servers: Vec<Address>,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) default_ttl: Ttl,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) generation_max_age: Duration,
    pub(crate) mark_ttl: Ttl,
    pub(crate) connections: usize,
    pub(crate) max_value_bytes: Option<u64>,
    pub(crate) envelope: Envelope,
    pub(crate) clock: Clock,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            servers: vec![Address::Tcp { host: "127.0.0.1".into(), port: PORT }],
            namespace: None,
            default_ttl: Ttl::STANDARD,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(250),
            generation_max_age: Duration::from_secs(1),
            mark_ttl: Ttl::For(Duration::from_secs(30 * 24 * 60 * 60)),
            connections: 1,
            max_value_bytes: None,
            envelope: Envelope::default(),
            clock: Clock::system(),
        }
    }
}

impl Builder {
    /// Takes servers and parameters from a URL; what was set before and is not named in the URL stays.
    ///
    /// | URL | means |
    /// | --- | --- |
    /// | `memcached://host1:11211,host2:11211` | a ring of servers; ports may be left out, an IPv6 address stands in `[…]` |
    /// | `memcached+unix:///path/to/socket` | one server on a Unix socket |
    ///
    /// The parameters are named after the methods of this builder: `namespace`, `default_ttl`, `connect_timeout`,
    /// `response_timeout`, `generation_max_age`, `mark_ttl`, `connections`, `max_value_bytes` and `verify_body`. Durations are written
    /// `250ms`, `5s`, `10m`, `2h` or `30d`, lifetimes also `forever`; sizes `1024`, `512KiB` or `64MiB`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is no such URL or has a parameter that does not exist.
    pub fn url(mut self, url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(no_url)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.contains('#') || query.contains('#') {
            return Err(no_url());
        }
        match scheme.to_ascii_lowercase().as_str() {
            "memcached" => {
                let hosts = place.strip_suffix('/').unwrap_or(place);
                self = self.servers(hosts.split(','))?;
            }
            "memcached+unix" => {
                let words = "the URL names no socket; write memcached+unix:///path/to/socket";
                let path = place.strip_prefix('/').filter(|path| !path.is_empty());
                let path = path.map(|path| decoded(&format!("/{path}"))).ok_or(words);
                self.servers = vec![Address::Unix(path.map_err(wrong)??.into())];
            }
            _ => return Err(wrong("the URL's scheme is none of memcached and memcached+unix")),
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            self = self.parameter(&name, &value)?;
        }
        Ok(self)
    }

    fn parameter(mut self, name: &str, value: &str) -> Result<Self> {
        match name {
            "namespace" => self.namespace = Some(Namespace::new(value)?),
            "default_ttl" => self.default_ttl = parse::lifetime(name, value)?,
            "connect_timeout" => self.connect_timeout = parse::duration(name, value)?,
            "response_timeout" => self.response_timeout = parse::duration(name, value)?,
            "generation_max_age" => self.generation_max_age = parse::duration(name, value)?,
            "mark_ttl" => self.mark_ttl = parse::lifetime(name, value)?,
            "connections" => {
                self.connections = value.parse().map_err(|_| wrong(CONNECTIONS))?;
            }
            "max_value_bytes" => self.max_value_bytes = Some(parse::size(name, value)?),
            "verify_body" => self = self.verify_body(parse::flag(name, value)?),
            _ => {
                return Err(wrong(format!(
                    "the URL has a parameter that Larder does not know; the known ones are {PARAMETERS}"
                )));
            }
        }
        Ok(self)
    }

    /// The servers of the ring, as `host` or `host:port`. One at 127.0.0.1:11211 unless set.
    ///
    /// The order does not matter, but the spelling does: every node must call a server by the same name, since its name
    /// decides which keys lie there.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is none, one cannot be read, or one is named twice.
    pub fn servers<S: AsRef<str>>(mut self, servers: impl IntoIterator<Item = S>) -> Result<Self> {
        self.servers.clear();
        for server in servers {
            let address = address(server.as_ref())?;
            if self.servers.contains(&address) {
                return Err(wrong("a server is named twice; name every one once"));
            }
            self.servers.push(address);
        }
        if self.servers.is_empty() || self.servers.len() > MOST_SERVERS {
            return Err(wrong("name between 1 and 256 servers"));
        }
        Ok(self)
    }

    /// The lifetime of entries that are stored with [`Ttl::Default`]. 300 s unless set.
    pub fn default_ttl(mut self, ttl: Ttl) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// How long one attempt to connect may take: name look-up, greeting and all. 1 s unless set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long one operation may take, retries included. 250 ms unless set. A conditional write whose reply did not
    /// come has as long again to learn what became of it, and a large batch as long for each part of it.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.response_timeout = limit;
        self
    }

    /// How long a namespace's generation is taken from memory before it is asked for again (with the next operation,
    /// in the same round trip): the time for which a node may still see what another one cleared. 1 s unless set; with
    /// zero, every operation asks.
    pub fn generation_max_age(mut self, age: Duration) -> Self {
        self.generation_max_age = age;
        self
    }

    /// How long the record of a tag lives on its server after it was last needed to store or to invalidate something.
    /// 30 days unless set: tags that nobody uses any more do not stay for ever. An entry whose tags' records are gone is
    /// a miss, never stale, so a tagged entry lives no longer than this without a use of its tags.
    pub fn mark_ttl(mut self, ttl: Ttl) -> Self {
        self.mark_ttl = ttl;
        self
    }

    /// How many connections to each server. 1 unless set, which is enough for everything but large values: requests
    /// share a connection without waiting for each other, and a large value holds up what comes behind it. Reads take
    /// turns; writes share the first connection, so that they arrive in their order.
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// The largest value in bytes, key and envelope included. Unless set, what the servers take; more than that is
    /// never tried.
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.max_value_bytes = Some(bytes);
        self
    }

    /// Seals every record with this secret, and takes records without the seal for absent. See [`Envelope::sealed`].
    /// Plain counters have no seal.
    pub fn sealed(mut self, secret: [u8; 32]) -> Self {
        self.envelope = self.envelope.sealed(secret);
        self
    }

    /// Checks the checksum of every body that is read. Off unless set: TCP and Memcached keep bytes whole.
    pub fn verify_body(mut self, verify: bool) -> Self {
        self.envelope = self.envelope.verify_body(verify);
        self
    }

    /// The clock, for tests. Servers count lifetimes by their own all the same.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The namespace that the URL named. The backend itself takes its namespaces from the keys.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Makes the backend and connects it. A ring is connected when one of its servers is: the others are tried in the
    /// background, and their share of the keys fails until they are there.
    ///
    /// It takes up to a second longer than the network needs: Memcached tells the time in whole seconds, and how long
    /// something lives can be told exactly only when one of them has begun.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be, or a server is too old or demands a login;
    /// [`Unavailable`](ErrorKind::Unavailable) when no server can be reached.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the attempt ends and nothing stays.
    pub async fn connect(self) -> Result<MemcachedBackend> {
        let backend = self.connect_later()?;
        backend.connected().await?;
        Ok(backend)
    }

    /// Makes the backend and does not wait for the servers: until they are reached, operations fail with
    /// [`Unavailable`](ErrorKind::Unavailable). In its first second, ends of lifetimes may be half a second off.
    ///
    /// It begins to connect at once inside a Tokio runtime, and with the first operation otherwise.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    pub fn connect_later(self) -> Result<MemcachedBackend> {
        let limit = |limit: Duration| !limit.is_zero() && limit <= LONGEST_LIMIT;
        if !limit(self.connect_timeout) || !limit(self.response_timeout) {
            return Err(wrong("connect_timeout and response_timeout must lie between 1ms and 1h"));
        }
        if self.mark_ttl.resolve(Ttl::STANDARD).is_some_and(|ttl| ttl < Duration::from_secs(1)) {
            return Err(wrong("mark_ttl must be at least 1s: entries with tags outlive no mark"));
        }
        if !(1..=MOST_CONNECTIONS).contains(&self.connections) {
            return Err(wrong(CONNECTIONS));
        }
        if self.max_value_bytes.is_some_and(|bytes| bytes < 1024) {
            return Err(wrong("max_value_bytes must be at least 1KiB"));
        }
        Ok(MemcachedBackend::with(self))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("servers", &self.servers.len())
            .field("namespace", &self.namespace)
            .field("default_ttl", &self.default_ttl)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("generation_max_age", &self.generation_max_age)
            .field("mark_ttl", &self.mark_ttl)
            .field("connections", &self.connections)
            .field("max_value_bytes", &self.max_value_bytes)
            .finish_non_exhaustive()
    }
}

// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn address(text: &str) -> Result<Address> {
    if text.contains('@') {
        return Err(wrong(
            "Larder cannot log in to Memcached; leave user and password away, and let it listen where only your services are",
        ));
    }
    let words = "a server cannot be read; write memcached://host1:11211,host2:11211";
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong(words))?,
        None => PORT,
    };
    let host = match Host::parse(host).map_err(|_| wrong(words))? {
        Host::Domain(name) => name,
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    Ok(Address::Tcp { host, port })
}

fn decoded(text: &str) -> Result<String> {
    // A query's rules, but for `+`.
    let text = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    pairs.next().map(|(path, _)| path.into_owned()).ok_or_else(no_url)
}

fn no_url() -> Error {
    wrong("the URL cannot be read; write memcached://host1:11211,host2:11211?namespace=NAME")
}

pub(crate) fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend(NAME)
}

const PORT: u16 = 11211;

const LONGEST_LIMIT: Duration = Duration::from_secs(60 * 60);

const MOST_SERVERS: usize = 256;

const MOST_CONNECTIONS: usize = 64;

const CONNECTIONS: &str = "connections must lie between 1 and 64";

const PARAMETERS: &str = "namespace, default_ttl, connect_timeout, response_timeout, generation_max_age, mark_ttl, \
                          connections, max_value_bytes and verify_body";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parsed(url: &str) -> Builder {
        Builder::default().url(url).unwrap()
    }

    fn addresses(url: &str) -> Vec<String> {
        parsed(url).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn urls_name_servers() {
        assert_eq!(addresses("memcached://127.0.0.1"), ["127.0.0.1:11211"]);
        assert_eq!(
            addresses("memcached://a:1,B.example,[::1]:3,[::2]/?connections=2"),
            ["a:1", "b.example:11211", "[::1]:3", "[::2]:11211"]
        );
        assert_eq!(
            addresses("memcached+unix:///run/a%20b+c.sock?namespace=s"),
            ["/run/a b+c.sock"]
        );
    }

    #[test]
    fn urls_say_everything_that_the_builder_can() {
        let b = parsed(
            "memcached://h?namespace=shop&default_ttl=forever&connect_timeout=2s&response_timeout=50ms\
             &generation_max_age=0s&mark_ttl=2h&connections=4&max_value_bytes=512KiB",
        );
        assert_eq!(b.namespace().unwrap().as_str(), "shop");
        assert_eq!((b.default_ttl, b.connections), (Ttl::Forever, 4));
        assert_eq!((b.connect_timeout.as_secs(), b.response_timeout.as_millis()), (2, 50));
        assert_eq!(b.generation_max_age, Duration::ZERO);
        assert_eq!(b.mark_ttl, Ttl::For(Duration::from_secs(7200)));
        assert_eq!(b.max_value_bytes, Some(512 << 10));
    }

    // The names among the words of the list.
    fn listed() -> BTreeSet<&'static str> {
        let words = PARAMETERS.split(|c: char| c != '_' && !c.is_ascii_alphabetic());
        words.filter(|word| !["", "and"].contains(word)).collect()
    }

    #[test]
    fn every_parameter_that_is_listed_is_taken() {
        let mut taken = BTreeSet::new();
        for parameter in [
            "namespace=shop",
            "default_ttl=5m",
            "connect_timeout=1s",
            "response_timeout=1s",
            "generation_max_age=1s",
            "mark_ttl=1d",
            "connections=2",
            "max_value_bytes=1MiB",
            "verify_body=true",
        ] {
            for place in ["memcached://h", "memcached+unix:///socket"] {
                let backend = parsed(&format!("{place}?{parameter}")).connect_later();
                backend.unwrap_or_else(|error| panic!("{place}?{parameter}: {error}"));
            }
            taken.extend(parameter.split('=').next());
        }
        assert_eq!(taken, listed());
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_those_that_there_are() {
        for url in [
            "memcached://canary?canary=canary",
            "memcached://canary?connections=2&password=canary",
            "memcached+unix:///canary?Namespace=canary",
        ] {
            let error = Builder::default().url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = format!("{error} {error:?}");
            assert!(listed().iter().all(|name| text.contains(name)), "{url}: {text}");
            assert!(!text.contains("canary") && !text.contains("password"), "{url}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_repeating_it() {
        for url in [
            "canary",
            "canary://canary",
            "redis://canary",
            "memcached://",
            "memcached://canary:canary@host",
            "memcached://canary:0",
            "memcached://canary:70000",
            "memcached://canary,canary",
            "memcached://canary,,b",
            "memcached://canary/canary",
            "memcached://ca nary",
            "memcached://canary?canary=canary",
            "memcached://canary?response_timeout=canary",
            "memcached://canary?response_timeout=250",
            "memcached://canary?connections=canary",
            "memcached://canary?namespace=CANARY",
            "memcached://canary#canary",
            "memcached+unix://canary",
        ] {
            let error = Builder::default().url(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.to_lowercase().contains("canary"), "{url}: {text}");
        }
        for builder in [
            parsed("memcached://h?response_timeout=0s"),
            parsed("memcached://h?connect_timeout=2h"),
            parsed("memcached://h?mark_ttl=1ms"),
            parsed("memcached://h?connections=0"),
            parsed("memcached://h?max_value_bytes=1"),
        ] {
            let error = builder.connect_later().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
        }
    }
}
