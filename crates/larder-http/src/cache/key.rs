//! The key of a URL.

use larder_core::{Key, KeyBuf, Namespace};
use larder_http_rules::authority::{self, Authority, HostField};
use larder_http_rules::{Reason, RequestFacts, overrides};

use super::layer::Config;
use crate::RequestHead;

// The room of responses in a namespace; see ARCHITECTURE.md.
const RESPONSES: &str = "h";

/// How the keys of all responses in a namespace begin.
pub(super) fn room(namespace: &Namespace) -> Key {
    Key::new(namespace, [RESPONSES]).expect("one letter makes a short key")
}

/// Scheme, authority, path, query, what a proxy says it forwarded, and the route's partition. There is no way to make
/// a key without an authority.
///
/// Writes into a `key` that is yet only the [`room`]: it is a large value, and a hit had better not move it.
pub(super) fn write_request(
    key: &mut KeyBuf,
    config: &Config,
    head: RequestHead<'_>,
    facts: RequestFacts,
    host: HostField<'_>,
) -> Result<(), Reason> {
    let authority = authority::effective_of(head.uri(), host, config.scheme)?;
    write_target(key, config, head, facts, authority, head.uri().path(), head.uri().query())
}

/// The key of another target of the same origin, asked for in the same way.
pub(super) fn of_target(
    config: &Config,
    head: RequestHead<'_>,
    facts: RequestFacts,
    authority: Authority<'_>,
    path: &str,
    query: Option<&str>,
) -> Result<KeyBuf, Reason> {
    let mut key = KeyBuf::from(config.room.as_ref());
    write_target(&mut key, config, head, facts, authority, path, query)?;
    Ok(key)
}

fn write_target(
    key: &mut KeyBuf,
    config: &Config,
    head: RequestHead<'_>,
    facts: RequestFacts,
    authority: Authority<'_>,
    path: &str,
    query: Option<&str>,
) -> Result<(), Reason> {
    key.push_with(|part| authority.write_to(&mut |bytes| part.write(bytes)));
    key.push(path);
    key.push_optional(query);
    if facts.any(RequestFacts::FORWARDED.union(RequestFacts::TRUSTED_OVERRIDE)) {
        let mut written = Ok(());
        key.push_with(|part| {
            written = overrides::write_key_part(&config.policy, head.headers(), &mut |bytes| {
                part.write(bytes);
            });
        });
        written?;
    } else {
        key.push_optional(None::<&str>);
    }
    if let Some(identify) = &config.partition {
        key.push("partition");
        key.push_optional(identify(head));
    }
    Ok(())
}
