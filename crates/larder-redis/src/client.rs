//! The connection: one, multiplexed, watched by a task that replaces it.
//!
//! The task (`keep`) is the only one that connects, so there is never more than one attempt at a time. A connection is
//! given up as soon as an answer did not come in time, could not be read, or tells that the server is not the one to
//! write to; whatever else was in flight on it fails at once, and no reply of it is ever read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{Clock, Error, Result};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value, cmd};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::Builder;
use crate::dial::{Target, Transport};
use crate::outage::Why;
use crate::reply::refusal;
use crate::request::{Again, Failure, Request};
use crate::scripts;
use crate::time::{self, ServerTime};
use crate::{NAME, log};

/// Sends requests over the connection that there is.
pub(crate) struct Client {
    shared: Arc<Shared>,
    // Started by the first who needs it, and again if its runtime has ended.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    target: Target,
    clock: Clock,
    time: ServerTime,
    state: watch::Sender<State>,
    // How many connections there were: what was learned over an earlier one may no longer hold.
    connections: AtomicU64,
    // When a lost connection was last replaced without a pause.
    replaced: Mutex<Option<Instant>>,
}

#[derive(Clone)]
enum State {
    /// The first attempt after a connection was lost: those who come wait for it, within their limits.
    Connecting,
    Up(Arc<Link>),
    /// An attempt has failed, more are made in the background: those who come are told so at once.
    Down(Why),
}

struct Link {
    id: u64,
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(crate) fn new(builder: &Builder) -> Self {
        let client = Client {
            shared: Arc::new(Shared {
                target: Target::new(builder),
                clock: builder.clock.clone(),
                time: ServerTime::default(),
                state: watch::Sender::new(State::Connecting),
                connections: AtomicU64::new(0),
                replaced: Mutex::new(None),
            }),
            keeper: Mutex::new(None),
        };
        client.tend();
        client
    }

    pub(crate) fn target(&self) -> &Target {
        &self.shared.target
    }

    pub(crate) fn time(&self) -> &ServerTime {
        &self.shared.time
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Waits for the first attempt's outcome.
    pub(crate) async fn connected(&self) -> Result<()> {
        // The attempt has its own limit; this one is for a runtime that is too busy to notice it.
        let limit = Instant::now() + self.shared.target.connect_timeout * 2;
        match self.link(limit).await {
            Ok(_) => Ok(()),
            Err(why) => Err(Error::new(why.kind, &*why.words).with_backend(NAME)),
        }
    }

    /// Waits for a connection, or tells why there is none.
    pub(crate) async fn reached(&self, deadline: Instant) -> Result<()> {
        self.link(deadline).await.map(drop).map_err(|why| why.error(false))
    }

    /// Sends a request and gives as many replies as it has commands; a reply may be a server's error.
    ///
    /// Sends it once more, within the same time, when that is right: the server said that it is not the one to carry
    /// it out, or the connection was lost and the request may be repeated.
    ///
    /// When the future is dropped, the request is carried out or not; its replies reach nobody.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Vec<Value>, Failure> {
        let first = self.send(&request.commands, deadline).await;
        let second = match &first {
            Ok(replies) => {
                let unfit = |value: &Value| refusal(value).is_some_and(|why| why.unfit);
                let mut replies = replies[request.harmless..].iter();
                if request.again == Again::Yes || request.harmless == request.len() {
                    replies.any(unfit)
                } else {
                    replies.all(unfit)
                }
            }
            Err(failure) => failure.sent && !failure.late && request.again == Again::Yes,
        };
        let replies = if second {
            // What came first is the better answer when there is no time or connection for a second try.
            match self.send(&request.commands, deadline).await {
                Err(failure) if !failure.sent && first.is_ok() => first?,
                Err(failure) if !failure.sent => return first,
                again => again?,
            }
        } else {
            first?
        };
        self.reload(request, replies, deadline).await
    }

    // Calls that found their script forgotten are sent again with its source. They were not carried out before.
    async fn reload(
        &self,
        request: &Request,
        mut replies: Vec<Value>,
        deadline: Instant,
    ) -> Result<Vec<Value>, Failure> {
        let forgotten = |value: &Value| matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT");
        let mut again = Pipeline::new();
        let mut places = Vec::new();
        for (place, script) in &request.scripts {
            if !replies.get(*place).is_some_and(forgotten) {
                continue;
            }
            let mut eval = cmd("EVAL");
            eval.arg(&script.source);
            let call = request.commands.cmd_iter().nth(*place);
            for argument in call.into_iter().flat_map(Cmd::args_iter).skip(2) {
                if let redis::Arg::Simple(bytes) = argument {
                    eval.arg(bytes);
                }
            }
            again.add_command(eval);
            places.push(*place);
        }
        if !places.is_empty() {
            let values = self.send(&again, deadline).await?;
            for (place, value) in places.into_iter().zip(values) {
                replies[place] = value;
            }
        }
        Ok(replies)
    }

