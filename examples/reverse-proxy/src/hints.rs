//! 1xx responses (RFC 9110 §15.2, RFC 8297) on their way to the client.
//!
//! hyper tells of those that come from the origin, and has no way to send one. So they are written past it: a
//! connection owns a queue, and what is in it goes out before anything that hyper writes. That is right as long as the
//! client waits for a response before it sends another request on the connection, since then nothing of an earlier
//! response can be under way when a hint comes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, StatusCode};
use larder::http::rules::headers::is_hop_by_hop;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where to leave 1xx responses for the client of a connection.
#[derive(Clone, Debug, Default)]
pub struct Hints(Arc<Mutex<Queue>>);

/// A request extension: where to leave 1xx responses until its own response begins. After that they go nowhere: the
/// cache may still ask the origin on behalf of a request that was answered.
#[derive(Clone, Debug)]
pub struct Hint {
    hints: Hints,
    open: Arc<AtomicBool>,
}

impl Hint {
    /// Sends a 1xx response to the client, as soon as its connection can be written to.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if self.open.load(Ordering::Acquire) {
            self.hints.send(status, headers);
        }
    }

    /// The response begins.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Queue {
    bytes: BytesMut,
    waker: Option<Waker>,
}

// An origin that sends more than this before its answer is not passed on whole.
const MOST: usize = 64 * 1024;

impl Hints {
    /// For one request.
    pub fn open(&self) -> Hint {
        Hint { hints: self.clone(), open: Arc::new(AtomicBool::new(true)) }
    }

    fn send(&self, status: StatusCode, headers: &HeaderMap) {
        // 101 changes the protocol, and this connection's is not changed; 100 is between neighbors.
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        let waker = {
            let mut queue = self.0.lock();
            if queue.bytes.len() > MOST {
                return;
            }
            let reason = status.canonical_reason().unwrap_or("Informational");
            let line = format!("HTTP/1.1 {} {reason}\r\n", status.as_str());
            queue.bytes.extend_from_slice(line.as_bytes());
            for (name, value) in headers.iter().filter(|(name, _)| !is_hop_by_hop(name)) {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    queue.bytes.extend_from_slice(part);
                }
            }
            queue.bytes.extend_from_slice(b"\r\n");
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A connection whose hints go out before anything else.
#[derive(Debug)]
pub struct Hinting<T> {
    inner: T,
    hints: Hints,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Hinting<T> {
    /// The connection, and the hints to give to its requests.
    pub fn new(inner: T) -> (Self, Hints) {
        let hints = Hints::default();
        (Hinting { inner, hints: hints.clone() }, hints)
    }

    fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = self.hints.0.lock();
        while !queue.bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &queue.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            queue.bytes.advance(written);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Hinting<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // While a request is answered hyper waits for the connection's end, and so learns of a hint here. Whether it
        // could be written whole is no matter for reading.
        if let Poll::Ready(Err(error)) = self.poll_hints(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Hinting<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_hints(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_hints(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hints(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
