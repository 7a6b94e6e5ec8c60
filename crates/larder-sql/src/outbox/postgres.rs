//! The outbox in PostgreSQL.

use std::time::Duration;

use larder_core::Result;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::Source;
use super::watch::{Name, Rule, Watch, literal, quoted};
use crate::Postgres;
use crate::database::{Argument, Dialect};
use crate::failure::Failure;
use crate::listen::Listener;
use crate::postgres::PostgresOptions;

impl Source for Postgres {
    type Ear = Listener;

    async fn connect(
        options: &PostgresOptions,
        limit: Duration,
    ) -> Result<PgConnection, sqlx::Error> {
        Postgres::open(options, limit).await
    }

    async fn listen(
        options: &PostgresOptions,
        limit: Duration,
        outbox: &Name,
    ) -> Result<Listener, Failure> {
        Listener::open(options, limit, &outbox.name).await
    }

    async fn connection(ear: &mut Listener) -> Result<&mut PgConnection, sqlx::Error> {
        ear.connection().await
    }

    async fn wake(ear: &mut Listener) -> Result<(), Failure> {
        ear.next().await?;
        // One reading sees what they all tell of.
        ear.drain();
        Ok(())
    }

    fn check_name(_: &Name) -> Result<()> {
        Ok(())
    }

    fn create_statements(outbox: &Name, watches: &[Watch]) -> Vec<String> {
        let table = whole(outbox);
        let mut statements = vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n  \
             xact bigint NOT NULL DEFAULT txid_current(),\n  \
             tag text NOT NULL,\n  \
             at timestamptz NOT NULL DEFAULT clock_timestamp(),\n  \
             PRIMARY KEY (xact, tag)\n)"
        )];
        for watch in watches {
            let watched = whole(&watch.table);
            // A column that is not there would fail whoever changes a row.
            for column in watch.columns() {
                statements.push(format!("SELECT {}::text FROM {watched} LIMIT 0", quoted(column)));
            }
            let function = function(outbox, watch);
            let body = body(outbox, watch);
            let mark = (0..).map(|n| format!("$larder{n}$")).find(|mark| !body.contains(mark));
            let mark = mark.unwrap_or_default();
            statements.push(format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql\n\
                 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {mark}\n{body}{mark}"
            ));
            let [row, truncate] = triggers(outbox);
            statements.extend(drop_triggers(outbox, watch));
            statements.push(format!(
                "CREATE TRIGGER {row} AFTER INSERT OR UPDATE OR DELETE ON {watched}\n\
                 FOR EACH ROW EXECUTE FUNCTION {function}()"
            ));
            statements.push(format!(
                "CREATE TRIGGER {truncate} AFTER TRUNCATE ON {watched}\n\
                 FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            ));
        }
        statements
    }

    fn drop_statements(outbox: &Name, watches: &[Watch]) -> Vec<String> {
        let mut statements = Vec::new();
        for watch in watches {
            statements.extend(drop_triggers(outbox, watch));
            statements.push(format!("DROP FUNCTION IF EXISTS {}()", function(outbox, watch)));
        }
        statements.push(format!("DROP TABLE IF EXISTS {}", whole(outbox)));
        statements
    }

    async fn run(
        connection: &mut PgConnection,
        outbox: &Name,
        script: String,
    ) -> Result<(), sqlx::Error> {
        // Statements that are sent together are one transaction. Nodes that start together take turns.
        let turn = format!("SELECT pg_advisory_xact_lock(hashtext({}))", literal(&whole(outbox)));
        sqlx::raw_sql(AssertSqlSafe(format!("{turn};\n{script}"))).execute(connection).await?;
        Ok(())
    }

    fn read_statement(outbox: &Name, most: usize) -> String {
        let table = whole(outbox);
        // Of one snapshot, since it is one statement.
        format!(
            "SELECT 0::bigint AS kind, CASE WHEN pg_is_in_recovery() THEN '' ELSE concat_ws('/', \
             (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8), \
             (SELECT oid FROM pg_database WHERE datname = current_database()), {}::regclass::oid) END AS words \
             UNION ALL SELECT 1, txid_current_snapshot()::text \
             UNION ALL SELECT 2, found.tag FROM (SELECT DISTINCT o.tag FROM {table} o, \
             (SELECT NULLIF($1::text, '')::txid_snapshot AS seen) s \
             WHERE o.xact >= txid_snapshot_xmin(s.seen) \
             AND (NOT txid_visible_in_snapshot(o.xact, s.seen) OR o.at = '-infinity') LIMIT {most}) found",
            literal(&table)
        )
    }

    fn arguments(at: &str) -> Option<Vec<Argument>> {
        is_snapshot(at).then(|| vec![Argument::Text(at.to_owned())])
    }

    fn nowhere() -> Vec<Argument> {
        vec![Argument::Text(String::new())]
    }

    // Its commit comes after all that were visible, and is waited for.
    const SETTLE: Option<&'static str> = Some(
        "SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'larder', '')",
    );

    // What is removed is over for everybody. The mark has the largest number of it: a follower that has not seen all
    // transactions up to there may miss something.
    fn prune_statement(outbox: &Name) -> String {
        let table = whole(outbox);
        format!(
            "WITH old AS (DELETE FROM {table} WHERE at > '-infinity' \
             AND xact < txid_snapshot_xmin(txid_current_snapshot()) \
             AND (at < clock_timestamp() - make_interval(secs => $1::bigint) \
             OR xact <= (SELECT xact FROM {table} ORDER BY xact DESC OFFSET $2::bigint LIMIT 1)) RETURNING xact), \
             last AS (SELECT max(xact) AS xact FROM old HAVING count(*) > 0), \
             marks AS (DELETE FROM {table} m USING last WHERE m.at = '-infinity' AND m.xact < last.xact) \
             INSERT INTO {table} AS o (xact, tag, at) SELECT xact, '', '-infinity' FROM last \
             ON CONFLICT (xact, tag) DO UPDATE SET at = '-infinity'"
        )
    }
}

