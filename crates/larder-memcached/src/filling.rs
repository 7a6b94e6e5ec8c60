//! Fills: a marker under the key itself, known by its token.
//!
//! A marker is a record like others and is compared by what it says, not by the server's number for it: those start
//! again with the server. Planting is one command that stores only where nothing is; whatever changes a marker does so
//! only while it is still the same.

use std::time::Duration;

use larder_core::{Begin, Key, Token, Ttl};

use crate::outage::Failure;
use crate::protocol::{Only, Reply, Request, Want};
use crate::record::{Look, kind};
use crate::store::{Change, Inner};

impl Inner {
    pub(crate) async fn begin(&self, key: &Key, hold: Duration) -> Result<Begin, Failure> {
        let deadline = self.deadline();
        let server = self.server(key);
        let base = server.base(deadline).await?;
        let token = Token::random();
        let hold = hold.clamp(SHORTEST, Ttl::MAX);
        let marker = self.envelope.encode_marker(token, false, self.clock.now() + hold, &base);
        let life = server.life(Some(hold), &self.clock);
        while self.in_time(deadline) {
            // The reading tells what was in the way. It may be sent again: our own token is known by then.
            let plant = |name: &str, request: &mut Request| {
                request.set(name, kind::MARKER, &marker, life, Only::Absent);
                request.get(name, Want::Whole);
            };
            let mut replies = self.ask(key, true, deadline, plant).await?;
            let found = replies.pop().ok_or_else(Failure::garbled)?;
            match replies.pop() {
                Some(Reply::Item(_)) => return Ok(Begin::Token(token)),
                Some(Reply::NotStored) => {}
                Some(Reply::Refused(refusal)) => return Err(refusal.failure()),
                _ => return Err(Failure::garbled()),
            }
            let seen = self.seen(key, found)?;
            let now = self.clock.now();
            match seen.look {
                Look::Fill(planted) if planted == token => return Ok(Begin::Token(token)),
                Look::Fill(_) => return Ok(Begin::Busy),
                Look::Pass => return Ok(Begin::Pass),
                Look::Nothing => {
                    // What has ended or is no record of ours. Somebody may be quicker, and is then looked at in turn.
                    let change = Change::Store(kind::MARKER, &marker, life);
                    match self.swap(key, seen.cas, change, deadline).await {
                        Ok(true) => return Ok(Begin::Token(token)),
                        Ok(false) => {}
                        Err(failure) if failure.sent && !failure.late => {}
                        Err(failure) => return Err(failure),
                    }
                }
                look => {
                    if let Some(entry) = look.entry(now, &base) {
                        return Ok(Begin::Found(entry));
                    }
                }
            }
        }
        Err(Failure::contended())
    }

    /// Puts another marker, or none, in the place of the fill marker with that token.
    pub(crate) async fn exchange_marker(
        &self,
        key: &Key,
        token: Token,
        marker: Option<(bool, Duration)>,
    ) -> Result<bool, Failure> {
        let deadline = self.deadline();
        let server = self.server(key);
        let base = server.base(deadline).await?;
        let renews = marker.is_some_and(|(pass, life)| !pass && !life.is_zero());
        let mut doubt = None;
        while self.in_time(deadline) {
            let seen = match (self.look(key, deadline).await, &doubt) {
                (Ok(seen), _) => seen,
                (Err(_), Some(_)) => break,
                // It only reads.
                (Err(failure), None) => return Err(Failure { sent: false, ..failure }),
            };
            if !matches!(seen.look, Look::Fill(planted) if planted == token) {
                // Taken away by the release whose answer was lost, perhaps.
                return doubt.filter(|_| !renews).map_or(Ok(false), Err);
            }
            let now = self.clock.now();
            let marker = marker.filter(|(_, life)| !life.is_zero()).map(|(pass, life)| {
                let life = life.min(Ttl::MAX);
                let marker = self.envelope.encode_marker(token, pass, now + life, &base);
                (marker, server.life(Some(life), &self.clock))
            });
            let change = match &marker {
                Some((marker, life)) => Change::Store(kind::MARKER, marker, *life),
                None => Change::Remove,
            };
            match self.swap(key, seen.cas, change, deadline).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(failure) if failure.sent && !failure.late => doubt = Some(failure),
                // Of all that used up its time, that is told.
                Err(failure) if failure.late => return Err(Failure { sent: false, ..failure }),
                Err(failure) => return Err(doubt.unwrap_or(failure)),
            }
        }
        Err(doubt.unwrap_or_else(Failure::contended))
    }
}

const SHORTEST: Duration = Duration::from_millis(1);
