//! Age (RFC 9111 §4.2.3, §5.1): how old a response was when it came, and how old it is now.
//!
//! ```
//! use http::{HeaderMap, header::AGE};
//! use larder_http_rules::age;
//! use std::time::{Duration, SystemTime};
//!
//! let mut headers = HeaderMap::new();
//! headers.insert(AGE, "30".parse().unwrap());
//! let asked = SystemTime::now();
//! let answered = asked + Duration::from_secs(2);
//! let initial = age::initial_age(&headers, asked, answered, true);
//! assert_eq!(initial, Duration::from_secs(32));
//! assert_eq!(age::current_age(initial, Duration::from_secs(5)), Duration::from_secs(37));
//! ```

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, HeaderMap};

use crate::cache_control::delta_seconds;
use crate::date;

/// The `Age` field: the first member of the first line, digits only; anything else is ignored.
///
/// Values saturate at 2^31 seconds. A parameter after `;` is cut off, which errs towards older.
#[must_use]
pub fn parse(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(AGE)?.as_bytes();
    let first = line.split(|&b| b == b',' || b == b';').next()?;
    delta_seconds(first.trim_ascii())
}

/// How old the response was when it had arrived: the larger of its apparent age (by `Date`) and its
/// `Age` plus the time the exchange took. With `apparent` off the `Date` is left out, for origins whose
/// clocks cannot be trusted.
#[must_use]
pub fn initial_age(
    headers: &HeaderMap,
    request_time: SystemTime,
    response_time: SystemTime,
    apparent: bool,
) -> Duration {
    let delay = since(response_time, request_time);
    let corrected = parse(headers).unwrap_or_default().saturating_add(delay);
    if !apparent {
        return corrected;
    }
    // `Date` tells no more than the second, and what it leaves out is no age.
    let apparent = |sent| Duration::from_secs(since(response_time, sent).as_secs());
    let sent = date::parse_field(headers, DATE, response_time);
    corrected.max(sent.map_or(Duration::ZERO, apparent))
}

/// The age after `resident` time in the store.
#[must_use]
pub fn current_age(initial: Duration, resident: Duration) -> Duration {
    initial.saturating_add(resident)
}

/// `later - earlier`, zero when the clock went backwards.
pub(crate) fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}
