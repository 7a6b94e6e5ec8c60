//! `Cache-Control` (RFC 9111 §5.2, RFC 5861, RFC 8246): reading what was said, building what to say.
//!
//! * [`ResponseDirectives`] and [`RequestDirectives`] are what a decision needs, read from all lines of
//!   the field. Whatever is unclear is read in the restrictive direction: of duplicates the smaller
//!   counts, a freshness value that cannot be parsed is a lifetime of zero, an unterminated quoted
//!   string hides nothing.
//! * [`CacheControl`] is a value to build, merge with what a handler already said, and render. Merging
//!   never weakens what was there.
//!
//! ```
//! use http::{HeaderMap, header::CACHE_CONTROL};
//! use larder_http_rules::cache_control::ResponseDirectives;
//! use std::time::Duration;
//!
//! let mut headers = HeaderMap::new();
//! headers.append(CACHE_CONTROL, "extension=\"max-age=1\", Max-Age=60".parse().unwrap());
//! headers.append(CACHE_CONTROL, "MUST-REVALIDATE".parse().unwrap());
//! let said = ResponseDirectives::from_headers(&headers);
//! assert_eq!(said.max_age, Some(Duration::from_secs(60)));
//! assert!(said.must_revalidate);
//! ```

mod request;
mod response;
mod scan;
mod targeted;
mod value;

pub use request::{MaxStale, RequestDirectives};
pub use response::{FieldList, ResponseDirectives};
pub use value::CacheControl;

pub(crate) use scan::{closing_quote, delta_seconds};

use std::time::Duration;

/// The largest delta-seconds that is told apart; larger values mean the same (RFC 9111 §1.2.2).
pub const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

pub(crate) fn smaller(current: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(current.map_or(new, |old| old.min(new)))
}
