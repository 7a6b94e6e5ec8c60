//! How a Redis backend is configured: a URL, a builder, or both.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use larder_core::envelope::Envelope;
use larder_core::parse;
use larder_core::{Clock, Error, ErrorKind, Namespace, Result, Ttl};
use url::{Host, Url};

use crate::tls::Tls;
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
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    pub(crate) database: i64,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) default_ttl: Ttl,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) generation_max_age: Duration,
    pub(crate) mark_ttl: Ttl,
    pub(crate) max_value_bytes: u64,
    pub(crate) envelope: Envelope,
    pub(crate) clock: Clock,
}

/// Where the server is.
#[derive(Clone)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            address: Address::Tcp { host: "127.0.0.1".into(), port: PORT },
            tls: None,
            database: 0,
            username: None,
            password: None,
            namespace: None,
            default_ttl: Ttl::STANDARD,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(250),
            generation_max_age: Duration::from_secs(1),
            mark_ttl: Ttl::For(Duration::from_secs(30 * 24 * 60 * 60)),
            max_value_bytes: 64 * 1024 * 1024,
            envelope: Envelope::default(),
            clock: Clock::system(),
        }
    }
}

impl Builder {
    /// Takes server, credentials, database and parameters from a URL; what was set before and is not named in the URL
    /// stays.
    ///
    /// | URL | means |
    /// | --- | --- |
    /// | `redis://user:password@host:6379/0` | TCP; every part but the host may be left out |
    /// | `rediss://…` | the same over TLS |
    /// | `redis+unix:///path/to/socket?db=0&user=…&pass=…` | a Unix socket |
    ///
    /// `valkey`, `valkeys` and `unix` stand for `redis`, `rediss` and `redis+unix`. The parameters are named after the
    /// methods of this builder: `namespace`, `default_ttl`, `connect_timeout`, `response_timeout`,
    /// `generation_max_age`, `mark_ttl` and `max_value_bytes`. Durations are written `250ms`, `5s`, `10m`, `2h` or
    /// `30d`, lifetimes also `forever`; sizes `1024`, `512KiB` or `64MiB`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is no such URL or has a parameter that does not exist.
    pub fn url(mut self, url: &str) -> Result<Self> {
        let url = Url::parse(url).map_err(|_| {
            wrong("the URL cannot be read; write redis://user:password@host:6379/0, characters other than letters and digits of the password percent-encoded")
        })?;
        match url.scheme() {
            "redis" | "valkey" => self.server(&url)?,
            "rediss" | "valkeys" => {
                self.server(&url)?;
                self.tls = Some(self.tls.take().map_or_else(Tls::new, Ok)?);
            }
            "redis+unix" | "unix" => self.address = Address::Unix(decoded(url.path())?.into()),
            _ => {
                return Err(wrong(
                    "the URL's scheme is none of redis, rediss, redis+unix (or valkey, valkeys, unix)",
                ));
            }
        }
        for (name, value) in url.query_pairs() {
            self = self.parameter(&name, &value)?;
        }
        Ok(self)
    }

    fn server(&mut self, url: &Url) -> Result<()> {
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            _ => return Err(wrong("the URL names no host; write redis://host:6379/0")),
        };
        self.address = Address::Tcp { host, port: url.port().unwrap_or(PORT) };
        if !url.username().is_empty() {
            self.username = Some(decoded(url.username())?);
        }
        if let Some(password) = url.password() {
            self.password = Some(decoded(password)?);
        }
        match url.path().trim_matches('/') {
            "" => {}
            path => self.database = database(path)?,
        }
        Ok(())
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
            "db" if matches!(self.address, Address::Unix(_)) => self.database = database(value)?,
            "user" if matches!(self.address, Address::Unix(_)) => {
                self.username = Some(value.into());
            }
            "pass" if matches!(self.address, Address::Unix(_)) => {
                self.password = Some(value.into());
            }
            _ => {
                return Err(wrong(format!(
                    "the URL has a parameter that Larder does not know; the known ones are {PARAMETERS}"
                )));
            }
        }
        Ok(self)
    }

    /// The user (none: the server's `default` user) and the password. For credentials that do not stand in the URL.
    pub fn credentials(mut self, username: Option<&str>, password: &str) -> Self {
        self.username = username.map(Into::into);
        self.password = Some(password.into());
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
        if self.tls.is_some() && matches!(self.address, Address::Unix(_)) {
            return Err(wrong("a Unix socket speaks no TLS; leave the certificates away"));
        }
        Ok(RedisBackend::with(self))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("tls", &self.tls.is_some())
            .field("password", &self.password.is_some())
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

fn decoded(text: &str) -> Result<String> {
    // `+` is a plus in these parts of a URL, so this is not form decoding.
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if byte == b'%' => {
                bytes.push(value);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("a percent-encoded part of the URL is not UTF-8"))
}

fn database(text: &str) -> Result<i64> {
    text.parse::<u16>()
        .map(i64::from)
        .map_err(|_| wrong("the URL's path is the number of a database; write redis://host:6379/0"))
}

const PORT: u16 = 6379;

// The server's limit is 512 MiB for one argument; a record in a script's argument is one.
const LARGEST: u64 = 511 * 1024 * 1024;

const LONGEST_LIMIT: Duration = Duration::from_secs(60 * 60);

const PARAMETERS: &str = "namespace, default_ttl, connect_timeout, response_timeout, generation_max_age, mark_ttl and max_value_bytes (for a Unix socket also db, user and pass)";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Builder {
        Builder::default().url(url).unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        let builder =
            parsed("redis://app:p%40ss%2Bword@[::1]:7000/3?namespace=shop&default_ttl=forever");
        assert!(matches!(&builder.address, Address::Tcp { host, port: 7000 } if host == "::1"));
        assert_eq!(builder.username.as_deref(), Some("app"));
        assert_eq!(builder.password.as_deref(), Some("p@ss+word"));
        assert_eq!(builder.database, 3);
        assert_eq!(builder.namespace().unwrap().as_str(), "shop");
        assert_eq!(builder.default_ttl, Ttl::Forever);

        let builder = parsed("valkey://:pass@cache.internal");
        assert!(
            matches!(&builder.address, Address::Tcp { host, port: 6379 } if host == "cache.internal")
        );
        assert_eq!((builder.username, builder.password.as_deref()), (None, Some("pass")));

        let builder = parsed("redis+unix:///run/redis%20a.sock?db=2&user=u&pass=p");
        assert!(
            matches!(&builder.address, Address::Unix(path) if path.as_os_str() == "/run/redis a.sock")
        );
        assert_eq!((builder.database, builder.password.as_deref()), (2, Some("p")));
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
        ] {
            let error = builder.connect_later().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
        }
        assert!(!format!("{:?}", parsed("redis://canary:canary@canary/1")).contains("canary"));
    }
}
