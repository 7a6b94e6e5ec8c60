//! Numbers and days, as people read them.

use crate::product::Product;

pub(super) fn stars(product: &Product) -> String {
    product.rating.map_or_else(|| "–".to_owned(), |rating| format!("★ {rating:.1}"))
}

pub(super) fn price(cents: i64) -> String {
    format!("€{}.{:02}", thousands(cents / 100), cents % 100)
}

/// The day of `2025-03-01T12:00:00Z`.
pub(super) fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or_default()
}

pub(super) fn thousands(number: i64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([5, 999, 1000, 1_234_567].map(thousands), ["5", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 199, 123_456].map(price), ["€0.05", "€1.99", "€1,234.56"]);
        assert_eq!(day("2025-03-01T12:00:00Z"), "2025-03-01");
    }
}
