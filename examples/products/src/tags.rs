//! Which tag is on what, and which change drops which.
//!
//! | carries | what |
//! | --- | --- |
//! | `product:ID` | every response that shows the product: its detail, list pages, search results; its part of its page |
//! | `products:list` | list pages: what they show depends on which products there are, and in which order |
//! | `products:search` | search results: they depend on which products there are, and on their texts |
//! | `products` | data made from many products: featured, the home page's table and sidebar |
//!
//! | change | drops |
//! | --- | --- |
//! | edit of product 42 | `product:42`, `products`; and `products:search` if a text changed |
//! | creation | `products:list`, `products:search`, `products`: every page shifts by one |
//! | deletion of product 42 | those and `product:42` |
//!
//! So a new price of product 42 drops its detail and the pages that show it, and every other page stays. An edit never
//! changes the order of the list, which is by the time of creation.

/// On list pages.
pub const LIST: &str = "products:list";
/// On search results.
pub const SEARCH: &str = "products:search";
/// On data that is made from many products.
pub const ALL: &str = "products";

/// On what shows that product.
pub fn product(id: i64) -> String {
    format!("product:{id}")
}

/// What an edit drops.
pub fn after_edit(id: i64, text_changed: bool) -> Vec<String> {
    let mut tags = vec![product(id), ALL.to_owned()];
    if text_changed {
        tags.push(SEARCH.to_owned());
    }
    tags
}

/// What a creation drops.
pub fn after_creation() -> Vec<String> {
    [LIST, SEARCH, ALL].map(str::to_owned).into()
}

/// What a deletion drops.
pub fn after_deletion(id: i64) -> Vec<String> {
    let mut tags = after_creation();
    tags.push(product(id));
    tags
}
