//! The statements. Each one is a whole operation: nothing that a caller can drop ever leaves a transaction open.
//!
//! What differs between the databases is a handful of words ([`Words`]); the rest is one text for both. Parameters are
//! numbered, and where the time is not the server's, it is one more behind the last.

use std::sync::Arc;

/// What a database calls things.
#[derive(Debug)]
pub struct Words {
    /// The time in milliseconds, given which number is free for a parameter.
    pub(crate) now: fn(usize) -> String,
    /// The first bytes of an entry's record, as a literal.
    pub(crate) magic: &'static str,
    /// A table of `ord`, `namespace`, `mark`, `name` from the JSON in `$1`.
    pub(crate) items: &'static str,
    /// A table of `ord`, `name` from the JSON in `$2`.
    pub(crate) names: &'static str,
    /// Joins to each row of one of them, as `l`, the row that lies where `{at}` says; ends in a condition.
    pub(crate) row: &'static str,
    /// Behind a `SELECT`: its rows stay as they are until the statement ends.
    pub(crate) share: &'static str,
    pub(crate) lock: &'static str,
    pub(crate) skip: &'static str,
    /// Names of types.
    pub(crate) text: &'static str,
    pub(crate) bytes: &'static str,
    pub(crate) integer: &'static str,
    pub(crate) table_options: &'static str,
    /// How `invalidate` raises sequence and tags at once.
    pub(crate) invalidate: &'static str,
    /// Puts many, or nothing where statements cost no round trip.
    pub(crate) put_many: &'static str,
    /// The same without a condition, in one namespace, which is what most batches are.
    pub(crate) put_all: &'static str,
    /// Where there are no arrays, of how many rows such a statement may be; the most first.
    pub(crate) rows: &'static [usize],
}

/// One statement.
#[derive(Clone)]
pub(crate) struct Statement(pub(crate) Arc<str>);

pub(crate) struct Statements {
    /// Names every column, and reads nothing.
    pub(crate) probe: Statement,
    pub(crate) read: Statement,
    pub(crate) read_many: Statement,
    /// The same for entries of one namespace.
    pub(crate) read_all: Statement,
    pub(crate) put: Statement,
    pub(crate) put_many: Statement,
    pub(crate) put_all: Statement,
    /// The same of so many rows, where rows are bound one by one; the most first.
    pub(crate) put_rows: Vec<(usize, Statement)>,
    pub(crate) replace: Statement,
    pub(crate) remove: Statement,
    pub(crate) remove_many: Statement,
    pub(crate) touch: Statement,
    pub(crate) add: Statement,
    pub(crate) add_or_create: Statement,
    pub(crate) remaining: Statement,
    pub(crate) plant: Statement,
    pub(crate) plant_over: Statement,
    pub(crate) exchange: Statement,
    pub(crate) marks: Statement,
    pub(crate) make_sequence: Statement,
    pub(crate) make_marks: Statement,
    pub(crate) invalidate: Statement,
    pub(crate) clear: Statement,
    pub(crate) page: Statement,
    pub(crate) start_of: Statement,
    pub(crate) used: Statement,
    pub(crate) sweep: [Statement; 3],
    pub(crate) totals: Statement,
    pub(crate) cull: Statement,
}

/// What is in a row.
pub(crate) mod kind {
    pub(crate) const ENTRY: i64 = 0;
    pub(crate) const COUNTER: i64 = 1;
    pub(crate) const FILL: i64 = 2;
    pub(crate) const PASS: i64 = 3;
    /// A sequence, a tag's last invalidation, or a namespace's generation.
    pub(crate) const MARK: i64 = 4;
}

/// A condition as the statements know it.
pub(crate) mod condition {
    pub(crate) const ALWAYS: i64 = 0;
    pub(crate) const ABSENT: i64 = 1;
    pub(crate) const PRESENT: i64 = 2;
    pub(crate) const REVISION: i64 = 3;
    pub(crate) const TOKEN: i64 = 4;
}

// What is bound for each row: name, kind, number, revision, value, freshness, lifetime, size.
const ROW_SIZE: usize = 8;

const COLUMNS: &str = "namespace, generation, name, kind, number, revision, value, written, fresh, expires, used, size";

// A row that is an entry or a counter, and alive. The first bytes tell an entry of this format from anything else.
const ENTRY: &str = "(l.kind <= 1 AND (l.expires IS NULL OR l.expires > {now}) \
    AND (l.kind = 1 OR substr(l.value, 1, 6) IS NOT DISTINCT FROM {magic}))";

