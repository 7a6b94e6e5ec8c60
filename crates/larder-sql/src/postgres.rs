//! PostgreSQL: a server that all nodes share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::Result;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use url::{Host, Url};

use crate::Builder;
use crate::config::{decoded, wrong};
use crate::database::{Argument, Cell, Database, Defaults, Dialect, Row, cells};
use crate::failure::Cause;
use crate::statements::Words;

/// PostgreSQL 12 or later.
#[derive(Clone, Debug)]
pub struct Postgres(());

impl Database for Postgres {}

/// What only PostgreSQL is asked.
#[derive(Clone)]
pub struct PostgresOptions {
    host: String,
    port: u16,
    socket: Option<PathBuf>,
    username: String,
    password: Option<String>,
    database: Option<String>,
    sslmode: PgSslMode,
    sslrootcert: Option<PathBuf>,
    synchronous_commit: bool,
    statement_timeout: Duration,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("password", &self.password.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions {
            host: "127.0.0.1".into(),
            port: PORT,
            socket: None,
            username: "postgres".into(),
            password: None,
            database: None,
            sslmode: PgSslMode::Prefer,
            sslrootcert: None,
            synchronous_commit: true,
            statement_timeout: Postgres::DEFAULTS.limit,
        }
    }
}

impl PostgresOptions {
    pub(crate) fn connect(&self, limit: Duration) -> PgConnectOptions {
        let mut connect = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.username)
            .password(self.password.as_deref().unwrap_or_default())
            .database(self.database.as_deref().unwrap_or(&self.username))
            .ssl_mode(self.sslmode)
            .application_name("larder")
            .options([
                ("statement_timeout", limit_of(self.statement_timeout)),
                ("idle_in_transaction_session_timeout", limit_of(self.statement_timeout + limit)),
                ("default_transaction_isolation", "read committed".into()),
                ("synchronous_commit", if self.synchronous_commit { "on" } else { "off" }.into()),
            ])
            .disable_statement_logging();
        if let Some(socket) = &self.socket {
            connect = connect.socket(socket);
        }
        if let Some(path) = &self.sslrootcert {
            connect = connect.ssl_root_cert(path);
        }
        connect
    }
}

impl Builder<Postgres> {
    /// The user and the password. For credentials that do not stand in the URL.
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.options.username = username.into();
        self.options.password = Some(password.into());
        self
    }

    /// How long one operation may take, a retry included; the server gives a statement up after as long. 1 s unless
    /// set. A conditional write whose answer did not come has as long again to learn what became of it.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Whether the server acknowledges a write only when its disk has it. On unless set; off is several times as fast,
    /// and a crash of the server may undo the last moments, invalidations included. Nothing else can go wrong by it.
    pub fn synchronous_commit(mut self, wait: bool) -> Self {
        self.options.synchronous_commit = wait;
        self
    }
}

