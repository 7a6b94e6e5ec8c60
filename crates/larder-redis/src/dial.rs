//! Where the server is, and the way there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use redis::RedisConnectionInfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::{Address, Builder};
use crate::outage::Why;
use crate::tls::Tls;

/// Whatever carries bytes to the server.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

pub(crate) struct Target {
    address: Address,
    tls: Option<Tls>,
    pub(crate) login: RedisConnectionInfo,
    pub(crate) connect_timeout: Duration,
}

impl Target {
    pub(crate) fn new(builder: &Builder) -> Self {
        let mut login = RedisConnectionInfo::default()
            .set_db(builder.database)
            .set_lib_name("larder", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &builder.username {
            login = login.set_username(username);
        }
        if let Some(password) = &builder.password {
            login = login.set_password(password);
        }
        Target {
            address: builder.address.clone(),
            tls: builder.tls.clone(),
            login,
            connect_timeout: builder.connect_timeout,
        }
    }

    /// Opens a connection on which nothing was said yet. Its caller limits the time.
    pub(crate) async fn dial(&self) -> Result<Box<dyn Transport>, Why> {
        match &self.address {
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
