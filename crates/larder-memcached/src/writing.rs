//! Puts: encoding, sending, and learning what became of them.

use bytes::Bytes;
use futures_util::future::join_all;
use larder_core::envelope::plain_counter;
use larder_core::{Error, ErrorKind, Key, Outcome, Payload, Put, Result, Revision, Times, When};
use tokio::time::Instant;

use crate::NAME;
use crate::outage::{Failure, ambiguous};
use crate::protocol::{Only, Reply, Request};
use crate::record::{Counter, Look, kind};
use crate::store::{BATCH, Change, Inner};

// Values in one batch of writes, about.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

// One put, ready to be sent.
struct Write {
    key: Key,
    when: When,
    value: Bytes,
    life: u32,
    removes: bool,
    // `NONE` when it cannot be recognised by it.
    revision: Revision,
    // What the caller is told when the write, which is a removal then, took place.
    failed: Option<Error>,
}

impl Write {
    fn change(&self) -> Change<'_> {
        match self.removes {
            true => Change::Remove,
            false => Change::Store(kind::ENTRY, &self.value, self.life),
        }
    }

    // Whether it is one command, at least if all goes well.
    fn direct(&self) -> bool {
        self.when == When::Always || (self.when == When::Absent && !self.removes)
    }

    fn add_to(&self, name: &str, request: &mut Request) {
        let only = if self.when == When::Always { Only::Always } else { Only::Absent };
        match self.change() {
            Change::Remove => request.delete(name, None),
            Change::Store(kind, value, life) => request.set(name, kind, value, life, only),
        }
    }

    fn holds(&self, look: &Look) -> bool {
        match self.when {
            When::Always => true,
            When::Absent => !look.is_entry(),
            When::Present => look.is_entry(),
            When::Revision(revision) => {
                matches!(look, Look::Entry(entry) if entry.revision() == revision)
            }
            When::Token(token) => matches!(look, Look::Fill(planted) if *planted == token),
        }
    }

    fn done(&self) -> Result<Outcome> {
        self.failed.as_ref().map_or(Ok(Outcome::Stored), |failed| Err(copy(failed)))
    }
}

impl Inner {
    pub(crate) async fn put(&self, item: Put) -> Result<Outcome> {
        let deadline = self.deadline();
        let write = self.write_of(item, deadline).await?;
        let first = match write.direct() {
            true => {
                let add = |name: &str, request: &mut Request| write.add_to(name, request);
                Some(self.one(&write.key, false, deadline, add).await)
            }
            false => None,
        };
        self.settle(&write, first, deadline).await
    }

