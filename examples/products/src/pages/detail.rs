//! A product's own page, by MiniJinja. What it shows of the product is a cached fragment under the product's tag.

use std::sync::LazyLock;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use minijinja::{Environment, Value, context};

use super::{answer, footer, rendered, sidebar, words};
use crate::api::{Id, id, unknown};
use crate::errors::Problem;
use crate::product::{Detail, Review};
use crate::shop::Shop;
use crate::tags;

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    for (name, source) in [
        ("layout.html", include_str!("../../templates/layout.html")),
        ("style.css", include_str!("../../templates/style.css")),
        ("product.html", include_str!("../../templates/product.html")),
        ("detail.html", include_str!("../../templates/detail.html")),
    ] {
        environment.add_template(name, source).unwrap_or_else(|error| unreachable!("{error}"));
    }
    environment
});

/// `GET /products/{id}`
pub async fn page(State(shop): State<Shop>, path: Id) -> Response {
    answer(show(&shop, path).await)
}

async fn show(shop: &Shop, path: Id) -> Result<String, Problem> {
    let begun = Instant::now();
    let id = id(path)?;
    let (product, origin) = shop
        .fragment(("product", id), tags::product(id), move |database| async move {
            let detail = database.detail(id).await?.ok_or_else(|| unknown(id))?;
            render("product.html", of(&detail))
        })
        .await?;
    let (sidebar, aside) = sidebar(shop).await?;

    let path = format!("/api/products/{id}");
    let footer =
        footer(shop, [("Product", origin), ("Sidebar", aside)], &[(&path, "this product")], begun)?;
    let page = context! {
        title => "Products",
        q => "",
        product => Value::from(product),
        sidebar => Value::from(sidebar),
        footer => Value::from(footer),
    };
    render("detail.html", page)
}

fn render(name: &str, context: Value) -> Result<String, Problem> {
    rendered(TEMPLATES.get_template(name).and_then(|template| template.render(context)))
}

fn of(detail: &Detail) -> Value {
    let product = &detail.product;
    let reviews: Vec<Value> = detail.latest_reviews.iter().map(review).collect();
    context! {
        name => &*product.name,
        category => &*product.category,
        description => &*detail.description,
        price => words::price(product.price_cents),
        stock => (product.stock > 0).then(|| words::thousands(product.stock)),
        added => words::day(&product.created_at),
        rating => words::stars(product),
        count => words::thousands(product.reviews),
        reviews,
    }
}

fn review(review: &Review) -> Value {
    let stars = "★".repeat(usize::try_from(review.stars).unwrap_or_default().min(5));
    context! { stars, text => &*review.text, day => words::day(&review.created_at) }
}
