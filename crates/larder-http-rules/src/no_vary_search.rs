//! `No-Vary-Search`: a response says which parts of its URL's query it does not depend on (the IETF's draft
//! `draft-ietf-httpbis-no-vary-search`).
//!
//! ```
//! use http::HeaderMap;
//! use larder_http_rules::no_vary_search::NoVarySearch;
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("no-vary-search", r#"key-order, params=("utm_source" "ref")"#.parse().unwrap());
//! let rule = NoVarySearch::of(&headers).unwrap();
//! assert_eq!(rule.canonical(Some("b=2&a=1&ref=mail")), rule.canonical(Some("a=1&b=2")));
//! assert_ne!(rule.canonical(Some("a=1&b=3")), rule.canonical(Some("a=1&b=2")));
//! ```

use std::fmt::Write;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use crate::query::decoded;

/// The field's name.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// What of a query a response does not depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoVarySearch {
    params: Params,
    order_counts: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Params {
    // All count but these.
    Except(Vec<Vec<u8>>),
    // None counts but these.
    Only(Vec<Vec<u8>>),
}

impl NoVarySearch {
    /// What a response says. `None` where it says nothing, says what changes nothing, or says it in a form that is
    /// not valid: then all of the query counts.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(NO_VARY_SEARCH).iter();
        let mut joined = lines.next()?.as_bytes().to_vec();
        for line in lines {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(line.as_bytes());
        }
        let members = Parser::new(&joined).parse::<Dictionary>().ok()?;
        let except = members.get("except");
        let params = match members.get("params") {
            Some(ListEntry::InnerList(list)) if except.is_none() => Params::Except(names(list)?),
            Some(ListEntry::Item(item)) => match item.bare_item {
                BareItem::Boolean(true) => match except {
                    None => Params::Only(Vec::new()),
                    Some(ListEntry::InnerList(list)) => Params::Only(names(list)?),
                    Some(ListEntry::Item(_)) => return None,
                },
                BareItem::Boolean(false) if except.is_none() => Params::Except(Vec::new()),
                _ => return None,
            },
            None if except.is_none() => Params::Except(Vec::new()),
            _ => return None,
        };
        let order_counts = match members.get("key-order") {
            None => true,
            Some(ListEntry::Item(item)) => match item.bare_item {
                BareItem::Boolean(free) => !free,
                _ => return None,
            },
            Some(ListEntry::InnerList(_)) => return None,
        };
        let idle = order_counts && params == Params::Except(Vec::new());
        (!idle).then_some(Self { params, order_counts })
    }

    /// One text for all queries that the response does not tell apart, in a form that is itself one of them. `None`
    /// where nothing of it counts.
    #[must_use]
    pub fn canonical(&self, query: Option<&str>) -> Option<String> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (form(name), form(value))
            })
            .filter(|(name, _)| match &self.params {
                Params::Except(names) => !names.contains(name),
                Params::Only(names) => names.contains(name),
            })
            .collect();
        if !self.order_counts {
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let mut text = String::new();
        for (name, value) in &pairs {
            if !text.is_empty() {
                text.push('&');
            }
            encode(&mut text, name);
            text.push('=');
            encode(&mut text, value);
        }
        (!pairs.is_empty()).then_some(text)
    }
}

fn names(list: &InnerList) -> Option<Vec<Vec<u8>>> {
    let name = |item: &sfv::Item| match &item.bare_item {
        BareItem::String(name) => Some(form(name.as_str())),
        _ => None,
    };
    list.items.iter().map(name).collect()
}

// `application/x-www-form-urlencoded`. Bytes stay bytes: what is no UTF-8 is not taken for something else that is none.
fn form(text: &str) -> Vec<u8> {
    let spaced: Vec<u8> = text.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
    decoded(&spaced).into_owned()
}

fn encode(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
