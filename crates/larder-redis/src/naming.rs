//! Requests under the names that keys have at this moment: a namespace's generation is part of them.

use larder_core::{Error, ErrorKind, Generation, Key, Result};
use redis::{Value, cmd};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::NAME;
use crate::generation::{self, Names, Verdict};
use crate::layout::Home;
use crate::reply::{garbled, one, out_of_memory, refusal, unexpected, wrong_type};
use crate::request::{Again, Failure, Replies, Request};
use crate::store::{ATTEMPTS, Inner};

impl Inner {
    // Where a key lies.
    pub(crate) fn home<'a>(&self, key: &'a Key) -> Home<'a> {
        self.client.layout().home(key)
    }

    // Makes a request under the names of these homes, again if they turn out to have changed meanwhile. All of it, or
    // the first failure. Replies are those to what `build` added.
    pub(crate) async fn run<'a>(
        &self,
        homes: impl IntoIterator<Item = Home<'a>>,
        again: Again,
        deadline: Instant,
        build: impl Fn(&Names, &mut Request),
    ) -> Result<(Names, Vec<Value>), Failure> {
        let (names, replies) = self.run_each(homes, again, deadline, build).await?;
        let values: Result<_, _> = replies.into_iter().collect();
        Ok((names, values?))
    }

    // The same, each command for itself.
    pub(crate) async fn run_each<'a>(
        &self,
        homes: impl IntoIterator<Item = Home<'a>>,
        again: Again,
        deadline: Instant,
        build: impl Fn(&Names, &mut Request),
    ) -> Result<(Names, Replies), Failure> {
        let homes: SmallVec<[Home<'a>; 4]> = homes.into_iter().collect();
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let mut names = self.names(&homes, deadline).await?.after(before);
            let mut request = Request::new(again);
            for (slot, ask) in names.asks() {
                request.harmless(slot, ask);
            }
            build(&names, &mut request);
            let mut replies = self.client.exchange_each(&request, deadline).await;
            let asked = names.questions().min(replies.len());
            let right = asked == 0 || {
                let answers: Replies = replies.drain(..asked).collect();
                let answers = answers.into_iter().map(|answer| match answer {
                    Ok(value) => match refusal(&value) {
                        Some(refusal) => Err(Failure::before(refusal.error())),
                        None => Ok(generation::read(&value)),
                    },
                    Err(failure) => Err(failure),
                });
                self.generations.learn(&mut names, answers) == Verdict::Right
            };
            if right {
                // What was done under names that may be of the past is in doubt.
                for (at, reply) in replies.iter_mut().enumerate() {
                    let Ok(value) = reply else { continue };
                    if let Some(failure) = names.failure_at(request.slot(request.harmless + at)) {
                        let sent = refusal(value).is_none();
                        *reply = Err(Failure { sent, ..failure.clone() });
                    }
                }
                return Ok((names, replies));
            }
            // What was done under the old names is out of everybody's reach.
            before = Some(names);
        }
        let words = "the namespace is being cleared again and again; try later";
        Err(Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(NAME)))
    }

    // The generations of these homes, made if the server has none. Fails if none of them can be had.
    async fn names(&self, homes: &[Home<'_>], deadline: Instant) -> Result<Names, Failure> {
        let names = self.known_names(homes);
        if names.settled() {
            return Ok(names);
        }
        // Boxed like all that is rare: every request's future would else have room for it.
        Box::pin(self.made_names(homes, deadline)).await
    }

    fn known_names(&self, homes: &[Home<'_>]) -> Names {
        // Read first: if a newer connection carries the request, the copy is asked for once more than needed.
        let connection = |slot| self.client.connection(slot);
        self.generations.names(homes.iter().copied(), connection)
    }

    async fn made_names(&self, homes: &[Home<'_>], deadline: Instant) -> Result<Names, Failure> {
        let mut before: Option<Names> = None;
        for _ in 0..ATTEMPTS {
            let mut names = self.known_names(homes).failed_as(before.as_ref());
            if let Some(failure) = names.failure() {
                return Err(failure.clone());
            }
            if names.settled() {
                return Ok(names);
            }
            let mut request = Request::new(Again::Yes);
            let makes = names.makes();
            for (slot, make, _) in &makes {
                request.command(*slot, make.clone());
            }
            let replies = self.client.exchange_each(&request, deadline).await;
            let mut answers = Vec::with_capacity(makes.len());
            for (((_, _, made), reply), place) in makes.iter().zip(replies).zip(names.asked()) {
                // Whatever becomes of this, the caller's own request was not sent.
                let answer = match reply {
                    Ok(reply) => self.made(reply, *made, &place, deadline).await,
                    Err(failure) => Err(failure),
                };
                answers.push(answer.map_err(|failure| Failure::before(failure.error)).map(Some));
            }
            self.generations.learn(&mut names, answers);
            before = Some(names);
        }
        let words =
            "the namespace's generation is lost again and again; does somebody flush the server?";
        Err(Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(NAME)))
    }

    // The generation that is there after an attempt to make one.
    async fn made(
        &self,
        reply: Value,
        made: Generation,
        place: &(String, u16),
        deadline: Instant,
    ) -> Result<Generation, Failure> {
        match reply {
            Value::Nil | Value::Okay => Ok(made),
            Value::BulkString(_) => match generation::read(&reply) {
                Some(generation) => Ok(generation),
                None => self.overwrite_generation(place, deadline).await,
            },
            // A full server refuses the command even where it would write nothing.
            full if out_of_memory(&full) => {
                let answer = self.plain_generation(place, deadline).await?;
                let refused = refusal(&full).map(|refusal| refusal.error());
                answer.ok_or_else(|| Failure::before(refused.unwrap_or_else(garbled)))
            }
            other if wrong_type(&other) => self.overwrite_generation(place, deadline).await,
            Value::ServerError(error) if error.code() == "ERR" => {
                let words = "the server does not know SET … NX GET: Larder needs Redis 7 or later, or Valkey";
                let error = Error::new(ErrorKind::Configuration, words).with_backend(NAME);
                Err(Failure::before(error))
            }
            other => Err(Failure::before(unexpected(&other))),
        }
    }

    // Something that is no generation lies in its place. Of two nodes that do this at once, the later one wins, and the
    // other one learns it when it asks again.
    async fn overwrite_generation(
        &self,
        (place, slot): &(String, u16),
        deadline: Instant,
    ) -> Result<Generation, Failure> {
        let generation = Generation::random();
        let mut request = Request::new(Again::Yes);
        let mut set = cmd("SET");
        set.arg(place).arg(generation.to_string());
        request.command(*slot, set);
        match one(self.client.exchange(&request, deadline).await?).map_err(Failure::before)? {
            Value::Okay => Ok(generation),
            other => Err(Failure::before(unexpected(&other))),
        }
    }

    async fn plain_generation(
        &self,
        (place, slot): &(String, u16),
        deadline: Instant,
    ) -> Result<Option<Generation>, Failure> {
        let mut request = Request::new(Again::Yes);
        let mut get = cmd("GET");
        get.arg(place);
        request.command(*slot, get);
        let reply =
            one(self.client.exchange(&request, deadline).await?).map_err(Failure::before)?;
        Ok(generation::read(&reply))
    }
}
