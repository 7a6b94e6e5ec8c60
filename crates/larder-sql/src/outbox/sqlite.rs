//! The outbox in SQLite.

use std::time::Duration;

use larder_core::Result;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::time::sleep;

use super::Source;
use super::watch::{Name, Rule, Watch, literal, quoted};
use crate::Sqlite;
use crate::config::wrong;
use crate::database::{Argument, Cell, Dialect};
use crate::failure::Failure;
use crate::sqlite::SqliteOptions;

/// A connection of its own: `data_version` tells what all the others commit, in this process and in others.
#[derive(Debug)]
pub struct Watcher {
    connection: SqliteConnection,
    version: Option<i64>,
}

impl Watcher {
    async fn look(&mut self) -> Result<Option<i64>, Failure> {
        let looked = Sqlite::fetch(&mut self.connection, "PRAGMA data_version".into(), &[]);
        let rows = looked.await.map_err(|error| Failure::of::<Sqlite>(&error))?;
        Ok(rows.first().and_then(|row| row.first()).and_then(Cell::integer))
    }
}

impl Source for Sqlite {
    type Ear = Watcher;

    async fn connect(
        options: &SqliteOptions,
        _: Duration,
    ) -> Result<SqliteConnection, sqlx::Error> {
        SqliteConnection::connect_with(&options.connect()).await
    }

    async fn listen(
        options: &SqliteOptions,
        limit: Duration,
        _: &Name,
    ) -> Result<Watcher, Failure> {
        let connection = Sqlite::connect(options, limit).await;
        let connection = connection.map_err(|error| Failure::connecting::<Sqlite>(&error))?;
        let mut watcher = Watcher { connection, version: None };
        watcher.version = watcher.look().await?;
        Ok(watcher)
    }

    async fn connection(ear: &mut Watcher) -> Result<&mut SqliteConnection, sqlx::Error> {
        Ok(&mut ear.connection)
    }

    async fn wake(ear: &mut Watcher) -> Result<(), Failure> {
        loop {
            let version = ear.look().await?;
            if version != ear.version {
                ear.version = version;
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    fn check_name(name: &Name) -> Result<()> {
        match name.schema {
            None => Ok(()),
            Some(_) => Err(wrong("SQLite's tables have no schema: write the name alone")),
        }
    }

    // The conflicts of whoever changes a row decide about those of its triggers, too: so the outbox has none.
    fn create_statements(outbox: &Name, watches: &[Watch]) -> Vec<String> {
        let table = quoted(&outbox.name);
        let mut statements = vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (\n  \
                 seq INTEGER PRIMARY KEY AUTOINCREMENT,\n  \
                 tag TEXT NOT NULL,\n  \
                 at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),\n  \
                 nonce INTEGER NOT NULL DEFAULT (random())\n)"
            ),
            // There is always a last row, for positions to name.
            format!("INSERT INTO {table} (tag) SELECT '' WHERE NOT EXISTS (SELECT 1 FROM {table})"),
        ];
        for watch in watches {
            let watched = quoted(&watch.table.name);
            // A column that is not there would fail whoever changes a row.
            for column in watch.columns() {
                statements
                    .push(format!("SELECT {watched}.{} FROM {watched} LIMIT 0", quoted(column)));
            }
            statements.extend(drop_triggers(outbox, watch));
            let events: [(&str, &[&str]); 3] =
                [("INSERT", &["NEW"]), ("UPDATE", &["OLD", "NEW"]), ("DELETE", &["OLD"])];
            for ((event, rows), name) in events.into_iter().zip(triggers(outbox, watch)) {
                let tags: Vec<String> = rows.iter().flat_map(|row| tags(watch, row)).collect();
                statements.push(format!(
                    "CREATE TRIGGER {name} AFTER {event} ON {watched} BEGIN\n  \
                     INSERT INTO {table} (tag) SELECT DISTINCT column1 FROM (VALUES ({}))\n  \
                     WHERE length(CAST(column1 AS BLOB)) <= 256;\nEND",
                    tags.join("), (")
                ));
            }
        }
        statements
    }

    fn drop_statements(outbox: &Name, watches: &[Watch]) -> Vec<String> {
        let mut statements: Vec<String> =
            watches.iter().flat_map(|watch| drop_triggers(outbox, watch)).collect();
        statements.push(format!("DROP TABLE IF EXISTS {}", quoted(&outbox.name)));
        statements
    }

    async fn run(
        connection: &mut SqliteConnection,
        _: &Name,
        script: String,
    ) -> Result<(), sqlx::Error> {
        // The connection is closed afterwards, and what it has not committed with it.
        let script = format!("BEGIN IMMEDIATE;\n{script}COMMIT;");
        sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await?;
        Ok(())
    }

    fn read_statement(outbox: &Name, most: usize) -> String {
        let table = quoted(&outbox.name);
        format!(
            "SELECT 0 AS kind, (SELECT file FROM pragma_database_list WHERE name = 'main') AS words \
             UNION ALL SELECT 1, (SELECT seq || ':' || nonce FROM {table} ORDER BY seq DESC LIMIT 1) \
             UNION ALL SELECT 2, tag FROM (SELECT DISTINCT tag FROM {table} WHERE seq > $1 LIMIT {most}) \
             UNION ALL SELECT 3, '' WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE seq = $1 AND nonce = $2)"
        )
    }

    fn arguments(at: &str) -> Option<Vec<Argument>> {
        let (seq, nonce) = at.split_once(':')?;
        let number = |text: &str| Some(Argument::Integer(Some(text.parse().ok()?)));
        Some(vec![number(seq)?, number(nonce)?])
    }

    fn nowhere() -> Vec<Argument> {
        vec![Argument::Integer(Some(i64::MAX)), Argument::Integer(Some(0))]
    }

    // What was lost in a crash has another nonce when it comes again.
    const SETTLE: Option<&'static str> = None;

    // The last row stays. A position whose row is gone is from before.
    fn prune_statement(outbox: &Name) -> String {
        let table = quoted(&outbox.name);
        format!(
            "DELETE FROM {table} WHERE seq < (SELECT max(seq) FROM {table}) \
             AND (at < CAST(strftime('%s', 'now') AS INTEGER) - $1 OR seq <= (SELECT max(seq) FROM {table}) - $2)"
        )
    }
}

fn tags(watch: &Watch, row: &str) -> Vec<String> {
    let tag = |rule: &Rule| match rule {
        Rule::Always(tag) => literal(tag),
        Rule::Of { prefix, column } => {
            format!("{} || CAST({row}.{} AS TEXT)", literal(prefix), quoted(column))
        }
    };
    watch.tags.iter().map(tag).collect()
}

fn triggers(outbox: &Name, watch: &Watch) -> [String; 3] {
    let named = |event| quoted(&format!("{}_{}_{event}", outbox.name, watch.table.name));
    ["insert", "update", "delete"].map(named)
}

fn drop_triggers(outbox: &Name, watch: &Watch) -> Vec<String> {
    triggers(outbox, watch).map(|trigger| format!("DROP TRIGGER IF EXISTS {trigger}")).into()
}

// How often it is asked whether somebody has committed; that reads a number of the shared memory.
const LOOK: Duration = Duration::from_millis(50);
