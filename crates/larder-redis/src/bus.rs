//! Messages between nodes, by the server's publish and subscribe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use larder_core::{Bus, Heard, Namespace, Result};
use redis::aio::{PubSub, PubSubStream};
use redis::cmd;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::node::pause;
use crate::outage::Why;
use crate::reply::{int, one};
use crate::request::{Again, Request};
use crate::store::RedisBackend;

/// Carries messages between all nodes that use the same server and namespace; made by [`RedisBackend::bus`].
///
/// It listens on a connection of its own, on the channel `larder:bus:` with the namespace's name, and publishes over the
/// backend's. The server keeps no message: a node that is not connected hears nothing, and is told so. A user with
/// restricted rights needs `PUBLISH`, `SUBSCRIBE` and that channel.
#[derive(Clone)]
pub struct RedisBus {
    client: Arc<Client>,
    // In a cluster, a message that one node is told reaches them all. This one has the namespace's tags.
    slot: u16,
    channel: Arc<str>,
    response_timeout: Duration,
}

impl RedisBackend {
    /// A bus for the nodes that share that namespace.
    ///
    /// ```no_run
    /// # async fn f() -> larder_core::Result<()> {
    /// use larder_core::{Bus, Namespace};
    /// use larder_redis::RedisBackend;
    ///
    /// let redis = RedisBackend::connect("redis://127.0.0.1/0").await?;
    /// let bus = redis.bus(&Namespace::new("shop")?);
    /// bus.publish("anybody there?".into()).await?;
    /// # Ok(()) }
    /// ```
    pub fn bus(&self, namespace: &Namespace) -> RedisBus {
        RedisBus {
            client: self.0.client.clone(),
            slot: self.0.client.layout().home_of(namespace).slot,
            channel: format!("larder:bus:{}", namespace.as_str()).into(),
            response_timeout: self.0.response_timeout,
        }
    }
}

impl RedisBus {
    async fn subscribe(&self) -> Result<PubSubStream, Why> {
        let subscribing = async {
            let stream = Box::into_pin(self.client.dial(self.slot).await?);
            let broken = |error: redis::RedisError| Why::login(&error);
            let mut listener = PubSub::new(&self.client.login, stream).await.map_err(broken)?;
            listener.subscribe(&*self.channel).await.map_err(|error| Why::broken(&error))?;
            Ok(listener.into_on_message())
        };
        timeout(self.client.connect_timeout, subscribing).await.unwrap_or_else(|_| Err(Why::late()))
    }
}

impl Bus for RedisBus {
    async fn publish(&self, message: Bytes) -> Result<()> {
        // What is heard twice does no harm.
        let mut request = Request::new(Again::Yes);
        let mut command = cmd("PUBLISH");
        command.arg(&*self.channel).arg(&*message);
        request.command(self.slot, command);
        let deadline = Instant::now() + self.response_timeout;
        let reply = one(self.client.exchange(&request, deadline).await?)?;
        int(reply).map(drop)
    }

    async fn listen(&self, silence: Duration, mut hear: impl FnMut(Heard) + Send) {
        let mut failures = 0;
        loop {
            match self.subscribe().await {
                Ok(mut messages) => {
                    failures = 0;
                    hear(Heard::Connected);
                    // A connection that has gone without a word is silent.
                    while let Ok(Some(message)) = timeout(silence, messages.next()).await {
                        hear(Heard::Message(Bytes::copy_from_slice(message.get_payload_bytes())));
                    }
                    hear(Heard::Lost);
                }
                Err(why) => {
                    if failures == 0 {
                        tracing::warn!(target: "larder::redis", "messages of other nodes do not arrive: {}", why.words);
                    }
                    failures += 1;
                }
            }
            sleep(pause(failures)).await;
        }
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus").finish_non_exhaustive()
    }
}
