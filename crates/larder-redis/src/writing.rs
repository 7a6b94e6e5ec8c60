//! Puts: encoding, sending, and learning what became of them.

use bytes::Bytes;
use larder_core::envelope::{self, KeyOf, TimeBase};
use larder_core::{Error, ErrorKind, Key, Outcome, Put, Result, Revision, Times, When};
use redis::{Cmd, Value, cmd};
use tokio::time::Instant;

use crate::generation::Names;
use crate::reply::{ambiguous, copy, garbled, out_of_memory, unexpected};
use crate::request::{Again, Failure, Replies, Reply, Request};
use crate::store::{BATCH, Inner, Look, NAME_SIZE, lifetime};
use crate::{NAME, scripts};

// Values in one batch of writes, about.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

// One put, ready to be sent.
struct Write {
    key: Key,
    when: When,
    // What the condition compares with what is there.
    compared: Bytes,
    value: Bytes,
    // For the commands and scripts: milliseconds, nothing for ever, `0` to remove.
    lifetime: String,
    // `NONE` when it cannot be recognised by it.
    revision: Revision,
    // What the caller is told when the write, which is a removal then, took place.
    failed: Option<Error>,
}

impl Write {
    fn unsent(item: Put, error: Error) -> Self {
        Write {
            key: item.key,
            when: item.when,
            compared: Bytes::new(),
            value: Bytes::new(),
            lifetime: String::new(),
            revision: Revision::NONE,
            failed: Some(error),
        }
    }

    fn removes(&self) -> bool {
        self.lifetime == "0"
    }

    // Why it cannot be sent now.
    fn outage(&self) -> Option<&Error> {
        self.failed.as_ref().filter(|error| error.is_outage())
    }

    // A value that is too large removes what was there; one that cannot be encoded changes nothing.
    fn fail(&mut self, error: Error) {
        if error.kind() == ErrorKind::TooLarge {
            self.lifetime = "0".into();
        }
        self.failed = Some(error);
    }

    fn early(&self) -> Option<Result<Outcome>> {
        let failed = self.failed.as_ref().filter(|_| !self.removes())?;
        Some(Err(copy(failed)))
    }

    fn add_to(&self, request: &mut Request, names: &Names) {
        let (name, slot) = (names.of(&self.key), names.slot(&self.key));
        let condition = match self.when {
            When::Always => {
                // Room for all of it, so that the value is not moved while the command is made.
                let mut command = Cmd::with_capacity(5, self.value.len() + NAME_SIZE + 64);
                command.arg(if self.removes() { "UNLINK" } else { "SET" }).arg(name);
                if !self.removes() {
                    command.arg(&self.value[..]);
                    if !self.lifetime.is_empty() {
                        command.arg("PX").arg(&self.lifetime);
                    }
                }
                return request.command(slot, command);
            }
            When::Absent => "absent",
            When::Present => "present",
            When::Revision(_) => "revision",
            When::Token(_) => "marker",
        };
        let with = &self.compared[..];
        let arguments = [condition.as_bytes(), with, &self.value, self.lifetime.as_bytes()];
        request.script(slot, &scripts::PUT, &[name], arguments);
    }
}

