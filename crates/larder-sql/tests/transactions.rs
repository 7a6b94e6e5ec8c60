//! Tags that are invalidated inside the application's own transaction.

use std::time::Duration;

use common::{build, build_at, key, shop, tag, usable};
use larder_core::{Backend, ErrorKind, Tag};
use sqlx::Connection;

mod common;

// One story for both databases. `$tables` tells how long somebody else's invalidation may wait.
macro_rules! stories {
    ($backend:expr, $application:expr) => {
        let (backend, mut application) = ($backend, $application);
        let tags: [Tag; 2] = [tag("products"), tag("unknown so far")];
        let (k, late, after) = (key("k"), key("late"), key("after"));

        // A rollback is as if nothing had happened.
        let built = build(&backend, &k, &tags[..1]).await;
        let mut transaction = application.begin().await.unwrap();
        let number = backend.invalidate_in(&mut transaction, &shop(), &tags[..1]).await.unwrap();
        assert!(number > built && number.same_epoch(built));
        transaction.rollback().await.unwrap();
        assert!(usable(&backend, &k).await, "nothing has happened");
        assert_eq!(backend.marks(&shop(), &tags[..1]).await.unwrap().sequence, built);

        // With the commit, what was made of what was there before is invalid, and what outlasts being expired too.
        let lasting = key("lasting");
        build(&backend, &lasting, &[tags[0].lasting()]).await;
        let mut transaction = application.begin().await.unwrap();
        let number = backend.invalidate_in(&mut transaction, &shop(), &tags).await.unwrap();
        assert!(usable(&backend, &k).await, "not before the commit");
        // A fill begins, and sees what the transaction has not committed yet: the old data.
        let begun = backend.marks(&shop(), &tags[..1]).await.unwrap().sequence;
        assert!(begun < number, "nobody learns the number before the commit");
        transaction.commit().await.unwrap();
        assert!(!usable(&backend, &k).await, "it was invalidated");
        assert!(!usable(&backend, &lasting).await, "it was invalidated");
        build_at(&backend, &late, &tags[..1], begun).await;
        assert!(!usable(&backend, &late).await, "it was begun before the commit");
        assert!(build(&backend, &after, &tags).await >= number);
        assert!(usable(&backend, &after).await, "it was begun after the commit");

        // A namespace that is cleared meanwhile does not forget.
        let mut transaction = application.begin().await.unwrap();
        backend.invalidate_in(&mut transaction, &shop(), &tags[..1]).await.unwrap();
        let begun = backend.marks(&shop(), &tags[..1]).await.unwrap().sequence;
        transaction.commit().await.unwrap();
        backend.clear(&shop()).await.unwrap();
        build_at(&backend, &late, &tags[..1], begun).await;
        assert!(!usable(&backend, &late).await, "it was begun before the commit");

        // A transaction that is dropped rolls back, and several tags of it fall together.
        build(&backend, &k, &tags).await;
        let mut transaction = application.begin().await.unwrap();
        backend.invalidate_in(&mut transaction, &shop(), &tags).await.unwrap();
        drop(transaction);
        application.ping().await.unwrap();
        assert!(usable(&backend, &k).await, "it was dropped");
    };
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_sqlite() {
    use larder_sql::SqliteBackend;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let backend = SqliteBackend::builder().path(&path).busy_timeout(Duration::from_secs(60));
    let backend = backend.connect().await.unwrap();
    let options = SqliteConnectOptions::new().filename(&path);
    stories!(backend, SqliteConnection::connect_with(&options).await.unwrap());
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use larder_sql::PostgresBackend;
    use larder_testkit::servers::PostgresServer;
    use sqlx::postgres::PgConnection;

    async fn connect(server: &PostgresServer, limit: Duration) -> PostgresBackend {
        let builder = PostgresBackend::builder().url(&server.url()).unwrap().create(true);
        let builder = builder.connect_timeout(Duration::from_secs(60));
        builder.response_timeout(limit).connect().await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_postgres() {
        let server = PostgresServer::start().await;
        let backend = connect(&server, Duration::from_secs(60)).await;
        stories!(backend, PgConnection::connect(&server.url()).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn others_wait_for_an_open_transaction_and_no_longer_than_their_limit() {
        let server = PostgresServer::start().await;
        let patient = connect(&server, Duration::from_secs(60)).await;
        let hasty = connect(&server, Duration::from_millis(300)).await;
        let mut application = PgConnection::connect(&server.url()).await.unwrap();
        let (ours, theirs) = ([tag("ours")], [tag("theirs")]);
        build(&patient, &key("k"), &ours).await;
        build(&patient, &key("k"), &theirs).await;

        let mut transaction = application.begin().await.unwrap();
        let number = patient.invalidate_in(&mut transaction, &shop(), &ours).await.unwrap();
        let error = hasty.invalidate(&shop(), &theirs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        // Reading and storing go on.
        build(&patient, &key("meanwhile"), &theirs).await;
        assert!(usable(&patient, &key("meanwhile")).await);
        let waiting = {
            let patient = patient.clone();
            tokio::spawn(async move { patient.invalidate(&shop(), &[tag("theirs")]).await })
        };
        transaction.commit().await.unwrap();
        let next = waiting.await.unwrap().unwrap();
        assert!(next > number, "they are in order");
        assert!(!usable(&patient, &key("meanwhile")).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn transactions_that_race_with_fills_leave_nothing_old() {
        let server = PostgresServer::start().await;
        let backend = connect(&server, Duration::from_secs(60)).await;
        let mut application = PgConnection::connect(&server.url()).await.unwrap();
        sqlx::query("CREATE TABLE fact (value bigint)").execute(&mut application).await.unwrap();
        sqlx::query("INSERT INTO fact VALUES (0)").execute(&mut application).await.unwrap();
        let tags = [tag("fact")];
        let fills = {
            let (backend, url) = (backend.clone(), server.url());
            tokio::spawn(async move {
                let mut source = PgConnection::connect(&url).await.unwrap();
                let tags = [tag("fact")];
                loop {
                    let at = backend.marks(&shop(), &tags).await.unwrap().sequence;
                    let value: i64 = sqlx::query_scalar("SELECT value FROM fact")
                        .fetch_one(&mut source)
                        .await
                        .unwrap();
                    let entry = common::text(&value.to_string());
                    let entry = entry.with_tags(tags.iter().cloned()).with_built_at(at);
                    let _ = backend
                        .put(&key("fact"), entry, common::LONG.into(), larder_core::When::Always)
                        .await
                        .unwrap();
                }
            })
        };
        let mut hits = 0;
        for round in 1..=200_i64 {
            let mut transaction = application.begin().await.unwrap();
            // In either order.
            if round % 2 == 0 {
                backend.invalidate_in(&mut transaction, &shop(), &tags).await.unwrap();
            }
            sqlx::query("UPDATE fact SET value = $1")
                .bind(round)
                .execute(&mut *transaction)
                .await
                .unwrap();
            if round % 2 == 1 {
                backend.invalidate_in(&mut transaction, &shop(), &tags).await.unwrap();
            }
            transaction.commit().await.unwrap();
            for _ in 0..3 {
                let entry = backend.get(&key("fact"), &[]).await.unwrap().entry;
                let marks = backend.marks(&shop(), &tags).await.unwrap();
                let valid = |e: &larder_core::Entry| e.built_at().covers(Some(marks.tags[0]));
                if let Some(entry) = entry.filter(valid) {
                    assert_eq!(common::body(&entry), round.to_string(), "old after the commit");
                    hits += 1;
                }
            }
        }
        fills.abort();
        assert!(hits > 0, "a test without hits shows nothing");
    }
}
