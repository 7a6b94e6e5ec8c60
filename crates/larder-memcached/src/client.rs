//! A connection that is replaced by itself.
//!
//! A task of its own (`keep`) is the only one that connects, so there is never more than one attempt at a time. Who
//! comes while the first attempt is under way waits for it, within the limits of the operation; who comes while a server
//! is known to be down is told so at once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::link::Link;
use crate::log;
use crate::outage::{Failure, Why};
use crate::protocol::{Replies, Request};
use crate::server::Target;

/// Sends requests over the connection that there is.
pub(crate) struct Client {
    shared: Arc<Shared>,
    // Started by the first who needs it, and again if its runtime has ended.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    target: Arc<Target>,
    // One of a server's connections asks for its time.
    asks_time: bool,
    state: watch::Sender<State>,
    // When a lost connection was last replaced without a pause.
    replaced: Mutex<Option<Instant>>,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(Arc<Connection>),
    Down(Why),
}

/// A connection and its task, which ends with it.
pub(crate) struct Connection {
    pub(crate) link: Link,
    task: AbortHandle,
}

impl Connection {
    pub(crate) fn new(link: Link, task: AbortHandle) -> Self {
        Connection { link, task }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(crate) fn new(target: Arc<Target>, asks_time: bool) -> Self {
        let client = Client {
            shared: Arc::new(Shared {
                target,
                asks_time,
                state: watch::Sender::new(State::Connecting),
                replaced: Mutex::new(None),
            }),
            keeper: Mutex::new(None),
        };
        client.tend();
        client
    }

    /// Whether there is a connection now.
    pub(crate) fn is_up(&self) -> bool {
        matches!(&*self.shared.state.borrow(), State::Up(one) if !one.link.is_closed())
    }

    /// Waits for a connection, or tells why there is none.
    pub(crate) async fn reached(&self, deadline: Instant) -> Result<(), Why> {
        self.connection(deadline).await.map(drop)
    }

    /// Sends a request and gives as many replies as it has commands. If the connection is lost and the request may be
    /// repeated, it is sent once more, within the same time.
    ///
    /// When the future is dropped, the request is carried out or not; its replies reach nobody.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        repeat: bool,
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        let first = self.send(request, deadline).await;
        match &first {
            Err(failure) if failure.sent && !failure.late && repeat => {}
            _ => return first,
        }
        match self.send(request, deadline).await {
            // What came first is the better answer.
            Err(failure) if !failure.sent => first,
            second => second,
        }
    }

    async fn send(&self, request: &Request, deadline: Instant) -> Result<Replies, Failure> {
        let connection = self.connection(deadline).await.map_err(|why| Failure::unsent(&why))?;
        let result = connection.link.send(request, deadline).await;
        if connection.link.is_closed() {
            self.shared.lose(&connection, &Why::closed());
        }
        result
    }

    async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Why> {
        let mut state = self.shared.state.borrow().clone();
        if let State::Up(connection) = &state
            && connection.link.is_closed()
        {
            // Its keeper has not noticed yet. Nothing was sent, so nothing is in doubt.
            self.shared.lose(connection, &Why::closed());
            state = self.shared.state.borrow().clone();
        }
        match state {
            State::Up(connection) => return Ok(connection),
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
            State::Up(connection) => Ok(connection),
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

// Connects, watches, and connects again, as long as the client lives.
async fn keep(shared: Arc<Shared>) {
    let target = &shared.target;
    let mut failures = 0_u32;
    loop {
        match timeout(target.connect_timeout, target.open()).await {
            Ok(Ok(connection)) => {
                if failures > 0 {
                    log::recovered(target.number, failures);
                }
                let made = Instant::now();
                let connection = Arc::new(connection);
                shared.state.send_replace(State::Up(connection.clone()));
                let why = tokio::select! {
                    why = connection.link.closed() => why,
                    why = target.watch(&connection.link, shared.asks_time) => why,
                };
                connection.link.close(&why);
                shared.lose(&connection, &why);
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
                log::outage(target.number, failures == 0, &why.words);
                failures = failures.saturating_add(1);
                shared.state.send_replace(State::Down(why));
            }
        }
        sleep(pause(failures)).await;
    }
}

// After so many failures: 25 to 50 ms, doubled each time, at most 0.5 to 1 s.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.5..1.0))
}

impl Shared {
    // Gives a connection up, if it is still the present one.
    fn lose(&self, connection: &Arc<Connection>, why: &Why) {
        let lost = self.state.send_if_modified(|state| {
            if !matches!(state, State::Up(present) if Arc::ptr_eq(present, connection)) {
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
            log::lost(self.target.number, &why.words);
        }
    }
}

// A connection that lived so long is taken for a good one.
const PROVEN: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
