//! One server: its address, what was learned about it, and the connections to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use larder_core::envelope::TimeBase;
use larder_core::{Clock, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Connection};
use crate::config::{Address, Builder};
use crate::generation::Generations;
use crate::link::Link;
use crate::outage::{Failure, Why};
use crate::protocol::{Item, Only, Replies, Reply, Request, Want};
use crate::time::{self, ServerTime};

/// A server, for those who ask it.
pub(crate) struct Server {
    pub(crate) target: Arc<Target>,
    pub(crate) generations: Generations,
    clients: Vec<Client>,
    turn: AtomicUsize,
}

/// What a connection leads to.
pub(crate) struct Target {
    /// Its place in the list, for logs.
    pub(crate) number: usize,
    pub(crate) address: Address,
    pub(crate) connect_timeout: Duration,
    pub(crate) time: ServerTime,
    clock: Clock,
    // The largest item that it takes.
    item_size: AtomicU64,
    // How many connections there were: what was learned over an earlier one may no longer hold.
    connections: AtomicU64,
    // Whether the beginning of one of its seconds was seen.
    timed: watch::Sender<bool>,
}

impl Server {
    pub(crate) fn new(number: usize, address: &Address, builder: &Builder) -> Self {
        let target = Arc::new(Target {
            number,
            address: address.clone(),
            connect_timeout: builder.connect_timeout,
            time: ServerTime::new(&builder.clock),
            clock: builder.clock.clone(),
            item_size: AtomicU64::new(USUAL_ITEM),
            connections: AtomicU64::new(0),
            timed: watch::Sender::new(false),
        });
        let client = |n| Client::new(target.clone(), n == 0);
        Server {
            clients: (0..builder.connections).map(client).collect(),
            generations: Generations::new(builder.generation_max_age, builder.clock.clone()),
            turn: AtomicUsize::new(0),
            target,
        }
    }

    /// Waits for the first attempt's outcome, and until the server's time is known exactly.
    pub(crate) async fn connected(&self) -> Result<(), Why> {
        // The attempt has its own limit; this one is for a runtime that is too busy to notice it.
        let limit = Instant::now() + self.target.connect_timeout * 2;
        self.clients[0].reached(limit).await?;
        let mut timed = self.target.timed.subscribe();
        // A server that is lost meanwhile was there, and comes back by itself.
        let _ = timeout(SEARCH * 2, timed.wait_for(|timed| *timed)).await;
        Ok(())
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> u64 {
        self.target.connections.load(Ordering::Acquire)
    }

    /// The largest value that it takes, under the longest of our names.
    pub(crate) fn max_value(&self) -> u64 {
        self.target.item_size.load(Ordering::Relaxed).saturating_sub(ITEM_OVERHEAD)
    }

    /// The server's time. Known as soon as there was a connection.
    pub(crate) async fn base(&self, deadline: Instant) -> Result<TimeBase, Failure> {
        loop {
            if let Some(base) = self.target.time.base() {
                return Ok(base);
            }
            self.clients[0].reached(deadline).await.map_err(|why| Failure::unsent(&why))?;
        }
    }

    /// Sends a request over one of the connections; see [`Client::exchange`]. What writes takes the first, as long as that
    /// one is up: so it comes after all that was sent before, whether anybody still waits for that or not.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        repeat: bool,
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        self.client(request.writes).exchange(request, repeat, deadline).await
    }

    fn client(&self, first: bool) -> &Client {
        let count = self.clients.len();
        if count == 1 {
            return &self.clients[0];
        }
        let turn = if first { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) };
        let mut from = (0..count).map(|n| &self.clients[turn.wrapping_add(n) % count]);
        from.find(|client| client.is_up()).unwrap_or(&self.clients[turn % count])
    }
}

