//! What was changed in a database is invalidated, by whomever it was changed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use larder_core::{Encoded, Entry, Error, ErrorKind, Key, Result, Ttl, When};
use larder_sql::outbox::{Changed, Listening, Position};
use larder_sql::{Database, Outbox};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::{Cache, key};

impl Cache {
    /// Follows what a database [notes](larder_sql::outbox) of changes in its tables: every tag that is noted is invalidated,
    /// by whomever and with whatever program the rows were changed, what was noted while no node was running included.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")] mod with_postgres {
    /// use larder_cache::{Cache, Options};
    /// use larder_sql::{PostgresOutbox, Watch};
    /// use std::time::Duration;
    ///
    /// # async fn price_of(id: u64) -> std::io::Result<i64> { Ok(1999) }
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::connect("redis://127.0.0.1/0?namespace=shop").await?;
    /// let products = Watch::table("product")?.tag("products")?.tag_of("product:", "id")?;
    /// let outbox = PostgresOutbox::at("postgres://app@127.0.0.1/shop")?.watch(products)?;
    /// outbox.create().await?; // once, or with your migrations: outbox.schema()
    /// let following = cache.follow(outbox);
    ///
    /// let options = Options::ttl(Duration::from_secs(3600)).tag("product:7");
    /// let price = cache.get_or_compute(("price", 7), options, || price_of(7)).await?;
    /// // UPDATE product SET price = 1799 WHERE id = 7, in `psql`: the next one to ask is told 1799
    /// # following.stop().await;
    /// # Ok(()) } }
    /// ```
    ///
    /// The same with a SQLite file, as it runs:
    ///
    /// ```
    /// # #[cfg(all(feature = "sqlite", feature = "memory"))]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use larder_cache::{Cache, Options};
    /// use larder_sql::{SqliteOutbox, Watch};
    /// # use sqlx::{Connection, sqlite::{SqliteConnectOptions, SqliteConnection}};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("shop.db");
    /// # let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    /// # let mut database = SqliteConnection::connect_with(&options).await?;
    /// sqlx::raw_sql("CREATE TABLE product (id INTEGER PRIMARY KEY, price INTEGER)").execute(&mut database).await?;
    /// let products = Watch::table("product")?.tag("products")?.tag_of("product:", "id")?;
    /// let outbox = SqliteOutbox::at(&format!("sqlite://{}", path.display()))?.watch(products)?;
    /// outbox.create().await?;
    /// let cache = Cache::memory();
    /// let following = cache.follow(outbox);
    /// following.caught_up().await;
    ///
    /// cache.set_with("page", "…".to_owned(), Options::new().tag("product:7")).await?;
    /// // Here, in another process, with `sqlite3`: it is all the same.
    /// sqlx::raw_sql("INSERT INTO product VALUES (7, 1999)").execute(&mut database).await?;
    /// following.caught_up().await; // or a moment later by itself
    /// assert!(!cache.contains("page").await?);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(all(feature = "sqlite", feature = "memory")))]
    /// # fn main() {}
    /// ```
    ///
    /// # What is promised
    ///
    /// * Every committed change is invalidated, at least once and soon: with PostgreSQL as soon as the notification
    ///   arrives, with SQLite within about 50 ms. Nothing that is rolled back is. [`lag`](Following::lag) tells how old
    ///   what is not invalidated yet can be at most.
    /// * Up to where it has come is kept in this cache's own store, in its namespace, and only after the invalidations were
    ///   confirmed. A start, or a connection after an outage, goes on from there.
    /// * Where that is lost (evicted, cleared, a new cache, another server) or does not fit any more (pruned, the database
    ///   was restored), the cache's namespace is [cleared](Cache::clear): nothing is ever skipped. So the first start on a
    ///   cache that is in use empties it.
    /// * What a store forgets that had confirmed it (a Redis that comes back from an old file) is not told again.
    /// * While the database or the store cannot be asked, nothing is lost: it is tried again after a pause of up to a
    ///   second, for as long as it takes.
    ///
    /// # Several nodes
    ///
    /// Each node follows for itself. With a store that they share, each of them invalidates each change: it takes N times
    /// the work, a value that was made again between two of those is made once more, and nothing else happens. A position
    /// that one of them keeps is good for all, since it was applied to the store that all have. Nodes with a memory of
    /// their own need this on each of them, and have a position each. A near store is invalidated on its node at the same
    /// time.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn follow<D: Database>(&self, outbox: Outbox<D>) -> Following {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(run(self.clone(), outbox, shared.clone()));
        Following { shared, task }
    }
}

