//! How a Redis backend is configured: a URL, a builder, or both.

use std::fmt;
use std::time::Duration;

use larder_core::envelope::Envelope;
use larder_core::parse;
use larder_core::{Clock, Error, ErrorKind, Namespace, Result, Ttl};
use redis::RedisConnectionInfo;
use url::form_urlencoded;

use crate::dial::Address;
use crate::parts::{Parts, addresses, database, decoded};
use crate::tls::{Files, Tls};
use crate::{NAME, RedisBackend};

/// Configures a [`RedisBackend`].
///
/// What can be wrong fails here, in words that tell what to write instead. Neither an error nor the `Debug` text ever
/// holds the URL, a host name, a user name or a password.
///
/// ```
/// use larder_redis::RedisBackend;
///
/// let builder = RedisBackend::builder().url("redis://app:s3cret@cache.internal/2?response_timeout=100ms")?;
/// assert!(!format!("{builder:?}").contains("s3cret"));
///
/// let error = RedisBackend::builder().url("redis://localhost?timeout=1s").unwrap_err();
/// assert!(error.to_string().contains("response_timeout"));
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Builder {
    pub(crate) servers: Servers,
    pub(crate) tls: Option<Tls>,
    pub(crate) database: i64,
    pub(crate) login: Login,
    pub(crate) sentinel_login: Login,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) default_ttl: Ttl,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) generation_max_age: Duration,
    pub(crate) mark_ttl: Ttl,
    pub(crate) max_value_bytes: u64,
    // None where only primaries are read.
    pub(crate) replica_lag: Option<Duration>,
    pub(crate) envelope: Envelope,
    pub(crate) clock: Clock,
}

/// Which servers there are.
#[derive(Clone)]
pub(crate) enum Servers {
    One(Address),
    /// Those who know where the primary is, and its name.
    Sentinels {
        addresses: Vec<Address>,
        primary: String,
    },
    /// Some nodes of a cluster; they know the others.
    Cluster(Vec<Address>),
}

/// Who logs in. Nobody, or the server's `default` user, unless set.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Login {
    pub(crate) fn info(&self, database: i64) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_db(database)
            .set_lib_name("larder", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            servers: Servers::One(Address::Tcp { host: "127.0.0.1".into(), port: PORT }),
            tls: None,
            database: 0,
            login: Login::default(),
            sentinel_login: Login::default(),
            namespace: None,
            default_ttl: Ttl::STANDARD,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(250),
            generation_max_age: Duration::from_secs(1),
            mark_ttl: Ttl::For(Duration::from_secs(30 * 24 * 60 * 60)),
            max_value_bytes: 64 * 1024 * 1024,
            replica_lag: None,
            envelope: Envelope::default(),
            clock: Clock::system(),
        }
    }
}