    async fn send(&self, commands: &Pipeline, deadline: Instant) -> Result<Vec<Value>, Failure> {
        let link = self.link(deadline).await.map_err(|why| Failure {
            error: why.error(false),
            sent: false,
            late: false,
        })?;
        let failed = |why: Why, late| {
            let error = why.error(true);
            self.shared.lose(&link, why);
            Failure { error, sent: true, late }
        };
        match timeout_at(deadline, link.send(commands)).await {
            Err(_) => Err(failed(Why::late(), true)),
            Ok(Err(error)) => Err(failed(Why::broken(&error), false)),
            Ok(Ok(replies)) if replies.len() != commands.len() => {
                Err(failed(Why::garbled(), false))
            }
            Ok(Ok(replies)) => {
                if let Some(refusal) =
                    replies.iter().filter_map(refusal).find(|refusal| refusal.unfit)
                {
                    self.shared.lose(&link, refusal.why());
                }
                Ok(replies)
            }
        }
    }

    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Why> {
        let mut state = self.shared.state.borrow().clone();
        if let State::Up(link) = &state
            && link.driver.is_finished()
        {
            // Closed, and its keeper has not noticed yet: nothing was sent, so nothing is in doubt.
            self.shared.lose(link, Why::closed());
            state = self.shared.state.borrow().clone();
        }
        match state {
            State::Up(link) => return Ok(link),
            State::Down(why) => {
                self.tend();
                return Err(why);
            }
            State::Connecting => self.tend(),
        }
        let mut states = self.shared.state.subscribe();
        let settled = states.wait_for(|state| !matches!(state, State::Connecting));
        let state = match timeout_at(deadline, settled).await {
            // The sender is in `shared`, so it cannot be gone.
            Ok(settled) => settled.map(|state| state.clone()).unwrap_or(State::Connecting),
            Err(_) => State::Connecting,
        };
        match state {
            State::Up(link) => Ok(link),
            State::Down(why) => Err(why),
            State::Connecting => {
                Err(Why::unreachable("it could not be connected to within the time limit"))
            }
        }
    }

    // Sees to it that there is a keeper.
    fn tend(&self) {
        let mut keeper = self.keeper.lock();
        if keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            *keeper = Some(runtime.spawn(keep(self.shared.clone())));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut() {
            keeper.abort();
        }
    }
}

impl Link {
    async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connection.clone();
        match commands.cmd_iter().next() {
            Some(command) if commands.len() == 1 => {
                connection.send_packed_command(command).await.map(|value| vec![value])
            }
            _ => connection.send_packed_commands(commands, 0, commands.len()).await,
        }
    }
}

// Connects, watches, and connects again, as long as the client lives.
async fn keep(shared: Arc<Shared>) {
    let mut failures = 0_u32;
    loop {
        match timeout(shared.target.connect_timeout, shared.open()).await {
            Ok(Ok((link, driver))) => {
                if failures > 0 {
                    tracing::info!(target: "larder::redis", attempts = failures, "connected to the server again");
                }
                let made = Instant::now();
                shared.state.send_replace(State::Up(link.clone()));
                shared.watch(&link, driver).await;
                failures = if made.elapsed() < PROVEN { failures + 1 } else { 0 };
                if matches!(*shared.state.borrow(), State::Connecting) {
                    continue;
                }
            }
            failed => {
                let why = match failed {
                    Ok(Err(why)) => why,
                    _ => Why::unreachable("it did not answer in time; check address and network"),
                };
                log::outage(failures == 0, &why.words);
                failures = failures.saturating_add(1);
                shared.state.send_replace(State::Down(why));
            }
        }
        sleep(pause(failures)).await;
    }
}

// After so many failures: 25 to 50 ms, doubled each time, at most 0.5 to 1 s.
pub(crate) fn pause(failures: u32) -> Duration {
    let ceiling =
        FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    ceiling.mul_f64(rand::random_range(0.5..1.0))
}

