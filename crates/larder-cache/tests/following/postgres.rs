//! PostgreSQL, on a real server.

use std::time::Duration;

use larder_cache::{Cache, Options};
use larder_core::ErrorKind;
use larder_memory::MemoryBackend;
use larder_sql::outbox::Changed;
use larder_sql::{PostgresOutbox, Watch};
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::servers::PostgresServer;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::{caught_up, eventually, fill, follow, invalidated, products, there};

const LIMITS: &str = "response_timeout=60s&connect_timeout=60s";
const TAGS: [&str; 4] = ["products", "product:1", "product:2", "product:3"];

struct Shop {
    server: PostgresServer,
    database: PgConnection,
}

impl Shop {
    async fn open() -> Self {
        Self::on(PostgresServer::start().await).await
    }

    async fn on(server: PostgresServer) -> Self {
        let database = PgConnection::connect(&server.url()).await.unwrap();
        let mut shop = Shop { server, database };
        shop.run("CREATE TABLE product (id bigint PRIMARY KEY, name text)").await;
        shop.run("INSERT INTO product VALUES (1, 'Teapot'), (2, 'Lamp')").await;
        shop.outbox().create().await.unwrap();
        shop
    }

    fn bare(&self) -> PostgresOutbox {
        PostgresOutbox::at(&format!("{}?{LIMITS}", self.server.url())).unwrap()
    }

    fn outbox(&self) -> PostgresOutbox {
        self.bare().watch(products()).unwrap()
    }

    // A node whose store outlives it, in the same database.
    async fn node(&self) -> Cache {
        let limits = format!("{LIMITS}&read_budget=60s&write_budget=60s");
        let url = format!("{}?namespace=shop&create=true&{limits}", self.server.url());
        Cache::connect(&url).await.unwrap()
    }

    async fn run(&mut self, sql: &str) {
        run(&mut self.database, sql).await;
    }

