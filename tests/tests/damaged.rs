//! What lies in a real store under our names and is no record of ours: a miss for its reader, and told to the log with how
//! many there were, once for a burst.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::{Backend, Clock, Encoded, Entry, Key, ManualClock, Namespace, Ttl, When};
use larder_file::FileBackend;
use larder_memcached::MemcachedBackend;
use larder_redis::RedisBackend;
use larder_sql::{PostgresBackend, SqliteBackend};
use larder_testkit::servers::{MemcachedServer, PostgresServer, RedisServer};

const LONG: Duration = Duration::from_secs(3600);

// A record cut short, as an older or a newer program, a bad disk or somebody hostile leaves it.
const DAMAGED: &[u8] = b"LRDR\x01";

// The same in the databases, for every record there is.
const DAMAGE: &str = "UPDATE larder SET value = substr(value, 1, 5) WHERE kind = 0";

/// What was told to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Hears what is told in this program, on whatever thread: files are read on some of their own.
    fn of_this_program() -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_global_default(subscriber).expect("there is none yet");
        log
    }

    /// The lines about damage that came since it was asked last.
    fn taken(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let told = text.lines().filter(|line| line.contains("taken for absent"));
        told.map(str::to_owned).collect()
    }
}

fn keys() -> Vec<Key> {
    let shop = Namespace::new("shop").unwrap();
    (0..4).map(|n: u8| Key::new(&shop, ["d".to_owned(), n.to_string()]).unwrap()).collect()
}

/// Stores some values, damages their records and reads them, twice within the ten seconds of one burst.
async fn is_a_miss_and_told<B: Backend>(
    store: &B,
    hands: &ManualClock,
    log: &Log,
    target: &str,
    damage: impl AsyncFn(&Key),
) {
    let (name, keys) = (store.name(), keys());
    for key in &keys {
        let encoded = Encoded { codec: 200, body: "good".into(), ..Encoded::default() };
        let put = store.put(key, Entry::wire(encoded), Ttl::For(LONG), When::Always);
        let _ = put.await.unwrap();
        assert!(store.get(key, &[]).await.unwrap().entry.is_some(), "{name}: it was stored");
    }
    assert_eq!(log.taken(), [""; 0], "{name}: what is whole is not told of");
    for key in &keys {
        damage(key).await;
    }
    let miss = async |key: &Key| {
        let found = store.get(key, &[]).await.expect("damage is no error");
        assert!(found.entry.is_none(), "{name}: what is damaged is a miss");
    };
    let tells = |count: usize| {
        let told = log.taken();
        assert_eq!(told.len(), 1, "{name}: once: {told:?}");
        for words in [format!("WARN {target}: "), format!("count={count} "), "last=".to_owned()] {
            assert!(told[0].contains(&words), "{name}: no {words:?} in {told:?}");
        }
    };
    miss(&keys[0]).await;
    tells(1);
    miss(&keys[1]).await;
    miss(&keys[2]).await;
    assert_eq!(log.taken(), [""; 0], "{name}: a burst is told of once");
    hands.advance(Duration::from_secs(10));
    miss(&keys[3]).await;
    tells(3);
}

// One test for all: there is one log for what a program tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k06_damage_in_every_store_is_a_miss_and_told_with_its_count() {
    let log = Log::of_this_program();

    let server = RedisServer::start().await;
    let (clock, hands) = Clock::manual();
    let builder = RedisBackend::builder().url(&server.url()).unwrap().clock(clock);
    let redis = builder.response_timeout(LONG).connect().await.unwrap();
    is_a_miss_and_told(&redis, &hands, &log, "larder::redis", async |key| {
        let name = redis.place(key).await.unwrap();
        let reply = server.command(&[b"SET".as_slice(), name.as_bytes(), DAMAGED]).await.unwrap();
        assert_eq!(reply, b"+OK\r\n");
    })
    .await;

    let server = MemcachedServer::start().await;
    let (clock, hands) = Clock::manual();
    let builder = MemcachedBackend::builder().url(&server.url()).unwrap().clock(clock);
    let memcached = builder.response_timeout(LONG).connect().await.unwrap();
    is_a_miss_and_told(&memcached, &hands, &log, "larder::memcached", async |key| {
        let (_, name) = memcached.place(key).await.unwrap();
        let head = format!("ms {name} {} T0\r\n", DAMAGED.len());
        let reply = server.send(&[head.as_bytes(), DAMAGED, b"\r\n"].concat()).await.unwrap();
        assert_eq!(reply, b"HD\r\n");
    })
    .await;

    let server = PostgresServer::start().await;
    let (clock, hands) = Clock::manual();
    let builder = PostgresBackend::builder().url(&server.url()).unwrap().clock(clock).create(true);
    let builder = builder.connect_timeout(LONG).response_timeout(LONG);
    let postgres = builder.connect().await.unwrap();
    is_a_miss_and_told(&postgres, &hands, &log, "larder::sql", async |_| {
        let mut connection = postgres.acquire().await.unwrap();
        sqlx::query(DAMAGE).execute(&mut *connection).await.unwrap();
    })
    .await;

    let folder = tempfile::tempdir().unwrap();
    let (clock, hands) = Clock::manual();
    let builder = SqliteBackend::builder().path(folder.path().join("cache.db")).clock(clock);
    let sqlite = builder.busy_timeout(LONG).connect().await.unwrap();
    is_a_miss_and_told(&sqlite, &hands, &log, "larder::sql", async |_| {
        let mut connection = sqlite.acquire().await.unwrap();
        sqlx::query(DAMAGE).execute(&mut *connection).await.unwrap();
    })
    .await;

    let (clock, hands) = Clock::manual();
    let builder = FileBackend::builder().path(folder.path().join("files")).clock(clock);
    let file = builder.build().unwrap();
    is_a_miss_and_told(&file, &hands, &log, "larder::file", async |key| {
        let path = file.place(key).await.unwrap().expect("something was written");
        std::fs::write(path, DAMAGED).unwrap();
    })
    .await;
}
