//! Puts and removals: encoding, sending, and learning what became of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::envelope::TimeBase;
use larder_core::{
    Entry, Error, ErrorKind, Key, Outcome, Payload, Put, Result, Revision, Sequence, Times, When,
};
use tokio::time::Instant;

use crate::database::{Argument, Database};
use crate::failure::{Failure, ambiguous};
use crate::naming::Place;
use crate::reading::Look;
use crate::statements::{Statement, condition, kind};
use crate::store::{BATCH, Inner, OVERHEAD, condition_of, here, millis, text};

// One put, ready to be sent.
struct Write {
    key: Key,
    place: Place,
    when: When,
    kind: i64,
    number: Option<i64>,
    // `NONE` when it cannot be recognised by it.
    revision: Revision,
    value: Option<Bytes>,
    fresh: Option<i64>,
    ttl: Option<i64>,
    removes: bool,
    // What the caller is told when the write, which is a removal then, took place.
    failed: Option<Error>,
}

impl Write {
    fn size(&self) -> i64 {
        OVERHEAD + self.value.as_ref().map_or(0, |value| value.len() as i64)
    }

    fn revision(&self) -> Option<Bytes> {
        let revision = (self.revision != Revision::NONE).then(|| self.revision.to_bytes());
        revision.map(|bytes| bytes.to_vec().into())
    }

    fn compared(&self) -> (i64, Option<Bytes>) {
        let (condition, compared) = condition_of(self.when);
        (condition, compared.map(|bytes| bytes.to_vec().into()))
    }
}

impl<D: Database> Inner<D> {
    pub(crate) async fn put(self: &Arc<Self>, put: Put) -> Result<Outcome> {
        let write = self.encoded(put)?;
        self.put_one(&write).await
    }

