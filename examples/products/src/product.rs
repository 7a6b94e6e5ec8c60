//! Products, as clients see and send them.

use serde::{Deserialize, Serialize};

use crate::errors::Problem;

/// How many products a page shows.
pub const PER_PAGE: i64 = 50;

/// A product in a list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Product {
    /// Never given to another product again.
    pub id: i64,
    /// What it is called.
    pub name: String,
    /// The name of its category.
    pub category: String,
    /// What it costs.
    pub price_cents: i64,
    /// How many there are.
    pub stock: i64,
    /// The mean of its reviews' stars.
    pub rating: Option<f64>,
    /// How many reviews it has.
    pub reviews: i64,
    /// When it was added, as `2025-03-01T12:00:00Z`.
    pub created_at: String,
}

/// A product with all that is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// What a list shows.
    #[serde(flatten)]
    pub product: Product,
    /// A few sentences.
    pub description: String,
    /// The latest reviews, newest first.
    pub latest_reviews: Vec<Review>,
}

/// What somebody says of a product.
#[derive(Clone, Debug, Serialize)]
pub struct Review {
    /// From one to five.
    pub stars: i64,
    /// In words.
    pub text: String,
    /// When it was written.
    pub created_at: String,
}

/// Some products out of many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// How many there are in all.
    pub count: i64,
    /// Those of the page.
    pub products: Vec<Product>,
}

/// What clients send to create or to replace a product.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// What it is called.
    pub name: String,
    /// A few sentences.
    pub description: String,
    /// The name of a category that is there.
    pub category: String,
    /// What it costs.
    pub price_cents: i64,
    /// How many there are.
    pub stock: i64,
}

impl Draft {
    /// Checks what types cannot say.
    ///
    /// # Errors
    ///
    /// When a text is empty or too long, or a number out of range.
    pub fn check(self) -> Result<Self, Problem> {
        let text = |field: &str, text: &str, most: usize| {
            let length = text.chars().count();
            if !text.trim().is_empty() && length <= most {
                return Ok(());
            }
            let error = format!("{field} must have between 1 and {most} characters");
            Err(Problem::invalid(error, format!("it has {length}")))
        };
        let number = |field: &str, number: i64, least: i64, most: i64| {
            if (least..=most).contains(&number) {
                return Ok(());
            }
            let error = format!("{field} must be between {least} and {most}");
            Err(Problem::invalid(error, format!("it is {number}")))
        };
        text("name", &self.name, 200)?;
        text("description", &self.description, 5_000)?;
        number("price_cents", self.price_cents, 1, 100_000_000)?;
        number("stock", self.stock, 0, 1_000_000)?;
        Ok(self)
    }
}
