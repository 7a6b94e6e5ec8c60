//! The client: as many requests as the connections carry, and how long each took.
//!
//! It writes the same bytes each time and reads no more of an answer than its status, its length and whether it was a
//! hit, so that it takes as little as possible of the processor that it shares with the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What to ask, and for how long.
pub(super) struct Load {
    pub(super) address: SocketAddr,
    /// Asked for one after the other, again and again; each connection begins at another one.
    pub(super) paths: Vec<String>,
    pub(super) connections: u16,
    pub(super) warm_up: Duration,
    pub(super) time: Duration,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Sample {
    /// How many of the answers said that they came from the cache.
    pub(super) hits: usize,
    // Of the measured requests, in microseconds, ascending.
    latencies: Vec<u32>,
    seconds: f64,
}

impl Sample {
    pub(super) fn requests(&self) -> usize {
        self.latencies.len()
    }

    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// The latency that so many of a hundred requests did not exceed.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

impl Load {
    /// First asks once for each path. Then asks on all connections at the same time; answers that come within the
    /// measured time count, those of the warm-up do not.
    pub(super) async fn run(self) -> Result<Sample, String> {
        let load = Arc::new(self);
        let mut first = Connection::open(&load, 0).await?;
        for _ in &load.paths {
            first.ask().await?;
        }
        drop(first);
        let begin = Instant::now() + load.warm_up;
        let end = begin + load.time;
        let mut connections = JoinSet::new();
        for number in 0..usize::from(load.connections) {
            connections.spawn(repeat(load.clone(), number, begin, end));
        }
        let mut sum = Sample { seconds: load.time.as_secs_f64(), ..Sample::default() };
        while let Some(ended) = connections.join_next().await {
            let (hits, latencies) = ended.map_err(|error| error.to_string())??;
            sum.hits += hits;
            sum.latencies.extend(latencies);
        }
        if sum.latencies.is_empty() {
            return Err(format!(
                "no answer from {} in time: give it more --seconds",
                load.paths[0]
            ));
        }
        sum.latencies.sort_unstable();
        Ok(sum)
    }
}

async fn repeat(
    load: Arc<Load>,
    number: usize,
    begin: Instant,
    end: Instant,
) -> Result<(usize, Vec<u32>), String> {
    let mut connection = Connection::open(&load, number).await?;
    let (mut hits, mut latencies) = (0, Vec::new());
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok((hits, latencies));
        }
        let hit = connection.ask().await?;
        let answered = Instant::now();
        if answered >= begin && answered < end {
            let micros = (answered - asked).as_micros();
            latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
            hits += usize::from(hit);
        }
    }
}

struct Connection<'a> {
    load: &'a Load,
    requests: Vec<String>,
    next: usize,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl<'a> Connection<'a> {
    async fn open(load: &'a Load, number: usize) -> Result<Self, String> {
        let host = load.address;
        let request = |path: &String| {
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: products-measure\r\n\r\n")
        };
        let failed = |error: io::Error| format!("cannot connect to {host}: {error}");
        let stream = TcpStream::connect(host).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Connection {
            load,
            requests: load.paths.iter().map(request).collect(),
            next: number * load.paths.len() / usize::from(load.connections),
            stream,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Asks for the next path; whether it was a hit.
    async fn ask(&mut self) -> Result<bool, String> {
        let at = self.next % self.requests.len();
        self.next += 1;
        let exchange = async {
            self.stream.write_all(self.requests[at].as_bytes()).await?;
            read_answer(&mut self.stream, &mut self.buffer).await
        };
        exchange.await.map_err(|error| format!("{}: {error}", self.load.paths[at]))
    }
}

/// Reads one answer to its end; whether it was a hit.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    let wrong = |words: &str| io::Error::new(io::ErrorKind::InvalidData, words.to_owned());
    let mut filled = 0;
    let (head, length, hit) = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(wrong("the answer ended early, or its head is too long"));
        }
        filled += read;
        let Some(head) = find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let lines = &buffer[..head];
        if !lines.starts_with(b"HTTP/1.1 200 ") {
            return Err(wrong(&format!("answered {:?}", String::from_utf8_lossy(lines))));
        }
        let length = length(lines).ok_or_else(|| wrong("an answer does not tell its length"))?;
        break (head + 4, length, find(lines, b"\ncache-status: products; hit").is_some());
    };
    let mut left = (head + length)
        .checked_sub(filled)
        .ok_or_else(|| wrong("an answer is longer than it says"))?;
    while left > 0 {
        let most = left.min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(wrong("an answer ended early"));
        }
        left -= read;
    }
    Ok(hit)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

// Hyper, which sends these answers, writes names in lower case.
fn length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\ncontent-length: ";
    let digits = &head[find(head, NAME)? + NAME.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
