//! The key of a URL.

use larder_core::{Key, KeyBuf, Namespace};
use larder_http_rules::authority::{self, Authority, HostField};
use larder_http_rules::{Reason, RequestFacts, overrides};

use super::content;
use super::layer::{Config, Shared};
use crate::RequestHead;

// The room of responses in a namespace; see ARCHITECTURE.md.
const RESPONSES: &str = "h";

/// How the keys of all responses in a namespace begin.
pub(super) fn room(namespace: &Namespace) -> Key {
    Key::new(namespace, [RESPONSES]).expect("one letter makes a short key")
}

/// Scheme, authority, path, query, what a proxy says it forwarded, the route's partition, and the content of a QUERY.
/// There is no way to make a key without an authority. Tells whether the query in it is another than the request's own.
///
/// Writes into a `key` that is yet only the [`room`]: it is a large value, and a hit had better not move it.
pub(super) fn write_request(
    key: &mut KeyBuf,
    shared: &Shared,
    head: RequestHead<'_>,
    facts: RequestFacts,
    host: HostField<'_>,
) -> Result<bool, Reason> {
    let authority = authority::effective_of(head.uri(), host, shared.config.scheme)?;
    let (path, query) = (head.uri().path(), head.uri().query());
    let rewritten = write_target(key, shared, head, facts, authority, path, query)?;
    content::write(key, head, facts);
    Ok(rewritten)
}

/// The key of another target of the same origin, asked for in the same way.
pub(super) fn of_target(
    shared: &Shared,
    head: RequestHead<'_>,
    facts: RequestFacts,
    authority: Authority<'_>,
    path: &str,
    query: Option<&str>,
) -> Result<KeyBuf, Reason> {
    let mut key = KeyBuf::from(shared.config.room.as_ref());
    let query = query.and_then(|query| shared.config.query.apply(query));
    write_target(&mut key, shared, head, facts, authority, path, query.as_deref())?;
    Ok(key)
}

fn write_target(
    key: &mut KeyBuf,
    shared: &Shared,
    head: RequestHead<'_>,
    facts: RequestFacts,
    authority: Authority<'_>,
    path: &str,
    query: Option<&str>,
) -> Result<bool, Reason> {
    let config = &shared.config;
    write_path(key, authority, path);
    let rewritten = write_query(key, shared, query);
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
    Ok(rewritten)
}

/// How the keys of all queries of a path begin, behind the room.
pub(super) fn write_path(key: &mut KeyBuf, authority: Authority<'_>, path: &str) {
    key.push_with(|part| authority.write_to(&mut |bytes| part.write(bytes)));
    key.push(path);
}

/// A query behind its path, as the path's responses want it. Tells whether that is another one.
pub(super) fn write_query(key: &mut KeyBuf, shared: &Shared, query: Option<&str>) -> bool {
    if !shared.searches.is_empty() {
        let rule = key.as_ref().ok().and_then(|path| shared.searches.rule(path));
        let canonical = rule.map(|rule| rule.canonical(query));
        if let Some(canonical) = canonical.filter(|canonical| canonical.as_deref() != query) {
            key.push_optional(canonical);
            return true;
        }
    }
    key.push_optional(query);
    false
}

/// The query that a key has, and how the keys of all queries of its path begin.
pub(super) fn query<'a>(config: &Config, key: &'a Key) -> (Option<&'a [u8]>, Option<KeyBuf>) {
    let mut parts = key.as_ref().parts().skip(1);
    let (authority, path) = (parts.next().flatten(), parts.next().flatten());
    let room = KeyBuf::from(config.room.as_ref());
    let begin = authority.zip(path).map(|(authority, path)| room.part(authority).part(path));
    (parts.next().flatten(), begin)
}
