//! How a SQL backend is configured: a URL, a builder, or both.

use std::fmt;
use std::time::Duration;

use larder_core::{Clock, Error, ErrorKind, Namespace, Result, Ttl, parse};

use crate::SqlBackend;
use crate::database::Database;
use crate::naming;
use crate::statements::schema;

/// Configures a [`SqlBackend`].
///
/// What can be wrong fails here, in words that tell what to write instead. Neither an error nor the `Debug` text ever
/// holds the URL, a path, a host name, a user name or a password.
#[derive(Clone)]
#[must_use]
pub struct Builder<D: Database> {
    pub(crate) options: D::Options,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) table: String,
    pub(crate) create: bool,
    pub(crate) max_connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) limit: Duration,
    pub(crate) default_ttl: Ttl,
    pub(crate) max_value_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) max_entries: u64,
    pub(crate) sweep_every: Duration,
    pub(crate) clock: Clock,
}

impl<D: Database> Default for Builder<D> {
    fn default() -> Self {
        Builder {
            options: D::Options::default(),
            namespace: None,
            table: "larder".into(),
            create: D::DEFAULTS.create,
            max_connections: D::DEFAULTS.connections,
            connect_timeout: Duration::from_secs(2),
            limit: D::DEFAULTS.limit,
            default_ttl: Ttl::STANDARD,
            max_value_bytes: 64 << 20,
            max_bytes: 1 << 30,
            max_entries: 1_000_000,
            sweep_every: Duration::from_secs(60),
            clock: Clock::system(),
        }
    }
}

