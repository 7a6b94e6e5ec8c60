//! The products: 10,000 of them in a SQLite database in memory, made anew at each start.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::broadcast;

use crate::proto::{ListResponse, Product};

/// How many products there are.
pub const PRODUCTS: u32 = 10_000;

/// The categories.
pub const CATEGORIES: [&str; 5] = ["Kitchen", "Garden", "Office", "Travel", "Music"];

const PAGE: u32 = 20;

/// The products, and who is told of changes. A clone is the same shelf.
#[derive(Clone, Debug)]
pub struct Shelf {
    database: Arc<Mutex<Connection>>,
    // Gone when the server stops, so that those who watch are told the end.
    changes: Arc<Mutex<Option<broadcast::Sender<Product>>>>,
}

impl Shelf {
    /// A full one.
    ///
    /// # Errors
    ///
    /// When SQLite fails.
    pub fn new() -> rusqlite::Result<Self> {
        let mut database = Connection::open_in_memory()?;
        // Without an index on the price, as many a shop has it.
        database.execute_batch(
            "CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price_cents INTEGER,
             description TEXT)",
        )?;
        let filling = database.transaction()?;
        {
            let mut insert = filling.prepare("INSERT INTO product VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for id in 1..=PRODUCTS {
                let category = CATEGORIES[(id % CATEGORIES.len() as u32) as usize];
                let name = format!("{category} thing {id}");
                let description = format!("{name} does what it should. ").repeat(8);
                insert.execute(params![
                    id,
                    name,
                    category,
                    100 + id * 7919 % 50_000,
                    description
                ])?;
            }
        }
        filling.commit()?;
        let (changes, _) = broadcast::channel(64);
        Ok(Shelf {
            database: Arc::new(Mutex::new(database)),
            changes: Arc::new(Mutex::new(Some(changes))),
        })
    }

    /// One product.
    ///
    /// # Errors
    ///
    /// When SQLite fails.
    pub async fn get(&self, id: u32) -> rusqlite::Result<Option<Product>> {
        self.with(move |database| {
            let mut select = database.prepare_cached("SELECT * FROM product WHERE id = ?1")?;
            select.query_row([id], product).optional()
        })
        .await
    }

    /// A page of a category, cheapest first.
    ///
    /// # Errors
    ///
    /// When SQLite fails.
    pub async fn list(&self, category: String, page: u32) -> rusqlite::Result<ListResponse> {
        self.with(move |database| {
            let mut select = database.prepare_cached(
                "SELECT * FROM product WHERE category = ?1 ORDER BY price_cents, id LIMIT ?2 OFFSET ?3",
            )?;
            let from = page.saturating_mul(PAGE);
            let products = select.query_map(params![category, PAGE, from], product)?;
            let products = products.collect::<rusqlite::Result<_>>()?;
            let mut count =
                database.prepare_cached("SELECT COUNT(*) FROM product WHERE category = ?1")?;
            Ok(ListResponse { products, total: count.query_row([category], |row| row.get(0))? })
        })
        .await
    }

    /// Gives a product a price, and tells those who watch.
    ///
    /// # Errors
    ///
    /// When SQLite fails.
    pub async fn update(&self, id: u32, price_cents: u32) -> rusqlite::Result<Option<Product>> {
        let changed = self
            .with(move |database| {
                let mut update = database.prepare_cached(
                    "UPDATE product SET price_cents = ?2 WHERE id = ?1 RETURNING *",
                )?;
                update.query_row(params![id, price_cents], product).optional()
            })
            .await?;
        if let (Some(product), Some(changes)) = (&changed, &*locked(&self.changes)) {
            // Nobody may be watching.
            let _ = changes.send(product.clone());
        }
        Ok(changed)
    }

    /// What changes from now on; `None` when the server is stopping.
    pub fn watch(&self) -> Option<broadcast::Receiver<Product>> {
        locked(&self.changes).as_ref().map(broadcast::Sender::subscribe)
    }

    /// Ends all watching.
    pub fn close(&self) {
        locked(&self.changes).take();
    }

    // SQLite blocks, so it has threads of its own.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let database = self.database.clone();
        let working = tokio::task::spawn_blocking(move || work(&locked(&database)));
        working.await.expect("the work does not panic")
    }
}

fn locked<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn product(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        id: row.get(0)?,
        name: row.get(1)?,
        category: row.get(2)?,
        price_cents: row.get(3)?,
        description: row.get(4)?,
    })
}