    pub(crate) async fn put_many(&self, items: Vec<Put>) -> Vec<Result<Outcome>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let deadline = self.deadline();
            let (mut bytes, mut writes) = (0, Vec::new());
            while bytes < BATCH_BYTES && writes.len() < BATCH {
                let Some(item) = items.next() else { break };
                let write = self.write_of(item, deadline).await;
                bytes += write.as_ref().map_or(0, |write| write.value.len());
                writes.push(write);
            }
            outcomes.extend(self.write_batch(writes, deadline).await);
        }
        outcomes
    }

    async fn write_of(&self, item: Put, deadline: Instant) -> Result<Write> {
        let Put { key, entry, ttl, when } = item;
        let server = self.server(&key);
        let base = server.base(deadline).await?;
        let ttl = ttl.resolve(self.default_ttl);
        let mut write = Write {
            revision: entry.revision(),
            value: Bytes::new(),
            life: server.life(ttl, &self.clock),
            removes: ttl.is_some_and(|ttl| ttl.is_zero()),
            failed: None,
            key,
            when,
        };
        if write.removes {
            return Ok(write);
        }
        let times = Times::starting(self.clock.now(), ttl, entry.freshness());
        let plain = plain_counter(&entry).is_some();
        let value = match entry.payload() {
            Payload::Integer(value) if plain => {
                write.revision = Revision::NONE;
                let end = times.expires.map(|end| base.millis(end));
                Ok(Counter { value: *value, end, sequence: false }.text())
            }
            _ => self.envelope.encode(write.key.as_ref(), &entry.with_times(times), &base),
        };
        // A value that is too large removes what was there; one that cannot be encoded changes nothing.
        let failed = match value {
            Ok(value) if value.len() as u64 <= self.max_value() => {
                write.value = value;
                return Ok(write);
            }
            Ok(_) => {
                let words = "the value is larger than the server takes (-I) or max_value_bytes allows; raise them or store less";
                Error::new(ErrorKind::TooLarge, words).with_backend(NAME)
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => error.with_backend(NAME),
            Err(error) => return Err(error),
        };
        write.removes = true;
        write.failed = Some(failed);
        Ok(write)
    }

    // What is one command goes in one round trip; the rest looks first, all at once.
    async fn write_batch(
        &self,
        writes: Vec<Result<Write>>,
        deadline: Instant,
    ) -> Vec<Result<Outcome>> {
        let direct: Vec<&Write> = writes.iter().flatten().filter(|write| write.direct()).collect();
        let keys: Vec<&Key> = direct.iter().map(|write| &write.key).collect();
        let replies = self
            .each(&keys, false, deadline, |place, _, name, request| {
                direct[place].add_to(name, request);
            })
            .await;
        let mut replies = replies.into_iter();
        let mut settled = Vec::with_capacity(writes.len());
        for write in &writes {
            let first = write.as_ref().is_ok_and(Write::direct).then(|| replies.next()).flatten();
            settled.push(async move {
                match write {
                    Ok(write) => self.settle(write, first, deadline).await,
                    Err(error) => Err(copy(error)),
                }
            });
        }
        join_all(settled).await
    }

    // The outcome of a write whose first command, if it has one, was answered so.
    async fn settle(
        &self,
        write: &Write,
        first: Option<Result<Reply, Failure>>,
        deadline: Instant,
    ) -> Result<Outcome> {
        let outcome = match first {
            Some(Ok(Reply::Item(_))) => return write.done(),
            Some(Ok(Reply::Missing)) if write.removes => return write.done(),
            Some(Ok(Reply::Refused(refusal))) => Err(refusal.failure()),
            Some(Ok(Reply::NotStored)) | None => self.compare(write, deadline).await,
            Some(Ok(_)) => Err(Failure::garbled()),
            Some(Err(failure)) => Err(failure),
        };
        match outcome {
            Ok(Outcome::Stored) => write.done(),
            Ok(Outcome::Refused) => Ok(Outcome::Refused),
            Err(failure) if failure.sent => self.learn(write, failure).await,
            Err(failure) => Err(failure.into()),
        }
    }

    // Looks whether the condition holds, and writes while what was seen is still there.
    async fn compare(&self, write: &Write, deadline: Instant) -> Result<Outcome, Failure> {
        while self.in_time(deadline) {
            let seen = self.look(&write.key, deadline).await;
            // A look that was lost has changed nothing.
            let seen = seen.map_err(|failure| Failure { sent: false, ..failure })?;
            if !write.holds(&seen.look) {
                return Ok(Outcome::Refused);
            }
            if self.swap(&write.key, seen.cas, write.change(), deadline).await? {
                return Ok(Outcome::Stored);
            }
        }
        Err(Failure::contended())
    }

    // What became of a write whose reply was lost: a revision of ours on the server tells that it was stored.
    async fn learn(&self, write: &Write, failure: Failure) -> Result<Outcome> {
        if failure.late && write.when == When::Always {
            return Err(failure.into());
        }
        if !write.removes
            && write.revision != Revision::NONE
            && let Ok(seen) = self.look(&write.key, self.deadline()).await
            && matches!(&seen.look, Look::Entry(entry) if entry.revision() == write.revision)
        {
            return Ok(Outcome::Stored);
        }
        if write.when == When::Always { Err(failure.into()) } else { Err(ambiguous()) }
    }
}

fn copy(error: &Error) -> Error {
    let text = error.to_string();
    let words = text.strip_prefix(NAME).and_then(|text| text.strip_prefix(": ")).unwrap_or(&text);
    Error::new(error.kind(), words).with_backend(NAME)
}
