//! Counters: numbers that the database adds to.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Counter, Error, ErrorKind, Key, Result, When};

use crate::database::{Argument, Database};
use crate::failure::Failure;
use crate::naming::Place;
use crate::reading::Look;
use crate::store::{Inner, OVERHEAD, here, millis};

impl<D: Database> Inner<D> {
    pub(crate) async fn add(
        self: &Arc<Self>,
        key: &Key,
        delta: i64,
        create: Option<Counter>,
    ) -> Result<Option<i64>> {
        let refuse = |words| Err(Error::new(ErrorKind::NotAnInteger, words).with_backend(D::NAME));
        const OTHER: &str =
            "the value is no plain integer, or the sum does not fit one; it is unchanged";
        let place = Place::of(key);
        let mut bounded = here(&place);
        // Where the sum fits: databases do not agree on what happens otherwise.
        bounded.push(Argument::Integer(Some(delta)));
        bounded.push(Argument::Integer(Some(i64::MIN.saturating_sub(delta.min(0)))));
        bounded.push(Argument::Integer(Some(i64::MAX.saturating_sub(delta.max(0)))));
        let first = create.map(|create| (create, create.initial.checked_add(delta)));
        if let Some((Counter { ttl, .. }, Some(sum))) = first
            && ttl.resolve(self.default_ttl) != Some(Duration::ZERO)
        {
            let ttl = ttl.resolve(self.default_ttl);
            bounded.push(Argument::Integer(Some(sum)));
            bounded.push(Argument::Integer(ttl.map(millis)));
            bounded.push(Argument::Integer(Some(OVERHEAD)));
            let answer = self.write(&self.statements.add_or_create, bounded, false).await;
            let answer = answer.map_err(Failure::in_doubt)?;
            return match answer.rows.first().and_then(|row| row[0].integer()) {
                Some(sum) => {
                    self.stored(1, OVERHEAD as u64).await;
                    Ok(Some(sum))
                }
                None => refuse(OTHER),
            };
        }
        for _ in 0..ATTEMPTS {
            let answer = self.write(&self.statements.add, bounded.clone(), false).await;
            let answer = answer.map_err(Failure::in_doubt)?;
            if let Some(sum) = answer.rows.first().and_then(|row| row[0].integer()) {
                return Ok(Some(sum));
            }
            // There was no counter to which it could be added. Was there anything?
            match self.look(key).await? {
                Look::Entry(entry) => match entry.as_counter() {
                    Some(value) if value.checked_add(delta).is_some() && is_counter(&entry) => {}
                    _ => return refuse(OTHER),
                },
                _ => {
                    return match first {
                        None => Ok(None),
                        Some((_, None)) => refuse(OTHER),
                        Some((_, Some(sum))) => {
                            // Asked to live for no time.
                            self.remove(key, When::Absent, self.deadline()).await?;
                            Ok(Some(sum))
                        }
                    };
                }
            }
        }
        let words = "the counter changes again and again; try later";
        Err(Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME))
    }
}

// Enveloped integers have a revision.
fn is_counter(entry: &larder_core::Entry) -> bool {
    entry.revision() == larder_core::Revision::NONE
}

const ATTEMPTS: usize = 100;