/// A cache that follows a database; made by [`Cache::follow`]. Dropping it stops it.
#[must_use = "a cache stops following when this is dropped"]
pub struct Following {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    // How often somebody wanted to know that it has come so far.
    asked: AtomicU64,
    bell: Notify,
    seen: watch::Sender<Seen>,
}

#[derive(Clone, Default)]
struct Seen {
    answered: u64,
    // When the last reading that was applied wholly began.
    at: Option<Instant>,
    tags: u64,
    cleared: u64,
    error: Option<Arc<Error>>,
}

impl Following {
    /// How old changes can be at most that are not invalidated yet. Up to some five seconds even if nothing changes, since
    /// nobody asks the database before; it grows while the database or the store cannot be asked. `None` until the
    /// beginning is made.
    pub fn lag(&self) -> Option<Duration> {
        self.shared.seen.borrow().at.map(|at| at.elapsed())
    }

    /// Why it does not get on; `None` when it does.
    pub fn last_error(&self) -> Option<Arc<Error>> {
        self.shared.seen.borrow().error.clone()
    }

    /// How many tags it has invalidated.
    pub fn invalidated(&self) -> u64 {
        self.shared.seen.borrow().tags
    }

    /// How often it has cleared the namespace, since it could not know what had changed.
    pub fn cleared(&self) -> u64 {
        self.shared.seen.borrow().cleared
    }

    /// Waits until everything is invalidated that was committed before this was called. Before a service takes requests,
    /// and in tests.
    ///
    /// It waits for as long as the database or the store cannot be asked: put a limit around it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn caught_up(&self) {
        let mine = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.bell.notify_one();
        let mut seen = self.shared.seen.subscribe();
        // It ends only with the one who waits.
        let _ = seen.wait_for(|seen| seen.answered >= mine).await;
    }

    /// Stops, and waits until nothing is done any more.
    ///
    /// # Cancel safety
    ///
    /// It stops all the same.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.shared.seen.borrow();
        f.debug_struct("Following")
            .field("lag", &seen.at.map(|at| at.elapsed()))
            .field("invalidated", &seen.tags)
            .field("cleared", &seen.cleared)
            .field("error", &seen.error)
            .finish_non_exhaustive()
    }
}

async fn run<D: Database>(cache: Cache, outbox: Outbox<D>, shared: Arc<Shared>) {
    let mut position = None;
    let mut failures = 0;
    loop {
        let (cache, shared, position) = (&cache, &*shared, &mut position);
        let follower = Follower { cache, shared, position, kept: None, pruned: None };
        let (error, got_on) = follower.follow(&outbox).await;
        failures = if got_on { 0 } else { failures + 1 };
        if failures <= 1 {
            tracing::warn!(%error, "what is changed in the database is not invalidated at the moment");
        } else {
            tracing::debug!(%error, "what is changed in the database is still not invalidated");
        }
        shared.seen.send_modify(|seen| seen.error = Some(Arc::new(error)));
        sleep(pause(failures)).await;
    }
}

struct Follower<'a> {
    cache: &'a Cache,
    shared: &'a Shared,
    // Up to where this cache's store was told.
    position: &'a mut Option<Position>,
    kept: Option<Instant>,
    pruned: Option<Instant>,
}

