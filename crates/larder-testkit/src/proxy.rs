//! A network that delays, swallows and cuts, in this process.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
}

/// What happens to the bytes of one direction, on every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They pass, so much later. Their order stays.
    Delay(Duration),
    /// They pass, later by a random time up to this one. Their order stays.
    Jitter(Duration),
    /// They are taken and thrown away: a black hole.
    Swallow,
    /// They are held back, and pass when the mode changes: half of the connection is dead.
    Hold,
    /// So many bytes pass, counted over all connections; the connection that would carry the next one is closed, and the
    /// mode is `Pass` again.
    CutAfter(u64),
    /// They pass at so many bytes a second.
    Throttle(u64),
}

/// Listens on a port of its own and forwards to a server, as badly as it is told to.
///
/// Gone when it is dropped, and its connections with it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use larder_testkit::proxy::{Direction, FaultProxy, Mode};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
///
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let proxy = FaultProxy::start(server.local_addr()?.to_string()).await;
/// let mut client = TcpStream::connect(proxy.address()).await?;
/// let (mut accepted, _) = server.accept().await?;
///
/// proxy.set(Direction::Replies, Mode::CutAfter(2));
/// accepted.write_all(b"hello").await?;
/// let mut read = Vec::new();
/// client.read_to_end(&mut read).await?;
/// assert_eq!(read, b"he");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    modes: Mutex<[Mode; 2]>,
    // Counts changes of the modes; held bytes wait for one.
    changes: watch::Sender<u64>,
    // Counts cuts; every connection ends with the next one.
    cuts: watch::Sender<u64>,
    refuse: watch::Sender<bool>,
    random: Mutex<StdRng>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    bytes: [AtomicU64; 2],
    exchanges: AtomicU64,
}

impl FaultProxy {
    /// Starts one before that address, with everything passing. Random delays differ from run to run.
    ///
    /// # Panics
    ///
    /// When no port can be bound.
    pub async fn start(target: impl Into<String>) -> Self {
        Self::seeded(target, rand::random()).await
    }