const MARKER: &str = "(l.kind IN (2, 3) AND l.expires > {now})";

const HERE: &str = "l.namespace = $1 AND l.generation = {life} AND l.name = $2";

// Which life a namespace is in: 1 until it is cleared for the first time.
const LIFE: &str = "COALESCE((SELECT g.number FROM {table} g \
    WHERE g.namespace = {of} AND g.generation = 0 AND g.name = 'generation'), 1)";

// Where an item lies: numbers and tags outlive that a namespace is cleared.
const AT_ITEM: &str = "l.namespace = i.namespace AND l.name = i.name \
    AND l.generation = CASE WHEN i.mark = 1 THEN 0 ELSE {life of item} END";

const AT_NAME: &str = "l.namespace = $1 AND l.generation = {life} AND l.name = n.name";

const AT_MARK: &str = "l.namespace = $1 AND l.generation = 0 AND l.name = n.name";

const TAKE_OVER: &str = "kind = excluded.kind, number = excluded.number, revision = excluded.revision, \
    value = excluded.value, written = excluded.written, fresh = excluded.fresh, expires = excluded.expires, \
    used = excluded.used, size = excluded.size";

const KEY: &str = "(namespace, generation, name)";

fn holds(condition: &str, compared: &str) -> String {
    format!(
        "({condition} = 0 OR ({condition} = 1 AND NOT {{entry}}) OR ({condition} = 2 AND {{entry}}) \
         OR ({condition} = 3 AND {{entry}} AND l.kind = 0 AND l.revision = {compared}) \
         OR ({condition} = 4 AND l.kind = 2 AND l.expires > {{now}} AND l.revision = {compared}))"
    )
}