impl Follower<'_> {
    // Until something fails: what, and whether it got on before.
    async fn follow<D: Database>(mut self, outbox: &Outbox<D>) -> (Error, bool) {
        let mut listening = match outbox.listen().await {
            Ok(listening) => listening,
            Err(error) => return (error, false),
        };
        let mut got_on = false;
        loop {
            match self.round(&mut listening).await {
                Ok(()) => got_on = true,
                Err(error) => return (error, got_on),
            }
        }
    }

    async fn round<D: Database>(&mut self, listening: &mut Listening<D>) -> Result<()> {
        let (asked, began) = (self.shared.asked.load(Ordering::SeqCst), Instant::now());
        let key =
            Key::new(self.cache.store().namespace(), [key::ENGINE, "outbox", listening.home()])?;
        if self.position.as_ref().is_none_or(|position| position.home() != listening.home()) {
            *self.position = self.kept(&key, listening.home()).await?;
        }
        let news = listening.read(self.position.as_ref()).await?;
        let (tags, cleared) = match &news.changed {
            Changed::Everything => {
                self.cache.store().clear().await?;
                (0, 1)
            }
            Changed::Tags(tags) => {
                for some in tags.chunks(AT_ONCE) {
                    self.cache.store().invalidate(some).await?;
                }
                (tags.len() as u64, 0)
            }
        };
        // Now and then also when nothing was noted, since it may have been evicted, or be pruned one day.
        if tags + cleared > 0 || is_due(self.kept) {
            listening.settle().await?;
            let body = news.position.at().to_owned().into();
            let entry = Entry::wire(Encoded { codec: POSITION, body, ..Encoded::default() });
            let _ = self.cache.store().put(&key, entry, Ttl::Forever, When::Always).await?;
            self.kept = Some(Instant::now());
            *self.position = Some(news.position);
        }
        self.shared.seen.send_modify(|seen| {
            *seen = Seen {
                answered: asked,
                at: Some(began),
                tags: seen.tags + tags,
                cleared: seen.cleared + cleared,
                error: None,
            };
        });
        if is_due(self.pruned) {
            self.pruned = Some(Instant::now());
            if let Err(error) = listening.prune().await {
                tracing::debug!(%error, "the outbox was not pruned");
                // Whoever may not can follow all the same.
                if error.kind() != ErrorKind::Configuration {
                    return Err(error);
                }
            }
        }
        let waiting = std::pin::pin!(listening.wait(PATIENCE));
        let bell = std::pin::pin!(self.shared.bell.notified());
        match select(waiting, bell).await {
            Either::Left((woken, _)) => woken,
            Either::Right(_) => Ok(()),
        }
    }

    // That it cannot be read is no reason to believe that there is none.
    async fn kept(&self, key: &Key, home: &str) -> Result<Option<Position>> {
        let found = self.cache.store().get(key, &[]).await?.entry;
        let kept = found.and_then(|entry| entry.encoded().ok());
        let kept = kept.filter(|kept| kept.codec == POSITION);
        let at = kept.and_then(|kept| String::from_utf8(kept.body.to_vec()).ok());
        Ok(at.map(|at| Position::kept(home, &at)))
    }
}

// Grows to a second, and by chance, so that nodes do not come all at once.
fn pause(failures: u32) -> Duration {
    let longest = Duration::from_millis(50).saturating_mul(1 << failures.min(5));
    longest.min(Duration::from_secs(1)).mul_f64(rand::random_range(0.5..=1.0))
}

// So many tags in one step of the store.
const AT_ONCE: usize = 20;

// Without any change it is read so often.
const PATIENCE: Duration = Duration::from_secs(5);

fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= MINUTE)
}

const MINUTE: Duration = Duration::from_secs(60);

// Who can read a position: as an entry's codec.
const POSITION: u8 = 6;