fn whole(name: &Name) -> String {
    let schema = name.schema.as_deref().unwrap_or("public");
    format!("{}.{}", quoted(schema), quoted(&name.name))
}

// Beside the table that it belongs to.
fn function(outbox: &Name, watch: &Watch) -> String {
    whole(&watch.table.beside(format!("{}_{}", outbox.name, watch.table.name)))
}

fn triggers(outbox: &Name) -> [String; 2] {
    ["row", "truncate"].map(|kind| quoted(&format!("{}_{kind}", outbox.name)))
}

fn drop_triggers(outbox: &Name, watch: &Watch) -> Vec<String> {
    let table = whole(&watch.table);
    triggers(outbox).map(|trigger| format!("DROP TRIGGER IF EXISTS {trigger} ON {table}")).into()
}

fn body(outbox: &Name, watch: &Watch) -> String {
    let table = whole(outbox);
    // A tag once for each transaction. What nothing can carry is not noted, and would not fit into the index.
    let note = |tags: Vec<String>| {
        format!(
            "INSERT INTO {table} (tag) SELECT t FROM (VALUES ({})) AS v (t)\n      \
             WHERE octet_length(t) <= 256 ON CONFLICT DO NOTHING;",
            tags.join("), (")
        )
    };
    let of = |row: &str| {
        let tag = |rule: &Rule| match rule {
            Rule::Always(tag) => format!("{}::text", text(tag)),
            Rule::Of { prefix, column } => {
                format!("{} || {row}.{}::text", text(prefix), quoted(column))
            }
        };
        note(watch.tags.iter().map(tag).collect())
    };
    let all = watch.always().unwrap_or_else(|| vec![""]);
    let all = note(all.into_iter().map(|tag| format!("{}::text", text(tag))).collect());
    let (old, new) = (of("OLD"), of("NEW"));
    let channel = text(&outbox.name);
    format!(
        "BEGIN\n  \
         IF TG_OP = 'TRUNCATE' THEN\n    {all}\n  \
         ELSE\n    \
         IF TG_OP <> 'INSERT' THEN\n      {old}\n    END IF;\n    \
         IF TG_OP <> 'DELETE' THEN\n      {new}\n    END IF;\n  \
         END IF;\n  \
         PERFORM pg_notify({channel}, '');\n  \
         RETURN NULL;\nEND\n"
    )
}

// Whatever `standard_conforming_strings` says where it runs.
fn text(text: &str) -> String {
    if text.contains('\\') {
        return format!("E{}", literal(&text.replace('\\', "\\\\")));
    }
    literal(text)
}

// `xmin:xmax:xip,…`, as the server writes it: what it would refuse must not be sent again and again.
fn is_snapshot(at: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number > 0);
    let mut parts = at.split(':');
    let (Some(min), Some(max), Some(running), None) =
        (parts.next().and_then(number), parts.next().and_then(number), parts.next(), parts.next())
    else {
        return false;
    };
    let mut last = min - 1;
    let mut rises = |text: &str| {
        let rising = number(text).filter(|number| *number > last && *number < max);
        last = rising.unwrap_or(last);
        rising.is_some()
    };
    min <= max && (running.is_empty() || running.split(',').all(&mut rises))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_would_write_is_a_position() {
        for good in ["10:10:", "10:20:10,14,15", "1:9223372036854775807:1"] {
            assert!(is_snapshot(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1:2",
            "2:1:",
            "0:1:",
            "a:b:",
            "10:20:9",
            "10:20:20",
            "10:20:14,14",
            "1:2::",
            "1:2:,",
        ] {
            assert!(!is_snapshot(bad), "{bad}");
        }
    }

    #[test]
    fn names_and_tags_stay_names_and_tags() {
        let watch = Watch::table("My \"Shop\".pro'duct").unwrap();
        let watch = watch.tag("it's \\ $larder0$").unwrap().tag_of("p:", "i\"d").unwrap();
        let outbox = Name::parse("app.out\"box").unwrap();
        let statements = Postgres::create_statements(&outbox, std::slice::from_ref(&watch));
        let script = statements.join("\n");
        for part in [
            "\"app\".\"out\"\"box\"",
            "\"My \"\"Shop\"\"\".\"pro'duct\"",
            "E'it''s \\\\ $larder0$'::text",
            "'p:' || OLD.\"i\"\"d\"::text",
            "AS $larder1$\n",
            "pg_notify('out\"box', '')",
            "SECURITY DEFINER SET search_path = pg_catalog, pg_temp",
        ] {
            assert!(script.contains(part), "{part} is not in\n{script}");
        }
    }
}
