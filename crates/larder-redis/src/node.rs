//! One server, and the connection to it: one, multiplexed, watched by a task that replaces it.
//!
//! The task (`keep`) is the only one that connects, so there is never more than one attempt at a time. A connection is
//! given up as soon as an answer did not come in time, could not be read, or tells that the server is not the one to
//! write to; whatever else was in flight on it fails at once, and no reply of it is ever read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::Clock;
use parking_lot::Mutex;
use redis::{Pipeline, Value, cmd};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::dial::{Address, Dialer, Transport};
use crate::link::{Link, Role};
use crate::log;
use crate::outage::Why;
use crate::reply::{misdirected, refusal};
use crate::request::{Failure, Values};
use crate::task::Tended;
use crate::time::{self, ServerTime};
use crate::topology::Sentinels;

/// Which server it is.
pub(crate) enum Place {
    At(Address),
    /// The primary, as sentinels tell.
    Told(Arc<Sentinels>),
}

/// What all nodes of a backend share.
pub(crate) struct Common {
    pub(crate) dialer: Dialer,
    pub(crate) clock: Clock,
    // So that no two connections have the same number.
    pub(crate) links: AtomicU64,
}

/// Sends over the connection that there is.
pub(crate) struct Node {
    shared: Arc<Shared>,
    keeper: Tended,
}

struct Shared {
    common: Arc<Common>,
    place: Place,
    role: Role,
    time: ServerTime,
    state: watch::Sender<State>,
    // The number of the latest connection: what was learned over an earlier one may no longer hold.
    latest: AtomicU64,
    server: AtomicU16,
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

impl Node {
    pub(crate) fn new(common: &Arc<Common>, place: Place, role: Role) -> Self {
        let shared = Shared {
            common: common.clone(),
            place,
            role,
            time: ServerTime::default(),
            state: watch::Sender::new(State::Connecting),
            latest: AtomicU64::new(0),
            server: AtomicU16::new(0),
            replaced: Mutex::new(None),
        };
        let node = Node { shared: Arc::new(shared), keeper: Tended::default() };
        node.tend();
        node
    }

    pub(crate) fn time(&self) -> &ServerTime {
        &self.shared.time
    }

    pub(crate) fn login(&self) -> &redis::RedisConnectionInfo {
        &self.shared.common.dialer.login
    }

    pub(crate) fn place(&self) -> &Place {
        &self.shared.place
    }

    /// The number of its latest connection.
    pub(crate) fn latest(&self) -> u64 {
        self.shared.latest.load(Ordering::Acquire)
    }

    /// A number for where its latest connection leads.
    pub(crate) fn server(&self) -> u16 {
        self.shared.server.load(Ordering::Acquire)
    }

    /// Whether the last attempt to connect has failed.
    pub(crate) fn is_down(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Down(_))
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Up(_))
    }

    /// Waits for the first attempt's outcome.
    pub(crate) async fn connected(&self) -> Result<(), Why> {
        // The attempt has its own limit; this one is for a runtime that is too busy to notice it.
        self.reached(Instant::now() + self.shared.common.dialer.connect_timeout * 2).await
    }

    /// Waits for a connection, or tells why there is none.
    pub(crate) async fn reached(&self, deadline: Instant) -> Result<(), Why> {
        self.link(deadline).await.map(drop)
    }

    /// Opens another connection to the same server, on which nothing was said yet. Its caller limits the time.
    pub(crate) async fn dial(&self) -> Result<Box<dyn Transport>, Why> {
        let address = self.shared.find().await?;
        self.shared.common.dialer.dial(&address).await
    }

    /// Sends commands and gives as many replies, any of which may be a server's error.
    ///
    /// When the future is dropped, they are carried out or not; their replies reach nobody.
    pub(crate) async fn send(
        &self,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Values, Failure> {
        let link = self.link(deadline).await.map_err(|why| Failure::before(why.error(false)))?;
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
                if let Some(why) = self.unfit(&replies) {
                    self.shared.lose(&link, why);
                }
                Ok(replies)
            }
        }
    }

    // Whether the replies tell that another server must be talked to.
    fn unfit(&self, replies: &[Value]) -> Option<Why> {
        // A node of a cluster that sends somebody on is well.
        let well = |value: &&Value| self.shared.role != Role::Primary && misdirected(value);
        let refusals = replies.iter().filter(|value| !well(value)).filter_map(refusal);
        refusals.into_iter().find(|refusal| refusal.unfit).map(|refusal| refusal.why())
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

    fn tend(&self) {
        self.keeper.tend(|| keep(self.shared.clone()));
    }
}

// Connects, watches, and connects again, as long as the node lives.
async fn keep(shared: Arc<Shared>) {
    let mut failures = 0_u32;
    loop {
        match timeout(shared.common.dialer.connect_timeout, shared.open()).await {
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
                    _ => shared.common.dialer.silence(),
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
    async fn find(&self) -> Result<Address, Why> {
        match &self.place {
            Place::At(address) => Ok(address.clone()),
            Place::Told(sentinels) => sentinels.primary().await,
        }
    }

    // Opens a connection and asks what must be known of the server.
    async fn open(&self) -> Result<(Arc<Link>, JoinHandle<()>), Why> {
        let address = self.find().await?;
        let id = self.common.links.fetch_add(1, Ordering::AcqRel) + 1;
        let (link, driver) = Link::open(&self.common.dialer, address, id).await?;
        self.server.store(link.address.number(), Ordering::Release);
        self.latest.store(id, Ordering::Release);
        link.greet(self.role).await?;
        self.ask_time(&link, true).await?;
        Ok((link, driver))
    }

    // Until the connection is lost.
    async fn watch(&self, link: &Arc<Link>, mut driver: JoinHandle<()>) {
        let every = match &self.place {
            Place::At(_) => time::EVERY,
            Place::Told(_) => Sentinels::EVERY,
        };
        loop {
            tokio::select! {
                _ = &mut driver => break,
                () = sleep(every) => {}
            }
            // Also finds a peer that has gone without a word, before an operation has to.
            let asked = timeout(self.common.dialer.connect_timeout, self.ask(link)).await;
            if let Err(why) = asked.unwrap_or_else(|_| Err(Why::late())) {
                self.lose(link, why);
            }
        }
        self.lose(link, Why::closed());
    }

    async fn ask(&self, link: &Link) -> Result<(), Why> {
        // Who is cut off from the others may still think that it is the primary. Sentinels that are silent decide nothing.
        if let Place::Told(sentinels) = &self.place
            && let Ok(address) = sentinels.primary().await
            && address != link.address
        {
            return Err(Why::unreachable("another server is the primary now"));
        }
        link.still(self.role).await?;
        self.ask_time(link, false).await
    }

    async fn ask_time(&self, link: &Link, first: bool) -> Result<(), Why> {
        let asked = self.common.clock.now();
        let reply = link.ask(cmd("TIME")).await?;
        if let Some(refusal) = refusal(&reply) {
            return Err(refusal.why());
        }
        let number = |value: &Value| match value {
            Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let answer = match &reply {
            Value::Array(parts) if parts.len() == 2 => number(&parts[0]).zip(number(&parts[1])),
            _ => None,
        };
        let Some((seconds, micros)) = answer else { return Err(Why::garbled()) };
        match first {
            true => self.time.restart(&self.common.clock, asked, seconds, micros),
            false => self.time.refresh(&self.common.clock, asked, seconds, micros),
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