    /// Starts one whose random delays come from a seed.
    ///
    /// # Panics
    ///
    /// When no port can be bound.
    pub async fn seeded(target: impl Into<String>, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target: target.into(),
            modes: Mutex::new([Mode::Pass; 2]),
            changes: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            refuse: watch::Sender::new(false),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            exchanges: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, address, shared.clone()));
        FaultProxy { address, shared, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What happens to the bytes of one direction from now on.
    pub fn set(&self, direction: Direction, mode: Mode) {
        self.shared.modes.lock()[direction as usize] = mode;
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    /// Everything passes again, and new connections are accepted.
    pub fn heal(&self) {
        self.set(Direction::Requests, Mode::Pass);
        self.set(Direction::Replies, Mode::Pass);
        self.refuse(false);
    }

    /// Closes every connection that is open now.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Refuses new connections, as a server that is down does, or accepts them again. It takes a moment:
    /// [`refused`](FaultProxy::refused) waits for it.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.send_replace(refuse);
    }

    /// Refuses new connections, and returns when it does.
    pub async fn refused(&self) {
        self.refuse(true);
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many bytes came from that side so far, whatever happened to them.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes[direction as usize].load(Ordering::SeqCst)
    }

    /// How often a request began after a reply was delivered, or first of all: the round trips of a client that does
    /// one thing at a time. A server may begin to answer a long pipeline before its end; with a
    /// [`Delay`](Mode::Delay) on the replies it is counted as one all the same.
    pub fn exchanges(&self) -> u64 {
        self.shared.exchanges.load(Ordering::SeqCst)
    }

    /// [`exchanges`](FaultProxy::exchanges) as a function, for
    /// [`Harness::with_round_trips`](crate::Harness::with_round_trips).
    pub fn exchange_count(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.exchanges.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// The connections are tasks of this one's set, and end with it.
async fn accept(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut refuse = shared.refuse.subscribe();
    loop {
        let refused = *refuse.borrow_and_update();
        if refused {
            listener = None;
        } else if listener.is_none() {
            // The port was ours a moment ago; if it is taken now, the test cannot go on anyway.
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(listener) = &listener else {
            let waited = tokio::time::timeout(Duration::from_millis(20), refuse.changed()).await;
            if matches!(waited, Ok(Err(_))) {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = refuse.changed() => if changed.is_err() { return },
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(client, shared.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let _open = Open::new(&shared.open);
    let Ok(server) = TcpStream::connect(&shared.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asking = AtomicBool::new(false);
    let requests = pump(&shared, Direction::Requests, from_client, to_server, &asking);
    let replies = pump(&shared, Direction::Replies, from_server, to_client, &asking);
    tokio::select! {
        _ = cuts.changed() => {}
        // One direction may end before the other; an error ends both.
        _ = async { tokio::try_join!(requests, replies) } => {}
    }
}

struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Open(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn pump(
    shared: &Shared,
    direction: Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asking: &AtomicBool,
) -> io::Result<()> {
    // A delay is a time to wait for, not a time to be idle: reading goes on meanwhile.
    let (queue, mut queued) = mpsc::channel::<(Instant, Bytes)>(64);
    let read = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(16 * 1024);
            let count = from.read_buf(&mut buffer).await?;
            if count == 0 {
                return io::Result::Ok(());
            }
            shared.bytes[direction as usize].fetch_add(count as u64, Ordering::SeqCst);
            if direction == Direction::Requests && !asking.swap(true, Ordering::SeqCst) {
                shared.exchanges.fetch_add(1, Ordering::SeqCst);
            }
            let due = Instant::now() + shared.delay(direction);
            if queue.send((due, buffer.split().freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = queued.recv().await {
            // A timer would round up what is due at once to the next millisecond.
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            forward(shared, direction, bytes, &mut to).await?;
            if direction == Direction::Replies {
                asking.store(false, Ordering::SeqCst);
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

async fn forward(
    shared: &Shared,
    direction: Direction,
    mut bytes: Bytes,
    to: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let mut changes = shared.changes.subscribe();
    while !bytes.is_empty() {
        changes.mark_unchanged();
        let mode = shared.modes.lock()[direction as usize];
        match mode {
            Mode::Pass | Mode::Delay(_) | Mode::Jitter(_) => {
                to.write_all(&bytes.split_off(0)).await?;
            }
            Mode::Swallow => bytes.clear(),
            Mode::Hold => drop(changes.changed().await),
            Mode::CutAfter(_) => {
                let pass = shared.take(direction, bytes.len());
                to.write_all(&bytes.split_to(pass)).await?;
                if !bytes.is_empty() {
                    to.flush().await?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            Mode::Throttle(per_second) => {
                // Twenty pieces a second, or a byte at a time.
                let piece = (per_second / 20).clamp(1, bytes.len() as u64);
                let wait = Duration::from_secs_f64(piece as f64 / per_second.max(1) as f64);
                tokio::time::sleep(wait).await;
                to.write_all(&bytes.split_to(piece as usize)).await?;
            }
        }
    }
    Ok(())
}

impl Shared {
    fn delay(&self, direction: Direction) -> Duration {
        match self.modes.lock()[direction as usize] {
            Mode::Delay(delay) => delay,
            Mode::Jitter(most) => most.mul_f64(self.random.lock().random::<f64>()),
            _ => Duration::ZERO,
        }
    }

    // How many of these bytes may pass before the cut; the rest of them is where it happens.
    fn take(&self, direction: Direction, wanted: usize) -> usize {
        let mode = &mut self.modes.lock()[direction as usize];
        let Mode::CutAfter(left) = mode else { return wanted };
        if *left >= wanted as u64 {
            *left -= wanted as u64;
            return wanted;
        }
        let pass = *left as usize;
        *mode = Mode::Pass;
        pass
    }
}
