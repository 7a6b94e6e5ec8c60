//! Paging through the keys of a prefix.

use std::sync::Arc;

use bytes::Bytes;
use larder_core::envelope::{self, KeyOf, PREFIX};
use larder_core::{Cursor, Error, ErrorKind, Key, Page, Prefix, Result};

use crate::database::{Argument, Database};
use crate::naming::Place;
use crate::store::{BATCH, Inner, text};

impl<D: Database> Inner<D> {
    // By name: what stays where it is is passed once.
    pub(crate) async fn page(
        self: &Arc<Self>,
        prefix: &Prefix,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page> {
        let after = match from {
            None => String::new(),
            Some(Cursor(bytes)) => read(bytes)?,
        };
        let start = prefix.short_start();
        let limit = limit.clamp(1, BATCH);
        let arguments = vec![
            text(prefix.namespace().as_str()),
            text(&*start),
            // Behind every character of a name.
            text(format!("{start}~")),
            text(after),
            Argument::Integer(i64::try_from(limit).ok()),
            Argument::Integer(i64::try_from(KEY_GUESS).ok()),
        ];
        let statement = &self.statements.page;
        let answer = self.reader.fetch(statement, arguments, true, self.deadline()).await?;
        let mut keys = Vec::with_capacity(answer.rows.len());
        let mut last = None;
        for row in &answer.rows {
            let Some(name) = row[0].text() else { continue };
            last = Some(name.to_owned());
            let start = row[1].blob().unwrap_or_default();
            if let Some(key) = self.key_in(prefix, name, start).await?
                && prefix.matches(key.as_ref())
                && Place::of(&key).name == name
            {
                keys.push(key);
            }
        }
        let next = last.filter(|_| answer.rows.len() == limit);
        Ok(Page { keys, next: next.map(|name| Cursor(name.into_bytes())) })
    }

    // The key that a record repeats.
    async fn key_in(&self, prefix: &Prefix, name: &str, start: Bytes) -> Result<Option<Key>> {
        match envelope::key_of(&start) {
            Ok(KeyOf::Whole(key)) => Ok(Some(key)),
            Ok(KeyOf::Needs(bytes)) if bytes > start.len() => {
                let arguments = vec![
                    text(prefix.namespace().as_str()),
                    text(name),
                    Argument::Integer(i64::try_from(bytes).ok()),
                ];
                let statement = &self.statements.start_of;
                let answer = self.reader.fetch(statement, arguments, true, self.deadline()).await?;
                let start = answer.rows.first().and_then(|row| row[0].blob()).unwrap_or_default();
                Ok(match envelope::key_of(&start) {
                    Ok(KeyOf::Whole(key)) => Some(key),
                    _ => None,
                })
            }
            _ => Ok(None),
        }
    }
}

fn read(cursor: Vec<u8>) -> Result<String> {
    let name = String::from_utf8(cursor).ok();
    let plain = |name: &String| name.len() <= 200 && name.bytes().all(|c| c.is_ascii_graphic());
    name.filter(plain).ok_or_else(|| {
        Error::new(
            ErrorKind::Other,
            "the cursor was made by another backend; begin the paging anew",
        )
    })
}

// How much of a record is read to learn its key: most have no more before their tags.
const KEY_GUESS: usize = PREFIX + 284;
