//! Paging through the keys of a prefix.

use larder_core::envelope::{self, KeyOf, PREFIX};
use larder_core::{Cursor, Error, ErrorKind, Key, Page, Prefix, Result};

use crate::NAME;
use crate::client::failed;
use crate::naming::{ENTRIES, Place, Shelf, dotted};
use crate::store::Inner;
use crate::time::Time;

impl Inner {
    // Shelf by shelf, on each by name: what stays where it is is passed once.
    pub(crate) fn page(&self, prefix: &Prefix, from: Option<Cursor>, limit: usize) -> Result<Page> {
        let (mut at, mut last) = match from {
            None => (0, String::new()),
            Some(Cursor(bytes)) => read(&bytes)?,
        };
        let namespace = prefix.namespace().as_str();
        let Some(life) = self.generation(namespace)? else { return Ok(Page::default()) };
        let start = dotted(prefix.wire_start(life));
        let time = Time::of(&self.clock);
        let mut keys = Vec::new();
        while at < ENTRIES {
            let mut names = self.directory.names(Shelf::at(at), &start).map_err(failed)?;
            names.retain(|name| *name > last);
            names.sort_unstable();
            for name in names {
                if let Some(key) = self.key_in(Shelf::at(at), &name, &time)?
                    && prefix.matches(key.as_ref())
                    && Place::of(&key, life).file == name
                {
                    keys.push(key);
                }
                if keys.len() >= limit.max(1) {
                    return Ok(Page { keys, next: Some(cursor(at, &name)) });
                }
            }
            at += 1;
            last.clear();
        }
        Ok(Page { keys, next: None })
    }

    // The key that a record repeats, if the record is an entry and lives.
    fn key_in(&self, shelf: Shelf, name: &str, time: &Time) -> Result<Option<Key>> {
        let mut most = KEY_GUESS;
        loop {
            let start = self.directory.read_start(shelf, name, most).map_err(failed)?;
            let Some(start) = start else { return Ok(None) };
            match envelope::key_of(&start) {
                Ok(KeyOf::Whole(key)) => return Ok(lives(&start, time).then_some(key)),
                Ok(KeyOf::Needs(bytes)) if bytes > most => most = bytes,
                _ => return Ok(None),
            }
        }
    }
}

fn lives(start: &[u8], time: &Time) -> bool {
    let end = start.get(24..32).and_then(|end| end.try_into().ok()).map(u64::from_be_bytes);
    end.is_some_and(|end| end == u64::MAX || !time.over(end))
}

fn cursor(at: usize, name: &str) -> Cursor {
    let mut bytes = vec![at as u8];
    bytes.extend_from_slice(name.as_bytes());
    Cursor(bytes)
}

fn read(cursor: &[u8]) -> Result<(usize, String)> {
    let read = cursor.split_first().and_then(|(at, name)| {
        let name = std::str::from_utf8(name).ok()?;
        Some((usize::from(*at), name.to_owned()))
    });
    read.ok_or_else(|| {
        let words = "the cursor was made by another backend; begin the paging anew";
        Error::new(ErrorKind::Other, words).with_backend(NAME)
    })
}

// How much of a record is read to learn its key: most have no more before their tags.
const KEY_GUESS: usize = PREFIX + 284;
