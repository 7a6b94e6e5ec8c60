//! Messages between nodes, by PostgreSQL's `LISTEN` and `NOTIFY`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::{Bytes, BytesMut};
use larder_core::order::Keys;
use larder_core::{Bus, Heard, Namespace, Result};
use tokio::time::{sleep, timeout};

use crate::client::pause;
use crate::database::{Argument, Dialect};
use crate::failure::Failure;
use crate::listen::Listener;
use crate::statements::Statement;
use crate::store::{Inner, text};
use crate::{Postgres, PostgresBackend};

/// Carries messages between all nodes that use the same database and namespace; made by [`PostgresBackend::bus`].
///
/// It listens on a connection of its own, on the channel `larder:bus:` with the namespace's name, and publishes over the
/// backend's. The server keeps no message for who is not connected: a node that is cut off hears nothing, and is told so.
///
/// Every message is a transaction. PostgreSQL lets one transaction that notifies commit at a time, in the whole server,
/// and keeps messages until the slowest listener has them (8 GB of them; `pg_notification_queue_usage()` tells). It
/// carries what some nodes tell each other, hundreds of messages a second; for thousands take Redis. No message
/// waits for the disk.
///
/// Whoever may connect to the database may send on it. That can make nodes forget what is near, never believe anything.
///
/// A payload has room for less than 8000 bytes. What is longer goes in parts, and what is longer than 1 MiB is told to
/// every node as a gap.
#[derive(Clone)]
pub struct PostgresBus {
    backend: PostgresBackend,
    channel: Arc<str>,
}

impl PostgresBackend {
    /// A bus for the nodes that share that namespace.
    ///
    /// ```no_run
    /// # async fn f() -> larder_core::Result<()> {
    /// use larder_core::{Bus, Namespace};
    /// use larder_sql::PostgresBackend;
    ///
    /// let postgres = PostgresBackend::connect("postgres://app@127.0.0.1/shop").await?;
    /// let bus = postgres.bus(&Namespace::new("shop")?);
    /// bus.publish("anybody there?".into()).await?;
    /// # Ok(()) }
    /// ```
    pub fn bus(&self, namespace: &Namespace) -> PostgresBus {
        let channel = format!("larder:bus:{}", namespace.as_str()).into();
        PostgresBus { backend: self.clone(), channel }
    }
}

impl Bus for PostgresBus {
    async fn publish(&self, message: Bytes) -> Result<()> {
        let channel = self.channel.to_string();
        self.backend
            .step(Keys::NONE, async move |inner: Arc<Inner<Postgres>>| {
                let arguments = vec![text(channel), Argument::Texts(parts(&message))];
                // What is heard twice does no harm.
                inner.write(&Statement(PUBLISH.into()), arguments, true).await?;
                Ok(())
            })
            .await
    }

    async fn listen(&self, silence: Duration, mut hear: impl FnMut(Heard) + Send) {
        let (options, limit) = self.backend.0.writer.connecting();
        let mut failures = 0;
        loop {
            match Listener::open(options, limit, &self.channel).await {
                Ok(mut listener) => {
                    failures = 0;
                    hear(Heard::Connected);
                    let mut message = Whole::default();
                    // A connection that has gone without a word is silent.
                    while let Ok(Ok(part)) = timeout(silence, listener.next()).await {
                        match message.add(&part) {
                            Added::Part => {}
                            Added::Last(message) => hear(Heard::Message(message)),
                            Added::Gap => {
                                hear(Heard::Lost);
                                hear(Heard::Connected);
                            }
                        }
                    }
                    hear(Heard::Lost);
                }
                Err(Failure { error, .. }) => {
                    if failures == 0 {
                        tracing::warn!(target: "larder::sql", "messages of other nodes do not arrive: {error}");
                    }
                    failures += 1;
                }
            }
            sleep(pause(failures)).await;
        }
    }
}

impl fmt::Debug for PostgresBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBus").field("database", &Postgres::NAME).finish_non_exhaustive()
    }
}

// All parts of a message in one transaction: they arrive together and in order, with no other between them.
const PUBLISH: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, part) \
    FROM unnest($2::text[]) WITH ORDINALITY AS parts (part, place) ORDER BY place";

// `index/count:` and the bytes in base64. No two parts are equal, since the server would send equal ones once.
fn parts(message: &[u8]) -> Vec<String> {
    if message.len() > LONGEST {
        return vec![TOO_LONG.to_owned()];
    }
    let chunks: Vec<&[u8]> =
        if message.is_empty() { vec![&[]] } else { message.chunks(PART).collect() };
    let count = chunks.len();
    let part = |(index, chunk)| format!("{index}/{count}:{}", BASE64.encode::<&[u8]>(chunk));
    chunks.into_iter().enumerate().map(part).collect()
}

/// A message that is put together again.
#[derive(Default)]
struct Whole {
    bytes: BytesMut,
    parts: usize,
    of: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Added {
    Part,
    Last(Bytes),
    /// Something came that was not sent like that, or was too long to be sent.
    Gap,
}

impl Whole {
    fn add(&mut self, part: &str) -> Added {
        let Some((index, count, bytes)) = read(part) else { return self.gap() };
        if index == 0 {
            let cut = self.parts > 0;
            *self = Whole { of: count, ..Whole::default() };
            if cut {
                return self.gap();
            }
        }
        if index != self.parts || count != self.of || self.bytes.len() + bytes.len() > LONGEST {
            return self.gap();
        }
        self.bytes.extend_from_slice(&bytes);
        self.parts += 1;
        if self.parts < self.of {
            return Added::Part;
        }
        Added::Last(std::mem::take(self).bytes.freeze())
    }

    fn gap(&mut self) -> Added {
        *self = Whole::default();
        Added::Gap
    }
}

fn read(part: &str) -> Option<(usize, usize, Vec<u8>)> {
    let (place, bytes) = part.split_once(':')?;
    let (index, count) = place.split_once('/')?;
    let (index, count) = (index.parse().ok()?, count.parse().ok()?);
    (index < count).then_some(())?;
    Some((index, count, BASE64.decode(bytes).ok()?))
}

const PART: usize = 5_700;

const LONGEST: usize = 1 << 20;

const TOO_LONG: &str = "!";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_in_parts_is_heard_whole() {
        for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART, LONGEST] {
            let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let parts = parts(&message);
            assert!(parts.iter().all(|part| part.len() < 8000), "{length}");
            let mut whole = Whole::default();
            let (last, first) = parts.split_last().unwrap();
            first.iter().for_each(|part| assert_eq!(whole.add(part), Added::Part));
            assert_eq!(whole.add(last), Added::Last(message.into()), "{length}");
        }
    }

    #[test]
    fn what_was_not_sent_like_that_is_a_gap_and_the_next_message_is_heard() {
        let long = parts(&vec![7; 3 * PART]);
        for strange in ["", "!", "0/0:", "2/1:", "x/1:", "0/1:*", "1/3:AA", &long[1]] {
            let mut whole = Whole::default();
            assert_eq!(whole.add(strange), Added::Gap, "{strange}");
            assert_eq!(whole.add("0/1:"), Added::Last(Bytes::new()));
        }
        let mut whole = Whole::default();
        assert_eq!(whole.add(&long[0]), Added::Part);
        assert_eq!(whole.add(&long[2]), Added::Gap, "one is missing");
        assert_eq!(whole.add(&long[0]), Added::Part);
        assert_eq!(whole.add("0/1:"), Added::Gap, "its end is missing");
        assert_eq!(parts(&vec![0; LONGEST + 1]), ["!"]);
    }
}
