//! The proxy does what it is told, to the byte.

use std::time::{Duration, Instant};

use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(20);

// A server that sends back what it gets.
async fn echo() -> FaultProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    FaultProxy::start(address.to_string()).await
}

async fn client(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn exchange(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    let mut reply = vec![0; text.len()];
    timeout(LIMIT, stream.read_exact(&mut reply)).await??;
    Ok(reply)
}

#[tokio::test]
async fn bytes_pass_and_are_counted() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    for _ in 0..3 {
        assert_eq!(exchange(&mut stream, b"hello").await.unwrap(), b"hello");
    }
    assert_eq!(proxy.bytes(Direction::Requests), 15);
    assert_eq!(proxy.bytes(Direction::Replies), 15);
    assert_eq!((proxy.accepted(), proxy.open(), proxy.exchanges()), (1, 1, 3));
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; large.len()];
    let (sent, got) = tokio::join!(write.write_all(&large), read.read_exact(&mut back));
    sent.unwrap();
    got.unwrap();
    assert!(back == large);
}

#[tokio::test]
async fn an_end_is_passed_on() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply, b"last words");
}

#[tokio::test]
async fn delays_delay_and_do_not_pile_up() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::Replies, Mode::Delay(SHORT));
    let start = Instant::now();
    exchange(&mut stream, b"hello").await.unwrap();
    assert!(start.elapsed() >= SHORT);
    proxy.set(Direction::Replies, Mode::Jitter(SHORT));
    assert_eq!(exchange(&mut stream, b"jitter").await.unwrap(), b"jitter");
}

#[tokio::test]
async fn swallowed_bytes_are_gone() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::Replies, Mode::Swallow);
    stream.write_all(b"into the void").await.unwrap();
    let mut byte = [0];
    assert!(timeout(SHORT, stream.read(&mut byte)).await.is_err());
    while proxy.bytes(Direction::Replies) < 13 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    proxy.heal();
    assert_eq!(exchange(&mut stream, b"back").await.unwrap(), b"back");
}

#[tokio::test]
async fn held_bytes_come_later() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::Requests, Mode::Hold);
    stream.write_all(b"held").await.unwrap();
    let mut reply = [0; 4];
    assert!(timeout(SHORT, stream.read(&mut reply)).await.is_err());
    proxy.heal();
    timeout(LIMIT, stream.read_exact(&mut reply)).await.unwrap().unwrap();
    assert_eq!(&reply, b"held");
}

#[tokio::test]
async fn a_cut_comes_at_its_byte_and_once() {
    let proxy = echo().await;
    for at in [0, 1, 4] {
        let mut stream = client(&proxy).await;
        proxy.set(Direction::Replies, Mode::CutAfter(at));
        stream.write_all(b"hello").await.unwrap();
        let mut reply = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut reply)).await.unwrap().unwrap();
        assert_eq!(reply, &b"hello"[..at as usize]);
        let mut next = client(&proxy).await;
        assert_eq!(exchange(&mut next, b"next").await.unwrap(), b"next");
    }
}

#[tokio::test]
async fn a_cut_ends_what_is_open() {
    let proxy = echo().await;
    let mut streams = [client(&proxy).await, client(&proxy).await];
    for stream in &mut streams {
        exchange(stream, b"hello").await.unwrap();
    }
    proxy.cut();
    for stream in &mut streams {
        let mut byte = [0];
        let ended = timeout(LIMIT, stream.read(&mut byte)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let mut next = client(&proxy).await;
    assert_eq!(exchange(&mut next, b"next").await.unwrap(), b"next");
    assert_eq!(proxy.open(), 1);
}

#[tokio::test]
async fn refused_connections_are_refused_until_healed() {
    let proxy = echo().await;
    let mut open = client(&proxy).await;
    exchange(&mut open, b"hello").await.unwrap();
    proxy.refused().await;
    let error = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(exchange(&mut open, b"still open").await.unwrap(), b"still open");
    proxy.heal();
    let until = Instant::now() + LIMIT;
    let mut next = loop {
        match TcpStream::connect(proxy.address()).await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(exchange(&mut next, b"next").await.unwrap(), b"next");
}

#[tokio::test]
async fn a_throttle_is_slow() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::Replies, Mode::Throttle(1000));
    let start = Instant::now();
    assert_eq!(exchange(&mut stream, &[7; 200]).await.unwrap(), [7; 200]);
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_server_that_is_down_ends_the_connection() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(address.to_string()).await;
    let mut stream = client(&proxy).await;
    let mut byte = [0];
    let ended = timeout(LIMIT, stream.read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
