//! How a session's id comes and goes: in the cookie, or in the metadata of a gRPC call.

use std::time::Duration;

use crate::cookie::{Brought, CookieValue, Lines, Values, each_once};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Config;
use http::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

/// How the id of one exchange comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Cookie,
    Metadata,
}

/// What of a request may hold its id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) way: Way,
    lines: Lines,
}

impl Config {
    pub(crate) fn pick(&self, headers: &HeaderMap) -> Carried {
        match &self.metadata {
            // The cookie of such a call is nobody's: a script that may not read cookies must not get the id that is in
            // one by asking in another way.
            Some(name) if is_plain_grpc(headers) => Carried {
                way: Way::Metadata,
                lines: headers.get_all(name).iter().cloned().collect(),
            },
            _ => Carried { way: Way::Cookie, lines: self.jar.pick(headers) },
        }
    }

    /// The values that may be an id, each once; `None` when there are too many.
    pub(crate) fn values<'a>(&self, carried: &'a Carried) -> Option<Values<'a>> {
        if carried.way == Way::Cookie {
            return self.jar.values(&carried.lines);
        }
        let values = carried.lines.iter().map(|line| line.as_bytes().trim_ascii());
        each_once(values.filter(|value| !value.is_empty()))
    }

    pub(crate) fn read(&self, carried: &Carried) -> Brought {
        Brought::of(self.values(carried))
    }

    /// The field's value that gives it. `None` for the lifetime: until the browser closes.
    pub(crate) fn give<V: CookieValue + ?Sized>(
        &self,
        way: Way,
        value: &V,
        lifetime: Option<Duration>,
    ) -> HeaderValue {
        if way == Way::Cookie {
            return self.jar.set(value, lifetime);
        }
        let mut text = String::with_capacity(value.length());
        value.write(&mut text);
        // It is visible ASCII.
        let mut value =
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// The field's value that takes it away.
    pub(crate) fn take_away(&self, way: Way) -> HeaderValue {
        match way {
            Way::Cookie => self.jar.remove(),
            Way::Metadata => HeaderValue::from_static(""),
        }
    }

    /// The field of responses that gives an id, and the one of requests that brings it.
    pub(crate) fn fields(&self, way: Way) -> (&HeaderName, &HeaderName) {
        match (way, &self.metadata) {
            (Way::Metadata, Some(name)) => (name, name),
            _ => (&SET_COOKIE, &COOKIE),
        }
    }
}

/// gRPC's content types begin alike; gRPC-Web's are those of browsers, which have cookies.
fn is_plain_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// A name for the metadata entry of ids.
pub(crate) fn checked(name: &str) -> Result<HeaderName> {
    let wrong = |words| Err(Error::saying(ErrorKind::Configuration, words));
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return wrong("metadata's names have letters, digits, '-', '_' and '.' only");
    };
    if parsed.as_str().starts_with("grpc-") || parsed.as_str().ends_with("-bin") {
        return wrong(
            "gRPC keeps names that begin with grpc-, and those that end in -bin are for bytes",
        );
    }
    if TAKEN.contains(&parsed.as_str()) {
        return wrong("that metadata has a meaning of its own: take a name such as session-id");
    }
    Ok(parsed)
}

const TAKEN: [&str; 16] = [
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "host",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_grpc_brings_ids_in_metadata() {
        for (kind, plain) in [
            (Some("application/grpc"), true),
            (Some("application/grpc+proto"), true),
            (Some("application/grpc;charset=utf-8"), true),
            (Some("application/grpc-web"), false),
            (Some("application/grpc-web-text+proto"), false),
            (Some("application/json"), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            }
            assert_eq!(is_plain_grpc(&headers), plain, "{kind:?}");
        }
    }

    #[test]
    fn names_that_mean_something_else_are_refused_with_words() {
        assert_eq!(checked("Session-Id").unwrap(), "session-id");
        for (name, word) in [
            ("", "letters"),
            ("session id", "letters"),
            ("session\r\n", "letters"),
            ("grpc-session", "grpc-"),
            ("session-bin", "-bin"),
            ("Cookie", "session-id"),
            ("authorization", "session-id"),
        ] {
            let error = checked(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(word), "{name}: {error}");
        }
    }
}
