//! A connection to PostgreSQL that listens.

use std::fmt;
use std::time::Duration;

use sqlx::Acquire;
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use tokio::time::timeout;

use crate::Postgres;
use crate::failure::Failure;
use crate::postgres::PostgresOptions;

/// One connection, on one channel. It never connects again by itself: whoever holds it must know what was missed.
pub struct Listener(PgListener);

impl Listener {
    /// From now on, nothing that is notified is missed.
    pub(crate) async fn open(
        options: &PostgresOptions,
        limit: Duration,
        channel: &str,
    ) -> Result<Self, Failure> {
        let opening = async {
            // The client listens on pools only; this one is of one connection, which is never replaced.
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(limit)
                .max_lifetime(None)
                .idle_timeout(None)
                .connect_with(options.connect(limit))
                .await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match timeout(limit, opening).await {
            Ok(Ok(listener)) => Ok(Listener(listener)),
            Ok(Err(error)) => Err(Failure::connecting::<Postgres>(&error)),
            Err(_) => Err(Failure::unreachable::<Postgres>()),
        }
    }

    /// The next message; an error when the connection is gone. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Result<String, Failure> {
        match self.0.try_recv().await {
            Ok(Some(message)) => Ok(message.payload().to_owned()),
            Ok(None) => Err(Failure::lost::<Postgres>()),
            Err(error) => Err(Failure::of::<Postgres>(&error)),
        }
    }

    /// Forgets the messages that have come meanwhile.
    pub(crate) fn drain(&mut self) {
        while self.0.next_buffered().is_some() {}
    }

    /// The connection, for statements of one's own.
    pub(crate) async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.acquire().await
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
