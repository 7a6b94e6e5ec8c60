//! What gRPC says in fields: status codes, deadlines, which content it is.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;

use crate::body::ResponseBody;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(crate) const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Codes of <https://grpc.github.io/grpc/core/md_doc_statuscodes.html> that matter here.
pub(crate) const OK: u32 = 0;
pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
pub(crate) const UNAVAILABLE: u32 = 14;

/// The status that fields tell: one line, decimal. Several lines or anything else tell none.
pub(crate) fn code(fields: &HeaderMap) -> Option<u32> {
    let mut lines = fields.get_all(STATUS).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let digits = line.as_bytes();
    let known = matches!(digits.len(), 1..=4) && digits.iter().all(u8::is_ascii_digit);
    known.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

/// What proxies say in HTTP's words; clients read it as `UNAVAILABLE`.
pub(crate) fn is_unavailable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The part of the content type behind `application/grpc`: `Some("")` for `application/grpc` and its long form
/// `application/grpc+proto`. `None` for whatever is not plain gRPC, gRPC-Web included.
pub(crate) fn content(fields: &HeaderMap) -> Option<&str> {
    let mut lines = fields.get_all(CONTENT_TYPE).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let rest = line.to_str().ok()?.strip_prefix("application/grpc")?;
    match rest.as_bytes().first() {
        None => Some(""),
        Some(b'+' | b';' | b' ') => Some(if rest == "+proto" { "" } else { rest }),
        Some(_) => None,
    }
}

/// How long a caller waits, as it says in `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn timeout(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !matches!(digits.len(), 1..=8) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A limit as `grpc-timeout`, in milliseconds.
pub(crate) fn timeout_value(limit: Duration) -> HeaderValue {
    let milliseconds = limit.as_millis().clamp(1, 99_999_999);
    HeaderValue::from_str(&format!("{milliseconds}m")).expect("digits and a letter")
}

/// An answer of nothing but a status.
pub(crate) fn failed<B: Body>(code: u32, words: &'static str) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::default());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(STATUS, HeaderValue::from(code));
    fields.insert(MESSAGE, HeaderValue::from_static(words));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        lines.collect()
    }

    #[test]
    fn a_status_is_one_line_of_digits() {
        let status = |value| code(&fields(&[("grpc-status", value)]));
        assert_eq!(status("0"), Some(0));
        assert_eq!(status("16"), Some(16));
        for bad in ["", "00000", "-1", "0 ", "ok", "99999"] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
        assert_eq!(code(&HeaderMap::new()), None);
        let mut twice = fields(&[("grpc-status", "0")]);
        twice.append("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(code(&twice), None);
    }

    #[test]
    fn only_plain_grpc_is_taken() {
        let kind = |value: &str| content(&fields(&[("content-type", value)])).map(str::to_owned);
        assert_eq!(kind("application/grpc").as_deref(), Some(""));
        assert_eq!(kind("application/grpc+proto").as_deref(), Some(""));
        assert_eq!(kind("application/grpc+json").as_deref(), Some("+json"));
        for other in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""]
        {
            assert_eq!(kind(other), None, "{other:?}");
        }
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        let limit = |value| timeout(&fields(&[("grpc-timeout", value)]));
        assert_eq!(limit("1m"), Some(Duration::from_millis(1)));
        assert_eq!(limit("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(limit("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "1", "123456789S", "-1S", "1s", "é", "1é"] {
            assert_eq!(limit(bad), None, "{bad:?}");
        }
        let told = timeout_value(Duration::from_secs(30));
        assert_eq!(limit(told.to_str().unwrap()), Some(Duration::from_secs(30)));
        assert_eq!(
            limit(timeout_value(Duration::MAX).to_str().unwrap()).unwrap().as_secs(),
            99_999
        );
    }
}