impl<D: Database> Builder<D> {
    /// Takes the database and parameters from a URL; what was set before and is not named in the URL stays.
    ///
    /// | URL | means |
    /// | --- | --- |
    /// | `sqlite://cache.db`, `sqlite:///var/cache/shop.db` | a file, from the working directory or from the root |
    /// | `postgres://user:password@host:5432/database` | a server; every part but the host may be left out |
    ///
    /// The parameters are named after the methods of this builder: `namespace`, `table`, `create`, `max_connections`,
    /// `connect_timeout`, `default_ttl`, `max_value_bytes`, `max_bytes`, `max_entries` and `sweep_every`; for SQLite also
    /// `busy_timeout` and `synchronous` (`off`, `normal`, `full`), for PostgreSQL `response_timeout`,
    /// `synchronous_commit` (`true`, `false`), `sslmode` (`prefer` unless set; as `psql` knows them), `sslrootcert` (a
    /// file) and `socket` (the directory of a Unix socket). Durations are written `250ms`, `5s`, `10m`, `2h` or `30d`,
    /// lifetimes also `forever`; sizes `1024`, `512KiB` or `64MiB`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is no such URL or has a parameter that does not exist.
    pub fn url(mut self, url: &str) -> Result<Self> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        D::address(&mut self.options, address).map_err(named::<D>)?;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            self = self.parameter(&name, &value).map_err(named::<D>)?;
        }
        Ok(self)
    }

    fn parameter(mut self, name: &str, value: &str) -> Result<Self> {
        let number = || value.parse().map_err(|_| wrong(format!("{name} is a number")));
        match name {
            "namespace" => self.namespace = Some(Namespace::new(value)?),
            "table" => self.table = naming::table(value)?.to_owned(),
            "create" => self.create = parse::flag(name, value)?,
            "max_connections" => {
                self.max_connections = usize::try_from(number()?).unwrap_or(usize::MAX);
            }
            "connect_timeout" => self.connect_timeout = parse::duration(name, value)?,
            "default_ttl" => self.default_ttl = parse::lifetime(name, value)?,
            "max_value_bytes" => self.max_value_bytes = parse::size(name, value)?,
            "max_bytes" => self.max_bytes = parse::size(name, value)?,
            "max_entries" => self.max_entries = number()?,
            "sweep_every" => self.sweep_every = parse::duration(name, value)?,
            "response_timeout" | "busy_timeout" if D::PARAMETERS.contains(name) => {
                self.limit = parse::duration(name, value)?;
            }
            _ if D::parameter(&mut self.options, name, value)? => {}
            _ => {
                return Err(wrong(format!(
                    "the URL has a parameter that Larder does not know; the known ones are {COMMON}, {}",
                    D::PARAMETERS
                )));
            }
        }
        Ok(self)
    }

    /// The table's name, `larder` unless set: lower-case letters, digits and `_`, perhaps behind a schema's and a dot.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is another kind of name.
    pub fn table(mut self, name: &str) -> Result<Self> {
        self.table = naming::table(name).map_err(named::<D>)?.to_owned();
        Ok(self)
    }

    /// Whether connecting makes the table, if it is missing. On for SQLite, off for PostgreSQL unless set; who runs
    /// migrations of their own takes [`schema`](Builder::schema).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The statements that make the table, for those who run their own migrations.
    pub fn schema(&self) -> String {
        schema(D::words(), &self.table).join(";\n") + ";\n"
    }

    /// How many connections there are at most, beside one that sweeps. SQLite: 4 that read, and one that writes.
    /// PostgreSQL: 8.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long one attempt to connect may take, log-in and all. 2 s unless set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// The lifetime of entries that are stored with [`Ttl::Default`]. 300 s unless set.
    pub fn default_ttl(mut self, ttl: Ttl) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// The largest value in bytes, key and envelope included. 64 MiB unless set, and at most 256 MiB.
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// The bytes that all rows may have together, as [the bounds](crate#bounds) count them. 1 GiB unless set.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many entries, counters and markers there may be. A million unless set. See [the bounds](crate#bounds).
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// How long each process waits between two sweeps. 60 s unless set.
    pub fn sweep_every(mut self, pause: Duration) -> Self {
        self.sweep_every = pause;
        self
    }

    /// The clock, for tests. SQLite's lifetimes follow it; PostgreSQL counts by the server's clock all the same.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The namespace that the URL named. The backend itself takes its namespaces from the keys.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Connects, and makes or checks the table.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be, the database refuses the log-in, or the
    /// table is missing; [`Unavailable`](ErrorKind::Unavailable) when the database cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the attempt ends; tables that were made stay.
    pub async fn connect(self) -> Result<SqlBackend<D>> {
        let create = self.create;
        let backend = self.connect_later()?;
        backend.prepare(create).await?;
        Ok(backend)
    }

    /// Does not wait for the database: operations fail until it is there. The table must be there then. Inside a Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be.
    pub fn connect_later(self) -> Result<SqlBackend<D>> {
        D::check(&self.options).map_err(named::<D>)?;
        let refuse = |words: &str| Err(named::<D>(wrong(words)));
        if tokio::runtime::Handle::try_current().is_err() {
            return refuse("databases are used from inside a Tokio runtime only");
        }
        if !(1..=1000).contains(&self.max_connections) {
            return refuse("max_connections must lie between 1 and 1000");
        }
        if self.connect_timeout.is_zero() || self.limit.is_zero() || self.sweep_every.is_zero() {
            return refuse("a time limit of zero lets nothing succeed; write one like 1s");
        }
        if !(1024..=256 << 20).contains(&self.max_value_bytes) {
            return refuse("max_value_bytes must lie between 1KiB and 256MiB");
        }
        if self.max_bytes < self.max_value_bytes.min(64 << 10) {
            return refuse(
                "max_bytes is below 64KiB: hardly an entry would fit; give it more room",
            );
        }
        if self.max_entries < 16 {
            return refuse("max_entries is below 16: hardly an entry would fit; allow more");
        }
        Ok(SqlBackend::with(self))
    }
}

impl<D: Database> fmt::Debug for Builder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("database", &D::NAME)
            .field("namespace", &self.namespace)
            .field("table", &self.table)
            .field("max_connections", &self.max_connections)
            .field("max_bytes", &self.max_bytes)
            .field("max_entries", &self.max_entries)
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}

pub(crate) fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words)
}

fn named<D: Database>(error: Error) -> Error {
    error.with_backend(D::NAME)
}

/// A percent-encoded part of a URL.
pub(crate) fn decoded(text: &str) -> Result<String> {
    // A plus sign is one here.
    let text = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let decoded = url::form_urlencoded::parse(text.as_bytes()).next();
    let decoded = decoded.map(|(decoded, _)| decoded.into_owned()).unwrap_or_default();
    if decoded.contains(['\0', '\u{fffd}']) {
        return Err(wrong("a part of the URL is no UTF-8 text once it is percent-decoded"));
    }
    Ok(decoded)
}

const COMMON: &str = "namespace, table, create, max_connections, connect_timeout, default_ttl, max_value_bytes, max_bytes, max_entries, sweep_every";