impl Builder {
    /// Takes servers, credentials, database and parameters from a URL; what was set before and is not named in the URL
    /// stays.
    ///
    /// | URL | means |
    /// | --- | --- |
    /// | `redis://user:password@host:6379/0` | one server; every part but the host may be left out |
    /// | `redis+unix:///path/to/socket?db=0&user=…&pass=…` | one server, over a Unix socket |
    /// | `redis+sentinel://user:password@h1:26379,h2,h3/mymaster/0` | the primary that the sentinels at these hosts call `mymaster`; user, password and database are the primary's |
    /// | `redis+cluster://user:password@h1:6379,h2` | a cluster, of which these are some nodes |
    ///
    /// `rediss` instead of `redis` speaks TLS, with sentinels and among the nodes of a cluster too: `root_certificate`, a
    /// file in PEM form, has whom to trust (unless set, Mozilla's list), `client_certificate` and `client_key` what to show
    /// to a server that asks. `valkey` and `valkeys` mean the same as `redis` and `rediss`, and `unix` as `redis+unix`. The
    /// parameters are named after the methods of this builder: `namespace`, `default_ttl`, `connect_timeout`,
    /// `response_timeout`, `generation_max_age`, `mark_ttl`, `max_value_bytes` and `verify_body`; `read=replica` and
    /// `replica_lag` are [`read_replicas`](Builder::read_replicas); where there are sentinels, `sentinel_user` and `sentinel_pass` log in to them. Durations are written `250ms`,
    /// `5s`, `10m`, `2h` or `30d`, lifetimes also `forever`; sizes `1024`, `512KiB` or `64MiB`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is no such URL or has a parameter that does not exist.
    pub fn url(mut self, url: &str) -> Result<Self> {
        let url = Parts::of(url)?;
        let (speaks, kind) = match url.scheme.split_once('+') {
            None if url.scheme == "unix" => ("redis", "unix"),
            None => (url.scheme, ""),
            Some((speaks, kind)) => (speaks, kind),
        };
        let tls = match speaks {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(wrong(SCHEMES)),
        };
        match kind {
            "" => {
                self.servers = Servers::One(url.one_host()?);
                self.database = database(url.path, self.database)?;
            }
            "unix" if !tls => self.servers = Servers::One(url.socket()?),
            "unix" => return Err(wrong(NO_TLS)),
            "sentinel" => {
                let (name, path) = url.path.split_once('/').unwrap_or((url.path, ""));
                self = self.sentinels(url.hosts.split(','), decoded(name)?)?;
                self.database = database(path, self.database)?;
            }
            "cluster" if matches!(url.path, "" | "0") => {
                self = self.cluster(url.hosts.split(','))?;
            }
            "cluster" => return Err(wrong("a cluster has one database only; leave the path away")),
            _ => return Err(wrong(SCHEMES)),
        }
        if let Some(username) = url.username.filter(|name| !name.is_empty()) {
            self.login.username = Some(decoded(username)?);
        }
        if let Some(password) = url.password {
            self.login.password = Some(decoded(password)?);
        }
        if tls {
            self.tls = Some(self.tls.take().map_or_else(Tls::new, Ok)?);
        }
        let mut files = Files::default();
        for (name, value) in form_urlencoded::parse(url.query.as_bytes()) {
            if !files.take(&name, &value) {
                self = self.parameter(&name, &value)?;
            }
        }
        self.tls = files.read(self.tls.take())?;
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
            "max_value_bytes" => self.max_value_bytes = parse::size(name, value)?,
            "verify_body" => self = self.verify_body(parse::flag(name, value)?),
            "read" => match value {
                "primary" => self.replica_lag = None,
                "replica" => self.replica_lag = self.replica_lag.or(Some(LAG)),
                _ => return Err(wrong("read is one of primary and replica")),
            },
            "replica_lag" => self.replica_lag = Some(parse::duration(name, value)?),
            "db" if self.is_socket() => self.database = database(value, 0)?,
            "user" if self.is_socket() => self.login.username = Some(value.into()),
            "pass" if self.is_socket() => self.login.password = Some(value.into()),
            "sentinel_user" if self.has_sentinels() => {
                self.sentinel_login.username = Some(value.into());
            }
            "sentinel_pass" if self.has_sentinels() => {
                self.sentinel_login.password = Some(value.into());
            }
            _ => {
                return Err(wrong(format!(
                    "the URL has a parameter that Larder does not know; the known ones are {PARAMETERS}"
                )));
            }
        }
        Ok(self)
    }

    fn is_socket(&self) -> bool {
        matches!(self.servers, Servers::One(Address::Unix(_)))
    }

    fn has_sentinels(&self) -> bool {
        matches!(self.servers, Servers::Sentinels { .. })
    }

    /// The primary that sentinels know by that name, wherever it is. They are written `host` or `host:port` (26379); one
    /// that answers is enough.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is none, one cannot be read, or the name is empty.
    pub fn sentinels<S: AsRef<str>>(
        mut self,
        sentinels: impl IntoIterator<Item = S>,
        primary: impl Into<String>,
    ) -> Result<Self> {
        let addresses = addresses(sentinels, SENTINEL_PORT)?;
        let primary = primary.into();
        if primary.is_empty() {
            return Err(wrong(
                "the URL does not say what the sentinels call the primary; write redis+sentinel://h1,h2,h3/NAME",
            ));
        }
        self.servers = Servers::Sentinels { addresses, primary };
        Ok(self)
    }

    /// A cluster of which these are some nodes, written `host` or `host:port` (6379); one that answers is enough, since
    /// it knows the others. These must be reachable under the addresses by which the nodes know each other.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is none or one cannot be read.
    pub fn cluster<S: AsRef<str>>(mut self, nodes: impl IntoIterator<Item = S>) -> Result<Self> {
        self.servers = Servers::Cluster(addresses(nodes, PORT)?);
        Ok(self)
    }

    /// The user (none: the server's `default` user) and the password. For credentials that do not stand in the URL.
    pub fn credentials(mut self, username: Option<&str>, password: &str) -> Self {
        self.login = Login { username: username.map(Into::into), password: Some(password.into()) };
        self
    }

    /// The same for sentinels, which have users of their own. They ask for nobody unless set.
    pub fn sentinel_credentials(mut self, username: Option<&str>, password: &str) -> Self {
        self.sentinel_login =
            Login { username: username.map(Into::into), password: Some(password.into()) };
        self
    }

    /// The database's number. 0 unless set.
    pub fn database(mut self, number: u16) -> Self {
        self.database = number.into();
        self
    }

    /// The lifetime of entries that are stored with [`Ttl::Default`]. 300 s unless set.
    pub fn default_ttl(mut self, ttl: Ttl) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// How long one attempt to connect may take: name look-up, TLS, log-in and all. 1 s unless set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long one operation may take, a retry included. 250 ms unless set. A conditional write whose reply did not
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

    /// How long the record of a tag lives on the server after it was last needed to store or to invalidate something.
    /// 30 days unless set: tags that nobody uses any more do not stay for ever. An entry whose tags' records are gone is
    /// a miss, never stale, so a tagged entry lives no longer than this without a use of its tags.
    pub fn mark_ttl(mut self, ttl: Ttl) -> Self {
        self.mark_ttl = ttl;
        self
    }

    /// The largest value in bytes, key and envelope included. 64 MiB unless set; Redis takes at most 512 MiB.
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Reads entries from replicas too, as long as they are behind their primary by no more than `lag`.
    ///
    /// Unless set (`read=primary` in a URL), everything is asked of primaries. With it (`read=replica`, and
    /// `replica_lag`, 1 s unless set), `get` without counters and `get_many` go to a replica that each process chooses
    /// for itself; one that is not known to be in step is not read, nor is one when the primary cannot be asked. So a
    /// value that was replaced or removed may be read for so long afterwards, and
    /// [`Abilities::read_delay`](larder_core::Abilities::read_delay) says so: sessions, and memory before this store,
    /// refuse it. What is conditional, counts, or says what is valid (tags, sequences, generations, fills) is always the
    /// primary's.
    pub fn read_replicas(mut self, lag: Duration) -> Self {
        self.replica_lag = Some(lag);
        self
    }

    /// Seals every record with this secret, and takes records without the seal for absent. See [`Envelope::sealed`].
    /// Plain counters have no seal.
    pub fn sealed(mut self, secret: [u8; 32]) -> Self {
        self.envelope = self.envelope.sealed(secret);
        self
    }

    /// Checks the checksum of every body that is read. Off unless set: TCP and Redis keep bytes whole.
    pub fn verify_body(mut self, verify: bool) -> Self {
        self.envelope = self.envelope.verify_body(verify);
        self
    }

    /// The clock, for tests. Lifetimes are counted by the server all the same.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Speaks TLS and trusts these certificates (PEM), and no others. Without it, `rediss://` trusts Mozilla's.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when the text holds no certificate.
    #[cfg(feature = "tls")]
    pub fn root_certificate_pem(mut self, pem: impl AsRef<[u8]>) -> Result<Self> {
        let tls = self.tls.take().map_or_else(Tls::new, Ok)?;
        self.tls = Some(tls.with_roots(pem.as_ref())?);
        Ok(self)
    }

    /// Speaks TLS and shows this certificate and key (PEM) to a server that asks for one.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when the texts hold no certificate and key.
    #[cfg(feature = "tls")]
    pub fn client_certificate_pem(
        mut self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self> {
        let tls = self.tls.take().map_or_else(Tls::new, Ok)?;
        self.tls = Some(tls.with_client(certificate.as_ref(), key.as_ref())?);
        Ok(self)
    }

    /// The namespace that the URL named. The backend itself takes its namespaces from the keys.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Makes the backend and connects it.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be or the server refuses user, password or
    /// database; [`Unavailable`](ErrorKind::Unavailable) when the server cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the attempt ends and nothing stays.
    pub async fn connect(self) -> Result<RedisBackend> {
        let backend = self.connect_later()?;
        backend.connected().await?;
        Ok(backend)
    }

    /// Makes the backend and does not wait for the server: until it is reached, operations fail with
    /// [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// It begins to connect at once inside a Tokio runtime, and with the first operation otherwise.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    pub fn connect_later(self) -> Result<RedisBackend> {
        let limit = |limit: Duration| !limit.is_zero() && limit <= LONGEST_LIMIT;
        if !limit(self.connect_timeout) || !limit(self.response_timeout) {
            return Err(wrong("connect_timeout and response_timeout must lie between 1ms and 1h"));
        }
        if self.mark_ttl.resolve(Ttl::STANDARD).is_some_and(|ttl| ttl < Duration::from_secs(1)) {
            return Err(wrong("mark_ttl must be at least 1s: entries with tags outlive no mark"));
        }
        if !(1024..=LARGEST).contains(&self.max_value_bytes) {
            return Err(wrong("max_value_bytes must lie between 1KiB and 511MiB"));
        }
        if self.replica_lag.is_some_and(|lag| !(SHORTEST_LAG..=LONGEST_LIMIT).contains(&lag)) {
            return Err(wrong("replica_lag must lie between 20ms and 1h"));
        }
        if self.tls.is_some() && self.is_socket() {
            return Err(wrong(NO_TLS));
        }
        if self.database != 0 && matches!(self.servers, Servers::Cluster(_)) {
            return Err(wrong("a cluster has one database only; set none"));
        }
        Ok(RedisBackend::with(self))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("tls", &self.tls.is_some())
            .field("password", &self.login.password.is_some())
            .field("namespace", &self.namespace)
            .field("default_ttl", &self.default_ttl)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("generation_max_age", &self.generation_max_age)
            .field("mark_ttl", &self.mark_ttl)
            .field("max_value_bytes", &self.max_value_bytes)
            .finish_non_exhaustive()
    }
}

