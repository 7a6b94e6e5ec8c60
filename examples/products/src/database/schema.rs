//! Opening the file: what is in it, and whether it is ours.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::seed;

/// Why a file cannot be used as the database.
#[derive(Debug)]
pub enum OpenError {
    /// SQLite says so.
    Sqlite(rusqlite::Error),
    /// It is the database of another program, or of another version of this one.
    Foreign,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Sqlite(error) => error.fmt(f),
            OpenError::Foreign => f.write_str("it is the database of another program"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        OpenError::Sqlite(error)
    }
}

// "Lard", in the place where SQLite keeps whose a file is.
const APPLICATION: i32 = 0x4C61_7264;
const VERSION: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE categories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
-- Numbers are never used twice: a stored page must not take a new product for a removed one.
CREATE TABLE products (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    category_id INTEGER NOT NULL REFERENCES categories (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    price_cents INTEGER NOT NULL,
    stock INTEGER NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY,
    product_id INTEGER NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    stars INTEGER NOT NULL,
    text TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX products_newest ON products (created_at DESC, id DESC);
CREATE INDEX products_category ON products (category_id, price_cents);
CREATE INDEX reviews_product ON reviews (product_id, stars);
CREATE INDEX reviews_newest ON reviews (product_id, created_at DESC);
";

/// A connection to a database that is there.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch(
        "PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Makes and fills the database unless it is there, in one step: interrupted, it leaves an empty file.
pub(super) fn prepare(path: &Path, products: u32) -> Result<Connection, OpenError> {
    let mut connection = connect(path)?;
    // Looked at before anything is written: what is not ours stays as it is.
    is_empty(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // And once more, since another process may have begun at the same time.
    if is_empty(&transaction)? {
        transaction.execute_batch(SCHEMA)?;
        seed::fill(&transaction, products)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.execute_batch("ANALYZE")?;
    }
    transaction.commit()?;
    Ok(connection)
}

fn is_empty(connection: &Connection) -> Result<bool, OpenError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get(0));
    let (application, version): (i32, i32) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    match tables {
        0 => Ok(true),
        _ if (application, version) == (APPLICATION, VERSION) => Ok(false),
        _ => Err(OpenError::Foreign),
    }
}