static WORDS: Words = Words {
    now: |_| "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint".into(),
    magic: "'\\x4c5244520101'::bytea",
    items: "(SELECT e.ord - 1 AS ord, e.v->>0 AS namespace, (e.v->>1)::bigint AS mark, e.v->>2 AS name \
            FROM json_array_elements($1::json) WITH ORDINALITY AS e(v, ord))",
    names: "(SELECT e.ord - 1 AS ord, e.name FROM json_array_elements_text($2::json) WITH ORDINALITY AS e(name, ord))",
    // By the index, one after the other, whatever the statistics say: without the limit it is a join for which the whole
    // table may be read, and with an array of names a look-up that may read the whole namespace.
    row: "CROSS JOIN LATERAL (SELECT * FROM {table} l WHERE {at} LIMIT 1) l WHERE true",
    share: "FOR SHARE OF q",
    lock: "FOR UPDATE OF o",
    skip: "FOR UPDATE OF l SKIP LOCKED",
    text: "text COLLATE \"C\"",
    bytes: "bytea",
    integer: "bigint",
    table_options: "",
    // Rows are locked in the order of their names, by everybody: two batches never wait for each other.
    // The sequence's row is locked first, by everybody: that orders invalidations, and no two wait for each other.
    invalidate: "WITH sequence AS (INSERT INTO {table} AS l ({columns}) \
        SELECT $1, 0, 'sequence', 4, $3, NULL, NULL, {now}, NULL, NULL, {now}, $4 \
        ON CONFLICT {key} DO UPDATE SET number = l.number + 1, used = excluded.used RETURNING number), \
        raised AS (INSERT INTO {table} AS l ({columns}) \
        SELECT $1, 0, n.name, 4, s.number, NULL, NULL, {now}, NULL, NULL, {now}, $4 \
        FROM sequence s CROSS JOIN {names} n ORDER BY n.name \
        ON CONFLICT {key} DO UPDATE SET number = excluded.number, used = excluded.used) \
        SELECT number FROM sequence",
    put_many: "WITH item AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], \
        $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[]) AS \
        i(namespace, name, kind, number, revision, value, fresh, ttl, size, condition, compared)), \
        placed AS MATERIALIZED (SELECT i.*, {life of item} AS generation FROM item i), \
        locked AS MATERIALIZED (SELECT o.namespace, o.name FROM placed i JOIN {table} o ON o.namespace = i.namespace \
        AND o.generation = i.generation AND o.name = i.name WHERE i.condition >= 2 \
        ORDER BY o.namespace, o.name FOR UPDATE OF o), \
        replaced AS (UPDATE {table} AS l SET kind = i.kind, number = i.number, revision = i.revision, value = i.value, \
        written = {now}, fresh = {now} + i.fresh, expires = {now} + i.ttl, used = {now}, size = i.size \
        FROM locked k JOIN placed i ON i.namespace = k.namespace AND i.name = k.name \
        WHERE l.namespace = i.namespace AND l.generation = i.generation AND l.name = i.name AND i.condition >= 2 AND \
        {entry or token} RETURNING i.namespace, i.name), \
        always AS (INSERT INTO {table} AS l ({columns}) SELECT i.namespace, i.generation, i.name, i.kind, i.number, \
        i.revision, i.value, {now}, {now} + i.fresh, {now} + i.ttl, {now}, i.size FROM placed i \
        WHERE i.condition = 0 ORDER BY i.namespace COLLATE \"C\", i.name COLLATE \"C\" \
        ON CONFLICT {key} DO UPDATE SET {take over} RETURNING l.namespace, l.name), \
        absent AS (INSERT INTO {table} AS l ({columns}) SELECT i.namespace, i.generation, i.name, i.kind, i.number, \
        i.revision, i.value, {now}, {now} + i.fresh, {now} + i.ttl, {now}, i.size FROM placed i \
        WHERE i.condition = 1 ORDER BY i.namespace COLLATE \"C\", i.name COLLATE \"C\" \
        ON CONFLICT {key} DO UPDATE SET {take over} WHERE NOT {entry} RETURNING l.namespace, l.name) \
        SELECT namespace, name FROM replaced UNION ALL SELECT namespace, name FROM always \
        UNION ALL SELECT namespace, name FROM absent",
    // One write, nothing that is answered, and the generation and the time once for all of them.
    put_all: "INSERT INTO {table} AS l ({columns}) SELECT $1, {life}, i.name, i.kind, i.number, i.revision, i.value, \
        (SELECT {now}), (SELECT {now}) + i.fresh, (SELECT {now}) + i.ttl, (SELECT {now}), i.size \
        FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[], \
        $9::bigint[]) AS i(name, kind, number, revision, value, fresh, ttl, size) ORDER BY i.name COLLATE \"C\" \
        ON CONFLICT {key} DO UPDATE SET {take over}",
    rows: &[],
};

impl Dialect for Postgres {
    type Connection = PgConnection;
    type Options = PostgresOptions;

