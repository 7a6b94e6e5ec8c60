//! One connection, greeted: it is known who is at the other end, and the scripts are there.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value, cmd};
use smallvec::smallvec;
use tokio::task::{AbortHandle, JoinHandle};

use crate::dial::{Address, Dialer};
use crate::outage::Why;
use crate::reply::refusal;
use crate::request::Values;
use crate::scripts;

/// What a server must be to be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that is written to. What a replica has may be behind.
    Primary,
    /// A node of a cluster, which says for itself what is not its own; or a sentinel.
    Any,
    /// A replica that may be read.
    Replica { clustered: bool },
}

pub(crate) struct Link {
    /// Of no other connection of the backend.
    pub(crate) id: u64,
    /// Where it leads.
    pub(crate) address: Address,
    pub(crate) driver: AbortHandle,
    connection: MultiplexedConnection,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Connects and logs in, and says nothing else. The task ends with the connection. Its caller limits the time.
    pub(crate) async fn open(
        dialer: &Dialer,
        address: Address,
        id: u64,
    ) -> Result<(Arc<Link>, JoinHandle<()>), Why> {
        let stream = dialer.dial(&address).await?;
        // The time limit is ours, around whole operations.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&dialer.login, stream, config)
                .await
                .map_err(|error| Why::login(&error))?;
        let driver = tokio::spawn(driver);
        let link = Link { id, address, connection, driver: driver.abort_handle() };
        Ok((Arc::new(link), driver))
    }

    /// Asks who it is, and gives it the scripts.
    pub(crate) async fn greet(&self, role: Role) -> Result<(), Why> {
        let mut load = Pipeline::new();
        load.add_command(cmd("ROLE"));
        if role == (Role::Replica { clustered: true }) {
            load.add_command(cmd("READONLY"));
        }
        for script in scripts::all().iter().filter(|_| !matches!(role, Role::Replica { .. })) {
            let mut command = cmd("SCRIPT");
            command.arg("LOAD").arg(&script.source);
            load.add_command(command);
        }
        let replies = self.send(&load).await.map_err(|error| Why::broken(&error))?;
        fit(&replies, role)
    }

    /// Asks again who it is.
    pub(crate) async fn still(&self, role: Role) -> Result<(), Why> {
        let replies = vec![self.ask(cmd("ROLE")).await?];
        fit(&replies, role)
    }

    /// One command.
    pub(crate) async fn ask(&self, command: Cmd) -> Result<Value, Why> {
        let mut connection = self.connection.clone();
        connection.send_packed_command(&command).await.map_err(|error| Why::broken(&error))
    }

    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Values, RedisError> {
        let mut connection = self.connection.clone();
        match commands.cmd_iter().next() {
            Some(command) if commands.len() == 1 => {
                connection.send_packed_command(command).await.map(|value| smallvec![value])
            }
            _ => {
                let values = connection.send_packed_commands(commands, 0, commands.len()).await?;
                Ok(Values::from_vec(values))
            }
        }
    }
}

// Errors here mean that the server is not the one to talk to. What a user may not ask is no error.
fn fit(replies: &[Value], wanted: Role) -> Result<(), Why> {
    if let Some(refusal) = replies.iter().filter_map(refusal).find(|refusal| refusal.unfit) {
        return Err(refusal.why());
    }
    let Some(Value::Array(role)) = replies.first() else { return Ok(()) };
    let replica = matches!(role.first(), Some(Value::BulkString(name)) if name == b"slave");
    match wanted {
        // Its data may be behind, and what was invalidated may still be there.
        Role::Primary if replica => Err(Why::unreachable(
            "it is a replica, which cannot be written to; give the address of the primary",
        )),
        Role::Replica { .. } if !replica => Err(Why::unreachable("it is no replica any more")),
        _ => Ok(()),
    }
}

// How many requests may wait to be written.
const QUEUE: usize = 512;
