//! The queries: what an ordinary application asks, with the indexes that it would have.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use crate::errors::Problem;
use crate::product::{Detail, Draft, PER_PAGE, Product, Review, Slice};

/// What a list shows of a product. The ratings are looked up for the rows of the page only.
macro_rules! product {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.name, c.name, p.price_cents, p.stock, p.created_at,
                (SELECT round(avg(stars), 2) FROM reviews WHERE product_id = p.id),
                (SELECT count(*) FROM reviews WHERE product_id = p.id),
                p.description
             FROM products AS p JOIN categories AS c ON c.id = p.category_id ",
            $rest
        )
    };
}

const NEWEST: &str = product!("ORDER BY p.created_at DESC, p.id DESC LIMIT ?1 OFFSET ?2");

const ONE: &str = product!("WHERE p.id = ?1");

const FOUND: &str = product!(
    "WHERE p.name LIKE ?3 ESCAPE '\\' OR p.description LIKE ?3 ESCAPE '\\'
     ORDER BY p.created_at DESC, p.id DESC LIMIT ?1 OFFSET ?2"
);

const FOUND_COUNT: &str = "SELECT count(*) FROM products
     WHERE name LIKE ?1 ESCAPE '\\' OR description LIKE ?1 ESCAPE '\\'";

const FEATURED: &str = product!(
    "JOIN (SELECT product_id, avg(stars) AS mean, count(*) AS number
           FROM reviews GROUP BY product_id HAVING count(*) >= 5) AS r ON r.product_id = p.id
     WHERE p.stock > 0 ORDER BY r.mean DESC, r.number DESC, p.id DESC LIMIT ?1"
);

const REVIEWS: &str = "SELECT stars, text, created_at FROM reviews
     WHERE product_id = ?1 ORDER BY created_at DESC LIMIT 5";

const CATEGORIES: &str = "SELECT c.name, count(*), min(p.price_cents)
     FROM products AS p JOIN categories AS c ON c.id = p.category_id
     GROUP BY c.id ORDER BY c.name";

/// What the sidebar shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sidebar {
    /// By name.
    pub categories: Vec<CategorySummary>,
    /// The best rated products in stock.
    pub best: Vec<Product>,
}

/// A category, in numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CategorySummary {
    /// Its name.
    pub name: String,
    /// How many products it has.
    pub products: i64,
    /// What the cheapest costs.
    pub cheapest_cents: i64,
}

/// What an edit did.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The product as it is now.
    pub product: Detail,
    /// Whether its name or description changed.
    pub text_changed: bool,
}

pub(super) fn count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT count(*) FROM products")?.query_row((), |row| row.get(0))
}

pub(super) fn list(connection: &mut Connection, offset: i64) -> rusqlite::Result<Slice> {
    // One view of the database for the count and the page.
    let view = connection.transaction()?;
    let count = count(&view)?;
    let products = products(&view, NEWEST, params![PER_PAGE, offset])?;
    Ok(Slice { count, products })
}

pub(super) fn search(connection: &mut Connection, q: &str, offset: i64) -> rusqlite::Result<Slice> {
    let view = connection.transaction()?;
    let pattern = pattern(q);
    let count = view.prepare_cached(FOUND_COUNT)?.query_row([&pattern], |row| row.get(0))?;
    let products = products(&view, FOUND, params![PER_PAGE, offset, pattern])?;
    Ok(Slice { count, products })
}

pub(super) fn detail(connection: &Connection, id: i64) -> rusqlite::Result<Option<Detail>> {
    let found = connection
        .prepare_cached(ONE)?
        .query_row([id], |row| Ok((product(row)?, row.get(8)?)))
        .optional()?;
    let Some((product, description)) = found else { return Ok(None) };
    let latest_reviews = connection
        .prepare_cached(REVIEWS)?
        .query_map([id], |row| {
            Ok(Review { stars: row.get(0)?, text: row.get(1)?, created_at: row.get(2)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Detail { product, description, latest_reviews }))
}

pub(super) fn featured(connection: &Connection, most: u32) -> rusqlite::Result<Vec<Product>> {
    products(connection, FEATURED, [most])
}

pub(super) fn sidebar(connection: &mut Connection) -> rusqlite::Result<Sidebar> {
    let view = connection.transaction()?;
    let categories = view
        .prepare_cached(CATEGORIES)?
        .query_map((), |row| {
            Ok(CategorySummary {
                name: row.get(0)?,
                products: row.get(1)?,
                cheapest_cents: row.get(2)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Sidebar { categories, best: featured(&view, 5)? })
}

pub(super) fn create(
    connection: &mut Connection,
    draft: &Draft,
) -> rusqlite::Result<Result<Detail, Problem>> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let category = match category(&change, &draft.category)? {
        Ok(category) => category,
        Err(problem) => return Ok(Err(problem)),
    };
    change.execute(
        "INSERT INTO products (category_id, name, description, price_cents, stock, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
        params![category, draft.name, draft.description, draft.price_cents, draft.stock],
    )?;
    let made = detail(&change, change.last_insert_rowid())?;
    change.commit()?;
    Ok(made.ok_or_else(|| Problem::internal("a product that was just made is not there")))
}

pub(super) fn update(
    connection: &mut Connection,
    id: i64,
    draft: &Draft,
) -> rusqlite::Result<Result<Option<Edit>, Problem>> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(old) = detail(&change, id)? else { return Ok(Ok(None)) };
    let category = match category(&change, &draft.category)? {
        Ok(category) => category,
        Err(problem) => return Ok(Err(problem)),
    };
    change.execute(
        "UPDATE products SET category_id = ?2, name = ?3, description = ?4, price_cents = ?5, stock = ?6
         WHERE id = ?1",
        params![id, category, draft.name, draft.description, draft.price_cents, draft.stock],
    )?;
    let new = detail(&change, id)?;
    change.commit()?;
    let text_changed = (&old.product.name, &old.description) != (&draft.name, &draft.description);
    Ok(Ok(new.map(|product| Edit { product, text_changed })))
}

pub(super) fn remove(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    Ok(connection.execute("DELETE FROM products WHERE id = ?1", [id])? > 0)
}

fn products(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Product>> {
    connection.prepare_cached(query)?.query_map(parameters, product)?.collect()
}

fn product(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        id: row.get(0)?,
        name: row.get(1)?,
        category: row.get(2)?,
        price_cents: row.get(3)?,
        stock: row.get(4)?,
        created_at: row.get(5)?,
        rating: row.get(6)?,
        reviews: row.get(7)?,
    })
}

fn category(connection: &Connection, name: &str) -> rusqlite::Result<Result<i64, Problem>> {
    let id = connection
        .prepare_cached("SELECT id FROM categories WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(id) = id {
        return Ok(Ok(id));
    }
    let names = connection
        .prepare_cached("SELECT name FROM categories ORDER BY name")?
        .query_map((), |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let hint = format!("there are {}", names.join(", "));
    Ok(Err(Problem::invalid(format!("there is no category {name:?}"), hint)))
}

// What is searched for stands for itself, also where LIKE means something else by it.
fn pattern(q: &str) -> String {
    let mut pattern = String::from("%");
    for c in q.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn wildcards_are_plain_text() {
        assert_eq!(pattern(r"50%_\"), r"%50\%\_\\%");
    }
}