impl Statements {
    pub(crate) fn new(words: &Words, table: &str) -> Self {
        // `free`: the number after the statement's last parameter.
        let made = |free: usize, text: &str| {
            let text = text
                .replace("{entry or token}", &holds("i.condition", "i.compared"))
                .replace("{here}", HERE)
                // What is returned has no other name in SQLite.
                .replace("{it was one}", &ENTRY.replace("l.", ""))
                .replace("{entry}", ENTRY)
                .replace("{marker}", MARKER)
                .replace("{take over}", TAKE_OVER)
                .replace("{columns}", COLUMNS)
                .replace("{key}", KEY)
                .replace("{row of item}", &words.row.replace("{at}", AT_ITEM))
                .replace("{row of name}", &words.row.replace("{at}", AT_NAME))
                .replace("{row of mark}", &words.row.replace("{at}", AT_MARK))
                .replace("{life of item}", &LIFE.replace("{of}", "i.namespace"))
                .replace("{life}", &LIFE.replace("{of}", "$1"))
                .replace("{items}", words.items)
                .replace("{names}", words.names)
                .replace("{share}", words.share)
                .replace("{lock}", words.lock)
                .replace("{skip}", words.skip)
                .replace("{magic}", words.magic)
                .replace("{table}", table)
                .replace("{now}", &(words.now)(free));
            Statement(text.into())
        };
        const ROW: &str = "l.kind, l.number, l.value, l.written, l.fresh, l.expires, l.used, {now}";
        let replaced = holds("$10", "$11");
        let removed = holds("$3", "$4");
        let sweep = |free: usize, which: &str| {
            made(
                free,
                &format!(
                    "DELETE FROM {{table}} WHERE {{key}} IN (SELECT l.namespace, l.generation, l.name {which} \
                     LIMIT $1 {{skip}}) RETURNING size"
                ),
            )
        };
        let made_of_rows = |rows: usize| {
            let row = |row: usize| {
                let first = 2 + row * ROW_SIZE;
                let numbers = (first..first + ROW_SIZE).map(|number| format!("${number}"));
                format!("({})", numbers.collect::<Vec<_>>().join(", "))
            };
            let list = (0..rows).map(row).collect::<Vec<_>>().join(", ");
            made(2 + rows * ROW_SIZE, &words.put_all.replace("{rows}", &list))
        };
        Statements {
            probe: made(2, "SELECT {columns} FROM {table} WHERE namespace = $1 LIMIT 1"),
            read: made(
                3,
                &format!(
                    "SELECT CAST(0 AS bigint), {ROW} FROM {{table}} l WHERE {{here}} AND (l.expires IS NULL OR l.expires > {{now}})"
                ),
            ),
            read_many: made(
                2,
                &format!(
                    "SELECT i.ord, {ROW} FROM {{items}} i {{row of item}} \
                     AND (l.expires IS NULL OR l.expires > {{now}})"
                ),
            ),
            // In a batch the time is worked out once, and not for each row.
            read_all: made(
                3,
                &format!(
                    "SELECT n.ord, {} FROM {{names}} n {{row of name}} \
                     AND (l.expires IS NULL OR l.expires > (SELECT {{now}}))",
                    ROW.replace("{now}", "(SELECT {now})"),
                ),
            ),
            put: made(
                11,
                "INSERT INTO {table} AS l ({columns}) \
                 SELECT $1, {life}, $2, $3, $4, $5, $6, {now}, {now} + $7, {now} + $8, {now}, $9 WHERE true \
                 ON CONFLICT {key} DO UPDATE SET {take over} WHERE $10 = 0 OR NOT {entry} RETURNING 1",
            ),
            put_many: made(11, words.put_many),
            put_all: made(10, words.put_all),
            put_rows: words.rows.iter().map(|rows| (*rows, made_of_rows(*rows))).collect(),
            replace: made(
                12,
                &format!(
                    "UPDATE {{table}} AS l SET kind = $3, number = $4, revision = $5, value = $6, written = {{now}}, \
                     fresh = {{now}} + $7, expires = {{now}} + $8, used = {{now}}, size = $9 \
                     WHERE {{here}} AND {replaced} RETURNING 1"
                ),
            ),
            remove: made(
                5,
                &format!(
                    "DELETE FROM {{table}} AS l WHERE {{here}} AND {removed} \
                     RETURNING CASE WHEN {{it was one}} THEN 1 ELSE 0 END"
                ),
            ),
            remove_many: made(
                2,
                "DELETE FROM {table} AS l WHERE {key} IN (\
                 SELECT o.namespace, o.generation, o.name FROM {items} i CROSS JOIN {table} o \
                 WHERE o.namespace = i.namespace AND o.name = i.name AND o.generation = {life of item} \
                 ORDER BY o.namespace, o.name {lock}) RETURNING CASE WHEN {it was one} THEN 1 ELSE 0 END",
            ),
            touch: made(
                4,
                "UPDATE {table} AS l SET written = {now}, fresh = NULL, expires = {now} + $3, used = {now} \
                 WHERE {here} AND {entry} RETURNING 1",
            ),
            add: made(
                6,
                "UPDATE {table} AS l SET number = number + $3, used = {now} \
                 WHERE {here} AND l.kind = 1 AND {entry} AND l.number BETWEEN $4 AND $5 RETURNING number",
            ),
            add_or_create: made(
                9,
                "INSERT INTO {table} AS l ({columns}) \
                 SELECT $1, {life}, $2, 1, $6, NULL, NULL, {now}, NULL, {now} + $7, {now}, $8 WHERE true \
                 ON CONFLICT {key} DO UPDATE SET kind = 1, revision = NULL, value = NULL, fresh = NULL, \
                 number = CASE WHEN {entry} THEN l.number + $3 ELSE excluded.number END, \
                 written = CASE WHEN {entry} THEN l.written ELSE excluded.written END, \
                 expires = CASE WHEN {entry} THEN l.expires ELSE excluded.expires END, \
                 used = excluded.used, size = excluded.size \
                 WHERE NOT {entry} OR (l.kind = 1 AND l.number BETWEEN $4 AND $5) RETURNING number",
            ),
            remaining: made(3, "SELECT l.expires, {now} FROM {table} l WHERE {here} AND {entry}"),
            plant: made(
                6,
                "INSERT INTO {table} AS l ({columns}) \
                 SELECT $1, {life}, $2, 2, NULL, $3, NULL, {now}, NULL, {now} + $4, {now}, $5 WHERE true \
                 ON CONFLICT {key} DO UPDATE SET {take over} WHERE NOT ({entry} OR {marker}) RETURNING 1",
            ),
            plant_over: made(
                7,
                "UPDATE {table} AS l SET kind = 2, number = NULL, revision = $3, value = NULL, written = {now}, \
                 fresh = NULL, expires = {now} + $4, used = {now}, size = $5 \
                 WHERE {here} AND l.kind = 0 AND l.value = $6 RETURNING 1",
            ),
            exchange: made(
                6,
                "UPDATE {table} AS l SET kind = $4, expires = {now} + $5, used = {now} \
                 WHERE {here} AND l.kind = 2 AND l.expires > {now} AND l.revision = $3 RETURNING 1",
            ),
            marks: made(3, "SELECT l.name, l.number, l.used, {now} FROM {names} n {row of mark}"),
            make_sequence: made(
                4,
                "INSERT INTO {table} ({columns}) \
                 SELECT $1, 0, 'sequence', 4, $2, NULL, NULL, {now}, NULL, NULL, {now}, $3 WHERE true \
                 ON CONFLICT {key} DO NOTHING",
            ),
            make_marks: made(
                4,
                "INSERT INTO {table} AS l ({columns}) \
                 SELECT $1, 0, n.name, 4, s.number, NULL, NULL, {now}, NULL, NULL, {now}, $3 FROM \
                 (SELECT q.number FROM {table} q WHERE q.namespace = $1 AND q.generation = 0 AND q.name = 'sequence' {share}) s \
                 CROSS JOIN {names} n WHERE true ORDER BY n.name \
                 ON CONFLICT {key} DO UPDATE SET used = excluded.used, number = CASE \
                 WHEN l.number / 10000000000 = excluded.number / 10000000000 THEN l.number ELSE excluded.number END",
            ),
            invalidate: made(5, words.invalidate),
            clear: made(
                3,
                "INSERT INTO {table} AS l ({columns}) \
                 SELECT $1, 0, 'generation', 4, 2, NULL, NULL, {now}, NULL, NULL, {now}, $2 WHERE true \
                 ON CONFLICT {key} DO UPDATE SET number = l.number + 1, used = excluded.used",
            ),
            page: made(
                7,
                "SELECT l.name, substr(l.value, 1, CAST($6 AS integer)) FROM {table} l \
                 WHERE l.namespace = $1 AND l.generation = {life} AND l.name >= $2 AND l.name < $3 AND l.name > $4 \
                 AND l.kind = 0 AND (l.expires IS NULL OR l.expires > {now}) ORDER BY l.name LIMIT $5",
            ),
            start_of: made(
                4,
                "SELECT substr(l.value, 1, CAST($3 AS integer)) FROM {table} l WHERE {here} AND l.kind = 0 \
                 AND (l.expires IS NULL OR l.expires > {now})",
            ),
            used: made(3, "UPDATE {table} AS l SET used = {now} WHERE {here}"),
            sweep: [
                sweep(2, "FROM {table} l WHERE l.expires <= {now}"),
                sweep(
                    2,
                    "FROM {table} g JOIN {table} l ON l.namespace = g.namespace AND l.generation > 0 \
                     AND l.generation < g.number WHERE g.generation = 0 AND g.name = 'generation'",
                ),
                sweep(
                    3,
                    "FROM {table} l WHERE l.used < {now} - $2 AND l.generation = 0 \
                     AND l.name >= 't:' AND l.name < 't;'",
                ),
            ],
            totals: made(
                1,
                "SELECT count(*), CAST(COALESCE(sum(l.size), 0) AS bigint) FROM {table} l WHERE l.generation > 0",
            ),
            cull: sweep(2, "FROM {table} l WHERE l.generation > 0 ORDER BY l.used"),
        }
    }
}

