//! Counters: reading, adding here, and storing what is still the same.

use std::hash::{BuildHasher, RandomState};

use larder_core::{Counter, Error, ErrorKind, Key, Result};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::NAME;
use crate::outage::Failure;
use crate::record::{Counter as Number, Look, kind};
use crate::store::{Change, Inner};

/// Those of this process who add to one counter come one after the other: whoever is second would have to try again.
/// Several processes may still do.
pub(crate) struct Turns {
    turns: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Turns { turns: (0..64).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }
}

impl Turns {
    async fn turn(&self, key: &Key, deadline: Instant) -> Result<MutexGuard<'_, ()>, Failure> {
        let place = self.hasher.hash_one(key) as usize % self.turns.len();
        if let Ok(turn) = self.turns[place].try_lock() {
            return Ok(turn);
        }
        let turn = timeout_at(deadline, self.turns[place].lock()).await;
        turn.map_err(|_| Failure::contended())
    }
}

impl Inner {
    pub(crate) async fn add(
        &self,
        key: &Key,
        delta: i64,
        create: Option<Counter>,
    ) -> Result<Option<i64>> {
        let deadline = self.deadline();
        let server = self.server(key);
        let base = server.base(deadline).await?;
        let _turn = self.turns.turn(key, deadline).await?;
        while self.in_time(deadline) {
            let seen = self.look(key, deadline).await?;
            let now = self.clock.now();
            let (number, life) = match seen.look {
                Look::Counter(counter) => {
                    let value = counter.value.checked_add(delta).ok_or_else(no_integer)?;
                    let left = counter.end.map(|end| base.moment(end).since(now));
                    (Number { value, ..counter }, server.life(left, &self.clock))
                }
                Look::Entry(_) => return Err(no_integer()),
                Look::Fill(_) | Look::Pass | Look::Nothing => {
                    let Some(Counter { initial, ttl }) = create else { return Ok(None) };
                    let value = initial.checked_add(delta).ok_or_else(no_integer)?;
                    let ttl = ttl.resolve(self.default_ttl);
                    let end = ttl.map(|ttl| base.millis(now + ttl));
                    let number = Number { value, end, sequence: false };
                    (number, server.life(ttl, &self.clock))
                }
            };
            // One that begins for no time is not made, and takes away what was there.
            let over = number.end.is_some_and(|end| base.moment(end) <= now);
            let text = number.text();
            let change =
                if over { Change::Remove } else { Change::Store(kind::ENTRY, &text, life) };
            let swapped = self.swap(key, seen.cas, change, deadline).await;
            if swapped.map_err(Failure::in_doubt)? {
                return Ok(Some(number.value));
            }
        }
        Err(Failure::contended().into())
    }
}

fn no_integer() -> Error {
    let words = "the value is no plain integer, or the sum does not fit one; it is unchanged";
    Error::new(ErrorKind::NotAnInteger, words).with_backend(NAME)
}