impl Target {
    /// Opens a connection and asks what must be known of the server.
    pub(crate) async fn open(&self) -> Result<Connection, Why> {
        match &self.address {
            #[cfg(unix)]
            Address::Unix(path) => {
                let connect = tokio::net::UnixStream::connect(path);
                let (from, to) = connect.await.map_err(|error| Why::io(&error))?.into_split();
                self.greet(from, to).await
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(Why::unreachable("this system has no Unix sockets")),
            Address::Tcp { host, port } => {
                let (from, to) = self.tcp(host, *port).await?.into_split();
                self.greet(from, to).await
            }
        }
    }

    // The name is looked up each time: it may lead elsewhere by now.
    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, Why> {
        let found = lookup_host((host, port)).await.map_err(|error| Why::io(&error))?;
        let addresses: Vec<SocketAddr> = found.collect();
        let share = self.connect_timeout / addresses.len().max(1) as u32;
        let mut last = Why::unreachable("its name leads nowhere");
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|error| Why::io(&error))?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Why::io(&error),
                Err(_) => last = Why::unreachable("it does not answer; check address and network"),
            }
        }
        Err(last)
    }

    async fn greet<R, W>(&self, mut from: R, mut to: W) -> Result<Connection, Why>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let io = |error| Why::io(&error);
        to.write_all(b"version\r\nstats settings\r\n").await.map_err(io)?;
        let mut answer = BytesMut::new();
        while !answer.ends_with(b"\r\nEND\r\n") {
            if answer.len() > LONGEST_GREETING || refuses(&answer) {
                return Err(unfit(&answer));
            }
            if from.read_buf(&mut answer).await.map_err(io)? == 0 {
                return Err(if answer.is_empty() { Why::closed() } else { unfit(&answer) });
            }
        }
        let size = fit(&answer)?;
        self.item_size.store(size, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::AcqRel);

        let (link, task) = Link::new(from, to);
        let task = tokio::spawn(task);
        let connection = Connection::new(link, task.abort_handle());
        self.ask_time(&connection.link, true).await?;
        Ok(connection)
    }

    /// Follows the server's time, as long as the connection is good.
    pub(crate) async fn watch(&self, link: &Link, asks_time: bool) -> Why {
        if !asks_time {
            return std::future::pending().await;
        }
        let mut exact = false;
        loop {
            if let Err(why) = self.find_second(link, !exact).await {
                return why;
            }
            self.timed.send_replace(true);
            sleep(time::EVERY).await;
            // A second that did not begin when it should have: the server was restarted, or its clock was set.
            exact = match self.ask_time(link, true).await {
                Ok(moved) => moved < NOTICEABLE,
                Err(why) => return why,
            };
        }
    }

    // Asks until a second of the server's begins: from now on, or from shortly before it is expected.
    async fn find_second(&self, link: &Link, now: bool) -> Result<(), Why> {
        if !now {
            let wait = self.time.to_next_second(self.clock.now());
            sleep(wait.saturating_sub(AHEAD)).await;
        }
        let until = Instant::now() + if now { SEARCH } else { AHEAD * 3 };
        let mut before = None;
        while Instant::now() < until {
            let second = self.second(link, false).await?;
            if before.is_some_and(|before| before != second) {
                return Ok(());
            }
            before = Some(second);
            sleep(time::STEP).await;
        }
        Ok(())
    }

    // Asks for the server's time; how far it was from what was thought.
    async fn ask_time(&self, link: &Link, make: bool) -> Result<u64, Why> {
        let base = self.time.base();
        self.second(link, make).await?;
        let moved =
            |old: TimeBase| self.time.base().map_or(0, |new| new.millis.abs_diff(old.millis));
        Ok(base.map_or(0, moved))
    }

    // The seconds that the server has counted.
    async fn second(&self, link: &Link, mut make: bool) -> Result<u64, Why> {
        for _ in 0..4 {
            let mut request = Request::new();
            if make {
                request.set(time::ITEM, 0, b"", time::END, Only::Always);
            }
            request.get(time::ITEM, Want::Left);
            let asked = self.clock.now();
            let limit = Instant::now() + self.connect_timeout;
            let replies = link.send(&request, limit).await;
            let replies = replies.map_err(|lost| Why { kind: lost.kind, words: lost.words })?;
            if let Some(Reply::Item(Item { left: Some(left), .. })) = replies.last() {
                let second = u64::from(time::END).saturating_sub(*left);
                self.time.sample(asked, self.clock.now(), second);
                return Ok(second);
            }
            make = true;
        }
        Err(Why::unreachable("it keeps nothing; is its memory full, or its clock beyond 2038?"))
    }
}

