//! Targeted fields (RFC 9213): directives for one kind of cache alone, as a structured dictionary.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{FieldList, MAX_DELTA, ResponseDirectives};

/// The first of these fields that is there, valid and not empty (RFC 9213 §2.2).
pub(super) fn read(names: &[HeaderName], headers: &HeaderMap) -> Option<ResponseDirectives> {
    names.iter().find_map(|name| {
        let mut joined = Vec::new();
        for line in headers.get_all(name) {
            if !joined.is_empty() {
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(line.as_bytes());
        }
        let members = Parser::new(&joined).parse::<Dictionary>().ok()?;
        (!members.is_empty()).then(|| directives(&members))
    })
}

fn directives(members: &Dictionary) -> ResponseDirectives {
    let mut said = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    for (name, value) in members {
        // What restricts is believed whatever its value is, unless that is false; what allows must be plainly true.
        let restricts = !is(value, false);
        let list = || if restricts { FieldList::All } else { FieldList::Absent };
        match name.as_str() {
            "no-store" => said.no_store = restricts,
            "no-cache" => said.no_cache = list(),
            "private" => said.private = list(),
            "must-revalidate" => said.must_revalidate = restricts,
            "proxy-revalidate" => said.proxy_revalidate = restricts,
            "no-transform" => said.no_transform = restricts,
            "public" => said.public = is(value, true),
            "must-understand" => said.must_understand = is(value, true),
            "immutable" => said.immutable = is(value, true),
            // A value of another type than an integer is as if it were not there (RFC 9213 §2.1).
            "max-age" => said.max_age = seconds(value),
            "s-maxage" => said.s_maxage = seconds(value),
            "stale-while-revalidate" => said.stale_while_revalidate = seconds(value),
            "stale-if-error" => said.stale_if_error = seconds(value),
            _ => {}
        }
    }
    said
}

fn is(value: &ListEntry, wanted: bool) -> bool {
    matches!(value, ListEntry::Item(item) if item.bare_item == BareItem::Boolean(wanted))
}

fn seconds(value: &ListEntry) -> Option<Duration> {
    let ListEntry::Item(item) = value else { return None };
    let BareItem::Integer(seconds) = item.bare_item else { return None };
    // A negative lifetime is over.
    let seconds = u64::try_from(i64::from(seconds)).unwrap_or_default();
    Some(Duration::from_secs(seconds).min(MAX_DELTA))
}
