//! The key of a call.

use http::request::Parts;
use larder_core::KeyBuf;
use larder_http_rules::authority::{self, Scheme};
use larder_http_rules::{Reason as HttpReason, RequestFacts, overrides};

use crate::gather::PREFIX;
use crate::layer::{CallHead, Config, Rule};
use crate::status;
use crate::verdict::Reason;

// A longer message stands in the key by its digest.
const LONGEST: usize = 1024;

/// Authority, what a proxy says it forwarded, method, content type, codings, declared metadata, partition, message.
///
/// Writes into a `key` that is yet only the layer's room: it is a large value, and a hit had better not move it.
pub(crate) fn write(
    key: &mut KeyBuf,
    config: &Config,
    rule: &Rule,
    parts: &Parts,
    facts: RequestFacts,
    message: &[u8],
) -> Result<(), Reason> {
    let headers = &parts.headers;
    match authority::effective(&parts.uri, headers, Scheme::Http) {
        Ok(authority) => key.push_with(|part| authority.write_to(&mut |bytes| part.write(bytes))),
        // A client's request has none until its channel adds it; the room has the server's name then.
        Err(HttpReason::NoAuthority) if config.client => {
            key.push_optional(None::<&str>);
        }
        Err(reason) => return Err(reason.into()),
    }
    if facts.any(RequestFacts::FORWARDED) {
        let mut written = Ok(());
        key.push_with(|part| {
            written = overrides::write_key_part(&config.policy, headers, &mut |bytes| {
                part.write(bytes);
            });
        });
        written?;
    } else {
        key.push_optional(None::<&str>);
    }
    key.push(parts.uri.path());
    key.push(status::content(headers).unwrap_or_default());
    write_codings(key, parts);
    for name in &rule.keyed {
        key.push(name.as_str());
        for line in headers.get_all(name) {
            key.push(line.as_bytes());
        }
        key.push_optional(None::<&str>);
    }
    if let Some(identify) = &config.partition {
        let head =
            CallHead { method: parts.uri.path(), metadata: headers, extensions: &parts.extensions };
        key.push("partition");
        key.push_optional(identify(head));
    }
    write_message(key, rule, message);
    Ok(())
}

// How the message is encoded, and which codings the caller takes.
fn write_codings(key: &mut KeyBuf, parts: &Parts) {
    key.push_optional(parts.headers.get(status::ENCODING).map(|value| value.as_bytes()));
    let mut known = 0_u8;
    let mut lines = parts.headers.get_all(status::ACCEPT_ENCODING).iter().peekable();
    if lines.peek().is_none() {
        return key.push([known]);
    }
    key.push_with(|part| {
        for line in lines {
            for name in line.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                match name {
                    b"" | b"identity" => {}
                    b"gzip" => known |= 1,
                    b"deflate" => known |= 2,
                    b"zstd" => known |= 4,
                    // Others count in the order in which they came.
                    other => {
                        part.write(other);
                        part.write(b",");
                    }
                }
            }
        }
        part.write(&[known]);
    });
}

fn write_message(key: &mut KeyBuf, rule: &Rule, message: &[u8]) {
    let (flag, payload) = (message[0], &message[PREFIX..]);
    #[cfg(feature = "descriptor")]
    if let Some(input) = &rule.input
        && flag == 0
        && let Some(canonical) = crate::descriptor::canonical(input, payload)
    {
        return write_bytes(key, b"c", &canonical);
    }
    let _ = rule;
    write_bytes(key, if flag == 0 { b"m" } else { b"z" }, payload);
}

fn write_bytes(key: &mut KeyBuf, kind: &[u8; 1], bytes: &[u8]) {
    key.push(kind);
    if bytes.len() <= LONGEST {
        key.push(bytes);
    } else {
        key.push_optional(None::<&str>);
        key.push(blake3::hash(bytes).as_bytes());
    }
}
