//! What somebody would write without Larder: the client, a key, bytes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_memcached::AsciiProtocol;
use bytes::Bytes;
use redis::AsyncCommands;
use sqlx::{PgPool, SqlitePool};
use tokio::sync::Mutex;

use super::{BATCH, KEYS, Op, value};

/// A client, with the keys and the value that it is asked for.
pub(super) struct Bare {
    client: Client,
    keys: Vec<String>,
    value: Bytes,
}

enum Client {
    Moka(moka::sync::Cache<String, Bytes>),
    Redis(redis::aio::MultiplexedConnection),
    // One request at a time on each.
    Memcached(Vec<Mutex<async_memcached::Client>>, AtomicUsize),
    Sqlite(SqlitePool),
    Postgres(PgPool),
    Files(PathBuf),
}

// As many connections as Larder's backends take unless told otherwise.
const CONNECTIONS: u32 = 8;

const HOUR: Duration = Duration::from_secs(3600);

impl Bare {
    fn new(client: Client) -> Self {
        let keys = (0..KEYS).map(|n| format!("bench:key-{n}")).collect();
        Bare { client, keys, value: value() }
    }

    pub(super) fn moka() -> Self {
        Bare::new(Client::Moka(
            moka::sync::Cache::builder().max_capacity(64 << 10).time_to_live(HOUR).build(),
        ))
    }

    pub(super) async fn redis(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        Bare::new(Client::Redis(connection.expect("a connection")))
    }

    pub(super) async fn memcached(address: &str) -> Self {
        let mut clients = Vec::new();
        for _ in 0..8 {
            let client = async_memcached::Client::new(format!("tcp://{address}")).await;
            clients.push(Mutex::new(client.expect("a connection")));
        }
        Bare::new(Client::Memcached(clients, AtomicUsize::new(0)))
    }

