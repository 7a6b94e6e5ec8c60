//! Who can log in: names and password hashes in SQLite.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use rusqlite::{Connection, OptionalExtension, params};

use crate::problem::Problem;

/// The users. A clone is the same table.
#[derive(Clone)]
pub struct Users(Arc<Mutex<Connection>>);

/// Somebody who can log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What never changes of them.
    pub id: i64,
    /// What they are called.
    pub name: String,
}

// Verified where there is no such user, so that the answer takes as long as if there were one.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody").unwrap_or_default());

fn hash(password: &str) -> Option<String> {
    Some(Argon2::default().hash_password(password.as_bytes()).ok()?.to_string())
}

fn verify(password: &str, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

impl Users {
    /// Opens the file, and makes the table if there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be used.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE IF NOT EXISTS users (
                 id INTEGER PRIMARY KEY,
                 name TEXT NOT NULL UNIQUE COLLATE NOCASE,
                 password TEXT NOT NULL
             ) STRICT;",
        )?;
        Ok(Users(Arc::new(Mutex::new(connection))))
    }

    /// Adds a user. `None` if the name is taken.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn register(&self, name: &str, password: &str) -> Result<Option<User>, Problem> {
        let (name, password) = (name.to_owned(), password.to_owned());
        self.run(move |users| {
            let hash = hash(&password).ok_or(Problem::Internal("a password cannot be hashed"))?;
            let insert = "INSERT INTO users (name, password) VALUES (?1, ?2) ON CONFLICT DO NOTHING RETURNING id";
            let connection = users.lock();
            let id = connection.query_row(insert, params![name, hash], |row| row.get(0)).optional()?;
            Ok(id.map(|id| User { id, name }))
        })
        .await
    }

    /// Who has that name and that password. `None` if nobody has.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<Option<User>, Problem> {
        let (name, password) = (name.to_owned(), password.to_owned());
        self.run(move |users| {
            let select = "SELECT id, name, password FROM users WHERE name = ?1";
            let found = users.lock().query_row(select, [name], |row| {
                Ok((User { id: row.get(0)?, name: row.get(1)? }, row.get::<_, String>(2)?))
            });
            let Some((user, hash)) = found.optional()? else {
                verify(&password, &NOBODY);
                return Ok(None);
            };
            Ok(verify(&password, &hash).then_some(user))
        })
        .await
    }

    // Hashing takes a core for some milliseconds, which no other request should wait for.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Users) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let users = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&users)).await;
        done.map_err(|_| Problem::Internal("a task ended early"))?
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users")
    }
}
