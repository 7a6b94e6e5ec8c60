//! A SQLite file, and a few connections to it.

mod queries;
mod schema;
mod seed;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

pub use queries::{CategorySummary, Edit, Sidebar};
pub use schema::OpenError;

use crate::errors::Problem;
use crate::product::{Detail, Draft, Product, Slice};

/// How many products a new database is filled with.
pub const PRODUCTS: u32 = 10_000;

/// The products. A clone is the same database.
#[derive(Clone, Debug)]
pub struct Database(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    // One permit for each connection: who has one finds one idle, or may open it.
    permits: Semaphore,
}

impl Database {
    /// Opens the file, making and filling it first if there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or belongs to another program.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Database::open_with(path, PRODUCTS)
    }

    /// The same, with so many products if it is new.
    ///
    /// # Errors
    ///
    /// As [`open`](Database::open).
    pub fn open_with(path: &Path, products: u32) -> Result<Self, OpenError> {
        let first = schema::prepare(path, products)?;
        // Queries keep a core busy rather than wait, so more connections than cores would only queue elsewhere.
        let connections = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        Ok(Database(Arc::new(Pool {
            path: path.to_owned(),
            idle: Mutex::new(vec![first]),
            permits: Semaphore::new(connections),
        })))
    }

    /// How many products there are.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn count(&self) -> Result<i64, Problem> {
        self.run(|connection| queries::count(connection)).await
    }

    /// A page of all products, newest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn list(&self, offset: i64) -> Result<Slice, Problem> {
        self.run(move |connection| queries::list(connection, offset)).await
    }

    /// A page of the products whose name or description holds the text, newest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn search(&self, q: String, offset: i64) -> Result<Slice, Problem> {
        self.run(move |connection| queries::search(connection, &q, offset)).await
    }

    /// One product.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn detail(&self, id: i64) -> Result<Option<Detail>, Problem> {
        self.run(move |connection| queries::detail(connection, id)).await
    }

    /// The best rated products in stock.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn featured(&self, most: u32) -> Result<Vec<Product>, Problem> {
        self.run(move |connection| queries::featured(connection, most)).await
    }

    /// What the sidebar shows.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn sidebar(&self) -> Result<Sidebar, Problem> {
        self.run(queries::sidebar).await
    }

    /// Adds a product.
    ///
    /// # Errors
    ///
    /// When there is no such category, or the database fails.
    pub async fn create(&self, draft: Draft) -> Result<Detail, Problem> {
        self.run(move |connection| queries::create(connection, &draft)).await?
    }

    /// Replaces what clients may set of a product.
    ///
    /// # Errors
    ///
    /// When there is no such category, or the database fails.
    pub async fn update(&self, id: i64, draft: Draft) -> Result<Option<Edit>, Problem> {
        self.run(move |connection| queries::update(connection, id, &draft)).await?
    }

    /// Removes a product; whether there was one.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn remove(&self, id: i64) -> Result<bool, Problem> {
        self.run(move |connection| queries::remove(connection, id)).await
    }

    // Runs queries on a thread that may wait, with a connection of its own.
    async fn run<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let pool = self.0.clone();
        let task = async move {
            let permit = pool.permits.acquire().await.map_err(Problem::internal)?;
            let threaded = pool.clone();
            let result = tokio::task::spawn_blocking(move || {
                let mut connection = threaded.take()?;
                let result = work(&mut connection);
                threaded.idle().push(connection);
                result
            });
            let result = result.await.map_err(Problem::internal)?;
            drop(permit);
            Ok(result?)
        };
        // In a task, so that the permit is given back when the connection is, also if the caller goes away.
        tokio::spawn(task).await.map_err(Problem::internal)?
    }
}

impl Pool {
    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle().pop();
        idle.map_or_else(|| schema::connect(&self.path), Ok)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