impl Shared {
    // Opens a connection and asks what must be known of the server.
    async fn open(&self) -> Result<(Arc<Link>, JoinHandle<()>), Why> {
        self.greet(self.target.dial().await?).await
    }

    async fn greet(&self, stream: Box<dyn Transport>) -> Result<(Arc<Link>, JoinHandle<()>), Why> {
        // The time limit is ours, around whole operations.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.target.login, stream, config)
                .await
                .map_err(|error| Why::login(&error))?;
        let driver = tokio::spawn(driver);
        let id = self.connections.fetch_add(1, Ordering::AcqRel) + 1;
        let link = Arc::new(Link { id, connection, driver: driver.abort_handle() });

        let mut load = Pipeline::new();
        load.add_command(cmd("ROLE"));
        for script in scripts::all() {
            let mut command = cmd("SCRIPT");
            command.arg("LOAD").arg(&script.source);
            load.add_command(command);
        }
        let replies = link.send(&load).await.map_err(|error| Why::broken(&error))?;
        fit(&replies)?;
        self.ask_time(&link, true).await?;
        Ok((link, driver))
    }

    // Until the connection is lost.
    async fn watch(&self, link: &Arc<Link>, mut driver: JoinHandle<()>) {
        loop {
            tokio::select! {
                _ = &mut driver => break,
                () = sleep(time::EVERY) => {}
            }
            // Also finds a peer that has gone without a word, before an operation has to.
            let asked = timeout(self.target.connect_timeout, self.ask(link)).await;
            if let Err(why) = asked.unwrap_or_else(|_| Err(Why::late())) {
                self.lose(link, why);
            }
        }
        self.lose(link, Why::closed());
    }

    async fn ask(&self, link: &Link) -> Result<(), Why> {
        let mut role = Pipeline::new();
        role.add_command(cmd("ROLE"));
        let replies = link.send(&role).await.map_err(|error| Why::broken(&error))?;
        fit(&replies)?;
        self.ask_time(link, false).await
    }

    async fn ask_time(&self, link: &Link, first: bool) -> Result<(), Why> {
        let mut request = Pipeline::new();
        request.add_command(cmd("TIME"));
        let asked = self.clock.now();
        let replies = link.send(&request).await.map_err(|error| Why::broken(&error))?;
        if let Some(refusal) = replies.first().and_then(refusal) {
            return Err(refusal.why());
        }
        let number = |value: &Value| match value {
            Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let answer = match replies.first() {
            Some(Value::Array(parts)) if parts.len() == 2 => {
                number(&parts[0]).zip(number(&parts[1]))
            }
            _ => None,
        };
        let Some((seconds, micros)) = answer else { return Err(Why::garbled()) };
        match first {
            true => self.time.restart(&self.clock, asked, seconds, micros),
            false => self.time.refresh(&self.clock, asked, seconds, micros),
        }
        Ok(())
    }

    // Gives a connection up, if it is still the present one.
    fn lose(&self, link: &Link, why: Why) {
        let lost = self.state.send_if_modified(|state| {
            if !matches!(state, State::Up(present) if present.id == link.id) {
                return false;
            }
            // One replacement without a pause every two seconds; a server that goes on failing gets pauses.
            let mut replaced = self.replaced.lock();
            let now = Instant::now();
            *state = if replaced.is_none_or(|last| now.duration_since(last) >= PROVEN) {
                *replaced = Some(now);
                State::Connecting
            } else {
                State::Down(why.clone())
            };
            true
        });
        if lost {
            log::lost(&why.words);
        }
        link.driver.abort();
    }
}

// Errors here mean that the server is not the one to talk to. What a user may not ask is no error.
fn fit(replies: &[Value]) -> Result<(), Why> {
    if let Some(refusal) = replies.iter().filter_map(refusal).find(|refusal| refusal.unfit) {
        return Err(refusal.why());
    }
    match replies.first() {
        Some(Value::Array(role)) => match role.first() {
            // Its data may be behind, and what was invalidated may still be there.
            Some(Value::BulkString(name)) if name == b"slave" => Err(Why::unreachable(
                "it is a replica, which cannot be written to; give the address of the primary",
            )),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

// A connection that lived so long is taken for a good one.
const PROVEN: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

// How many requests may wait to be written.
const QUEUE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling() {
        for failures in 1..200 {
            let pause = pause(failures);
            assert!(pause <= LONGEST_PAUSE && pause >= FIRST_PAUSE / 2, "{failures}: {pause:?}");
        }
        assert!(pause(100) >= LONGEST_PAUSE / 2);
    }
}