    // Somebody with the program that comes with the server.
    async fn psql(&self, sql: &str) {
        let mut psql = tokio::process::Command::new("psql");
        psql.args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-q", "-c", sql, &self.server.url()]);
        let done = psql.output().await.expect("psql comes with PostgreSQL");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

async fn run(database: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(database).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_psql_while_no_node_was_running_is_invalidated() {
    let shop = Shop::open().await;
    let cache = shop.node().await;
    let following = follow(&cache, &shop.outbox()).await;
    assert_eq!(following.cleared(), 1, "nobody knew what had changed before");
    fill(&cache, &TAGS).await;
    shop.psql("UPDATE product SET name = 'Pot' WHERE id = 1").await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:1"]);
    fill(&cache, &TAGS).await;
    following.stop().await;
    drop(cache);

    shop.psql("UPDATE product SET name = 'Light' WHERE id = 2").await;
    let cache = shop.node().await;
    assert_eq!(there(&cache, &TAGS).await, TAGS, "nobody has told it");
    let following = follow(&cache, &shop.outbox()).await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:2"]);
    assert_eq!((following.cleared(), following.invalidated()), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_began_first_and_commits_last_is_not_skipped() {
    let mut shop = Shop::open().await;
    let cache = shop.node().await;
    let following = follow(&cache, &shop.outbox()).await;
    fill(&cache, &TAGS).await;
    let mut slow = PgConnection::connect(&shop.server.url()).await.unwrap();
    run(&mut slow, "BEGIN; UPDATE product SET name = 'slow' WHERE id = 1").await;
    // It has the larger number, and is not kept waiting by the smaller one.
    shop.run("UPDATE product SET name = 'fast' WHERE id = 2").await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:2"]);
    fill(&cache, &TAGS).await;
    run(&mut slow, "COMMIT").await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:1"]);

    // The same with a follower that goes and comes in between.
    fill(&cache, &TAGS).await;
    run(&mut slow, "BEGIN; UPDATE product SET name = 'slow' WHERE id = 1").await;
    shop.run("UPDATE product SET name = 'fast' WHERE id = 2").await;
    caught_up(&following).await;
    following.stop().await;
    fill(&cache, &TAGS).await;
    run(&mut slow, "COMMIT").await;
    let following = follow(&cache, &shop.outbox()).await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:1"]);
    assert_eq!(following.cleared(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_overlap_leave_nothing_old() {
    let mut shop = Shop::open().await;
    shop.run("INSERT INTO product SELECT n, '0' FROM generate_series(3, 8) n").await;
    let cache = Cache::memory();
    let following = follow(&cache, &shop.outbox()).await;
    let rounds: u32 = std::env::var("LARDER_RACES").map_or(150, |races| races.parse().unwrap());
    let database = sqlx::PgPool::connect(&shop.server.url()).await.unwrap();
    let read = async |id: i64| {
        let database = database.clone();
        let compute = move || async move {
            let name = "SELECT name FROM product WHERE id = $1";
            sqlx::query_scalar::<_, String>(name).bind(id).fetch_one(&database).await
        };
        let options = Options::ttl(Duration::from_secs(3600)).tag(format!("product:{id}"));
        cache.get_or_compute(id, options, compute).await.unwrap().to_string()
    };
    // Each has two rows of its own, and commits when others are in the middle.
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let database = database.clone();
            tokio::spawn(async move {
                for round in 0..rounds {
                    let mut transaction = database.begin().await.unwrap();
                    let ids = [2 * writer + 1, 2 * writer + 2];
                    for id in &ids[..rand::random_range(1..=2)] {
                        let update = "UPDATE product SET name = $1 WHERE id = $2";
                        let update = sqlx::query(update).bind(format!("{round}")).bind(*id);
                        update.execute(&mut *transaction).await.unwrap();
                        let pause = Duration::from_millis(rand::random_range(0..8));
                        tokio::time::sleep(pause).await;
                    }
                    match rand::random_range(0..5) {
                        0 => transaction.rollback().await.unwrap(),
                        _ => transaction.commit().await.unwrap(),
                    }
                }
            })
        })
        .collect();
    while !writers.iter().all(|writer| writer.is_finished()) {
        for id in 1..=8_i64 {
            read(id).await;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    caught_up(&following).await;
    for id in 1..=8_i64 {
        let name = "SELECT name FROM product WHERE id = $1";
        let name: String =
            sqlx::query_scalar(name).bind(id).fetch_one(&mut shop.database).await.unwrap();
        assert_eq!(read(id).await, name, "product {id} after {rounds} rounds");
    }
    assert!(following.invalidated() > u64::from(rounds), "{following:?}");
    assert_eq!(following.cleared(), 1, "at the beginning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_is_noted_and_nothing_that_is_rolled_back() {
    let mut shop = Shop::open().await;
    let cache = shop.node().await;
    let following = follow(&cache, &shop.outbox()).await;
    for (sql, tags) in [
        ("INSERT INTO product VALUES (3, 'Cup')", &["products", "product:3"][..]),
        ("UPDATE product SET id = 4 WHERE id = 3", &["products", "product:3"]),
        ("UPDATE product SET id = 3 WHERE id = 4", &["products", "product:3"]),
        (
            "INSERT INTO product VALUES (3, 'Cup') ON CONFLICT (id) DO UPDATE SET name = 'Mug'",
            &["products", "product:3"],
        ),
        ("DELETE FROM product WHERE id = 3", &["products", "product:3"]),
        ("COPY product FROM PROGRAM 'echo 3,Cup' (FORMAT csv)", &["products", "product:3"]),
        ("DELETE FROM product WHERE id = 3", &["products", "product:3"]),
        ("UPDATE product SET name = '' WHERE id = 99", &[]),
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
    // Nobody can say which rows there were.
    fill(&cache, &TAGS).await;
    shop.run("TRUNCATE product").await;
    caught_up(&following).await;
    assert!(there(&cache, &TAGS).await.is_empty());
    // Nor is so much told one by one.
    let cleared = following.cleared();
    shop.run("INSERT INTO product SELECT n, '' FROM generate_series(10, 10010) n").await;
    caught_up(&following).await;
    assert_eq!(following.cleared(), cleared + 1);
    // What others' deletion takes along, and what goes past the table into one of its parts.
    shop.run(
        "CREATE TABLE shelf (id int PRIMARY KEY); \
         CREATE TABLE item (id bigint, shelf int REFERENCES shelf ON DELETE CASCADE) PARTITION BY RANGE (id); \
         CREATE TABLE low PARTITION OF item FOR VALUES FROM (0) TO (100); \
         INSERT INTO shelf VALUES (1); INSERT INTO item VALUES (3, 1)",
    )
    .await;
    let items = Watch::table("item").unwrap().tag_of("product:", "id").unwrap();
    shop.bare().watch(items).unwrap().create().await.unwrap();
    for sql in ["DELETE FROM shelf", "INSERT INTO low VALUES (3, NULL)"] {
        fill(&cache, &TAGS).await;
        shop.run(sql).await;
        assert_eq!(invalidated(&cache, &following, &TAGS).await, ["product:3"], "{sql}");
    }
    // Where all rows have the same tags, one can.
    shop.run("CREATE TABLE category (name text)").await;
    let categories = Watch::table("category").unwrap().tag("products").unwrap();
    shop.bare().watch(categories).unwrap().create().await.unwrap();
    fill(&cache, &TAGS).await;
    shop.run("TRUNCATE category").await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_position_everything_is_dropped() {
    let shop = Shop::open().await;
    let cache = shop.node().await;
    fill(&cache, &TAGS).await;
    let following = follow(&cache, &shop.outbox()).await;
    assert!(there(&cache, &TAGS).await.is_empty(), "it is the first start");
    following.stop().await;

    // The outbox is another one: its numbers mean nothing.
    fill(&cache, &TAGS).await;
    shop.outbox().remove().await.unwrap();
    shop.psql("UPDATE product SET name = 'x' WHERE id = 1").await;
    shop.outbox().create().await.unwrap();
    let following = follow(&cache, &shop.outbox()).await;
    assert!(there(&cache, &TAGS).await.is_empty());
    // The cache was cleared, and what it knew with it.
    cache.clear().await.unwrap();
    following.stop().await;
    fill(&cache, &TAGS).await;
    let _following = follow(&cache, &shop.outbox()).await;
    assert!(there(&cache, &TAGS).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pruned_before_it_was_read_drops_everything_and_nothing_else_does() {
    let mut shop = Shop::open().await;
    let cache = shop.node().await;
    let following = follow(&cache, &shop.outbox()).await;
    following.stop().await;
    fill(&cache, &TAGS).await;
    shop.run("UPDATE product SET name = 'x' WHERE id = 1").await;
    shop.run("UPDATE product SET name = 'x' WHERE id = 2").await;
    shop.run("UPDATE product SET name = 'y' WHERE id = 2").await;
    let mut other = shop.outbox().keep_at_most(2).listen().await.unwrap();
    let new = other.read(None).await.unwrap().position;
    other.prune().await.unwrap();
    other.prune().await.unwrap();
    let noted = "SELECT count(*) FROM larder_outbox";
    let noted: i64 = sqlx::query_scalar(noted).fetch_one(&mut shop.database).await.unwrap();
    assert_eq!(noted, 3, "two rows and a mark");
    // For whoever has read what is gone, nothing has happened.
    let news = other.read(Some(&new)).await.unwrap();
    assert_eq!(news.changed, Changed::Tags(Vec::new()));
    let following = follow(&cache, &shop.outbox()).await;
    assert!(there(&cache, &TAGS).await.is_empty(), "product:1 was not told");
    assert_eq!(following.cleared(), 1);

    // By age, too.
    following.stop().await;
    fill(&cache, &TAGS).await;
    shop.run("UPDATE product SET name = 'z' WHERE id = 1").await;
    shop.run("UPDATE larder_outbox SET at = at - interval '2 days' WHERE at > '-infinity'").await;
    other.prune().await.unwrap();
    let following = follow(&cache, &shop.outbox()).await;
    assert!(there(&cache, &TAGS).await.is_empty());
    // A transaction that was open all the time is not lost with the rows of others.
    fill(&cache, &TAGS).await;
    let mut slow = PgConnection::connect(&shop.server.url()).await.unwrap();
    run(&mut slow, "BEGIN; UPDATE product SET name = 'slow' WHERE id = 1").await;
    shop.run("UPDATE product SET name = 'x' WHERE id = 2").await;
    caught_up(&following).await;
    shop.run("UPDATE larder_outbox SET at = at - interval '2 days' WHERE at > '-infinity'").await;
    other.prune().await.unwrap();
    run(&mut slow, "COMMIT").await;
    let cleared = following.cleared();
    assert_eq!(invalidated(&cache, &following, &["product:1"]).await, ["product:1"]);
    assert_eq!(following.cleared(), cleared);
    // One that was open so long that it is old when it is told: its row goes, and so does a newer one's, which the
    // follower has seen. The mark is found all the same.
    let before = other.read(None).await.unwrap().position;
    run(&mut slow, "BEGIN; UPDATE product SET name = 'slow' WHERE id = 1").await;
    let age = "UPDATE larder_outbox SET at = at - interval '2 days'";
    run(&mut slow, &format!("{age} WHERE xact = txid_current()")).await;
    shop.run("UPDATE product SET name = 'y' WHERE id = 2").await;
    shop.run(&format!("{age} WHERE at > '-infinity'")).await;
    let between = other.read(Some(&before)).await.unwrap().position;
    run(&mut slow, "COMMIT").await;
    other.prune().await.unwrap();
    assert_eq!(other.read(Some(&between)).await.unwrap().changed, Changed::Everything);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_and_a_restarted_server_are_caught_up_with() {
    let mut shop = Shop::open().await;
    // The cache is elsewhere, and stays.
    let cache = Cache::memory();
    let following = follow(&cache, &shop.outbox()).await;
    fill(&cache, &TAGS).await;
    for _ in 0..3 {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE application_name = 'larder' AND pid <> pg_backend_pid()";
        shop.psql(&format!("{kill}; UPDATE product SET name = 'x' WHERE id = 1")).await;
        // By itself: nobody asks.
        eventually("the invalidation", async || there(&cache, &["product:1"]).await.is_empty())
            .await;
        assert_eq!(there(&cache, &["product:2", "other"]).await, ["product:2", "other"]);
        // Until it is done with it: what is half done is done again.
        caught_up(&following).await;
        fill(&cache, &TAGS).await;
    }
    shop.server.kill();
    eventually("the outage", async || following.last_error().is_some()).await;
    assert!(following.last_error().unwrap().is_outage(), "{following:?}");
    shop.server.restart().await;
    shop.psql("UPDATE product SET name = 'x' WHERE id = 2").await;
    eventually("the invalidation", async || there(&cache, &["product:2"]).await.is_empty()).await;
    assert_eq!(there(&cache, &["product:1", "other"]).await, ["product:1", "other"]);
    caught_up(&following).await;
    assert_eq!(following.cleared(), 1, "at the beginning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_the_last_moments_takes_nothing_back_that_was_invalidated() {
    // Nothing is written before it must be.
    let server = PostgresServer::options()
        .setting("synchronous_commit", "off")
        .setting("wal_writer_delay", "10s")
        .start()
        .await;
    let mut shop = Shop::on(server).await;
    let cache = Cache::memory();
    let following = follow(&cache, &shop.outbox()).await;
    fill(&cache, &TAGS).await;
    shop.run("UPDATE product SET name = 'kept' WHERE id = 1").await;
    assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:1"]);
    shop.server.kill();
    shop.server.restart().await;
    shop.database = PgConnection::connect(&shop.server.url()).await.unwrap();
    let name = "SELECT name FROM product WHERE id = 1";
    let name: String = sqlx::query_scalar(name).fetch_one(&mut shop.database).await.unwrap();
    assert_eq!(name, "kept", "its number would be another transaction's");
    fill(&cache, &TAGS).await;
    shop.run("UPDATE product SET name = 'x' WHERE id = 2").await;
    assert_eq!(invalidated(&cache, &following, &TAGS[1..]).await, ["product:2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_wakes_and_a_rollback_does_not() {
    let mut shop = Shop::open().await;
    let mut listening = shop.outbox().listen().await.unwrap();
    let position = listening.read(None).await.unwrap().position;
    let asleep = |listening: &mut larder_sql::outbox::Listening<larder_sql::Postgres>| {
        let waiting = listening.wait(Duration::from_secs(3600));
        futures_util::FutureExt::now_or_never(waiting).is_none()
    };
    shop.run("BEGIN; DELETE FROM product; ROLLBACK").await;
    assert!(asleep(&mut listening));
    shop.run("UPDATE product SET name = 'x' WHERE id = 1").await;
    listening.wait(Duration::from_secs(3600)).await.unwrap();
    let news = listening.read(Some(&position)).await.unwrap();
    let Changed::Tags(tags) = news.changed else { panic!("{news:?}") };
    assert_eq!(tags.len(), 2);
    assert!(asleep(&mut listening), "it was told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_told_later() {
    let shop = Shop::open().await;
    let backend = Faulty::new(MemoryBackend::default());
    let faults = backend.faults();
    let cache = Cache::new(backend);
    let following = follow(&cache, &shop.outbox()).await;
    fill(&cache, &TAGS).await;
    for verb in [Verb::Invalidate, Verb::Put] {
        faults.inject(Fault::Fail(ErrorKind::Unavailable), &[verb]);
        shop.psql("UPDATE product SET name = 'x' WHERE id = 1").await;
        eventually("the outage", async || following.last_error().is_some()).await;
        faults.heal();
        eventually("the end of it", async || following.last_error().is_none()).await;
        assert_eq!(invalidated(&cache, &following, &TAGS).await, ["products", "product:1"]);
        fill(&cache, &TAGS).await;
    }
    // That the position cannot be read is no reason to believe that there is none.
    following.stop().await;
    faults.inject(Fault::Fail(ErrorKind::Unavailable), &[Verb::Get]);
    let following = cache.follow(shop.outbox());
    eventually("the outage", async || following.last_error().is_some()).await;
    faults.heal();
    caught_up(&following).await;
    assert_eq!((there(&cache, &TAGS).await, following.cleared()), (TAGS.into(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_a_store_share_what_they_have_come_to() {
    let shop = Shop::open().await;
    let (one, two) = (shop.node().await, shop.node().await);
    let first = follow(&one, &shop.outbox()).await;
    let second = follow(&two, &shop.outbox()).await;
    assert_eq!(second.cleared(), 0, "the first one has made the beginning");
    fill(&one, &TAGS).await;
    shop.psql("UPDATE product SET name = 'x' WHERE id = 1").await;
    assert_eq!(invalidated(&two, &second, &TAGS).await, ["products", "product:1"]);
    assert_eq!(invalidated(&one, &first, &TAGS).await, ["products", "product:1"]);
    assert_eq!((first.invalidated(), second.invalidated()), (2, 2), "each has done it");
    // A node that goes on alone, and one that comes later. One that is dropped does nothing any more.
    let apart = Cache::memory();
    drop(follow(&apart, &shop.outbox()).await);
    fill(&apart, &TAGS).await;
    drop(first);
    shop.psql("UPDATE product SET name = 'x' WHERE id = 2").await;
    assert_eq!(invalidated(&two, &second, &TAGS[2..]).await, ["product:2"]);
    assert_eq!(there(&apart, &TAGS).await, TAGS);
    let late = follow(&shop.node().await, &shop.outbox()).await;
    assert_eq!(late.cleared(), 0);
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_psql_reaches_what_nodes_keep_near_before_redis() {
    let (shop, redis) = (Shop::open().await, larder_testkit::servers::RedisServer::start().await);
    let node = async || {
        let near = "tiered:memory://?ceiling=1h&heartbeat=200ms";
        let limits = "response_timeout=60s&read_budget=60s&write_budget=60s";
        let url = format!("{near}|{}/0?namespace=shop&{limits}", redis.url());
        Cache::connect(&url).await.unwrap()
    };
    // One of them follows; the other one is told by the bus.
    let (follows, hears) = (node().await, node().await);
    let following = follow(&follows, &shop.outbox()).await;
    for id in [1, 2] {
        fill(&follows, &TAGS).await;
        for tag in TAGS.iter().cycle().take(40) {
            assert!(hears.strict().get::<String>(*tag).await.unwrap().is_some());
        }
        shop.psql(&format!("UPDATE product SET name = 'x' WHERE id = {id}")).await;
        let tag = format!("product:{id}");
        assert_eq!(invalidated(&follows, &following, &[&tag]).await, [&tag]);
        eventually("the message", async || there(&hears, &[&tag]).await.is_empty()).await;
        assert_eq!(there(&hears, &["product:3", "other"]).await, ["product:3", "other"]);
    }
    // A restart goes on from what Redis has kept.
    following.stop().await;
    let following = follow(&node().await, &shop.outbox()).await;
    assert_eq!(following.cleared(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_change_rows_needs_no_other_rights_and_strange_rows_harm_nobody() {
    let mut shop = Shop::open().await;
    shop.run("CREATE TABLE \"My \"\"Shop\"\"\" (\"the slug's\" text, id int)").await;
    let strange = Watch::table("My \"Shop\"").unwrap();
    let strange = strange.tag_of("it's \\ $larder0$ ", "the slug's").unwrap();
    let outbox = shop.bare().named("Out box").unwrap().watch(strange).unwrap();
    // What is printed is what is made, and can be run again.
    for _ in 0..2 {
        shop.psql(&outbox.schema()).await;
        outbox.create().await.unwrap();
    }
    shop.run("CREATE ROLE clerk LOGIN PASSWORD 'clerk'; GRANT ALL ON \"My \"\"Shop\"\"\" TO clerk")
        .await;
    let url = shop.server.url().replace("larder:for-tests", "clerk:clerk");
    let mut clerk = PgConnection::connect(&url).await.unwrap();
    let cache = Cache::memory();
    let following = follow(&cache, &outbox).await;
    let tags = ["it's \\ $larder0$ it's"];
    for sql in [
        "INSERT INTO \"My \"\"Shop\"\"\" VALUES ('it''s', 1)",
        "UPDATE \"My \"\"Shop\"\"\" SET \"the slug's\" = NULL",
        "UPDATE \"My \"\"Shop\"\"\" SET \"the slug's\" = 'it''s'",
        // More than any tag, and more than fits into an index.
        "UPDATE \"My \"\"Shop\"\"\" SET \"the slug's\" = repeat(md5(random()::text), 1000)",
    ] {
        fill(&cache, &tags).await;
        run(&mut clerk, sql).await;
        assert_eq!(invalidated(&cache, &following, &tags).await, tags, "{sql}");
    }
    assert!(
        sqlx::raw_sql("INSERT INTO \"Out box\" (tag) VALUES ('x')")
            .execute(&mut clerk)
            .await
            .is_err()
    );
    // What follows needs its rights, and says so.
    let theirs = PostgresOutbox::at(&format!("{url}?{LIMITS}")).unwrap().named("Out box").unwrap();
    let error = theirs.listen().await.unwrap_err();
    assert!(error.to_string().contains("needs SELECT"), "{error}");
    shop.run("GRANT SELECT ON \"Out box\" TO clerk").await;
    let theirs = follow(&Cache::memory(), &theirs).await;
    assert!(theirs.last_error().is_none(), "it follows, and does not prune");
    // And it all goes.
    shop.psql(&outbox.drop_schema()).await;
    run(&mut clerk, "DELETE FROM \"My \"\"Shop\"\"\"").await;
    let left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'Out box%'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut shop.database).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_and_changes_nothing() {
    let mut shop = Shop::open().await;
    for (watch, words) in [
        (Watch::table("product").unwrap().tag_of("p:", "nope").unwrap(), "lacks a column"),
        (Watch::table("nope").unwrap().tag("p").unwrap(), "watched table is missing"),
    ] {
        let outbox = shop.bare().named("second").unwrap().watch(watch).unwrap();
        let error = outbox.create().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(words), "{error}");
        shop.run("UPDATE product SET name = 'x'").await;
        let error = outbox.listen().await.unwrap_err();
        assert!(error.to_string().contains("Outbox::create"), "{error}");
    }
    let watch = || Watch::table("product").unwrap();
    assert!(shop.bare().watch(watch()).is_err(), "without a tag");
    assert!(shop.outbox().watch(products()).is_err(), "twice");
    assert!(shop.bare().named(&"x".repeat(49)).is_err());
    assert!(shop.bare().named(&"x".repeat(48)).unwrap().watch(products()).is_err());
    let following = Cache::memory().follow(shop.bare().named("nope").unwrap());
    eventually("the reason", async || following.last_error().is_some()).await;
    assert_eq!(following.lag(), None);
    let shown = format!("{:?} {following:?}", shop.outbox());
    assert!(!shown.contains("for-tests"), "{shown}");
}
