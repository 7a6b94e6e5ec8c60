//! SQLite, with other processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use larder_cache::Cache;
use larder_core::ErrorKind;
use larder_sql::outbox::Changed;
use larder_sql::{SqliteOutbox, Watch};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{AssertSqlSafe, Connection};

use super::{caught_up, eventually, fill, follow, invalidated, products, there};

const TAGS: [&str; 4] = ["products", "product:1", "product:2", "product:3"];

struct Shop {
    directory: tempfile::TempDir,
    database: SqliteConnection,
}

impl Shop {
    async fn open(mode: SqliteJournalMode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("app.db"));
        let options = options.create_if_missing(true).journal_mode(mode);
        let database = SqliteConnection::connect_with(&options).await.unwrap();
        let mut shop = Shop { directory, database };
        shop.run("CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT UNIQUE)").await;
        shop.run("INSERT INTO product VALUES (1, 'Teapot'), (2, 'Lamp')").await;
        shop.outbox().create().await.unwrap();
        shop
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn outbox(&self) -> SqliteOutbox {
        let builder = larder_sql::SqliteBackend::builder().path(self.path());
        SqliteOutbox::with(builder).watch(products()).unwrap()
    }

    // A node whose store outlives it: in a file beside it, or in the same one.
    async fn node(&self, file: &str) -> Cache {
        let path = self.directory.path().join(file);
        let limits = "busy_timeout=60s&read_budget=60s&write_budget=60s";
        Cache::connect(&format!("sqlite://{}?namespace=shop&{limits}", path.display()))
            .await
            .unwrap()
    }

    async fn run(&mut self, sql: &str) {
        run(&mut self.database, sql).await;
    }
}

async fn run(database: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(database).await.unwrap();
}

// Says that this process is another one, where the file is, and what is to be done there.
const THEIRS: &str = "LARDER_THEIR_SQL";

// This program once more, which knows nothing of caches there.
async fn another_process(path: &Path, sql: &str) {
    let mut other = tokio::process::Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "sqlite::a_write_in_another_process_is_invalidated", "--nocapture"]);
    other.env(THEIRS, format!("{}|{sql}", path.display())).stdout(Stdio::null());
    assert!(other.status().await.unwrap().success());
}