pub(crate) fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend(NAME)
}

pub(crate) const PORT: u16 = 6379;

const SENTINEL_PORT: u16 = 26379;

const LAG: Duration = Duration::from_secs(1);

const SHORTEST_LAG: Duration = Duration::from_millis(20);

const NO_TLS: &str = "a Unix socket speaks no TLS; leave it and the certificates away";

const SCHEMES: &str = "the URL's scheme is none of redis, redis+unix, redis+sentinel and redis+cluster (rediss with TLS; valkey and valkeys for redis and rediss)";

// The server's limit is 512 MiB for one argument; a record in a script's argument is one.
const LARGEST: u64 = 511 * 1024 * 1024;

const LONGEST_LIMIT: Duration = Duration::from_secs(60 * 60);

const PARAMETERS: &str = "namespace, default_ttl, connect_timeout, response_timeout, generation_max_age, mark_ttl, max_value_bytes, verify_body, read and replica_lag (for TLS also root_certificate, client_certificate and client_key, for a Unix socket also db, user and pass, for sentinels sentinel_user and sentinel_pass)";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parsed(url: &str) -> Builder {
        Builder::default().url(url).unwrap()
    }

    // What a URL says of servers, as text.
    fn servers(url: &str) -> String {
        let text = |address: &Address| match address {
            Address::Tcp { host, port } => format!("{host} {port}"),
            Address::Unix(path) => path.display().to_string(),
        };
        let list = |all: &[Address]| all.iter().map(text).collect::<Vec<_>>().join(", ");
        match parsed(url).servers {
            Servers::One(address) => text(&address),
            Servers::Sentinels { addresses, primary } => {
                format!("{primary} by {}", list(&addresses))
            }
            Servers::Cluster(addresses) => format!("cluster {}", list(&addresses)),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let builder =
            parsed("redis://app:p%40ss%2Bword@[::1]:7000/3?namespace=shop&default_ttl=forever");
        assert_eq!(builder.login.username.as_deref(), Some("app"));
        assert_eq!(builder.login.password.as_deref(), Some("p@ss+word"));
        assert_eq!(builder.database, 3);
        assert_eq!(builder.namespace().unwrap().as_str(), "shop");
        assert_eq!(builder.default_ttl, Ttl::Forever);

        let builder = parsed("valkey://:pass@cache.internal");
        let Login { username, password } = builder.login;
        assert_eq!((username, password.as_deref()), (None, Some("pass")));

        let builder = parsed("redis+unix:///run/redis%20a.sock?db=2&user=u&pass=p");
        assert_eq!((builder.database, builder.login.password.as_deref()), (2, Some("p")));

        let builder = parsed("redis+sentinel://:p@a,b/main/4?sentinel_user=s&sentinel_pass=t%2B");
        assert_eq!((builder.database, builder.login.password.as_deref()), (4, Some("p")));
        let Login { username, password } = builder.sentinel_login;
        assert_eq!((username.as_deref(), password.as_deref()), (Some("s"), Some("t+")));
    }

    #[test]
    fn urls_name_servers() {
        for (url, names) in [
            ("redis://app:p@[::1]:7000/3", "::1 7000"),
            ("valkey://cache.internal", "cache.internal 6379"),
            ("redis+unix:///run/redis%20a.sock?db=2", "/run/redis a.sock"),
            ("unix:///a", "/a"),
            ("redis+sentinel://a,b:1,[::1]/main/0", "main by a 26379, b 1, ::1 26379"),
            ("rediss+sentinel://a/main", "main by a 26379"),
            ("redis+cluster://u:p@a:7000,b,[::1]:3?namespace=s", "cluster a 7000, b 6379, ::1 3"),
            ("valkeys+cluster://a/", "cluster a 6379"),
        ] {
            if !url.contains("s+") || cfg!(feature = "tls") {
                assert_eq!(servers(url), names, "{url}");
            }
        }
    }

    #[test]
    fn parameters_have_units() {
        let builder = parsed(
            "redis://h?connect_timeout=2s&response_timeout=50ms&generation_max_age=0s&mark_ttl=2d&max_value_bytes=3MiB&default_ttl=5m",
        );
        assert_eq!(builder.connect_timeout, Duration::from_secs(2));
        assert_eq!(builder.response_timeout, Duration::from_millis(50));
        assert_eq!(builder.generation_max_age, Duration::ZERO);
        assert_eq!(builder.mark_ttl, Ttl::For(Duration::from_secs(2 * 24 * 60 * 60)));
        assert_eq!(builder.max_value_bytes, 3 << 20);
        assert_eq!(builder.default_ttl, Ttl::For(Duration::from_secs(300)));
    }

    // The names among the words of the list.
    fn listed() -> BTreeSet<&'static str> {
        let others = ["", "and", "for", "TLS", "also", "a", "Unix", "socket", "sentinels"];
        let words = PARAMETERS.split(|c: char| c != '_' && !c.is_ascii_alphabetic());
        words.filter(|word| !others.contains(word)).collect()
    }

    #[test]
    fn every_parameter_that_is_listed_is_taken() {
        let mut taken = BTreeSet::from(["root_certificate", "client_certificate", "client_key"]);
        for (place, parameter) in [
            ("redis://h", "namespace=shop"),
            ("redis://h", "default_ttl=5m"),
            ("redis://h", "connect_timeout=1s"),
            ("redis://h", "response_timeout=1s"),
            ("redis://h", "generation_max_age=1s"),
            ("redis://h", "mark_ttl=1d"),
            ("redis://h", "max_value_bytes=1MiB"),
            ("redis://h", "verify_body=true"),
            ("redis://h", "read=replica"),
            ("redis://h", "replica_lag=1s"),
            ("redis+unix:///socket", "db=1"),
            ("redis+unix:///socket", "user=u"),
            ("redis+unix:///socket", "pass=p"),
            ("redis+sentinel://h/main", "sentinel_user=u"),
            ("redis+sentinel://h/main", "sentinel_pass=p"),
        ] {
            let backend = parsed(&format!("{place}?{parameter}")).connect_later();
            backend.unwrap_or_else(|error| panic!("{place}?{parameter}: {error}"));
            taken.extend(parameter.split('=').next());
        }
        #[cfg(feature = "tls")]
        {
            let certificates = larder_testkit::servers::Certificates::new();
            let path = |file: &str| certificates.path(file).display().to_string();
            let root = format!("root_certificate={}", path("ca.crt"));
            let (certificate, key) = (path("client.crt"), path("client.key"));
            let client = format!("client_certificate={certificate}&client_key={key}");
            for parameters in [root, client] {
                parsed(&format!("rediss://h?{parameters}")).connect_later().unwrap();
            }
        }
        assert_eq!(taken, listed());
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_those_that_there_are() {
        for url in [
            "redis://canary:canary@canary/0?canary=canary",
            "redis://:canary@canary?read=primary&password=canary",
            "redis+unix:///canary?pass=canary&canary=canary",
            "redis+sentinel://:canary@canary/canary?sentinel_pass=canary&canary=canary",
            "redis+cluster://:canary@canary?canary=canary",
        ] {
            let error = Builder::default().url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = format!("{error} {error:?}");
            assert!(listed().iter().all(|name| text.contains(name)), "{url}: {text}");
            assert!(!text.contains("canary") && !text.contains("password"), "{url}: {text}");
        }
    }

    #[test]
    fn replicas_are_read_when_that_is_asked_for() {
        assert_eq!(parsed("redis://h?read=primary").replica_lag, None);
        assert_eq!(parsed("redis://h?read=replica").replica_lag, Some(LAG));
        let short = parsed("redis+cluster://h?replica_lag=200ms&read=replica").replica_lag;
        assert_eq!(short, Some(Duration::from_millis(200)));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for url in [
            "canary",
            "http://canary:canary@host",
            "redis://:canary@host/canary",
            "redis://:canary@host/70000",
            "redis://:canary@host?canary=canary",
            "redis://:canary@host?db=1",
            "redis://:canary@host?response_timeout=canary",
            "redis://:canary@host?response_timeout=250",
            "redis://:canary@host?max_value_bytes=canary",
            "redis://:canary@host?namespace=CANARY",
            "redis://",
            "redis://:canary@:6379/",
            "redis://:canary@canary,other/0",
            "redis://:canary@host?sentinel_pass=canary",
            "redis+canary://canary",
            "redis://canary?read=canary",
            "redis://canary?replica_lag=canary",
            "redis+unix://canary/canary",
            "rediss+unix:///canary",
            "redis+sentinel://canary,b",
            "redis+sentinel://,/canary",
            "redis+sentinel://canary/name/canary",
            "redis+cluster://canary,,b",
            "redis+cluster://canary:canary",
            "redis+cluster://canary/3",
            "redis://ca nary",
            "redis://h/0#canary",
        ] {
            let error = Builder::default().url(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.to_lowercase().contains("canary"), "{text}");
        }
        for builder in [
            parsed("redis://h?response_timeout=0s"),
            parsed("redis://h?connect_timeout=0s"),
            parsed("redis://h?response_timeout=2h"),
            parsed("redis://h").connect_timeout(Duration::MAX),
            parsed("redis://h?mark_ttl=1ms"),
            parsed("redis://h?max_value_bytes=1GiB"),
            parsed("redis+cluster://h").database(1),
            parsed("redis://h?replica_lag=1ms"),
            parsed("redis://h?replica_lag=2h"),
        ] {
            let error = builder.connect_later().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
        }
        assert!(!format!("{:?}", parsed("redis://canary:canary@canary/1")).contains("canary"));
    }
}