    pub(super) async fn sqlite(path: &str) -> Self {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(30));
        let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(CONNECTIONS);
        let pool = pool.connect_with(options).await.expect("a file");
        let make = "CREATE TABLE bare (name TEXT PRIMARY KEY, body BLOB NOT NULL, ends INTEGER) WITHOUT ROWID";
        sqlx::query(make).execute(&pool).await.expect("a table");
        Bare::new(Client::Sqlite(pool))
    }

    pub(super) async fn postgres(url: &str) -> Self {
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(CONNECTIONS);
        let pool = pool.acquire_timeout(Duration::from_secs(60)).connect(url).await;
        let pool = pool.expect("a connection");
        let make =
            "CREATE UNLOGGED TABLE bare (name TEXT PRIMARY KEY, body BYTEA NOT NULL, ends BIGINT)";
        sqlx::query(make).execute(&pool).await.expect("a table");
        Bare::new(Client::Postgres(pool))
    }

    pub(super) fn files(path: &str) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        Bare::new(Client::Files(path.into()))
    }

    pub(super) async fn run(&self, op: Op, n: usize) {
        let key = &self.keys[n];
        let batch = || (n..n + BATCH).map(|n| self.keys[n % KEYS].clone());
        match &self.client {
            Client::Moka(moka) => match op {
                Op::Get => assert!(moka.get(key).is_some()),
                Op::Set => moka.insert(key.clone(), self.value.clone()),
                Op::GetMany => assert!(batch().all(|key| moka.get(&key).is_some())),
                Op::SetMany => batch().for_each(|key| moka.insert(key, self.value.clone())),
            },
            Client::Redis(connection) => self.redis_run(connection.clone(), op, n).await,
            Client::Memcached(clients, next) => {
                let at = next.fetch_add(1, Ordering::Relaxed) % clients.len();
                let mut client = clients[at].lock().await;
                match op {
                    Op::Get => assert!(client.get(key).await.expect("an answer").is_some()),
                    Op::Set => {
                        client.set(key, &self.value[..], Some(3600), None).await.expect("stored");
                    }
                    Op::GetMany => {
                        let found = client.get_multi(batch()).await.expect("an answer");
                        assert_eq!(found.len(), BATCH);
                    }
                    // It has no command for many.
                    Op::SetMany => {
                        for key in batch() {
                            client
                                .set(key, &self.value[..], Some(3600), None)
                                .await
                                .expect("stored");
                        }
                    }
                }
            }
            Client::Sqlite(pool) => self.sqlite_run(pool, op, n).await,
            Client::Postgres(pool) => self.postgres_run(pool, op, n).await,
            Client::Files(folder) => {
                let path = |key: &str| folder.join(key.replace(':', "_"));
                let (value, write) = (self.value.clone(), matches!(op, Op::Set | Op::SetMany));
                let paths: Vec<PathBuf> = match op {
                    Op::Get | Op::Set => vec![path(key)],
                    Op::GetMany | Op::SetMany => batch().map(|key| path(&key)).collect(),
                };
                let work = tokio::task::spawn_blocking(move || {
                    for path in paths {
                        if write {
                            let temporary =
                                path.with_extension(format!("{:016x}", rand::random::<u64>()));
                            std::fs::write(&temporary, &value).expect("written");
                            std::fs::rename(&temporary, &path).expect("renamed");
                        } else {
                            assert_eq!(std::fs::read(&path).expect("read").len(), value.len());
                        }
                    }
                });
                work.await.expect("a thread");
            }
        }
    }

    async fn redis_run(&self, mut connection: redis::aio::MultiplexedConnection, op: Op, n: usize) {
        let keys: Vec<&String> = (n..n + BATCH).map(|n| &self.keys[n % KEYS]).collect();
        match op {
            Op::Get => {
                let found: Option<Vec<u8>> =
                    connection.get(&self.keys[n]).await.expect("an answer");
                assert!(found.is_some());
            }
            Op::Set => {
                let set = connection.set_ex(&self.keys[n], &self.value[..], 3600);
                let _: () = set.await.expect("stored");
            }
            Op::GetMany => {
                let found: Vec<Option<Vec<u8>>> = connection.mget(keys).await.expect("an answer");
                assert_eq!(found.iter().flatten().count(), BATCH);
            }
            Op::SetMany => {
                let mut pipe = redis::pipe();
                for key in keys {
                    pipe.set_ex(key, &self.value[..], 3600).ignore();
                }
                let _: () = pipe.query_async(&mut connection).await.expect("stored");
            }
        }
    }

    async fn sqlite_run(&self, pool: &SqlitePool, op: Op, n: usize) {
        let names: Vec<&String> = (n..n + BATCH).map(|n| &self.keys[n % KEYS]).collect();
        let read = "SELECT body FROM bare WHERE name = ?";
        let write = "INSERT INTO bare VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body, ends = excluded.ends";
        match op {
            Op::Get => {
                let found = sqlx::query(read).bind(&self.keys[n]).fetch_optional(pool).await;
                assert!(found.expect("an answer").is_some());
            }
            Op::Set => {
                let set =
                    sqlx::query(write).bind(&self.keys[n]).bind(&self.value[..]).bind(3600_i64);
                set.execute(pool).await.expect("stored");
            }
            Op::GetMany => {
                let many =
                    "SELECT name, body FROM bare WHERE name IN (SELECT value FROM json_each(?))";
                let list = serde_json::to_string(&names).expect("names");
                let found = sqlx::query(many).bind(list).fetch_all(pool).await;
                assert_eq!(found.expect("an answer").len(), BATCH);
            }
            Op::SetMany => {
                let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.expect("begun");
                for name in names {
                    let set = sqlx::query(write).bind(name).bind(&self.value[..]).bind(3600_i64);
                    set.execute(&mut *transaction).await.expect("stored");
                }
                transaction.commit().await.expect("committed");
            }
        }
    }

    async fn postgres_run(&self, pool: &PgPool, op: Op, n: usize) {
        let names: Vec<String> = (n..n + BATCH).map(|n| self.keys[n % KEYS].clone()).collect();
        match op {
            Op::Get => {
                let read = sqlx::query("SELECT body FROM bare WHERE name = $1").bind(&self.keys[n]);
                assert!(read.fetch_optional(pool).await.expect("an answer").is_some());
            }
            Op::Set => {
                let write = "INSERT INTO bare VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET body = excluded.body, ends = excluded.ends";
                let set =
                    sqlx::query(write).bind(&self.keys[n]).bind(&self.value[..]).bind(3600_i64);
                set.execute(pool).await.expect("stored");
            }
            Op::GetMany => {
                let many = "SELECT name, body FROM bare WHERE name = ANY($1)";
                let found = sqlx::query(many).bind(names).fetch_all(pool).await;
                assert_eq!(found.expect("an answer").len(), BATCH);
            }
            Op::SetMany => {
                // In the order of their names, so that two do not wait for each other in a circle.
                let mut names = names;
                names.sort_unstable();
                let bodies = vec![self.value.to_vec(); names.len()];
                let write = "INSERT INTO bare SELECT name, body, 3600 FROM UNNEST($1::text[], $2::bytea[]) AS new (name, body) ON CONFLICT (name) DO UPDATE SET body = excluded.body, ends = excluded.ends";
                sqlx::query(write).bind(names).bind(bodies).execute(pool).await.expect("stored");
            }
        }
    }
}
