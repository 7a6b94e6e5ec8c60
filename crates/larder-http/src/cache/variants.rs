//! What tells the variants of one URL apart.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use larder_http_rules::cookies::{self, CookieValue};
use larder_http_rules::vary::{self, Selected};
use larder_http_rules::{CredentialRule, Policy, Reason};
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::RequestHead;
use crate::mark::{Compute, ComputedBy};

/// The inputs that one response varied on: sorted and without repetition, so that equal lists are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) headers: Vec<HeaderName>,
    pub(super) cookies: Vec<Box<str>>,
    pub(super) values: Vec<Box<str>>,
}

/// A request's values for a list, framed; up to 128 bytes on the stack.
pub(super) type Selector = SmallVec<[u8; 128]>;

impl List {
    pub(super) fn normalise(&mut self) {
        self.headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        self.headers.dedup();
        self.cookies.sort_unstable();
        self.cookies.dedup();
        self.values.sort_unstable();
        self.values.dedup();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty() && self.values.is_empty()
    }

    /// The route's rule for credentials, with the cookies of this list declared; `None` when that changes nothing.
    pub(super) fn rule(&self, route: &CredentialRule) -> Option<CredentialRule> {
        let declared = &route.keyed_cookies;
        let undeclared = self.cookies.iter().filter(|name| !declared.contains(name));
        undeclared
            .fold(None, |rule, name| Some(rule.unwrap_or_else(|| route.clone()).keyed_cookie(name)))
    }

    /// The fields by which a request is told apart, as it sent them; `None` where cookies or computed values count too,
    /// where a field came in several lines, and where they are long.
    pub(super) fn verbatim(&self, headers: &HeaderMap) -> Option<Box<[Option<HeaderValue>]>> {
        if !self.cookies.is_empty() || !self.values.is_empty() {
            return None;
        }
        let mut length = 0;
        let one = |name| {
            let mut lines = headers.get_all(name).iter();
            let first = lines.next();
            length += first.map_or(0, HeaderValue::len);
            if lines.next().is_some() || length > 512 {
                return None;
            }
            // Copied, since a value may hold on to the whole buffer of a connection.
            first
                .map(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
                .map_or(Some(None), |copy| copy.map(Some))
        };
        self.headers.iter().map(one).collect()
    }

    /// Whether a request sends the same fields as the one that these are of.
    pub(super) fn sends(&self, verbatim: &[Option<HeaderValue>], headers: &HeaderMap) -> bool {
        self.headers.iter().zip(verbatim).all(|(name, value)| {
            let mut lines = headers.get_all(name).iter();
            lines.next() == value.as_ref() && lines.next().is_none()
        })
    }

    /// A request's values. Equal selectors of one list mean requests that the list does not tell apart.
    pub(super) fn select(
        &self,
        policy: &Policy,
        head: RequestHead<'_>,
        computed: &Computed,
    ) -> Result<Selector, Reason> {
        let mut selector = Selector::new();
        let mut long = Selected::Short;
        if !self.headers.is_empty() {
            let mut out = |bytes: &[u8]| selector.extend_from_slice(bytes);
            long = vary::select(policy, &self.headers, head.headers(), &mut out);
        }
        self.select_others(selector, long, head, computed)
    }

    /// The same with that language in place of what the request accepts.
    pub(super) fn select_by_language(
        &self,
        policy: &Policy,
        head: RequestHead<'_>,
        computed: &Computed,
        language: &[u8],
    ) -> Result<Selector, Reason> {
        let mut selector = Selector::new();
        let mut out = |bytes: &[u8]| selector.extend_from_slice(bytes);
        let names = &self.headers;
        let long = vary::select_by_language(policy, names, head.headers(), language, &mut out);
        self.select_others(selector, long, head, computed)
    }

    fn select_others(
        &self,
        mut selector: Selector,
        long: Selected,
        head: RequestHead<'_>,
        computed: &Computed,
    ) -> Result<Selector, Reason> {
        for name in &self.cookies {
            match cookies::value(head.headers(), name) {
                CookieValue::Absent => selector.push(0),
                CookieValue::One(value) => frame(&mut selector, value),
                CookieValue::Several => return Err(Reason::AmbiguousCookie),
            }
        }
        for name in &self.values {
            // Not known on this node yet: the handler's response will tell it.
            let compute = computed.get(name).ok_or(Reason::VariantUnknown)?;
            match compute(head) {
                None => selector.push(0),
                Some(value) => frame(&mut selector, value.as_bytes()),
            }
        }
        // Clients choose these values; what is kept of them is bounded.
        if long == Selected::Long || selector.len() > 1024 {
            let digest = blake3::hash(&selector);
            selector.clear();
            selector.extend_from_slice(b"blake3");
            selector.extend_from_slice(digest.as_bytes());
        }
        Ok(selector)
    }
}

fn frame(selector: &mut Selector, value: &[u8]) {
    selector.push(1);
    selector.extend_from_slice(&(value.len() as u32).to_be_bytes());
    selector.extend_from_slice(value);
}

/// The computed inputs that this node has met, by name.
#[derive(Default)]
pub(super) struct Computed(RwLock<Vec<(Box<str>, Compute)>>);

impl Computed {
    fn get(&self, name: &str) -> Option<Compute> {
        let known = self.0.read();
        known.iter().find(|(known, _)| **known == *name).map(|(_, compute)| compute.clone())
    }

    /// Takes note of an input. False when another one already has its name: two under one name could mix variants.
    pub(super) fn learn(&self, input: &ComputedBy) -> bool {
        let mut known = self.0.write();
        match known.iter().find(|(name, _)| *name == input.name) {
            Some((_, compute)) => Arc::ptr_eq(compute, &input.compute),
            None => {
                known.push((input.name.clone(), input.compute.clone()));
                true
            }
        }
    }
}
