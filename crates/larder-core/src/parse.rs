//! Durations, sizes and the like as URLs and configuration files write them, the same for every backend.
//!
//! ```
//! use larder_core::parse;
//! use std::time::Duration;
//!
//! assert_eq!(parse::duration("ttl", "250ms")?, Duration::from_millis(250));
//! assert_eq!(parse::size("max_bytes", "64MiB")?, 64 << 20);
//! assert!(parse::size("max_bytes", "64 lots").unwrap_err().to_string().contains("max_bytes"));
//! # Ok::<(), larder_core::Error>(())
//! ```

use std::time::Duration;

use crate::{Error, ErrorKind, Result, Ttl};

/// A [duration], or `forever`.
///
/// # Errors
///
/// [`Configuration`](ErrorKind::Configuration), naming the parameter, for anything else.
pub fn lifetime(parameter: &str, text: &str) -> Result<Ttl> {
    if text == "forever" { Ok(Ttl::Forever) } else { duration(parameter, text).map(Ttl::For) }
}

/// A number with a unit: `250ms`, `5s`, `10m`, `2h` or `30d`.
///
/// # Errors
///
/// [`Configuration`](ErrorKind::Configuration), naming the parameter, for anything else.
pub fn duration(parameter: &str, text: &str) -> Result<Duration> {
    let factor = |unit: &str| match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        "d" => Some(24 * 60 * 60 * 1000),
        _ => None,
    };
    let millis = scaled(text, factor);
    millis.map(Duration::from_millis).ok_or_else(|| {
        wrong(format!("{parameter} is a number with a unit: 250ms, 5s, 10m, 2h or 30d"))
    })
}

/// `true` or `false`.
///
/// # Errors
///
/// [`Configuration`](ErrorKind::Configuration), naming the parameter, for anything else.
pub fn flag(parameter: &str, text: &str) -> Result<bool> {
    text.parse().map_err(|_| wrong(format!("{parameter} is true or false")))
}

/// A number of bytes: `1024`, `512KiB`, `64MiB` or `2GiB`.
///
/// # Errors
///
/// [`Configuration`](ErrorKind::Configuration), naming the parameter, for anything else.
pub fn size(parameter: &str, text: &str) -> Result<u64> {
    let factor = |unit: &str| match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    scaled(text, factor)
        .ok_or_else(|| wrong(format!("{parameter} is a number of bytes: 1024, 512KiB or 64MiB")))
}

fn scaled(text: &str, factor: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    number.parse::<u64>().ok()?.checked_mul(factor(unit)?)
}

fn wrong(words: String) -> Error {
    Error::new(ErrorKind::Configuration, words)
}
