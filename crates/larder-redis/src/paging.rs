//! Paging through the keys of a prefix.

use larder_core::envelope::{self, KeyOf};
use larder_core::{Cursor, Error, ErrorKind, Key, Page, Prefix, Result};
use redis::{Value, cmd};
use tokio::time::Instant;

use crate::client::Client;
use crate::generation::Names;
use crate::layout::SLOTS;
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
        let mut place = match from {
            None => Place::start(&self.client),
            Some(Cursor(bytes)) => Place::read(&bytes).ok_or_else(|| {
                let words = "the cursor was made by another backend; begin the paging anew";
                Error::new(ErrorKind::Other, words).with_backend(NAME)
            })?,
        };
        let count = limit.clamp(FEWEST_SCANNED, BATCH).to_string();
        let namespace = prefix.namespace().as_str();
        let mut keys = Vec::new();
        // A sparse prefix on a large server: look on, but not for long.
        loop {
            let server = self.client.server(place.slot);
            if place.server != server {
                // Another one answers now, and another's cursors mean nothing to it.
                place = Place { server, cursor: b"0".to_vec(), ..place };
            }
            let homes = self.client.layout().homes(namespace);
            let (names, replies) = self
                .run(homes, Again::Yes, self.deadline(), |names, request| {
                    let start = self.scanned(prefix, names);
                    let mut scan = cmd("SCAN");
                    scan.arg(&place.cursor[..]).arg("MATCH").arg(format!("{start}*"));
                    scan.arg("COUNT").arg(&count);
                    request.command(place.slot, scan);
                })
                .await?;
            let reply = one(replies)?;
            if let Some(refusal) = refusal(&reply) {
                return Err(refusal.error());
            }
            let (next, found) = sweep::scanned(reply).ok_or_else(garbled)?;
            keys.extend(self.keys_under(prefix, &names, found).await?);
            place.cursor = next;
            if place.cursor == b"0" {
                match place.next(&self.client) {
                    Some(next) => place = next,
                    None => return Ok(Page { keys, next: None }),
                }
            }
            if keys.len() >= limit || started.elapsed() >= self.response_timeout / 2 {
                return Ok(Page { keys, next: Some(Cursor(place.write())) });
            }
        }
    }

    // What the names of matching keys look like: of one generation, or of any.
    fn scanned(&self, prefix: &Prefix, names: &Names) -> String {
        let mut homes = self.client.layout().homes(prefix.namespace().as_str());
        let first = homes.next().map(|home| names.generation(home));
        let Some(generation) = first else { return String::new() };
        let start = prefix.wire_start(generation);
        let generation = generation.to_string();
        if homes.all(|home| names.generation(home).to_string() == generation) {
            return escaped(&start);
        }
        let any = "?".repeat(generation.len());
        match start.split_once(&generation) {
            Some((before, after)) => format!("{}{any}{}", escaped(before), escaped(after)),
            None => escaped(&start),
        }
    }

    // The keys that records under these names repeat, as far as they are the prefix's and lie where they belong.
    async fn keys_under(
        &self,
        prefix: &Prefix,
        names: &Names,
        found: Vec<Vec<u8>>,
    ) -> Result<Vec<Key>> {
        let layout = self.client.layout();
        let slot =
            |name: &[u8]| std::str::from_utf8(name).map_or(0, |name| layout.slot_of_name(name));
        let mut keys = Vec::with_capacity(found.len());
        let mut open: Vec<(Vec<u8>, usize)> =
            found.into_iter().map(|name| (name, KEY_GUESS)).collect();
        // A second round for keys that are longer than most.
        for _ in 0..3 {
            if open.is_empty() {
                break;
            }
            let mut request = Request::new(Again::Yes);
            for (name, bytes) in &open {
                let mut get = cmd("GETRANGE");
                get.arg(&name[..]).arg(0).arg(bytes - 1);
                request.command(slot(name), get);
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
                        let ours = prefix.matches(key.as_ref());
                        if ours && names.of(&key).as_bytes() == name {
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

// How far a paging has come: one server after another, each from its lowest slot on.
struct Place {
    slot: u16,
    // Which server the cursor is of.
    server: u16,
    cursor: Vec<u8>,
}

impl Place {
    fn start(client: &Client) -> Self {
        let slot = client.slots().first().copied().unwrap_or(0);
        Place { slot, server: client.server(slot), cursor: b"0".to_vec() }
    }

    // The server after this one. One that has become another's since is not asked again for what it has shown.
    fn next(&self, client: &Client) -> Option<Self> {
        let slot = client.slots().into_iter().filter(|slot| *slot > self.slot).min()?;
        Some(Place { slot, server: client.server(slot), cursor: b"0".to_vec() })
    }

    fn write(&self) -> Vec<u8> {
        let cursor = String::from_utf8_lossy(&self.cursor);
        format!("{}-{}-{cursor}", self.slot, self.server).into_bytes()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, '-');
        let slot: u16 = parts.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
        let server = parts.next()?.parse().ok()?;
        let cursor = parts.next()?;
        let digits = !cursor.is_empty() && cursor.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| Place { slot, server, cursor: cursor.into() })
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
