//! Requests under the names that keys have at this moment: a namespace's generation is part of them.

use larder_core::{Error, ErrorKind, Generation, Result};
use redis::{Value, cmd};
use tokio::time::Instant;

use crate::NAME;
use crate::generation::{self, Names, Verdict};
use crate::reply::{garbled, one, out_of_memory, refusal, unexpected, wrong_type};
use crate::request::{Again, Failure, Request};
use crate::store::{ATTEMPTS, Inner};

impl Inner {
    // Makes a request under the names of these namespaces, again if they turn out to have changed meanwhile. Replies
    // are those to what `build` added.
    pub(crate) async fn run<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a str>,
        again: Again,
        deadline: Instant,
        build: impl Fn(&Names, &mut Request),
    ) -> Result<(Names, Vec<Value>), Failure> {
        let namespaces: Vec<&str> = namespaces.into_iter().collect();
        let mut earlier = Vec::new();
        for _ in 0..ATTEMPTS {
            let names = self.names(&namespaces, deadline).await?.after(earlier);
            let mut request = Request::new(again);
            for ask in names.asks() {
                request.harmless(ask);
            }
            build(&names, &mut request);
            let mut answers = self.client.exchange(&request, deadline).await?;
            let replies = answers.split_off(names.questions().min(answers.len()));
            if let Some(refusal) = answers.iter().find_map(refusal) {
                return Err(Failure::before(refusal.error()));
            }
            let answers: Vec<Option<Generation>> = answers.iter().map(generation::read).collect();
            if self.generations.learn(&names, &answers) == Verdict::Right {
                return Ok((names, replies));
            }
            // What was done under the old names is out of everybody's reach.
            earlier = names.into_earlier();
        }
        let words = "the namespace is being cleared again and again; try later";
        Err(Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(NAME)))
    }

    // The generations of these namespaces, made if the server has none.
    pub(crate) async fn names(
        &self,
        namespaces: &[&str],
        deadline: Instant,
    ) -> Result<Names, Failure> {
        for _ in 0..ATTEMPTS {
            // Read first: if a newer connection carries the request, the copy is asked for once more than needed.
            let connection = self.client.connections();
            let names = self.generations.names(namespaces.iter().copied(), connection);
            if names.known() {
                return Ok(names);
            }
            let mut request = Request::new(Again::Yes);
            let makes = names.makes();
            for (make, _) in &makes {
                request.command(make.clone());
            }
            // Whatever becomes of this, the caller's own request was not sent.
            let replies = self.client.exchange(&request, deadline).await;
            let replies = replies.map_err(|failure| Failure::before(failure.error))?;
            let mut answers = Vec::with_capacity(makes.len());
            for (((_, made), reply), namespace) in makes.iter().zip(&replies).zip(names.asked()) {
                answers.push(match reply {
                    Value::Nil | Value::Okay => Some(*made),
                    Value::BulkString(_) => match generation::read(reply) {
                        Some(generation) => Some(generation),
                        None => Some(self.overwrite_generation(namespace, deadline).await?),
                    },
                    // A full server refuses the command even where it would write nothing.
                    full if out_of_memory(full) => {
                        let answer = self.plain_generation(namespace, deadline).await?;
                        let refused = refusal(full).map(|refusal| refusal.error());
                        Some(answer.ok_or_else(|| Failure::before(refused.unwrap_or_else(garbled)))?)
                    }
                    other if wrong_type(other) => {
                        Some(self.overwrite_generation(namespace, deadline).await?)
                    }
                    Value::ServerError(error) if error.code() == "ERR" => {
                        let words = "the server does not know SET … NX GET: Larder needs Redis 7 or later, or Valkey";
                        let error = Error::new(ErrorKind::Configuration, words).with_backend(NAME);
                        return Err(Failure::before(error));
                    }
                    other => return Err(Failure::before(unexpected(other))),
                });
            }
            self.generations.learn(&names, &answers);
        }
        let words =
            "the namespace's generation is lost again and again; does somebody flush the server?";
        Err(Failure::before(Error::new(ErrorKind::Unavailable, words).with_backend(NAME)))
    }

    // Something that is no generation lies in its place. Of two nodes that do this at once, the later one wins, and the
    // other one learns it when it asks again.
    async fn overwrite_generation(
        &self,
        namespace: &str,
        deadline: Instant,
    ) -> Result<Generation, Failure> {
        let generation = Generation::random();
        let mut request = Request::new(Again::Yes);
        let mut set = cmd("SET");
        set.arg(generation::place(namespace)).arg(generation.to_string());
        request.command(set);
        match one(self.client.exchange(&request, deadline).await?).map_err(Failure::before)? {
            Value::Okay => Ok(generation),
            other => Err(Failure::before(unexpected(&other))),
        }
    }

    async fn plain_generation(
        &self,
        namespace: &str,
        deadline: Instant,
    ) -> Result<Option<Generation>, Failure> {
        let mut request = Request::new(Again::Yes);
        let mut get = cmd("GET");
        get.arg(generation::place(namespace));
        request.command(get);
        let reply =
            one(self.client.exchange(&request, deadline).await?).map_err(Failure::before)?;
        Ok(generation::read(&reply))
    }
}