#[cfg(all(test, feature = "sqlite", feature = "postgres"))]
mod tests {
    use super::*;
    use crate::{Postgres, PostgresBackend, Sqlite, SqliteBackend};

    #[tokio::test]
    async fn urls_are_taken_apart() {
        let url = "postgres://app:p%40ss%2Bw+d@db.internal:5433/shop?namespace=shop&table=app.cache&create=true\
            &max_connections=3&connect_timeout=1s&response_timeout=250ms&default_ttl=forever&max_value_bytes=1MiB\
            &max_bytes=2GiB&max_entries=5000&sweep_every=5m&synchronous_commit=false&sslmode=verify-full&sslrootcert=/ca.pem";
        let builder = Builder::<Postgres>::default().url(url).unwrap();
        assert_eq!(builder.namespace().unwrap().as_str(), "shop");
        assert_eq!(
            (&*builder.table, builder.create, builder.max_connections),
            ("app.cache", true, 3)
        );
        assert_eq!(builder.limit, Duration::from_millis(250));
        assert_eq!((builder.max_bytes, builder.max_entries), (2 << 30, 5000));
        assert_eq!(builder.default_ttl, Ttl::Forever);
        let backend = builder.connect_later().unwrap();
        let shown = format!("{backend:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("db.internal"), "{shown}");

        let builder = Builder::<Sqlite>::default();
        let builder = builder.url("sqlite://cache.db?busy_timeout=1m&synchronous=off").unwrap();
        assert_eq!(builder.limit, Duration::from_secs(60));
        assert!(builder.create && builder.namespace().is_none());
        assert_eq!(decoded("a%20b+c%26d").unwrap(), "a b+c&d");
        assert!(decoded("%ff").is_err());
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_without_the_url() {
        for (url, words) in [
            ("postgres://u:canary@", "cannot be read"),
            ("postgres:///canary", "host"),
            ("mysql://canary", "scheme"),
            ("postgres://u:canary@h/d?canary=1", "the known ones are namespace, table"),
            ("postgres://u:canary@h/d?busy_timeout=1s", "response_timeout, synchronous_commit"),
            ("postgres://u:canary@h/d?namespace=CANARY", "namespace"),
            ("postgres://u:canary@h/d?table=canary;drop", "table is a name"),
            ("postgres://u:canary@h/d?create=canary", "create is true or false"),
            ("postgres://u:canary@h/d?max_connections=canary", "max_connections is a number"),
            ("postgres://u:canary@h/d?response_timeout=canary", "response_timeout"),
            ("postgres://u:canary@h/d?sslmode=canary", "sslmode is"),
            ("postgres://u:canary@h/d?synchronous_commit=canary", "synchronous_commit"),
        ] {
            let error = PostgresBackend::connect(url).await.unwrap_err();
            assert_eq!(
                error.kind() == ErrorKind::Configuration,
                !url.contains("CANARY"),
                "{error}"
            );
            let text = format!("{error} {error:?}");
            assert!(text.contains(words), "{url}: {text}");
            assert!(!text.to_lowercase().contains("canary"), "{text}");
        }
        for (url, words) in [
            ("sqlite:canary", "sqlite:///var"),
            ("sqlite://", "names no file"),
            ("sqlite://:memory:", "memory://"),
            ("sqlite://canary?response_timeout=1s", "busy_timeout and synchronous"),
            ("sqlite://canary?synchronous=canary", "off, normal or full"),
        ] {
            let error = SqliteBackend::connect(url).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(words) && !text.contains("canary"), "{url}: {text}");
        }
        let shown = format!("{:?}", Builder::<Sqlite>::default().path("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[tokio::test]
    async fn settings_that_cannot_be_fail() {
        let sqlite = || Builder::<Sqlite>::default().path("canary.db");
        for (builder, words) in [
            (Builder::default(), "no file"),
            (sqlite().max_connections(0), "max_connections"),
            (sqlite().busy_timeout(Duration::ZERO), "zero"),
            (sqlite().max_value_bytes(1), "max_value_bytes"),
            (sqlite().max_value_bytes(1 << 40), "max_value_bytes"),
            (sqlite().max_bytes(1024), "max_bytes"),
            (sqlite().max_entries(1), "max_entries"),
        ] {
            let error = builder.connect_later().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = format!("{error} {error:?}");
            assert!(text.contains(words) && !text.contains("canary"), "{text}");
        }
        assert!(sqlite().table("drop table").is_err());
    }
}
