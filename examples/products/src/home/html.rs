//! The page's HTML. Whatever comes from outside goes through `escape`.

use std::borrow::Cow;
use std::fmt::Write;

use crate::api::encoded;
use crate::database::Sidebar;
use crate::errors::Problem;
use crate::product::{PER_PAGE, Product, Slice};
use crate::query::{Query, last_page};
use crate::shop::Origin;

const STYLE: &str = include_str!("style.css");

/// How the page was made.
pub(super) struct Footer {
    pub(super) cached: bool,
    pub(super) table: Origin,
    pub(super) sidebar: Origin,
    pub(super) milliseconds: f64,
}

pub(super) fn page(query: &Query, slice: &Slice, sidebar: &str, footer: &Footer) -> String {
    let mut html = String::with_capacity(32 * 1024);
    head(&mut html, query.q.as_deref().unwrap_or_default());
    html.push_str("<div class=\"columns\"><main>");
    heading(&mut html, query, slice);
    table(&mut html, &slice.products);
    pages(&mut html, query, last_page(slice.count));
    html.push_str("</main>");
    html.push_str(sidebar);
    html.push_str("</div>");
    foot(&mut html, footer);
    html
}

pub(super) fn problem(problem: &Problem) -> String {
    let mut html = String::new();
    head(&mut html, "");
    put(
        &mut html,
        format_args!(
            "<main class=\"problem\"><h1>{}</h1><p>{}</p><p><a href=\"/\">All products</a></p></main></body></html>",
            escape(&problem.error),
            escape(&problem.hint)
        ),
    );
    html
}

pub(super) fn sidebar(sidebar: &Sidebar) -> String {
    let mut html = String::from("<aside><section><h2>Best rated</h2><ol class=\"best\">");
    for product in &sidebar.best {
        put(
            &mut html,
            format_args!(
                "<li><a href=\"/api/products/{}\">{}</a><span>{} · {}</span></li>",
                product.id,
                escape(&product.name),
                stars(product),
                price(product.price_cents)
            ),
        );
    }
    html.push_str(
        "</ol></section><section><h2>Categories</h2><table class=\"categories\"><thead><tr><th>Category</th>\
         <th class=\"number\">Products</th><th class=\"number\">From</th></tr></thead><tbody>",
    );
    for category in &sidebar.categories {
        put(
            &mut html,
            format_args!(
                "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                escape(&category.name),
                thousands(category.products),
                price(category.cheapest_cents)
            ),
        );
    }
    html.push_str("</tbody></table></section></aside>");
    html
}

fn head(html: &mut String, q: &str) {
    put(
        html,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>Products</title>\
             <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>\
             <header><a class=\"brand\" href=\"/\"><span aria-hidden=\"true\"></span>Products</a>\
             <form action=\"/\" role=\"search\"><input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"100\" \
             placeholder=\"Search, for instance teapot\" aria-label=\"Search products\"><button>Search</button></form>\
             </header>",
            escape(q)
        ),
    );
}

fn heading(html: &mut String, query: &Query, slice: &Slice) {
    let first = query.offset() + 1;
    let last = query.offset() + i64::try_from(slice.products.len()).unwrap_or(PER_PAGE);
    let range = match slice.count {
        0 => "Nothing found".to_owned(),
        count => format!("{}–{} of {}", thousands(first), thousands(last), thousands(count)),
    };
    let title = match &query.q {
        None => "Newest products".to_owned(),
        Some(q) => format!("Products with “{}”", escape(q)),
    };
    put(html, format_args!("<div class=\"title\"><h1>{title}</h1><p>{range}</p></div>"));
}

fn table(html: &mut String, products: &[Product]) {
    if products.is_empty() {
        html.push_str(
            "<p class=\"empty\">Try another word, or <a href=\"/\">see all products</a>.</p>",
        );
        return;
    }
    html.push_str(
        "<table class=\"products\"><thead><tr><th>Product</th><th class=\"wide\">Category</th><th class=\"rating\">\
         Rating</th><th class=\"number wide\">Stock</th><th class=\"number wide\">Added</th><th class=\"number\">Price\
         </th></tr></thead><tbody>",
    );
    for product in products {
        let stock = match product.stock {
            0 => "<span class=\"out\">sold out</span>".to_owned(),
            stock => thousands(stock),
        };
        put(
            html,
            format_args!(
                "<tr><td><a href=\"/api/products/{}\">{}</a><small>{}</small></td><td class=\"wide\">{}</td>\
                 <td class=\"rating\">{}</td><td class=\"number wide\">{stock}</td>\
                 <td class=\"number wide\">{}</td><td class=\"number\">{}</td></tr>",
                product.id,
                escape(&product.name),
                escape(&product.category),
                escape(&product.category),
                match product.reviews {
                    0 => "<small>no reviews</small>".to_owned(),
                    reviews => format!("{} <small>({reviews})</small>", stars(product)),
                },
                escape(product.created_at.split('T').next().unwrap_or_default()),
                price(product.price_cents)
            ),
        );
    }
    html.push_str("</tbody></table>");
}

fn pages(html: &mut String, query: &Query, last: i64) {
    if last < 2 {
        return;
    }
    let q = query.q.as_deref().map(|q| format!("&amp;q={}", encoded(q))).unwrap_or_default();
    let page = i64::from(query.page);
    let link = |to: i64, words: &str| match (1..=last).contains(&to) {
        true => format!("<a href=\"/?page={to}{q}\">{words}</a>"),
        false => format!("<span>{words}</span>"),
    };
    put(
        html,
        format_args!(
            "<nav aria-label=\"Pages\">{}<p>Page {} of {}</p>{}</nav>",
            link(page - 1, "← Newer"),
            thousands(page),
            thousands(last),
            link(page + 1, "Older →")
        ),
    );
}

fn foot(html: &mut String, footer: &Footer) {
    let part = |name: &str, origin: Origin| {
        let (class, words) = match (footer.cached, origin) {
            (false, _) => ("computed", "from the database, no cache"),
            (true, Origin::Cached) => ("hit", "from the cache"),
            (true, Origin::Computed) => ("computed", "computed now, cached"),
        };
        format!("<span class=\"{class}\">{name}: {words}</span>")
    };
    put(
        html,
        format_args!(
            "<footer><p>{}{}<span>data in {:.2} ms</span></p><p>JSON: <a href=\"/api/products/\">products</a> \
             <a href=\"/api/products/featured\">featured</a></p></footer></body></html>",
            part("Table", footer.table),
            part("Sidebar", footer.sidebar),
            footer.milliseconds
        ),
    );
}

fn stars(product: &Product) -> String {
    product.rating.map_or_else(|| "–".to_owned(), |rating| format!("★ {rating:.1}"))
}

fn price(cents: i64) -> String {
    format!("€{}.{:02}", thousands(cents / 100), cents % 100)
}

fn thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digit.is_ascii_digit() && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Text as HTML, in elements and in quoted attributes.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

fn put(html: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written.
    let _ = html.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("<b>&\"'"), "&lt;b&gt;&amp;&quot;&#39;");
        assert!(matches!(escape("Teapot"), Cow::Borrowed("Teapot")));
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([5, 999, 1000, 1_234_567].map(thousands), ["5", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 199, 123_456].map(price), ["€0.05", "€1.99", "€1,234.56"]);
    }
}
