//! Paging through the keys of a prefix.

use larder_core::envelope::{self, KeyOf};
use larder_core::{Cursor, Error, ErrorKind, Generation, Key, Page, Prefix, Result};
use redis::{Value, cmd};
use tokio::time::Instant;

use crate::reply::{garbled, one, refusal, unexpected, wrong_type};
use crate::request::{Again, Request};
use crate::store::{BATCH, Inner};
use crate::{NAME, sweep};

const FEWEST_SCANNED: usize = 100;

// How much of a record is read to learn its key.
const KEY_GUESS: usize = 384;

impl Inner {
    pub(crate) async fn page(
        &self,
        prefix: &Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page> {
        let started = Instant::now();
        let mut cursor = match from {
            None => b"0".to_vec(),
            Some(Cursor(bytes)) if bytes.iter().all(u8::is_ascii_digit) && !bytes.is_empty() => {
                bytes
            }
            Some(_) => {
                let words = "the cursor was made by another backend; begin the paging anew";
                return Err(Error::new(ErrorKind::Other, words).with_backend(NAME));
            }
        };
        let count = limit.clamp(FEWEST_SCANNED, BATCH).to_string();
        let mut keys = Vec::new();
        // A sparse prefix on a large server: look on, but not for long.
        loop {
            let (names, replies) = self
                .run(
                    [prefix.namespace().as_str()],
                    Again::Yes,
                    self.deadline(),
                    |names, request| {
                        let start =
                            prefix.wire_start(names.generation(prefix.namespace().as_str()));
                        let mut scan = cmd("SCAN");
                        scan.arg(&cursor[..]).arg("MATCH").arg(format!("{}*", escaped(&start)));
                        scan.arg("COUNT").arg(&count);
                        request.command(scan);
                    },
                )
                .await?;
            let reply = one(replies)?;
            if let Some(refusal) = refusal(&reply) {
                return Err(refusal.error());
            }
            let (next, found) = sweep::scanned(reply).ok_or_else(garbled)?;
            let generation = names.generation(prefix.namespace().as_str());
            keys.extend(self.keys_under(prefix, generation, found).await?);
            cursor = next;
            if cursor == b"0" {
                return Ok(Page { keys, next: None });
            }
            if keys.len() >= limit || started.elapsed() >= self.response_timeout / 2 {
                return Ok(Page { keys, next: Some(Cursor(cursor)) });
            }
        }
    }

    // The keys that records under these names repeat, as far as they are the prefix's and lie where they belong.
    async fn keys_under(
        &self,
        prefix: &Prefix,
        generation: Generation,
        names: Vec<Vec<u8>>,
    ) -> Result<Vec<Key>> {
        let mut keys = Vec::with_capacity(names.len());
        let mut open: Vec<(Vec<u8>, usize)> =
            names.into_iter().map(|name| (name, KEY_GUESS)).collect();
        // A second round for keys that are longer than most.
        for _ in 0..3 {
            if open.is_empty() {
                break;
            }
            let mut request = Request::new(Again::Yes);
            for (name, bytes) in &open {
                let mut get = cmd("GETRANGE");
                get.arg(&name[..]).arg(0).arg(bytes - 1);
                request.command(get);
            }
            let replies = self.client.exchange(&request, self.deadline()).await?;
            let mut longer = Vec::new();
            for ((name, _), reply) in open.into_iter().zip(replies) {
                let start = match reply {
                    Value::BulkString(start) => start,
                    Value::Nil => continue,
                    other if wrong_type(&other) => continue,
                    other => return Err(unexpected(&other)),
                };
                match envelope::key_of(&start) {
                    Ok(KeyOf::Whole(key)) => {
                        let here = key.as_ref().wire_name(generation).as_bytes() == name;
                        if here && prefix.matches(key.as_ref()) {
                            keys.push(key);
                        }
                    }
                    Ok(KeyOf::Needs(bytes)) if bytes > start.len() => longer.push((name, bytes)),
                    _ => {}
                }
            }
            open = longer;
        }
        Ok(keys)
    }
}

// Nothing in a wire name has a meaning in a pattern; this keeps it so.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_literal() {
        assert_eq!(escaped("shop:00ff:d:a_b.c-1"), "shop:00ff:d:a_b.c-1");
        assert_eq!(escaped(r"*?[^]\"), r"\*\?\[\^\]\\");
    }
}
