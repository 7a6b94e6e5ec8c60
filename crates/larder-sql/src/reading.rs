//! Reads: rows as entries.

use std::sync::Arc;

use larder_core::envelope::{Damage, Record, TimeBase};
use larder_core::{Entry, Key, Moment, Result, Revision, Times};

use crate::database::{Cell, Database, Row};
use crate::failure::Failure;
use crate::naming::Place;
use crate::statements::kind;
use crate::store::{Inner, here, json, list, text};

/// What lies at a place.
pub(crate) enum Look {
    Entry(Entry),
    Fill,
    Pass,
    /// A record that cannot be used; its bytes.
    Damaged(bytes::Bytes),
    /// Nothing, or it has expired.
    Nothing,
}

impl<D: Database> Inner<D> {
    pub(crate) async fn look(self: &Arc<Self>, key: &Key) -> Result<Look, Failure> {
        let (statement, arguments) = (&self.statements.read, here(&Place::of(key)));
        let answer = self.reader.fetch(statement, arguments, true, self.deadline()).await?;
        let Some(row) = answer.rows.first() else { return Ok(Look::Nothing) };
        Ok(match row[KIND].integer() {
            Some(kind::FILL) => Look::Fill,
            Some(kind::PASS) => Look::Pass,
            _ => match self.decode(key, row, answer.asked) {
                Some(entry) => {
                    self.note_use(key, row);
                    Look::Entry(entry)
                }
                None => Look::Damaged(row[VALUE].blob().unwrap_or_default()),
            },
        })
    }

    pub(crate) async fn read_many(&self, places: &[Place]) -> Result<(Vec<Option<Row>>, Moment)> {
        let mut found: Vec<Option<Row>> = vec![None; places.len()];
        let namespace = places.first().map_or("", |place| &*place.namespace);
        let plain = places.iter().all(|place| !place.mark && place.namespace == namespace);
        let (statement, arguments) = if plain {
            let names = list(places.iter().map(|place| &*place.name));
            (&self.statements.read_all, vec![text(namespace), text(names)])
        } else {
            (&self.statements.read_many, vec![text(json(places))])
        };
        let answer = self.reader.fetch(statement, arguments, true, self.deadline()).await?;
        for row in answer.rows {
            let ord = row[0].integer().and_then(|ord| usize::try_from(ord).ok());
            if let Some(place) = ord.and_then(|ord| found.get_mut(ord)) {
                *place = Some(row);
            }
        }
        Ok((found, answer.asked))
    }

    pub(crate) fn entry(self: &Arc<Self>, key: &Key, row: &Row, asked: Moment) -> Option<Entry> {
        let entry = self.decode(key, row, asked)?;
        self.note_use(key, row);
        Some(entry)
    }

    fn decode(&self, key: &Key, row: &Row, asked: Moment) -> Option<Entry> {
        let now = row[NOW].integer()?;
        // Counted from when it was asked: an answer that took long never prolongs a lifetime.
        let moment =
            |at: &Cell| at.integer().map(|at| asked.shifted_millis(at.saturating_sub(now)));
        let times = Times {
            written: moment(&row[WRITTEN])?,
            fresh_until: moment(&row[FRESH]),
            expires: moment(&row[EXPIRES]),
        };
        let entry = match row[KIND].integer()? {
            kind::COUNTER => Entry::integer(row[NUMBER].integer()?).with_revision(Revision::NONE),
            kind::ENTRY => {
                let base = TimeBase { millis: 0, at: asked };
                match self.envelope.decode(row[VALUE].blob()?, key.as_ref(), &base) {
                    Ok(Record::Entry(entry)) => entry,
                    Ok(_) => {
                        crate::log::damaged(&self.damages, &self.clock, Damage::Malformed);
                        return None;
                    }
                    Err(damage) => {
                        crate::log::damaged(&self.damages, &self.clock, damage);
                        return None;
                    }
                }
            }
            _ => return None,
        };
        Some(entry.with_times(times))
    }

    // Once a minute is often enough to tell what is used from what is not.
    fn note_use(self: &Arc<Self>, key: &Key, row: &Row) {
        let (Some(used), Some(now)) = (row[USED].integer(), row[NOW].integer()) else { return };
        if now - used < USE {
            return;
        }
        let Ok(permit) = self.noting.clone().try_acquire_owned() else { return };
        let (inner, arguments) = (self.clone(), here(&Place::of(key)));
        tokio::spawn(async move {
            let _ = inner.write(&inner.statements.used, arguments, true).await;
            drop(permit);
        });
    }
}

// The columns of what is read.
const KIND: usize = 1;
const NUMBER: usize = 2;
const VALUE: usize = 3;
const WRITTEN: usize = 4;
const FRESH: usize = 5;
const EXPIRES: usize = 6;
const USED: usize = 7;
const NOW: usize = 8;

/// The number of a row that is read as a counter.
pub(crate) fn counter(row: &Row) -> Option<i64> {
    match row[KIND].integer()? {
        kind::COUNTER | kind::MARK => row[NUMBER].integer(),
        _ => None,
    }
}

const USE: i64 = 60_000;
