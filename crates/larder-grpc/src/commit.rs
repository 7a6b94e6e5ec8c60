//! The right to store an answer, and storing it.

use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use http_body::Body;
use larder_cache::Pilot;
use larder_core::{Begin, Entry, Moment, Outcome, Peek, Revision, Sequence, Token, Ttl, When};

use crate::fill::{Fill, HOLD, Landing, Sender, land};
use crate::miss::There;
use crate::plan::Plan;
use crate::record::Call;

/// What allows an answer to be stored.
#[derive(Clone, Copy)]
pub(crate) enum Permit {
    /// The fill marker of that token is there.
    Token(Token),
    /// The record of that revision is there.
    Revision(Revision),
    /// Nothing: another node is filling.
    Never,
    /// Nothing: the store cannot be asked.
    Outage,
}

/// An answer that is to be stored.
pub(crate) struct Made {
    pub(crate) call: Arc<Call>,
    /// For the layers outside, with the answer of the call that filled.
    pub(crate) extensions: Extensions,
    pub(crate) plan: Plan,
    /// When its head came.
    pub(crate) head_at: Moment,
}

/// An answer was stored between the look and the fill.
pub(crate) struct SomebodyElse;

impl Fill {
    // The right to store.
    pub(crate) async fn permit(&self, pilot: &Pilot) -> Result<(Sequence, Permit), SomebodyElse> {
        let config = &self.shared.config;
        let store = &config.store;
        if matches!(self.there, There::Outage) {
            return Ok((Sequence::NONE, Permit::Outage));
        }
        // The answer may bring tags that the method does not know, so the sequence is always read.
        let Ok(marks) = store.marks(&self.rule.tags).await else {
            return Ok((Sequence::NONE, Permit::Outage));
        };
        let permit = match &self.there {
            There::Call(revision, ..) | There::Unusable(revision) => {
                if self.replaced(*revision) {
                    return Err(SomebodyElse);
                }
                Permit::Revision(*revision)
            }
            There::Outage => Permit::Outage,
            There::Nothing => match store.begin_or_wait(&self.key, HOLD, config.wait).await {
                Ok(Begin::Token(token)) if pilot.holds(token) => Permit::Token(token),
                Ok(Begin::Token(token)) => {
                    self.release(Permit::Token(token)).await;
                    Permit::Never
                }
                Ok(Begin::Found(_)) => return Err(SomebodyElse),
                Ok(Begin::Busy | Begin::Pass) => Permit::Never,
                Err(_) => Permit::Outage,
            },
        };
        Ok((marks.sequence, permit))
    }

    // Whether another fill has ended between the look and this one, where that can be seen without waiting.
    fn replaced(&self, revision: Revision) -> bool {
        let peek = self.shared.config.store.peek(self.key.as_ref());
        matches!(peek, Peek::Hit(entry) if entry.revision() != revision)
    }

    // Stores an answer and gives it to its caller.
    pub(crate) async fn store<S, ResB: Body, E>(
        self,
        pilot: Pilot,
        Made { call, extensions, plan, head_at }: Made,
        built_at: Sequence,
        permit: Permit,
        sender: Sender<S, ResB, E>,
    ) {
        let store = &self.shared.config.store;
        let mut response = call.respond(Duration::ZERO);
        *response.extensions_mut() = extensions;
        let when = match permit {
            Permit::Token(token) => Some(When::Token(token)),
            Permit::Revision(revision) => Some(When::Revision(revision)),
            Permit::Never | Permit::Outage => None,
        };
        let closed = pilot.close();
        let Some(when) = when else {
            let outage = matches!(permit, Permit::Outage);
            let shared = outage && closed.may_share_outage(store, &self.key).await;
            land(pilot, Landing::Stored(call, head_at), shared);
            return self.tell(response, false, sender);
        };
        let tags = plan.tags.clone();
        let entry = Entry::live(call.clone()).with_tags(plan.tags).with_built_at(built_at);
        let ttl = Ttl::For(call.terms.kept_for());
        let storing = async {
            let outcome = store.put(&self.key, entry, ttl, when).await;
            // What was refused was invalidated meanwhile. A failure is no invalidation.
            let refused = matches!(outcome, Ok(Outcome::Refused));
            let (always, failed) = (When::Always, outcome.is_err());
            let shared = !refused
                && closed.may_share(store, &self.key, always, &tags, built_at, failed).await;
            land(pilot, Landing::Stored(call, head_at), shared);
            matches!(outcome, Ok(Outcome::Stored))
        };
        if store.abilities().local {
            let stored = storing.await;
            self.tell(response, stored, sender);
        } else {
            // The caller does not wait for the store.
            self.tell(response, true, sender);
            storing.await;
        }
    }

    pub(crate) async fn release(&self, permit: Permit) {
        if let Permit::Token(token) = permit {
            // If this fails the marker ends by itself.
            let _ = self.shared.config.store.release(&self.key, token, None).await;
        }
    }
}