async fn is_another_process() -> bool {
    let Ok(said) = std::env::var(THEIRS) else { return false };
    let (path, sql) = said.split_once('|').unwrap();
    let options = SqliteConnectOptions::new().filename(path);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    run(&mut database, sql).await;
    database.close().await.unwrap();
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_another_process_is_invalidated() {
    if is_another_process().await {
        return;
    }
    for mode in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let mut shop = Shop::open(mode).await;
        let cache = shop.node("cache.db").await;
        let following = follow(&cache, &shop.outbox()).await;
        fill(&cache, &TAGS).await;
        another_process(&shop.path(), "UPDATE product SET name = 'x' WHERE id = 1").await;
        // By itself: nobody asks.
        eventually("the invalidation", async || there(&cache, &["product:1"]).await.is_empty())
            .await;
        assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:1"]);
        following.stop().await;
        fill(&cache, &TAGS).await;
        drop(cache);

        // While nobody was running.
        another_process(&shop.path(), "UPDATE product SET name = 'y' WHERE id = 2").await;
        let cache = shop.node("cache.db").await;
        assert_eq!(there(&cache, &TAGS).await, TAGS, "nobody has told it");
        let following = follow(&cache, &shop.outbox()).await;
        assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:2"]);
        assert_eq!(following.cleared(), 0);
        let journal: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut shop.database).await.unwrap();
        assert_eq!(journal == "wal", mode == SqliteJournalMode::Wal, "the file stays as it was");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_is_noted_and_nothing_that_is_rolled_back() {
    let mut shop = Shop::open(SqliteJournalMode::Wal).await;
    // The cache may lie in the same file.
    let cache = shop.node("app.db").await;
    let following = follow(&cache, &shop.outbox()).await;
    for (sql, tags) in [
        ("INSERT INTO product VALUES (3, 'Cup')", &["products", "product:3"][..]),
        ("UPDATE product SET id = 4 WHERE id = 3", &["products", "product:3"]),
        ("UPDATE product SET id = 3 WHERE id = 4", &["products", "product:3"]),
        ("DELETE FROM product WHERE id = 3", &["products", "product:3"]),
        ("UPDATE product SET name = '' WHERE id = 99", &[]),
        ("INSERT OR IGNORE INTO product VALUES (1, 'again')", &[]),
        ("UPDATE OR IGNORE product SET name = 'again' WHERE id = 1", &["products", "product:1"]),
        ("REPLACE INTO product VALUES (1, 'Teapot')", &["products", "product:1"]),
        ("BEGIN; DELETE FROM product; ROLLBACK", &[]),
        (
            "BEGIN; SAVEPOINT s; DELETE FROM product WHERE id = 1; ROLLBACK TO s; \
             UPDATE product SET name = 'x' WHERE id = 2; COMMIT",
            &["products", "product:2"],
        ),
        ("DELETE FROM product", &["products", "product:1", "product:2"]),
    ] {
        fill(&cache, &TAGS).await;
        shop.run(sql).await;
        assert_eq!(invalidated(&cache, &following, &TAGS).await, tags, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pruned_or_restored_drops_everything() {
    let mut shop = Shop::open(SqliteJournalMode::Wal).await;
    let cache = shop.node("cache.db").await;
    follow(&cache, &shop.outbox()).await.stop().await;
    fill(&cache, &TAGS).await;
    shop.run("UPDATE product SET name = 'x' WHERE id = 1").await;
    shop.run("UPDATE product SET name = 'y' WHERE id = 2").await;
    let mut other = shop.outbox().keep_at_most(2).listen().await.unwrap();
    let new = other.read(None).await.unwrap().position;
    other.prune().await.unwrap();
    assert_eq!(other.read(Some(&new)).await.unwrap().changed, Changed::Tags(Vec::new()));
    let following = follow(&cache, &shop.outbox()).await;
    assert!(there(&cache, &TAGS).await.is_empty(), "product:1 was not told");
    following.stop().await;

    // What was noted meanwhile is undone, as when a copy is put back, and others have noted as much since.
    shop.run("UPDATE product SET name = 'x' WHERE id = 1").await;
    let following = follow(&cache, &shop.outbox()).await;
    following.stop().await;
    fill(&cache, &TAGS).await;
    let last: i64 = sqlx::query_scalar("SELECT max(seq) FROM larder_outbox")
        .fetch_one(&mut shop.database)
        .await
        .unwrap();
    shop.run(&format!("DELETE FROM larder_outbox WHERE seq > {last} - 2")).await;
    shop.run(&format!("UPDATE sqlite_sequence SET seq = {last} - 2 WHERE name = 'larder_outbox'"))
        .await;
    for _ in 0..3 {
        shop.run("UPDATE product SET name = 'z' WHERE id = 2").await;
    }
    let following = follow(&cache, &shop.outbox()).await;
    caught_up(&following).await;
    assert!(there(&cache, &TAGS).await.is_empty(), "nobody knows what else was undone");
    assert_eq!(following.cleared(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_and_changes_nothing() {
    let mut shop = Shop::open(SqliteJournalMode::Wal).await;
    let bare = || SqliteOutbox::with(larder_sql::SqliteBackend::builder().path(shop.path()));
    for (watch, words) in [
        (Watch::table("product").unwrap().tag_of("p:", "nope").unwrap(), "lacks a column"),
        (Watch::table("nope").unwrap().tag("p").unwrap(), "watched table is missing"),
    ] {
        let outbox = bare().named("second").unwrap().watch(watch).unwrap();
        let error = outbox.create().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(words), "{error}");
        let error = outbox.listen().await.unwrap_err();
        assert!(error.to_string().contains("Outbox::create"), "{error}");
    }
    assert!(bare().watch(Watch::table("main.product").unwrap().tag("p").unwrap()).is_err());
    let nowhere = SqliteOutbox::at("sqlite:///nowhere/app.db").unwrap();
    assert!(nowhere.listen().await.is_err() && nowhere.create().await.is_err());
    // What is printed is what is made; all of it goes again.
    let (schema, drop) = (shop.outbox().schema(), shop.outbox().drop_schema());
    shop.run(&schema).await;
    shop.run(&drop).await;
    shop.run("UPDATE product SET name = 'x' WHERE id = 1").await;
    let left = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder%'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut shop.database).await.unwrap();
    assert_eq!(left, 0);
}
