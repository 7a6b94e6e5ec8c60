//! Fills: markers with a token.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Begin, Error, ErrorKind, Key, Result, Token, Ttl};

use crate::database::{Argument, Database};
use crate::failure::Failure;
use crate::naming::Place;
use crate::reading::Look;
use crate::statements::kind;
use crate::store::{Inner, OVERHEAD, here, millis};

impl<D: Database> Inner<D> {
    pub(crate) async fn begin(self: &Arc<Self>, key: &Key, hold: Duration) -> Result<Begin> {
        let place = Place::of(key);
        let token = Token::random();
        let marker = || {
            let mut arguments = here(&place);
            arguments.push(Argument::Blob(Some(token.to_bytes().to_vec().into())));
            arguments.push(Argument::Integer(Some(millis(hold.min(Ttl::MAX)))));
            arguments.push(Argument::Integer(Some(OVERHEAD)));
            arguments
        };
        // Somebody may be quicker each time, and is looked at in turn.
        for _ in 0..ATTEMPTS {
            let planted = self.write(&self.statements.plant, marker(), false).await;
            let planted = match planted {
                // It may be there, and nobody has its token but us: it ends by itself.
                Err(failure) => return Err(failure.error),
                Ok(answer) => !answer.rows.is_empty(),
            };
            if planted {
                self.stored(1, OVERHEAD as u64).await;
                return Ok(Begin::Token(token));
            }
            match self.look(key).await? {
                Look::Entry(entry) => return Ok(Begin::Found(entry)),
                Look::Fill => return Ok(Begin::Busy),
                Look::Pass => return Ok(Begin::Pass),
                Look::Nothing => {}
                Look::Damaged(bytes) => {
                    let mut arguments = marker();
                    arguments.push(Argument::Blob(Some(bytes)));
                    let answer = self.write(&self.statements.plant_over, arguments, false).await?;
                    if !answer.rows.is_empty() {
                        return Ok(Begin::Token(token));
                    }
                }
            }
        }
        let words = "the key changes again and again; try later";
        Err(Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME))
    }

    /// Puts another marker in the place of the fill marker with that token.
    pub(crate) async fn exchange(
        &self,
        place: &Place,
        token: Token,
        kind: i64,
        hold: Duration,
    ) -> Result<bool> {
        let mut arguments = here(place);
        arguments.push(Argument::Blob(Some(token.to_bytes().to_vec().into())));
        arguments.push(Argument::Integer(Some(kind)));
        arguments.push(Argument::Integer(Some(millis(hold.min(Ttl::MAX)))));
        // A marker that was renewed once can be renewed again, one that was exchanged for a pass cannot.
        let again = kind == kind::FILL;
        let answer = self.write(&self.statements.exchange, arguments, again).await;
        Ok(!answer.map_err(Failure::in_doubt)?.rows.is_empty())
    }
}

const ATTEMPTS: usize = 100;
