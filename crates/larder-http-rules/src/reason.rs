//! Why a decision came out as it did.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $code:literal $section:literal $text:literal;)*) => {
        /// Why something was stored, not stored, reused or passed by.
        ///
        /// Every decision of this crate carries one of these. [`Reason::as_str`] is a stable code for
        /// metrics labels and for the `detail` of `Cache-Status` (RFC 9211 §2.8);
        /// [`Display`](fmt::Display) is a sentence for the developer who wonders why there is no hit.
        ///
        /// ```
        /// use larder_http_rules::Reason;
        ///
        /// assert_eq!(Reason::SetCookie.as_str(), "set-cookie");
        /// assert!(Reason::CookieNotShared.to_string().contains("Cookie"));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $text] $name,)*
        }

        impl Reason {
            /// Every reason there is, for documentation pages and metrics that start at zero.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The stable kebab-case code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            /// Where the rule is from; `None` for this project's own.
            ///
            /// ```
            /// use larder_http_rules::Reason;
            ///
            /// assert_eq!(Reason::NoStore.section(), Some("RFC 9111 §5.2.2.5"));
            /// assert_eq!(Reason::SessionTouched.section(), None);
            /// ```
            #[must_use]
            pub const fn section(self) -> Option<&'static str> {
                let section = match self { $(Reason::$name => $section,)* };
                if section.is_empty() { None } else { Some(section) }
            }

            const fn sentence(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    // the good ends
    Stored "stored" "RFC 9111 §3" "the response was stored";
    Fresh "fresh" "RFC 9111 §4.2" "the stored response is fresh";
    StaleWhileRevalidate "stale-while-revalidate" "RFC 5861 §3" "the stored response is stale, within its stale-while-revalidate window, and is being refreshed in the background";
    MaxStale "max-stale" "RFC 9111 §5.2.1.2" "the stored response is stale and the client's max-stale accepts that";
    StaleIfError "stale-if-error" "RFC 5861 §4" "the handler failed and the stored response is within its stale-if-error window";

    // requests that never reach the store
    Method "method" "RFC 9111 §3" "only GET and HEAD requests use the cache, and QUERY behind a QueryLayer";
    QueryContent "query-content" "RFC 10008 §2.7" "the content of a QUERY is part of its key, and was not read: put QueryLayer outside of CacheLayer; with it, the content was larger than its limit, slower, or broken";
    UnsafeMethod "unsafe-method" "RFC 9111 §4.4" "the method may change state: the request is passed on, and a non-error answer invalidates the stored responses of this URI";
    HeadResponse "head-response" "RFC 9110 §9.3.2" "an answer to HEAD has no body, so it never creates an entry that a GET could use";
    RequestContent "request-content" "RFC 9110 §9.3.1" "the request has content, which is not part of the cache key; send such requests without content to have them cached";
    RangeRequest "range-request" "RFC 9111 §3.3" "an answer to a range request that is neither the whole nor one part of it is nobody else's";
    RangeNotStored "range-not-stored" "RFC 9111 §3.4" "what is stored is a part, and not all of what is asked for";
    Upgrade "upgrade" "RFC 9110 §7.8" "the request asks to upgrade the connection";
    Precondition "precondition" "RFC 9110 §13.2.1" "If-Match and If-Unmodified-Since are for the handler to evaluate, never for a cache";
    OverrideHeader "override-header" "" "the request carries a header that can change the URL, host or method the handler sees (such as X-Original-URL); declare it trusted to make it part of the key, or let the proxy in front remove it";
    OverrideTooLong "override-too-long" "" "a forwarding header that is part of the cache key is longer than 256 bytes";
    KeyTooLong "key-too-long" "" "a request value that is part of the cache key is too long";
    NoAuthority "no-authority" "RFC 9110 §7.2" "the request names no host, and a key without a host could be shared between sites";
    AuthorityMismatch "authority-mismatch" "RFC 9112 §3.2" "the request target and the Host header name different hosts";
    SeveralHosts "several-hosts" "RFC 9112 §3.2" "the request has several Host lines";
    UserInfo "user-info" "RFC 9110 §4.2.4" "the request's authority contains user information";
    InvalidAuthority "invalid-authority" "RFC 3986 §3.2" "the request's host or port is not valid";
    UnsupportedScheme "unsupported-scheme" "RFC 9110 §4.2" "only http and https requests are cached";
    AmbiguousCookie "ambiguous-cookie" "" "a cookie that is part of the cache key occurs more than once, so it is unclear which one the handler reads";

    // what the client asked for
    RequestNoStore "request-no-store" "RFC 9111 §5.2.1.5" "the client sent Cache-Control: no-store";
    RequestNoCache "request-no-cache" "RFC 9111 §5.2.1.4" "the client sent Cache-Control: no-cache (or Pragma: no-cache)";
    RequestMaxAge "request-max-age" "RFC 9111 §5.2.1.1" "the stored response is older than the client's max-age allows";
    RequestMinFresh "request-min-fresh" "RFC 9111 §5.2.1.3" "the stored response will not stay fresh for as long as the client's min-fresh asks";
    OnlyIfCached "only-if-cached" "RFC 9111 §5.2.1.7" "the client sent only-if-cached and nothing usable is stored: the answer is 504";

    // credentials
    AuthorizationNotShared "authorization-not-shared" "RFC 9111 §3.5" "the request carries Authorization and neither the response (public or s-maxage) nor the route declares it shared";
    CookieNotShared "cookie-not-shared" "" "the request carries a Cookie and neither the response (public or s-maxage) nor the route declares it shared; add Cache-Control: public, or .shared_despite_cookies(), .ignore_cookies([…]) or .cookie(…) to the route";
    CredentialNotShared "credential-not-shared" "" "the request carries a credential header (such as X-Api-Key) and neither the response (public or s-maxage) nor the route declares it shared";
    SessionTouched "session-touched" "" "the handler used the session, so the response belongs to one visitor";

    // what the store has
    Miss "miss" "RFC 9111 §4" "nothing is stored for this URL";
    VariantMiss "variant-miss" "RFC 9111 §4.1" "no stored variant of this URL was made for a request like this one";
    VariantUnknown "variant-unknown" "RFC 9111 §4.1" "the URL varies on a value that this node does not know how to compute yet; the handler's response tells it";
    StoreUnavailable "store-unavailable" "" "the cache's store could not be asked";
    PassMark "pass-mark" "" "an earlier response of this URL could not be stored, so nobody waits for this one (hit-for-miss)";
    TooManyWait "too-many-wait" "" "as many requests as may wait for another one's fill";
    TooManyFills "too-many-fills" "" "as many responses as may be made for the cache at once (max_fills)";
    WaitTooLong "wait-too-long" "" "another request's fill took longer than this one waits";
    Shadow "shadow" "" "the cache runs in the shadow of the handler, and answers nobody";
    NotAdmitted "not-admitted" "" "the URL was not asked for often enough yet to be stored (admit_after)";
    FillFailed "fill-failed" "" "another request's fill, which this one waited for, came to nothing";

    // responses that are not storable
    HandlerDeclined "handler-declined" "" "the handler said that its response is not to be stored";
    BodyTooLarge "body-too-large" "" "the body is larger than what is stored; raise max_body_bytes if it should be";
    HeadTooLarge "head-too-large" "" "the response's header fields are larger than what is stored";
    Endless "endless" "" "the response is a stream that has no end (text/event-stream, multipart/x-mixed-replace)";
    InvalidTag "invalid-tag" "" "the handler gave a tag that cannot be used: empty, or longer than 256 bytes";
    TooManyTags "too-many-tags" "" "the response carries more than 512 tags, those of what the handler read from the cache included; read with larder::untracked what may change without it";
    QueryLearned "query-learned" "" "the response says by No-Vary-Search which parts of its query do not matter, or does not say so any longer; the next one is stored";
    VaryConflict "vary-conflict" "" "two different computed inputs of VaryLayer have one name; give each its own";
    VaryMisplaced "vary-misplaced" "" "a computed input of VaryLayer differs between where CacheLayer and where VaryLayer stands: something between the two makes it; put CacheLayer inside of that";
    NoStore "no-store" "RFC 9111 §5.2.2.5" "the response says Cache-Control: no-store";
    Private "private" "RFC 9111 §5.2.2.7" "the response says Cache-Control: private";
    NoCacheWithoutValidator "no-cache-without-validator" "RFC 9111 §5.2.2.4" "the response says no-cache and has neither ETag nor Last-Modified, so it could never be reused; add a validator or drop no-cache";
    SetCookie "set-cookie" "" "the response sets a cookie, which would be replayed to everybody";
    VaryAny "vary-any" "RFC 9111 §4.1" "the response says Vary: * (or its Vary cannot be parsed), so no other request can match it";
    VaryCredential "vary-credential" "" "the response's Vary names a credential (Authorization, Cookie …); key the route on the one value that matters, for example .cookie(\"theme\")";
    Status "status" "RFC 9111 §3" "responses with this status are never stored under this policy";
    StatusNeedsFreshness "status-needs-freshness" "RFC 9111 §3" "a response with this status is stored only if its own header gives it a freshness lifetime, or the route names the status";
    StatusNotOptedIn "status-not-opted-in" "" "a response with this status is stored only if the route names the status";
    PartialContent "partial-content" "RFC 9111 §3.3" "a 206 response is stored only if it says which bytes of how many it has, and the policy stores parts";
    NotModified "not-modified" "RFC 9111 §4.3.4" "a 304 response is no entry of its own";
    RedirectWithoutLocation "redirect-without-location" "RFC 9110 §10.2.2" "a redirect without Location is broken and is not stored";
    MustUnderstand "must-understand" "RFC 9111 §5.2.2.3" "the response says must-understand and this cache does not know its status";
    NoFreshness "no-freshness" "RFC 9111 §4.2.1" "nothing says how long the response is fresh; add Cache-Control: max-age=…, or a ttl to the route";
    InvalidFreshness "invalid-freshness" "RFC 9111 §4.2.1" "the response's max-age, s-maxage or Expires cannot be parsed, so it is stale from the start";
    ZeroLifetime "zero-lifetime" "RFC 9111 §4.2" "the response is stale from the start (max-age=0, s-maxage=0 or Expires in the past) and has no validator";
    AlreadyStale "already-stale" "RFC 9111 §4.2.3" "the response's Age is not below its freshness lifetime and it has no validator";
    ContentCodingUnkeyed "content-coding-unkeyed" "" "the response varies on Accept-Encoding and uses a content coding this cache does not distinguish";
    PostContentLocation "post-content-location" "RFC 9110 §9.3.3" "an answer to POST is stored only with explicit freshness and a Content-Location equal to the request target";

    // stored responses that are not usable as they are
    NoCache "no-cache" "RFC 9111 §5.2.2.4" "the stored response must be validated before every use (no-cache)";
    MustRevalidate "must-revalidate" "RFC 9111 §5.2.2.2" "the stored response is stale and forbids stale use (must-revalidate, proxy-revalidate or s-maxage)";
    Expired "expired" "RFC 9111 §4.2" "the stored response is stale";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_kebab_case_tokens() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            let code = reason.as_str();
            assert!(seen.insert(code), "{code} twice");
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!(code.starts_with(|c: char| c.is_ascii_lowercase()), "{code}");
            assert!(reason.to_string().len() > 15);
        }
    }
}
