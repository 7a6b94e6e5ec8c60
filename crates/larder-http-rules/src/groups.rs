//! Cache groups (RFC 9875): responses of one origin that change together.
//!
//! ```
//! use http::HeaderMap;
//! use larder_http_rules::groups;
//!
//! let mut response = HeaderMap::new();
//! response.insert("cache-groups", r#""prices", "shop";a=1"#.parse().unwrap());
//! assert_eq!(groups::of(&response), ["prices", "shop"]);
//! ```

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

/// Names the groups that a response belongs to (RFC 9875 §2).
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// Names the groups that are out of date, in an answer to an unsafe method (RFC 9875 §3).
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");

/// More groups than this are not looked at, as RFC 9875 §2 allows.
pub const MOST: usize = 32;

/// Longer names than this are not looked at.
pub const LONGEST: usize = 128;

/// The groups that a response belongs to; none where the field is no list.
#[must_use]
pub fn of(response: &HeaderMap) -> Vec<String> {
    strings(response, &CACHE_GROUPS)
}

/// The groups that an answer to an unsafe method makes out of date; none where the field is no list.
#[must_use]
pub fn invalidated_by(response: &HeaderMap) -> Vec<String> {
    strings(response, &CACHE_GROUP_INVALIDATION)
}

// Members that are no strings are ignored, and so are parameters.
fn strings(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    if !headers.contains_key(name) {
        return Vec::new();
    }
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    let joined = lines.join(&b", "[..]);
    let Ok(members) = Parser::new(&joined).parse::<List>() else { return Vec::new() };
    let string = |member: ListEntry| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(name) => Some(name.as_str().to_owned()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    let short = |name: &String| !name.is_empty() && name.len() <= LONGEST;
    members.into_iter().filter_map(string).filter(short).take(MOST).collect()
}