    const NAME: &'static str = "postgres";
    const DEFAULTS: Defaults =
        Defaults { create: false, connections: 8, limit: Duration::from_secs(1) };
    const SERVERS_TIME: bool = true;
    const PARAMETERS: &'static str =
        "response_timeout, synchronous_commit, sslmode, sslrootcert and socket";

    fn words() -> &'static Words {
        &WORDS
    }

    async fn open(options: &PostgresOptions, limit: Duration) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&options.connect(limit)).await
    }

    async fn ping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.ping().await
    }

    async fn fetch(
        connection: &mut PgConnection,
        statement: Arc<str>,
        arguments: &[Argument],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for argument in arguments {
            query = match argument {
                Argument::Text(text) => query.bind(text),
                Argument::Integer(number) => query.bind(number),
                Argument::Blob(bytes) => query.bind(bytes.as_deref()),
                Argument::Texts(texts) => query.bind(texts),
                Argument::Integers(numbers) => query.bind(numbers),
                Argument::Blobs(blobs) => {
                    query.bind(blobs.iter().map(Option::as_deref).collect::<Vec<_>>())
                }
            };
        }
        let rows = query.fetch_all(connection).await?;
        rows.iter().map(|row| Ok(cells!(row))).collect()
    }

    fn cause(code: &str, _: &str) -> Cause {
        match code {
            "28000" | "28P01" => Cause::Login,
            "3D000" => Cause::NoDatabase,
            "42P01" | "3F000" => Cause::NoTable,
            "42703" | "42804" | "42P10" => Cause::OtherTable,
            "42501" => Cause::Forbidden,
            // Two nodes that make the same table at the same time, too.
            "40001" | "40P01" | "23505" | "42P07" => Cause::Conflict,
            "57014" | "55P03" => Cause::Late,
            "53100" | "53200" | "54000" => Cause::Full,
            "25006" => Cause::ReadOnly,
            // Said by what stands in between, of a database that may have done it.
            code if code.starts_with("08") => Cause::Lost,
            code if code.starts_with("57P") || code.starts_with("53") => Cause::Leaving,
            _ => Cause::Unknown,
        }
    }

    fn parameter(options: &mut PostgresOptions, name: &str, value: &str) -> Result<bool> {
        match name {
            "synchronous_commit" => {
                options.synchronous_commit =
                    value.parse().map_err(|_| wrong("synchronous_commit is true or false"))?;
            }
            "sslmode" => {
                options.sslmode = value.parse().map_err(|_| {
                    wrong("sslmode is disable, allow, prefer, require, verify-ca or verify-full")
                })?;
            }
            "sslrootcert" => options.sslrootcert = Some(value.into()),
            "socket" => options.socket = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn address(options: &mut PostgresOptions, url: &str) -> Result<()> {
        let url = Url::parse(url).map_err(|_| {
            wrong("the URL cannot be read; write postgres://user:password@host:5432/database, characters other than letters and digits of the password percent-encoded")
        })?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("the URL's scheme is none of postgres and postgresql"));
        }
        options.host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            _ => {
                return Err(wrong(
                    "the URL names no host; write postgres://user:password@host:5432/database",
                ));
            }
        };
        options.port = url.port().unwrap_or(PORT);
        if !url.username().is_empty() {
            options.username = decoded(url.username())?;
        }
        if let Some(password) = url.password() {
            options.password = Some(decoded(password)?);
        }
        match url.path().trim_start_matches('/') {
            "" => {}
            path => options.database = Some(decoded(path)?),
        }
        Ok(())
    }

    fn check(_: &PostgresOptions) -> Result<()> {
        Ok(())
    }

    fn limited(options: &mut PostgresOptions, limit: Duration) {
        options.statement_timeout = limit;
    }
}

fn limit_of(limit: Duration) -> String {
    format!("{}ms", limit.as_millis().clamp(1, i32::MAX as u128))
}

const PORT: u16 = 5432;