/// The statements that make the table.
pub(crate) fn schema(words: &Words, table: &str) -> Vec<String> {
    let Words { text, bytes, integer, table_options, .. } = words;
    let name = table.replace('.', "_");
    // Indexes lie where their table lies; SQLite wants the schema before the index's name, PostgreSQL nowhere.
    let (index_schema, index_table) = match table.split_once('.') {
        Some((schema, bare)) if words.share.is_empty() => (format!("{schema}."), bare),
        _ => (String::new(), table),
    };
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    \
             namespace {text} NOT NULL,\n    \
             generation {integer} NOT NULL,\n    \
             name {text} NOT NULL,\n    \
             kind {integer} NOT NULL,\n    \
             number {integer},\n    \
             revision {bytes},\n    \
             value {bytes},\n    \
             written {integer} NOT NULL,\n    \
             fresh {integer},\n    \
             expires {integer},\n    \
             used {integer} NOT NULL,\n    \
             size {integer} NOT NULL,\n    \
             PRIMARY KEY (namespace, generation, name)\n){table_options}"
        ),
        format!(
            "CREATE INDEX IF NOT EXISTS {index_schema}{name}_expires ON {index_table} (expires) WHERE expires IS NOT NULL"
        ),
        format!("CREATE INDEX IF NOT EXISTS {index_schema}{name}_used ON {index_table} (used)"),
    ]
}
