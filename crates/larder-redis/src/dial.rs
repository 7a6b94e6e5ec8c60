//! The way to a server, and how one logs in there.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use redis::RedisConnectionInfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::Login;
use crate::layout;
use crate::outage::Why;
use crate::tls::Tls;

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// The same for the same place in every process, and mostly another for another one.
    pub(crate) fn number(&self) -> u16 {
        match self {
            Address::Tcp { host, port } => layout::number(&format!("{host}:{port}")),
            Address::Unix(path) => layout::number(&path.to_string_lossy()),
        }
    }
}

/// Whatever carries bytes to the server.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// How servers are reached.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: Option<Tls>,
    pub(crate) login: RedisConnectionInfo,
    pub(crate) connect_timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(
        tls: Option<Tls>,
        login: &Login,
        database: i64,
        connect_timeout: Duration,
    ) -> Self {
        Dialer { tls, login: login.info(database), connect_timeout }
    }

    /// Why there is no connection after all the time that there is for it.
    pub(crate) fn silence(&self) -> Why {
        Why::unreachable(match self.tls {
            // Who does not speak it waits for the end of what it takes for a command.
            Some(_) => {
                "it did not answer in time; check address and network, and that it speaks TLS there (rediss://)"
            }
            None => "it did not answer in time; check address and network",
        })
    }

    /// Opens a connection on which nothing was said yet. Its caller limits the time.
    pub(crate) async fn dial(&self, address: &Address) -> Result<Box<dyn Transport>, Why> {
        match address {
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream =
                    tokio::net::UnixStream::connect(path).await.map_err(|e| Why::io(&e))?;
                Ok(Box::new(stream))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(Why::unreachable("this system has no Unix sockets")),
            Address::Tcp { host, port } => {
                let stream = self.tcp(host, *port).await.map_err(|error| Why::io(&error))?;
                match &self.tls {
                    Some(tls) => {
                        let stream = tls.connect(host, stream).await.map_err(|e| Why::tls(&e))?;
                        Ok(Box::new(stream))
                    }
                    None => Ok(Box::new(stream)),
                }
            }
        }
    }

    // The name is looked up each time: after a failover it may lead elsewhere.
    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        let share = self.connect_timeout / addresses.len().max(1) as u32;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}
