//! Queries: which parameters of a URL matter.
//!
//! A rule is for a cache *and* for the handler behind it: what it takes away must not reach the handler either, or one
//! client's parameters would decide what others get. So a caller puts what [`QueryRule::apply`] gives in the place of
//! the request's query before anybody looks at it.
//!
//! ```
//! use larder_http_rules::query::QueryRule;
//!
//! let rule = QueryRule::new().ignore(["utm_*", "fbclid"]).sorted();
//! assert_eq!(rule.apply("sort=price&utm_source=mail&page=2").as_deref(), Some("page=2&sort=price"));
//! assert_eq!(rule.apply("utm_source=mail").as_deref(), None);
//!
//! let rule = QueryRule::new().only(["page"]);
//! assert_eq!(rule.apply("page=2&debug=1").as_deref(), Some("page=2"));
//! ```

use std::borrow::Cow;

use crate::NamePattern;

/// Which parameters of a query matter: all, in the order in which they came, unless told otherwise.
///
/// A parameter is what lies between two `&`, its name what lies before the first `=`; names are compared after
/// percent-decoding, with their letter case. Parameters without a character are left out by every rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryRule {
    only: Option<Vec<NamePattern>>,
    ignored: Vec<NamePattern>,
    sorted: bool,
}

impl QueryRule {
    /// All of it matters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these parameters matter. A final `*` matches any ending.
    #[must_use]
    pub fn only<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.only.get_or_insert_default().extend(names.into_iter().map(NamePattern::new));
        self
    }

    /// These parameters do not matter. A final `*` matches any ending.
    #[must_use]
    pub fn ignore<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.ignored.extend(names.into_iter().map(NamePattern::new));
        self
    }

    /// The order of parameters with different names does not matter: they come sorted by name. Those of one name keep
    /// their order.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.sorted = true;
        self
    }

    /// Whether this changes no query at all.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.only.is_none() && self.ignored.is_empty() && !self.sorted
    }

    /// What is left of a query; `None` for nothing. A query that stays as it is is not copied.
    #[must_use]
    pub fn apply<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        if self.is_idle() {
            return Some(Cow::Borrowed(query));
        }
        let all = || query.split('&');
        let order = |a: &str, b: &str| name(a).cmp(&name(b));
        let in_place = all().all(|parameter| self.matters(parameter))
            && (!self.sorted || all().is_sorted_by(|a, b| order(a, b).is_le()));
        if in_place {
            return Some(Cow::Borrowed(query));
        }
        let mut left: Vec<&str> = all().filter(|parameter| self.matters(parameter)).collect();
        if self.sorted {
            left.sort_by(|a, b| order(a, b));
        }
        (!left.is_empty()).then(|| Cow::Owned(left.join("&")))
    }

    fn matters(&self, parameter: &str) -> bool {
        let name = name(parameter);
        let among = |patterns: &[NamePattern]| patterns.iter().any(|one| one.matches(&name));
        !parameter.is_empty() && self.only.as_deref().is_none_or(among) && !among(&self.ignored)
    }
}

fn name(parameter: &str) -> Cow<'_, [u8]> {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    decoded(name.as_bytes())
}

/// With what is percent-encoded decoded; what only looks so is left as it is.
pub(crate) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}
