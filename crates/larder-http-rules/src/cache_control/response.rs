//! Response directives.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName};

use super::scan::{Argument, Directive, Scan};
use super::smaller;

/// `no-cache` and `private` may name fields: `no-cache="set-cookie"` (RFC 9111 §5.2.2.4, §5.2.2.7).
///
/// The decisions of this crate treat the form with a list like the bare one, as the RFC allows and most
/// caches do; the list is kept for those who render or merge it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FieldList {
    /// The directive is absent.
    #[default]
    Absent,
    /// The directive applies to these fields.
    Fields(Vec<HeaderName>),
    /// The directive applies to the whole response.
    All,
}

impl FieldList {
    /// Whether the directive is there in either form.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !matches!(self, FieldList::Absent)
    }

    /// The union of both; the bare form wins.
    #[must_use]
    pub fn union(self, other: FieldList) -> FieldList {
        match (self, other) {
            (FieldList::All, _) | (_, FieldList::All) => FieldList::All,
            (FieldList::Absent, list) | (list, FieldList::Absent) => list,
            (FieldList::Fields(mut left), FieldList::Fields(right)) => {
                for name in right {
                    if !left.contains(&name) {
                        left.push(name);
                    }
                }
                FieldList::Fields(left)
            }
        }
    }

    fn from_argument(argument: Argument<'_>) -> FieldList {
        let (Argument::Token(list) | Argument::Quoted(list)) = argument else {
            return FieldList::All;
        };
        let mut names = Vec::new();
        for name in list.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            if name.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(name) {
                Ok(name) if !names.contains(&name) => names.push(name),
                Ok(_) => {}
                Err(_) => return FieldList::All, // unreadable: the restrictive reading
            }
        }
        if names.is_empty() { FieldList::All } else { FieldList::Fields(names) }
    }
}

/// What a response's `Cache-Control` says (RFC 9111 §5.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `no-store`
    pub no_store: bool,
    /// `no-cache`
    pub no_cache: FieldList,
    /// `private`
    pub private: FieldList,
    /// `public`
    pub public: bool,
    /// `max-age`; the smaller of duplicates, zero if it cannot be parsed.
    pub max_age: Option<Duration>,
    /// `s-maxage`; the smaller of duplicates, zero if it cannot be parsed.
    pub s_maxage: Option<Duration>,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `no-transform`
    pub no_transform: bool,
    /// `immutable` (RFC 8246)
    pub immutable: bool,
    /// `stale-while-revalidate` (RFC 5861 §3); ignored if it cannot be parsed.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4); ignored if it cannot be parsed.
    pub stale_if_error: Option<Duration>,
    /// These are from a targeted field (RFC 9213), so neither `Cache-Control` nor `Expires` counts.
    pub targeted: bool,
    /// A freshness value could not be parsed, or a quoted string was left open: the response is stale.
    pub invalid: bool,
}

impl ResponseDirectives {
    /// Reads all `Cache-Control` lines.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        let mut open_quote = false;
        for line in headers.get_all(CACHE_CONTROL) {
            let mut scan = Scan::new(line.as_bytes());
            for directive in scan.by_ref() {
                said.apply(&directive);
            }
            open_quote |= scan.malformed();
        }
        if open_quote {
            said.distrust();
        }
        said
    }

    /// What a cache that is addressed by these targeted fields (RFC 9213) is told: the first of them that is a
    /// structured dictionary and not empty decides alone; without one, `Cache-Control` does.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderName, header::CACHE_CONTROL};
    /// use larder_http_rules::cache_control::ResponseDirectives;
    /// use std::time::Duration;
    ///
    /// let cdn = HeaderName::from_static("cdn-cache-control");
    /// let mut headers = HeaderMap::new();
    /// headers.insert(CACHE_CONTROL, "no-store".parse().unwrap());
    /// headers.insert(&cdn, "max-age=60".parse().unwrap());
    /// let said = ResponseDirectives::targeted(&[cdn], &headers);
    /// assert_eq!((said.max_age, said.no_store), (Some(Duration::from_secs(60)), false));
    /// ```
    #[must_use]
    pub fn targeted(fields: &[HeaderName], headers: &HeaderMap) -> Self {
        super::targeted::read(fields, headers).unwrap_or_else(|| Self::from_headers(headers))
    }

    /// Makes the response stale, because the field cannot be read reliably.
    pub(super) fn distrust(&mut self) {
        self.invalid = true;
        self.max_age = Some(Duration::ZERO);
        self.s_maxage = self.s_maxage.map(|_| Duration::ZERO);
    }

    /// Whether stale use is forbidden by `must-revalidate` or `proxy-revalidate`.
    #[must_use]
    pub fn revalidate(&self, shared: bool) -> bool {
        self.must_revalidate || (shared && self.proxy_revalidate)
    }

    /// Whether this was a directive of ours.
    pub(super) fn apply(&mut self, directive: &Directive<'_>) -> bool {
        let name = directive.name;
        // the length first: most comparisons end there
        match name.len() {
            6 if directive.is("public") => self.public = true,
            7 if directive.is("private") => {
                let list = FieldList::from_argument(directive.argument);
                self.private = std::mem::take(&mut self.private).union(list);
            }
            7 if directive.is("max-age") => self.max_age = self.freshness(self.max_age, directive),
            8 if directive.is("no-store") => self.no_store = true,
            8 if directive.is("no-cache") => {
                let list = FieldList::from_argument(directive.argument);
                self.no_cache = std::mem::take(&mut self.no_cache).union(list);
            }
            8 if directive.is("s-maxage") => {
                self.s_maxage = self.freshness(self.s_maxage, directive);
            }
            9 if directive.is("immutable") => self.immutable = true,
            12 if directive.is("no-transform") => self.no_transform = true,
            14 if directive.is("stale-if-error") => {
                let window = directive.seconds().unwrap_or_default();
                self.stale_if_error = smaller(self.stale_if_error, window);
            }
            15 if directive.is("must-revalidate") => self.must_revalidate = true,
            15 if directive.is("must-understand") => self.must_understand = true,
            16 if directive.is("proxy-revalidate") => self.proxy_revalidate = true,
            22 if directive.is("stale-while-revalidate") => {
                let window = directive.seconds().unwrap_or_default();
                self.stale_while_revalidate = smaller(self.stale_while_revalidate, window);
            }
            _ => return false,
        }
        true
    }

    fn freshness(&mut self, old: Option<Duration>, directive: &Directive<'_>) -> Option<Duration> {
        let seconds = directive.seconds();
        self.invalid |= seconds.is_none();
        smaller(old, seconds.unwrap_or_default())
    }
}
