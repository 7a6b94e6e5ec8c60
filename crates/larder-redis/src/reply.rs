//! What comes back: values of the kind that was asked for, or a server's refusal.

use larder_core::{Error, ErrorKind, Result, Sequence, envelope};
use redis::Value;

use crate::NAME;
use crate::outage::Why;

pub(crate) fn copy(error: &Error) -> Error {
    let text = error.to_string();
    let words = text.strip_prefix(NAME).and_then(|text| text.strip_prefix(": ")).unwrap_or(&text);
    Error::new(error.kind(), words).with_backend(NAME)
}

pub(crate) fn ambiguous() -> Error {
    let words =
        "the server did not tell whether it carried out the change; read to see what is there";
    Error::new(ErrorKind::Ambiguous, words).with_backend(NAME)
}

pub(crate) fn garbled() -> Error {
    let words = "the server's answer is none to what was asked";
    Error::new(ErrorKind::Unavailable, words).with_backend(NAME)
}

pub(crate) fn unexpected(value: &Value) -> Error {
    refusal(value).map_or_else(garbled, |refusal| refusal.error())
}

pub(crate) fn one(replies: Vec<Value>) -> Result<Value> {
    replies.into_iter().next().ok_or_else(garbled)
}

pub(crate) fn int(value: Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn array(value: Value, length: usize) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) if values.len() == length => Ok(values),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn sequence(value: Value) -> Result<Sequence> {
    match value {
        Value::BulkString(text) => {
            envelope::counter(&text).and_then(Sequence::from_i64).ok_or_else(garbled)
        }
        other => Err(unexpected(&other)),
    }
}

/// What a server's error means to us.
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    pub(crate) words: String,
    /// The connection leads to a server that does not do our work now: another may.
    pub(crate) unfit: bool,
}

impl Refusal {
    pub(crate) fn error(&self) -> Error {
        let kind = if self.unfit { ErrorKind::Unavailable } else { self.kind };
        Error::new(kind, self.words.clone()).with_backend(NAME)
    }

    pub(crate) fn why(&self) -> Why {
        Why { kind: self.kind, words: self.words.as_str().into() }
    }
}

/// Reads a reply that is an error. The server's own words may repeat arguments, so only the code is told.
pub(crate) fn refusal(value: &Value) -> Option<Refusal> {
    let Value::ServerError(error) = value else { return None };
    let unavailable = |words: &str, unfit| Refusal {
        kind: ErrorKind::Unavailable,
        words: format!("{words} ({})", word(error.code())),
        unfit,
    };
    let configuration = |words: &str, unfit| Refusal {
        kind: ErrorKind::Configuration,
        words: format!("{words} ({})", word(error.code())),
        unfit,
    };
    Some(match error.code() {
        "READONLY" => unavailable("the server is a replica, which cannot be written to", true),
        "LOADING" => unavailable("the server is still loading its data", true),
        "MASTERDOWN" => unavailable("the server is a replica that has lost its primary", true),
        "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => unavailable(
            "the server is part of a cluster, or cannot answer for it now; for a cluster write redis+cluster://",
            true,
        ),
        "NOAUTH" | "WRONGPASS" => {
            configuration("the server demands another user or password", true)
        }
        "NOPERM" => configuration(
            "the server's user may not use a command or key that Larder needs; see the list in the documentation of larder-redis",
            false,
        ),
        "OOM" => unavailable(
            "the server is out of memory and evicts nothing; raise maxmemory or choose a maxmemory-policy that evicts",
            false,
        ),
        "MISCONF" => unavailable("the server cannot save its data and refuses to write", false),
        "BUSY" => unavailable("the server is busy with somebody's script", false),
        "NOREPLICAS" => unavailable("the server has too few replicas and refuses to write", false),
        code => Refusal {
            kind: ErrorKind::Other,
            words: format!("the server answered with an error ({})", word(code)),
            unfit: false,
        },
    })
}

/// Whether a node of a cluster says that another one is to be asked, or the same one a little later. The command was not
/// carried out.
pub(crate) fn misdirected(value: &Value) -> bool {
    let codes = ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"];
    matches!(value, Value::ServerError(error) if codes.contains(&error.code()))
}

/// Whether a reply says that the server has no memory left.
pub(crate) fn out_of_memory(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "OOM")
}

/// Whether a reply says that something else than a string lies under the name.
pub(crate) fn wrong_type(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "WRONGTYPE")
}

// Codes are capitals; anything else might be somebody's data.
fn word(code: &str) -> &str {
    let ok = code.len() <= 24 && code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
    if ok { code } else { "unknown code" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_are_data_are_not_told() {
        assert_eq!(word("WRONGTYPE"), "WRONGTYPE");
        for code in ["s3cret", "user:42", "A_VERY_LONG_WORD_THAT_IS_NO_CODE"] {
            assert_eq!(word(code), "unknown code");
        }
    }
}
