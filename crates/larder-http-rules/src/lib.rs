//! HTTP caching rules (RFC 9110, RFC 9111, RFC 5861) as pure functions.