impl Inner {
    pub(crate) async fn write(&self, items: Vec<Put>) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let deadline = self.deadline();
            let mut bytes = 0;
            let mut writes = Vec::new();
            while bytes < BATCH_BYTES && writes.len() < BATCH {
                let Some(item) = items.next() else { break };
                // One that cannot be timed cannot be sent either.
                let write = match self.base(self.home(&item.key), deadline).await {
                    Ok(base) => self.write_of(item, &base),
                    Err(error) => Write::unsent(item, error),
                };
                bytes += write.value.len();
                writes.push(write);
            }
            outcomes.extend(self.write_batch(&writes, deadline).await?);
        }
        Ok(outcomes)
    }

    fn write_of(&self, item: Put, base: &TimeBase) -> Write {
        let Put { key, entry, ttl, when } = item;
        let ttl = ttl.resolve(self.default_ttl);
        let compared = match when {
            When::Always | When::Absent | When::Present => Bytes::new(),
            When::Revision(revision) => Bytes::copy_from_slice(&revision.to_bytes()),
            When::Token(token) => self.marker_start(token, base),
        };
        let mut write = Write {
            compared,
            revision: entry.revision(),
            value: Bytes::new(),
            lifetime: lifetime(ttl),
            failed: None,
            key,
            when,
        };
        if write.removes() {
            return write;
        }
        let times = Times::starting(self.clock.now(), ttl, entry.freshness());
        let value = match envelope::plain_counter(&entry) {
            Some(text) => {
                write.revision = Revision::NONE;
                Ok(text)
            }
            None => self.envelope.encode(write.key.as_ref(), &entry.with_times(times), base),
        };
        match value {
            Ok(value) if value.len() as u64 <= self.max_value_bytes => write.value = value,
            Ok(_) => {
                let words = "the value is larger than max_value_bytes; raise it or store less";
                write.fail(Error::new(ErrorKind::TooLarge, words).with_backend(NAME));
            }
            Err(error) => write.fail(error),
        }
        write
    }

    // Fails as a whole when nothing of it was sent.
    async fn write_batch(
        &self,
        writes: &[Write],
        deadline: Instant,
    ) -> Result<Vec<Result<Outcome>>> {
        if let Some(error) = writes.iter().map(Write::outage).reduce(Option::and).flatten() {
            return Err(copy(error));
        }
        let mut outcomes: Vec<Option<Result<Outcome>>> = writes.iter().map(Write::early).collect();
        let sent: Vec<&Write> = writes.iter().filter(|write| write.early().is_none()).collect();
        let mut told = Vec::with_capacity(sent.len());
        if !sent.is_empty() {
            let homes = sent.iter().map(|write| self.home(&write.key));
            let done = self
                .run_each(homes, Again::No, deadline, |names, request| {
                    for write in &sent {
                        write.add_to(request, names);
                    }
                })
                .await;
            match done {
                Ok((names, replies)) => {
                    let unsent = |reply: &Reply| reply.as_ref().is_err_and(|why| !why.sent);
                    if sent.len() == writes.len() && replies.iter().all(unsent) {
                        return Err(replies
                            .into_iter()
                            .find_map(Result::err)
                            .map_or_else(garbled, Error::from));
                    }
                    self.drop_strays(&names, sent.iter().map(|write| &write.key), deadline).await;
                    told = self.settle_all(&sent, replies, &names, deadline).await;
                }
                Err(failure) => return Err(failure.error),
            }
        }
        let mut told = told.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = told.next();
        }
        let outcomes = outcomes.into_iter();
        Ok(outcomes.map(|outcome| outcome.unwrap_or_else(|| Err(garbled()))).collect())
    }

    async fn settle_all(
        &self,
        sent: &[&Write],
        replies: Replies,
        names: &Names,
        deadline: Instant,
    ) -> Vec<Result<Outcome>> {
        let mut outcomes = Vec::with_capacity(sent.len());
        let mut lost: Vec<(&Write, Failure)> = Vec::new();
        for (write, reply) in sent.iter().zip(replies) {
            outcomes.push(match reply {
                Ok(reply) => match self.settle(write, reply, names, deadline).await {
                    // By what it stored itself, perhaps, before it was made again for another key's sake.
                    Ok(Outcome::Refused) if names.same_before(&write.key) => {
                        lost.push((write, Failure::before(ambiguous())));
                        None
                    }
                    settled => Some(settled),
                },
                Err(failure) if failure.sent => {
                    lost.push((write, failure));
                    None
                }
                Err(failure) => Some(Err(failure.error)),
            });
        }
        let mut learned = Vec::new().into_iter();
        if !lost.is_empty() {
            // Boxed like all that is rare: every write's future would else have room for it.
            learned = Box::pin(self.learn(&lost)).await.into_iter();
        }
        let outcomes = outcomes.into_iter().map(|outcome| outcome.or_else(|| learned.next()));
        outcomes.map(|outcome| outcome.unwrap_or_else(|| Err(garbled()))).collect()
    }

    // The outcome of one write from its reply.
    async fn settle(
        &self,
        write: &Write,
        reply: Value,
        names: &Names,
        deadline: Instant,
    ) -> Result<Outcome> {
        let outcome = match reply {
            Value::Okay | Value::Int(1) => Outcome::Stored,
            // `UNLINK` counts, scripts say 0 for "the condition does not hold".
            Value::Int(_) if write.when == When::Always => Outcome::Stored,
            Value::Int(0) => Outcome::Refused,
            Value::BulkString(start) => {
                let start = Bytes::from(start);
                let base = self.base(self.home(&write.key), deadline).await?;
                if self.is_record(&write.key, &start, &base) {
                    return Ok(Outcome::Refused);
                }
                let (value, life) = (&write.value, &write.lifetime);
                match self.replace(&write.key, names, &start, value, life, deadline).await? {
                    true => Outcome::Stored,
                    // Somebody else was quicker.
                    false => Outcome::Refused,
                }
            }
            full if out_of_memory(&full) => {
                self.drop_old(write, names, deadline).await;
                return Err(unexpected(&full));
            }
            other => return Err(unexpected(&other)),
        };
        match (&write.failed, outcome) {
            (Some(failed), Outcome::Stored) => Err(copy(failed)),
            (_, outcome) => Ok(outcome),
        }
    }

    // Whether bytes, perhaps only the first ones, are an entry of a key. Damage is absent.
    fn is_record(&self, key: &Key, start: &Bytes, base: &TimeBase) -> bool {
        if start.len() < scripts::EVIDENCE {
            return matches!(self.look(key, start.clone(), base), Look::Entry(_));
        }
        match envelope::key_of(start) {
            Ok(KeyOf::Whole(found)) => found == *key,
            Ok(KeyOf::Needs(_)) => true,
            Err(_) => false,
        }
    }

    // The server had no room for the new value: the old one must not outlive it. Best effort, since it is the caller
    // who learns that the write failed.
    async fn drop_old(&self, write: &Write, names: &Names, deadline: Instant) {
        let mut request = Request::new(Again::Yes);
        let removal = Write {
            key: write.key.clone(),
            when: write.when,
            compared: write.compared.clone(),
            value: Bytes::new(),
            lifetime: "0".into(),
            revision: write.revision,
            failed: None,
        };
        removal.add_to(&mut request, names);
        let _ = self.client.exchange(&request, deadline).await;
    }

    // What was stored under names of the past while the namespace was cleared would stay if it has no lifetime.
    pub(crate) async fn drop_strays<'a>(
        &self,
        names: &Names,
        keys: impl IntoIterator<Item = &'a Key>,
        deadline: Instant,
    ) {
        if !names.repeated() {
            return;
        }
        let mut request = Request::new(Again::Yes);
        for key in keys {
            for stray in names.earlier_of(key) {
                let mut unlink = cmd("UNLINK");
                unlink.arg(stray);
                request.command(names.slot(key), unlink);
            }
        }
        if request.len() > 0 {
            let _ = Box::pin(self.client.exchange(&request, deadline)).await;
        }
    }

    // What became of writes whose replies were lost: a revision of ours on the server tells that it was stored.
    async fn learn(&self, lost: &[(&Write, Failure)]) -> Vec<Result<Outcome>> {
        // One without a condition that used up its time has no more time to learn what it may not need to know.
        let asks =
            |(write, failure): &&(&Write, Failure)| write.when != When::Always || !failure.late;
        let asked: Vec<&(&Write, Failure)> = lost.iter().filter(asks).collect();
        let mut found = Replies::new();
        if !asked.is_empty() {
            let homes = asked.iter().map(|(write, _)| self.home(&write.key));
            let answers = self
                .run_each(homes, Again::Yes, self.deadline(), |names, request| {
                    for (write, _) in &asked {
                        let mut get = cmd("GETRANGE");
                        get.arg(names.of(&write.key)).arg(0).arg(63);
                        request.command(names.slot(&write.key), get);
                    }
                })
                .await;
            found = answers.map(|(_, replies)| replies).unwrap_or_default();
        }
        let mut found = found.into_iter();
        let outcome = |one: &(&Write, Failure)| {
            let (write, failure) = one;
            let value = if asks(&one) { found.next().and_then(Result::ok) } else { None };
            let revision = match &value {
                Some(Value::BulkString(start)) if start.starts_with(envelope::MAGIC) => {
                    start.get(48..64)
                }
                _ => None,
            };
            let mine = !write.removes() && write.revision != Revision::NONE;
            if mine && revision == Some(&write.revision.to_bytes()) {
                return Ok(Outcome::Stored);
            }
            if write.when == When::Always {
                return Err(copy(&failure.error));
            }
            Err(ambiguous())
        };
        lost.iter().map(outcome).collect()
    }
}
