//! The sequence and the tags' last invalidations. They may lie on different servers, and nothing changes two at once.
//!
//! What must hold: when an invalidation has returned, nothing that was built before it may look valid, whatever is lost
//! at whatever moment. A record that only grows is easy: it is stored while it is still the smaller number that was
//! read. The rest is about records that are missing, or of another epoch than the sequence, and one rule covers it:
//! **first the record is read, and made where there is none (empty); then the sequence is read; then the record is
//! written, if nobody has touched it since it was read.** An invalidation that took its number before the sequence was
//! read has a number that is not larger; one that took it later finds the record, raises it, and the late write fails;
//! and if the record is lost in between, the late write fails too.

use std::time::Duration;

use futures_util::future::join;
use larder_core::{Key, Marks, Namespace, Sequence, Tag, Ttl};
use tokio::time::Instant;

use crate::outage::Failure;
use crate::protocol::{Item, Only, Refusal, Reply, Request, Want};
use crate::record::sequence;
use crate::server::Server;
use crate::store::{Inner, item};

impl Inner {
    pub(crate) async fn marks(
        &self,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> Result<Marks, Failure> {
        let deadline = self.deadline();
        let keys: Vec<Key> = keys(namespace, tags);
        let refs: Vec<&Key> = keys.iter().collect();
        let found = self.records(&refs, deadline, false).await?;
        let numbers: Vec<Option<Sequence>> = found.iter().map(number).collect();
        let (mut now, mut marks) = (numbers[0], numbers[1..].to_vec());
        while self.in_time(deadline) {
            let known = |mark: &Option<Sequence>| {
                now.zip(*mark).is_some_and(|(now, mark)| now.same_epoch(mark))
            };
            let open: Vec<usize> = (0..tags.len()).filter(|at| !known(&marks[*at])).collect();
            if let Some(now) = now.filter(|_| open.is_empty()) {
                return Ok(Marks { sequence: now, tags: marks.into_iter().flatten().collect() });
            }
            let refs: Vec<&Key> = open.iter().map(|at| &keys[1 + *at]).collect();
            let made = self.records(&refs, deadline, true).await?;
            let present = self.present(&keys[0], deadline).await?;
            now = Some(present);
            let plan: Vec<Step> = made
                .iter()
                .map(|item| match number(item) {
                    Some(mark) if mark.same_epoch(present) => Step::Stands(mark),
                    _ => Step::Write(cas(item), present),
                })
                .collect();
            for (at, mark) in open.iter().zip(self.write(&refs, &plan, deadline).await?) {
                marks[*at] = mark;
            }
        }
        Err(Failure::contended())
    }

    pub(crate) async fn invalidate(
        &self,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> Result<Sequence, Failure> {
        let deadline = self.deadline();
        let keys: Vec<Key> = keys(namespace, tags);
        let mut open: Vec<&Key> = keys[1..].iter().collect();
        // In one round trip: for a record that only grows, the order does not matter.
        let (next, first) =
            join(self.next(&keys[0], deadline), self.records(&open, deadline, true)).await;
        let (mut next, mut first) = (next?, Some(first?));
        while !open.is_empty() && self.in_time(deadline) {
            let made = match first.take() {
                Some(made) => made,
                None => self.records(&open, deadline, true).await?,
            };
            let grows =
                |item: &Option<Item>| number(item).is_some_and(|mark| mark.same_epoch(next));
            if !made.iter().all(grows) {
                let present = self.present(&keys[0], deadline).await?;
                if !present.same_epoch(next) {
                    // The sequence was lost since: the number is one of the past, and so is what it would say.
                    next = self.next(&keys[0], deadline).await?;
                    open = keys[1..].iter().collect();
                    continue;
                }
            }
            let plan: Vec<Step> = made
                .iter()
                .map(|item| match number(item) {
                    Some(mark) if mark.same_epoch(next) && mark >= next => Step::Stands(mark),
                    _ => Step::Write(cas(item), next),
                })
                .collect();
            let written = self.write(&open, &plan, deadline).await?;
            let unwritten = open.iter().zip(&written).filter(|(_, mark)| mark.is_none());
            open = unwritten.map(|(key, _)| *key).collect();
        }
        if open.is_empty() { Ok(next) } else { Err(Failure::contended()) }
    }

    // Reads records, and has them live on. With `make`, empty ones are there afterwards where there were none.
    async fn records(
        &self,
        keys: &[&Key],
        deadline: Instant,
        make: bool,
    ) -> Result<Vec<Option<Item>>, Failure> {
        let read = |_: usize, server: &Server, name: &str, request: &mut Request| {
            let life = self.mark_life(server);
            request.get(name, if make { Want::Made(life) } else { Want::Kept(life) });
        };
        let replies = self.each(keys, true, deadline, read).await;
        replies.into_iter().map(|reply| item(reply?)).collect()
    }

    // Writes what is to be written. `None` where somebody was quicker, or may have been.
    async fn write(
        &self,
        keys: &[&Key],
        plan: &[Step],
        deadline: Instant,
    ) -> Result<Vec<Option<Sequence>>, Failure> {
        let mut marks: Vec<Option<Sequence>> = Vec::with_capacity(keys.len());
        let mut writes = Vec::new();
        for (at, step) in plan.iter().enumerate() {
            marks.push(match step {
                Step::Stands(mark) => Some(*mark),
                Step::Write(cas, mark) => {
                    writes.push((at, *cas, *mark));
                    None
                }
            });
        }
        let refs: Vec<&Key> = writes.iter().map(|(at, ..)| keys[*at]).collect();
        let replies = self
            .each(&refs, false, deadline, |place, server, name, request| {
                let (_, cas, mark) = writes[place];
                let text = mark.get().to_string();
                let life = self.mark_life(server);
                request.set(name, 0, text.as_bytes(), life, Only::Cas(cas));
            })
            .await;
        for ((at, _, mark), reply) in writes.iter().zip(replies) {
            match reply {
                Ok(Reply::Item(_)) => marks[*at] = Some(*mark),
                Ok(Reply::Refused(refusal)) => return Err(refusal.failure()),
                Ok(_) => {}
                // It is read again, and then tells.
                Err(failure) if failure.sent && !failure.late => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(marks)
    }

    // The sequence as it stands; a new one where it is lost.
    async fn present(&self, key: &Key, deadline: Instant) -> Result<Sequence, Failure> {
        let life = self.mark_life(self.server(key));
        while self.in_time(deadline) {
            let read = |name: &str, request: &mut Request| request.get(name, Want::Made(life));
            let found = item(self.one(key, true, deadline, read).await?)?;
            if let Some(number) = number(&found) {
                return Ok(number);
            }
            let start = Sequence::start().get().to_string();
            let only = Only::Cas(cas(&found));
            let write = |name: &str, request: &mut Request| {
                request.set(name, 0, start.as_bytes(), life, only);
            };
            // Whoever was first has chosen the epoch; read it.
            match self.one(key, false, deadline, write).await {
                Ok(Reply::Refused(refusal)) => return Err(refusal.failure()),
                Err(failure) if !failure.sent || failure.late => return Err(failure),
                _ => {}
            }
        }
        Err(Failure::contended())
    }

    // Takes the sequence's next number.
    async fn next(&self, key: &Key, deadline: Instant) -> Result<Sequence, Failure> {
        // How long that is may have to be told as a time of the server's.
        self.server(key).base(deadline).await?;
        let life = self.mark_life(self.server(key));
        while self.in_time(deadline) {
            // A number that is taken twice because the reply was lost is one that nobody uses.
            let next = |name: &str, request: &mut Request| request.next(name, life);
            match self.one(key, true, deadline, next).await? {
                Reply::Item(item) => {
                    if let Some(number) = sequence(&item.data) {
                        return Ok(number);
                    }
                }
                Reply::Missing | Reply::Refused(Refusal::NotNumeric) => {}
                Reply::Refused(refusal) => return Err(refusal.failure()),
                Reply::NotStored | Reply::Changed => return Err(Failure::garbled()),
            }
            self.present(key, deadline).await?;
        }
        Err(Failure::contended())
    }

    fn mark_life(&self, server: &Server) -> u32 {
        let life: Option<Duration> = self.mark_ttl.resolve(Ttl::STANDARD);
        server.life(life, &self.clock)
    }
}

// What is to be done with a record.
enum Step {
    Stands(Sequence),
    Write(u64, Sequence),
}

// Where the sequence and the tags are kept.
fn keys(namespace: &Namespace, tags: &[Tag]) -> Vec<Key> {
    let tags = tags.iter().map(|tag| Key::tag(namespace, tag));
    std::iter::once(Key::sequence(namespace)).chain(tags).collect()
}

fn number(item: &Option<Item>) -> Option<Sequence> {
    sequence(&item.as_ref()?.data)
}

// Zero is no writing of anything: storing over it is refused.
fn cas(item: &Option<Item>) -> u64 {
    item.as_ref().map_or(0, |item| item.cas)
}
