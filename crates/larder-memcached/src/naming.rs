//! Requests under the names that keys have at this moment, to the servers on which the keys lie.

use std::time::Duration;

use futures_util::future::join_all;
use larder_core::envelope::TimeBase;
use larder_core::{Clock, ErrorKind, Generation, Key};
use tokio::time::Instant;

use crate::generation::{self, Names, Verdict};
use crate::outage::Failure;
use crate::protocol::{Only, Replies, Reply, Request, Want};
use crate::server::Server;
use crate::store::Inner;
use crate::time;

impl Server {
    // Makes a request under the names of these namespaces, again if they turn out to have changed meanwhile. Replies
    // are those to what `build` added.
    async fn run<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a str> + Clone,
        repeat: bool,
        deadline: Instant,
        build: impl Fn(&Names, &mut Request),
    ) -> Result<Replies, Failure> {
        for _ in 0..ATTEMPTS {
            let names = self.names(namespaces.clone(), deadline).await?;
            let mut request = Request::new();
            for namespace in names.asked() {
                request.get(&generation::place(namespace), Want::Value);
            }
            let questions = request.count;
            build(&names, &mut request);
            let mut replies = self.exchange(&request, repeat, deadline).await?;
            if questions == 0 {
                return Ok(replies);
            }
            let answers: Vec<Option<Generation>> =
                replies.drain(..questions).map(|reply| generation::read(&reply)).collect();
            if self.generations.learn(&names, &answers) == Verdict::Right {
                return Ok(replies);
            }
            // What was done under other names is out of everybody's reach, and is evicted in time.
        }
        let words = "the namespace is being cleared again and again; try later";
        Err(Failure::of(ErrorKind::Unavailable, words))
    }

    // The generations of these namespaces, made if the server has none.
    async fn names<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a str> + Clone,
        deadline: Instant,
    ) -> Result<Names, Failure> {
        let mut foreign = false;
        for _ in 0..ATTEMPTS {
            // Read first: if a newer connection carries the request, the copy is asked for once more than needed.
            let names = self.generations.names(namespaces.clone(), self.connections());
            if names.known() {
                return Ok(names);
            }
            // What nobody of us wrote is replaced. Of two nodes that do so at once the later one wins, and the other one
            // learns it when it asks again.
            let only = if foreign { Only::Always } else { Only::Absent };
            let mut request = Request::new();
            for namespace in names.asked() {
                let (place, new) = (generation::place(namespace), Generation::random().to_string());
                request.set(&place, 0, new.as_bytes(), 0, only);
                request.get(&place, Want::Value);
            }
            // Whatever becomes of this, the caller's own request was not sent.
            let replies = self.exchange(&request, true, deadline).await;
            let replies = replies.map_err(|failure| Failure { sent: false, ..failure })?;
            if let Some(Reply::Refused(refusal)) = replies.first() {
                return Err(refusal.failure());
            }
            let answers: Vec<Option<Generation>> =
                replies.iter().skip(1).step_by(2).map(generation::read).collect();
            foreign = answers.contains(&None);
            self.generations.learn(&names, &answers);
        }
        let words =
            "the namespace's generation is lost again and again; does somebody flush the server?";
        Err(Failure::of(ErrorKind::Unavailable, words))
    }

    /// The server's time, if there was a connection; any other time otherwise.
    pub(crate) fn present_base(&self, clock: &Clock) -> TimeBase {
        let unknown = || TimeBase { millis: 0, at: clock.now() };
        self.target.time.base().unwrap_or_else(unknown)
    }

    /// A lifetime as the server is told it: never too short, since the record knows its end better. Counted from now, and
    /// where that is longer than the server can count, its time of ending; zero for ever.
    pub(crate) fn life(&self, ttl: Option<Duration>, clock: &Clock) -> u32 {
        let Some(ttl) = ttl else { return 0 };
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0) + 1;
        if seconds <= LONGEST_COUNTED {
            return seconds as u32;
        }
        let end = self.present_base(clock).millis(clock.now() + ttl) / 1000 + 2;
        // Beyond what the server can be told it keeps the item for ever.
        u32::try_from(end).ok().filter(|end| *end < time::END).unwrap_or(0)
    }
}

impl Inner {
    /// The server on which a key lies.
    pub(crate) fn server(&self, key: &Key) -> &Server {
        &self.servers[self.ring.server(key.as_ref())]
    }

    /// Sends commands for one key.
    pub(crate) async fn ask(
        &self,
        key: &Key,
        repeat: bool,
        deadline: Instant,
        add: impl Fn(&str, &mut Request),
    ) -> Result<Replies, Failure> {
        let namespaces = std::iter::once(key.namespace());
        let build = |names: &Names, request: &mut Request| add(&names.of(key), request);
        self.server(key).run(namespaces, repeat, deadline, build).await
    }

    /// Sends one command for one key.
    pub(crate) async fn one(
        &self,
        key: &Key,
        repeat: bool,
        deadline: Instant,
        add: impl Fn(&str, &mut Request),
    ) -> Result<Reply, Failure> {
        self.ask(key, repeat, deadline, add).await?.pop().ok_or_else(Failure::garbled)
    }

    /// Sends one command for each key, all at once, to every server its own in one round trip; the answers have the
    /// keys' order.
    pub(crate) async fn each(
        &self,
        keys: &[&Key],
        repeat: bool,
        deadline: Instant,
        add: impl Fn(usize, &Server, &str, &mut Request),
    ) -> Vec<Result<Reply, Failure>> {
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.servers.len()];
        for (index, key) in keys.iter().enumerate() {
            places[self.ring.server(key.as_ref())].push(index);
        }
        let add = &add;
        let shares = self.servers.iter().zip(&places).filter(|(_, places)| !places.is_empty());
        let shares = join_all(shares.map(|(server, places)| async move {
            let namespaces = places.iter().map(|place| keys[*place].namespace());
            let build = |names: &Names, request: &mut Request| {
                for place in places {
                    add(*place, server, &names.of(keys[*place]), request);
                }
            };
            (places, server.run(namespaces, repeat, deadline, build).await)
        }))
        .await;
        let mut answers: Vec<Result<Reply, Failure>> =
            keys.iter().map(|_| Err(Failure::garbled())).collect();
        for (places, replies) in shares {
            match replies {
                Ok(replies) => {
                    for (place, reply) in places.iter().zip(replies) {
                        answers[*place] = Ok(reply);
                    }
                }
                Err(failure) => {
                    for place in places {
                        answers[*place] = Err(failure.clone());
                    }
                }
            }
        }
        answers
    }
}

/// How often something is tried again that others have undone.
pub(crate) const ATTEMPTS: usize = 4;

// Thirty days; more is taken for a date.
const LONGEST_COUNTED: u64 = 30 * 24 * 60 * 60;