// Whether a greeting was answered with an error.
fn refuses(answer: &[u8]) -> bool {
    let error = answer.starts_with(b"ERROR") || answer.starts_with(b"CLIENT_ERROR");
    let whole = answer.ends_with(b"\r\n");
    whole && (error || answer.starts_with(b"SERVER_ERROR") || !answer.starts_with(b"VERSION "))
}

fn unfit(answer: &[u8]) -> Why {
    if answer.starts_with(b"CLIENT_ERROR unauthenticated") {
        return Why::configuration(
            "the server demands a user and a password, which Larder cannot give to Memcached; let it listen where only your services are, without a login",
        );
    }
    Why::garbled()
}

// The largest item of a server that speaks our protocol.
fn fit(answer: &[u8]) -> Result<u64, Why> {
    let text = String::from_utf8_lossy(answer);
    let version = text.lines().next().and_then(|line| line.strip_prefix("VERSION "));
    let mut numbers = version.unwrap_or_default().split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (1, 6) => {}
        (Some(Ok(_)), _) => {
            return Err(Why::configuration(
                "Larder needs Memcached 1.6 or later; this one is older",
            ));
        }
        _ => return Err(Why::garbled()),
    }
    let size = text.lines().find_map(|line| line.strip_prefix("STAT item_size_max "));
    size.and_then(|size| size.trim().parse().ok()).ok_or_else(Why::garbled)
}

// What a server takes unless it is told otherwise.
const USUAL_ITEM: u64 = 1024 * 1024;

// What a server keeps along with a value: its own head and our longest name. 259 bytes in version 1.6.18.
const ITEM_OVERHEAD: u64 = 512;

// A second is found within a little more than one.
const SEARCH: Duration = Duration::from_millis(1200);

// How long before a second's expected beginning to begin to ask.
const AHEAD: Duration = Duration::from_millis(15);

// A change of the server's time, in milliseconds, after which it is looked for anew.
const NOTICEABLE: u64 = 100;

const LONGEST_GREETING: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::ErrorKind;

    #[test]
    fn greetings_tell_version_and_limit() {
        let settings = "STAT maxbytes 67108864\r\nSTAT item_size_max 1048576\r\nEND\r\n";
        assert_eq!(fit(format!("VERSION 1.6.18\r\n{settings}").as_bytes()).unwrap(), 1 << 20);
        assert_eq!(fit(format!("VERSION 1.6.0-rc1\r\n{settings}").as_bytes()).unwrap(), 1 << 20);
        for old in ["1.5.22", "1.4.39"] {
            let why = fit(format!("VERSION {old}\r\n{settings}").as_bytes()).unwrap_err();
            assert_eq!(why.kind, ErrorKind::Configuration);
        }
        for other in ["VERSION \r\nEND\r\n", "+OK\r\nEND\r\n", "VERSION 1.6.18\r\nEND\r\n"] {
            assert_eq!(fit(other.as_bytes()).unwrap_err().kind, ErrorKind::Unavailable);
        }
    }

    #[test]
    fn errors_end_the_greeting() {
        for error in ["ERROR\r\n", "CLIENT_ERROR unauthenticated\r\n", "-ERR unknown command\r\n"] {
            assert!(refuses(error.as_bytes()), "{error}");
        }
        assert!(!refuses(b"VERSION 1.6.18\r\n"));
        assert!(!refuses(b"VERS"));
    }
}
