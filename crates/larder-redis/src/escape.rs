//! For what Larder does not wrap: a connection of one's own, and where a key lies.

use std::sync::Mutex;

use larder_core::{Key, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, cmd};
use tokio::time::timeout;

use crate::outage::Why;
use crate::request::Again;
use crate::store::RedisBackend;

impl RedisBackend {
    /// Opens a connection to the server where a key lies, logged in and with the database chosen as this backend's own:
    /// for commands of one's own, by the crate [`redis`](crate::redis).
    ///
    /// It is nobody else's, so blocking commands, subscriptions and `MULTI` are its owner's own matter. It stays with
    /// that server: whoever keeps it must see for himself that after a failover another one is the primary, and in a
    /// cluster that the slot has moved. It ends when its last clone is dropped.
    ///
    /// ```no_run
    /// # async fn example(backend: larder_redis::RedisBackend) -> Result<(), Box<dyn std::error::Error>> {
    /// use larder_core::{Key, Namespace};
    ///
    /// let key = Key::new(&Namespace::new("shop")?, ["anything"])?;
    /// let mut connection = backend.connection(&key).await?;
    /// let size: u64 = larder_redis::redis::cmd("DBSIZE").query_async(&mut connection).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unavailable`](larder_core::ErrorKind::Unavailable) when the server cannot be reached within `connect_timeout`,
    /// or turns the login down.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing stays.
    ///
    /// # Panics
    ///
    /// Without a Tokio runtime around it.
    pub async fn connection(&self, key: &Key) -> Result<MultiplexedConnection> {
        let inner = &*self.0;
        let opened = async {
            let slot = inner.home(key).slot;
            let (stream, login) = (inner.client.dial(slot).await?, inner.client.login(slot)?);
            // Its commands are as long as their caller makes them.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_connection_timeout(None);
            let opened = MultiplexedConnection::new_with_config(&login, stream, config);
            let (connection, driver) = opened.await.map_err(|error| Why::login(&error))?;
            // It ends with the connection's last clone.
            tokio::spawn(driver);
            Ok(connection)
        };
        let opened = timeout(inner.client.connect_timeout, opened).await;
        opened.unwrap_or_else(|_| Err(Why::late())).map_err(|why| why.error(false))
    }

    /// The name under which a key lies until its namespace is cleared. What lies there is Larder's envelope, or the text
    /// of a counter.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](larder_core::ErrorKind::Unavailable) or [`Timeout`](larder_core::ErrorKind::Timeout) when the
    /// server does not tell: the namespace's generation, which it keeps, is part of the name.
    pub async fn place(&self, key: &Key) -> Result<String> {
        let inner = &*self.0;
        let name = Mutex::new(String::new());
        let home = inner.home(key);
        let look = inner.run([home], Again::Yes, inner.deadline(), |names, request| {
            let known = names.of(key);
            let mut exists = cmd("EXISTS");
            exists.arg(&known);
            request.command(home.slot, exists);
            *name.lock().unwrap_or_else(|lock| lock.into_inner()) = known;
        });
        look.await?;
        Ok(name.into_inner().unwrap_or_else(|lock| lock.into_inner()))
    }
}
