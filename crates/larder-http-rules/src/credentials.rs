//! Credentials: which inputs say who is asking, and what a route declares about them.
//!
//! A request that carries a credential is answered from, or put into, the shared cache only when the
//! response says `public` or `s-maxage` (RFC 9111 §3.5) or the route says that it may. An empty value
//! counts as absent.
//!
//! ```
//! use http::{HeaderMap, header::COOKIE};
//! use larder_http_rules::credentials::{self, CredentialRule, CredentialState};
//! use larder_http_rules::{Policy, Reason, RequestFacts};
//!
//! let policy = Policy::application();
//! let mut headers = HeaderMap::new();
//! headers.insert(COOKIE, "_ga=1; session=2".parse().unwrap());
//! let facts = RequestFacts::scan(&policy, &headers);
//!
//! let plain = CredentialRule::default();
//! assert_eq!(
//!     credentials::assess(&policy, &plain, facts, &headers),
//!     CredentialState::Undeclared(Reason::CookieNotShared)
//! );
//! let declared = CredentialRule::default().ignore_cookie("_ga*").keyed_cookie("session");
//! assert_eq!(credentials::assess(&policy, &declared, facts, &headers), CredentialState::Declared);
//! ```

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};

use crate::NamePattern;
use crate::cookies::cookies;
use crate::{Policy, Reason, RequestFacts, names};

/// What a route declares about credentials. Everything that is not declared keeps a request out of the
/// shared cache, unless the response itself says `public` or `s-maxage`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialRule {
    /// The route partitions its entries by identity, so every credential is part of the key.
    pub partitioned: bool,
    /// All cookies may differ: the route promises that no cookie changes the answer.
    pub shared_cookies: bool,
    /// Cookies that the caller removes before the handler runs (see [`crate::cookies::remove`]).
    pub ignored_cookies: Vec<NamePattern>,
    /// Cookies whose values the caller puts into the key.
    pub keyed_cookies: Vec<Box<str>>,
    /// Credential headers that are part of the key, removed, or declared without influence.
    pub covered_headers: Vec<HeaderName>,
    /// Names that may stand in `Vary` although they are credentials, because a finer key part stands in
    /// for them; they are left out of the variant selection.
    pub covered_vary: Vec<HeaderName>,
}

impl CredentialRule {
    /// No cookie changes the answer.
    #[must_use]
    pub fn shared_despite_cookies(mut self) -> Self {
        self.shared_cookies = true;
        self
    }

    /// The caller removes the cookies of this name or pattern.
    #[must_use]
    pub fn ignore_cookie(mut self, pattern: impl Into<NamePattern>) -> Self {
        self.ignored_cookies.push(pattern.into());
        self
    }

    /// The cookie of this name is a key part, and `Vary: Cookie` means no more than that.
    #[must_use]
    pub fn keyed_cookie(mut self, name: &str) -> Self {
        self.keyed_cookies.push(name.into());
        if !self.covered_vary.contains(&COOKIE) {
            self.covered_vary.push(COOKIE);
        }
        self
    }

    /// The credential header of this name is covered.
    #[must_use]
    pub fn cover_header(mut self, name: HeaderName) -> Self {
        self.covered_headers.push(name);
        self
    }

    /// Entries are partitioned by identity: all credentials are covered, in requests and in `Vary`.
    #[must_use]
    pub fn partition(mut self) -> Self {
        self.partitioned = true;
        self
    }

    /// Whether `name` in a `Vary` is covered by a finer key part.
    #[must_use]
    pub fn covers_vary(&self, name: &HeaderName) -> bool {
        self.partitioned || self.covered_vary.contains(name)
    }

    fn covers_header(&self, name: &HeaderName) -> bool {
        self.partitioned || self.covered_headers.contains(name)
    }

    fn covers_cookie(&self, name: &[u8]) -> bool {
        self.partitioned
            || self.shared_cookies
            || self.ignored_cookies.iter().any(|pattern| pattern.matches(name))
            || self.keyed_cookies.iter().any(|keyed| keyed.as_bytes() == name)
    }
}

/// What is known of a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialState {
    /// There are none, or only empty ones, or the cache is private.
    Absent,
    /// There are some, and the route covers each.
    Declared,
    /// There is at least one that the route does not cover: only what a response declares shared may be
    /// read or filled.
    Undeclared(Reason),
}

/// Looks at the credentials of a request. Does nothing if `facts` has none; allocates nothing.
#[must_use]
pub fn assess(
    policy: &Policy,
    rule: &CredentialRule,
    facts: RequestFacts,
    headers: &HeaderMap,
) -> CredentialState {
    let flags =
        RequestFacts::AUTHORIZATION.union(RequestFacts::COOKIE).union(RequestFacts::CREDENTIAL);
    if !policy.shared || !facts.any(flags) {
        return CredentialState::Absent;
    }
    let mut state = CredentialState::Absent;
    if has_value(headers, &AUTHORIZATION) {
        if !rule.covers_header(&AUTHORIZATION) {
            return CredentialState::Undeclared(Reason::AuthorizationNotShared);
        }
        state = CredentialState::Declared;
    }
    for (name, _) in cookies(headers) {
        if !rule.covers_cookie(name) && !rule.covers_header(&COOKIE) {
            return CredentialState::Undeclared(Reason::CookieNotShared);
        }
        state = CredentialState::Declared;
    }
    if facts.any(RequestFacts::CREDENTIAL) {
        for name in headers.keys() {
            if !is_other_credential(policy, name) || !has_value(headers, name) {
                continue;
            }
            if !rule.covers_header(name) {
                return CredentialState::Undeclared(Reason::CredentialNotShared);
            }
            state = CredentialState::Declared;
        }
    }
    state
}

/// Whether a header of this name is a credential under the policy.
#[must_use]
pub fn is_credential(policy: &Policy, name: &HeaderName) -> bool {
    *name == AUTHORIZATION || *name == COOKIE || is_other_credential(policy, name)
}

/// The credential headers known besides `Authorization` and `Cookie`.
#[must_use]
pub fn credential_names() -> &'static [&'static str] {
    names::CREDENTIALS
}

fn is_other_credential(policy: &Policy, name: &HeaderName) -> bool {
    let known = names::bits(name.as_str()) & RequestFacts::CREDENTIAL.bits() != 0;
    (policy.other_credentials && known) || policy.extra_credentials.contains(name)
}

fn has_value(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().any(|value| !value.as_bytes().trim_ascii().is_empty())
}
