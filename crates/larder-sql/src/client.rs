//! Everything that touches the client library: connections, and statements on them.
//!
//! The library's own pool asks the server after each use whether the connection is well, and waits out an outage; here
//! an operation is one round trip, and an outage is told at once. A connection whose statement did not come to its end
//! is closed and never used again.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock, Error, ErrorKind, Moment};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::database::{Argument, Database, Row};
use crate::failure::Failure;
use crate::log;
use crate::statements::Statement;

/// The connections of one backend.
pub(crate) struct Pool<D: Database> {
    options: D::Options,
    idle: Mutex<Vec<(D::Connection, Instant)>>,
    permits: Arc<Semaphore>,
    outage: Mutex<Outage>,
    connect_timeout: Duration,
    clock: Clock,
}

#[derive(Default)]
struct Outage {
    failures: u32,
    // Until then nobody tries.
    pause: Option<Instant>,
}

/// A connection in use. It goes back when its statement has come to its end, and is closed otherwise.
pub(crate) struct Lease<D: Database> {
    connection: Option<D::Connection>,
    pool: Arc<Pool<D>>,
    fresh: bool,
    _permit: OwnedSemaphorePermit,
}

impl<D: Database> Deref for Lease<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken by `give_back` alone, which takes the lease"),
        }
    }
}

impl<D: Database> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken by `give_back` alone, which takes the lease"),
        }
    }
}

impl<D: Database> Lease<D> {
    fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().push((connection, Instant::now()));
        }
    }
}

/// What came back, and when it was asked for.
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    pub(crate) asked: Moment,
}

impl<D: Database> Pool<D> {
    pub(crate) fn new(
        options: D::Options,
        connections: usize,
        connect_timeout: Duration,
        clock: Clock,
    ) -> Self {
        Pool {
            options,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(connections)),
            outage: Mutex::default(),
            connect_timeout,
            clock,
        }
    }

    /// How it connects, and how long that may take.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(crate) fn connecting(&self) -> (&D::Options, Duration) {
        (&self.options, self.connect_timeout)
    }

    /// One statement. `again`: whether it may be sent a second time when nobody knows whether it was carried out.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        statement: &Statement,
        mut arguments: Vec<Argument>,
        again: bool,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let (mut attempt, given) = (0, arguments.len());
        loop {
            attempt += 1;
            let mut lease = self.lease(deadline).await?;
            let fresh = lease.fresh;
            let asked = self.clock.now();
            if !D::SERVERS_TIME {
                arguments.truncate(given);
                arguments.push(Argument::Integer(Some(wall(&self.clock))));
            }
            let done = D::fetch(&mut lease, statement.0.clone(), &arguments);
            let failure = match timeout_at(deadline, done).await {
                Ok(Ok(rows)) => {
                    lease.give_back();
                    return Ok(Answer { rows, asked });
                }
                Ok(Err(error)) => Failure::of::<D>(&error),
                Err(_) => Failure::late::<D>(true),
            };
            if failure.broken {
                // Its neighbours were there before whatever happened to it.
                self.idle.lock().clear();
                log::lost(D::NAME, &failure.error);
            } else {
                lease.give_back();
            }
            let lost = failure.broken && failure.sent && again && !fresh;
            if (failure.again || lost) && attempt < ATTEMPTS && Instant::now() < deadline {
                if failure.again {
                    // Those who got into each other's way should not meet again.
                    tokio::time::sleep(FIRST_PAUSE.mul_f64(rand::random_range(0.0..1.0))).await;
                }
                continue;
            }
            return Err(failure);
        }
    }

    pub(crate) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease<D>, Failure> {
        let busy = || {
            let words = "every connection was in use until the time limit; raise max_connections";
            Failure::before(Error::new(ErrorKind::Timeout, words).with_backend(D::NAME))
        };
        let permit = timeout_at(deadline, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        let lease = |connection, fresh| Lease {
            connection: Some(connection),
            pool: self.clone(),
            fresh,
            _permit: permit,
        };
        let idle = self.idle.lock().pop();
        if let Some((mut connection, since)) = idle {
            // One that was closed behind our back would lose a write, and nobody would know what became of it.
            let quiet = since.elapsed() >= PROVEN;
            if !quiet || matches!(timeout_at(deadline, D::ping(&mut connection)).await, Ok(Ok(())))
            {
                return Ok(lease(connection, false));
            }
            self.idle.lock().clear();
        }
        self.connect(deadline).await.map(|connection| lease(connection, true))
    }

    async fn connect(&self, deadline: Instant) -> Result<D::Connection, Failure> {
        {
            let mut outage = self.outage.lock();
            let now = Instant::now();
            if outage.pause.is_some_and(|until| now < until) {
                let words = "the database is not available; it is tried again after a pause";
                let error = Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME);
                return Err(Failure::before(error));
            }
            if outage.failures > 0 {
                // One at a time.
                outage.pause = Some(now + self.connect_timeout);
            }
        }
        let limit = deadline.min(Instant::now() + self.connect_timeout);
        let failure = match timeout_at(limit, D::open(&self.options, self.connect_timeout)).await {
            Ok(Ok(connection)) => {
                *self.outage.lock() = Outage::default();
                return Ok(connection);
            }
            Ok(Err(error)) => Failure::connecting::<D>(&error),
            Err(_) => Failure::unreachable::<D>(),
        };
        let mut outage = self.outage.lock();
        log::outage(D::NAME, outage.failures == 0, &failure.error);
        outage.failures = outage.failures.saturating_add(1);
        outage.pause = Some(Instant::now() + pause(outage.failures));
        Err(Failure { again: false, ..failure })
    }
}

/// The machine's time as rows have it.
pub(crate) fn wall(clock: &Clock) -> i64 {
    let since = clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

// Grows to a second, and by chance, so that nodes do not come all at once.
pub(crate) fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

// A connection that was used so lately is taken for a good one.
const PROVEN: Duration = Duration::from_secs(5);

const ATTEMPTS: u32 = 5;

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