    pub(crate) async fn put_many(
        self: &Arc<Self>,
        items: Vec<Put>,
    ) -> Result<Vec<Result<Outcome>>> {
        let writes: Vec<Result<Write>> = items.into_iter().map(|put| self.encoded(put)).collect();
        let mut outcomes: Vec<Option<Result<Outcome>>> = Vec::with_capacity(writes.len());
        let mut waiting: Vec<(usize, Write)> = Vec::new();
        for (index, write) in writes.into_iter().enumerate() {
            match write {
                Ok(write) => {
                    waiting.push((index, write));
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        while !waiting.is_empty() {
            // A statement may write a row once; what names a key again waits for the next one.
            let (mut batch, mut later, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut seen = HashSet::new();
            for (index, write) in waiting {
                let first = seen.insert(write.key.clone());
                if first && batch.len() < BATCH && bytes < BATCH_BYTES {
                    bytes += write.size();
                    batch.push((index, write));
                } else {
                    later.push((index, write));
                }
            }
            waiting = later;
            let namespace = batch.first().map(|(_, write)| write.place.namespace.clone());
            let alone = |write: &Write| {
                // Without arrays, only what is bound for all rows alike can be one statement.
                let of_all = write.when == When::Always
                    && Some(&write.place.namespace) == namespace.as_ref();
                write.removes || !(D::SERVERS_TIME || of_all)
            };
            let (mut single, mut many): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|(_, write)| alone(write));
            for (rows, statement) in &self.statements.put_rows {
                while many.len() >= *rows {
                    let rows = many.split_off(many.len() - rows);
                    self.put_rows(statement, &rows).await?;
                    for (index, _) in rows {
                        outcomes[index] = Some(Ok(Outcome::Stored));
                    }
                }
            }
            if !D::SERVERS_TIME {
                single.append(&mut many);
            }
            for (index, write) in single {
                outcomes[index] = Some(self.put_one(&write).await);
            }
            if !many.is_empty() {
                for (index, outcome) in self.put_batch(&many).await? {
                    outcomes[index] = Some(outcome);
                }
            }
        }
        let unanswered = || Err(Error::new(ErrorKind::Other, "an item was left without an answer"));
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect())
    }

    // What is encoded does not depend on what is there. A value that is too large becomes a removal.
    fn encoded(&self, put: Put) -> Result<Write> {
        let Put { key, entry, ttl, when } = put;
        let ttl = ttl.resolve(self.default_ttl);
        let mut write = Write {
            place: Place::of(&key),
            when,
            kind: kind::COUNTER,
            number: None,
            revision: Revision::NONE,
            value: None,
            fresh: entry.freshness().map(millis),
            ttl: ttl.map(millis),
            removes: ttl == Some(Duration::ZERO),
            failed: None,
            key,
        };
        if write.removes {
            return Ok(write);
        }
        // A plain integer has no revision, so that a counter is the same whether it was put or added to.
        if let Some(value) = entry.as_counter() {
            write.number = Some(value);
            return Ok(write);
        }
        let integer = matches!(entry.payload(), Payload::Integer(_));
        let entry = match entry.revision() {
            Revision::NONE if integer => entry.with_revision(Revision::random()),
            _ => entry,
        };
        write.kind = kind::ENTRY;
        write.revision = entry.revision();
        match self.value(&write.key, entry) {
            Ok(value) => write.value = Some(value),
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                write.removes = true;
                write.failed = Some(error);
            }
            Err(error) => return Err(error),
        }
        Ok(write)
    }

    fn value(&self, key: &Key, entry: Entry) -> Result<Bytes> {
        // The times are columns of the row, which the database sets; these are never looked at.
        let now = self.clock.now();
        let entry = entry.with_times(Times::starting(now, None, None));
        let built_at = entry.built_at();
        debug_assert!(built_at == Sequence::NONE || Sequence::from_i64(built_at.get()).is_some());
        let bytes = self.envelope.encode(key.as_ref(), &entry, &TimeBase { millis: 0, at: now });
        let bytes = bytes.map_err(|error| error.with_backend(D::NAME))?;
        if bytes.len() as u64 > self.max_value_bytes {
            let words = "the value is larger than max_value_bytes; raise it or store less";
            return Err(Error::new(ErrorKind::TooLarge, words).with_backend(D::NAME));
        }
        Ok(bytes)
    }

    async fn put_one(self: &Arc<Self>, write: &Write) -> Result<Outcome> {
        if write.removes {
            return self.remove_put(write).await;
        }
        let mut arguments = here(&write.place);
        arguments.push(Argument::Integer(Some(write.kind)));
        arguments.push(Argument::Integer(write.number));
        arguments.push(Argument::Blob(write.revision()));
        arguments.push(Argument::Blob(write.value.clone()));
        arguments.push(Argument::Integer(write.fresh));
        arguments.push(Argument::Integer(write.ttl));
        arguments.push(Argument::Integer(Some(write.size())));
        let (condition, compared) = write.compared();
        arguments.push(Argument::Integer(Some(condition)));
        let statement = match condition {
            condition::ALWAYS | condition::ABSENT => &self.statements.put,
            _ => {
                arguments.push(Argument::Blob(compared));
                &self.statements.replace
            }
        };
        let always = write.when == When::Always;
        match self.write(statement, arguments, always).await {
            Ok(answer) if answer.rows.is_empty() => Ok(Outcome::Refused),
            Ok(_) => {
                self.stored(1, write.size() as u64).await;
                Ok(Outcome::Stored)
            }
            Err(failure) if failure.sent && !always => self.learn(write).await,
            Err(failure) => Err(failure.error),
        }
    }

    async fn remove_put(self: &Arc<Self>, write: &Write) -> Result<Outcome> {
        let removed = self.remove(&write.key, write.when, self.deadline()).await;
        let outcome = match removed.map_err(Failure::in_doubt)? {
            Some(_) => Outcome::Stored,
            None if write.when == When::Always => Outcome::Stored,
            // Nothing was there, or something that must not go.
            None if write.when == When::Absent => match self.look(&write.key).await? {
                Look::Entry(_) => Outcome::Refused,
                _ => Outcome::Stored,
            },
            None => Outcome::Refused,
        };
        match (&write.failed, outcome) {
            (Some(failed), Outcome::Stored) => {
                Err(Error::new(failed.kind(), failed_words(failed)).with_backend(D::NAME))
            }
            (_, outcome) => Ok(outcome),
        }
    }

    /// Removes what is there if the condition holds: whether that was an entry, `None` when nothing was removed.
    pub(crate) async fn remove(
        &self,
        key: &Key,
        when: When,
        deadline: Instant,
    ) -> Result<Option<bool>, Failure> {
        let (condition, compared) = condition_of(when);
        let mut arguments = here(&Place::of(key));
        arguments.push(Argument::Integer(Some(condition)));
        arguments.push(Argument::Blob(compared.map(|bytes| bytes.to_vec().into())));
        let again = when == When::Always;
        let statement = &self.statements.remove;
        let answer = self.writer.fetch(statement, arguments, again, deadline).await?;
        Ok(answer.rows.first().map(|row| row[0].integer() == Some(1)))
    }

    // Rows of one namespace, without a condition.
    async fn put_rows(
        self: &Arc<Self>,
        statement: &Statement,
        writes: &[(usize, Write)],
    ) -> Result<()> {
        let namespace = writes.first().map_or("", |(_, write)| &write.place.namespace);
        let mut arguments = vec![text(namespace)];
        let mut bytes = 0;
        for (_, write) in writes {
            bytes += write.size() as u64;
            arguments.extend([
                text(&*write.place.name),
                Argument::Integer(Some(write.kind)),
                Argument::Integer(write.number),
                Argument::Blob(write.revision()),
                Argument::Blob(write.value.clone()),
                Argument::Integer(write.fresh),
                Argument::Integer(write.ttl),
                Argument::Integer(Some(write.size())),
            ]);
        }
        self.write(statement, arguments, true).await?;
        self.stored(writes.len() as u64, bytes).await;
        Ok(())
    }

    async fn put_batch(
        self: &Arc<Self>,
        writes: &[(usize, Write)],
    ) -> Result<Vec<(usize, Result<Outcome>)>> {
        let each = || writes.iter().map(|(_, write)| write);
        let texts =
            |one: fn(&Write) -> &str| Argument::Texts(each().map(|w| one(w).to_owned()).collect());
        let numbers =
            |one: fn(&Write) -> Option<i64>| Argument::Integers(each().map(one).collect());
        let blobs = |one: fn(&Write) -> Option<Bytes>| Argument::Blobs(each().map(one).collect());
        let always = each().all(|write| write.when == When::Always);
        let namespace = writes.first().map_or("", |(_, write)| &write.place.namespace);
        let plain = always && each().all(|write| write.place.namespace == namespace);
        let mut arguments = vec![
            if plain { text(namespace) } else { texts(|write| &write.place.namespace) },
            texts(|write| &write.place.name),
            numbers(|write| Some(write.kind)),
            numbers(|write| write.number),
            blobs(Write::revision),
            blobs(|write| write.value.clone()),
            numbers(|write| write.fresh),
            numbers(|write| write.ttl),
            numbers(|write| Some(write.size())),
        ];
        let statement = if plain {
            &self.statements.put_all
        } else {
            arguments.push(numbers(|write| Some(write.compared().0)));
            arguments.push(blobs(|write| write.compared().1));
            &self.statements.put_many
        };
        match self.write(statement, arguments, always).await {
            Ok(_) if plain => {
                let bytes = each().map(|write| write.size() as u64).sum();
                self.stored(writes.len() as u64, bytes).await;
                Ok(writes.iter().map(|(index, _)| (*index, Ok(Outcome::Stored))).collect())
            }
            Ok(answer) => {
                let stored: HashSet<(&str, &str)> = answer
                    .rows
                    .iter()
                    .filter_map(|row| Some((row[0].text()?, row[1].text()?)))
                    .collect();
                let (mut count, mut bytes) = (0, 0);
                let mut outcomes = Vec::with_capacity(writes.len());
                for (index, write) in writes {
                    let stored = stored.contains(&(&*write.place.namespace, &*write.place.name));
                    count += u64::from(stored);
                    bytes += if stored { write.size() as u64 } else { 0 };
                    let outcome = if stored { Outcome::Stored } else { Outcome::Refused };
                    outcomes.push((*index, Ok(outcome)));
                }
                self.stored(count, bytes).await;
                Ok(outcomes)
            }
            Err(failure) if failure.sent && !always => {
                let mut outcomes = Vec::with_capacity(writes.len());
                for (index, write) in writes {
                    outcomes.push((*index, self.learn(write).await));
                }
                Ok(outcomes)
            }
            Err(failure) => Err(failure.error),
        }
    }

    // What became of a conditional write whose answer was lost: a revision of ours tells that it was stored.
    async fn learn(self: &Arc<Self>, write: &Write) -> Result<Outcome> {
        if let Ok(Look::Entry(entry)) = self.look(&write.key).await
            && write.revision != Revision::NONE
            && entry.revision() == write.revision
        {
            return Ok(Outcome::Stored);
        }
        Err(ambiguous(Some(D::NAME)))
    }
}

// An error's words without the backend's name, which is put before them again.
fn failed_words(error: &Error) -> String {
    let text = error.to_string();
    match error.backend() {
        Some(name) => text.trim_start_matches(name).trim_start_matches(": ").to_owned(),
        None => text,
    }
}

// Values in one statement, about.
const BATCH_BYTES: i64 = 8 << 20;
