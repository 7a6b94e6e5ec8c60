//! Why a decision came out as it did.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $code:literal $text:literal;)*) => {
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

            const fn sentence(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    // the good ends
    Stored "stored" "the response was stored";
    Fresh "fresh" "the stored response is fresh";
    StaleWhileRevalidate "stale-while-revalidate" "the stored response is stale, within its stale-while-revalidate window, and is being refreshed in the background";
    MaxStale "max-stale" "the stored response is stale and the client's max-stale accepts that";
    StaleIfError "stale-if-error" "the handler failed and the stored response is within its stale-if-error window";

    // requests that never reach the store
    Method "method" "only GET and HEAD requests use the cache";
    UnsafeMethod "unsafe-method" "the method may change state: the request is passed on, and a non-error answer invalidates the stored responses of this URI";
    HeadResponse "head-response" "an answer to HEAD has no body, so it never creates an entry that a GET could use";
    RequestContent "request-content" "the request has content, which is not part of the cache key; send such requests without content to have them cached";
    RangeRequest "range-request" "an answer to a range request that is neither the whole nor one part of it is nobody else's";
    RangeNotStored "range-not-stored" "what is stored is a part, and not all of what is asked for";
    Upgrade "upgrade" "the request asks to upgrade the connection";
    Precondition "precondition" "If-Match and If-Unmodified-Since are for the handler to evaluate, never for a cache";
    OverrideHeader "override-header" "the request carries a header that can change the URL, host or method the handler sees (such as X-Original-URL); declare it trusted to make it part of the key, or let the proxy in front remove it";
    OverrideTooLong "override-too-long" "a forwarding header that is part of the cache key is longer than 256 bytes";
    KeyTooLong "key-too-long" "a request value that is part of the cache key is too long";
    NoAuthority "no-authority" "the request names no host, and a key without a host could be shared between sites";
    AuthorityMismatch "authority-mismatch" "the request target and the Host header name different hosts";
    SeveralHosts "several-hosts" "the request has several Host lines";
    UserInfo "user-info" "the request's authority contains user information";
    InvalidAuthority "invalid-authority" "the request's host or port is not valid";
    UnsupportedScheme "unsupported-scheme" "only http and https requests are cached";
    AmbiguousCookie "ambiguous-cookie" "a cookie that is part of the cache key occurs more than once, so it is unclear which one the handler reads";

    // what the client asked for
    RequestNoStore "request-no-store" "the client sent Cache-Control: no-store";
    RequestNoCache "request-no-cache" "the client sent Cache-Control: no-cache (or Pragma: no-cache)";
    RequestMaxAge "request-max-age" "the stored response is older than the client's max-age allows";
    RequestMinFresh "request-min-fresh" "the stored response will not stay fresh for as long as the client's min-fresh asks";
    OnlyIfCached "only-if-cached" "the client sent only-if-cached and nothing usable is stored: the answer is 504";

    // credentials
    AuthorizationNotShared "authorization-not-shared" "the request carries Authorization and neither the response (public or s-maxage) nor the route declares it shared";
    CookieNotShared "cookie-not-shared" "the request carries a Cookie and neither the response (public or s-maxage) nor the route declares it shared; add Cache-Control: public, or .shared_despite_cookies(), .ignore_cookies([…]) or .cookie(…) to the route";
    CredentialNotShared "credential-not-shared" "the request carries a credential header (such as X-Api-Key) and neither the response (public or s-maxage) nor the route declares it shared";
    SessionTouched "session-touched" "the handler used the session, so the response belongs to one visitor";

    // what the store has
    Miss "miss" "nothing is stored for this URL";
    VariantMiss "variant-miss" "no stored variant of this URL was made for a request like this one";
    VariantUnknown "variant-unknown" "the URL varies on a value that this node does not know how to compute yet; the handler's response tells it";
    StoreUnavailable "store-unavailable" "the cache's store could not be asked";
    PassMark "pass-mark" "an earlier response of this URL could not be stored, so nobody waits for this one (hit-for-miss)";
    WaitTooLong "wait-too-long" "another request's fill took longer than this one waits";
    FillFailed "fill-failed" "another request's fill, which this one waited for, came to nothing";

    // responses that are not storable
    HandlerDeclined "handler-declined" "the handler said that its response is not to be stored";
    BodyTooLarge "body-too-large" "the body is larger than what is stored; raise max_body_bytes if it should be";
    HeadTooLarge "head-too-large" "the response's header fields are larger than what is stored";
    InvalidTag "invalid-tag" "the handler gave a tag that cannot be used: empty, or longer than 256 bytes";
    TooManyTags "too-many-tags" "the response carries more than 512 tags, those of what the handler read from the cache included; read with larder::untracked what may change without it";
    QueryLearned "query-learned" "the response says by No-Vary-Search which parts of its query do not matter, or does not say so any longer; the next one is stored";
    VaryConflict "vary-conflict" "two different computed inputs of VaryLayer have one name; give each its own";
    VaryMisplaced "vary-misplaced" "a computed input of VaryLayer differs between where CacheLayer and where VaryLayer stands: something between the two makes it; put CacheLayer inside of that";
    NoStore "no-store" "the response says Cache-Control: no-store";
    Private "private" "the response says Cache-Control: private";
    NoCacheWithoutValidator "no-cache-without-validator" "the response says no-cache and has neither ETag nor Last-Modified, so it could never be reused; add a validator or drop no-cache";
    SetCookie "set-cookie" "the response sets a cookie, which would be replayed to everybody";
    VaryAny "vary-any" "the response says Vary: * (or its Vary cannot be parsed), so no other request can match it";
    VaryCredential "vary-credential" "the response's Vary names a credential (Authorization, Cookie …); key the route on the one value that matters, for example .cookie(\"theme\")";
    Status "status" "responses with this status are never stored under this policy";
    StatusNeedsFreshness "status-needs-freshness" "a response with this status is stored only if its own header gives it a freshness lifetime, or the route names the status";
    StatusNotOptedIn "status-not-opted-in" "a response with this status is stored only if the route names the status";
    PartialContent "partial-content" "a 206 response is stored only if it says which bytes of how many it has, and the policy stores parts";
    NotModified "not-modified" "a 304 response is no entry of its own";
    RedirectWithoutLocation "redirect-without-location" "a redirect without Location is broken and is not stored";
    MustUnderstand "must-understand" "the response says must-understand and this cache does not know its status";
    NoFreshness "no-freshness" "nothing says how long the response is fresh; add Cache-Control: max-age=…, or a ttl to the route";
    InvalidFreshness "invalid-freshness" "the response's max-age, s-maxage or Expires cannot be parsed, so it is stale from the start";
    ZeroLifetime "zero-lifetime" "the response is stale from the start (max-age=0, s-maxage=0 or Expires in the past) and has no validator";
    AlreadyStale "already-stale" "the response's Age is not below its freshness lifetime and it has no validator";
    ContentCodingUnkeyed "content-coding-unkeyed" "the response varies on Accept-Encoding and uses a content coding this cache does not distinguish";
    PostContentLocation "post-content-location" "an answer to POST is stored only with explicit freshness and a Content-Location equal to the request target";

    // stored responses that are not usable as they are
    NoCache "no-cache" "the stored response must be validated before every use (no-cache)";
    MustRevalidate "must-revalidate" "the stored response is stale and forbids stale use (must-revalidate, proxy-revalidate or s-maxage)";
    Expired "expired" "the stored response is stale";
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
