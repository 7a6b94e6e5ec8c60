//! Splits one `Cache-Control` line into directives.

use std::time::Duration;

use super::MAX_DELTA;

/// One directive as it stands in the line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directive<'a> {
    /// The name, surrounding white space removed, in the case it was sent.
    pub(super) name: &'a [u8],
    pub(super) argument: Argument<'a>,
    /// The member as sent, trimmed.
    pub(super) raw: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    None,
    Token(&'a [u8]),
    /// What stands between the quotes, escapes not removed.
    Quoted(&'a [u8]),
    /// White space around `=`, or something after the closing quote.
    Malformed,
}

impl Directive<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The argument as delta-seconds (RFC 9111 §1.2.2): digits only, saturating, quoted or not.
    pub(super) fn seconds(&self) -> Option<Duration> {
        match self.argument {
            Argument::Token(digits) | Argument::Quoted(digits) => delta_seconds(digits),
            Argument::None | Argument::Malformed => None,
        }
    }
}

/// Digits only; values of 2^31 and more saturate.
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() {
        return None;
    }
    let seconds = digits.iter().try_fold(0u64, |sum, &b| {
        b.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })?;
    Some(Duration::from_secs(seconds).min(MAX_DELTA))
}

/// The directives of one line. A line ends every quoted string: one that is not closed is split at its
/// commas like ordinary text, so that it cannot hide a `no-store`, and [`Scan::malformed`] tells.
#[derive(Debug, Clone)]
pub(super) struct Scan<'a> {
    rest: &'a [u8],
    malformed: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Self { rest: line, malformed: false }
    }

    /// Whether a quoted string was left open in what was read so far.
    pub(super) fn malformed(&self) -> bool {
        self.malformed
    }

    fn member(&mut self) -> &'a [u8] {
        let mut at = 0;
        while at < self.rest.len() {
            match self.rest[at] {
                b',' => break,
                b'"' => match closing_quote(self.rest, at) {
                    Some(end) => at = end + 1,
                    None => {
                        self.malformed = true;
                        at += 1;
                    }
                },
                _ => at += 1,
            }
        }
        let member = &self.rest[..at];
        self.rest = self.rest.get(at + 1..).unwrap_or_default();
        member
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        while !self.rest.is_empty() {
            let raw = self.member().trim_ascii();
            if !raw.is_empty() {
                return Some(directive(raw));
            }
        }
        None
    }
}

fn directive(raw: &[u8]) -> Directive<'_> {
    let Some(equals) = raw.iter().position(|&b| b == b'=') else {
        return Directive { name: raw, argument: Argument::None, raw };
    };
    let (name, value) = (&raw[..equals], &raw[equals + 1..]);
    let spaced = name.last().is_some_and(u8::is_ascii_whitespace)
        || value.first().is_some_and(u8::is_ascii_whitespace);
    let argument = match value.first() {
        _ if spaced => Argument::Malformed,
        Some(b'"') => match closing_quote(value, 0) {
            Some(end) if end + 1 == value.len() => Argument::Quoted(&value[1..end]),
            _ => Argument::Malformed,
        },
        _ => Argument::Token(value),
    };
    Directive { name: name.trim_ascii_end(), argument, raw }
}

/// Where the quoted string that opens at `open` closes.
pub(crate) fn closing_quote(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}
