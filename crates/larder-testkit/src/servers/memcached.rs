use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::process::find;

/// How a [`MemcachedServer`] is started.
#[derive(Clone, Debug, Default)]
pub struct MemcachedOptions {
    args: Vec<String>,
}

impl MemcachedOptions {
    /// More arguments: `arguments(&["-M"])`.
    #[must_use]
    pub fn arguments(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// So many megabytes for items.
    #[must_use]
    pub fn memory(self, megabytes: u32) -> Self {
        self.arguments(&["-m", &megabytes.to_string()])
    }

    /// The largest item: `4m`.
    #[must_use]
    pub fn item_size(self, size: &str) -> Self {
        self.arguments(&["-I", size])
    }

    /// Starts a server so.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start(self) -> MemcachedServer {
        let binary = find(
            "LARDER_MEMCACHED_SERVER",
            &["memcached"],
            "Install it with `apt-get install memcached` or `brew install memcached`",
        );
        for _ in 0..10 {
            let daemon = Daemon::new("memcached", &binary);
            let mut server = MemcachedServer { daemon, options: self.clone() };
            if server.run().await {
                return server;
            }
        }
        panic!("somebody takes every port before the server does");
    }
}

/// A Memcached server of one's own, on a free port of 127.0.0.1.
///
/// `LARDER_MEMCACHED_SERVER` names the binary; otherwise `memcached` is looked for.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() {
/// use larder_testkit::servers::MemcachedServer;
///
/// let server = MemcachedServer::start().await;
/// println!("{}", server.url());
/// server.freeze(); // accepts connections, and answers nothing
/// server.thaw();
/// # }
/// ```
#[derive(Debug)]
pub struct MemcachedServer {
    daemon: Daemon,
    options: MemcachedOptions,
}

impl MemcachedServer {
    /// Starts one as it is packaged: 64 MB, items of up to 1 MiB.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// Starts with options.
    pub fn options() -> MemcachedOptions {
        MemcachedOptions::default()
    }

    /// Where it listens: `memcached://127.0.0.1:40000`.
    pub fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// The same, through something that listens on another port of this machine, such as a
    /// [`FaultProxy`](crate::proxy::FaultProxy).
    pub fn url_at(&self, port: u16) -> String {
        format!("memcached://127.0.0.1:{port}")
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// Its address, as text.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Stops it in its tracks: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.daemon.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.daemon.signal("CONT");
    }

    /// Kills it; everything that it held is lost.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Kills it if it runs, and starts it again on the same port, empty.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn restart(&mut self) {
        for _ in 0..1000 {
            if self.run().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("port {} was taken meanwhile", self.port());
    }

    /// Sends bytes and gives everything that comes back before the answer to an `mn` that is sent behind them: enough
    /// to set up a test, not a client.
    ///
    /// ```no_run
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// # let server = larder_testkit::servers::MemcachedServer::start().await;
    /// assert_eq!(server.send(b"ms k 2 T0\r\nhi\r\n").await?, b"HD\r\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server is not there, or does not answer within ten seconds.
    pub async fn send(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        send_at(self.port(), bytes).await
    }

    // False when the port was taken.
    async fn run(&mut self) -> bool {
        let port = self.port();
        let mut args: Vec<String> =
            ["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0"].map(str::to_owned).into();
        // It refuses to be root unless it is told to.
        let user = Command::new("id").arg("-u").output();
        if user.is_ok_and(|user| user.stdout.trim_ascii() == b"0") {
            args.extend(["-u".to_owned(), "root".to_owned()]);
        }
        args.extend(self.options.args.clone());
        self.daemon.run(&args, async || send_at(port, b"").await.is_ok()).await
    }
}

async fn send_at(port: u16, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(bytes).await?;
        stream.write_all(b"mn\r\n").await?;
        let mut reply = Vec::new();
        while !reply.ends_with(b"MN\r\n") {
            if stream.read_buf(&mut reply).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        reply.truncate(reply.len() - 4);
        Ok(reply)
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}
